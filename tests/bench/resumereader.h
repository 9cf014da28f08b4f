/*
 * resumereader.h - one of resumebench's subscribers: its channels, and what
 * arrives for it, which is checked (resumecheck.h) or written down for a judge
 * (eventlog.h). No I/O but that log and what is told on stderr.
 */
#ifndef TESTS_BENCH_RESUMEREADER_H
#define TESTS_BENCH_RESUMEREADER_H

#include "bench.h"
#include "common/codec/place.h"
#include "eventjson.h"
#include "eventlog.h"
#include "hist.h"
#include "resumecheck.h"
#include "resumeoptions.h"
#include "sseinput.h"

#define ID_MAX	    4096u
#define FAULTS_TOLD 100u
#define GAPS_SHOWN  5u	  /* of those that are true */
#define RETRY_MS    3000u /* until a server says otherwise */
#define NEVER	    UINT64_MAX

struct counters {
	uint64_t connects, resumes, refused, ended, silent, bad_status;
	uint64_t malformed, notices, strays, misplaced;
	uint64_t messages, replayed;
	struct resume_counts order;
};

enum state { SUB_AWAY, SUB_CONNECTING, SUB_OPEN };

struct subscriber {
	struct sse_input input;
	int fd;
	uint32_t number;
	uint32_t retry_ms;
	uint32_t node; /* it is, or was, connected to */
	uint8_t state;
	bool ready, was_ready, still;
	uint32_t id_len;
	char *id;		     /* the last one; NULL: none yet; owned */
	uint32_t life;		     /* times that it began anew */
	bool lives;		     /* has been connected in this life */
	uint32_t list_hash;	     /* place.h: of its channels */
	uint64_t begun_ns;	     /* this connection */
	uint64_t ready_ns;	     /* 0: not yet */
	uint64_t leave_ns;	     /* then it dies; NEVER */
	struct resume_check *checks; /* of each of its channels */
	struct eventlog_run *runs;   /* likewise */
};

struct bench {
	struct options options;
	struct eventlog log;
	struct subscriber *subscribers;
	uint64_t *due_ns; /* of each: when to come back or lose patience */
	uint64_t *tops;
	struct counters counters;
	uint32_t open, ready, were_ready;
	uint64_t faults;
	bool told, away, patient;
	uint64_t random;
	int epoll;
	uint64_t now_ns;    /* when the turn began, or a read */
	struct hist live;   /* sent after its subscriber's stentor.ready */
	struct hist replay; /* from connect() to a message sent before */
	struct hist resume; /* from connect() to stentor.ready */
	char buffer[SSE_BUFFER_MAX];
};

static inline uint32_t channel_of(const struct bench *b,
				  const struct subscriber *s, uint32_t slot)
{
	if (slot == b->options.each)
		slot = 0; /* that of --also has the first one's number */
	return (s->number * b->options.each + slot) % b->options.channels;
}

static inline uint32_t slots(const struct bench *b)
{
	return b->options.each + (b->options.also != NULL);
}

/* The channel's number in the log and in stamps. */
static inline uint32_t log_channel(const struct bench *b,
				   const struct subscriber *s, uint32_t slot)
{
	return channel_of(b, s, slot) + (slot == b->options.each
						 ? b->options.also_base
						 : b->options.base);
}

static inline void channel_name(const struct bench *b,
				const struct subscriber *s, uint32_t slot,
				char *name, size_t size)
{
	expand_number(name, size,
		      slot == b->options.each ? b->options.also
					      : b->options.channel,
		      channel_of(b, s, slot));
}

/* It stands still at times, where that was asked for, and nobody asks when
 * messages came to it. */
static inline bool is_slow(const struct bench *b, const struct subscriber *s)
{
	return b->options.slow_ms > 0 && s->number % 8 == 5;
}

static inline bool wants_json(const struct bench *b, const struct subscriber *s)
{
	if (b->options.format == FORMAT_MIXED)
		return s->number / 2 % 2 == 1;
	return b->options.format == FORMAT_JSON;
}

