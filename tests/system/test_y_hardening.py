"""What limits the harm: how the programs are built, what their processes may
do, and that they need neither root nor a disk to write to."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

from harness import BUILD, CONNNODE, CTL, DISPATCHER, run, wait_until
from sse import Sse

NOBODY = 65534
SANITIZED = BUILD.name in ("asan", "tsan", "debug")


def readelf(*args):
    out = run(["readelf", "-W", *args])
    assert out.returncode == 0, out.stderr
    return out.stdout


@pytest.mark.skipif(SANITIZED, reason="only the release is hardened")
@pytest.mark.skipif(not shutil.which("readelf"), reason="no readelf")
@pytest.mark.parametrize("binary", [DISPATCHER, CONNNODE, CTL],
                         ids=lambda b: b.name)
def test_binaries_are_hardened(binary):
    dynamic = readelf("-d", binary)
    assert "DYN (" in readelf("-h", binary)
    assert re.search(r"FLAGS_1.*\bNOW\b.*\bPIE\b", dynamic)  # whole of RELRO
    for word in ("TEXTREL", "RPATH", "RUNPATH"):
        assert word not in dynamic
    segments = readelf("-l", binary)
    assert "GNU_RELRO" in segments
    stack = re.search(r"GNU_STACK\s+(?:0x\w+\s+){5}(\S+ ?\S*)\s", segments)
    assert "E" not in stack[1]
    loads = re.findall(r"LOAD\s+(?:0x\w+\s+){5}([RWE ]+)0x", segments)
    assert loads
    assert not any("W" in flags and "E" in flags for flags in loads)
    symbols = readelf("--dyn-syms", binary)
    assert "__stack_chk_fail" in symbols
    assert re.search(r"__\w+_chk\b", symbols.replace("__stack_chk_fail", ""))


def status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def core_limit(pid):
    for line in pathlib.Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max core file size"):
            return line.split()[4:6]


def pids(c):
    return [p.pid for p in c.processes] + c.n.worker_pids()


def test_no_new_privileges(make_cluster):
    c = make_cluster(1, 1, 2)
    assert len(pids(c)) == 4
    for pid in pids(c):
        assert status(pid)["NoNewPrivs"] == "1"


@pytest.mark.skipif(SANITIZED, reason="sanitizers look into their process")
@pytest.mark.skipif(os.getuid() != 0, reason="the harness wants to look")
def test_no_core_dumps_unless_asked_for(make_cluster):
    c = make_cluster(1, 1, 2)
    for pid in pids(c):
        assert core_limit(pid) == ["0", "0"]
    c = make_cluster(1, 1, 1, dispatcher_options={"core_dumps": "true"},
                     node_options={"core_dumps": "true"})
    for pid in pids(c):
        assert core_limit(pid) == core_limit(os.getpid())


# All file systems read-only but one directory; then nobody, with nothing.
CONFINE = """
set -e
mount --make-rprivate /
mount --bind "$0" "$0"
mount -o remount,bind,ro /
exec setpriv --reuid=65534 --regid=65534 --clear-groups \
    --bounding-set=-all --inh-caps=-all -- "$@"
"""


def can_confine():
    if os.getuid() != 0 or not shutil.which("setpriv"):
        return False
    return subprocess.run(["unshare", "--mount", "true"],
                          capture_output=True).returncode == 0


@pytest.fixture
def scratch():
    """A directory that nobody may write to, outside what only we may read."""
    path = tempfile.mkdtemp(prefix="stentor-nobody-")
    os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(not can_confine(), reason="needs root, unshare, setpriv")
def test_unprivileged_on_a_read_only_root(make_cluster, scratch, channel):
    c = make_cluster(
        1, 1, 2, start=False,
        rules="rules:\n  - match: '*'\n    history: {size: 10, ttl: 1h}\n",
        dispatcher_options={"store": f"lmdb:{scratch}/store"})
    os.chmod(c.dir, 0o755)
    for p in c.processes:
        p.wrapper = ["unshare", "--mount", "sh", "-c", CONFINE, scratch]
    c.start()
    for pid in pids(c):
        s = status(pid)
        assert set(s["Uid"].split()) == {str(NOBODY)}
        assert set(s["Gid"].split()) == {str(NOBODY)}
        assert not any(int(s[k], 16) for k in ("CapEff", "CapPrm", "CapBnd"))
        roots = [line.split() for line in pathlib.Path(
            f"/proc/{pid}/mountinfo").read_text().splitlines()]
        assert "ro" in next(f[5] for f in roots if f[4] == "/").split(",")
        if not SANITIZED:  # nobody else of its own user looks into it
            assert os.stat(f"/proc/{pid}/environ").st_uid == 0
    with Sse(c.n.port, channel).wait_ready() as s:
        c.d.publish(channel, "kept")
        s.wait_data("kept")
    assert [m["data"] for m in c.d.history(channel)["messages"]] == ["kept"]
    assert os.path.getsize(f"{scratch}/store/data.mdb") > 0
    # What the supervisor tells of its workers does not suffer.
    wait_until(lambda: c.n.metric("process_open_fds") > 20, 5, "open files")
