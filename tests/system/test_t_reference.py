"""deploy/reference.md says what the programs say."""
import subprocess
import sys

import pytest

import harness

SCRIPT = harness.ROOT / "deploy" / "reference.py"
FILE = harness.ROOT / "deploy" / "reference.md"


def check(path):
    """(exit status, output) of a comparison with `path`."""
    r = subprocess.run(
        [sys.executable, SCRIPT, "--build", harness.BUILD, "--check",
         "--output", path],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=120 * harness.SLOW)
    return r.returncode, r.stdout + r.stderr


def test_reference_is_current():
    status, output = check(FILE)
    assert status == 0, f"`make reference` writes it anew:\n{output}"


@pytest.mark.parametrize("which", ["`--settle-ms`",
                                   "`stentor_messages_dropped_total`"])
def test_a_missing_line_is_noticed(tmp_path, which):
    lines = FILE.read_text().splitlines(True)
    kept = [line for line in lines if which not in line]
    assert len(kept) < len(lines)
    old = tmp_path / "reference.md"
    old.write_text("".join(kept))
    status, output = check(old)
    assert status == 1
    assert f"+| {which}" in output
