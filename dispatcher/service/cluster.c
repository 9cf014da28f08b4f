/* stentor.v1.ClusterService */
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "dispatcher/service/service.h"
#include "stentor/v1/cluster.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define DRAIN_SECONDS_MAX 86400

#define REVOKE_S     (24 * 3600)
#define REVOKE_MAX_S (30 * 24 * 3600)

typedef Stentor__V1__ListNodesResponse Response;
typedef Stentor__V1__Node Node;
typedef Stentor__V1__Worker Worker;

static Stentor__V1__WorkerState cluster_state_of(const struct node_worker *w)
{
	switch (w->phase) {
	case NODE_WORKER_CONNECTING:
		return STENTOR__V1__WORKER_STATE__WORKER_STATE_CONNECTING;
	case NODE_WORKER_SYNCING:
		return STENTOR__V1__WORKER_STATE__WORKER_STATE_SYNCING;
	case NODE_WORKER_REFUSED:
		return STENTOR__V1__WORKER_STATE__WORKER_STATE_REFUSED;
	case NODE_WORKER_READY:
		break;
	}
	return w->draining ? STENTOR__V1__WORKER_STATE__WORKER_STATE_DRAINING
			   : STENTOR__V1__WORKER_STATE__WORKER_STATE_READY;
}

static void fill_worker(const struct nodes *n, const struct node_worker *w,
			Worker *out)
{
	stentor__v1__worker__init(out);
	out->index = w->index;
	out->state = cluster_state_of(w);
	out->link_address = w->link_address;
	out->connections = w->connections;
	out->connections_max = w->connections_max;
	out->channels = interest_worker_entries(&n->interest, w->id);
	out->link_queue_bytes = linkq_bytes(&w->queue) + w->batch_bytes;
	out->link_unacked_bytes = w->link.tx_bytes - w->link.peer_ack_bytes;
	out->messages_sent = w->messages_sent;
	out->messages_dropped = linkq_drops_total(linkq_drops(&w->queue));
	out->since_ms = w->since_wall_ms;
	out->accepts_per_second = w->load.accepts;
	out->accepts_max = w->load.accepts_max;
	out->sent_bytes_per_second = w->load.sent_bytes;
	out->queue_age_us = w->load.queue_age_us;
	out->fullness = w->load.fullness;
}

static Node *new_node(const struct nodes *n, struct node *node, size_t count)
{
	Node *out = xmalloc(sizeof(*out));
	uint64_t leave_per_ks = 0;

	stentor__v1__node__init(out);
	out->name = node->name;
	out->version = node->version;
	out->listen_address = node->listen_address;
	out->workers = xcalloc(count, sizeof(*out->workers));
	out->draining = true;
	list_for_each (each, &node->workers) {
		const struct node_worker *worker =
			container_of(each, struct node_worker, in_node);
		Worker *w = xmalloc(sizeof(*w));

		fill_worker(n, worker, w);
		out->connections += w->connections;
		out->connections_max += w->connections_max;
		out->draining &= worker->draining;
		leave_per_ks += worker->load.leave_per_ks;
		out->workers[out->n_workers++] = w;
	}
	out->leaving_per_second = (leave_per_ks + 999) / 1000;
	out->drain_eta_ms = fleet_drain_eta_ms(node);
	return out;
}

static size_t list_length(const struct list *head)
{
	size_t length = 0;

	list_for_each (each, head)
		length++;
	return length;
}

Response *cluster_list_new(const struct cluster_service *s)
{
	const struct nodes *n = s->nodes;
	Response *list = xmalloc(sizeof(*list));

	stentor__v1__list_nodes_response__init(list);
	list->dispatcher = (char *)s->name;
	list->nodes = xcalloc(list_length(&n->nodes), sizeof(*list->nodes));
	list_for_each (each, &n->nodes) {
		struct node *node = container_of(each, struct node, in_nodes);

		list->nodes[list->n_nodes++] =
			new_node(n, node, list_length(&node->workers));
	}
	return list;
}

void cluster_list_free(Response *list)
{
	for (size_t i = 0; i < list->n_nodes; i++) {
		for (size_t j = 0; j < list->nodes[i]->n_workers; j++)
			free(list->nodes[i]->workers[j]);
		free(list->nodes[i]->workers);
		free(list->nodes[i]);
	}
	free(list->nodes);
	free(list);
}

static void on_list_nodes(struct rpc_call *call,
			  const ProtobufCMessage *m UNUSED)
{
	Response *list;

	if (!access_admin(call))
		return;
	list = cluster_list_new(call->service->ctx);
	rpc_reply(call, &list->base);
	cluster_list_free(list);
}

/* --- RevokeToken ------------------------------------------------------- */

typedef Stentor__V1__RevokeTokenRequest RevokeRequest;

