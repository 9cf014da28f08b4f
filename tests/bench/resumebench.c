/*
 * resumebench - many browsers' EventSources that never give up: they come back
 * to any node with Last-Event-ID, and each checks that nothing of its channels
 * was lost, doubled or out of order over all its connections.
 *
 * One process, one epoll loop. Like an EventSource, a subscriber keeps the last
 * `id:` of a whole event over all connections, comes back `retry:` milliseconds
 * after whatever ended one, and sends that id. Unlike one, those with an odd
 * number also give up a connection that is silent for --silence-ms. Each comes
 * back to one of the --to addresses, by chance (--seed).
 *
 * A message starts with the stamp of bench.h: stream is the channel's number
 * plus one (0: the only channel), seq its number in the channel, which is also
 * its offset in the store (resumecheck.h). With --log nothing is judged here: a
 * log of what came is written for a judge (eventlog.h), for whom numbers may
 * come in any order and stores may go back. Numbers of channels begin at --base
 * there, so that several of these programs have one judge.
 *
 * --also NAME gives every subscriber one more channel, say an ephemeral one.
 * With --join-ms every fourth leaves after about so long and comes back as
 * somebody new. With --slow-ms every eighth stands still for so long at times.
 *
 *	stdout: "ready"     each has had its first stentor.ready
 *	stdin:  "stats"     one JSON object; of latencies since the last reset
 *	        "reset"     begins a new latency window
 *	        "tops A B"  each channel's last number, from channel 0 on: what
 *	                    `behind` of later stats is measured against
 *	        "patient"   from now on nobody gives up
 *	        "drop"      closes all connections and stays away
 *	        "go"        comes back, all at once
 *	        "flush"     the log is written out; answered with "flushed"
 *	        "quit"      (or end of input) ends
 *
 * Faults are told on stderr, the first FAULTS_TOLD of them. Bounded by
 * --max-seconds whatever happens.
 */
#include "resumereader.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define EVENTS_MAX	1024
#define REQUEST_MAX	8192u
#define TICK_MS		20 /* how late a reconnect may be */
#define CONNECTS_A_TURN 512u

/* xorshift64: the same seed, the same choices. */
static uint32_t random_below(struct bench *b, uint32_t bound)
{
	b->random ^= b->random << 13;
	b->random ^= b->random >> 7;
	b->random ^= b->random << 17;
	return (uint32_t)(b->random >> 32) % bound;
}

/* --- connections ------------------------------------------------------- */

static void sub_leave(struct bench *b, struct subscriber *s)
{
	uint64_t wait_ms = s->retry_ms;

	if (s->state != SUB_AWAY)
		close(s->fd);
	if (s->state == SUB_OPEN)
		log_life(b, s, EVENTLOG_END);
	b->open -= s->state == SUB_OPEN;
	b->ready -= s->ready;
	sse_input_fini(&s->input);
	s->state = SUB_AWAY;
	s->still = false;
	s->ready = false;
	s->ready_ns = 0;
	if (b->options.retry_ms > 0 && wait_ms > b->options.retry_ms)
		wait_ms = b->options.retry_ms;
	b->due_ns[s->number] = b->away ? NEVER : b->now_ns + wait_ms * 1000000;
}

/* Who holds no id is somebody new. */
static void sub_begin_anew(struct bench *b, struct subscriber *s)
{
	if (!s->lives)
		return;
	log_life(b, s, EVENTLOG_DEATH);
	s->lives = false;
	s->life++;
}

/* Leaves, forgets its id, and will come back as somebody new. */
static void sub_die(struct bench *b, struct subscriber *s)
{
	sub_leave(b, s);
	s->id_len = 0;
	sub_begin_anew(b, s);
}

/* When something is to happen to it if nothing comes until then: an impatient
 * subscriber gives up, one that joins now and then leaves. */
static void sub_heard(struct bench *b, const struct subscriber *s)
{
	uint64_t due = NEVER;

	if (b->options.silence_ms > 0 && s->number % 2 == 1)
		due = b->now_ns + b->options.silence_ms * 1000000ull;
	b->due_ns[s->number] = due < s->leave_ns ? due : s->leave_ns;
}

static void sub_watch(struct bench *b, struct subscriber *s, int op,
		      uint32_t what)
{
	struct epoll_event event = {.events = what, .data.ptr = s};

	if (epoll_ctl(b->epoll, op, s->fd, &event) != 0)
		die("epoll_ctl: %s", strerror(errno));
}

