#include "connnode/metrics.h"

#include "common/base/config.h"

static const char *const reject_names[] = {
	"full",	  "draining",	    "bad_request", "not_found",
	"method", "not_acceptable", "timeout",	   NULL};
static const char *const close_names[] = {"client", "slow",	"stalled",
					  "drain",  "shutdown", NULL};
static const char *const drop_names[] = {"slow_consumer", "no_subscriber",
					 NULL};

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
			 "Requests that did not become an event stream; full "
			 "and draining are told to come back."},
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
			"Messages not delivered: to a slow subscriber, or "
			"without one.",
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
	[NM_FANOUT_BACKLOG_BYTES] =
		{"fanout_backlog_bytes", METRIC_GAUGE, PLAIN,
		 "Bytes of messages whose fan-out is under way."},
	[NM_BLOCKED] = {"blocked_connections", METRIC_GAUGE, PLAIN,
			"Event streams whose socket takes no more bytes."},
	[NM_LOOP_LAG] = {"event_loop_lag_seconds", METRIC_HISTOGRAM, PLAIN,
			 "How late a worker's 100 ms timer fired."},
	[NM_DRAINING] = {"draining", METRIC_GAUGE, PLAIN,
			 "Workers that send their clients away."},
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
};
