/* What the links to all dispatchers say together. */
#include "connnode/link/announcer.h"

/* All that is published there reaches us. */
static bool is_whole(const struct upstream *u)
{
	return u->phase == UPSTREAM_UP && u->knows_all;
}

size_t announcer_linked(const struct announcer *a, uint64_t *instances,
			size_t max)
{
	size_t count = 0;

	list_for_each (node, &a->upstreams) {
		const struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (is_whole(u) && u->instance != 0 && count < max)
			instances[count++] = u->instance;
	}
	return count;
}

uint64_t announcer_confirmed(const struct announcer *a)
{
	uint64_t confirmed = UINT64_MAX;

	list_for_each (node, &a->upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->phase == UPSTREAM_UP)
			confirmed = min_of(confirmed, u->confirmed);
	}
	return confirmed == UINT64_MAX ? 0 : confirmed;
}

unsigned announcer_up(const struct announcer *a)
{
	unsigned up = 0;

	list_for_each (node, &a->upstreams) {
		if (container_of(node, struct upstream, in_announcer)->phase ==
		    UPSTREAM_UP)
			up++;
	}
	return up;
}

unsigned announcer_different(const struct announcer *a)
{
	unsigned different = 0;

	list_for_each (node, &a->upstreams) {
		const struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		different += u->phase == UPSTREAM_UP &&
			     u->config_hash != a->identity.config_hash;
	}
	return different;
}

static bool is_linked(const struct announcer *a, uint64_t instance)
{
	list_for_each (node, &a->upstreams) {
		const struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (is_whole(u) && u->instance == instance)
			return true;
	}
	return false;
}

bool announcer_whole(const struct announcer *a)
{
	bool any = false;

	list_for_each (node, &a->upstreams) {
		const struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->phase != UPSTREAM_UP)
			continue;
		if (!is_whole(u) || !u->peers_known)
			return false;
		any = true;
		for (unsigned i = 0; i < u->peer_count; i++) {
			if (!is_linked(a, u->peers[i]))
				return false;
		}
	}
	return any;
}

uint64_t announcer_skew_us(const struct announcer *a)
{
	uint64_t most = 0;

	list_for_each (node, &a->upstreams) {
		const struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->phase == UPSTREAM_UP)
			most = max_of(most, skew_absolute_us(&u->skew));
	}
	return most;
}

struct fleet_heard announcer_fleet(const struct announcer *a)
{
	struct fleet_heard all = {0};

	list_for_each (node, &a->upstreams) {
		const struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->phase == UPSTREAM_UP)
			fleet_heard_add(&all, &u->fleet);
	}
	return all;
}

bool announcer_others_follow(const struct announcer *a,
			     const struct upstream *u)
{
	list_for_each (node, &a->upstreams) {
		const struct upstream *other =
			container_of(node, struct upstream, in_announcer);

		if (other != u && other->phase == UPSTREAM_UP &&
		    other->store == a->store)
			return true;
	}
	return false;
}

struct frame *announcer_heartbeat(const struct announcer *a)
{
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	uint64_t instances[ANNOUNCER_PEERS_MAX];
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;

	beat.connections = a->connections;
	beat.draining = a->draining;
	beat.store = a->store;
	beat.load = (Stentor__Link__V1__Load *)&a->load;
	beat.config_hash = a->identity.config_hash;
	if (a->ops->wall_us != NULL)
		beat.wall_us = a->ops->wall_us(a->ctx);
	beat.instances = instances;
	beat.n_instances = announcer_linked(a, instances, ANNOUNCER_PEERS_MAX);
	f.heartbeat = &beat;
	return link_control_encode(&f);
}
