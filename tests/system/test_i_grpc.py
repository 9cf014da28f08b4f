"""gRPC as stock clients and the specification have it."""
import gzip
import json
import struct
import threading
import time

import grpc
import pytest

import rpc
from h2client import H2, grpc_headers, grpc_message
from harness import rss_kib, rss_room, wait_until
from sse import Sse

PUBLISH = rpc.PUBLISHER + "/Publish"
HEALTH = "grpc.health.v1.Health"
Code = grpc.StatusCode


def message(channel, data="x"):
    return rpc.PublishRequest(channel=channel, data=data).SerializeToString()


@pytest.fixture
def h(cluster):
    with H2(cluster.d.api_port) as h:
        yield h


def code_of(call):
    with pytest.raises(grpc.RpcError) as e:
        call()
    return e.value.code()


# --- health ---

def health(cluster, service=""):
    request = rpc.messages(HEALTH.rsplit(".", 1)[0] + ".HealthCheckRequest")
    return cluster.d.grpc.unary(
        HEALTH + "/Check", "grpc.health.v1.HealthCheckRequest",
        "grpc.health.v1.HealthCheckResponse")(
            request(service=service), timeout=rpc.TIMEOUT)


@pytest.mark.parametrize("service", [
    "", rpc.PUBLISHER, rpc.CHANNEL, rpc.CLUSTER])
def test_health_check(cluster, service):
    assert health(cluster, service).status == 1


def test_health_check_unknown(cluster):
    assert code_of(lambda: health(cluster, "no.Such")) == Code.NOT_FOUND


def watch(cluster, service=""):
    request = rpc.messages("grpc.health.v1.HealthCheckRequest")
    return cluster.d.grpc.channel.unary_stream(
        f"/{HEALTH}/Watch", request.SerializeToString,
        rpc.messages("grpc.health.v1.HealthCheckResponse").FromString)(
            request(service=service), timeout=20)


@pytest.mark.parametrize("service,status", [("", 1), ("no.Such", 3)])
def test_health_watch(cluster, service, status):
    call = watch(cluster, service)
    assert next(call).status == status
    call.cancel()


# --- reflection ---

@pytest.fixture(params=["v1", "v1alpha"])
def reflect(cluster, request):
    package = f"grpc.reflection.{request.param}"
    query = rpc.messages(package + ".ServerReflectionRequest")
    call = cluster.d.grpc.channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        query.SerializeToString,
        rpc.messages(package + ".ServerReflectionResponse").FromString)

    def ask(*queries):
        return list(call(iter([query(**q) for q in queries]),
                         timeout=rpc.TIMEOUT))
    return ask


def test_reflection_lists_services(reflect):
    [r] = reflect({"list_services": ""})
    names = {s.name for s in r.list_services_response.service}
    assert {rpc.PUBLISHER, rpc.CHANNEL, rpc.CLUSTER, HEALTH} <= names
    assert any(n.startswith("grpc.reflection.") for n in names)
    assert not any("link" in n for n in names)


def test_reflection_files(reflect):
    from google.protobuf import descriptor_pb2
    for q in ({"file_containing_symbol": rpc.PUBLISHER},
              {"file_containing_symbol": "stentor.v1.PublishRequest"},
              {"file_containing_symbol": PUBLISH.replace("/", ".")},
              {"file_by_filename": "stentor/v1/publisher.proto"}):
        [r] = reflect(q)
        files = [descriptor_pb2.FileDescriptorProto.FromString(f) for f in
                 r.file_descriptor_response.file_descriptor_proto]
        assert "stentor/v1/publisher.proto" in [f.name for f in files], q
        assert r.original_request.ListFields()


def test_reflection_sends_dependencies(reflect):
    [r] = reflect({"file_containing_symbol": rpc.CHANNEL})
    assert len(r.file_descriptor_response.file_descriptor_proto) >= 1


def test_reflection_unknown(reflect):
    answers = reflect({"file_containing_symbol": "no.Such"},
                      {"file_by_filename": "no/such.proto"},
                      {"list_services": ""})
    assert [a.error_response.error_code for a in answers] == [5, 5, 0]


def test_reflection_several_in_one_stream(reflect):
    assert len(reflect(*[{"list_services": ""}] * 20)) == 20


# --- methods, content types, verbs ---

@pytest.mark.parametrize("path", [
    rpc.PUBLISHER + "/NoSuch", "no.Such/Publish", "stentor.v1.publisher"
    "service/Publish", "x", "a/b/c"])
def test_unknown_method(cluster, path):
    call = cluster.d.grpc.raw(path)
    assert code_of(lambda: call(b"", timeout=rpc.TIMEOUT)) \
        == Code.UNIMPLEMENTED


