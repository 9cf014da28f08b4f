#include "common/io/gossip.h"

#include "common/base/err.h"
#include "common/base/log.h"

#include <string.h>

typedef Stentor__Link__V1__Revocation Revocation;

static void to_wire(const struct auth_revocation *r, Revocation *w)
{
	stentor__link__v1__revocation__init(w);
	w->sub = (char *)r->sub;
	w->jti = (char *)r->jti;
	w->before_s = r->before_s;
	w->until_s = r->until_s;
}

static struct frame *encode(Revocation *list, size_t count)
{
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;
	Revocation *pointers[GOSSIP_PER_FRAME];

	check(count <= GOSSIP_PER_FRAME);
	for (size_t i = 0; i < count; i++)
		pointers[i] = &list[i];
	f.n_revocations = count;
	f.revocations = pointers;
	return link_control_encode(&f);
}

struct frame *gossip_news(struct auth *a)
{
	const struct auth_revocation *r;
	Revocation list[GOSSIP_PER_FRAME];
	size_t count = 0;

	while (count < GOSSIP_PER_FRAME && (r = auth_news_take(a)) != NULL)
		to_wire(r, &list[count++]);
	return count > 0 ? encode(list, count) : NULL;
}

void gossip_all(const struct auth *a,
		void (*tell)(void *ctx, struct frame *control), void *ctx)
{
	const struct auth_revocation *r = auth_revocation_next(a, NULL);

	while (r != NULL) {
		Revocation list[GOSSIP_PER_FRAME];
		size_t count = 0;
		struct frame *control;

		for (; r != NULL && count < GOSSIP_PER_FRAME;
		     r = auth_revocation_next(a, r))
			to_wire(r, &list[count++]);
		control = encode(list, count);
		tell(ctx, control);
		frame_release(control);
	}
}

/* False for what no process of ours would tell. */
static bool from_wire(const Revocation *w, struct auth_revocation *r)
{
	size_t sub = strlen(w->sub), jti = strlen(w->jti);

	if (sub > TOKEN_ID_MAX || jti > TOKEN_ID_MAX ||
	    (sub == 0) == (jti == 0))
		return false;
	*r = (struct auth_revocation){
		.before_s = w->before_s,
		.until_s = w->until_s,
	};
	memcpy(r->sub, w->sub, sub);
	memcpy(r->jti, w->jti, jti);
	return true;
}

void gossip_take(struct auth *a, const LinkFrame *f)
{
	size_t lost = 0;

	for (size_t i = 0; i < f->n_revocations; i++) {
		struct auth_revocation r;

		if (from_wire(f->revocations[i], &r))
			lost += auth_revoke(a, &r) == ERR_FULL;
	}
	if (lost > 0)
		log_warn("REVOCATION-LOST",
			 "count=%zu what=\"too many are kept\" max=%d", lost,
			 AUTH_REVOCATIONS_MAX);
}
