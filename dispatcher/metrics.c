#include "dispatcher/metrics.h"

#include "common/base/config.h"
#include "common/base/version.h"
#include "dispatcher/dispatcher.h"

#include <stdio.h>

static const char *const reason_names[LINKQ_REASONS] = {
	[LINKQ_REFUSED] = "queue_full",
	[LINKQ_EVICTED] = "evicted",
	[LINKQ_CLEARED] = "link_lost",
};

static void single(struct metrics_text *t, const char *name,
		   enum metric_type type, const char *help, uint64_t value)
{
	metrics_head(t, name, type, help);
	metrics_sample(t, name, "", (double)value);
}

static void render_publish(const struct publisher *p, struct metrics_text *t)
{
	char labels[128];

	metrics_head(t, "publish_total", METRIC_COUNTER,
		     "Messages offered by producers, by their channel's class "
		     "and outcome.");
	for (unsigned class = 0; class < PRIORITY_CLASSES; class ++) {
		for (unsigned code = 0; code < GRPC_CODES; code++) {
			if (p->total[class][code] == 0 && code != GRPC_OK)
				continue;
			labels[0] = '\0';
			metrics_label(labels, sizeof(labels), "class",
				      priority_names[class]);
			metrics_label(labels, sizeof(labels), "code",
				      grpc_code_name((enum grpc_code)code));
			metrics_sample(t, "publish_total", labels,
				       (double)p->total[class][code]);
		}
	}
	single(t, "routed_total", METRIC_COUNTER,
	       "Deliveries put on links to workers.", p->routed);
	single(t, "routed_full_total", METRIC_COUNTER,
	       "Deliveries of stored messages that did not go by a link, for "
	       "it "
	       "was full or had been; the worker is told, and fetches them.",
	       p->links_full);
	single(t, "publish_late", METRIC_GAUGE,
	       "Messages answered UNAVAILABLE that may still turn out to be "
	       "appended.",
	       publish_late(p));
	single(t, "publish_pending", METRIC_GAUGE,
	       "Messages that wait for the store.", publish_pending(p));
}

static void render_batches(const struct publisher_service *s,
			   struct metrics_text *t)
{
	single(t, "publish_batch_waiting", METRIC_GAUGE,
	       "Messages of batches that are not answered; at most 1048576.",
	       s->batches.messages);
	single(t, "publish_batch_bytes", METRIC_GAUGE,
	       "Bytes of batches under way.", s->batches.bytes);
	single(t, "publish_batch_pending", METRIC_GAUGE,
	       "Messages of batches that wait for the store.",
	       s->batches.pending);
	single(t, "publish_share_refused_total", METRIC_COUNTER,
	       "Calls refused because their connection had its share of what "
	       "may be under way.",
	       s->calls.share_refused);
}

static void render_fanout(const struct publisher *p, struct metrics_text *t)
{
	uint64_t below = 0;
	char labels[32];

	metrics_head(t, "fanout_workers", METRIC_HISTOGRAM,
		     "Workers that a message was routed to.");
	for (unsigned i = 0; i < PUBLISH_FANOUT_BUCKETS; i++) {
		below += p->fanout[i];
		snprintf(labels, sizeof(labels), "le=\"%u\"",
			 i == 0 ? 0u : 1u << (i - 1));
		metrics_sample(t, "fanout_workers_bucket", labels,
			       (double)below);
	}
	below += p->fanout[PUBLISH_FANOUT_BUCKETS];
	metrics_sample(t, "fanout_workers_bucket", "le=\"+Inf\"",
		       (double)below);
	metrics_sample(t, "fanout_workers_sum", "", (double)p->fanout_sum);
	metrics_sample(t, "fanout_workers_count", "", (double)below);
}

/* --- links ------------------------------------------------------------- */

static double link_up(const struct node_worker *w)
{
	return w->phase == NODE_WORKER_READY;
}

static double link_queue_bytes(const struct node_worker *w)
{
	return (double)(linkq_bytes(&w->queue) + w->batch_bytes);
}

static double link_unacked_bytes(const struct node_worker *w)
{
	return (double)(w->link.tx_bytes - w->link.peer_ack_bytes);
}

static double link_messages(const struct node_worker *w)
{
	return (double)w->messages_sent;
}

static const struct link_family {
	const char *name;
	enum metric_type type;
	const char *help;
	double (*value)(const struct node_worker *w);
} link_families[] = {
	{"link_up", METRIC_GAUGE,
	 "1 while the worker is in the routing table, its snapshot complete.",
	 link_up},
	{"link_queue_bytes", METRIC_GAUGE,
	 "Bytes of deliveries that wait for the worker.", link_queue_bytes},
	{"link_unacked_bytes", METRIC_GAUGE,
	 "Bytes sent to the worker and not acknowledged by it.",
	 link_unacked_bytes},
	{"link_messages_total", METRIC_COUNTER,
	 "Deliveries sent since the link came up.", link_messages},
};

