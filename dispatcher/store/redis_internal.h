/* redis_internal.h - what the files of the Redis store share.
 *
 *	redis.c           open, close, state; the operations: what is asked and
 *	                  what an answer means
 *	redis_slots.c     the order of a slot's requests, sending them again
 *	redis_node.c      one connection to one server: bytes, time-outs
 *	redis_setup.c     the words at a connection's beginning, probes
 *	redis_tls.c       TLS under it
 *	redis_durable.c   whether a restart of the server may lose anything
 *	redis_resp.c      the protocol: hiredis's parser, bounded
 *	redis_cluster.c   the slot map and the nodes that serve it
 *	redis_sentinel.c  who is master, told by Sentinels
 *	redis_watch.c     what dispatchers tell one another, and their presence
 *	redis_news.c      how that goes over the wire
 *	redis_script.c    the scripts
 *
 * An *op* is one command of an operation (tops have many). It waits in its
 * slot, is sent by the slot's master's node, and comes back with a reply, or
 * without one when the connection broke.
 *
 * Of hiredis only the parser is used. Its connections block in getaddrinfo(),
 * have no time-outs, and its libuv adapter loses failed connects.
 */
#ifndef STENTOR_DISPATCHER_STORE_REDIS_INTERNAL_H
#define STENTOR_DISPATCHER_STORE_REDIS_INTERNAL_H

#include "common/ds/arena.h"
#include "common/ds/buf.h"
#include "common/ds/slab.h"
#include "common/io/tls.h"
#include "dispatcher/store/redis.h"
#include "dispatcher/store/store_impl.h"

#include <hiredis/read.h>

#define REDIS_VERSION_MIN      7
#define REDIS_OPS_MAX	       65536	   /* under way; one more is refused */
#define REDIS_NODES_MAX	       1024	   /* servers known at once */
#define REDIS_OUT_MAX	       (4u << 20)  /* bytes a node holds unsent */
#define REDIS_REPLY_MAX	       (64u << 20) /* bytes of one reply */
#define REDIS_REPLY_ELEMENTS   65536	   /* of one array */
#define REDIS_READ_RECORDS_MAX 10000	   /* of one read */
#define REDIS_READ_BYTES_MAX   (16u << 20)
#define REDIS_REDIRECTIONS_MAX 8  /* of one op */
#define REDIS_TICK_MS	       50 /* how late a time-out may be */
#define REDIS_RETRY_MS	       50 /* before an op is tried again */
#define REDIS_BACKOFF_MIN_MS   50 /* between attempts to connect */
#define REDIS_BACKOFF_MAX_MS   2000
#define REDIS_REFRESH_MS       200   /* between two questions who is master */
#define REDIS_NODE_KEEP_MS     10000 /* of a server without slots */
#define REDIS_PROBE_MS	       2000  /* between two probes of a server */
#define REDIS_PROBE_DOWN_MS    500   /* the same while it is not up */
/* How much longer than its ttl (or the ttl again, if that is more) a channel's
 * epoch and top are kept: a Lua literal. */
#define REDIS_META_KEEP_MS "86400000"
#define REDIS_ERAS_MAX	   "8" /* STORE_ERAS_MAX as a Lua literal */
_Static_assert(STORE_ERAS_MAX == 8, "REDIS_ERAS_MAX");
/* A number that is in the server's data as long as a restart loses none. */
#define REDIS_DURABLE_KEY "stentor:durable"
#define REDIS_TOPS_MAX	  256 /* channels of one script */
/* A server with more needs 4 KiB and more for a small channel. */
#define REDIS_STREAM_NODE_BYTES 1024
#define REDIS_NUMBER_SIZE	24
#define REDIS_KEY_SIZE		320
#define REDIS_SHA_SIZE		41
#define REDIS_ADDRESS_SIZE	(REDIS_HOST_SIZE + 8)

struct redis_store;
struct redis_node;

/* --- redis_resp.c ------------------------------------------------------- */

