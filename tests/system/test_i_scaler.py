"""KEDA's external scaler, asked as KEDA asks."""
import grpc
import pytest

import rpc
import tokens
from harness import wait_until
from sse import Sse

SERVICE = "externalscaler.ExternalScaler"


class Keda:
    def __init__(self, d, **metadata):
        self.stubs = d.grpc
        self.ref = rpc.messages("externalscaler.ScaledObjectRef")(
            name="node", namespace="live", scalerMetadata=metadata)

    def call(self, method, request, response):
        return self.stubs.unary(
            f"{SERVICE}/{method}", "externalscaler." + type(request).__name__,
            "externalscaler." + response)(request, timeout=5)

    def spec(self):
        got = self.call("GetMetricSpec", self.ref, "GetMetricSpecResponse")
        assert len(got.metricSpecs) == 1
        return got.metricSpecs[0]

    def value(self, name=""):
        request = rpc.messages("externalscaler.GetMetricsRequest")(
            scaledObjectRef=self.ref, metricName=name)
        got = self.call("GetMetrics", request, "GetMetricsResponse")
        assert len(got.metricValues) == 1
        return got.metricValues[0]

    def active(self):
        return self.call("IsActive", self.ref, "IsActiveResponse").result

    def stream(self):
        return self.stubs.channel.unary_stream(
            f"/{SERVICE}/StreamIsActive",
            type(self.ref).SerializeToString,
            rpc.messages("externalscaler.IsActiveResponse").FromString)(
                self.ref, timeout=30)


def code_of(call):
    with pytest.raises(grpc.RpcError) as e:
        call()
    return e.value.code()


def test_same_sum_from_each(cluster22, channel):
    c = cluster22
    asked = [Keda(d, target="500") for d in c.dispatchers]
    before = asked[0].value().metricValueFloat
    streams = [Sse(n.port, channel).wait_ready() for n in c.nodes * 5]
    for keda in asked:
        wait_until(lambda k=keda: k.value().metricValueFloat == before + 10)
        value = keda.value("connections")
        assert value.metricName == "connections"
        assert value.metricValue == before + 10
        assert keda.active()
    spec = asked[0].spec()
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (
        "connections", 500, 500.0)
    for s in streams:
        s.close()


@pytest.mark.parametrize("metric", ["connections", "accepts", "fanout_bytes",
                                    "queue_age_ms", "load"])
def test_each_metric(cluster, metric):
    keda = Keda(cluster.d, metricName=metric)
    assert keda.spec().metricName == metric
    assert keda.spec().targetSizeFloat > 0
    assert keda.value(metric).metricName == metric
    assert keda.value(metric).metricValueFloat >= 0
    # KEDA's own name for it may be lost on the way
    assert keda.value("").metricName == metric


def test_accepts_and_bytes_move(cluster, channel):
    keda = Keda(cluster.d)
    streams = [Sse(cluster.n.port, channel).wait_ready() for _ in range(30)]
    wait_until(lambda: keda.value("accepts").metricValueFloat > 0)
    wait_until(lambda: keda.value("fanout_bytes").metricValueFloat > 0)
    for s in streams:
        s.close()


def test_faulty_metadata(cluster):
    assert code_of(Keda(cluster.d, metricName="heat").spec) == \
        grpc.StatusCode.INVALID_ARGUMENT
    assert code_of(lambda: Keda(cluster.d).value("heat")) == \
        grpc.StatusCode.INVALID_ARGUMENT
    for target in ("0", "-5", "many", "nan", "inf", "5x"):
        assert code_of(Keda(cluster.d, target=target).spec) == \
            grpc.StatusCode.INVALID_ARGUMENT, target


def test_blind_is_an_error_not_zero(make_cluster):
    """Without a node in sight, as right after a start, nothing may be scaled
    by what this dispatcher says."""
    c = make_cluster(1, 0, 0)
    keda = Keda(c.d)
    assert code_of(keda.value) == grpc.StatusCode.UNAVAILABLE
    assert code_of(keda.active) == grpc.StatusCode.UNAVAILABLE
    assert code_of(lambda: next(keda.stream())) == \
        grpc.StatusCode.UNAVAILABLE
    # what a node is to carry is no secret of the fleet
    assert keda.spec().targetSize == 35000


def test_blind_until_settled(make_cluster):
    c = make_cluster(1, 1, 1, start=False,
                     dispatcher_options={"settle_ms": 60000})
    c.d.start()
    c.n.start()
    wait_until(lambda: c.n.ready() == 200, what="the node is linked")
    assert code_of(Keda(c.d).value) == grpc.StatusCode.UNAVAILABLE


def test_stream_says_active_and_stays(cluster):
    call = Keda(cluster.d).stream()
    assert next(call).result is True
    assert call.is_active()
    call.cancel()


def test_no_token_is_needed(make_cluster):
    """KEDA has none to show; the rest of the API stays closed."""
    c = make_cluster(1, 1, 1, auth=tokens.Auth())
    assert Keda(c.d).value().metricName == "connections"
    assert code_of(lambda: c.d.grpc.publish(channel="a", data="b")) == \
        grpc.StatusCode.UNAUTHENTICATED