/* A name stands for the worker that has it, not for one that wants it too. */
static bool has_its_name(const struct node_worker *w)
{
	return w->phase != NODE_WORKER_REFUSED ||
	       w->refused_for !=
		       STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_NAME;
}

static void render_links(const struct nodes *n, struct metrics_text *t)
{
	for (size_t f = 0; f < array_len(link_families); f++) {
		metrics_head(t, link_families[f].name, link_families[f].type,
			     link_families[f].help);
		for (unsigned id = 0; id < INTEREST_WORKERS_MAX; id++) {
			const struct node_worker *w = n->by_id[id];
			char labels[384] = "", index[16];

			if (w == NULL || !has_its_name(w))
				continue;
			snprintf(index, sizeof(index), "%u", w->index);
			metrics_label(labels, sizeof(labels), "node",
				      w->node->name);
			metrics_label(labels, sizeof(labels), "worker", index);
			metrics_sample(t, link_families[f].name, labels,
				       link_families[f].value(w));
		}
	}
}

static void render_drops(const struct nodes *n, struct metrics_text *t)
{
	struct linkq_drops all = n->dropped;

	for (unsigned id = 0; id < INTEREST_WORKERS_MAX; id++) {
		if (n->by_id[id] != NULL)
			linkq_drops_add(&all,
					linkq_drops(&n->by_id[id]->queue));
	}
	metrics_head(t, "messages_dropped_total", METRIC_COUNTER,
		     "Deliveries lost on the way to a worker, by class and "
		     "reason.");
	for (unsigned class = 0; class < PRIORITY_CLASSES; class ++) {
		for (unsigned reason = 0; reason < LINKQ_REASONS; reason++) {
			char labels[64] = "";

			metrics_label(labels, sizeof(labels), "class",
				      priority_names[class]);
			metrics_label(labels, sizeof(labels), "reason",
				      reason_names[reason]);
			metrics_sample(t, "messages_dropped_total", labels,
				       (double)all.messages[class][reason]);
		}
	}
}

enum node_state {
	STATE_CONNECTING,
	STATE_SYNCING,
	STATE_READY,
	STATE_DRAINING,
	STATE_REFUSED,
	STATE_COUNT
};

static enum node_state metrics_state_of(const struct node *node)
{
	enum node_state state = STATE_READY;

	list_for_each (each, &node->workers) {
		const struct node_worker *w =
			container_of(each, struct node_worker, in_node);

		if (w->phase == NODE_WORKER_CONNECTING)
			return STATE_CONNECTING;
		if (w->phase == NODE_WORKER_REFUSED)
			return STATE_REFUSED;
		if (w->phase == NODE_WORKER_SYNCING)
			state = STATE_SYNCING;
		else if (w->draining && state == STATE_READY)
			state = STATE_DRAINING;
	}
	return state;
}

static void render_nodes(const struct nodes *n, struct metrics_text *t)
{
	static const char *const names[STATE_COUNT] = {
		"connecting", "syncing", "ready", "draining", "refused"};
	unsigned count[STATE_COUNT] = {0};

	list_for_each (each, &n->nodes)
		count[metrics_state_of(
			container_of(each, struct node, in_nodes))]++;
	metrics_head(t, "nodes", METRIC_GAUGE,
		     "Connection nodes known, by the state of their least "
		     "ready worker.");
	for (unsigned i = 0; i < STATE_COUNT; i++) {
		char labels[32] = "";

		metrics_label(labels, sizeof(labels), "state", names[i]);
		metrics_sample(t, "nodes", labels, count[i]);
	}
}

static unsigned count_different(const struct nodes *n)
{
	unsigned count = 0;

	for (unsigned id = 0; id < INTEREST_WORKERS_MAX; id++) {
		const struct node_worker *w = n->by_id[id];

		count += w != NULL && w->config_hash != n->config.config_hash;
	}
	return count;
}

static unsigned count_behind(const struct nodes *n)
{
	unsigned count = 0;

	for (unsigned id = 0; id < INTEREST_WORKERS_MAX; id++)
		count += n->by_id[id] != NULL &&
			 behind_any(&n->by_id[id]->behind);
	return count;
}

