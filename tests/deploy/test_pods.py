"""The image runs, and the chart's pods run in it: their commands, environment,
mounts, users and probes as rendered, on this machine's kernel."""
import json
import subprocess
import time

import pytest

import containers
import harness
import pods
import tokens
from conftest import CHART

API, HTTP = 7070, 8080


def test_image(image, network):
    root, config = image
    assert config["User"] == "65532:65532"
    network.name("here", "127.0.0.1")
    program = containers.Container(network, "any", root, [])
    for name in ("stentor-dispatcher", "stentor-connnode", "stentorctl"):
        r = program.run(name, "--version")
        assert r.returncode == 0 and r.stdout.startswith(name), r
    assert config["Cmd"] == ["stentor-dispatcher"]
    records = (root / "var/lib/dpkg/status").read_text()
    for package in ("libc6", "ca-certificates"):
        assert f"Package: {package}\n" in records
    certificates = root / "etc/ssl/certs/ca-certificates.crt"
    assert certificates.read_text().count("BEGIN CERTIFICATE") > 100


def test_the_root_is_read_only_and_the_user_nobody(image, network):
    network.name("here", "127.0.0.1")
    root = image[0]
    program = containers.Container(
        network, "any", root,
        ["stentor-dispatcher", "--auth=none", "--store=lmdb:/store"])
    r = program.run(*program.command)
    assert r.returncode != 0
    assert "Read-only file system" in r.stdout + r.stderr, r


def fleet(network, root, manifests, secrets=None, nodes=2,
          kind="Deployment"):
    """Pods of a release with one dispatcher, started and ready."""
    made = pods.Pods(network, root, manifests, secrets)
    dispatcher = made.start(kind, "stentor-dispatcher")
    for name in ("stentor-dispatcher", "stentor-dispatcher-headless"):
        made.find("Service", name)
        network.name(name, dispatcher.address)
    all_ = [dispatcher] + [made.start("Deployment", "stentor-node", i)
                           for i in range(nodes)]
    for pod in all_:
        pod.start()
    made.wait_ready(*all_)
    return made, dispatcher, all_[1:]


def helm_test(made):
    """`helm test`: its pod's command, with our name of the API's address."""
    test = made.start("Pod", "stentor-test")
    r = test.run(*test.command)
    assert r.returncode == 0, r
    return r.stdout


def test_pods_without_tokens(image, network, helm):
    made, dispatcher, nodes = fleet(
        network, image[0],
        helm.template("-f", CHART / "ci" / "minimal-values.yaml"))
    assert made.port(dispatcher, "api") == API
    assert made.port(nodes[0], "http") == HTTP
    said = helm_test(made)
    links = dispatcher.get(made.port(dispatcher, "admin"), "/debug/nodes")[1]
    for node in nodes:
        assert node.name in said
        for worker in range(2):
            assert f"tcp://{node.address}:{7080 + worker}" in links
    streams = [node.subscribe(HTTP, "a") for node in nodes]
    status, answer = dispatcher.publish(API, "a", "hello")
    assert status == 200 and json.loads(answer)["nodes"] == 2
    for stream in streams:
        stream.until("data: hello")
    # one of them is scaled away: its client is told, the probe fails
    start = time.monotonic()
    assert made.stop(nodes[0]) == 0
    streams[0].until("event: stentor.closing")
    assert time.monotonic() - start < 10 * harness.SLOW
    assert made.stop(dispatcher) == 0
    assert made.probe(nodes[1], "livenessProbe")


def test_keda_is_answered(image, network, helm):
    """The rendered triggers, asked of a dispatcher as KEDA would."""
    targets = {"connections": "35000", "accepts": "500", "load": "70",
               "fanout_bytes": "1e8", "queue_age_ms": "50"}
    made, dispatcher, nodes = fleet(
        network, image[0],
        helm.template("--set", "auth=none,node.keda.enabled=true",
                      "--set-json", f"node.keda.targets={json.dumps(targets)}"),
        nodes=1)
    stream = nodes[0].subscribe(HTTP, "a")

    def ask(method, message):
        status, answer = dispatcher.get(
            API, f"/externalscaler.ExternalScaler/{method}", "POST",
            json.dumps(message), {"Content-Type": "application/json"})
        assert status == 200, answer
        return json.loads(answer)

    scaled = made.find("ScaledObject", "stentor-node")["spec"]
    assert scaled["scaleTargetRef"]["name"] == "stentor-node"
    seen = {}
    for trigger in scaled["triggers"]:
        metadata = trigger["metadata"]
        assert metadata["scalerAddress"] == f"stentor-dispatcher.push.svc:{API}"
        ref = {"name": "stentor-node", "namespace": "push",
               "scalerMetadata": metadata}
        assert ask("IsActive", ref)["result"] is True
        spec, = ask("GetMetricSpec", ref)["metricSpecs"]
        seen[spec["metricName"]] = spec["targetSizeFloat"]
    assert seen == {k: float(v) for k, v in targets.items()}

    def streams():
        got = ask("GetMetrics", {"scaledObjectRef": {"name": "x"},
                                 "metricName": "connections"})
        value, = got["metricValues"]
        return value.get("metricValueFloat") == 1
    harness.wait_until(streams, 10, "the stream is counted")
    stream.close()


