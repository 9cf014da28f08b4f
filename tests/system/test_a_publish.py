"""Publish by every way in, arrive by SSE."""
import json

import grpc
import pytest

import rpc
from harness import run
from sse import Sse

PUBLISH = "stentor.v1.PublisherService/Publish"


@pytest.fixture
def sub(cluster, channel):
    with Sse(cluster.n.port, channel) as s:
        yield s.wait_ready()


def test_grpc_unary(cluster, channel, sub):
    r = cluster.d.grpc.publish(channel=channel, data="hello")
    assert r.message_id
    assert r.nodes == 1
    assert not r.HasField("position")  # ephemeral: nothing is stored
    e = sub.wait_data("hello")
    assert (e.event, e.id) == ("message", "")


def test_grpc_event_type(cluster, channel, sub):
    cluster.d.grpc.publish(channel=channel, data="4 runs", event="boundary")
    assert sub.wait_data("4 runs").event == "boundary"


def test_grpc_without_subscribers(cluster, channel):
    r = cluster.d.grpc.publish(channel=channel, data="nobody")
    assert r.nodes == 0 and r.message_id


def test_message_ids_differ(cluster, channel):
    ids = {cluster.d.grpc.publish(channel=channel, data="x").message_id
           for _ in range(50)}
    assert len(ids) == 50


def test_grpc_batch_keeps_order(cluster, channel, sub):
    r = cluster.d.grpc.publish_batch(
        [dict(channel=channel, data=str(i)) for i in range(500)])
    assert [x.code for x in r.results] == [0] * 500
    assert all(x.response.message_id for x in r.results)
    sub.wait_messages(500)
    assert sub.data() == [str(i) for i in range(500)]


def test_grpc_batch_bad_message_fails_alone(cluster, channel, sub):
    r = cluster.d.grpc.publish_batch([
        dict(channel=channel, data="first"),
        dict(channel="not a channel", data="bad"),
        dict(channel=channel, data="last")])
    assert [x.code for x in r.results] == [0, 3, 0]
    assert "channel" in r.results[1].error
    assert not r.results[1].HasField("response")
    sub.wait_messages(2)
    assert sub.data() == ["first", "last"]


def test_grpc_empty_batch(cluster):
    try:
        assert len(cluster.d.grpc.publish_batch([]).results) == 0
    except grpc.RpcError as e:
        assert e.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_grpc_stream_results_in_order(cluster, channel, sub):
    def requests():
        for i in range(300):
            name = "bad channel" if i % 100 == 50 else channel
            yield rpc.PublishRequest(channel=name, data=str(i))

    results = list(cluster.d.grpc.publish_stream(requests()))
    assert [r.code for r in results] == [
        3 if i % 100 == 50 else 0 for i in range(300)]
    sub.wait_messages(297)
    assert sub.data() == [str(i) for i in range(300) if i % 100 != 50]


def test_grpc_stream_answers_before_its_end(cluster, channel, sub):
    """A result comes while the producer keeps the stream open."""
    import queue
    feed = queue.Queue()
    call = cluster.d.grpc.publish_stream(iter(feed.get, None))
    for i in range(5):
        feed.put(rpc.PublishRequest(channel=channel, data=f"live {i}"))
        assert next(call).code == 0
        sub.wait_data(f"live {i}")
    feed.put(None)
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK


def test_connect_json(cluster, channel, sub):
    status, answer = cluster.d.call(
        PUBLISH, {"channel": channel, "data": "IND 245/3"})
    assert status == 200
    assert answer["messageId"] and answer["nodes"] == 1
    sub.wait_data("IND 245/3")


def test_connect_json_snake_case_and_enum(cluster, channel, sub):
    status, _ = cluster.d.call(PUBLISH, {
        "channel": channel, "data": "x", "conflation_key": "",
        "priority": "PRIORITY_DROPPABLE", "want_receipt": False})
    assert status == 200
    status, _ = cluster.d.call(PUBLISH, {
        "channel": channel, "data": "y", "conflationKey": "",
        "priority": 2, "wantReceipt": False})
    assert status == 200
    sub.wait_messages(2)
    assert sub.data() == ["x", "y"]


def test_connect_proto(cluster, channel, sub):
    body = rpc.PublishRequest(channel=channel, data="bytes")
    status, headers, answer = rpc.connect(
        cluster.d.api_port, PUBLISH, body.SerializeToString(),
        "application/proto")
    assert status == 200
    assert headers["Content-Type"] == "application/proto"
    assert rpc.PublishResponse.FromString(answer).nodes == 1
    sub.wait_data("bytes")


