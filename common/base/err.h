/* err.h - the project's error codes.
 *
 * Every fallible function returns 0 or a negative `enum err`. Foreign codes
 * (libuv, nng, nghttp2, errno) become ours in one function per library, at
 * the border where the library is called.
 */
#ifndef STENTOR_BASE_ERR_H
#define STENTOR_BASE_ERR_H

#define ERR_MAP(X)                                        \
	X(ERR_AGAIN, -1, "would block, try later")        \
	X(ERR_CLOSED, -2, "closed by the peer")           \
	X(ERR_TIMEOUT, -3, "took too long")               \
	X(ERR_FULL, -4, "a limit is reached")             \
	X(ERR_TOO_LARGE, -5, "larger than the limit")     \
	X(ERR_MALFORMED, -6, "malformed")                 \
	X(ERR_NOT_FOUND, -7, "not found")                 \
	X(ERR_EXISTS, -8, "exists already")               \
	X(ERR_REFUSED, -9, "refused")                     \
	X(ERR_UNSUPPORTED, -10, "not supported")          \
	X(ERR_CONFIG, -11, "configuration error")         \
	X(ERR_ADDRESS, -12, "bad or unavailable address") \
	X(ERR_IO, -13, "input/output error")              \
	X(ERR_STALE, -14, "belongs to an older epoch")    \
	X(ERR_GAP, -15, "the sequence has a hole")        \
	X(ERR_SLOW, -16, "the reader is too slow")        \
	X(ERR_UNAVAILABLE, -17, "not available now, safe to retry")

enum err {
	ERR_OK = 0,
#define X(name, code, text) name = code,
	ERR_MAP(X)
#undef X
};

/* Stable name ("ERR_AGAIN") and text of a code; "?" for a foreign one. */
const char *err_name(int code);
const char *err_text(int code);

/* Our code for an errno value (positive). Unknown values become ERR_IO. */
int err_from_errno(int error);

#endif
