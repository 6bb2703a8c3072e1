"""`make demo`: a job of four hosts, a real environment on their shared disk, and `ezpz yeet` as a user types it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import FaultyLab, LabError, LabUnavailable, choose, make_lab
from tests.lab.environments import make_venv
from tests.lab.hosts import Lab
from tests.lab.slowfs import CACHE
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS = 4
WHERE = """\
import socket, sys, numpy
print(f"{socket.gethostname()}: {sys.prefix}: numpy {numpy.__version__} from {numpy.__file__}")
"""


class StepFailed(Exception):
    """A command of the demonstration did not do what it should."""


class Demo:
    """A job on a lab: its first host is where the user sits, with an environment activated."""

    def __init__(self, lab: FaultyLab) -> None:
        """Prepare the job's hostfile; the environment comes with `build`."""
        self.lab = lab
        self.env = lab.shared / "demo-env"
        self.there = Path("/tmp") / self.env.name
        self.nodefile = lab.write_hostfile(lab.shared / "nodefile")
        path = f"{self.env}/bin:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        kept = {name: os.environ[name] for name in ("HOME", "TERM", "LANG", "COLUMNS", "USER") if name in os.environ}
        self.environ = kept | {"PATH": path, "VIRTUAL_ENV": str(self.env), "PBS_NODEFILE": str(self.nodefile)}

    def build(self) -> None:
        """Make the environment, as the user did long before the job."""
        make_venv(self.env, python=sys.executable, packages=("numpy",), cache=CACHE)
        (self.lab.shared / "where.py").write_text(WHERE)

    def play(self) -> None:
        """Type the commands, one after the other. Raises StepFailed."""
        for text in self._script():
            print()
            self.type(text)
        for host in self.lab.hosts:
            if not self.lab.path(host, self.there / "pyvenv.cfg").exists():
                raise StepFailed(f"{self.there} is not on {host.name}")

    def _script(self) -> Iterator[str]:
        module = next(self.env.glob("lib/python3*/site-packages")).relative_to(self.env) / "mine.py"
        yield "hostname; echo $PBS_NODEFILE; cat $PBS_NODEFILE"
        yield "echo $VIRTUAL_ENV; du -sh $VIRTUAL_ENV"
        yield "ezpz yeet --dry-run"
        yield "ezpz yeet"
        yield "ezpz yeet status"
        if isinstance(self.lab, Lab) and shutil.which("mpiexec"):
            yield f"ezpz launch {self.there}/bin/python where.py"
        else:
            yield f"for host in $(cat $PBS_NODEFILE); do ssh $host {self.there}/bin/python $PWD/where.py; done"
        yield f"echo 'answer = 42' > $VIRTUAL_ENV/{module}; ezpz yeet"
        yield f"ssh {self.lab.hosts[-1].name} 'cat {self.there / module}; du -sh {self.there}'"

    def type(self, text: str) -> None:
        """Run one line on the first host as a shell there would, its output straight to ours. Raises StepFailed."""
        print(f"$ {text}", flush=True)
        child = self.lab.popen(
            self.lab.hosts[0],
            ["bash", "-ec", text],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        try:
            status = child.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            child.kill()
            raise StepFailed(f"no end after {DEADLINE:g} s: {text}") from None
        if status:
            raise StepFailed(f"exit {status}: {text}")


def main() -> int:
    """Show it; return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        _, why = choose()
        _say(f"making {HOSTS} hosts ({why})")
        with make_lab(HOSTS) as lab:
            demo = Demo(lab)
            _say(f"building a virtual environment with numpy at {demo.env}, on the disk that all hosts share")
            demo.build()
            _say(f"now a user types, on {lab.hosts[0].name}, in a job of {HOSTS} hosts:")
            demo.play()
            print()
    except LabUnavailable as error:
        _say(f"{error}; as root, or with sshd and rsync installed, this would work")
        return 1
    except (LabError, StepFailed, RuntimeError, OSError) as error:
        _say(f"failed: {error}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; the hosts are gone")
        return 130
    _say(f"all of it worked, and nothing of it is left; {time.monotonic() - began:.0f} s")
    return 0


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
