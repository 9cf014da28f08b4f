"""What may wait for a store at most, and batches that can't be taken."""
import contextlib
import json
import signal
import threading
import time

import grpc
import pytest

import h2client
import rpc
from harness import SLOW, wait_until
from test_u_store import (EPHEMERAL, RULES, code_of,  # noqa: F401 (for redis)
                          position)


def batch_of(d, count, **fields):
    return d.grpc.publish_batch([dict(data=str(i), **fields)
                                 for i in range(count)])


def test_batch_of_which_nothing_can_be_taken_fails(redis):
    """As a call, so that a stock retryPolicy sees it; with one that is taken,
    or faults of their own, each message has its result."""
    d = redis.d
    redis.redis.signal(signal.SIGSTOP)
    start = time.monotonic()
    code, text = code_of(batch_of, d, 5000, channel="log:b")
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "retry" in text
    # one wait for the store and not one for each slice of the batch
    assert time.monotonic() - start < 4.5 * SLOW
    answer = d.grpc.publish_batch([dict(channel="log:b", data="1"),
                                   dict(channel=EPHEMERAL, data="2")])
    assert [r.code for r in answer.results] == [14, 0]
    redis.redis.signal(signal.SIGCONT)
    wait_until(lambda: d.ready() == 200, 10, "it is back")
    answer = batch_of(d, 3, channel="not one")
    assert [r.code for r in answer.results] == [3, 3, 3]
    assert not d.grpc.publish_batch([]).results


def test_batch_to_one_that_starts_is_retried(redis):
    """By service config alone."""
    d = redis.d
    assert d.stop() == 0
    d.close_grpc()
    d.start(settle_ms=int(600 * SLOW))
    stubs = rpc.Stubs(d.api, [("grpc.service_config", json.dumps({
        "methodConfig": [{
            "name": [{"service": rpc.PUBLISHER}],
            "retryPolicy": {
                # each waits for a random part of it
                "maxAttempts": 5, "initialBackoff": f"{2 * SLOW}s",
                "maxBackoff": f"{2 * SLOW}s", "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"]}}]}))])
    wait_until(lambda: d.ready() == 503, 5, "it answers")
    answer = stubs.publish_batch([dict(channel="log:r", data=str(i))
                                  for i in range(10)], timeout=20 * SLOW)
    assert [position(r.response)[1] for r in answer.results] \
        == list(range(1, 11))
    stubs.close()


def test_a_batch_is_in_its_order(redis):
    """However it is sliced, and though others publish to its channel."""
    d = redis.d
    stop, others = threading.Event(), []

    def other():
        while not stop.is_set():
            others.append(position(d.grpc.publish(channel="log:o", data="x"))[1])
    thread = threading.Thread(target=other)
    thread.start()
    answer = d.grpc.publish_batch([dict(channel="log:o", data=str(i))
                                   for i in range(10000)], timeout=60 * SLOW)
    stop.set()
    thread.join()
    offsets = [position(r.response)[1] for r in answer.results]
    assert offsets == sorted(offsets)
    assert sorted(offsets + others) == list(range(1, 10001 + len(others)))


def test_json_batch_in_slices(redis):
    status, answer = redis.d.call(rpc.PUBLISHER + "/PublishBatch", {
        "messages": [{"channel": EPHEMERAL, "data": f"[{i}]\"}}"}
                     for i in range(10000)]})
    assert status == 200
    assert len(answer["results"]) == 10000
    assert all(r["response"]["messageId"] for r in answer["results"])
    status, answer = redis.d.call(rpc.PUBLISHER + "/PublishBatch", {
        "messages": [{"channel": EPHEMERAL}] * 10001})
    assert (status, answer["code"]) == (400, "invalid_argument")
    assert "messages: more than 10000" in answer["message"]


@contextlib.contextmanager
def another_connection(d):
    stubs = rpc.Stubs(d.api)
    try:
        yield stubs
    finally:
        stubs.close()


def test_batches_under_way_are_bounded(stuck):
    """1,048,576 messages in batches that wait for one of theirs: one
    connection may have as many as it leaves to others."""
    call = stuck.grpc.raw("stentor.v1.PublisherService/PublishBatch")
    body = rpc.PublishBatchRequest(messages=[
        rpc.PublishRequest(channel=channel, data="x")
        for channel in ["log:l"] + [EPHEMERAL] * 9999]).SerializeToString()
    futures = [call.future(body, timeout=60 * SLOW) for _ in range(104)]
    wait_until(lambda: sum(f.done() for f in futures) == 52, 20,
               "half of them are refused")
    assert stuck.metric("stentor_publish_batch_waiting") == 520000
    assert stuck.metric("stentor_publish_share_refused_total") == 52
    for f in futures:
        if f.done():
            assert f.code() == grpc.StatusCode.UNAVAILABLE
            assert "nothing was published, retry" in f.details()
    assert stuck.grpc.publish(channel=EPHEMERAL, data="x").message_id
    with another_connection(stuck) as other:
        batch = [dict(channel=EPHEMERAL, data="x")] * 10000
        assert len(other.publish_batch(batch).results) == 10000
    for f in futures:
        f.cancel()