/* One that is slow stops reading now and then. */
static void sub_stand_still(struct bench *b, struct subscriber *s)
{
	if (!is_slow(b, s) || b->patient || !s->ready ||
	    random_below(b, 64) != 0)
		return;
	s->still = true;
	sub_watch(b, s, EPOLL_CTL_MOD, 0);
	b->due_ns[s->number] = b->now_ns + b->options.slow_ms * 1000000ull;
}

static void sub_move_on(struct bench *b, struct subscriber *s)
{
	s->still = false;
	sub_watch(b, s, EPOLL_CTL_MOD, EPOLLIN);
	sub_heard(b, s);
}

/* Sends the request; false: not connected yet, or never. */
static bool sub_request(struct bench *b, struct subscriber *s)
{
	static char text[REQUEST_MAX];
	char channel[NAME_MAX_BYTES];
	size_t n = (size_t)snprintf(text, sizeof(text),
				    "GET /v1/subscribe?format=%s",
				    wants_json(b, s) ? "json" : "raw");

	for (uint32_t i = 0; i < slots(b); i++) {
		channel_name(b, s, i, channel, sizeof(channel));
		n += (size_t)snprintf(text + n, sizeof(text) - n, "&channel=%s",
				      channel);
	}
	n += (size_t)snprintf(text + n, sizeof(text) - n,
			      " HTTP/1.1\r\nHost: bench\r\n"
			      "Accept: text/event-stream\r\n%s%s%s\r\n",
			      s->id_len > 0 ? "Last-Event-ID: " : "",
			      s->id_len > 0 ? s->id : "",
			      s->id_len > 0 ? "\r\n" : "");
	if (send(s->fd, text, n, MSG_NOSIGNAL) != (ssize_t)n)
		return false;
	b->counters.connects++;
	b->counters.resumes += s->id_len > 0;
	b->open++;
	s->state = SUB_OPEN;
	for (uint32_t i = 0; i < slots(b) && s->id_len == 0; i++)
		resume_check_forget(&s->checks[i]);
	if (s->id_len == 0)
		sub_begin_anew(b, s);
	s->lives = true;
	log_life(b, s, s->id_len > 0 ? EVENTLOG_CONNECT : EVENTLOG_BEGIN);
	return true;
}

static void sub_connect(struct bench *b, struct subscriber *s)
{
	struct linger reset = {.l_onoff = 1}; /* no TIME_WAIT: ports last */
	const struct sockaddr_in *to;

	s->node = random_below(b, b->options.nodes);
	to = &b->options.to[s->node];
	s->begun_ns = b->now_ns;
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (is_slow(b, s)) /* so that its server notices */
		setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &(int){4096},
			   sizeof(int));
	s->leave_ns = NEVER;
	if (b->options.join_ms > 0 && s->number % 4 == 3)
		s->leave_ns =
			b->now_ns + (b->options.join_ms / 2 +
				     random_below(b, b->options.join_ms)) *
					    1000000ull;
	s->state = SUB_CONNECTING;
	sub_heard(b, s);
	if (connect(s->fd, (const struct sockaddr *)to, sizeof(*to)) != 0 &&
	    errno != EINPROGRESS) {
		b->counters.refused++;
		sub_leave(b, s);
		return;
	}
	/* On loopback the connection mostly stands already. */
	sub_watch(b, s, EPOLL_CTL_ADD, sub_request(b, s) ? EPOLLIN : EPOLLOUT);
}

static void sub_read(struct bench *b, struct subscriber *s)
{
	struct arrival arrival = {.bench = b, .subscriber = s};
	ssize_t got;

	b->now_ns = now_ns();
	got = sse_input_read(&s->input, s->fd, b->buffer, on_event, &arrival);
	if (got > 0) {
		sub_heard(b, s);
		sub_stand_still(b, s);
	}
	if (got >= 0)
		return;
	if (got == SSE_INPUT_CLOSED) {
		b->counters.ended++;
	} else if (got == SSE_INPUT_REFUSED) {
		b->counters.bad_status++;
		fault(b, s, "status %u", s->input.status);
	} else {
		b->counters.malformed++;
		fault(b, s, "malformed stream");
	}
	sub_leave(b, s);
}

