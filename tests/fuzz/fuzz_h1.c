/* Fuzz target: HTTP/1.1 on the API port: Connect requests, unary, by POST and
 * GET, and what decides between HTTP/1.1 and HTTP/2 (the first byte: see
 * api_port.h). */
#include "tests/fuzz/api_port.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_connection("", data, size);
	return 0;
}
