#include "common/io/linkurl.h"

#include "common/io/listener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char plain_scheme[] = "tcp://", tls_scheme[] = "tls+tcp://";

bool linkurl_is_tls(const char *url)
{
	return strncmp(url, tls_scheme, sizeof(tls_scheme) - 1) == 0;
}

const char *linkurl_address(const char *url)
{
	if (linkurl_is_tls(url))
		return url + sizeof(tls_scheme) - 1;
	if (strncmp(url, plain_scheme, sizeof(plain_scheme) - 1) == 0)
		return url + sizeof(plain_scheme) - 1;
	return NULL;
}

static const char *file_fault(const char *option, const char *path,
			      char text[LINKURL_FAULT])
{
	if (path == NULL)
		snprintf(text, LINKURL_FAULT, "%s is needed for tls+tcp://",
			 option);
	else if (access(path, R_OK) != 0)
		snprintf(text, LINKURL_FAULT, "%s %s: %s", option, path,
			 strerror(errno));
	else
		return NULL;
	return text;
}

const char *linkurl_listen_fault(const char *url,
				 const struct nng_tls_files *tls,
				 char text[LINKURL_FAULT])
{
	const char *address = linkurl_address(url);
	struct sockaddr_storage parsed;
	const char *fault;

	if (address == NULL || strlen(url) >= LINKURL_MAX ||
	    address_parse(address, &parsed) != 0) {
		snprintf(text, LINKURL_FAULT,
			 "--link-listen %.100s: not tcp://HOST:PORT or "
			 "tls+tcp://HOST:PORT",
			 url);
		return text;
	}
	if (!linkurl_is_tls(url)) {
		if (tls->cert == NULL && tls->key == NULL && tls->ca == NULL)
			return NULL;
		snprintf(text, LINKURL_FAULT,
			 "--link-tls-* are given, but --link-listen %.100s is "
			 "not tls+tcp://",
			 url);
		return text;
	}
	fault = file_fault("--link-tls-cert", tls->cert, text);
	if (fault == NULL)
		fault = file_fault("--link-tls-key", tls->key, text);
	if (fault == NULL)
		fault = file_fault("--link-tls-ca", tls->ca, text);
	if (fault == NULL && tls->server_name == NULL) {
		snprintf(text, LINKURL_FAULT,
			 "--link-tls-name is needed for tls+tcp://");
		return text;
	}
	return fault;
}
