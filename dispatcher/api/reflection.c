/* reflection.c - server reflection from the embedded descriptor set.
 *
 * v1alpha's messages have the same wire form as v1's under other names, so one
 * implementation with v1's structs serves both.
 */
#include "dispatcher/api/reflection.h"

#include "common/base/mem.h"
#include "dispatcher/api/descriptor_set.h"
#include "grpc/reflection/v1/reflection.pb-c.h"

#include <stdlib.h>
#include <string.h>

typedef Grpc__Reflection__V1__ServerReflectionRequest request_message;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_message;

#define REQUEST(field) \
	GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##field
#define RESPONSE(field) \
	GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##field

#define SERVICES_MAX 64

/* Made by the Makefile from the protos. */
extern const uint8_t api_descriptors[], api_descriptors_end[];

/* State of a stream: files its client has, a bit each. */
struct sent {
	uint64_t files;
};

static void answer_error(struct rpc_call *call, response_message *m,
			 enum grpc_code code, const char *text)
{
	Grpc__Reflection__V1__ErrorResponse error;

	grpc__reflection__v1__error_response__init(&error);
	error.error_code = (int32_t)code;
	error.error_message = (char *)text;
	m->message_response_case = RESPONSE(ERROR_RESPONSE);
	m->error_response = &error;
	rpc_send(call, &m->base);
}

/* The file, and what it imports unless the stream has it already. */
static void answer_file(struct rpc_call *call, response_message *m,
			const struct descriptor_set *d, int file)
{
	struct sent *sent = call->state;
	Grpc__Reflection__V1__FileDescriptorResponse answer;
	ProtobufCBinaryData files[DESCRIPTOR_SET_MAX];
	uint64_t set;
	size_t n = 1;

	if (file < 0) {
		answer_error(call, m, GRPC_NOT_FOUND, "not found");
		return;
	}
	files[0] = (ProtobufCBinaryData){d->files[file].len,
					 (uint8_t *)d->files[file].bytes};
	set = descriptor_set_closure(d, file) & ~((uint64_t)1 << file);
	for (size_t i = 0; i < d->count; i++) {
		if ((set & ~sent->files) >> i & 1)
			files[n++] = (ProtobufCBinaryData){
				d->files[i].len, (uint8_t *)d->files[i].bytes};
	}
	sent->files |= set | (uint64_t)1 << file;
	grpc__reflection__v1__file_descriptor_response__init(&answer);
	answer.n_file_descriptor_proto = n;
	answer.file_descriptor_proto = files;
	m->message_response_case = RESPONSE(FILE_DESCRIPTOR_RESPONSE);
	m->file_descriptor_response = &answer;
	rpc_send(call, &m->base);
}

static void answer_services(struct rpc_call *call, response_message *m)
{
	const struct rpc_service *services = call->service->ctx;
	Grpc__Reflection__V1__ServiceResponse rows[SERVICES_MAX];
	Grpc__Reflection__V1__ServiceResponse *pointers[SERVICES_MAX];
	Grpc__Reflection__V1__ListServiceResponse list;
	size_t n = 0;

	for (; services[n].name; n++) {
		check(n < SERVICES_MAX);
		grpc__reflection__v1__service_response__init(&rows[n]);
		rows[n].name = (char *)services[n].name;
		pointers[n] = &rows[n];
	}
	grpc__reflection__v1__list_service_response__init(&list);
	list.n_service = n;
	list.service = pointers;
	m->message_response_case = RESPONSE(LIST_SERVICES_RESPONSE);
	m->list_services_response = &list;
	rpc_send(call, &m->base);
}

/* Our messages have no extensions: an empty list for a message there is. */
static void answer_extensions(struct rpc_call *call, response_message *m,
			      const struct descriptor_set *d, char *type)
{
	Grpc__Reflection__V1__ExtensionNumberResponse answer;

	if (descriptor_set_find_symbol(d, type) < 0) {
		answer_error(call, m, GRPC_NOT_FOUND, "no such message");
		return;
	}
	grpc__reflection__v1__extension_number_response__init(&answer);
	answer.base_type_name = type;
	m->message_response_case = RESPONSE(ALL_EXTENSION_NUMBERS_RESPONSE);
	m->all_extension_numbers_response = &answer;
	rpc_send(call, &m->base);
}

static void reflection_on_request(struct rpc_call *call,
				  const ProtobufCMessage *message)
{
	request_message *r = (request_message *)message;
	struct descriptor_set d;
	response_message m;

	if (!call->state)
		call->state = xcalloc(1, sizeof(struct sent));
	descriptor_set_init(&d, api_descriptors,
			    (size_t)(api_descriptors_end - api_descriptors));
	grpc__reflection__v1__server_reflection_response__init(&m);
	m.valid_host = r->host;
	m.original_request = r;
	switch (r->message_request_case) {
	case REQUEST(FILE_BY_FILENAME):
		answer_file(call, &m, &d,
			    descriptor_set_find_file(&d, r->file_by_filename));
		break;
	case REQUEST(FILE_CONTAINING_SYMBOL):
		answer_file(call, &m, &d,
			    descriptor_set_find_symbol(
				    &d, r->file_containing_symbol));
		break;
	case REQUEST(FILE_CONTAINING_EXTENSION):
		answer_error(call, &m, GRPC_NOT_FOUND, "no extensions");
		break;
	case REQUEST(ALL_EXTENSION_NUMBERS_OF_TYPE):
		answer_extensions(call, &m, &d,
				  r->all_extension_numbers_of_type);
		break;
	case REQUEST(LIST_SERVICES):
		answer_services(call, &m);
		break;
	default:
		answer_error(call, &m, GRPC_INVALID_ARGUMENT,
			     "no request is set");
	}
}

static void on_end(struct rpc_call *call)
{
	free(call->state);
	rpc_finish(call, GRPC_OK, "%s", "");
}

static const struct rpc_method methods[] = {
	{
		.name = "ServerReflectionInfo",
		.input =
			&grpc__reflection__v1__server_reflection_request__descriptor,
		.output =
			&grpc__reflection__v1__server_reflection_response__descriptor,
		.client_streaming = true,
		.server_streaming = true,
		.on_message = reflection_on_request,
		.on_half_close = on_end,
		.on_cancel = on_end,
	},
};

static struct rpc_service service(const char *name,
				  const struct rpc_service *services)
{
	return (struct rpc_service){
		.name = name,
		.methods = methods,
		.method_count = array_len(methods),
		.ctx = (void *)services,
	};
}

struct rpc_service reflection_service_v1(const struct rpc_service *services)
{
	return service("grpc.reflection.v1.ServerReflection", services);
}

struct rpc_service
reflection_service_v1alpha(const struct rpc_service *services)
{
	return service("grpc.reflection.v1alpha.ServerReflection", services);
}
