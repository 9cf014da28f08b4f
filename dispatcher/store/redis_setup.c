/* The first words on a connection, and the probe that is repeated.
 *
 *	AUTH, CLIENT ID, INFO                    is it fit?
 *	SCRIPT LOAD x 3, CONFIG GET              what may a restart lose?
 *	GET REDIS_DURABLE_KEY, CLIENT KILL ID n  n: the connection before
 *
 * The last of them answered, the node is ready. CLIENT KILL is the fence that
 * redis.h speaks of: what a connection that we gave up still had unread at the
 * server can't be done after it. Connection ids are those of one run of the
 * server, so the run must be the same.
 */
#include "common/base/err.h"
#include "common/base/log.h"
#include "dispatcher/store/redis_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what the server says of itself --------------------------------------- */

static uint64_t info_number(const char *info, const char *name)
{
	char value[32];

	return redis_info_field(info, name, value, sizeof(value))
		       ? strtoull(value, NULL, 10)
		       : 0;
}

static bool info_is(const char *info, const char *name, const char *expected)
{
	char value[32];

	return redis_info_field(info, name, value, sizeof(value)) &&
	       strcmp(value, expected) == 0;
}

static void read_server(const char *info, struct redis_server *out)
{
	memset(out, 0, sizeof(*out));
	redis_info_field(info, "run_id", out->run_id, sizeof(out->run_id));
	out->cluster = info_number(info, "cluster_enabled") == 1;
	out->master = info_is(info, "role", "master");
	out->loading = info_number(info, "loading") == 1;
	out->aof = info_number(info, "aof_enabled") == 1;
	out->replicas = info_number(info, "connected_slaves");
	out->bytes = info_number(info, "used_memory");
	out->bytes_max = info_number(info, "maxmemory");
	out->evicts = out->bytes_max > 0 &&
		      !info_is(info, "maxmemory_policy", "noeviction");
}

/* NULL, or why this server can't be used. */
static const char *unfit(struct redis_node *node, const char *info)
{
	const struct redis_server *server = &node->server;
	uint64_t version = max_of(info_number(info, "redis_version"),
				  info_number(info, "valkey_version"));

	if (version == 0)
		return "it does not tell its version (INFO)";
	if (version < REDIS_VERSION_MIN)
		return "its version is below 7: Redis or Valkey 7 or later "
		       "is needed";
	if (server->loading)
		return "it is loading its data";
	if (!server->master && !server->cluster)
		return "it is a replica";
	if (server->cluster && node->s->url.sentinel[0] != 0)
		return "it is a node of a Cluster, but Sentinels are named";
	if (!server->cluster && !node->seed && node->s->url.sentinel[0] == 0)
		return "it is no node of a Cluster";
	if (!server->cluster && node->s->url.count > 1 &&
	    node->s->url.sentinel[0] == 0)
		return "several addresses are named, but it is no Cluster: "
		       "name its Sentinels with ?sentinel=NAME";
	return NULL;
}

static void take_info(struct redis_node *node, const char *info)
{
	struct store_state *state = &node->s->store.state;
	bool evicted = node->server.evicts;

	read_server(info, &node->server);
	if (node->server.evicts && !evicted)
		log_warn("STORE-REDIS-EVICTS",
			 "server=%s maxmemory-policy is not noeviction: "
			 "history may be lost before its time",
			 node->name);
	if (node->s->mode != REDIS_CLUSTER) {
		state->bytes = node->server.bytes;
		state->bytes_max = node->server.bytes_max;
	}
	node->short_of_replicas =
		node->server.replicas < node->s->store.config.replicas;
}

/* --- the dialogue --------------------------------------------------------- */

static void on_auth(struct redis_request *q UNUSED, struct redis_node *node,
		    const struct redis_reply *reply, bool unsent UNUSED)
{
	if (reply != NULL && reply->type == REDIS_REPLY_ERROR)
		redis_node_doom(node, "it refuses the password");
}

