#include "dispatcher/route/fleet.h"

#include "tests/unit/nodes_fixture.h"

#include <stdio.h>

#define CALM_MS 1000

static const struct fleet_config balanced = {
	.rebalance = true,
	.margin_percent = 10,
	.rate_permille = 5,
	.calm_ms = CALM_MS,
};

/* A fleet of one-worker nodes that hold up to 1,000 streams each. */
struct fixture {
	struct nodes_fixture *n;
	struct fleet fleet;
	struct node_worker *worker[4];
	uint64_t now_ms;
};

static void beat(struct fixture *f, unsigned i, uint64_t connections,
		 bool draining)
{
	Stentor__Link__V1__Load load = STENTOR__LINK__V1__LOAD__INIT;
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	LinkFrame content = FRAME_INIT;

	load.accepts = 10;
	load.accepts_max = 110;
	load.sent_bytes = 5000;
	load.queue_age_us = 70;
	load.fullness = connections;
	load.leave_per_ks = draining ? 50000 : 0;
	load.drain_left_ms = draining ? 4000 : 0;
	beat.connections = connections;
	beat.draining = draining;
	beat.load = &load;
	content.heartbeat = &beat;
	worker_speaks(f->n, f->worker[i], &content, f->now_ms);
}

static void look(struct fixture *f, uint64_t passed_ms)
{
	f->now_ms += passed_ms;
	fleet_look(&f->fleet, &f->n->nodes, f->now_ms);
}

static FleetWord advice(struct fixture *f, unsigned i)
{
	FleetWord word = STENTOR__LINK__V1__FLEET__INIT;

	fleet_advise(&f->fleet, f->worker[i], &word);
	return word;
}

static void enter(struct fixture *f, unsigned i, uint64_t connections)
{
	char name[8];

	snprintf(name, sizeof(name), "n%u", i);
	f->worker[i] = add_worker(f->n, name, 0, 100 + i, NULL);
	f->worker[i]->connections_max = 1000;
	beat(f, i, connections, false);
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	nodes_set_up((void **)&f->n);
	f->now_ms = 1000;
	fleet_init(&f->fleet, &balanced, f->now_ms);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	nodes_tear_down((void **)&f->n);
	free(f);
	return 0;
}

static void test_fleet_adds_up(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, 100);
	enter(f, 1, 300);
	beat(f, 1, 300, true);
	look(f, 100);
	assert_int_equal(f->fleet.sums.nodes, 2);
	assert_int_equal(f->fleet.sums.takers, 1);
	assert_int_equal(f->fleet.sums.connections, 400);
	assert_int_equal(f->fleet.sums.connections_max, 2000);
	assert_int_equal(f->fleet.sums.accepts, 20);
	assert_int_equal(f->fleet.sums.sent_bytes, 10000);
	assert_int_equal(f->fleet.sums.queue_age_us, 140);
	assert_int_equal(f->fleet.sums.fullness, 400);
	look(f, 100);
	assert_int_equal(f->fleet.sums.connections, 400);
}

static void test_fleet_node_is_its_workers(void **state)
{
	struct fixture *f = *state;

	f->worker[0] = add_worker(f->n, "n", 0, 100, NULL);
	f->worker[1] = add_worker(f->n, "n", 1, 101, NULL);
	beat(f, 0, 100, false);
	beat(f, 1, 300, false);
	look(f, 100);
	assert_int_equal(f->fleet.sums.nodes, 1);
	assert_int_equal(f->fleet.sums.takers, 1);
	/* A node is as full as its fullest worker. */
	assert_int_equal(f->fleet.sums.fullness, 300);
	assert_int_equal(f->fleet.sums.queue_age_us, 70);
	/* One that drains takes nobody, if only one of its workers says so. */
	beat(f, 1, 300, true);
	look(f, 100);
	assert_int_equal(f->fleet.sums.takers, 0);
}

static void test_fleet_drain_takes_half_of_what_is_spare(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, 500);
	enter(f, 1, 200);
	enter(f, 2, 200);
	beat(f, 0, 500, true);
	look(f, 100);
	assert_int_equal(advice(f, 0).takers, 2);
	/* 2 x (110 - 10) a second are spare, half of it for those who move. */
	assert_int_equal(advice(f, 0).leave_per_ks, 100 * 1000);
	assert_int_equal(advice(f, 0).surplus, 0);
	/* Two that drain share it by what they hold. */
	beat(f, 1, 500, true);
	look(f, 100);
	assert_int_equal(advice(f, 0).takers, 1);
	assert_int_equal(advice(f, 0).leave_per_ks, 25 * 1000);
	assert_int_equal(advice(f, 1).leave_per_ks, 25 * 1000);
}