def test_wrong_content_type(h):
    headers = [x for x in grpc_headers(PUBLISH) if x[0] != "content-type"]
    for kind in ("text/plain", "application/xml", "application/grpcx"):
        s = h.open(headers + [("content-type", kind)])
        try:
            h.send(s, grpc_message(b""), end=True)
        except Exception:  # the answer may come before the body is out
            pass
        assert h.status(s) == "http:415", kind


def test_missing_content_type(h):
    s = h.open([x for x in grpc_headers(PUBLISH) if x[0] != "content-type"],
               end=True)
    assert h.status(s) in ("http:415", "http:400")


@pytest.mark.parametrize("kind", [
    "application/grpc", "application/grpc+proto",
    "application/grpc;charset=utf-8"])
def test_content_type_variants(h, channel, kind):
    headers = [x for x in grpc_headers(PUBLISH) if x[0] != "content-type"]
    s = h.open(headers + [("content-type", kind)])
    h.send(s, grpc_message(message(channel)), end=True)
    assert h.status(s) == 0
    assert h.headers[s]["content-type"].startswith("application/grpc")


def test_missing_te_is_accepted(h, channel):
    s = h.open([x for x in grpc_headers(PUBLISH) if x[0] != "te"])
    h.send(s, grpc_message(message(channel)), end=True)
    assert h.status(s) == 0


def test_get_is_405(h):
    s = h.open(grpc_headers(PUBLISH, method="GET"), end=True)
    assert h.status(s) == "http:405"


# --- bodies ---

def test_no_message(h):
    s = h.open(grpc_headers(PUBLISH), end=True)
    assert h.status(s) == 12


def test_two_messages(h, channel):
    s = h.open_grpc(PUBLISH)
    h.send(s, grpc_message(message(channel)) * 2, end=True)
    assert h.status(s) == 12


def test_cut_message(h):
    s = h.open_grpc(PUBLISH)
    h.send(s, struct.pack(">BI", 0, 100) + b"short", end=True)
    assert h.status(s) in (3, 13)


def test_not_a_protobuf(h):
    s = h.open_grpc(PUBLISH)
    h.send(s, grpc_message(b"\xff\xff\xff\xff"), end=True)
    assert h.status(s) == 13


def test_bad_flag(h, channel):
    s = h.open_grpc(PUBLISH)
    h.send(s, grpc_message(message(channel), flag=2), end=True)
    assert h.status(s) == 13


def test_prefix_split_over_frames(h, channel):
    s = h.open_grpc(PUBLISH)
    for byte in grpc_message(message(channel)):
        h.send(s, bytes([byte]))
    h.conn.end_stream(s)
    h.flush()
    assert h.status(s) == 0


def test_length_prefix_of_four_gigabytes(h):
    s = h.open_grpc(PUBLISH)
    h.send(s, b"\0\xff\xff\xff\xff" + b"x" * 100)
    assert h.status(s) == 8


def test_message_over_the_limit(cluster):
    batch = [dict(channel="c", data="x" * 1000)] * 70000  # > 64 MiB
    assert code_of(lambda: cluster.d.grpc.publish_batch(batch)) \
        == Code.RESOURCE_EXHAUSTED


def test_status_message_is_percent_encoded(h):
    s = h.open_grpc(PUBLISH)
    h.send(s, grpc_message(rpc.PublishRequest(
        channel="ünï\ncode%").SerializeToString()), end=True)
    assert h.status(s) == 3
    block = h.trailers.get(s) or h.headers[s]
    assert all(0x20 <= ord(ch) < 0x7f for ch in block["grpc-message"])


# --- strings that C would cut ---

NUL = "must not contain NUL characters"


def strings_of(message, depth=0):
    """(path as errors have it, fields that lead to it) of each string."""
    for f in message.fields:
        repeated = f.label == f.LABEL_REPEATED
        name = f.name + ("[0]" if repeated else "")
        if f.type == f.TYPE_STRING:
            yield name, [f]
        elif f.type == f.TYPE_MESSAGE and depth < 5:
            for path, fields in strings_of(f.message_type, depth + 1):
                yield f"{name}.{path}", [f, *fields]


def encoded(fields, value):
    """A message in which only this string is set."""
    def chunk(number, body):
        head = number << 3 | 2
        assert head < 128 and len(body) < 128
        return bytes([head, len(body)]) + body
    body = value
    for f in reversed(fields):
        body = chunk(f.number, body)
    return body


def in_json(fields, value):
    for f in reversed(fields):
        value = {f.json_name: [value] if f.label == f.LABEL_REPEATED
                 else value}
    return value


def every_string():
    for service in (rpc.PUBLISHER, rpc.CHANNEL, rpc.CLUSTER, HEALTH,
                    "externalscaler.ExternalScaler",
                    "grpc.reflection.v1.ServerReflection",
                    "grpc.reflection.v1alpha.ServerReflection"):
        for method in rpc.messages.service(service).methods:
            for path, fields in strings_of(method.input_type):
                yield f"{service}/{method.name}", path, fields


