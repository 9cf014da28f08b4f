#include "dispatcher/ctl/client.h"

#include "common/ds/buf.h"
#include "dispatcher/ctl/print.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define URL_DEFAULT	"http://127.0.0.1:7070"
#define TIMEOUT_DEFAULT 5

void ctl_complain(const char *format, ...)
{
	va_list args;

	fputs("stentorctl: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

long ctl_timeout_ms(const struct ctl_args *args)
{
	const char *text = args->global[CTL_TIMEOUT];

	return (text ? strtol(text, NULL, 10) : TIMEOUT_DEFAULT) * 1000;
}

const char *ctl_dispatcher(const struct ctl_args *args)
{
	const char *url = args->global[CTL_DISPATCHER];

	if (!url)
		url = getenv("STENTOR_DISPATCHER");
	return url && *url ? url : URL_DEFAULT;
}

bool ctl_url_valid(const char *url)
{
	const char *colon = strchr(url, ':');

	return strncmp(url, "http://", 7) == 0 ||
	       strncmp(url, "https://", 8) == 0 ||
	       (colon && colon > url && colon[1] != '/');
}

const char *ctl_url_scheme(const char *url)
{
	return strstr(url, "://") ? "" : "http://";
}

/* Reads the file; what surrounds the token is left out. */
static int read_token(const char *file, char *token, size_t size)
{
	FILE *f = fopen(file, "re");
	size_t len = 0;

	if (f) {
		len = fread(token, 1, size - 1, f);
		fclose(f);
	}
	token[len] = '\0';
	if (len == size - 1)
		len = 0; /* far too long: no token */
	while (len > 0 && isspace((unsigned char)token[len - 1]))
		token[--len] = '\0';
	if (len > 0)
		return CTL_OK;
	ctl_complain("--token-file %s: %s", file,
		     f ? "holds no token" : strerror(errno));
	return CTL_USAGE;
}

int ctl_authorization(const struct ctl_args *args,
		      char header[CTL_AUTHORIZATION_SIZE])
{
	static const char start[] = "Authorization: Bearer ";
	const size_t start_len = sizeof(start) - 1;
	const char *file = args->global[CTL_TOKEN_FILE];
	const char *given = getenv("STENTOR_TOKEN");
	char *token = header + start_len;
	size_t room = CTL_AUTHORIZATION_SIZE - start_len;
	int rc = CTL_OK;

	header[0] = '\0';
	if (!file && (!given || !*given))
		return CTL_OK;
	if (file)
		rc = read_token(file, token, room);
	else
		snprintf(token, room, "%s", given);
	if (rc != CTL_OK)
		return rc;
	for (const char *c = token; *c; c++) {
		/* Anything else would end the header, or change it. */
		if (*c > ' ' && *c < 0x7f)
			continue;
		ctl_complain("%s holds no token",
			     file ? "the file of --token-file"
				  : "STENTOR_TOKEN");
		return CTL_USAGE;
	}
	memcpy(header, start, start_len);
	return CTL_OK;
}

void ctl_set_tls(const struct ctl_args *args, void *curl)
{
	static const CURLoption options[] = {
		CURLOPT_CAINFO,
		CURLOPT_SSLCERT,
		CURLOPT_SSLKEY,
	};

	for (unsigned i = 0; i < array_len(options); i++) {
		const char *file = args->global[CTL_CA_FILE + i];

		if (file)
			curl_easy_setopt(curl, options[i], file);
	}
}

static size_t on_body(char *bytes, size_t size, size_t count, void *ctx)
{
	return buf_append(ctx, bytes, size * count) == 0 ? size * count : 0;
}

/* What a Connect error says: {"code":"unavailable","message":"..."}. */
static int explain_status(const char *url, long status, const struct buf *body)
{
	json_t *error =
		json_loadb((const char *)body->bytes, body->len, 0, NULL);
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *text = json_string_value(json_object_get(error, "message"));
	bool unavailable = status == 502 || status == 503 || status == 504;

	if (code) {
		text = text ? text : "no message";
		fputs("stentorctl: ", stderr);
		ctl_print_text(stderr, code, strlen(code), -1);
		fputs(": ", stderr);
		ctl_print_text(stderr, text, strlen(text), -1);
		fputc('\n', stderr);
		unavailable = strcmp(code, "unavailable") == 0 ||
			      strcmp(code, "deadline_exceeded") == 0;
	} else {
		ctl_complain("HTTP status %ld from %s: is that a dispatcher?",
			     status, url);
	}
	json_decref(error);
	return unavailable ? CTL_UNAVAILABLE : CTL_FAILED;
}

/* Sends the request; returns the exit code. */
static int post(CURL *curl, const char *url, const char *request,
		const char *authorization, long limit_ms, struct buf *body)
{
	char why[CURL_ERROR_SIZE] = "";
	struct curl_slist *headers = NULL;
	long status = 0;
	CURLcode rc;

	headers = curl_slist_append(headers, "Content-Type: application/json");
	headers = curl_slist_append(headers, "Connect-Protocol-Version: 1");
	headers = curl_slist_append(headers, "Expect:"); /* no 100-continue */
	if (*authorization)
		headers = curl_slist_append(headers, authorization);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE,
			 (curl_off_t)strlen(request));
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, limit_ms);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "stentorctl");
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
	rc = curl_easy_perform(curl);
	curl_slist_free_all(headers);
	if (rc != CURLE_OK) {
		ctl_complain("%s: %s", url,
			     *why ? why : curl_easy_strerror(rc));
		if (rc == CURLE_COULDNT_CONNECT ||
		    rc == CURLE_COULDNT_RESOLVE_HOST)
			fputs("Where is a dispatcher? Say it with --dispatcher "
			      "or STENTOR_DISPATCHER.\n",
			      stderr);
		return CTL_UNAVAILABLE;
	}
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	return status == 200 ? CTL_OK : explain_status(url, status, body);
}