static void test_fleet_drain_waits_for_room(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, 500);
	enter(f, 1, 900);
	beat(f, 0, 500, true);
	look(f, 100);
	/* 100 places: no more than 10 a second, for clients travel. */
	assert_int_equal(advice(f, 0).leave_per_ks, 10 * 1000);
	beat(f, 1, 1000, false);
	look(f, 100);
	assert_int_equal(advice(f, 0).leave_per_ks, 0);
	assert_int_equal(advice(f, 0).takers, 1);
}

static void test_fleet_nobody_else(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, 500);
	beat(f, 0, 500, true);
	look(f, 100);
	assert_int_equal(advice(f, 0).takers, 0);
}

static void test_fleet_eta(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, 100);
	assert_int_equal(fleet_drain_eta_ms(f->worker[0]->node), 0);
	beat(f, 0, 100, true); /* 50 a second */
	assert_int_equal(fleet_drain_eta_ms(f->worker[0]->node), 2000);
	beat(f, 0, 1000, true); /* its time is over before */
	assert_int_equal(fleet_drain_eta_ms(f->worker[0]->node), 4000);
	beat(f, 0, 0, true);
	assert_int_equal(fleet_drain_eta_ms(f->worker[0]->node), 0);
}

static void test_fleet_out_of_sight(void **state)
{
	struct fixture *f = *state;

	look(f, 100);
	assert_false(fleet_sighted(&f->fleet));
	for (unsigned i = 0; i < 3; i++)
		enter(f, i, 100);
	look(f, 100);
	assert_true(fleet_sighted(&f->fleet));
	nodes_disconnected(&f->n->nodes, f->worker[0]);
	look(f, 100);
	assert_true(fleet_sighted(&f->fleet));
	nodes_disconnected(&f->n->nodes, f->worker[1]);
	look(f, FLEET_MEMORY_MS);
	assert_false(fleet_sighted(&f->fleet));
	/* In the end it is the fleet that got smaller. */
	look(f, FLEET_MEMORY_MS);
	assert_true(fleet_sighted(&f->fleet));
	nodes_disconnected(&f->n->nodes, f->worker[2]);
	look(f, FLEET_MEMORY_MS);
	look(f, FLEET_MEMORY_MS);
	assert_false(fleet_sighted(&f->fleet));
}

static void test_fleet_that_drained_is_not_missed(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 4; i++)
		enter(f, i, 100);
	look(f, 100);
	for (unsigned i = 1; i < 4; i++) {
		beat(f, i, 0, true);
		look(f, 100);
		nodes_disconnected(&f->n->nodes, f->worker[i]);
		look(f, 100);
		assert_true(fleet_sighted(&f->fleet));
	}
}

static void test_fleet_levels_after_scale_out(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, 600);
	enter(f, 1, 600);
	look(f, 2 * CALM_MS);
	look(f, 2 * CALM_MS);
	assert_int_equal(advice(f, 0).surplus, 0);
	enter(f, 2, 0);
	look(f, 100);
	assert_int_equal(advice(f, 0).surplus, 0); /* it settles first */
	look(f, CALM_MS);
	assert_int_equal(advice(f, 0).surplus, 200);
	assert_int_equal(advice(f, 1).surplus, 200);
	assert_int_equal(advice(f, 2).surplus, 0);
	/* 5 in a thousand of 600 in a second */
	assert_int_equal(advice(f, 0).leave_per_ks, 3000);
	/* It ends at a quarter of the margin, where it would not begin. */
	beat(f, 0, 415, false);
	beat(f, 1, 415, false);
	beat(f, 2, 370, false);
	look(f, 100);
	assert_int_equal(advice(f, 0).surplus, 15);
	beat(f, 0, 405, false);
	beat(f, 1, 405, false);
	beat(f, 2, 390, false);
	look(f, 100);
	assert_int_equal(advice(f, 0).surplus, 0);
	beat(f, 0, 415, false);
	look(f, 100);
	assert_int_equal(advice(f, 0).surplus, 0);
}