static void on_client_id(struct redis_request *q UNUSED,
			 struct redis_node *node,
			 const struct redis_reply *reply, bool unsent UNUSED)
{
	if (reply == NULL)
		return;
	if (redis_error_is(reply, "NOAUTH"))
		redis_node_doom(node, "it wants a password");
	if (reply->type == REDIS_REPLY_INTEGER)
		node->client = reply->integer;
}

/* They are answered in the order in which they were loaded. */
static void on_script(struct redis_request *q UNUSED, struct redis_node *node,
		      const struct redis_reply *reply, bool unsent UNUSED)
{
	if (reply == NULL)
		return;
	if (reply->text == NULL || reply->type != REDIS_REPLY_STRING ||
	    reply->len != REDIS_SHA_SIZE - 1) {
		if (redis_error_is(reply, "LOADING"))
			redis_node_doom(node, "it is loading its data");
		else
			redis_node_doom(node, "it takes no scripts");
		return;
	}
	memcpy(node->s->sha[REDIS_SCRIPTS - node->scripts_due--], reply->text,
	       REDIS_SHA_SIZE);
}

void redis_setup_scripts(struct redis_node *node)
{
	static const char *const scripts[REDIS_SCRIPTS] = {
		[REDIS_SCRIPT_APPEND] = redis_script_append,
		[REDIS_SCRIPT_READ] = redis_script_read,
		[REDIS_SCRIPT_TOPS] = redis_script_tops,
	};

	check(node->scripts_due == 0);
	node->scripts_due = REDIS_SCRIPTS;
	for (unsigned i = 0; i < REDIS_SCRIPTS; i++) {
		const struct redis_arg load[] = {
			redis_arg_text("SCRIPT"),
			redis_arg_text("LOAD"),
			redis_arg_text(scripts[i]),
		};

		redis_node_tell(node, on_script, load, 3);
	}
}

static void become_ready(struct redis_node *node)
{
	struct redis_store *s = node->s;

	if (node->stale_run_id[0] != 0 && node->durable[0] == 0 &&
	    strcmp(node->stale_run_id, node->server.run_id) != 0)
		metric_add(&s->store.metrics, SM_HISTORIES, 0, 1);
	redis_node_ready(node);
	if (node->server.cluster) {
		s->mode = REDIS_CLUSTER;
		redis_suspect(s);
	} else {
		if (s->mode != REDIS_SENTINEL)
			s->mode = REDIS_SINGLE;
		for (unsigned slot = 0; slot < REDIS_SLOTS; slot++)
			redis_slot_assign(s, slot, node);
	}
	s->identify_due = true;
	redis_slots_kick(s);
	redis_update(s, NULL);
}

/* Where an ACL forbids CLIENT KILL there is no fence: redis.h asks for it. */
static void on_last(struct redis_request *q UNUSED, struct redis_node *node,
		    const struct redis_reply *reply, bool unsent UNUSED)
{
	if (reply != NULL && node->doomed == NULL)
		become_ready(node);
}

static void tell_last(struct redis_node *node)
{
	const struct redis_arg ping = redis_arg_text("PING");
	char id[24];

	if (node->stale_client == 0 ||
	    strcmp(node->stale_run_id, node->server.run_id) != 0) {
		redis_node_tell(node, on_last, &ping, 1);
		return;
	}
	snprintf(id, sizeof(id), "%lld", node->stale_client);
	const struct redis_arg kill[] = {
		redis_arg_text("CLIENT"),
		redis_arg_text("KILL"),
		redis_arg_text("ID"),
		redis_arg_text(id),
	};

	redis_node_tell(node, on_last, kill, 4);
}

static void
tell_info(struct redis_node *node,
	  void (*done)(struct redis_request *q, struct redis_node *node,
		       const struct redis_reply *reply, bool unsent))
{
	const struct redis_arg info[] = {
		redis_arg_text("INFO"),	       redis_arg_text("server"),
		redis_arg_text("replication"), redis_arg_text("memory"),
		redis_arg_text("persistence"), redis_arg_text("cluster"),
	};

	redis_node_tell(node, done, info, array_len(info));
}