static void render_counters(const struct nodes *n, struct metrics_text *t)
{
	const struct nodes_counters *c = &n->counters;

	single(t, "config_differs", METRIC_GAUGE,
	       "Linked workers whose rules differ from ours; not 0 only while "
	       "a new configuration is rolled out.",
	       count_different(n));
	single(t, "links_behind", METRIC_GAUGE,
	       "Linked workers that are to be told of logs which have moved, "
	       "once their links have room.",
	       count_behind(n));
	single(t, "moved_told_total", METRIC_COUNTER,
	       "Logs that workers were told have moved, by name.",
	       c->moved_told);
	single(t, "moved_unnamed_total", METRIC_COUNTER,
	       "Times that a worker was told to ask for the tops of all its "
	       "logs.",
	       c->moved_unnamed);
	single(t, "link_queues_bytes", METRIC_GAUGE,
	       "What waits for all workers, and what that costs; at most "
	       "--link-queues-bytes-max.",
	       n->pool.bytes);
	single(t, "link_queues_displaced_total", METRIC_COUNTER,
	       "Deliveries displaced from the fullest queue because of "
	       "--link-queues-bytes-max; stored ones are fetched.",
	       n->pool.displaced);
	single(t, "links_under_way_bytes", METRIC_GAUGE,
	       "Bytes sent to all workers and not acknowledged by them.",
	       n->under_way);
	single(t, "interest_entries", METRIC_GAUGE,
	       "(channel, worker) pairs in the routing table.",
	       interest_entries(&n->interest));
	single(t, "interest_bytes", METRIC_GAUGE,
	       "Memory of the routing table, bytes.",
	       interest_bytes(&n->interest));
	single(t, "interest_full_total", METRIC_COUNTER,
	       "Times that a worker found the routing table full: it is sent "
	       "everything then, or refused.",
	       c->interest_full);
	single(t, "interest_all_workers", METRIC_GAUGE,
	       "Workers that are sent everything because the routing table "
	       "was full; at most 64.",
	       n->interest.all_count);
	single(t, "link_batches_total", METRIC_COUNTER,
	       "Batches of deliveries sent to workers.", c->batches);
	single(t, "link_hellos_total", METRIC_COUNTER,
	       "Greetings received from workers.", c->hellos);
	single(t, "link_hellos_refused_total", METRIC_COUNTER,
	       "Greetings turned down.", c->hellos_refused);
	single(t, "names_taken_total", METRIC_COUNTER,
	       "Workers refused because an elder one of their node name and "
	       "index is alive.",
	       c->names_taken);
	single(t, "links_lost_total", METRIC_COUNTER,
	       "Links that stood and ended.", c->links_lost);
	single(t, "link_gaps_total", METRIC_COUNTER,
	       "Links made anew because a frame was missing.", c->gaps);
	single(t, "link_frames_stale_total", METRIC_COUNTER,
	       "Frames of an earlier epoch, ignored.", c->frames_stale);
	single(t, "nng_stuck", METRIC_GAUGE,
	       "1 when the nng library no longer reports lost connections "
	       "(silence still ends the links); restart when convenient.",
	       nngio_stuck());
	single(t, "link_frames_malformed_total", METRIC_COUNTER,
	       "Frames that could not be decoded.", c->frames_malformed);
}

static void render_history(const struct history *h, struct metrics_text *t)
{
	single(t, "history_questions_total", METRIC_COUNTER,
	       "Workers' questions about logs.", h->counters.questions);
	single(t, "history_shared_total", METRIC_COUNTER,
	       "Of these, answered by a read that another had asked for.",
	       h->counters.shared);
	single(t, "history_failed_total", METRIC_COUNTER,
	       "Questions told to ask again: too many of them, a link's queue "
	       "half full, or the store away.",
	       h->counters.failed);
	single(t, "history_lost_total", METRIC_COUNTER,
	       "Answers that found a link's queue full.", h->counters.refused);
	single(t, "history_messages_total", METRIC_COUNTER,
	       "Messages in answers to workers.", h->counters.messages);
	single(t, "history_corrupt_total", METRIC_COUNTER,
	       "Records of the store that are no messages, left out of "
	       "answers.",
	       h->counters.corrupt);
	single(t, "history_waiting", METRIC_GAUGE,
	       "Questions not answered yet; at most 8192.", h->questions);
	single(t, "history_reads", METRIC_GAUGE,
	       "Store operations under way for workers; at most 64.",
	       h->under_way);
}

static void render_moves(const struct moves *m, struct metrics_text *t)
{
	single(t, "moves_heard_total", METRIC_COUNTER,
	       "Appends of other dispatchers of the store that were heard of.",
	       m->counters.heard);
	single(t, "moves_missed_total", METRIC_COUNTER,
	       "Times that some such news may have been missed.",
	       m->counters.missed);
	single(t, "moves_doubts_total", METRIC_COUNTER,
	       "Appends of which it could not be known whether they were done.",
	       m->counters.doubts);
	single(t, "moves_doubtful", METRIC_GAUGE,
	       "Channels whose tops are to be read because of that; at most "
	       "8192.",
	       m->count);
}

