#include "common/io/process.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/listener.h"
#include "common/io/sandbox.h"

#include <stdlib.h>
#include <unistd.h>

const char *const process_auth_modes[] = {"jwt", "none", NULL};
const char *const process_log_levels[] = {"debug", "info", "warn", "error",
					  NULL};
const char *const process_log_formats[] = {"json", "text", NULL};

static const char *or_null(const char *text)
{
	return text[0] != '\0' ? text : NULL;
}

struct nng_tls_files process_link_tls(const struct process_options *o)
{
	return (struct nng_tls_files){
		.cert = or_null(o->link_tls_cert),
		.key = or_null(o->link_tls_key),
		.ca = or_null(o->link_tls_ca),
		.server_name = or_null(o->link_tls_name),
	};
}

const char *process_options_fault(const struct process_options *o,
				  char text[LINKURL_FAULT])
{
	struct nng_tls_files tls = process_link_tls(o);
	struct sockaddr_storage address;

	if (address_parse(o->admin_listen, &address) != 0)
		return "--admin-listen: not HOST:PORT";
	return linkurl_listen_fault(o->link_listen, &tls, text);
}

void process_options_apply(struct process_options *o, const char *component,
			   const char *writable)
{
	char host[256] = "stentor";

	log_init(component, (enum log_level)o->log_level, o->log_format == 0);
	sandbox_enter(o->core_dumps, writable);
	if (o->name[0] != '\0')
		return;
	gethostname(host, sizeof(host) - 1);
	free(o->name);
	o->name = xstrdup(host);
}
