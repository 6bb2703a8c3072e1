"""The `mpiexec` of Open MPI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from ezpz.launch.launchers.base import HOSTFILE, Invocation, Launcher, RankVariables, binding_words, check_version
from ezpz.launch.launchers.failure_lines import (
    EXIT,
    LOST_NODE_PATTERN,
    NODE,
    NODE_GROUP,
    SIGNAL,
    SSH_FAILURES,
    WHERE,
    FailurePattern,
)
from ezpz.launch.launchers.output_labels import LabelFormat

if TYPE_CHECKING:
    from ezpz.launch.launchers.base import Availability, LaunchSpec, Tools


class OpenMpiLauncher(Launcher):
    """The `mpiexec` of Open MPI.

    Its hostfile has the number of ranks of each node. It does not forward the environment to other nodes, so each
    variable is named on its command line.
    """

    name = "openmpi"
    order = 50
    rank_variables: ClassVar[RankVariables | None] = RankVariables(
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
    )
    label: ClassVar[LabelFormat | None] = LabelFormat(
        ("--tag-output",),
        re.compile(rb"\[[^\]\n]*,(?P<rank>\d+)\]<std(?:out|err)>: ?"),
        frozenset(("-tag-output", "--tag-output")),
    )
    failure_patterns: ClassVar[tuple[FailurePattern, ...]] = (
        FailurePattern(
            SIGNAL,
            "exited on signal",
            rf"process rank (?P<rank>\d+) with PID \d+ on node {NODE_GROUP} exited on signal (?P<signal>\d+)",
        ),
        FailurePattern(NODE, "Remote daemon:", rf"Remote daemon: \[\S+\] on node {NODE_GROUP}"),
        FailurePattern(WHERE, "Process name:", r"Process name: \[.*,(?P<rank>\d+)\]"),
        FailurePattern(EXIT, "Exit code:", r"^ *Exit code: +(?P<status>\d+)"),
        FailurePattern(EXIT, "MPI_ABORT was invoked", r"MPI_ABORT was invoked on rank (?P<rank>\d+)"),
        *SSH_FAILURES,
    )
    output_file_options = r"--?output(-filename)?"

    def check_availability(self, _job: LaunchSpec, tools: Tools, /) -> Availability:
        return check_version(tools, "Open MPI", "OpenRTE", "open-mpi")

    def invocation(self, spec: LaunchSpec) -> Invocation:
        argv = (spec.program, "--hostfile", HOSTFILE, "-n", str(spec.ranks), "--map-by", f"ppr:{spec.ppn}:node")
        binding = binding_words("--bind-to {}", spec.cpu_bind)
        remote = any(not node.is_local for node in spec.allocation.nodes)
        names = sorted(name for name in spec.environ if _is_forwarded(name)) if remote else ()
        forwarded = (word for name in names for word in ("-x", name))
        lines = (f"{host} slots={spec.ppn}\n" for host in spec.hosts)
        words = (*argv, *binding, *forwarded, *spec.options, *spec.command)
        return Invocation(words, "".join(lines), exit_pattern=LOST_NODE_PATTERN)


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OF_THIS_HOST = re.compile(
    r"_|HOME|HOSTNAME|LOGNAME|LS_COLORS|MAIL|OLDPWD|PWD|SHELL|SHLVL|TERM|TMPDIR|USER|DISPLAY|XAUTHORITY|WINDOWID"
    r"|(SSH|XDG|DBUS|OMPI|PMIX|PRTE|PMI|BASH_FUNC|SLURM|PBS|TMUX|STY).*"
)


def _is_forwarded(name: str) -> bool:
    """Return whether a variable means the same on another host."""
    return _VARIABLE.fullmatch(name) is not None and _OF_THIS_HOST.fullmatch(name) is None


CANDIDATES = (OpenMpiLauncher(),)