def test_connect_batch_json(cluster, channel, sub):
    status, answer = cluster.d.call(
        "stentor.v1.PublisherService/PublishBatch",
        {"messages": [{"channel": channel, "data": "a"},
                      {"channel": "", "data": "b"}]})
    assert status == 200
    assert [r.get("code", 0) for r in answer["results"]] == [0, 3]
    sub.wait_data("a")


def test_curl(cluster, channel, sub):
    """The line of the README."""
    r = run(["curl", "-sS", "-H", "Content-Type: application/json", "-d",
             json.dumps({"channel": channel, "data": "from curl"}),
             f"http://127.0.0.1:{cluster.d.api_port}/{PUBLISH}"])
    assert r.returncode == 0, r.stderr
    assert json.loads(r.stdout)["nodes"] == 1
    sub.wait_data("from curl")


def test_curl_over_http2(cluster, channel, sub):
    """Connect works on the same port with HTTP/2 prior knowledge."""
    r = run(["curl", "-sS", "--http2-prior-knowledge", "-H",
             "Content-Type: application/json", "-w", "\n%{http_version}",
             "-d", json.dumps({"channel": channel, "data": "h2"}),
             f"http://127.0.0.1:{cluster.d.api_port}/{PUBLISH}"])
    assert r.returncode == 0, r.stderr
    body, version = r.stdout.rsplit("\n", 1)
    assert json.loads(body)["nodes"] == 1 and version == "2"
    sub.wait_data("h2")


PAYLOADS = {
    "empty": "",
    "space": " ",
    "leading-space": "  two before",
    "lf": "a\nb",
    "crlf": "a\r\nb",
    "cr": "a\rb",
    "mixed": "\r\n\r\r\n\n",
    "trailing": "end\n",
    "colon": ": not a comment",
    "fields": "id: 1\nevent: evil\nretry: 0\n\ndata: injected",
    "unicode": "हिन्दी 🏏 \u2028 \ufeff",
    "json": json.dumps({"a": [1, None, "\u0000"], "b": "\\\""}),
    "control": "\x01\x1f\x7f",
}


