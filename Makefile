# Stentor. `make help` lists the targets; everything is built below build/.
#
#   MODE   release (default), debug, asan, tsan: other modes build below
#          build/MODE, the release straight into build/.
#   V=1    show the commands.

MODE    ?= release
PREFIX  ?= /usr/local
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0)
B       := $(if $(filter release,$(MODE)),build,build/$(MODE))
PYTHON  := /usr/bin/python3

CC      ?= cc
PACKAGES := libuv libnghttp2 libprotobuf-c jansson cjose libcyaml openssl zlib libcurl lmdb hiredis
LLHTTP  ?= /usr/share/llhttp
CPPFLAGS += -I. -I$(B)/gen -isystem /usr/share/include/llhttp -D_GNU_SOURCE \
	$(shell pkg-config --cflags $(PACKAGES))
WARN    := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes \
	-Wmissing-prototypes -Wno-sign-conversion -Werror
CFLAGS  += -std=gnu11 -g -fno-omit-frame-pointer
# What makes a fault harder to use (tests/system/test_y_hardening.py looks).
# The C library counts objects' sizes at run time (3) where it and the compiler
# can.
FORTIFY := $(shell echo '\#include <string.h>' | $(CC) -O2 -D_FORTIFY_SOURCE=3 \
	-Werror -E - >/dev/null 2>&1 && echo 3 || echo 2)
BRANCHES_x86_64  := -fcf-protection
BRANCHES_aarch64 := -mbranch-protection=standard
CFLAGS  += -fPIE -fstack-protector-strong -fstack-clash-protection \
	$(BRANCHES_$(firstword $(subst -, ,$(shell $(CC) -dumpmachine))))
LDFLAGS += -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code
LDLIBS  += $(shell pkg-config --libs $(PACKAGES)) -lnng -lpthread -lm

FLAGS_release := -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=$(FORTIFY)
FLAGS_debug   := -O0
FLAGS_asan    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS_tsan    := -O1 -fsanitize=thread
# What tests/fuzz/run builds with clang.
FLAGS_libfuzzer := $(FLAGS_asan) -fsanitize=fuzzer-no-link
CFLAGS  += $(FLAGS_$(MODE))
LDFLAGS += $(filter -fsanitize%,$(FLAGS_$(MODE)))

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-6s %s\n' $(1) $(2))

# --- what is made of what ---------------------------------------------------
PROTOS  := $(sort $(shell find proto -name '*.proto'))
GEN_C   := $(PROTOS:proto/%.proto=$(B)/gen/%.pb-c.c)
GEN_O   := $(GEN_C:.c=.o)
GEN_H   := $(GEN_C:.c=.h)

# The version is a file of its own, made anew only when it has changed.
$(shell mkdir -p $(B)/gen; printf 'const char stentor_version[] = "%s";\n' \
	'$(VERSION)' | cmp -s - $(B)/gen/version.c || printf \
	'const char stentor_version[] = "%s";\n' '$(VERSION)' >$(B)/gen/version.c)

