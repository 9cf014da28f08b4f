/* metrics.h - what a worker counts, as one table; the supervisor adds up. */
#ifndef STENTOR_CONNNODE_NODE_METRICS_H
#define STENTOR_CONNNODE_NODE_METRICS_H

#include "common/base/metrics.h"

enum node_metric {
	NM_CONNECTIONS,
	NM_CONNECTIONS_MAX,
	NM_ACCEPTED,
	NM_REJECTED,
	NM_CLOSED,
	NM_SUBSCRIPTIONS,
	NM_CHANNELS,
	NM_RECEIVED,
	NM_DELIVERED,
	NM_DROPPED,
	NM_BYTES_SENT,
	NM_HEARTBEATS,
	NM_DELIVERY_LATENCY,
	NM_READY_LATENCY,
	NM_READY_TIMEOUTS,
	NM_SEND_QUEUE_BYTES,
	NM_QUEUE_MEMORY,
	NM_QUEUE_MEMORY_MAX,
	NM_GAVE_WAY,
	NM_FANOUT_BACKLOG_BYTES,
	NM_BLOCKED,
	NM_LOOP_LAG,
	NM_DRAINING,
	NM_LEAVING,
	NM_DISPATCHERS_UP,
	NM_CONFIG_DIFFERS,
	NM_LINKS_LOST,
	NM_LINK_GAPS,
	NM_LINK_FRAMES_STALE,
	NM_LINK_FRAMES_MALFORMED,
	NM_NNG_STUCK,
	NM_LINK_INBOX_BYTES,
	NM_RESUME,
	NM_GAPS,
	NM_REPLAYED,
	NM_REPLAYS,
	NM_REPLAY_BYTES,
	NM_REPLAY_PAGES,
	NM_REPLAY_WAITING,
	NM_LOGS,
	NM_LOG_DOUBLES,
	NM_LOG_HOLES,
	NM_LOG_BEHIND,
	NM_LOG_SWEPT,
	NM_LOG_MOVED,
	NM_LOG_FETCHED,
	NM_LOG_HELD_BYTES,
	NM_LOG_HELD_DROPPED,
	NM_QUESTIONS,
	NM_QUESTION_FAILURES,
	NM_STORE_DIFFERS,
	NM_TLS_HANDSHAKES,
	NM_AUTH_FAILURES,
	NM_AUTH_KEYS,
	NM_COUNT,
};

enum reject_reason {
	REJECT_FULL,
	REJECT_DRAINING,
	REJECT_BAD_REQUEST,
	REJECT_NOT_FOUND,
	REJECT_METHOD,
	REJECT_NOT_ACCEPTABLE,
	REJECT_TIMEOUT,
	REJECT_ADDRESS,	     /* too many streams of its address */
	REJECT_RATE,	     /* too many begin in this second */
	REJECT_HEADS,	     /* gave way to a newer connection */
	REJECT_UNAUTHORIZED, /* no token, or none that is good */
	REJECT_FORBIDDEN,    /* the token is not for these channels */
	REJECT_TOKEN_RATE,   /* too many tokens are verified in this second */
	REJECT_FILES,	     /* no descriptor was left for it */
};

enum close_cause {
	CLOSED_CLIENT,	/* went away, or a broken connection */
	CLOSED_SLOW,	/* over its byte budget */
	CLOSED_STALLED, /* took no byte for too long */
	CLOSED_DRAIN,
	CLOSED_SHUTDOWN, /* the process ends */
	CLOSED_TOKEN,	 /* its token expired or was revoked */
	CLOSED_REBALANCE,
	CLOSED_AGE,
};

enum drop_reason {
	DROP_SLOW_CONSUMER,
	DROP_NO_SUBSCRIBER,
	DROP_CONFLATED, /* replaced by a newer one of the same key */
	DROP_EXPIRED,	/* its time to live was over */
};
#define DROP_REASONS 4

/* What a client is told that it misses, and why (channel/past.h). */
enum gap_reason {
	GAP_EXPIRED,   /* the store does not keep the messages any more */
	GAP_EPOCH,     /* the place belongs to a log that is gone */
	GAP_UNKNOWN,   /* the place is beyond the log's end */
	GAP_MALFORMED, /* the client's id is none of ours, or of other channels
			*/
	GAP_REWOUND,   /* the store has lost messages that were delivered */
	GAP_LAGGING,   /* dropped: the client did not keep up */
};
#define GAP_REASONS 6
extern const char *const gap_names[GAP_REASONS + 1];

enum resume_outcome {
	RESUME_CURRENT,	 /* nothing was missed */
	RESUME_REPLAYED, /* what was missed is given */
	RESUME_GAP,	 /* it was told a gap */
};

extern const struct metric_desc node_metrics[NM_COUNT];

#endif
