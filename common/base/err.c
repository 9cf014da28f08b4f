#include "common/base/err.h"

#include <errno.h>

const char *err_name(int code)
{
	switch (code) {
	case ERR_OK:
		return "OK";
#define X(name, value, text) \
	case value:          \
		return #name;
		ERR_MAP(X)
#undef X
	default:
		return "?";
	}
}

const char *err_text(int code)
{
	switch (code) {
	case ERR_OK:
		return "ok";
#define X(name, value, text) \
	case value:          \
		return text;
		ERR_MAP(X)
#undef X
	default:
		return "?";
	}
}

int err_from_errno(int error)
{
	switch (error) {
	case 0:
		return 0;
	case EAGAIN:
	case EINTR:
		return ERR_AGAIN;
	case EPIPE:
	case ECONNRESET:
	case ECONNABORTED:
	case ENOTCONN:
		return ERR_CLOSED;
	case ETIMEDOUT:
		return ERR_TIMEOUT;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
	case ENOBUFS:
	case ENOSPC:
		return ERR_FULL;
	case EADDRINUSE:
	case EADDRNOTAVAIL:
	case EACCES:
		return ERR_ADDRESS;
	case ECONNREFUSED:
		return ERR_REFUSED;
	case ENOENT:
		return ERR_NOT_FOUND;
	default:
		return ERR_IO;
	}
}