def lines(text):
    """What a browser makes of data: each line end becomes one LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("name", PAYLOADS)
def test_payload_raw(cluster, channel, sub, name):
    text = PAYLOADS[name]
    cluster.d.grpc.publish(channel=channel, data=text, event="e")
    cluster.d.grpc.publish(channel=channel, data="after", event="e")
    sub.wait_data("after")
    assert [(e.event, e.data, e.id) for e in sub.messages()] == [
        ("e", lines(text), ""), ("e", "after", "")]
    assert all(r >= 100 for r in sub.retries)


@pytest.mark.parametrize("name", PAYLOADS)
def test_payload_json_is_exact(cluster, channel, name):
    """The json format carries the text as it was, CR and all."""
    text = PAYLOADS[name]
    with Sse(cluster.n.port, channel, query={"format": "json"}) as s:
        s.wait_ready()
        cluster.d.grpc.publish(channel=channel, data=text, event="e")
        e = s.wait_messages(1)[0]
        assert e.event == "e"
        body = e.json()
        assert body["channel"] == channel
        assert body["data"] == text
        assert body["event"] == "e"


def test_json_format_several_channels(cluster, channel):
    names = [f"{channel}/{i}" for i in range(5)]
    with Sse(cluster.n.port, *names, query={"format": "json"}) as s:
        s.wait_ready()
        for i, name in enumerate(names):
            cluster.d.grpc.publish(channel=name, data=str(i))
        got = {e.json()["channel"]: e.json()["data"]
               for e in s.wait_messages(5)}
        assert got == {name: str(i) for i, name in enumerate(names)}


def test_raw_format_several_channels(cluster, channel):
    names = [f"{channel}/{i}" for i in range(3)]
    with Sse(cluster.n.port, *names, query={"format": "raw"}) as s:
        s.wait_ready()
        for i, name in enumerate(names):
            cluster.d.grpc.publish(channel=name, data=str(i), event=f"e{i}")
        s.wait_messages(3)
        assert sorted((e.event, e.data) for e in s.messages()) == [
            ("e0", "0"), ("e1", "1"), ("e2", "2")]


def test_one_megabyte(cluster, channel, sub):
    text = "x" * ((1 << 20) - 1) + "y"
    cluster.d.grpc.publish(channel=channel, data="small first")
    with Sse(cluster.n.port, channel) as quick:
        quick.wait_ready()
        try:
            cluster.d.grpc.publish(channel=channel, data=text)
        except grpc.RpcError as e:
            # a lower limit must be named
            assert e.code() in (grpc.StatusCode.INVALID_ARGUMENT,
                                grpc.StatusCode.RESOURCE_EXHAUSTED)
            assert "data" in e.details()
            pytest.fail(f"1 MiB is refused: {e.details()}")
        quick.wait_data(text, timeout=20)


def test_payload_over_the_limit(cluster, channel, sub):
    with pytest.raises(grpc.RpcError) as e:
        cluster.d.grpc.publish(channel=channel, data="x" * (2 << 20))
    assert e.value.code() in (grpc.StatusCode.INVALID_ARGUMENT,
                              grpc.StatusCode.RESOURCE_EXHAUSTED)
    cluster.d.grpc.publish(channel=channel, data="still here")
    assert sub.wait_messages(1)[0].data == "still here"


def field(number, value):
    """A length-delimited protobuf field."""
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80",
                                 b"\xf5\x80\x80\x80", b"ok\xe2\x82"])
def test_invalid_utf8_is_refused(cluster, channel, sub, bad):
    body = field(1, channel.encode()) + field(2, bad)
    with pytest.raises(grpc.RpcError) as e:
        cluster.d.grpc.raw(PUBLISH)(body, timeout=rpc.TIMEOUT)
    assert e.value.code() in (grpc.StatusCode.INVALID_ARGUMENT,
                              grpc.StatusCode.INTERNAL)
    assert "data" in e.value.details() or "UTF-8" in e.value.details()
    status, _, answer = rpc.connect(cluster.d.api_port, PUBLISH, body,
                                    "application/proto")
    assert status in (400, 500), answer
    cluster.d.grpc.publish(channel=channel, data="next")
    assert sub.wait_messages(1)[0].data == "next"


BAD_FIELDS = [
    ("channel", dict(channel="")),
    ("channel", dict(channel="a" * 129)),
    ("channel", dict(channel="with space")),
    ("channel", dict(channel="naïve")),
    ("channel", dict(channel="a\nb")),
    ("channel", dict(channel="a,b")),
    ("event", dict(event="stentor.ready")),
    ("event", dict(event="two\nlines")),
    ("event", dict(event="cr\rhere")),
    ("event", dict(event="e" * 129)),
    ("priority", dict(priority=99)),
]


@pytest.mark.parametrize("name,bad", BAD_FIELDS,
                         ids=[f"{n}-{i}" for i, (n, _) in
                              enumerate(BAD_FIELDS)])
def test_bad_field_is_named(cluster, channel, name, bad):
    fields = {"channel": channel, "data": "x", **bad}
    with pytest.raises(grpc.RpcError) as e:
        cluster.d.grpc.publish(**fields)
    assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert name in e.value.details()


def test_channel_of_every_allowed_character(cluster):
    name = ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
            "0123456789_.:~@/-")
    name = name + "x" * (128 - len(name))
    with Sse(cluster.n.port, name) as s:
        s.wait_ready()
        cluster.d.grpc.publish(channel=name, data="all")
        s.wait_data("all")


def test_many_subscribers_of_one_channel(cluster, channel):
    subs = [Sse(cluster.n.port, channel) for _ in range(100)]
    try:
        for s in subs:
            s.wait_ready()
        for i in range(20):
            cluster.d.grpc.publish(channel=channel, data=str(i))
        for s in subs:
            s.wait_messages(20)
            assert s.data() == [str(i) for i in range(20)]
    finally:
        for s in subs:
            s.close()


def test_get_channel_counts(cluster, channel):
    answer = cluster.d.channel(channel)
    assert int(answer.get("subscribers", 0)) == 0
    subs = [Sse(cluster.n.port, channel).wait_ready() for _ in range(3)]
    answer = cluster.d.channel(channel)
    assert answer["channel"] == channel
    assert int(answer["subscribers"]) == 3
    assert answer["nodes"] == 1 and answer["workers"] == 1
    assert answer["complete"] is True
    assert answer["rule"]["lagging"] in ("close", "drop_oldest")
    for s in subs:
        s.close()