def test_stream_is_paused_while_the_store_is_slow(redis, stuck):
    """At most 4096 results of a stream wait; then its requests do."""
    requests = [rpc.PublishRequest(channel="log:p", data=str(i))
                for i in range(10000)]
    stream = stuck.grpc.publish_stream(requests, timeout=60 * SLOW)
    wait_until(lambda: stuck.metric("stentor_publish_stream_waiting") == 4096,
               20, "the stream's limit is reached")
    assert stuck.metric("stentor_publish_pending") == 4096
    redis.redis.signal(signal.SIGCONT)
    assert [position(r.response)[1] for r in stream] == list(range(1, 10001))


def test_streams_under_way_are_bounded(stuck):
    """131,072 results of all streams wait behind others, then requests do;
    those of one connection before that."""
    first, rest = (h2client.grpc_message(rpc.PublishRequest(
        channel=channel, data="x").SerializeToString())
        for channel in ("log:l", EPHEMERAL))
    with h2client.RawH2(stuck.api_port) as h:
        for stream in range(1, 2 * 40, 2):
            h.send(h.headers(stream, h2client.grpc_headers(
                "stentor.v1.PublisherService/PublishStream")))
            left = first + rest * 4000
            while left:
                h.send(h2client.frame(h2client.DATA, 0, stream,
                                      left[:16000]))
                left = left[16000:]
        wait_until(lambda: stuck.metric("stentor_publish_stream_waiting")
                   >= 65536, 10, "its share is reached")
        assert stuck.grpc.publish(channel=EPHEMERAL, data="x").message_id
        results = stuck.grpc.publish_stream(
            [rpc.PublishRequest(channel=EPHEMERAL, data="x")] * 1000)
        assert len(list(results)) == 1000
        assert stuck.metric("stentor_publish_stream_waiting") < 65536 + 40


def test_batches_leave_the_store_to_others(stuck):
    """Of all batches together at most 512 messages wait for it, and what others
    publish stands behind those and no more."""
    call = stuck.grpc.raw("stentor.v1.PublisherService/PublishBatch")
    body = rpc.PublishBatchRequest(messages=[rpc.PublishRequest(
        channel="log:l", data="x")] * 1000).SerializeToString()
    futures = [call.future(body, timeout=60 * SLOW) for _ in range(50)]
    wait_until(lambda: stuck.metric("stentor_publish_batch_waiting") == 50000,
               10, "all have come")
    waiting = stuck.metric("stentor_publish_batch_pending")
    assert 0 < waiting <= 512
    assert stuck.metric("stentor_publish_pending") == waiting
    with another_connection(stuck) as other:
        unary = other.unary(rpc.PUBLISHER + "/Publish",
                            "stentor.v1.PublishRequest",
                            "stentor.v1.PublishResponse").future(
            rpc.PublishRequest(channel="log:l", data="x"),
            timeout=60 * SLOW)
        wait_until(lambda: stuck.metric("stentor_publish_pending")
                   == waiting + 1, 5,
                   "it waits for the store itself")
        unary.cancel()
        # what was not given to the store ends with its call
        for f in futures:
            f.cancel()
        wait_until(lambda: stuck.metric("stentor_publish_batch_waiting")
                   <= 32000, 5, "batches that wait for others end")


@pytest.mark.parametrize("stuck", [{"publish_pending_max": 64}], indirect=True)
def test_messages_that_wait_are_bounded(stuck):
    """One connection may have half of --publish-pending-max, the next half of
    what is left."""
    request = rpc.PublishRequest(channel="log:l", data="x")

    def publish(stubs):
        return stubs.unary(rpc.PUBLISHER + "/Publish",
                           "stentor.v1.PublishRequest",
                           "stentor.v1.PublishResponse").future(
            request, timeout=60 * SLOW)
    calls = [publish(stuck.grpc) for _ in range(40)]
    wait_until(lambda: sum(f.done() for f in calls) == 8, 10, "8 too many")
    assert stuck.metric("stentor_publish_pending") == 32
    with another_connection(stuck) as other:
        calls += [publish(other) for _ in range(17)]
        wait_until(lambda: sum(f.done() for f in calls) == 9, 10,
                   "another has less of it")
        assert stuck.metric("stentor_publish_pending") == 48
        for f in calls:
            if f.done():
                assert f.code() == grpc.StatusCode.UNAVAILABLE
                assert "of this connection wait for the store" in f.details()
            f.cancel()


def test_reads_for_calls_are_bounded(stuck):
    call = stuck.grpc.unary("stentor.v1.ChannelService/GetHistory",
                            "stentor.v1.GetHistoryRequest",
                            "stentor.v1.GetHistoryResponse")
    request = rpc.messages("stentor.v1.GetHistoryRequest")(channel="log:l")
    futures = [call.future(request, timeout=60 * SLOW) for _ in range(64)]
    wait_until(lambda: stuck.metric("stentor_channel_reads") == 64, 5,
               "as many as may")
    code, text = code_of(call, request, timeout=5 * SLOW)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "more than 64 calls" in text
    for f in futures:
        f.cancel()


def test_cancelled_calls_leave_nothing_behind(stuck):
    """What they began is stored, its answers go nowhere: see stuck."""
    stream = stuck.grpc.publish_stream(
        [rpc.PublishRequest(channel="log:c", data=str(i))
         for i in range(100)])
    wait_until(lambda: stuck.metric("stentor_publish_stream_waiting") == 100,
               5, "all wait")
    stream.cancel()
    code, _ = code_of(stuck.grpc.publish, channel="log:c", data="x",
                      timeout=0.2)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    code, _ = code_of(stuck.grpc.publish_batch,
                      [dict(channel="log:c", data="x")] * 10, timeout=0.2)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