struct redis_reply {
	int type; /* REDIS_REPLY_* */
	long long integer;
	const char *text; /* zero-terminated; NULL unless string-like */
	size_t len;
	struct redis_reply **elements;
	size_t count;
};

struct redis_arg {
	const void *bytes;
	size_t len;
};

/* A parser whose replies live in `arena` until that is reset. */
redisReader *redis_reader_new(struct arena *arena);
/* Appends a command; false (and nothing) if `out` has no room. */
bool redis_encode(struct buf *out, const struct redis_arg *args, size_t count);
struct redis_arg redis_arg_text(const char *text);
/* The reply is an array whose element `i` is a string. */
const char *redis_element_text(const struct redis_reply *reply, size_t i);
/* A decimal number and what follows it: a space, which is passed, or the end.
 * False: there is none (also of NULL), or something else follows. */
bool redis_number(const char **at, uint64_t *out);
/* The element is a string that is one. */
bool redis_element_number(const struct redis_reply *reply, size_t i,
			  uint64_t *out);
/* The error reply begins with this word. */
bool redis_error_is(const struct redis_reply *reply, const char *word);
/* The value of "name:value\r\n" in an INFO text; false if it is not there. */
bool redis_info_field(const char *info, const char *name, char *value,
		      size_t size);

/* --- redis_node.c ------------------------------------------------------- */

/* What is sent and waits for its reply, embedded. */
struct redis_request {
	struct list in_node;
	uint64_t begins; /* first byte, counted over the connection */
	/* Exactly once. `reply` is valid until it returns, NULL if the
	 * connection broke; `unsent`: before a byte of it had left. */
	void (*done)(struct redis_request *q, struct redis_node *node,
		     const struct redis_reply *reply, bool unsent);
};

enum redis_node_state {
	REDIS_NODE_WAITING, /* until the next attempt */
	REDIS_NODE_CONNECTING,
	REDIS_NODE_SETUP,  /* connected; the first words */
	REDIS_NODE_SILENT, /* for too long; only listened to */
	REDIS_NODE_READY,
};

struct redis_watch;

/* A connection's socket and parser. */
struct redis_link {
	struct redis_store *s;
	struct redis_node *node; /* NULL: detached */
	uv_tcp_t tcp;
	uv_getaddrinfo_t resolve;
	uv_connect_t connect;
	uv_write_t write;
	struct buf writing; /* what libuv has of it */
	struct tls *tls;    /* NULL: plain */
	bool write_pending;
	bool tcp_open;	/* the handle is initialised */
	bool resolving; /* on_resolved() is to come */
	bool heard;	/* a byte of plain text */
	redisReader *reader;
	struct arena arena; /* of the reply that is being read */
};

/* What the server says of itself (INFO). */
struct redis_server {
	char run_id[REDIS_SHA_SIZE]; /* new with each start */
	bool cluster, master, loading, evicts;
	bool aof; /* its data is in a log too */
	unsigned long replicas;
	uint64_t bytes, bytes_max;
};

struct redis_node {
	struct list in_nodes, in_dirty;
	struct redis_store *s;
	struct redis_address address;
	char name[REDIS_ADDRESS_SIZE]; /* for people */
	enum redis_node_state state;
	struct redis_link *link; /* NULL while WAITING */
	struct buf out;		 /* encoded, not yet given to the kernel */
	uint64_t encoded, given; /* bytes, over the connection */
	struct list sent;	 /* requests in the order of their bytes */
	struct list unconfirmed; /* ops whose WAIT is not answered yet */
	uint64_t born_ms;	 /* when we heard of it */
	uint64_t since_ms;	 /* when the state began */
	uint64_t heard_ms;	 /* last byte, or when the first request left */
	uint64_t retry_at_ms, probe_at_ms;
	unsigned failures;    /* in a row */
	bool wait_due;	      /* appends were encoded since the last WAIT */
	unsigned scripts_due; /* that the server has not got yet */
	bool was_ready, was_ready_once;
	bool probing;
	bool short_of_replicas;
	const char *doomed; /* to be dropped when this reply is done with */
	char fault[STORE_FAULT_SIZE];

