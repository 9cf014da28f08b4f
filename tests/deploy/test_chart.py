"""The Helm chart: what it renders is right, and what is wrong is refused."""
import json
import shutil

import pytest
import yaml

import harness
from conftest import CHART, ci_values, validate


def docs(text):
    return [d for d in yaml.safe_load_all(text) if d]


def one(text, kind, suffix):
    found = [d for d in docs(text) if d["kind"] == kind
             and d["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, found
    return found[0]


def config(text, component):
    data = one(text, "ConfigMap", component)["data"]["stentor.yaml"]
    return yaml.safe_load(data)


def test_lint(helm, values):
    r = helm.run("lint", "--strict", "-f", values, CHART)
    assert r.returncode == 0, r.stdout + r.stderr


def test_manifests_are_valid(helm, tmp_path):
    files = []
    for values in ci_values():
        files.append(tmp_path / values.name)
        files[-1].write_text(helm.template("-f", values))
    assert validate(*files) == []


@pytest.mark.parametrize("file, right, wrong, said", [
    ("templates/workloads.yaml", "minReadySeconds:", "minReadySecs:",
     "minReadySecs"),
    ("templates/_pod.tpl", "path: /livez", "path: 7", "must be string"),
    ("values.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "PSS203"),
    ("values.yaml", "readOnlyRootFilesystem: true",
     "readOnlyRootFilesystem: false", "KBP102"),
])
def test_a_mistake_is_noticed(helm, tmp_path, file, right, wrong, said):
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / file).read_text()
    assert right in text
    (chart / file).write_text(text.replace(right, wrong))
    manifests = tmp_path / "manifests.yaml"
    manifests.write_text(helm.template("--set", "auth=none", chart=chart))
    assert said in "\n".join(validate(manifests))


@pytest.mark.parametrize("wrong, said", [
    ("replicas=3", "replicas"),
    ("dispatcher.replicacount=3", "replicacount"),
    ("node.service.typ=LoadBalancer", "typ"),
    ("auth=maybe", "auth"),
    ("store.type=postgres", "store/type"),
    ("node.keda.targets.users=1", "users"),
    ("node.options.auth=none", "auth"),
])
def test_unknown_values_are_refused(helm, wrong, said):
    text = helm.refusal("--set", "auth=none", "--set", wrong)
    assert "schema" in text and said in text


@pytest.mark.parametrize("wrong, said", [
    ("dispatcher.replicaCount=2", "store.type memory serves one dispatcher"),
    ("store.type=lmdb,dispatcher.replicaCount=2", "store.type lmdb serves one"),
    ("dispatcher.autoscaling.enabled=true", "serves one dispatcher, not 6"),
    ("store.type=redis", "needs store.redis.address"),
    ("store.redis.tls.clientCertificate=true",
     "needs store.redis.tls.secretName"),
    ("store.type=redis,store.redis.address=r:6379,store.redis.tls.secretName=s",
     "without store.redis.tls.enabled"),
    ("node.autoscaling.enabled=true,node.keda.enabled=true", "would fight"),
    ("auth=jwt", "auth jwt needs config.auth.keys"),
    ("auth=jwt,config.auth.keys[0].file=k,metrics.serviceMonitor.enabled=true",
     "needs metrics.open or secrets.adminToken"),
    ("node.ingress.enabled=true", "node.ingress needs hosts"),
])
def test_what_cannot_work_is_refused(helm, wrong, said):
    assert said in helm.refusal("--set", "auth=none", "--set", wrong)


def test_every_option_goes_through(helm):
    options = {"connection-age-ms": 3600000, "of_the_future": "1KiB",
               "max_connections": 10000000}
    text = helm.template(
        "--set", "auth=none",
        "--set-json", f"node.options={json.dumps(options)}",
        "--set-json", 'dispatcher.options={"rebalance": true, '
        '"rebalance-rate": 5, "api_connection_age_ms": null}',
        "--set", "config.options.log_level=debug")
    node, dispatcher = config(text, "node"), config(text, "dispatcher")
    for name, value in options.items():
        assert node[name.replace("-", "_")] == value
    assert dispatcher["rebalance"] is True
    assert dispatcher["rebalance_rate"] == 5
    assert "api_connection_age_ms" not in dispatcher
    assert node["log_level"] == dispatcher["log_level"] == "debug"


def test_a_changed_configuration_restarts_only_whom_it_concerns(helm):
    def sums(*args):
        text = helm.template("--set", "auth=none", *args)
        return [one(text, "Deployment", c)["spec"]["template"]["metadata"]
                ["annotations"]["checksum/config"]
                for c in ("dispatcher", "node")]
    before = sums()
    assert before == sums("--set", "node.replicaCount=7")
    of_node = sums("--set", "node.options.heartbeat_ms=9000")
    assert of_node[0] == before[0] and of_node[1] != before[1]
    of_both = sums("--set", "config.options.core_dumps=true")
    assert of_both[0] != before[0] and of_both[1] != before[1]
    # what is read again by itself restarts nobody
    assert before == sums("--set", "config.rules[0].match=a",
                          "--set", "config.options.log_level=debug")


@pytest.mark.parametrize("args, seconds", [
    ((), 10 + 60 + 15),
    (("--set", "node.options.drain-seconds=600"), 10 + 600 + 15),
    (("--set", "config.options.drain_seconds=30"), 10 + 30 + 15),
    (("--set", "node.preStopSeconds=0"), 60 + 15),
    (("--set", "node.terminationGracePeriodSeconds=7"), 7),
])
def test_the_grace_period_covers_the_drain(helm, args, seconds):
    text = helm.template("--set", "auth=none", *args)
    spec = one(text, "Deployment", "-node")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == seconds


def test_the_autoscaler_alone_decides_on_replicas(helm):
    for off, on in [("node.replicaCount=4", None),
                    (None, "node.keda.enabled=true"),
                    (None, "node.autoscaling.enabled=true")]:
        text = helm.template("--set", "auth=none", "--set", off or on)
        spec = one(text, "Deployment", "-node")["spec"]
        assert spec.get("replicas") == (4 if off else None)


def test_stores(helm):
    text = helm.template("--set", "auth=none,store.type=lmdb")
    spec = one(text, "StatefulSet", "-dispatcher")["spec"]
    assert spec["replicas"] == 1
    path = config(text, "dispatcher")["store"].removeprefix("lmdb:")
    mounts = spec["template"]["spec"]["containers"][0]["volumeMounts"]
    claim = spec["volumeClaimTemplates"][0]["metadata"]["name"]
    assert any(m["name"] == claim and path.startswith(m["mountPath"])
               for m in mounts)
    text = helm.template(
        "--set", "auth=none,store.type=redis,store.redis.address=r:6379",
        "--set", "dispatcher.replicaCount=3")
    assert one(text, "Deployment", "-dispatcher")["spec"]["replicas"] == 3
    assert config(text, "dispatcher")["store"] == "redis://r:6379"


def test_store_by_tls(helm):
    redis = "auth=none,store.type=redis,store.redis.address=r:6379"
    text = helm.template("--set", redis,
                         "--set", "store.redis.tls.enabled=true")
    options = config(text, "dispatcher")
    assert options["store"] == "rediss://r:6379"
    assert "store_tls_ca" not in options  # the system's
    text = helm.template(
        "--set", redis, "--set", "store.redis.tls.enabled=true",
        "--set", "store.redis.tls.secretName=s",
        "--set", "store.redis.tls.clientCertificate=true")
    options = config(text, "dispatcher")
    pod = one(text, "Deployment", "-dispatcher")["spec"]["template"]["spec"]
    mounts = {m["name"]: m["mountPath"]
              for m in pod["containers"][0]["volumeMounts"]}
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert volumes["store-tls"]["secret"]["secretName"] == "s"
    for option, file in (("ca", "ca.crt"), ("cert", "tls.crt"),
                         ("key", "tls.key")):
        assert options[f"store_tls_{option}"] \
            == f"{mounts['store-tls']}/{file}"
    assert "store-tls" not in str(one(text, "Deployment", "-node"))


def test_links_are_reachable_from_the_fleet_only(helm):
    text = helm.template("--set", "auth=none,node.options.workers=3")
    rules = one(text, "NetworkPolicy", "-node")["spec"]["ingress"]
    links = [r for r in rules if r["ports"][0]["port"] == 7080]
    assert links == [{
        "ports": [{"port": 7080, "endPort": 7082}],
        "from": [{"podSelector": {"matchLabels": {
            "app.kubernetes.io/name": "stentor",
            "app.kubernetes.io/instance": "stentor",
            "app.kubernetes.io/component": "dispatcher"}}}]}]


def test_the_readme_example(helm, tmp_path):
    values, manifests = tmp_path / "values.yaml", tmp_path / "manifests.yaml"
    readme = (CHART / "README.md").read_text()
    values.write_text(readme.split("```yaml\n")[1].split("```")[0])
    manifests.write_text(helm.template("-f", values))
    assert validate(manifests) == []


def test_the_readme_names_every_value():
    readme = (CHART / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    shared = set(values["dispatcher"]) & set(values["node"])
    wanted = [k for k in values if k not in ("dispatcher", "node")]
    wanted += [f"*.{k}" for k in shared]
    wanted += [f"{c}.{k}" for c in ("dispatcher", "node")
               for k in values[c] if k not in shared]
    assert [w for w in wanted if f"`{w}" not in readme] == []


def test_versions_agree():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    makefile = (harness.ROOT / "Makefile").read_text()
    assert f"echo {chart['appVersion']})" in makefile
