"""Keep a lab by hand: ``python -m tests.lab up``, ``shell n001`` from another terminal, ``down``."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
from pathlib import Path

from tests.lab import LabError, LabUnavailable, choose, make_lab
from tests.lab.slurm import Slurm
from tests.lab.state import PREFIX, destroy, labs


def main() -> int:
    """Do what the command line says; return the exit code."""
    arguments = _parser().parse_args()
    try:
        return int(arguments.act(arguments))
    except (LabError, LabUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="bring a lab up and keep it until Ctrl-C")
    up.add_argument("--hosts", type=int, default=4, help="how many hosts (default: 4)")
    up.add_argument("--rate", help="shape every cable, e.g. 100mbit")
    up.add_argument("--hsn", action="store_true", help="give each host a second interface, nXXX-hsn0")
    up.add_argument("--hsn-rate", help="shape the second interface, e.g. 1gbit")
    up.add_argument("--slurm", action="store_true", help="start Slurm on it")
    up.set_defaults(act=_up)
    shell = commands.add_parser("shell", help="enter a host of the lab that is up")
    shell.add_argument("--lab", metavar="ID", help="which lab, as `up` shows it (default: the only one that is up)")
    shell.add_argument("host", help="its short name, e.g. n001")
    shell.add_argument("command", nargs=argparse.REMAINDER, help="what to run there (default: a login shell)")
    shell.set_defaults(act=_shell)
    down = commands.add_parser("down", help="remove labs whose owner was killed")
    down.add_argument("--all", action="store_true", help="also those that are in use")
    down.set_defaults(act=_down)
    return parser


def _up(arguments: argparse.Namespace) -> int:
    kind, why = choose()
    options = {"rate": arguments.rate, "hsn": arguments.hsn, "hsn_rate": arguments.hsn_rate}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        lab = stack.enter_context(make_lab(arguments.hosts, **options))
        if arguments.slurm:
            stack.enter_context(Slurm(lab))
        for host in lab.hosts:
            (lab.state / host.name / "enter").write_text(shlex.join(lab.argv(host, [])))
        lab_id = lab.state.name.removeprefix(PREFIX)
        print(f"lab {lab_id}: {kind.__name__} ({why}): {lab.hosts[0].name} ... {lab.hosts[-1].name}")
        print(f"a directory that every host sees: {lab.shared}")
        print(f"enter a host: {sys.executable} -m tests.lab shell --lab {lab_id} {lab.hosts[0].name}")
        print("Ctrl-C removes it all", flush=True)
        signal.pause()
    return 0


def _shell(arguments: argparse.Namespace) -> int:
    entry = _entry(arguments.host, arguments.lab)
    return _become([*shlex.split(entry.read_text()), *(arguments.command or [os.environ.get("SHELL", "bash"), "-l"])])


def _entry(host: str, lab_id: str | None) -> Path:
    """Return the file that tells how a host is entered. Raises LabError unless exactly one lab is meant."""
    entries = {path.name.removeprefix(PREFIX): path / host / "enter" for path in labs(running=True)}
    found = {each: path for each, path in entries.items() if path.exists() and lab_id in (None, each)}
    if not found:
        where = "no lab is up that" if lab_id is None else f"no lab {lab_id} is up that"
        raise LabError(f"{where} has a host {host}; `python -m tests.lab up` keeps one")
    if len(found) > 1:
        raise LabError(f"{len(found)} labs have a host {host}; choose with --lab: {', '.join(sorted(found))}")
    return found.popitem()[1]


def _become(argv: list[str]) -> int:
    sys.stdout.flush()
    os.execvp(argv[0], argv)


def _down(arguments: argparse.Namespace) -> int:
    for path in labs(running=arguments.all):
        destroy(path)
        print(f"removed {Path(path).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
