/* Fuzz target: HTTP/2 on the API port, from behind the preface on: frames as
 * they go over the wire (the first byte: see api_port.h). */
#include "tests/fuzz/api_port.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_connection("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", data, size);
	return 0;
}