COMMON_O := $(B)/gen/version.o $(patsubst %.c,$(B)/%.o,$(filter-out common/io/nngshim.c,$(sort $(wildcard common/*/*.c)))) \
	$(addprefix $(B)/llhttp/,api.o http.o llhttp.o) $(GEN_O)
# The rooms of each program; main.c apart, so that tests can link the rest.
DISPATCHER_ROOMS := store route publish api service
DISPATCHER_O := $(patsubst %.c,$(B)/%.o,$(filter-out dispatcher/main.c,$(sort $(wildcard dispatcher/*.c $(DISPATCHER_ROOMS:%=dispatcher/%/*.c))))) \
	$(B)/dispatcher/api/descriptors.o
CONNNODE_ROOMS := node web channel link stream
CONNNODE_O := $(patsubst %.c,$(B)/%.o,$(filter-out connnode/main.c,$(sort $(wildcard connnode/*.c $(CONNNODE_ROOMS:%=connnode/%/*.c))))) \
	$(B)/connnode/web.o
CTL_O   := $(patsubst %.c,$(B)/%.o,$(filter-out dispatcher/ctl/main.c,$(sort $(wildcard dispatcher/ctl/*.c))))
SHIM_O  := $(B)/common/io/nngshim.o

PROGRAMS := $(B)/stentor-dispatcher $(B)/stentor-connnode $(B)/stentorctl
UNIT    := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/test_*.c))
SIM     := $(patsubst tests/sim/%.c,$(B)/sim/%,$(wildcard tests/sim/*.c))
BENCH   := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/*.c))
FUZZ    := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: all run test bench fuzz debug asan tsan unit sim replays tools layers \
	tidy tidy-parsers analyze format format-check reference image chart install clean help setup programs
.DELETE_ON_ERROR:
.SECONDARY:

all: programs
programs: $(PROGRAMS)
	@:

help:
	@echo "make            the three programs, in build/"
	@echo "make run        a whole cluster on this machine with a live demo page"
	@echo "make test       every test; the last line counts them"
	@echo "make bench      the performance table (tests/bench/README.md)"
	@echo "make unit sim   the fast tests alone"
	@echo "make fuzz       libFuzzer on each parser, FUZZ_SECONDS=30 each"
	@echo "make debug asan tsan    the programs and unit tests in that mode"
	@echo "make layers format-check analyze tidy-parsers    the gates of CI"
	@echo "make tidy format                       clang-tidy on all; clang-format"
	@echo "make reference  deploy/reference.md anew: options and metrics"
	@echo "make image      build/stentor-image.tar, a container image, without an engine"
	@echo "make chart      the Helm chart: checked in full, and its package in build/"
	@echo "make install PREFIX=/usr/local"

# --- programs ---------------------------------------------------------------
$(B)/libcommon.a: $(COMMON_O)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/stentor-dispatcher: $(B)/dispatcher/main.o $(DISPATCHER_O) $(SHIM_O) $(B)/libcommon.a
$(B)/stentor-connnode: $(B)/connnode/main.o $(CONNNODE_O) $(SHIM_O) $(B)/libcommon.a
$(B)/stentorctl: $(B)/dispatcher/ctl/main.o $(CTL_O) $(B)/libcommon.a
$(PROGRAMS):
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# --- tests' binaries: all rooms, no main ------------------------------------
ROOMS := $(DISPATCHER_O) $(CTL_O) $(CONNNODE_O)
$(B)/unit/% $(B)/sim/%: LDLIBS += -lcmocka
$(B)/unit/%: $(B)/tests/unit/%.o $(ROOMS) $(SHIM_O) $(B)/libcommon.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/sim/%: $(B)/tests/sim/%.o $(ROOMS) $(SHIM_O) $(B)/libcommon.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/bench/storebench: $(DISPATCHER_O) $(SHIM_O)
$(B)/bench/%: $(B)/tests/bench/%.o $(B)/libcommon.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS)

# A fuzz target replays files given as arguments unless built for libFuzzer
# (build/libfuzzer, by `make fuzz`).
$(B)/fuzz/%: $(B)/tests/fuzz/%.o $(if $(LIBFUZZER),,$(B)/tests/fuzz/replay.o) $(ROOMS) $(SHIM_O) $(B)/libcommon.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(LIBFUZZER) -o $@ $^ $(LDLIBS)

# --- objects ----------------------------------------------------------------
$(B)/%.o: %.c $(GEN_H)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(WARN) -MMD -MP -c -o $@ $<

$(B)/gen/%.o: $(B)/gen/%.c
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(B)/llhttp/%.o: $(LLHTTP)/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h: proto/%.proto $(PROTOS)
	$(call say,PROTO,$<)
	@mkdir -p $(B)/gen
	$(Q)protoc-c -Iproto --c_out=$(B)/gen $<

# Descriptors for reflection, and the node's web files: bytes in the program.
$(B)/gen/descriptors.pb: $(PROTOS)
	@mkdir -p $(@D)
	$(Q)protoc -Iproto --include_imports --descriptor_set_out=$@ \
		$(filter-out proto/stentor/link/%,$(PROTOS))
$(B)/dispatcher/api/descriptors.o: $(B)/gen/descriptors.pb
	@mkdir -p $(@D)
	$(Q)printf '.section .rodata\n.global api_descriptors, api_descriptors_end\napi_descriptors: .incbin "$<"\napi_descriptors_end: .byte 0\n.section .note.GNU-stack,"",@progbits\n' | $(CC) -c -x assembler -o $@ -

WEB := $(sort $(wildcard connnode/web/*.html connnode/web/*.css connnode/web/*.js))
web_symbol = web_$(subst .,_,$(notdir $(1)))
$(B)/connnode/web.o: $(WEB)
	@mkdir -p $(@D)
	$(Q)( echo '.section .rodata'; $(foreach f,$(WEB),echo '.global $(call web_symbol,$(f)), $(call web_symbol,$(f))_end'; echo '$(call web_symbol,$(f)): .incbin "$(f)"'; echo '$(call web_symbol,$(f))_end: .byte 0';) echo '.section .note.GNU-stack,"",@progbits' ) | $(CC) -c -x assembler -o $@ -

# --- what people call -------------------------------------------------------
setup:
	$(Q)deploy/setup.sh

run: setup
	$(Q)$(MAKE) --no-print-directory programs
	$(Q)exec $(PYTHON) deploy/demo/run.py

unit: $(UNIT)
sim: $(SIM)
replays: $(FUZZ)
# Of the bench's programs what system tests need.
tools: $(B)/bench/resumebench

test: setup
	$(Q)$(MAKE) --no-print-directory programs unit sim replays tools
	$(Q)tests/deploy/tools || echo "Without them tests of the chart are skipped"
	$(Q)tests/run-tests

bench: setup
	$(Q)$(MAKE) --no-print-directory programs $(BENCH) $(B)/sim/scale
	$(Q)$(PYTHON) tests/bench/bench.py $(BENCH_FLAGS)

debug asan tsan:
	$(Q)$(MAKE) --no-print-directory MODE=$@ programs unit sim replays tools

FUZZ_SECONDS ?= 30
fuzz:
	$(Q)tests/fuzz/run $(FUZZ_SECONDS)

layers:
	$(Q)tests/layers
FORMATTED = $(shell git ls-files '*.c' '*.h')
format:
	$(Q)clang-format -i $(FORMATTED)
format-check:
	$(Q)clang-format --dry-run --Werror $(FORMATTED)

# Files that are looked into one by one, again only if something changed. (Of
# several in one process clang-tidy 14 takes all but the first one's va_lists for
# uninitialised.) What it finds, clang-tidy writes between counts of warnings.
EXAMINED := $(sort $(wildcard common/*/*.c connnode/*.c connnode/*/*.c dispatcher/*.c dispatcher/*/*.c))
HEADERS  := $(wildcard common/*/*.h connnode/*.h connnode/*/*.h dispatcher/*.h dispatcher/*/*.h)
# Those that read what strangers send; for all of them CI has no time.
PARSERS  := $(filter common/codec/% common/io/% dispatcher/api/% \
	dispatcher/store/% connnode/stream/request.c connnode/stream/session.c,$(EXAMINED))
tidy: $(EXAMINED:%.c=$(B)/tidy/%.ok)
tidy-parsers: $(PARSERS:%.c=$(B)/tidy/%.ok)
analyze: $(EXAMINED:%.c=$(B)/analyze/%.ok)
$(B)/tidy/%.ok: %.c $(HEADERS) $(GEN_H) .clang-tidy
	$(call say,TIDY,$<)
	@mkdir -p $(@D)
	$(Q)clang-tidy --quiet $< -- $(CPPFLAGS) -std=gnu11 >$(@:.ok=.txt) 2>&1 \
		|| { cat $(@:.ok=.txt); exit 1; }
	@touch $@
$(B)/analyze/%.ok: %.c $(HEADERS) $(GEN_H)
	$(call say,GCC,$<)
	@mkdir -p $(@D)
	$(Q)gcc $(CPPFLAGS) -std=gnu11 -O1 -fanalyzer -Werror -c -o /dev/null $<
	@touch $@

reference: programs
	$(Q)$(PYTHON) deploy/reference.py

image: programs
	$(Q)deploy/image/build $(VERSION)
chart: image
	$(Q)tests/deploy/tools
	$(Q)STENTOR_DEPLOY=1 tests/run-tests deploy
	$(Q)build/tools/helm package deploy/chart -d build --app-version $(VERSION)

install: programs
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin

clean:
	rm -rf build

-include $(shell find $(B) -name '*.d' 2>/dev/null)
