"""Thousands of EventSources that never give up: tests/bench/resumebench."""
import json
import select
import subprocess

import harness

RESUMEBENCH = harness.BUILD / "bench" / "resumebench"


class Subscribers:
    """One resumebench; options are its own, such as silence_ms=4000."""

    FAULTS = ("holes", "doubles", "reorders", "gaps_false", "bad_status",
              "malformed", "strays", "misplaced", "behind", "beyond")

    def __init__(self, log_path, to, count, **options):
        self.count, self.log_path = count, log_path
        with open(self.log_path, "wb") as log:
            self.popen = subprocess.Popen(
                [RESUMEBENCH, *(f"--to={address}" for address in to),
                 *harness.option_list({"subscribers": count, **options})],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    def wait_ready(self):
        assert self.read_line(30) == "ready\n"
        return self

    def tell(self, line):
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def read_line(self, seconds):
        ready, _, _ = select.select([self.popen.stdout], [], [],
                                    seconds * harness.SLOW)
        line = self.popen.stdout.readline() if ready else b""
        assert line, f"resumebench said nothing for {seconds} s: {self.log()}"
        return line.decode()

    def stats(self):
        self.tell("stats")
        return json.loads(self.read_line(20))

    def tell_tops(self, tops):
        """Each channel's last number: what `behind` is measured against."""
        self.tell("tops " + " ".join(map(str, tops)))

    def flush(self):
        """What came up to now is in the file of option `log`."""
        self.tell("flush")
        assert self.read_line(30) == "flushed\n"

    def log(self):
        return self.log_path.read_text(errors="replace")

    def close(self):
        self.popen.kill()
        self.popen.wait()
        self.popen.stdin.close()
        self.popen.stdout.close()