static void sub_event(struct bench *b, struct subscriber *s, uint32_t what)
{
	if (s->state == SUB_OPEN) {
		sub_read(b, s);
	} else if (s->state == SUB_CONNECTING) {
		if ((what & (EPOLLERR | EPOLLHUP)) != 0 || !sub_request(b, s)) {
			b->counters.refused++;
			sub_leave(b, s);
			return;
		}
		sub_watch(b, s, EPOLL_CTL_MOD, EPOLLIN);
	}
}

/* Whose time has come: those away come back, the others lose patience. At most
 * CONNECTS_A_TURN, so that what arrives is not kept waiting. */
static bool run_due(struct bench *b)
{
	uint32_t connects = 0;

	b->now_ns = now_ns();
	for (uint32_t i = 0; i < b->options.subscribers; i++) {
		struct subscriber *s = &b->subscribers[i];

		if (b->due_ns[i] > b->now_ns)
			continue;
		if (s->still) {
			sub_move_on(b, s);
		} else if (s->state != SUB_AWAY && s->leave_ns <= b->now_ns) {
			sub_die(b, s);
		} else if (s->state != SUB_AWAY) {
			b->counters.silent++;
			sub_leave(b, s);
		} else if (connects++ < CONNECTS_A_TURN) {
			sub_connect(b, s);
		} else {
			return true;
		}
	}
	return false;
}

/* --- commands ---------------------------------------------------------- */

static void print_count(const char *name, uint64_t value)
{
	printf("\"%s\":%llu,", name, (unsigned long long)value);
}

/* Pairs of subscriber and channel that have not had all up to the top, and
 * those that have had more. */
static void count_behind(const struct bench *b, uint64_t *behind,
			 uint64_t *beyond)
{
	*behind = *beyond = 0;
	for (uint32_t i = 0; i < b->options.subscribers; i++) {
		const struct subscriber *s = &b->subscribers[i];

		for (uint32_t j = 0; j < b->options.each; j++) {
			uint64_t top = b->tops[channel_of(b, s, j)];

			*behind += s->checks[j].next <= top;
			*beyond += s->checks[j].next > top + 1;
		}
	}
}

static void print_stats(const struct bench *b)
{
	const struct counters *c = &b->counters;
	uint64_t behind, beyond;

	count_behind(b, &behind, &beyond);
	putchar('{');
	print_count("subscribers", b->options.subscribers);
	print_count("open", b->open);
	print_count("ready", b->ready);
	print_count("connects", c->connects);
	print_count("resumes", c->resumes);
	print_count("refused", c->refused);
	print_count("ended", c->ended);
	print_count("silent", c->silent);
	print_count("bad_status", c->bad_status);
	print_count("malformed", c->malformed);
	print_count("notices", c->notices);
	print_count("strays", c->strays);
	print_count("misplaced", c->misplaced);
	print_count("messages", c->messages);
	print_count("replayed", c->replayed);
	print_count("holes", c->order.holes);
	print_count("doubles", c->order.doubles);
	print_count("reorders", c->order.reorders);
	print_count("gaps_told", c->order.gaps_told);
	print_count("gaps_false", c->order.gaps_false);
	print_count("gap_messages", c->order.gap_messages);
	print_count("unanchored", c->order.unanchored);
	print_count("behind", behind);
	print_count("beyond", beyond);
	printf("\"live\":");
	hist_print(stdout, &b->live);
	printf(",\"replay\":");
	hist_print(stdout, &b->replay);
	printf(",\"resume\":");
	hist_print(stdout, &b->resume);
	puts("}");
}

static void set_tops(struct bench *b, const char *text)
{
	char *end;

	for (uint32_t i = 0; i < b->options.channels; i++) {
		b->tops[i] = strtoull(text, &end, 10);
		if (end == text)
			die("tops: only %u numbers", i);
		text = end;
	}
}

/* Nobody gives up, leaves or stands still any more. */
static void be_patient(struct bench *b)
{
	b->options.silence_ms = b->options.join_ms = 0;
	for (uint32_t i = 0; i < b->options.subscribers; i++) {
		struct subscriber *s = &b->subscribers[i];

		s->leave_ns = NEVER;
		if (s->still)
			sub_move_on(b, s);
		else if (s->state != SUB_AWAY)
			sub_heard(b, s);
	}
	b->patient = true;
}

static void flush_log(struct bench *b)
{
	for (uint32_t i = 0; b->log.file && i < b->options.subscribers; i++)
		cut_runs(b, &b->subscribers[i]);
	if (b->log.file != NULL) {
		eventlog_prompt_cut(&b->log);
		fflush(b->log.file);
	}
	puts("flushed");
}

