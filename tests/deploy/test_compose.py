"""deploy/compose.yaml: its keys are ones that Compose knows, and its services,
run as Containers with this machine's own redis-server and nginx, are a
cluster."""
import json

import pytest
import yaml

import containers
import harness
from conftest import tool

FILE = harness.ROOT / "deploy" / "compose.yaml"
TOP = {"name", "services", "configs", "volumes"}
SERVICE = {
    "image", "build", "command", "environment", "configs", "depends_on",
    "ports", "volumes", "tmpfs", "read_only", "cap_drop", "security_opt",
    "ulimits", "restart", "healthcheck", "stop_grace_period"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(FILE.read_text())


def test_keys(compose):
    assert {k for k in compose if not k.startswith("x-")} <= TOP
    services = compose["services"]
    for name, service in services.items():
        assert set(service) <= SERVICE, name
        assert set(service.get("depends_on", [])) <= set(services)
        for used in service.get("configs", []):
            assert set(used) == {"source", "target"}
            assert used["source"] in compose["configs"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "there are no tokens"
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"]
        if "build" in service:
            build = service["build"]
            context = FILE.parent / build["context"]
            assert (context / build["dockerfile"]).exists()


def container(network, root, compose, name):
    service = compose["services"][name]
    command = service.get("command", ["nginx", "-g", "daemon off;"])
    program = command[0]
    if "build" not in service:
        command = [tool(program), *command[1:]]
        root = None
    mounts = {}
    for used in service.get("configs", []):
        path = network.dir / f"{name}-{used['source']}"
        text = compose["configs"][used["source"]]["content"]
        path.write_text(text.replace("$$", "$"))
        mounts[used["target"]] = path
    if program == "nginx":
        command[1:1] = ["-c", str(mounts["/etc/nginx/nginx.conf"])]
    if program == "redis-server":
        command += ["--dir", str(network.dir), "--protected-mode", "no"]
    made = containers.Container(network, name, root, command,
                                env=service.get("environment"), mounts=mounts)
    network.name(name, made.address)
    return made


def test_cluster(compose, image, network):
    made = {name: container(network, image[0], compose, name)
            for name in compose["services"]}
    for c in made.values():
        c.start()
    dispatcher, front = made["dispatcher"], made["front"]
    health = compose["services"]["dispatcher"]["healthcheck"]["test"]
    assert health[0] == "CMD"
    harness.wait_until(
        lambda: (dispatcher.get(7072, "/readyz") or [0])[0] == 200, 20,
        "the dispatcher is ready")
    for node in ("node1", "node2"):
        harness.wait_until(
            lambda: (made[node].get(8081, "/readyz") or [0])[0] == 200, 20,
            f"{node} is ready")
    assert "<html" in front.get(8080, "/")[1]
    # least_conn: one stream on each node, through the proxy
    streams = [front.subscribe(8080, "score:1") for _ in range(2)]
    status, answer = dispatcher.publish(7070, "score:1", "IND 245/3")
    assert status == 200
    assert json.loads(answer)["nodes"] == 2 and "position" in answer
    for stream in streams:
        stream.until("data: IND 245/3")
    r = made["node1"].run("stentorctl", "--dispatcher",
                          "http://dispatcher:7070", *health[2:])
    assert r.returncode == 0 and "node1" in r.stdout and "node2" in r.stdout
    # a stop is announced to its client by way of the proxy
    assert made["node1"].stop(20) == 0
    ended = [s for s in streams if closing(s)]
    assert len(ended) == 1


def closing(stream):
    """True if the stream says so; False if it goes on."""
    try:
        stream.until("event: stentor.closing")
        return True
    except TimeoutError:
        return False
