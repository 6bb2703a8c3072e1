"""A world for discovery that holds just what a test says: files, names, and what qstat and squeue print."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.cluster.hostnames import short
from ezpz.cluster.schedulers import hostfile, localhost, pbs, slurm
from ezpz.cluster.schedulers.base import DetectionContext, System
from ezpz.errors import ToolMissing
from ezpz.runtime.process import Completed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STEPS = (*hostfile.STEPS, *pbs.STEPS, *slurm.STEPS, *localhost.STEPS)
RECORDED = os.path.join(os.path.dirname(__file__), "recorded")


def recorded(name: str) -> str:
    """What a site printed, from recorded/<name>.txt."""
    with open(os.path.join(RECORDED, f"{name}.txt"), encoding="utf-8") as file:
        return file.read()


@dataclass
class World:
    """hostname; files by path; what each program answers, in turn (its last answer repeats); resolvable names."""

    hostname: str = "login1"
    files: dict[str, str] = field(default_factory=dict)
    programs: dict[str, list[Completed]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    asked: list[tuple[str, ...]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def says(self, program: str, out: str = "", err: str = "", returncode: int = 0) -> World:
        answer = Completed((program,), returncode, out.encode(), err.encode())
        self.programs.setdefault(program, []).append(answer)
        return self

    def run(self, argv: Sequence[str], *, timeout: float | None = None) -> Completed:
        self.asked.append(tuple(argv))
        answers = self.programs.get(argv[0])
        if not answers:
            raise ToolMissing(f"'{argv[0]}' is not on PATH on this host")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.files[path].encode("utf-8", "surrogateescape")

    def listdir(self, directory: str) -> tuple[str, ...]:
        found = [os.path.basename(path) for path in self.files if os.path.dirname(path) == directory]
        if not found:
            raise FileNotFoundError(2, "No such file or directory", directory)
        return tuple(sorted(found))

    def system(self) -> System:
        return System(
            run=self.run,
            hostname=lambda: self.hostname,
            local_names=lambda: frozenset({short(self.hostname), "localhost"}),
            resolve=lambda name: (name,) if name in self.names | self.silent else (),
            answers=lambda address: address in self.names,
            read=self.read,
            listdir=self.listdir,
            sleep=self.slept.append,
        )

    def context(
        self, environ: Mapping[str, str] | None = None, *, hosts: str | None = None, hostfile: str | None = None
    ) -> DetectionContext:
        system = self.system()
        return DetectionContext(environ or {}, system, system.local_names(), hosts, hostfile)
