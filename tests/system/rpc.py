"""Stock clients of the API port: grpcio stubs and Connect over http.client.

Message classes come from a descriptor set that protoc makes of proto/ when the
tests start, so nothing generated is kept and grpc.* packages do not collide
with grpcio's own modules.
"""
import http.client
import json
import os
import pathlib
import subprocess
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PROTO = _ROOT / "proto"
_SLOW = float(os.environ.get("STENTOR_SLOW", "1"))
TIMEOUT = 10 * _SLOW


def descriptor_set():
    """FileDescriptorSet of everything under proto/, serialized."""
    files = sorted(str(p.relative_to(_PROTO)) for p in _PROTO.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "all.pb")
        subprocess.run(["protoc", f"-I{_PROTO}", "--include_imports",
                        f"--descriptor_set_out={out}", *files], check=True)
        return pathlib.Path(out).read_bytes()


class _Messages:
    """messages("stentor.v1.PublishRequest") -> the class."""

    def __init__(self):
        self._pool = None

    def pool(self):
        if self._pool is None:
            self._pool = descriptor_pool.DescriptorPool()
            fds = descriptor_pb2.FileDescriptorSet.FromString(
                descriptor_set())
            for f in fds.file:
                self._pool.Add(f)
            self._factory = message_factory.MessageFactory(self._pool)
        return self._pool

    def __call__(self, name):
        return self._factory.GetPrototype(
            self.pool().FindMessageTypeByName(name))

    def service(self, name):
        return self.pool().FindServiceByName(name)


messages = _Messages()
messages.pool()

PublishRequest = messages("stentor.v1.PublishRequest")
PublishResponse = messages("stentor.v1.PublishResponse")
PublishBatchRequest = messages("stentor.v1.PublishBatchRequest")
PublishBatchResponse = messages("stentor.v1.PublishBatchResponse")
PublishResult = messages("stentor.v1.PublishResult")

PUBLISHER = "stentor.v1.PublisherService"
CHANNEL = "stentor.v1.ChannelService"
CLUSTER = "stentor.v1.ClusterService"


class Stubs:
    """Calls on one channel: s.publish(channel=..., data=...)."""

    def __init__(self, target, options=()):
        self.channel = grpc.insecure_channel(target, options=[
            ("grpc.initial_reconnect_backoff_ms", 100),
            # also the time that a connection may take to be made
            ("grpc.min_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", 64 << 20),
            *options])

    def close(self):
        self.channel.close()

    def unary(self, path, request_name, response_name):
        return self.channel.unary_unary(
            "/" + path, messages(request_name).SerializeToString,
            messages(response_name).FromString)

    def raw(self, path):
        """A unary call of bytes to bytes."""
        return self.channel.unary_unary("/" + path, None, None)

    def publish(self, timeout=TIMEOUT, **fields):
        call = self.unary(PUBLISHER + "/Publish",
                          "stentor.v1.PublishRequest",
                          "stentor.v1.PublishResponse")
        return call(PublishRequest(**fields), timeout=timeout)

    def publish_batch(self, fields, timeout=TIMEOUT):
        call = self.unary(PUBLISHER + "/PublishBatch",
                          "stentor.v1.PublishBatchRequest",
                          "stentor.v1.PublishBatchResponse")
        batch = PublishBatchRequest(
            messages=[PublishRequest(**f) for f in fields])
        return call(batch, timeout=timeout)

    def publish_stream(self, requests, timeout=TIMEOUT):
        """Takes an iterable of PublishRequest, gives results one by one."""
        call = self.channel.stream_stream(
            f"/{PUBLISHER}/PublishStream", PublishRequest.SerializeToString,
            PublishResult.FromString)
        return call(iter(requests), timeout=timeout)


def connect(port, method, body, content_type, headers=None, verb="POST",
            host="127.0.0.1"):
    """One Connect call: (HTTP status, headers, body)."""
    conn = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        conn.request(verb, "/" + method, body=body,
                     headers={"Content-Type": content_type,
                              "Connect-Protocol-Version": "1",
                              **(headers or {})})
        r = conn.getresponse()
        return r.status, r.headers, r.read()
    finally:
        conn.close()


def connect_json(port, method, message, headers=None, host="127.0.0.1"):
    """(HTTP status, decoded JSON answer)."""
    status, got, body = connect(port, method, json.dumps(message).encode(),
                                "application/json", headers, host=host)
    assert got["Content-Type"].startswith("application/json"), (status, body)
    return status, json.loads(body)
