#include "connnode/node/metrics.h"

#include "common/base/config.h"
#include "common/codec/token.h"
#include "common/io/tls.h"

static const char *const reject_names[] = {
	"full",		  "draining",  "bad_request", "not_found", "method",
	"not_acceptable", "timeout",   "address",     "rate",	   "heads",
	"unauthorized",	  "forbidden", "token_rate",  "files",	   NULL};
static const char *const close_names[] = {"client",    "slow",	   "stalled",
					  "drain",     "shutdown", "token",
					  "rebalance", "age",	   NULL};
static const char *const drop_names[] = {"slow_consumer", "no_subscriber",
					 "conflated", "expired", NULL};
static const char *const resume_names[] = {"current", "replayed", "gap", NULL};

const char *const gap_names[GAP_REASONS + 1] = {
	"expired", "epoch", "unknown", "malformed", "rewound", "lagging", NULL};

#define PLAIN NULL, NULL

const struct metric_desc node_metrics[NM_COUNT] = {
	[NM_CONNECTIONS] = {"connections", METRIC_GAUGE, PLAIN,
			    "Event streams open."},
	[NM_CONNECTIONS_MAX] = {"connections_max", METRIC_GAUGE, PLAIN,
				"Event streams that may be open."},
	[NM_ACCEPTED] = {"connections_accepted_total", METRIC_COUNTER, PLAIN,
			 "Event streams begun."},
	[NM_REJECTED] = {"connections_rejected_total", METRIC_COUNTER, "reason",
			 reject_names,
			 "Requests that did not become an event stream; full, "
			 "draining, address, rate and token_rate are told to "
			 "come back; files: closed at once, as no file "
			 "descriptor was left."},
	[NM_CLOSED] = {"connections_closed_total", METRIC_COUNTER, "reason",
		       close_names, "Event streams ended, by cause."},
	[NM_SUBSCRIPTIONS] = {"subscriptions", METRIC_GAUGE, PLAIN,
			      "Subscriptions, over all event streams."},
	[NM_CHANNELS] = {"channels", METRIC_GAUGE, PLAIN,
			 "Channels that a worker has subscribers for, added "
			 "up over workers."},
	[NM_RECEIVED] = {"messages_received_total", METRIC_COUNTER, "class",
			 priority_names,
			 "Messages from dispatchers, one for each worker."},
	[NM_DELIVERED] = {"messages_delivered_total", METRIC_COUNTER, "class",
			  priority_names,
			  "Messages taken by the kernel, one for each "
			  "subscriber."},
	[NM_DROPPED] = {"messages_dropped_total", METRIC_COUNTER, "class",
			priority_names,
			"Messages not delivered: to a slow subscriber (and "
			"told as a gap where the channel keeps history), "
			"without one, replaced by a newer one of the same "
			"conflation key, or after their time to live.",
			"reason", drop_names},
	[NM_BYTES_SENT] = {"bytes_sent_total", METRIC_COUNTER, PLAIN,
			   "Bytes the kernel took for event streams."},
	[NM_HEARTBEATS] = {"heartbeats_sent_total", METRIC_COUNTER, PLAIN,
			   "Heartbeat comments sent."},
	[NM_DELIVERY_LATENCY] = {"delivery_latency_seconds", METRIC_HISTOGRAM,
				 PLAIN,
				 "From a publish accepted by a dispatcher to "
				 "the kernel taking the bytes, for each "
				 "subscriber."},
	[NM_READY_LATENCY] = {"ready_latency_seconds", METRIC_HISTOGRAM, PLAIN,
			      "From a request to its stentor.ready."},
	[NM_READY_TIMEOUTS] = {"ready_timeouts_total", METRIC_COUNTER, PLAIN,
			       "Subscribers told ready although a dispatcher "
			       "had not acknowledged in time."},
	[NM_SEND_QUEUE_BYTES] = {"send_queue_bytes", METRIC_GAUGE, PLAIN,
				 "Bytes queued for event streams and not yet "
				 "taken by the kernel."},
	[NM_QUEUE_MEMORY] = {"queue_memory_bytes", METRIC_GAUGE, PLAIN,
			     "Memory of all messages that wait, in whatever "
			     "queue, each counted once."},
	[NM_QUEUE_MEMORY_MAX] =
		{"queue_memory_max_bytes", METRIC_GAUGE, PLAIN,
		 "Most of it; over that the longest queues give way."},
	[NM_GAVE_WAY] = {"gave_way_total", METRIC_COUNTER, PLAIN,
			 "Streams that were emptied or closed because queues "
			 "took too much memory together."},
	[NM_FANOUT_BACKLOG_BYTES] =
		{"fanout_backlog_bytes", METRIC_GAUGE, PLAIN,
		 "Bytes of messages whose fan-out is under way."},
	[NM_BLOCKED] = {"blocked_connections", METRIC_GAUGE, PLAIN,
			"Event streams whose socket takes no more bytes."},
	[NM_LOOP_LAG] = {"event_loop_lag_seconds", METRIC_HISTOGRAM, PLAIN,
			 "How late a worker's 100 ms timer fired."},
	[NM_DRAINING] = {"draining", METRIC_GAUGE, PLAIN,
			 "Workers that send their clients away."},
	[NM_LEAVING] = {"streams_leaving_per_second", METRIC_GAUGE, PLAIN,
			"Pace at which event streams are sent away, to drain "
			"or to even out the fleet."},
	[NM_DISPATCHERS_UP] = {"dispatcher_links_up", METRIC_GAUGE, PLAIN,
			       "Links to dispatchers that stand, over all "
			       "workers."},
	[NM_CONFIG_DIFFERS] = {"config_differs", METRIC_GAUGE, PLAIN,
			       "Links to dispatchers whose rules differ from "
			       "ours; not 0 only while a new configuration is "
			       "rolled out."},
	[NM_LINKS_LOST] = {"links_lost_total", METRIC_COUNTER, PLAIN,
			   "Links that stood and ended."},
	[NM_LINK_GAPS] = {"link_gaps_total", METRIC_COUNTER, PLAIN,
			  "Links made anew because a frame was missing."},
	[NM_LINK_FRAMES_STALE] = {"link_frames_stale_total", METRIC_COUNTER,
				  PLAIN,
				  "Frames of an earlier epoch, ignored."},
	[NM_LINK_FRAMES_MALFORMED] = {"link_frames_malformed_total",
				      METRIC_COUNTER, PLAIN,
				      "Frames that could not be decoded."},
	[NM_LINK_INBOX_BYTES] = {"link_inbox_bytes", METRIC_GAUGE, PLAIN,
				 "Bytes received from links that the loop has "
				 "not looked at; above 8 MiB a worker stops "
				 "receiving."},
	[NM_NNG_STUCK] = {"nng_stuck", METRIC_GAUGE, PLAIN,
			  "Workers whose nng library no longer reports lost "
			  "connections (silence still ends their links); "
			  "restart them when convenient."},
	[NM_RESUME] = {"resume_total", METRIC_COUNTER, "outcome", resume_names,
		       "Channels that a client came back to with its place: "
		       "nothing was missed, what was missed is replayed, or it "
		       "is told a gap."},
	[NM_GAPS] = {"gaps_told_total", METRIC_COUNTER, "reason", gap_names,
		     "stentor.gap events, one for each stream and channel."},
	[NM_REPLAYED] = {"messages_replayed_total", METRIC_COUNTER, PLAIN,
			 "Messages from the store given to streams that had "
			 "missed them, or that begin with the latest."},
	[NM_REPLAYS] = {"replays", METRIC_GAUGE, PLAIN,
			"Subscriptions that are not live yet: their place is "
			"being looked up, or what they missed is replayed."},
	[NM_REPLAY_BYTES] = {"replay_bytes", METRIC_GAUGE, PLAIN,
			     "Memory that replays hold; at most "
			     "replay-bytes-max for each worker."},
	[NM_REPLAY_PAGES] = {"replay_pages_total", METRIC_COUNTER, PLAIN,
			     "Pages of logs read from the store for replays; "
			     "clients that need the same page share it."},
	[NM_REPLAY_WAITING] = {"replay_waiting", METRIC_GAUGE, PLAIN,
			       "Pages that wait for replay memory."},
	[NM_LOGS] = {"logs", METRIC_GAUGE, PLAIN,
		     "Channels with history that a worker follows, added up "
		     "over workers."},
	[NM_LOG_DOUBLES] = {"log_doubles_total", METRIC_COUNTER, PLAIN,
			    "Messages that came twice to a worker, dropped."},
	[NM_LOG_HOLES] = {"log_holes_total", METRIC_COUNTER, PLAIN,
			  "Holes in front of a message that came; most are "
			  "filled at once by another dispatcher's link."},
	[NM_LOG_BEHIND] = {"log_behind_total", METRIC_COUNTER, PLAIN,
			   "Logs found to have more than had come, when their "
			   "tops were compared."},
	[NM_LOG_SWEPT] = {"log_swept_total", METRIC_COUNTER, PLAIN,
			  "Of these, those that only the slow sweep found; "
			  "anything else should have: 0."},
	[NM_LOG_MOVED] = {"log_moved_total", METRIC_COUNTER, PLAIN,
			  "Logs that got another epoch: made anew, or because "
			  "the store may have gone back."},
	[NM_LOG_FETCHED] = {"log_fetched_total", METRIC_COUNTER, PLAIN,
			    "Messages fetched from the store to fill holes."},
	[NM_LOG_HELD_BYTES] = {"log_held_bytes", METRIC_GAUGE, PLAIN,
			       "Bytes of messages held until the hole in front "
			       "of them is filled; at most hold-bytes-max for "
			       "each worker."},
	[NM_LOG_HELD_DROPPED] = {"log_held_dropped_total", METRIC_COUNTER,
				 PLAIN,
				 "Held messages let go for want of room, to be "
				 "fetched again."},
	[NM_QUESTIONS] = {"store_questions_total", METRIC_COUNTER, PLAIN,
			  "Questions to the store, asked through a "
			  "dispatcher."},
	[NM_QUESTION_FAILURES] = {"store_question_failures_total",
				  METRIC_COUNTER, PLAIN,
				  "Of these, how many failed or were not "
				  "answered in time, and were asked anew."},
	[NM_STORE_DIFFERS] = {"store_differs_total", METRIC_COUNTER, PLAIN,
			      "Links refused because the dispatcher uses "
			      "another store than the others."},
	[NM_TLS_HANDSHAKES] = {"tls_handshakes_total", METRIC_COUNTER,
			       "outcome", tls_outcome_names,
			       "TLS handshakes of the port for event streams; "
			       "unfinished: the client left, was too slow, or "
			       "made room for others."},
	[NM_AUTH_FAILURES] = {"auth_failures_total", METRIC_COUNTER, "reason",
			      &token_fault_names[TOKEN_OK + 1],
			      "Tokens refused, by cause; clients are not told "
			      "which."},
	[NM_AUTH_KEYS] = {"auth_keys", METRIC_GAUGE, PLAIN,
			  "Keys that tokens may be signed with, added up over "
			  "workers."},
};
