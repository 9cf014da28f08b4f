"""Connect unary over HTTP/1.1 (and the rules of plain HTTP)."""
import base64
import gzip
import http.client
import json
import socket
import urllib.parse

import pytest

import rpc
from harness import http_get
from sse import Sse

PUBLISH = rpc.PUBLISHER + "/Publish"


def post(cluster, body, kind="application/json", headers=None,
         method=PUBLISH, verb="POST"):
    status, got, answer = rpc.connect(cluster.d.api_port, method, body, kind,
                                      headers, verb)
    return status, got, answer


def error(cluster, body, **kw):
    status, headers, answer = post(cluster, body, **kw)
    assert headers["Content-Type"].startswith("application/json")
    parsed = json.loads(answer)
    assert set(parsed) <= {"code", "message", "details"}
    return status, parsed["code"], parsed.get("message", "")


def body(channel, **more):
    return json.dumps(dict(channel=channel, data="x", **more)).encode()


def test_protocol_version_may_be_absent(cluster, channel):
    status, _, answer = http_post(cluster, "/" + PUBLISH, body(channel))
    assert status == 200 and json.loads(answer)["messageId"]


def http_post(cluster, path, data, **headers):
    return http_get(cluster.d.api_port, path, "POST",
                    {"Content-Type": "application/json", **headers}, data)


@pytest.mark.parametrize("kind", [
    "application/json; charset=utf-8", "application/json;charset=UTF-8",
    "Application/JSON"])
def test_content_type_parameters(cluster, channel, kind):
    assert post(cluster, body(channel), kind)[0] == 200


@pytest.mark.parametrize("bad", [
    b"", b"{", b"[]", b"nonsense", b"\xff\xfe", b'{"channel":"a","data":1}',
    b'{"channel":"a","channel":"b","data":"x"}',
    b'{"channel":"a","nope":1}', b'{"channel":"a","data":"\\ud800"}',
    b'{"channel":"a","data":"\\u0000"}', b'{"channel":"a","data":"\xc3\x28"}',
    b'{"channel":"a","priority":"URGENT"}', b'{"channel":"a","ttlMs":-1}',
    b'{"channel":"a","ttlMs":4294967296}', b'{"channel":"a","ttlMs":1.5}',
    b'{"channel":"a","wantReceipt":"yes"}', b'{"channel":"a"} trailing',
    b"[" * 5000, b'{"a":' * 5000, b"null", b'"text"', b"1",
], ids=range(22))
def test_bad_json(cluster, bad):
    status, code, why = error(cluster, bad)
    assert (status, code) == (400, "invalid_argument")
    assert why


def test_error_names_field_and_limit(cluster):
    status, code, why = error(cluster, body("a" * 200))
    assert (status, code) == (400, "invalid_argument")
    assert "channel" in why and "128" in why


def test_null_is_default(cluster, channel):
    data = json.dumps({"channel": channel, "data": "x", "event": None})
    assert post(cluster, data.encode())[0] == 200


def test_defaults_are_left_out(cluster, channel):
    _, _, answer = post(cluster, body(channel))
    parsed = json.loads(answer)
    assert parsed.get("nodes", 0) == 0
    assert "position" not in parsed or parsed["position"] is None


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "",
                                  "application/jsonx"])
def test_wrong_content_type(cluster, channel, kind):
    assert post(cluster, body(channel), kind)[0] == 415


def test_unknown_method(cluster):
    for path in ("stentor.v1.PublisherService/NoSuch", "no.Such/Publish",
                 "", "index.html"):
        status, headers, answer = post(cluster, b"{}", method=path)
        assert status in (404, 501), path


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE", "PATCH"])
def test_wrong_verb(cluster, channel, verb):
    assert post(cluster, body(channel), verb=verb)[0] in (405, 415)


def test_streaming_method_over_unary_connect(cluster):
    status, _, _ = post(cluster, b"{}",
                        method=rpc.PUBLISHER + "/PublishStream")
    assert status in (415, 404, 501)


def test_get_for_side_effect_free_methods(cluster, channel):
    message = json.dumps({"channel": channel})
    query = urllib.parse.urlencode({"connect": "v1", "encoding": "json",
                                    "message": message})
    status, _, answer = http_get(cluster.d.api_port,
                                 f"/{rpc.CHANNEL}/GetChannel?{query}")
    assert status == 200 and json.loads(answer)["channel"] == channel
    query = urllib.parse.urlencode({
        "connect": "v1", "encoding": "json", "base64": "1", "message":
        base64.urlsafe_b64encode(message.encode()).decode().rstrip("=")})
    status, _, answer = http_get(cluster.d.api_port,
                                 f"/{rpc.CHANNEL}/GetChannel?{query}")
    assert status == 200 and json.loads(answer)["channel"] == channel
    query = urllib.parse.urlencode({"connect": "v1", "encoding": "json",
                                    "message": "{}"})
    status, headers, _ = http_get(cluster.d.api_port, f"/{PUBLISH}?{query}")
    assert status == 405