/* Ends the call if the request is not one. */
static bool check_revoke(struct rpc_call *call, const RevokeRequest *request)
{
	const struct cluster_service *s = call->service->ctx;
	size_t sub = strlen(request->sub), jti = strlen(request->jti);

	if (s->access->auth == NULL)
		rpc_fail(call, GRPC_FAILED_PRECONDITION,
			 "there are no tokens: --auth none");
	else if ((sub == 0) == (jti == 0))
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "one of sub and jti is needed");
	else if (sub > TOKEN_ID_MAX || jti > TOKEN_ID_MAX)
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "sub, jti: at most %d bytes", TOKEN_ID_MAX);
	else if (request->ttl_seconds > REVOKE_MAX_S)
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "ttl_seconds: at most %d (30 days)", REVOKE_MAX_S);
	else
		return true;
	return false;
}

static void on_revoke_token(struct rpc_call *call, const ProtobufCMessage *m)
{
	const RevokeRequest *request = (const RevokeRequest *)m;
	struct cluster_service *s = call->service->ctx;
	Stentor__V1__RevokeTokenResponse response =
		STENTOR__V1__REVOKE_TOKEN_RESPONSE__INIT;
	struct auth_revocation r = {.before_s = clock_wall_ms() / 1000};
	uint64_t ttl_s = request->ttl_seconds;
	int rc;

	if (!access_admin(call) || !check_revoke(call, request))
		return;
	memcpy(r.sub, request->sub, strlen(request->sub) + 1);
	memcpy(r.jti, request->jti, strlen(request->jti) + 1);
	r.until_s = r.before_s + (ttl_s != 0 ? ttl_s : REVOKE_S);
	response.workers = s->nodes->in_phase[NODE_WORKER_READY];
	rc = auth_revoke(s->access->auth, &r);
	if (rc == ERR_FULL) {
		rpc_fail(call, GRPC_RESOURCE_EXHAUSTED,
			 "%d revocations are kept, no more",
			 AUTH_REVOCATIONS_MAX);
		return;
	}
	check(rc == 0 || rc == ERR_EXISTS);
	log_info("REVOKED", "by=%s ttl_s=%llu",
		 r.sub[0] != '\0' ? "sub" : "jti",
		 (unsigned long long)(r.until_s - r.before_s));
	rpc_reply(call, &response.base);
}

/* --- DrainNode --------------------------------------------------------- */

typedef Stentor__V1__DrainNodeRequest DrainRequest;

static struct frame *drain_order(const DrainRequest *request)
{
	Stentor__Link__V1__DrainOrder order =
		STENTOR__LINK__V1__DRAIN_ORDER__INIT;
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;

	order.number = clock_wall_ms();
	order.seconds = request->seconds;
	order.stop = request->stop;
	f.drain = &order;
	return link_control_encode(&f);
}

static void on_drain_node(struct rpc_call *call, const ProtobufCMessage *m)
{
	const DrainRequest *request = (const DrainRequest *)m;
	struct cluster_service *s = call->service->ctx;
	Stentor__V1__DrainNodeResponse response =
		STENTOR__V1__DRAIN_NODE_RESPONSE__INIT;
	struct node *node;
	struct frame *order;

	if (!access_admin(call))
		return;
	node = nodes_find(s->nodes, request->node);
	if (node == NULL) {
		rpc_fail(call, GRPC_NOT_FOUND,
			 "node: none of this name is linked here");
		return;
	}
	if (request->seconds > DRAIN_SECONDS_MAX) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT, "seconds: at most %d",
			 DRAIN_SECONDS_MAX);
		return;
	}
	order = drain_order(request);
	list_for_each (each, &node->workers) {
		struct node_worker *w =
			container_of(each, struct node_worker, in_node);

		response.connections += w->connections;
		response.workers +=
			w->phase == NODE_WORKER_READY &&
			nodes_queue(s->nodes, w, order, PRIORITY_CRITICAL,
				    PRIORITY_CRITICAL) == 0;
	}
	frame_release(order);
	/* One that heard it is enough: its supervisor tells the others. */
	if (response.workers == 0) {
		rpc_fail(call, GRPC_UNAVAILABLE,
			 "none of the node's workers can be told now");
		return;
	}
	log_info(request->stop ? "DRAIN-STOP" : "DRAIN-ORDER",
		 "node=%s workers=%u connections=%llu", node->name,
		 response.workers, (unsigned long long)response.connections);
	rpc_reply(call, &response.base);
}

static const struct rpc_method methods[] = {
	{
		.name = "ListNodes",
		.input = &stentor__v1__list_nodes_request__descriptor,
		.output = &stentor__v1__list_nodes_response__descriptor,
		.no_side_effects = true,
		.on_message = on_list_nodes,
	},
	{
		.name = "RevokeToken",
		.input = &stentor__v1__revoke_token_request__descriptor,
		.output = &stentor__v1__revoke_token_response__descriptor,
		.on_message = on_revoke_token,
	},
	{
		.name = "DrainNode",
		.input = &stentor__v1__drain_node_request__descriptor,
		.output = &stentor__v1__drain_node_response__descriptor,
		.on_message = on_drain_node,
	},
};

struct rpc_service cluster_service(struct cluster_service *s)
{
	return (struct rpc_service){
		.name = "stentor.v1.ClusterService",
		.methods = methods,
		.method_count = array_len(methods),
		.ctx = s,
		.auth = s->access->auth,
	};
}
