/* nngio_internal.h - what inboxes and outboxes share (private to nngio*.c, the
 * only files that know nng).
 */
#ifndef STENTOR_IO_NNGIO_INTERNAL_H
#define STENTOR_IO_NNGIO_INTERNAL_H

#include "common/io/nngio.h"

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

int err_from_nng(int code);

/* *out is NULL for tcp://; otherwise it is the caller's to free. */
int nngio_tls_config(const char *url, const struct nng_tls_files *files,
		     nng_tls_mode mode, nng_tls_config **out) MUST_CHECK;

#endif
