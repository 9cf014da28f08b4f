/* redis.h - the shared store: Redis or Valkey, version 7 or later.
 *
 *	redis[s]://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][?sentinel=NAME]
 *
 * One address is a single server or a node of a Cluster (found out by asking
 * it); several are nodes of one Cluster to begin with. With ?sentinel=NAME the
 * addresses are Sentinels (port 26379 unless said) and NAME is the master's
 * name there; the password, where there is one, is theirs too if they ask for
 * one. An IPv6 address stands in [brackets]; USER and PASSWORD may hold %XX.
 * config.password goes before the URL's. A database number is refused: a
 * Cluster has only one.
 *
 * rediss:// is TLS to all of them, Sentinels too. Each must show a certificate
 * of an authority in config.tls_ca for the host (a name or an address) that it
 * was named by, in the URL or by who announced it; redis_tls.c says more.
 *
 * What is promised
 * - An append is one script, so it is done whole or not at all, whoever else
 *   appends to the channel. redis_script.c says what it keeps.
 * - It is acknowledged when the server has answered, and, with config.replicas
 *   above 0, when so many replicas have it (WAIT, once for all appends that
 *   left together). How durable the server's answer is, is the server's
 *   setting: `appendfsync always` survives the machine, `everysec` the process.
 * - A position is given once. A log that was counted by a server in another
 *   history than its present one (after a restart, a fail-over, a fail-back, a
 *   slot that has moved) may have lost its tail: it goes on in a new epoch
 *   behind what it has, and its eras say so. That is judged inside the script,
 *   whatever `replicas` is: WAIT proves nothing of a fail-over to a replica
 *   that was not waited for.
 * - Only a single server with `appendonly yes`, `appendfsync always` and
 *   `no-appendfsync-on-rewrite no`, which CONFIG GET must tell, has lost
 * nothing when it comes back: its logs stay in their epoch. redis_durable.c says
 * how it is known, and what a dispatcher can't see of it.
 * - What is seen of neither (an older copy of the data put back while no
 *   dispatcher ran; Sentinels whose fail-overs none of them told) shows when
 *   somebody knows better: store_tops().
 * - Appends of a channel take effect in the order in which they were submitted.
 *   All requests of a slot are under way at one server at a time, in one
 *   connection; one that has to be sent again (redirected, slot moving, server
 *   loading) goes before those that wait, and fails (`definite`) if a later one
 *   of its channel went through meanwhile. An append whose connection broke or
 *   that timed out is never sent again: it may have been done. The next
 *   connection to that server first ends the one before it (CLIENT KILL), so
 *   what still lay unread there can't be done after what is sent then.
 * - What is refused before it was done, or did not leave, is sent again until
 *   its time is over. While a slot moves, an append with a new idempotency key
 *   waits until it has moved: a server can't tell yet where that key is.
 *
 * The dispatchers of one Redis tell one another that they are there (each
 * second; one that is silent for 3 s is gone) and which logs' tops their
 * appends moved (once a turn, while others are there), over plain PUBLISH and
 * SUBSCRIBE on the channel "stentor:moved"; in a Cluster its bus takes them
 * everywhere. Nothing that is promised above depends on it; where an ACL forbids
 * these, or that channel, the store works without: one warning, store_news_up 0.
 *
 * A channel takes 4.7 KB of the server's memory with its first small message,
 * and 1.1 KB with `stream-node-max-bytes 512`: more than 1024 is warned of.
 * Evicting keys (maxmemory-policy other than noeviction) loses history but
 * never gives a position twice; it is warned of. The server must allow the
 * commands EVALSHA, SCRIPT LOAD, INFO, CLIENT ID and KILL, WAIT, and those of
 * the scripts; a Cluster also CLUSTER SLOTS and ASKING. It should allow CONFIG
 * GET, and PUBLISH and SUBSCRIBE with the channel "stentor:moved".
 */
#ifndef STENTOR_DISPATCHER_STORE_REDIS_H
#define STENTOR_DISPATCHER_STORE_REDIS_H

#include "dispatcher/store/store.h"

#define REDIS_ADDRESSES_MAX 16
#define REDIS_HOST_SIZE	    256 /* with the final zero */

struct redis_address {
	char host[REDIS_HOST_SIZE];
	uint16_t port;
};

struct redis_url {
	bool tls; /* rediss:// */
	struct redis_address addresses[REDIS_ADDRESSES_MAX];
	size_t count;	    /* at least 1 */
	char user[128];	    /* "": the default one */
	char secret[512];   /* the password; "": none */
	char sentinel[128]; /* the master's name; "": no Sentinels */
};

/* ERR_CONFIG with a text that names what is wrong, never the password. */
int redis_url_parse(const char *url, struct redis_url *out,
		    char fault[STORE_FAULT_SIZE]) MUST_CHECK;

/* The slot of a Cluster that all keys of a channel are in. */
#define REDIS_SLOTS 16384
uint16_t redis_slot(const char *channel);

#endif