static void test_fleet_levels_by_size(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, 600);
	enter(f, 1, 200);
	f->worker[0]->connections_max = 3000;
	look(f, 2 * CALM_MS);
	look(f, 2 * CALM_MS);
	assert_int_equal(advice(f, 0).surplus, 0);
	assert_int_equal(advice(f, 1).surplus, 0);
}

/* What a load balancer that throws dice leaves is no reason to move anybody. */
static void test_fleet_lets_chance_be(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, 60);
	enter(f, 1, 40);
	look(f, 2 * CALM_MS);
	look(f, 2 * CALM_MS);
	assert_int_equal(advice(f, 0).surplus, 0);
}

static void test_fleet_is_calm_while_one_drains(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, 900);
	enter(f, 1, 100);
	enter(f, 2, 100);
	look(f, 2 * CALM_MS);
	look(f, 2 * CALM_MS);
	assert_true(advice(f, 0).surplus > 0);
	beat(f, 2, 100, true);
	look(f, 100);
	assert_int_equal(advice(f, 0).surplus, 0);
	beat(f, 2, 0, true);
	look(f, CALM_MS / 2);
	assert_int_equal(advice(f, 0).surplus, 0);
	look(f, CALM_MS);
	assert_true(advice(f, 0).surplus > 0);
}

/* Takers may be there and have no room: who is full himself is to know. */
static void test_fleet_full(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, 1000);
	look(f, 100);
	assert_true(advice(f, 0).full);
	enter(f, 1, 960);
	enter(f, 2, 960);
	look(f, 100);
	assert_true(advice(f, 0).full);
	assert_int_equal(advice(f, 0).takers, 2);
	beat(f, 2, 800, false);
	look(f, 100);
	assert_false(advice(f, 0).full);
	/* What is free on its own node is not elsewhere. */
	assert_true(advice(f, 2).full);
}

static void test_fleet_rebalance_off(void **state)
{
	struct fixture *f = *state;

	f->fleet.config.rebalance = false;
	enter(f, 0, 900);
	enter(f, 1, 0);
	look(f, 2 * CALM_MS);
	look(f, 2 * CALM_MS);
	assert_int_equal(advice(f, 0).surplus, 0);
}

/* Nothing that a worker says may trip anything (asan, ubsan). */
static void test_fleet_absurd_numbers(void **state)
{
	struct fixture *f = *state;

	enter(f, 0, UINT64_MAX);
	enter(f, 1, UINT64_MAX - 1);
	enter(f, 2, 0);
	f->worker[2]->connections_max = 0;
	look(f, 2 * CALM_MS);
	look(f, 2 * CALM_MS);
	for (unsigned i = 0; i < 3; i++)
		advice(f, i);
	beat(f, 0, UINT64_MAX, true);
	look(f, 100);
	advice(f, 0);
	assert_int_equal(fleet_drain_eta_ms(f->worker[0]->node), 4000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* Who sees fewer than others do, and most have gone: it is he who is cut off.
 * Where all see as little, nobody is. */
static void test_fleet_cut_off(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3; i++)
		enter(f, i, 10);
	look(f, 100);
	assert_false(fleet_cut_off(&f->fleet, 3, 9));
	for (unsigned i = 0; i < 2; i++)
		nodes_disconnected(&f->n->nodes, f->worker[i]);
	look(f, 100);
	assert_true(fleet_cut_off(&f->fleet, 1, 3));
	assert_false(fleet_cut_off(&f->fleet, 1, 1));
	assert_false(fleet_cut_off(&f->fleet, 1, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_fleet_adds_up),
		TEST(test_fleet_node_is_its_workers),
		TEST(test_fleet_drain_takes_half_of_what_is_spare),
		TEST(test_fleet_drain_waits_for_room),
		TEST(test_fleet_nobody_else),
		TEST(test_fleet_eta),
		TEST(test_fleet_out_of_sight),
		TEST(test_fleet_that_drained_is_not_missed),
		TEST(test_fleet_levels_after_scale_out),
		TEST(test_fleet_levels_by_size),
		TEST(test_fleet_lets_chance_be),
		TEST(test_fleet_is_calm_while_one_drains),
		TEST(test_fleet_full),
		TEST(test_fleet_rebalance_off),
		TEST(test_fleet_absurd_numbers),
		TEST(test_fleet_cut_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