/* They may have been changed since. */
static void on_settings(struct redis_request *q UNUSED, struct redis_node *node,
			const struct redis_reply *reply, bool unsent UNUSED)
{
	if (reply != NULL && node->doomed == NULL)
		redis_durable_take(node, reply);
}

static void on_first_settings(struct redis_request *q UNUSED,
			      struct redis_node *node,
			      const struct redis_reply *reply,
			      bool unsent UNUSED)
{
	if (reply == NULL || node->doomed != NULL)
		return;
	redis_durable_take(node, reply);
	tell_last(node);
}

/* A server before version 7 takes no more than one section. */
static void on_info(struct redis_request *q UNUSED, struct redis_node *node,
		    const struct redis_reply *reply, bool unsent UNUSED)
{
	const char *why;

	if (reply == NULL || node->doomed != NULL)
		return;
	if (redis_error_is(reply, "NOAUTH"))
		why = "it wants a password";
	else if (reply->type != REDIS_REPLY_STRING)
		why = reply->type == REDIS_REPLY_ERROR &&
				      strstr(reply->text, "syntax") != NULL
			      ? "its version is below 7: Redis or Valkey 7 or "
				"later is needed"
			      : "it does not tell its version (INFO)";
	else {
		take_info(node, reply->text);
		why = unfit(node, reply->text);
	}
	if (why != NULL) {
		redis_node_doom(node, why);
		return;
	}
	redis_setup_scripts(node);
	redis_durable_ask(node, on_first_settings);
}

void redis_setup_begin(struct redis_node *node)
{
	const struct redis_url *url = &node->s->url;
	const char *config = node->s->store.config.password;
	const char *secret =
		config != NULL && config[0] != 0 ? config : url->secret;
	const struct redis_arg id[] = {
		redis_arg_text("CLIENT"),
		redis_arg_text("ID"),
	};

	if (secret[0] != 0 && url->user[0] != 0) {
		const struct redis_arg auth[] = {
			redis_arg_text("AUTH"),
			redis_arg_text(url->user),
			redis_arg_text(secret),
		};
		redis_node_tell(node, on_auth, auth, 3);
	} else if (secret[0] != 0) {
		const struct redis_arg auth[] = {
			redis_arg_text("AUTH"),
			redis_arg_text(secret),
		};
		/* A Sentinel without a password says so: no harm. */
		redis_node_tell(node, node->sentinel ? NULL : on_auth, auth, 2);
	}
	if (node->sentinel || node->watch)
		return;
	redis_node_tell(node, on_client_id, id, 2);
	tell_info(node, on_info);
}

/* --- probes --------------------------------------------------------------- */

static void on_probe(struct redis_request *q UNUSED, struct redis_node *node,
		     const struct redis_reply *reply, bool unsent UNUSED)
{
	bool was_master = node->server.master;

	node->probing = false;
	if (reply == NULL || node->sentinel || node->watch)
		return;
	if (reply->type != REDIS_REPLY_STRING) {
		redis_node_doom(node, "it does not answer INFO");
		return;
	}
	take_info(node, reply->text);
	if (!node->server.cluster && !node->server.master)
		redis_node_doom(node, "it is a replica");
	else if (node->server.master != was_master)
		redis_suspect(node->s);
	if (node->doomed == NULL)
		redis_node_awake(node);
	/* FLUSHALL takes it away: who is still known by it puts it back. */
	node->s->identify_due = true;
	redis_update(node->s, NULL);
}

void redis_setup_probe(struct redis_node *node)
{
	const struct redis_arg ping = redis_arg_text("PING");

	/* One that is listened to takes little else. */
	if (node->sentinel || node->watch)
		redis_node_tell(node, on_probe, &ping, 1);
	else {
		tell_info(node, on_probe);
		redis_durable_ask(node, on_settings);
	}
}
