"""Alert rules, dashboards and the adapter's rules: they are valid, and ask for
metrics and labels that there are."""
import json
import re
import shutil
import subprocess

import pytest
import yaml

import harness
from conftest import CHART, HERE, tool
from test_chart import docs, one

REFERENCE = harness.ROOT / "deploy" / "reference.md"
# Labels that scraping and PromQL add.
ADDED = {"namespace", "job", "pod", "le"}
# Not ours.
FOREIGN = re.compile(r"^(up|kube_horizontalpodautoscaler_\w+)$")


def promtool(*args, cwd=None):
    r = subprocess.run([tool("promtool"), *map(str, args)], cwd=cwd,
                       capture_output=True, text=True, timeout=120)
    return r.returncode, r.stdout + r.stderr


@pytest.fixture(scope="module")
def everything(helm):
    return helm.template("-f", CHART / "ci" / "redis-keda-values.yaml")


@pytest.fixture(scope="module")
def rules(everything):
    return one(everything, "PrometheusRule", "stentor")["spec"]


def test_rules(rules, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    shutil.copy(HERE / "alerts_test.yaml", tmp_path)
    status, said = promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    assert status == 0, said
    status, said = promtool("test", "rules", "alerts_test.yaml", cwd=tmp_path)
    assert status == 0, said


def test_every_alert_has_a_test(rules):
    tested = (HERE / "alerts_test.yaml").read_text()
    names = [r["alert"] for g in rules["groups"] for r in g["rules"]]
    assert len(names) > 20
    assert [n for n in names if f'{{alertname="{n}"}}' not in tested] == []


def test_alerts_can_be_left_out_and_labelled(helm):
    text = helm.template("-f", CHART / "ci" / "everything-values.yaml")
    groups = one(text, "PrometheusRule", "push")["spec"]["groups"]
    alerts = {r["alert"]: r for g in groups for r in g["rules"]}
    assert "StentorNngStuck" not in alerts and "Own" in alerts
    assert alerts["StentorNodeDown"]["labels"] == {"severity": "warning",
                                                   "team": "push"}
    assert 'job="push-node-headless"' in alerts["StentorNodeDown"]["expr"]


def test_only_redis_has_news(helm):
    text = helm.template("-f", CHART / "ci" / "lmdb-values.yaml", "--set",
                         "prometheusRule.enabled=true")
    groups = one(text, "PrometheusRule", "stentor")["spec"]["groups"]
    alerts = {r["alert"] for g in groups for r in g["rules"]}
    assert "StentorStoreNewsDown" not in alerts and "StentorStoreDown" in alerts


def known_metrics():
    """{name: labels} of deploy/reference.md, histograms' series too."""
    known = {}
    for line in REFERENCE.read_text().splitlines():
        if m := re.match(r"\| `(\w+)` \| (\w+) \| (.*?) \|", line):
            labels = set(re.findall(r"`(\w+)`:", m[3]))
            names = [m[1]] if m[2] != "histogram" else [
                m[1] + s for s in ("_bucket", "_sum", "_count")]
            for name in names:
                known.setdefault(name, set()).update(labels)
    return known


def unknown(expr):
    """What an expression asks for that no program has."""
    known = known_metrics()
    found = []
    for name, matchers in re.findall(r"\b((?:stentor|process|kube)_\w+|up\b)"
                                     r"(?:\{([^}]*)\})?", expr):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        if FOREIGN.match(name):
            continue
        if name not in known:
            found.append(name)
        else:
            found += [f"{name}{{{label}}}"
                      for label in labels - known[name] - ADDED]
    return found


def expressions(text):
    for doc in docs(text):
        if doc["kind"] == "PrometheusRule":
            for group in doc["spec"]["groups"]:
                yield from (r["expr"] for r in group["rules"])
        for name, content in doc.get("data", {}).items():
            if name.endswith(".json"):
                for panel in json.loads(content)["panels"]:
                    yield from (t["expr"] for t in panel.get("targets", []))


def test_alerts_and_dashboards_ask_for_metrics_that_exist(everything):
    exprs = list(expressions(everything))
    assert len(exprs) > 80
    assert [u for e in exprs for u in unknown(e)] == []


@pytest.mark.parametrize("expr, said", [
    ("stentor_conections{$node}", ["stentor_conections"]),
    ("rate(stentor_publish_total{status!=\"OK\"}[5m])",
     ["stentor_publish_total{status}"]),
    ("stentor_delivery_latency_seconds", ["stentor_delivery_latency_seconds"]),
])
def test_a_misspelt_one_is_noticed(expr, said):
    assert unknown(expr) == said


def test_dashboards(everything, tmp_path):
    """As Grafana wants them, and their queries as Prometheus does."""
    boards = [json.loads(content) for doc in docs(everything)
              for name, content in doc.get("data", {}).items()
              if name.endswith(".json")]
    assert len({b["uid"] for b in boards}) == 2
    for board in boards:
        ids = [p["id"] for p in board["panels"]]
        assert len(ids) == len(set(ids))
        taken = set()
        for p in board["panels"]:
            g = p["gridPos"]
            cells = {(x, y) for x in range(g["x"], g["x"] + g["w"])
                     for y in range(g["y"], g["y"] + g["h"])}
            assert g["x"] + g["w"] <= 24 and not cells & taken, p["title"]
            taken |= cells
    queries = [e.replace("$__rate_interval", "1m")
               for e in expressions(everything)]
    rules = [{"record": f"query:{i}", "expr": e}
             for i, e in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "q",
                                                "rules": rules}]}))
    status, said = promtool("check", "rules", path)
    assert status == 0, said


def test_the_adapter_offers_what_autoscalers_ask_for(helm):
    """Names by prometheus-adapter's rules = names of the default targets and
    those that the README names."""
    rules = yaml.safe_load((CHART / "prometheus-adapter.yaml").read_text())
    offered = set()
    for rule in rules["rules"]["custom"]:
        wanted = re.search(r'__name__=~"([^"]+)"', rule["seriesQuery"])[1]
        series = [n for n in known_metrics() if re.match(wanted, n)]
        as_ = rule["name"]["as"].replace("${1}", r"\1").replace("$1", r"\1")
        offered |= {re.sub(rule["name"]["matches"], as_, n) for n in series}
        assert "<<.LabelMatchers>>" in rule["metricsQuery"]
    text = helm.template("-f", CHART / "ci" / "everything-values.yaml")
    spec = one(text, "HorizontalPodAutoscaler", "-node")["spec"]
    asked = {m["pods"]["metric"]["name"] for m in spec["metrics"]
             if m["type"] == "Pods"}
    assert len(asked) == 3 and asked <= offered
