/* linkurl.h - is a link's URL one that can work? Asked before any socket opens,
 * so that a mistake is a message on stderr and the exit code of configuration
 * errors. Calls no nng, so that a supervisor may ask.
 */
#ifndef STENTOR_IO_LINKURL_H
#define STENTOR_IO_LINKURL_H

#include "common/io/nngio.h"

#include <stdbool.h>

#define LINKURL_MAX   300 /* bytes */
#define LINKURL_FAULT 256

/* tls+tcp:// rather than tcp://. */
bool linkurl_is_tls(const char *url);
/* The HOST:PORT part, within `url`; NULL for an unknown scheme. */
const char *linkurl_address(const char *url);

/* NULL if all is well, else what is wrong, in `text`. A listening URL must be
 * numeric, and TLS needs its three files, readable. */
const char *linkurl_listen_fault(const char *url,
				 const struct nng_tls_files *tls,
				 char text[LINKURL_FAULT]);

#endif