	/* redis_setup.c */
	struct redis_server server;
	long long client;	/* the connection's id at the server; 0 */
	long long stale_client; /* the one before: to be ended first */
	char stale_run_id[REDIS_SHA_SIZE];

	/* redis_durable.c */
	char durable[REDIS_NUMBER_SIZE]; /* REDIS_DURABLE_KEY; "" if it can't
					  * be trusted */
	bool settings_told; /* the server lets us have them (CONFIG GET) */
	bool behind;	    /* it has lost what it had answered */

	/* redis_cluster.c */
	unsigned slots; /* that it is master of */
	bool seed;	/* of the URL: kept */

	/* Only listened to: */
	bool sentinel; /* a Sentinel */
	bool watch;    /* redis_watch.c's connection */
};

struct redis_node *redis_node_new(struct redis_store *s,
				  const struct redis_address *address);
/* Ends its requests as redis_node_drop() does. */
void redis_node_free(struct redis_node *node);
bool redis_node_is(const struct redis_node *node,
		   const struct redis_address *address);
/* Queues a command; it leaves at the end of the loop's turn. False (and
 * nothing is queued) where REDIS_OUT_MAX forbids it. */
bool redis_node_send(struct redis_node *node, struct redis_request *q,
		     const struct redis_arg *args, size_t count);
/* The same for the store's own few words, which always have room. A NULL `done`
 * ignores the reply. */
void redis_node_tell(struct redis_node *node,
		     void (*done)(struct redis_request *q,
				  struct redis_node *node,
				  const struct redis_reply *reply, bool unsent),
		     const struct redis_arg *args, size_t count);
/* From a request's `done`: drop the connection afterwards. Borrows `why`. */
void redis_node_doom(struct redis_node *node, const char *why);
/* Closes the connection, ends its requests, and waits for the next attempt. */
void redis_node_drop(struct redis_node *node, const char *why);
/* The same where nothing is wrong with it. */
void redis_node_leave(struct redis_node *node);
void redis_node_flush(struct redis_node *node);
void redis_node_tick(struct redis_node *node, uint64_t now_ms);
/* It stands: the first words. */
void redis_node_connected(struct redis_node *node);
/* All of `out` was handed on. */
void redis_node_written(struct redis_node *node);
/* Bytes of the server, decrypted. The link may be detached by it. */
void redis_link_input(struct redis_link *link, const char *bytes, size_t len);
/* Hands link->writing to libuv. False: the connection was dropped. */
bool redis_link_write(struct redis_link *link);
/* The set-up's last step. */
void redis_node_ready(struct redis_node *node);
/* A probe was answered, and the server is fit: it is silent no more. */
void redis_node_awake(struct redis_node *node);

/* --- redis_setup.c ------------------------------------------------------ */

void redis_setup_begin(struct redis_node *node);
void redis_setup_probe(struct redis_node *node);
void redis_setup_scripts(struct redis_node *node);

/* --- redis_durable.c ---------------------------------------------------- */

/* Asks for the settings that matter, as far as that is of use; `done` hands
 * them to take(). */
void redis_durable_ask(struct redis_node *node,
		       void (*done)(struct redis_request *q,
				    struct redis_node *node,
				    const struct redis_reply *reply,
				    bool unsent));
void redis_durable_take(struct redis_node *node,
			const struct redis_reply *settings);

/* --- redis_slots.c ------------------------------------------------------ */

enum redis_op_kind {
	REDIS_APPEND,
	REDIS_READ,
	REDIS_TOPS,	/* of some channels of a store_tops() */
	REDIS_IDENTITY, /* the store's */
};

/* One of a store_tops()'s channels. */
struct redis_top {
	uint32_t index;
	uint16_t slot;
};

struct redis_tops {
	struct store_tops *tops;
	size_t left; /* ops to be answered */
	int rc;
	struct redis_top order[]; /* those of one op beside one another */
};

