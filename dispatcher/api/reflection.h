/* reflection.h - grpc.reflection.v1 and v1alpha: what services there are and
 * how their messages look, so that buf curl, grpcurl and browsers of APIs need
 * no proto files. Stateless but for what each stream has been sent already.
 */
#ifndef STENTOR_DISPATCHER_API_REFLECTION_H
#define STENTOR_DISPATCHER_API_REFLECTION_H

#include "dispatcher/api/rpc.h"

/* Rows of the service table. `services` is that table (it ends with a NULL
 * name and may be filled in later); borrowed for ever. */
struct rpc_service reflection_service_v1(const struct rpc_service *services);
struct rpc_service
reflection_service_v1alpha(const struct rpc_service *services);

#endif
