"""Fixtures of the tests of deploy/. STENTOR_DEPLOY=1 (`make chart`, CI): a tool
that is missing is a failure, not a reason to skip."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

sys.path[:0] = [os.path.dirname(__file__),
                os.path.join(os.path.dirname(__file__), "..", "system")]

import containers  # noqa: E402
import harness  # noqa: E402

ARCHIVE = harness.ROOT / "build" / "stentor-image.tar"
CHART = harness.ROOT / "deploy" / "chart"
HERE = pathlib.Path(__file__).parent
TOOLS = harness.ROOT / "build" / "tools"


def missing(why):
    if os.environ.get("STENTOR_DEPLOY") == "1":
        pytest.fail(why)
    pytest.skip(why)


def tool(name):
    """Path of a tool from build/tools, or this machine's own."""
    path = TOOLS / name
    if path.exists():
        return str(path)
    found = shutil.which(name)
    return found or missing(f"no {name}: run tests/deploy/tools")


class Helm:
    def __init__(self):
        self.path = tool("helm")

    def run(self, *args):
        home = TOOLS / "helm-home"
        env = dict(os.environ, HELM_CACHE_HOME=str(home),
                   HELM_CONFIG_HOME=str(home), HELM_DATA_HOME=str(home))
        return subprocess.run([self.path, *map(str, args)], env=env,
                              capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL)

    def template(self, *args, chart=CHART):
        """Rendered manifests of release stentor in namespace push."""
        r = self.run("template", "stentor", chart, "-n", "push", *args)
        assert r.returncode == 0, r.stderr
        return r.stdout

    def refusal(self, *args):
        """What it says when it must not render."""
        r = self.run("template", "stentor", CHART, *args)
        assert r.returncode != 0, "rendered"
        return r.stderr


@pytest.fixture(scope="session")
def helm():
    return Helm()


def ci_values():
    return sorted((CHART / "ci").glob("*-values.yaml"))


@pytest.fixture(scope="session", params=ci_values(), ids=lambda p: p.name)
def values(request):
    return request.param


def validate(*files):
    """Lines of validate.mjs about manifests."""
    if not (TOOLS / "node_modules").exists():
        missing("no node modules: run tests/deploy/tools")
    r = subprocess.run(["node", HERE / "validate.mjs", TOOLS, *files],
                       capture_output=True, text=True, timeout=120)
    assert r.returncode in (0, 1), r.stderr
    return r.stdout.split("\n") if r.returncode else []


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """(root file system, configuration)"""
    archive = os.environ.get("STENTOR_IMAGE", ARCHIVE)
    if not os.path.exists(archive):
        missing(f"no {archive}: run make image")
    if os.getuid() != 0 or subprocess.run(
            ["unshare", "--net", "--mount", "--pid", "--fork", "true"],
            capture_output=True).returncode != 0:
        missing("containers need root, and namespaces")
    root = tmp_path_factory.mktemp("image")
    os.chmod(root, 0o755)
    return root, containers.unpack(archive, root)


@pytest.fixture
def network(tmp_path):
    os.chmod(tmp_path, 0o755)
    made = containers.Network(tmp_path)
    yield made
    for c in made.containers:
        if c.log_path.exists():
            print(f"--- {c.name}\n{c.log()[-3000:]}")
    made.close()