int ctl_call(const struct ctl_args *args, const char *method, json_t *request,
	     json_t **response)
{
	const char *base = ctl_dispatcher(args);
	size_t base_len = strlen(base);
	char *text = json_dumps(request, JSON_COMPACT);
	CURL *curl = curl_easy_init();
	struct buf url, body;
	json_error_t error;
	char authorization[CTL_AUTHORIZATION_SIZE];
	int rc = ctl_authorization(args, authorization);

	check(text);
	check(curl);
	while (base_len > 0 && base[base_len - 1] == '/')
		base_len--;
	buf_init(&url, 65536);
	buf_init(&body, CTL_RESPONSE_MAX);
	*response = NULL;
	ctl_set_tls(args, curl);
	if (rc == CTL_OK)
		rc = buf_printf(&url, "%s%.*s/%s", ctl_url_scheme(base),
				(int)base_len, base, method);
	if (rc == CTL_OK)
		rc = post(curl, (const char *)url.bytes, text, authorization,
			  ctl_timeout_ms(args), &body);
	if (rc == CTL_OK) {
		*response = json_loadb((const char *)body.bytes, body.len, 0,
				       &error);
		if (!json_is_object(*response)) {
			ctl_complain("%s: the answer is not JSON: %s",
				     (const char *)url.bytes, error.text);
			json_decref(*response);
			*response = NULL;
			rc = CTL_FAILED;
		}
	}
	buf_fini(&body);
	buf_fini(&url);
	curl_easy_cleanup(curl);
	free(text);
	json_decref(request);
	return rc;
}

int ctl_call_and_print(const struct ctl_args *args, const char *method,
		       json_t *request, void (*print)(const json_t *response))
{
	json_t *response;
	int rc = ctl_call(args, method, request, &response);

	if (rc != CTL_OK)
		return rc;
	if (args->global[CTL_JSON])
		ctl_print_json(response);
	else
		print(response);
	json_decref(response);
	return CTL_OK;
}
