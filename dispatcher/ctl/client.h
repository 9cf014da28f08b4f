/* client.h - calls of the dispatcher's API: Connect unary, JSON over HTTP/1.1.
 *
 * Blocking, one request at a time, bounded by --timeout. Whatever goes wrong is
 * said on stderr here, so a command only passes the exit code on.
 */
#ifndef STENTOR_CTL_CLIENT_H
#define STENTOR_CTL_CLIENT_H

#include "common/base/check.h"
#include "dispatcher/ctl/args.h"

#include <jansson.h>

#define CTL_OK		0
#define CTL_FAILED	1
#define CTL_USAGE	2
#define CTL_UNAVAILABLE 69 /* EX_UNAVAILABLE of sysexits.h */

#define CTL_RESPONSE_MAX (64u << 20)

/* From --timeout, --dispatcher (or the environment); checked by main. */
long ctl_timeout_ms(const struct ctl_args *args);
const char *ctl_dispatcher(const struct ctl_args *args);

/* True for host:port, http:// and https:// URLs. */
bool ctl_url_valid(const char *url);
/* What such a URL lacks of its scheme: "http://" or "". */
const char *ctl_url_scheme(const char *url);

/* The header that shows our token, from --token-file, read each time, or
 * STENTOR_TOKEN; "" for none. CTL_USAGE: there is no such thing in the file. */
#define CTL_AUTHORIZATION_SIZE (8192 + 32)
int ctl_authorization(const struct ctl_args *args,
		      char header[CTL_AUTHORIZATION_SIZE]) MUST_CHECK;

/* What --ca-file, --cert-file and --key-file say of https servers; `curl` is a
 * CURL handle. */
void ctl_set_tls(const struct ctl_args *args, void *curl);

/* Calls `method` ("stentor.v1.ClusterService/ListNodes") with `request`, which
 * it takes. On CTL_OK *response is the caller's; else it is NULL. */
int ctl_call(const struct ctl_args *args, const char *method, json_t *request,
	     json_t **response) MUST_CHECK;

/* The same, and prints the response: as JSON if the user wants that, else by
 * `print`. Returns the exit status. */
int ctl_call_and_print(const struct ctl_args *args, const char *method,
		       json_t *request, void (*print)(const json_t *response));

/* "stentorctl: ..." on stderr. */
void ctl_complain(const char *format, ...) PRINTF(1, 2);

#endif