static inline void __attribute__((format(printf, 3, 4)))
fault(struct bench *b, const struct subscriber *s, const char *format, ...)
{
	va_list args;

	if (b->faults++ >= FAULTS_TOLD)
		return;
	fprintf(stderr,
		"subscriber %u at node %u, %.3f s after connect, id %s: ",
		s->number, s->node,
		(double)(b->now_ns - s->begun_ns) / (double)NS_PER_S,
		s->id ? s->id : "-");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* --- channels ------------------------------------------------------------ */

/* The subscriber's slot of a channel; slots(): not one of its own. */
static inline uint32_t slot_of(const struct bench *b,
			       const struct subscriber *s, uint64_t channel)
{
	uint32_t slot = 0;

	while (slot < slots(b) && log_channel(b, s, slot) != channel)
		slot++;
	return slot;
}

/* The slot of the next `"channel":"NAME"` in `text`, slots(b) if it is none of
 * the subscriber's; leaves *text behind it. */
static inline bool next_channel(const struct bench *b,
				const struct subscriber *s, const char **text,
				const char *end, uint32_t *slot)
{
	char name[NAME_MAX_BYTES];
	size_t len;
	const char *at =
		json_text(*text, (size_t)(end - *text), "channel", &len);

	if (at == NULL)
		return false;
	for (*slot = 0; *slot < slots(b); (*slot)++) {
		channel_name(b, s, *slot, name, sizeof(name));
		if (strlen(name) == len && memcmp(name, at, len) == 0)
			break;
	}
	*text = at + len;
	return true;
}

/* --- the log ------------------------------------------------------------- */

static inline void cut_runs(struct bench *b, struct subscriber *s)
{
	for (uint32_t i = 0; i < slots(b); i++)
		eventlog_cut(&b->log, &s->runs[i], s->number, s->life,
			     log_channel(b, s, i));
}

/* What happens to all of a subscriber's channels. */
static inline void log_life(struct bench *b, struct subscriber *s,
			    enum eventlog_type type)
{
	struct eventlog_record r = {.type = (uint8_t)type,
				    .reader = s->number,
				    .life = s->life,
				    .channel = EVENTLOG_ALL,
				    .t = b->now_ns};

	if (b->log.file == NULL)
		return;
	cut_runs(b, s);
	eventlog_write(&b->log, &r);
}

/* `r` has what the type wants. */
static inline void log_slot(struct bench *b, struct subscriber *s,
			    uint32_t slot, struct eventlog_record *r)
{
	r->reader = s->number;
	r->life = s->life;
	r->channel = log_channel(b, s, slot);
	r->t = b->now_ns;
	eventlog_cut(&b->log, &s->runs[slot], s->number, s->life, r->channel);
	eventlog_write(&b->log, r);
}

/* The slot's place in an event's id; none: zeros. */
static inline struct place place_of(const struct bench *b,
				    const struct subscriber *s, uint32_t slot,
				    const struct sse_event *event)
{
	struct place places[CHANNELS_EACH + 1];
	char id[ID_MAX + 1];

	if (event->id_len == 0 || event->id_len > ID_MAX)
		return (struct place){0};
	memcpy(id, event->id, event->id_len);
	id[event->id_len] = '\0';
	if (place_decode(id, s->list_hash, places, slots(b)) != 0)
		return (struct place){0};
	return places[slot];
}

static inline void log_message(struct bench *b, struct subscriber *s,
			       uint32_t slot, const struct sse_event *event,
			       const struct stamp *stamp)
{
	struct place place = place_of(b, s, slot, event);
	struct resume_check *check = &s->checks[slot];
	struct eventlog_record r = {.type = EVENTLOG_MISPLACED,
				    .c = place.epoch,
				    .d = place.offset};
	uint32_t channel = log_channel(b, s, slot);

	if (wants_json(b, s)) {
		json_place(event->data, event->data_len, "position", &r.a,
			   &r.b);
		if (r.a != place.epoch || r.b != place.offset)
			log_slot(b, s, slot, &r);
	}
	if (stamp->seq >= check->next)
		check->next = stamp->seq + 1; /* count_behind() */
	eventlog_message(&b->log, &s->runs[slot], s->number, s->life, channel,
			 place.epoch, place.offset, stamp->seq, b->now_ns);
	if (s->ready_ns > 0 && stamp->sent_ns >= s->ready_ns && !is_slow(b, s))
		eventlog_live(&b->log, s->number, s->life, channel, stamp,
			      s->ready_ns, b->now_ns);
}

/* --- what arrives -------------------------------------------------------- */

/* stentor.ready tells the channels, each with its position if it has one. */
static inline void take_ready(struct bench *b, struct subscriber *s,
			      const struct sse_event *event)
{
	const char *at = event->data;
	const char *end = at + event->data_len;
	uint32_t slot;

	if (!s->ready) {
		s->ready = true;
		s->ready_ns = b->now_ns;
		b->ready++;
		b->were_ready += !s->was_ready;
		s->was_ready = true;
		hist_add(&b->resume, b->now_ns - s->begun_ns);
	}
	while (next_channel(b, s, &at, end, &slot)) {
		const char *next =
			memmem(at, (size_t)(end - at), "\"channel\"", 9);
		struct eventlog_record r = {.type = EVENTLOG_READY};
		size_t len = (size_t)((next ? next : end) - at);

		if (slot == slots(b))
			continue;
		json_place(at, len, "position", &r.a, &r.b);
		if (b->log.file != NULL)
			log_slot(b, s, slot, &r);
		else if (r.a > 0)
			resume_check_ready(&s->checks[slot], r.b);
	}
}

static inline void log_gap(struct bench *b, struct subscriber *s, uint32_t slot,
			   const char *text, size_t len)
{
	static const char *const reasons[] = {"expired", "epoch",
					      "unknown", "malformed",
					      "rewound", "lagging"};
	struct eventlog_record r = {.type = EVENTLOG_GAP, .detail = UINT16_MAX};
	size_t reason_len = 0;
	const char *reason = json_text(text, len, "reason", &reason_len);

	for (uint16_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reason != NULL && strlen(reasons[i]) == reason_len &&
		    memcmp(reason, reasons[i], reason_len) == 0)
			r.detail = i;
	json_place(text, len, "from", &r.a, &r.b);
	json_place(text, len, "to", &r.c, &r.d);
	log_slot(b, s, slot, &r);
}

static inline void take_gap(struct bench *b, struct subscriber *s,
			    const struct sse_event *event)
{
	const char *at = event->data;
	const char *end = at + event->data_len;
	struct resume_check *check = NULL;
	uint64_t from, to, next = 0;
	uint32_t slot = slots(b);
	bool good = false;

	if (next_channel(b, s, &at, end, &slot) && slot < slots(b))
		check = &s->checks[slot];
	if (check != NULL && b->log.file != NULL) {
		b->counters.order.gaps_told++;
		log_gap(b, s, slot, at, (size_t)(end - at));
		return;
	}
	if (check != NULL &&
	    json_offset(at, (size_t)(end - at), "from", &from) &&
	    json_offset(at, (size_t)(end - at), "to", &to)) {
		next = check->next;
		good = resume_check_gap(&b->counters.order, check, from, to);
	} else {
		b->counters.order.gaps_told++;
		b->counters.order.gaps_false++;
	}
	if (good && b->counters.order.gaps_told > GAPS_SHOWN)
		return;
	fault(b, s, "%s gap %.*s, next %llu", good ? "true" : "FALSE",
	      (int)event->data_len, event->data, (unsigned long long)next);
}

static inline void check_message(struct bench *b, struct subscriber *s,
				 struct resume_check *check, const char *data,
				 size_t len, const struct stamp *stamp)
{
	struct counters *counters = &b->counters;
	uint64_t next = check->next, offset;

	if (!resume_check_message(&counters->order, check, stamp->seq))
		fault(b, s, "channel %u: %llu came instead of %llu",
		      stamp->stream, (unsigned long long)stamp->seq,
		      (unsigned long long)next);
	if (wants_json(b, s) && json_number(data, len, "offset", &offset) &&
	    offset != stamp->seq) {
		counters->misplaced++;
		fault(b, s, "number %llu has offset %llu",
		      (unsigned long long)stamp->seq,
		      (unsigned long long)offset);
	}
}

static inline void take_message(struct bench *b, struct subscriber *s,
				const struct sse_event *event)
{
	struct counters *counters = &b->counters;
	const char *data = event->data;
	size_t len = event->data_len;
	struct stamp stamp;
	uint32_t slot;

	if (wants_json(b, s)) {
		data = memmem(data, len, "\"data\":\"", 8);
		if (data != NULL) {
			data += 8;
			len -= (size_t)(data - event->data);
		}
	}
	if (data == NULL || !stamp_read(data, len, &stamp)) {
		counters->malformed++;
		fault(b, s, "malformed %.*s", (int)event->data_len,
		      event->data);
		return;
	}
	slot = slot_of(b, s, stamp.stream > 0 ? stamp.stream - 1 : 0);
	if (slot == slots(b)) {
		counters->strays++;
		return;
	}
	counters->messages++;
	if (b->log.file != NULL)
		log_message(b, s, slot, event, &stamp);
	else
		check_message(b, s, &s->checks[slot], data, len, &stamp);
	if (s->ready_ns > 0 && stamp.sent_ns >= s->ready_ns) {
		hist_add(&b->live, b->now_ns - stamp.sent_ns);
	} else {
		counters->replayed++;
		hist_add(&b->replay, b->now_ns - s->begun_ns);
	}
}

static inline void take_id(struct subscriber *s, const struct sse_event *event)
{
	if (event->id_len > ID_MAX)
		die("an id of %zu bytes", event->id_len);
	if (s->id == NULL || s->id_len < event->id_len) {
		free(s->id);
		s->id = malloc(event->id_len + 1);
		if (s->id == NULL)
			die("out of memory");
	}
	memcpy(s->id, event->id, event->id_len);
	s->id[event->id_len] = '\0';
	s->id_len = (uint32_t)event->id_len;
}

static inline bool is_type(const struct sse_event *event, const char *type)
{
	return event->type != NULL && event->type_len == strlen(type) &&
	       memcmp(event->type, type, event->type_len) == 0;
}

struct arrival {
	struct bench *bench;
	struct subscriber *subscriber;
};

static inline void on_event(void *ctx, const struct sse_event *event)
{
	struct arrival *arrival = ctx;
	struct bench *b = arrival->bench;
	struct subscriber *s = arrival->subscriber;

	if (event->retry_len > 0)
		s->retry_ms = (uint32_t)strtoul(event->retry, NULL, 10);
	if (event->data == NULL)
		; /* fires no event */
	else if (is_type(event, "stentor.ready"))
		take_ready(b, s, event);
	else if (is_type(event, "stentor.gap"))
		take_gap(b, s, event);
	else if (event->type_len > 8 && !memcmp(event->type, "stentor.", 8))
		b->counters.notices++;
	else
		take_message(b, s, event);
	if (event->id != NULL)
		take_id(s, event);
}

#endif