static void render_store(const struct dispatcher *d, struct metrics_text *t)
{
	const struct metrics *blocks[1];

	single(t, "store_refused_workers", METRIC_GAUGE,
	       "Workers that are refused because their positions come from "
	       "another store; not 0: the cluster's dispatchers have "
	       "different stores.",
	       d->nodes.strangers);
	single(t, "publish_stream_waiting", METRIC_GAUGE,
	       "Results of streams that wait for their turn; at most 131072.",
	       d->publishing.stream_items.used);
	single(t, "channel_reads", METRIC_GAUGE,
	       "Store operations under way for calls; at most 64.",
	       d->channels.reads);
	if (d->storage.store == NULL)
		return;
	blocks[0] = store_counters(d->storage.store);
	metrics_render(t, blocks, 1);
}

static void render_settling(const struct dispatcher *d, struct metrics_text *t)
{
	single(t, "settled", METRIC_GAUGE,
	       "1 when workers have had their time to report since the start.",
	       d->settled);
	single(t, "settle_missed_workers", METRIC_GAUGE,
	       "Workers that were not waited for any longer when "
	       "--settle-max-ms were over.",
	       d->settle_missed);
}

static void render_fleet(const struct fleet *f, struct metrics_text *t)
{
	const struct fleet_sums *s = &f->sums;

	single(t, "fleet_nodes", METRIC_GAUGE,
	       "Connection nodes of the cluster, as this dispatcher sees it.",
	       s->nodes);
	single(t, "fleet_takers", METRIC_GAUGE,
	       "Of these, those that take new event streams.", s->takers);
	single(t, "fleet_connections", METRIC_GAUGE,
	       "Event streams of all nodes: what an autoscaler is told.",
	       s->connections);
	single(t, "fleet_connections_max", METRIC_GAUGE,
	       "Event streams that all nodes may hold.", s->connections_max);
	single(t, "fleet_accepts_per_second", METRIC_GAUGE,
	       "Event streams that begin in a second, on all nodes.",
	       s->accepts);
	single(t, "fleet_sent_bytes_per_second", METRIC_GAUGE,
	       "Bytes sent to event streams in a second, by all nodes.",
	       s->sent_bytes);
}

static void render_auth(const struct access_control *access,
			struct metrics_text *t)
{
	const struct auth *a = access->auth;

	metrics_head(t, "auth_failures_total", METRIC_COUNTER,
		     "Tokens refused, by cause; clients are not told which.");
	for (unsigned fault = TOKEN_OK + 1; fault < TOKEN_FAULTS; fault++) {
		char labels[64] = "";

		metrics_label(labels, sizeof(labels), "reason",
			      token_fault_names[fault]);
		metrics_sample(t, "auth_failures_total", labels,
			       a == NULL ? 0
					 : (double)auth_faults(
						   a, (enum token_fault)fault));
	}
	single(t, "auth_keys", METRIC_GAUGE,
	       "Keys that tokens may be signed with.",
	       a == NULL ? 0 : auth_key_count(a));
	single(t, "auth_revocations", METRIC_GAUGE,
	       "Revoked subjects and tokens that are remembered; at most "
	       "10000.",
	       a == NULL ? 0 : auth_revocation_count(a));
	single(t, "publish_rate_limited_total", METRIC_COUNTER,
	       "Messages refused because of --publish-rate-max.",
	       access->rate_limited);
}

void dispatcher_metrics_render(const struct dispatcher *d,
			       struct metrics_text *t)
{
	const struct metrics *blocks[1] = {&d->metrics};

	metrics_process(t, stentor_version, NULL, 0);
	metrics_render(t, blocks, 1);
	render_publish(&d->publisher, t);
	render_batches(&d->publishing, t);
	render_fanout(&d->publisher, t);
	render_nodes(&d->nodes, t);
	render_links(&d->nodes, t);
	render_drops(&d->nodes, t);
	render_counters(&d->nodes, t);
	render_history(&d->history, t);
	render_moves(&d->moves, t);
	render_store(d, t);
	render_settling(d, t);
	render_fleet(&d->fleet, t);
	render_auth(&d->access, t);
	single(t, "link_inbox_bytes", METRIC_GAUGE,
	       "Bytes received from links that the loop has not looked at; "
	       "above 8 MiB the dispatcher stops receiving.",
	       nng_inbox_pending(d->links.inbox));
	api_metrics(d->api, t);
}