static void drop_all(struct bench *b)
{
	b->away = true;
	for (uint32_t i = 0; i < b->options.subscribers; i++)
		sub_leave(b, &b->subscribers[i]);
}

static void go_all(struct bench *b)
{
	b->away = false;
	for (uint32_t i = 0; i < b->options.subscribers; i++)
		if (b->subscribers[i].state == SUB_AWAY)
			b->due_ns[i] = 0;
}

/* Obeys one line; false: the end. */
static bool obey(struct bench *b, const char *line)
{
	if (strcmp(line, "quit\n") == 0)
		return false;
	if (strcmp(line, "stats\n") == 0) {
		print_stats(b);
	} else if (strcmp(line, "reset\n") == 0) {
		memset(&b->live, 0, sizeof(b->live));
		memset(&b->replay, 0, sizeof(b->replay));
		memset(&b->resume, 0, sizeof(b->resume));
	} else if (strncmp(line, "tops ", 5) == 0) {
		set_tops(b, line + 5);
	} else if (strcmp(line, "patient\n") == 0) {
		be_patient(b);
	} else if (strcmp(line, "flush\n") == 0) {
		flush_log(b);
	} else if (strcmp(line, "drop\n") == 0) {
		drop_all(b);
	} else if (strcmp(line, "go\n") == 0) {
		go_all(b);
	} else {
		puts("{\"error\":\"unknown\"}");
	}
	return true;
}

/* --- the loop ---------------------------------------------------------- */

static void run(struct bench *b)
{
	static struct epoll_event events[EVENTS_MAX];
	uint64_t end_ns = now_ns() + b->options.max_seconds * NS_PER_S;
	char *line = NULL;
	size_t room = 0;

	while (b->now_ns < end_ns) {
		bool more = run_due(b);
		int n = epoll_wait(b->epoll, events, EVENTS_MAX,
				   more ? 0 : TICK_MS);

		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr != NULL)
				sub_event(b, events[i].data.ptr,
					  events[i].events);
			else if (getline(&line, &room, stdin) < 0 ||
				 !obey(b, line))
				return;
		}
		if (!b->told && b->were_ready == b->options.subscribers) {
			puts("ready");
			b->told = true;
		}
	}
}

static void sub_init(struct bench *b, uint32_t number)
{
	struct subscriber *s = &b->subscribers[number];
	char names[CHANNELS_EACH + 1][NAME_MAX_BYTES];
	const char *list[CHANNELS_EACH + 1];

	s->number = number;
	s->retry_ms = RETRY_MS;
	s->checks = calloc(slots(b), sizeof(*s->checks));
	s->runs = calloc(slots(b), sizeof(*s->runs));
	if (s->checks == NULL || s->runs == NULL)
		die("out of memory");
	for (uint32_t i = 0; i < slots(b); i++) {
		channel_name(b, s, i, names[i], sizeof(names[i]));
		list[i] = names[i];
	}
	s->list_hash = place_list_hash(list, slots(b));
}

static void start(struct bench *b)
{
	const struct options *o = &b->options;
	struct epoll_event in = {.events = EPOLLIN};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setvbuf(stdin, NULL, _IONBF, 0); /* epoll must see what is unread */
	setvbuf(stdout, NULL, _IOLBF, 0);
	b->random = o->seed * 0x9e3779b97f4a7c15ull | 1;
	b->epoll = epoll_create1(EPOLL_CLOEXEC);
	b->subscribers = calloc(o->subscribers, sizeof(*b->subscribers));
	b->due_ns = calloc(o->subscribers, sizeof(*b->due_ns));
	b->tops = calloc(o->channels, sizeof(*b->tops));
	if (b->epoll < 0 || !b->subscribers || !b->due_ns || !b->tops ||
	    epoll_ctl(b->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &in) != 0)
		die("cannot start: %s", strerror(errno));
	if (o->log != NULL)
		eventlog_open(&b->log, o->log);
	for (uint32_t i = 0; i < o->subscribers; i++)
		sub_init(b, i);
}

int main(int argc, char **argv)
{
	static struct bench bench = {
		.options = {.subscribers = 1000,
			    .channels = 1,
			    .each = 1,
			    .seed = 1,
			    .max_seconds = 120},
	};

	resume_options(&bench.options, argc, argv);
	start(&bench);
	run(&bench);
	return 0;
}