def test_nul_is_refused_by_name_everywhere(cluster):
    """protobuf-c's strings end at a NUL: what would be stored is not what was
    sent."""
    tried = set()
    for method, path, fields in every_string():
        if "original_request" in path:
            continue  # only of answers
        call = cluster.d.grpc.channel.stream_stream("/" + method, None, None)
        with pytest.raises(grpc.RpcError) as e:
            list(call(iter([encoded(fields, b"a\0b")]), timeout=rpc.TIMEOUT))
        assert e.value.code() == Code.INVALID_ARGUMENT, (method, path)
        assert e.value.details() == f"{path}: {NUL}", method
        tried.add((method.split("/")[0], path))
    assert (rpc.PUBLISHER, "messages[0].data") in tried
    assert ("externalscaler.ExternalScaler",
            "scaledObjectRef.scalerMetadata[0].value") in tried
    assert len(tried) > 25


def test_connect_refuses_nul_by_name(cluster):
    for method, path, fields in every_string():
        descriptor = rpc.messages.service(method.split("/")[0])
        m = descriptor.FindMethodByName(method.split("/")[1])
        if any(f.message_type and f.message_type.GetOptions().map_entry
               for f in fields) or "original_request" in path:
            continue  # JSON's keys are refused by its parser
        status, _, answer = rpc.connect(
            cluster.d.api_port, method, encoded(fields, b"a\0b"),
            "application/proto")
        if status == 415:  # a stream
            continue
        assert (status, NUL) == (400, NUL) and NUL in answer.decode(), m.name
        json_path = ".".join(
            f.json_name + ("[0]" if f.label == f.LABEL_REPEATED else "")
            for f in fields)
        text = json.dumps(in_json(fields, "a\0b"))
        for body in (text, text.replace("\\u0000", "\0")):
            status, _, answer = rpc.connect(
                cluster.d.api_port, method, body.encode(), "application/json")
            assert status == 400, (m.name, body)
            assert json.loads(answer)["message"] == f"{json_path}: {NUL}"


def test_a_batch_with_nul_names_the_message(cluster, channel):
    batch = [dict(channel=channel, data="x")] * 3 + [
        dict(channel=channel, data="before\0after")]
    with pytest.raises(grpc.RpcError) as e:
        cluster.d.grpc.publish_batch(batch)
    assert e.value.code() == Code.INVALID_ARGUMENT
    assert e.value.details() == f"messages[3].data: {NUL}"


# --- compression ---

def test_gzip_request(cluster, channel):
    with Sse(cluster.n.port, channel) as sub:
        sub.wait_ready()
        call = cluster.d.grpc.channel.unary_unary(
            "/" + PUBLISH, rpc.PublishRequest.SerializeToString,
            rpc.PublishResponse.FromString)
        call(rpc.PublishRequest(channel=channel, data="squeezed " * 1000),
             timeout=rpc.TIMEOUT, compression=grpc.Compression.Gzip)
        assert sub.wait_messages(1)[0].data == "squeezed " * 1000


def test_unknown_encoding(h, channel):
    s = h.open_grpc(PUBLISH, ("grpc-encoding", "snappy"))
    h.send(s, grpc_message(message(channel), 1), end=True)
    assert h.status(s) == 12
    accept = {**h.headers[s], **h.trailers.get(s, {})}
    assert "identity" in accept["grpc-accept-encoding"]


def test_flag_without_encoding(h, channel):
    s = h.open_grpc(PUBLISH)
    h.send(s, grpc_message(gzip.compress(message(channel)), 1), end=True)
    assert h.status(s) == 13


def test_bad_gzip(h):
    s = h.open_grpc(PUBLISH, ("grpc-encoding", "gzip"))
    h.send(s, grpc_message(b"not gzip at all", 1), end=True)
    assert h.status(s) == 13


def test_gzip_declared_not_used(h, channel):
    s = h.open_grpc(PUBLISH, ("grpc-encoding", "gzip"))
    h.send(s, grpc_message(message(channel)), end=True)
    assert h.status(s) == 0


def test_gzip_bomb(cluster, h):
    before = rss_kib(cluster.d.pid)
    bomb = grpc_message(gzip.compress(b"\0" * (256 << 20), 9), 1)
    assert len(bomb) < 1 << 20
    s = h.open_grpc(PUBLISH, ("grpc-encoding", "gzip"))
    for i in range(0, len(bomb), 16384):
        h.wait(lambda: h.conn.local_flow_control_window(s) >= 16384
               or s in h.ended)
        if s in h.ended:
            break
        h.conn.send_data(s, bomb[i:i + 16384])
        h.flush()
    else:
        h.conn.end_stream(s)
        h.flush()
    assert h.status(s, 10) == 8
    assert rss_kib(cluster.d.pid) - before < rss_room(32)


