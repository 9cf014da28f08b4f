/* Threads and lifetimes
 *
 * nng calls back on threads of its own. Those callbacks touch nothing but what
 * lives as long as the process, and hand everything to the loop as mail:
 *
 *   inbox    is never freed, nor is its mailbox. nng_inbox_stop() detaches the
 *            mailbox; what nng receives afterwards is refused and dropped, and
 *            the receive is not started again.
 *   outbox   may be closed at any time, and whether nng can still be in one of
 *            its pipe callbacks after nng_close() differs between its versions
 *            (REM_POST runs on the reaper thread). So the callback's argument
 *            is no pointer but the number of the outbox's present socket; its
 *            event goes to the one mailbox of all outboxes, and the loop looks
 *            the number up. An event of a socket that is gone finds nothing.
 *
 * nng_close() waits for the reaper thread, and that may be stuck for ever (see
 * nngio_stuck()). So it is called on a thread of its own, which reports by mail
 * when it is done; when it has not after NNGIO_CLOSE_MAX_MS it is given up. For
 * the same reason an outbox does not leave redialling a lost connection to nng,
 * whose dialer is woken by the reaper, but takes a fresh socket.
 *
 * A PUSH socket of nng 1.5 may keep a pipe in its list of those that can send
 * when the pipe goes: if it is cut while it comes up, or while a send of it
 * completes. The reaper frees it, and whatever uses the list next, a send or
 * another pipe of the socket, works on freed memory. So REM_POST, which the
 * reaper calls before it frees, shuts both out (stop_using()): sends by a lock,
 * other pipes by closing the dialer there and then. That also keeps nng from
 * dialling while the socket is closed: a connection that is between TCP's and
 * nng's handshake at that moment is never freed, nor is its descriptor.
 *
 * Receiving is one nng_aio, started again by its own callback: any other way
 * costs a thread change per message, ten times the time. When too many bytes
 * wait for the loop the callback marks its mail `last` and does not start the
 * next receive; the loop does when it gets to that mail, which is when all
 * mail before it has been delivered.
 *
 * ADD_POST and REM_POST of a pipe come from different threads and may overtake
 * each other; both kinds of box put that right, so that those above see "up",
 * then "down", and never an "up" of a pipe that is gone already.
 */
#include "common/io/nngio.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/io/nngio_internal.h"
#include "common/io/nngshim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int err_from_nng(int code)
{
	switch (code) {
	case 0:
		return 0;
	case NNG_EAGAIN:
	case NNG_ETIMEDOUT:
		return ERR_AGAIN;
	case NNG_ECLOSED:
		return ERR_CLOSED;
	case NNG_EADDRINUSE:
	case NNG_EADDRINVAL:
	case NNG_EINVAL: /* of a url */
	case NNG_ENOTSUP:
	case NNG_EPERM:
		return ERR_ADDRESS;
	case NNG_ECRYPTO:
	case NNG_EPEERAUTH:
		return ERR_CONFIG;
	case NNG_EMSGSIZE:
		return ERR_TOO_LARGE;
	case NNG_ENOFILES:
	case NNG_ENOMEM:
		return ERR_FULL;
	default:
		return ERR_IO;
	}
}

void nngio_process_init(void)
{
	nng_aio *aio;

	/* Any allocation starts nng's threads. */
	nngshim_one_processor(true);
	check(nng_aio_alloc(&aio, NULL, NULL) == 0);
	nng_aio_free(aio);
	nngshim_one_processor(false);
}

/* --- certificates ------------------------------------------------------ */

/* The file's text, zero-terminated and the caller's, or NULL. */
static char *read_pem(const char *path)
{
	FILE *file = path != NULL ? fopen(path, "re") : NULL;
	char *text;
	size_t len;

	if (file == NULL)
		return NULL;
	text = xmalloc(NNGIO_PEM_MAX + 1);
	len = fread(text, 1, NNGIO_PEM_MAX + 1, file);
	fclose(file);
	if (len == 0 || len > NNGIO_PEM_MAX) {
		free(text);
		return NULL;
	}
	text[len] = '\0';
	return text;
}

/* nng copies what it takes. */
static int fill_tls(nng_tls_config *config, const struct nng_tls_files *files)
{
	char *ca = read_pem(files->ca), *cert = read_pem(files->cert),
	     *key = read_pem(files->key);
	int err = ERR_CONFIG;

	if (ca != NULL && cert != NULL && key != NULL &&
	    nng_tls_config_ca_chain(config, ca, NULL) == 0 &&
	    nng_tls_config_own_cert(config, cert, key, NULL) == 0 &&
	    nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED) == 0)
		err = 0;
	free(ca);
	free(cert);
	free(key);
	return err;
}

int nngio_tls_config(const char *url, const struct nng_tls_files *files,
		     nng_tls_mode mode, nng_tls_config **out)
{
	static const char scheme[] = "tls+";
	bool given =
		files != NULL && (files->ca != NULL || files->cert != NULL ||
				  files->key != NULL);
	int err;

	*out = NULL;
	/* Never plain where certificates were given, nor the other way. */
	if ((strncmp(url, scheme, sizeof(scheme) - 1) == 0) != given)
		return ERR_CONFIG;
	if (!given)
		return 0;
	/* Without a name nng would accept any certificate of the CA. */
	if (mode == NNG_TLS_MODE_CLIENT &&
	    (files->server_name == NULL || files->server_name[0] == '\0'))
		return ERR_CONFIG;
	if (nng_tls_config_alloc(out, mode) != 0)
		return ERR_CONFIG; /* an nng built without TLS */
	err = fill_tls(*out, files);
	if (err == 0 && mode == NNG_TLS_MODE_CLIENT &&
	    nng_tls_config_server_name(*out, files->server_name) != 0)
		err = ERR_CONFIG;
	if (err < 0) {
		nng_tls_config_free(*out);
		*out = NULL;
	}
	return err;
}
