/* health.h - grpc.health.v1.Health: is the server, or one of its services,
 * serving?
 *
 * "" stands for the whole server, as load balancers and Kubernetes' grpc probes
 * ask. Watch tells its client of each change; at most HEALTH_WATCHES_MAX
 * watches run at once.
 */
#ifndef STENTOR_DISPATCHER_API_HEALTH_H
#define STENTOR_DISPATCHER_API_HEALTH_H

#include "dispatcher/api/rpc.h"

#define HEALTH_WATCHES_MAX  1024
#define HEALTH_SERVICES_MAX 64

struct health;

struct health *health_new(void);
/* After api_free(). */
void health_free(struct health *h);
/* Names are copied; new ones become known. */
void health_set(struct health *h, const char *service, bool serving);
/* The whole server and every service of the table (it ends with a NULL name).
 */
void health_set_all(struct health *h, const struct rpc_service *services,
		    bool serving);
/* Its row of the service table. */
struct rpc_service health_service(struct health *h);

#endif