# --- time ---

@pytest.mark.parametrize("value", ["0S", "0m", "0n"])
def test_deadline_passed_already(h, channel, value):
    s = h.open_grpc(PUBLISH, ("grpc-timeout", value))
    h.send(s, grpc_message(message(channel)), end=True)
    assert h.status(s) in (4, "h2:8")


@pytest.mark.parametrize("value", ["123456789S", "10x", "S", "", "-1S",
                                   "1.5S", "10"])
def test_malformed_timeout(h, channel, value):
    """Refused or ignored; never a hang or a crash."""
    s = h.open_grpc(PUBLISH, ("grpc-timeout", value))
    h.send(s, grpc_message(message(channel)), end=True)
    assert h.status(s) in (0, 3, 13, "http:400")


def test_deadline_on_an_open_stream(h):
    """The server ends a stream whose time is up, though nobody speaks."""
    s = h.open_grpc(rpc.PUBLISHER + "/PublishStream",
                    ("grpc-timeout", "300m"))
    assert h.status(s, 5) in (4, "h2:8")


def test_client_deadline(cluster):
    import queue
    start = time.monotonic()
    call = cluster.d.grpc.publish_stream(iter(queue.Queue().get, None),
                                         timeout=0.5)
    with pytest.raises(grpc.RpcError) as e:
        list(call)
    assert e.value.code() == Code.DEADLINE_EXCEEDED
    assert time.monotonic() - start < 5
    call = None


def test_cancelled_calls(cluster, channel):
    """Hundreds of cancelled streams leave nothing behind."""
    with Sse(cluster.n.port, channel) as sub:
        sub.wait_ready()
        for i in range(200):
            gate = threading.Event()

            def requests():
                yield rpc.PublishRequest(channel=channel, data=str(i))
                gate.wait(5)
            call = cluster.d.grpc.publish_stream(requests())
            next(call)
            call.cancel()
            gate.set()
        cluster.d.publish(channel, "still well")
        sub.wait_data("still well")


# --- metadata and limits ---

def test_metadata_is_ignored(cluster, channel):
    call = cluster.d.grpc.channel.unary_unary(
        "/" + PUBLISH, rpc.PublishRequest.SerializeToString,
        rpc.PublishResponse.FromString)
    call(rpc.PublishRequest(channel=channel, data="x"),
         timeout=rpc.TIMEOUT, metadata=[("x-trace", "1"),
                                        ("x-bin", b"\0\xff")])


def test_header_list_too_large(cluster, h, channel):
    s = h.open_grpc(PUBLISH, *[(f"x-{i}", "v" * 1000) for i in range(60)])
    try:
        h.send(s, grpc_message(message(channel)), end=True)
        status = h.status(s)
    except Exception:
        status = "closed"
    assert status != 0
    cluster.d.publish(channel, "others")


def test_many_streams_at_once(h, channel):
    streams = []
    for _ in range(50):
        s = h.open_grpc(PUBLISH)
        h.send(s, grpc_message(message(channel)), end=True)
        streams.append(s)
    assert [h.status(s) for s in streams] == [0] * 50


def test_concurrent_callers(cluster, channel):
    with Sse(cluster.n.port, channel) as sub:
        sub.wait_ready()
        futures = []
        call = cluster.d.grpc.channel.unary_unary(
            "/" + PUBLISH, rpc.PublishRequest.SerializeToString,
            rpc.PublishResponse.FromString)
        for i in range(1000):
            futures.append(call.future(rpc.PublishRequest(
                channel=channel, data=str(i)), timeout=30))
        for f in futures:
            assert f.result().nodes == 1
        sub.wait_messages(1000)
        assert sorted(map(int, sub.data())) == list(range(1000))


def test_handled_counters(cluster, channel):
    def count(code):
        return cluster.d.metric(
            "stentor_grpc_server_handled_total", grpc_service=rpc.PUBLISHER,
            grpc_method="Publish", grpc_code=code)
    # the names of the codes as go-grpc-prometheus has them or as gRPC has
    labels = cluster.d.metrics().labels(
        "stentor_grpc_server_handled_total", "grpc_code")
    ok = next(x for x in ("OK", "0") if x in labels)
    before = count(ok)
    cluster.d.grpc.publish(channel=channel, data="x")
    wait_until(lambda: count(ok) == before + 1, what="OK counted")
    total = cluster.d.metric("stentor_grpc_server_handled_total")
    with pytest.raises(grpc.RpcError):
        cluster.d.grpc.publish(channel="not ok", data="x")
    wait_until(lambda: cluster.d.metric(
        "stentor_grpc_server_handled_total") == total + 1)
    assert count(ok) == before + 1
