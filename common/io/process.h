/* process.h - the options that every Stentor process has, whatever its role:
 * name, logging, authentication, admin port, and its side of the links.
 */
#ifndef STENTOR_IO_PROCESS_H
#define STENTOR_IO_PROCESS_H

#include "common/base/config.h"
#include "common/io/linkurl.h"

enum auth_mode { AUTH_JWT, AUTH_NONE };

struct process_options {
	char *name, *admin_listen;
	unsigned auth, log_level, log_format;
	bool metrics_open, core_dumps;
	char *link_listen, *link_token;
	char *link_tls_cert, *link_tls_key, *link_tls_ca, *link_tls_name;
};

extern const char *const process_auth_modes[];
extern const char *const process_log_levels[];
extern const char *const process_log_formats[];

/* Rows of a program's option table; `at` is the offset of its struct
 * process_options. Where it listens is the program's own row. */
#define PROCESS_AT(at, field) ((at) + offsetof(struct process_options, field))
#define PROCESS_ROWS(at)                                                       \
	ROW_STRING("name", PROCESS_AT(at, name), "",                           \
		   "name of this process in the cluster; empty: host name"),   \
		ROW_CHOICE("auth", PROCESS_AT(at, auth), "jwt",                \
			   process_auth_modes,                                 \
			   "who may come in: those with a token that a key "   \
			   "of the configuration's auth section signed, or "   \
			   "everybody"),                                       \
		ROW_STRING("link-token", PROCESS_AT(at, link_token), "",       \
			   "secret that links between dispatchers and nodes "  \
			   "must show; empty: none"),                          \
		ROW_STRING("link-tls-cert", PROCESS_AT(at, link_tls_cert), "", \
			   "our certificate for links, PEM file"),             \
		ROW_STRING("link-tls-key", PROCESS_AT(at, link_tls_key), "",   \
			   "its key, PEM file"),                               \
		ROW_STRING("link-tls-ca", PROCESS_AT(at, link_tls_ca), "",     \
			   "authority of the other side's certificates, PEM "  \
			   "file"),                                            \
		ROW_STRING("link-tls-name", PROCESS_AT(at, link_tls_name), "", \
			   "DNS name that the other side's certificate must "  \
			   "bear; needed for tls+tcp://"),                     \
		ROW_BOOL("metrics-open", PROCESS_AT(at, metrics_open),         \
			 "false",                                              \
			 "/metrics of the admin port needs no token, as "      \
			 "Prometheus has none that it can renew"),             \
		ROW_BOOL("core-dumps", PROCESS_AT(at, core_dumps), "false",    \
			 "let the kernel dump memory, tokens in it, when the " \
			 "process crashes, and a debugger look at it"),        \
		ROW_CHOICE("log-level", PROCESS_AT(at, log_level), "info",     \
			   process_log_levels, "least level that is written"), \
		ROW_CHOICE("log-format", PROCESS_AT(at, log_format), "json",   \
			   process_log_formats,                                \
			   "one JSON object a line, or text for people")

/* Borrows from the options. */
struct nng_tls_files process_link_tls(const struct process_options *o);

/* What the table can't say: NULL if all is well, else a text for people. */
const char *process_options_fault(const struct process_options *o,
				  char text[LINKURL_FAULT]);

/* Takes effect: logging, the host's name where none was given, and the sandbox,
 * in which only what is below `writable` can be changed (NULL: nothing). */
void process_options_apply(struct process_options *o, const char *component,
			   const char *writable);

#endif