struct redis_op {
	struct redis_request request;
	struct list in_slot;
	struct redis_store *s;
	enum redis_op_kind kind;
	union {
		struct store_append *append;
		struct store_read *read;
		struct redis_tops *tops;
	};
	uint32_t first, count; /* of tops: in its order */
	uint16_t slot;
	uint8_t redirections;
	bool answered;	/* its caller was told */
	bool late;	/* but wants to hear of the reply: an append */
	bool duplicate; /* what the reply says, until WAIT is answered */
	struct redis_address
		*ask; /* the one redirection that is not for ever */
	uint64_t begun_ms, retry_at_ms;
};

/* A slot's requests are all at one server at a time. */
struct redis_slot {
	struct list in_blocked; /* if something waits */
	struct redis_node *master;
	struct list waiting;  /* ops to be sent, in order */
	struct list returned; /* ops to be sent again, before those */
	unsigned sent;
	bool moved; /* to another server, while some are under way */
	bool alone; /* an ASK is under way */
};

void redis_slots_init(struct redis_store *s);
/* `done` of an op's request. */
void redis_op_replied(struct redis_request *q, struct redis_node *node,
		      const struct redis_reply *reply, bool unsent);
/* Takes the op to its slot and sends what can be sent. */
void redis_op_submit(struct redis_op *op);
void redis_slot_assign(struct redis_store *s, unsigned slot,
		       struct redis_node *master);
/* Sends what waits, wherever that is possible now. */
void redis_slots_kick(struct redis_store *s);
/* Some append under way is worth waiting for: its caller would hear late. */
bool redis_slots_await(const struct redis_node *node);
/* Answers what is too old, or everything. */
void redis_slots_expire(struct redis_store *s, uint64_t now_ms, bool all);
/* The WAIT behind these appends was answered, or never will be. */
void redis_slots_confirm(struct list *ops, int rc);

/* --- redis.c ------------------------------------------------------------ */

enum redis_script {
	REDIS_SCRIPT_APPEND,
	REDIS_SCRIPT_READ,
	REDIS_SCRIPT_TOPS,
};
#define REDIS_SCRIPTS 3

enum redis_mode { REDIS_UNKNOWN, REDIS_SINGLE, REDIS_CLUSTER, REDIS_SENTINEL };

struct redis_store {
	struct store store;
	struct redis_url url;
	struct tls_context *tls; /* NULL: plain connections */
	uint64_t tls_refresh_ms; /* when its files are looked at */
	enum redis_mode mode;
	uv_timer_t tick;
	uv_idle_t turn;	  /* runs while something is to be flushed */
	unsigned handles; /* of the store and of links, not yet closed */
	char inbox[64 << 10];

	struct list nodes; /* servers with data */
	size_t node_count;
	struct list dirty; /* nodes with something to send */
	char sha[REDIS_SCRIPTS][REDIS_SHA_SIZE];
	char wait_ms[24], replicas[24]; /* WAIT's words */

	struct redis_slot *slots; /* REDIS_SLOTS */
	struct list blocked;	  /* slots in which something waits */
	struct slab ops;
	uint64_t epoch_floor; /* no new epoch may be at or below this */
	/* The last append that a single server has answered: what it must still
	 * have when it comes back. */
	char last_channel[256];
	struct store_place last;
	struct list refused; /* ops over REDIS_OPS_MAX */
	bool identify_due, identifying;
	uint64_t identify_at_ms;
	char fault[STORE_FAULT_SIZE]; /* the last one */

	/* redis_cluster.c, redis_sentinel.c */
	bool refresh_due, refreshing;
	uint64_t refresh_at_ms;
	unsigned refresh_turn;	     /* whom to ask next */
	struct redis_node *sentinel; /* the one that is asked now */
	uint64_t term; /* which fail-over (config-epoch) the master is of; 0 */

	struct redis_watch *watch; /* NULL: this dispatcher has no name */
};