def test_pods_with_tokens_and_a_disk(image, network, helm):
    key = tokens.SecretKey("2026-11")
    claims = {"iss": "https://login.example", "exp": int(time.time()) + 600}

    def token(**more):
        return tokens.encode({**claims, **more}, key.sign, alg=key.alg,
                             kid=key.kid)
    admin = token(admin=True)
    secrets = {"stentor-auth-keys": {"login.secret": key.secret.decode()},
               "stentor-admin-token": {"token": admin}}
    manifests = helm.template("-f", CHART / "ci" / "lmdb-values.yaml", "--set",
                              "dispatcher.options.store_map_bytes=16MiB")
    made, dispatcher, nodes = fleet(network, image[0], manifests, secrets,
                                    nodes=1, kind="StatefulSet")
    assert nodes[0].name in helm_test(made)
    # what a ServiceMonitor shows, and what happens without it
    for pod in (dispatcher, nodes[0]):
        port = made.port(pod, "admin")
        assert pod.get(port, "/metrics")[0] == 401
        status, text = pod.get(port, "/metrics", headers={
            "Authorization": f"Bearer {admin}"})
        assert status == 200 and "stentor_build_info" in text
    assert dispatcher.publish(API, "score:1", "x")[0] == 401
    may = token(publish=["score:*"], subscribe=["score:*"])
    assert dispatcher.publish(API, "score:1", "kept", may)[0] == 200
    assert made.stop(dispatcher) == 0
    # the same claim in its next pod: history is there
    again = made.start("StatefulSet", "stentor-dispatcher")
    again.start()
    network.name("stentor-dispatcher-headless", again.address)
    made.wait_ready(again, *nodes)
    stream = nodes[0].subscribe(HTTP, "score:1", may)
    stream.until("data: kept")  # `latest: 1`


def test_links_with_certificates(image, network, helm, tmp_path):
    files = {}
    for name in ("ca", "link"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes",
             "-days", "1", "-subj", f"/CN={name}", "-keyout",
             tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.crt",
             "-addext", "subjectAltName=DNS:stentor-link",
             *(["-CA", tmp_path / "ca.crt", "-CAkey", tmp_path / "ca.key"]
               if name == "link" else [])],
            check=True, capture_output=True)
        files[name] = (tmp_path / f"{name}.crt").read_text()
    secrets = {
        "links": {"ca.crt": files["ca"], "tls.crt": files["link"],
                  "tls.key": (tmp_path / "link.key").read_text()},
        "secret": {"token": "a-secret-of-the-fleet"}}
    made, dispatcher, nodes = fleet(
        network, image[0],
        helm.template("--set", "auth=none,secrets.linkTls.name=links",
                      "--set", "secrets.linkToken.name=secret"), secrets)
    stream = nodes[1].subscribe(HTTP, "a")
    assert dispatcher.publish(API, "a", "over TLS")[0] == 200
    stream.until("data: over TLS")
    port = made.port(dispatcher, "admin")
    assert "tls+tcp://" in dispatcher.get(port, "/debug/nodes",
                                          headers={})[1]


@pytest.mark.parametrize("option", ["dispatcher.options.publish_rate=1",
                                    "node.options.worker=1"])
def test_an_option_that_is_none_stops_the_pod(image, network, helm, option):
    manifests = helm.template("--set", "auth=none", "--set", option)
    made = pods.Pods(network, image[0], manifests)
    network.name("here", "127.0.0.1")
    component = option.partition(".")[0]
    pod = made.start("Deployment", f"stentor-{component}")
    r = pod.run(*pod.command)
    assert r.returncode == 78 and "stentor.yaml" in r.stderr, r
