#include "common/io/mailbox.h"

#include "tests/unit/loop_fixture.h"

#include <pthread.h>

#define POSTERS 4
#define EACH	50000

struct letter {
	struct mail mail;
	unsigned poster, number;
};

struct desk {
	struct mailbox *mailbox;
	unsigned delivered;
	unsigned next[POSTERS];
	unsigned disorder;
	unsigned detach_at; /* 0: never */
};

static void on_mail(void *ctx, struct mail *mail)
{
	struct desk *desk = ctx;
	struct letter *letter = container_of(mail, struct letter, mail);

	if (letter->number != desk->next[letter->poster])
		desk->disorder++;
	desk->next[letter->poster] = letter->number + 1;
	desk->delivered++;
	free(letter);
	if (desk->delivered == desk->detach_at)
		mailbox_detach(desk->mailbox);
}

static struct letter *letter_new(unsigned poster, unsigned number)
{
	struct letter *letter = calloc(1, sizeof(*letter));

	check(letter != NULL);
	letter->mail.bytes = 10;
	letter->poster = poster;
	letter->number = number;
	return letter;
}

struct poster {
	pthread_t thread;
	struct mailbox *mailbox;
	unsigned index, refused;
};

static void *poster_run(void *arg)
{
	struct poster *p = arg;

	for (unsigned i = 0; i < EACH; i++) {
		struct letter *letter = letter_new(p->index, i);

		if (!mailbox_post(p->mailbox, &letter->mail)) {
			p->refused++;
			free(letter);
		}
	}
	return NULL;
}

static void posters_start(struct poster *posters, struct mailbox *m)
{
	for (unsigned i = 0; i < POSTERS; i++) {
		posters[i] = (struct poster){.mailbox = m, .index = i};
		assert_int_equal(pthread_create(&posters[i].thread, NULL,
						poster_run, &posters[i]),
				 0);
	}
}

static unsigned posters_join(struct poster *posters)
{
	unsigned refused = 0;

	for (unsigned i = 0; i < POSTERS; i++) {
		pthread_join(posters[i].thread, NULL);
		refused += posters[i].refused;
	}
	return refused;
}

static void test_mailbox_keeps_each_posters_order(void **state)
{
	struct loop_fixture *f = *state;
	struct desk desk = {0};
	struct poster posters[POSTERS];

	desk.mailbox = mailbox_new(&f->loop, on_mail, &desk);
	posters_start(posters, desk.mailbox);
	loop_until(f, desk.delivered == POSTERS * EACH);
	assert_int_equal(posters_join(posters), 0);
	assert_int_equal(desk.disorder, 0);
	assert_int_equal(mailbox_pending(desk.mailbox), 0);
	mailbox_close(desk.mailbox);
}

static void test_mailbox_counts_bytes_and_delivers_at_close(void **state)
{
	struct loop_fixture *f = *state;
	struct desk desk = {0};

	desk.mailbox = mailbox_new(&f->loop, on_mail, &desk);
	for (unsigned i = 0; i < 3; i++)
		assert_true(
			mailbox_post(desk.mailbox, &letter_new(0, i)->mail));
	assert_int_equal(mailbox_pending(desk.mailbox), 30);
	assert_int_equal(desk.delivered, 0);
	mailbox_close(desk.mailbox);
	assert_int_equal(desk.delivered, 3);
	assert_int_equal(desk.disorder, 0);
}

static void test_mailbox_may_be_detached_by_its_receiver(void **state)
{
	struct loop_fixture *f = *state;
	struct desk desk = {.detach_at = 2};
	struct letter *late = letter_new(0, 5);

	desk.mailbox = mailbox_new(&f->loop, on_mail, &desk);
	for (unsigned i = 0; i < 5; i++)
		assert_true(
			mailbox_post(desk.mailbox, &letter_new(0, i)->mail));
	loop_until(f, desk.delivered > 0);
	assert_int_equal(desk.delivered, 5);
	assert_int_equal(desk.disorder, 0);
	assert_false(mailbox_post(desk.mailbox, &late->mail));
	assert_int_equal(mailbox_pending(desk.mailbox), 0);

	mailbox_attach(desk.mailbox, &f->loop);
	assert_true(mailbox_post(desk.mailbox, &late->mail));
	loop_until(f, desk.delivered == 6);
	mailbox_close(desk.mailbox);
}

static void test_mailbox_detaches_under_fire(void **state)
{
	struct loop_fixture *f = *state;
	struct desk desk = {.detach_at = EACH / 2};
	struct poster posters[POSTERS];
	unsigned refused;

	desk.mailbox = mailbox_new(&f->loop, on_mail, &desk);
	posters_start(posters, desk.mailbox);
	loop_until(f, desk.delivered >= desk.detach_at);
	refused = posters_join(posters);
	assert_int_equal(desk.delivered + refused, POSTERS * EACH);
	assert_int_equal(desk.disorder, 0);
	mailbox_close(desk.mailbox);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, loop_setup, loop_teardown)
	const struct CMUnitTest tests[] = {
		T(test_mailbox_keeps_each_posters_order),
		T(test_mailbox_counts_bytes_and_delivers_at_close),
		T(test_mailbox_may_be_detached_by_its_receiver),
		T(test_mailbox_detaches_under_fire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