/* Encodes and sends; false: no room now. */
bool redis_op_send(struct redis_op *op, struct redis_node *node);
/* The server has done it: takes the answer over; ERR_MALFORMED if it is none.
 */
int redis_op_take(struct redis_op *op, const struct redis_reply *reply);
/* Tells the caller and frees, unless a reply is still to come (`under_way`). */
void redis_op_end(struct redis_op *op, int rc, bool definite, bool under_way);
/* An append has ended: the other dispatchers are told. */
void redis_append_moved(struct redis_store *s, const struct store_append *a);
/* Runs the store's turn soon. */
void redis_wake(struct redis_store *s);
/* A node came up or went down: is the store up? `fault` NULL: as before. */
void redis_update(struct redis_store *s, const char *fault);
/* A handle of the store or a link was closed. */
void redis_handle_closed(struct redis_store *s);

/* The name of what is kept of a channel: its "meta", its "log", or "k:" and the
 * `rest`, an idempotency key. */
struct redis_arg redis_key(char text[REDIS_KEY_SIZE], const char *channel,
			   const char *what, const char *rest);

/* --- redis_cluster.c ---------------------------------------------------- */

/* Who is master of what is to be asked again, of the Cluster or a Sentinel. */
void redis_suspect(struct redis_store *s);
/* The turn'th, counted round, of the nodes that are ready; NULL: none is. */
struct redis_node *redis_ready_node(struct redis_store *s, unsigned turn);
void redis_cluster_tick(struct redis_store *s, uint64_t now_ms);
/* The node of an address, made if it is new; NULL: REDIS_NODES_MAX. */
struct redis_node *redis_cluster_node(struct redis_store *s,
				      const struct redis_address *address);
/* "3999 127.0.0.1:6381" of a MOVED or ASK that `from` gave. */
bool redis_cluster_target(const struct redis_node *from, const char *text,
			  struct redis_address *out);

/* --- redis_sentinel.c --------------------------------------------------- */

void redis_sentinel_open(struct redis_store *s);
void redis_sentinel_begin(struct redis_node *node);
/* Something that a Sentinel said of its own accord. */
void redis_sentinel_heard(struct redis_node *node,
			  const struct redis_reply *reply);
void redis_sentinel_tick(struct redis_store *s, uint64_t now_ms);
/* The Sentinel's connection broke: the next one's turn. */
void redis_sentinel_lost(struct redis_store *s);

/* --- redis_watch.c ------------------------------------------------------ */

void redis_watch_open(struct redis_store *s);
/* Says goodbye to the others. */
void redis_watch_close(struct redis_store *s);
void redis_watch_tick(struct redis_store *s, uint64_t now_ms);
/* The turn's end: queues what is to be told. */
void redis_watch_turn(struct redis_store *s);
/* Our append moved a top, or may have: {0, 0}. */
void redis_watch_moved(struct redis_store *s, const char *channel,
		       struct store_place top);
/* Its connection stands; said something of its own accord; broke. */
void redis_watch_begin(struct redis_node *node);
void redis_watch_heard(struct redis_node *node,
		       const struct redis_reply *reply);
void redis_watch_lost(struct redis_node *node);

/* --- redis_tls.c -------------------------------------------------------- */

int redis_tls_open(struct redis_store *s, const struct store_config *config,
		   char fault[STORE_FAULT_SIZE]) MUST_CHECK;
/* Reads certificates again that have changed. */
void redis_tls_tick(struct redis_store *s, uint64_t now_ms);
/* The TCP connection stands; redis_node_connected() follows. */
void redis_tls_begin(struct redis_link *link);
void redis_tls_input(struct redis_link *link, const char *bytes, size_t len);
void redis_tls_flush(struct redis_node *node);
/* For people: why it was given up, or why it ended. */
const char *redis_tls_late(const struct redis_link *link);
const char *redis_tls_end(const struct redis_link *link, int status);

/* --- redis_script.c ----------------------------------------------------- */

extern const char redis_script_append[], redis_script_read[],
	redis_script_tops[];

#endif