def test_chunked_request(cluster, channel):
    """connect-es for node sends bodies this way."""
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        text = body(channel)
        conn = http.client.HTTPConnection("127.0.0.1", cluster.d.api_port,
                                          timeout=rpc.TIMEOUT)
        conn.request("POST", "/" + PUBLISH, iter([text[:5], text[5:9],
                                                  text[9:]]),
                     {"Content-Type": "application/json"},
                     encode_chunked=True)
        r = conn.getresponse()
        assert r.status == 200, r.read()
        conn.close()
        s.wait_data("x")


def test_gzip_request(cluster, channel):
    with Sse(cluster.n.port, channel) as s:
        s.wait_ready()
        data = json.dumps({"channel": channel, "data": "zip" * 1000})
        status, _, answer = post(cluster, gzip.compress(data.encode()),
                                 headers={"Content-Encoding": "gzip"})
        assert status == 200, answer
        assert s.wait_messages(1)[0].data == "zip" * 1000


def test_unknown_encoding(cluster, channel):
    status, code, _ = error(cluster, body(channel),
                            headers={"Content-Encoding": "br"})
    assert (status, code) in ((501, "unimplemented"), (404, "unimplemented"),
                              (415, "unimplemented"))


def test_bad_gzip(cluster):
    status, code, _ = error(cluster, b"not gzip",
                            headers={"Content-Encoding": "gzip"})
    assert (status, code) in ((400, "invalid_argument"), (500, "internal"))


def test_gzip_bomb(cluster):
    bomb = gzip.compress(b"\0" * (256 << 20), 9)
    status, code, _ = error(cluster, bomb,
                            headers={"Content-Encoding": "gzip"})
    assert (status, code) == (429, "resource_exhausted")


def test_answer_is_never_brotli(cluster, channel):
    status, headers, answer = post(
        cluster, body(channel), headers={"Accept-Encoding": "gzip,br"})
    assert status == 200
    assert headers["Content-Encoding"] in (None, "identity", "gzip")


def test_body_over_the_limit(cluster, channel):
    """Refused by length before it is sent in whole."""
    with socket.create_connection(("127.0.0.1", cluster.d.api_port)) as s:
        s.settimeout(rpc.TIMEOUT)
        s.sendall(f"POST /{PUBLISH} HTTP/1.1\r\nHost: x\r\n"
                  "Content-Type: application/json\r\n"
                  "Content-Length: 1000000000\r\n\r\n{".encode())
        status = int(s.recv(4096).split()[1])
        assert status in (413, 429)


@pytest.mark.parametrize("value", ["0", "1"])
def test_timeout_header(cluster, channel, value):
    status, _, answer = post(cluster, body(channel),
                             headers={"Connect-Timeout-Ms": value})
    assert status in (200, 504), answer


@pytest.mark.parametrize("value", ["abc", "-5", "99999999999", ""])
def test_malformed_timeout_header(cluster, channel, value):
    status, _, _ = post(cluster, body(channel),
                        headers={"Connect-Timeout-Ms": value})
    assert status in (200, 400)


def test_wrong_protocol_version(cluster, channel):
    """The specification lets a server ignore it; a crash it does not."""
    status, _, _ = post(cluster, body(channel),
                        headers={"Connect-Protocol-Version": "99"})
    assert status in (200, 400)


def test_keep_alive_and_pipelining(cluster, channel):
    data = body(channel)
    one = (b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
           b"\r\nContent-Length: %d\r\n\r\n%s" % (
               PUBLISH.encode(), len(data), data))
    with socket.create_connection(("127.0.0.1", cluster.d.api_port)) as s:
        s.settimeout(rpc.TIMEOUT)
        s.sendall(one * 20)
        got = b""
        while got.count(b"messageId") < 20:
            part = s.recv(65536)
            assert part, got
            got += part
        assert got.count(b"HTTP/1.1 200 ") == 20


def test_connection_close_is_honoured(cluster, channel):
    data = body(channel)
    with socket.create_connection(("127.0.0.1", cluster.d.api_port)) as s:
        s.settimeout(rpc.TIMEOUT)
        s.sendall(b"POST /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                  b"Content-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n%s" % (
                      PUBLISH.encode(), len(data), data))
        got = b""
        while part := s.recv(65536):
            got += part
        assert b"HTTP/1.1 200 " in got


def test_expect_continue(cluster, channel):
    """curl asks so before long bodies."""
    data = json.dumps({"channel": channel, "data": "y" * 5000}).encode()
    with socket.create_connection(("127.0.0.1", cluster.d.api_port)) as s:
        s.settimeout(rpc.TIMEOUT)
        s.sendall(b"POST /%s HTTP/1.1\r\nHost: x\r\n"
                  b"Expect: 100-continue\r\n"
                  b"Content-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % (
                      PUBLISH.encode(), len(data)))
        assert s.recv(4096).startswith(b"HTTP/1.1 100 ")
        s.sendall(data)
        assert b"200 OK" in s.recv(4096)


def test_cors_preflight_of_the_api(cluster):
    """Where the API answers browsers at all it names its headers."""
    status, headers, _ = http_get(
        cluster.d.api_port, "/" + PUBLISH, "OPTIONS",
        {"Origin": "http://app.example",
         "Access-Control-Request-Method": "POST"})
    assert status in (200, 204, 404, 405)
