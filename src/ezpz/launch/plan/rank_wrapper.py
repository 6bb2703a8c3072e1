"""Pure: the few lines of sh that run on a node in front of each rank, and tell it who it is, whatever the launcher.

sh, because every node has it, and it starts in a millisecond; on the launcher's own line, because then nothing has to
be put on the nodes. They end with `exec`: the command gets the launcher's signals, and the launcher its exit status.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ezpz.launch.launchers.base import RankVariables
    from ezpz.launch.plan.environment import RankEnvironment
    from ezpz.launch.plan.topology import Topology

SCRIPT_NAME = "ezpz"
"""What the script is called ($0) when its line is pasted; with a suffix, it reports in marks, for execute()."""
STARTED, NO_COMMAND, NO_ENVIRONMENT, UNTRUSTED = "started", "absent", "homeless", "foreign"
NOT_FOUND = 51  # exit status: `errors.CommandNotFound`

_LABEL = rb"(?:(?m:^)\[?\d+(?:,\d+)?\]?(?:<stderr>)?:? ?)?"  # what launchers put before a line when asked for labels
_MARK = re.compile(_LABEL + rb"\x1e(?P<name>ezpz-[0-9a-f]+) (?P<what>[a-z]+) (?P<rank>\d+) (?P<host>[^ \x1e\n]*)\x1e\n")


@dataclass(frozen=True, slots=True)
class StartupMarker:
    """What a rank reported: it has STARTED, or its command is ABSENT, or its environment is (HOMELESS), or another user
    owns that, or can change it (FOREIGN)."""

    what: str
    rank: int
    host: str


def wrap_command(
    command: tuple[str, ...],
    names: RankVariables,
    topology: Topology,
    variables: Mapping[str, str],
    *,
    environment: RankEnvironment | None = None,
    devices: tuple[str, int] | None = None,
) -> tuple[str, ...]:
    """The words that run `command` as a rank.

    variables: set as they are. home: the environment that the command runs in. devices: the variable that names a
    rank's accelerators, and how many it gets. A word ":" hides in the script: every launcher ends a command there.
    """
    hidden = ":" in command
    parts = (
        _MARKER_FUNCTION,
        *((f"set -- {shlex.join(command)}",) if hidden else ()),
        *_identity(names, topology),
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        *(environment.script() if environment else ()),
        *(_devices(*devices) if devices else ()),
        f'{_IS_PROGRAM}||{{ m absent "command not found: $1";exit 51;}}',
        f'm {STARTED} ""',
        'exec "$@"',
    )
    return ("sh", "-c", "; ".join(parts), SCRIPT_NAME, *(() if hidden else command))


def find_wrapper_name(argv: Sequence[str]) -> int | None:
    """Where NAME stands in a command line whose command is wrapped; None in one whose command is not."""
    return next(
        (at for at in range(2, len(argv)) if argv[at] == SCRIPT_NAME and argv[at - 1].startswith(_MARKER_FUNCTION)),
        None,
    )


_IS_PROGRAM = 'case $1 in */*)[ -f "$1" ]&&[ -x "$1" ];;*)command -v "$1">/dev/null;;esac'

# m WHAT TEXT: to a run that listens, a mark; to whoever pasted the line, the text.
_MARKER_FUNCTION = (
    r'm(){ case $0 in ezpz-*)printf "\036%s %s %s %s\036\n" '
    r'"$0" "$1" "${RANK:-0}" "$(uname -n)">&2;; '
    r'*)[ -z "$2" ]||echo "ezpz: $(uname -n): $2">&2;;esac;}'
)


def _identity(names: RankVariables, topology: Topology) -> tuple[str, ...]:
    """Who this rank is: what the launcher says, else what follows from nodes being filled one after another."""
    ppn = topology.ppn
    left = f"WORLD_SIZE-NODE_RANK*{ppn}"
    computed = (
        f"RANK=${{{names.rank}:-0}}",
        _assignment(names.size, "WORLD_SIZE", str(topology.ranks)),
        _assignment(names.local_rank, "LOCAL_RANK", f"$((RANK%{ppn}))"),
        _assignment(names.node_rank, "NODE_RANK", f"$((RANK/{ppn}))"),
        _assignment(names.local_size, "LOCAL_WORLD_SIZE", f"$(({left}<{ppn}?{left}:{ppn}))"),
    )
    export = "export RANK WORLD_SIZE LOCAL_RANK NODE_RANK LOCAL_WORLD_SIZE"
    return (*computed, *(_from_tasks(names.tasks) if names.tasks else ()), export)


def _assignment(variable: str, ours: str, otherwise: str) -> str:
    return f"{ours}=${{{variable}:-{otherwise}}}" if variable else f"{ours}={otherwise}"


def _from_tasks(variable: str) -> tuple[str, ...]:
    """LOCAL_WORLD_SIZE from a list such as 12(x3),4: the entry that NODE_RANK falls into."""
    loop = (
        f'for t in $(echo "${{{variable}:-}}"|tr , " "); do case $t in *x*)k=${{t##*x}};k=${{k%)}};;*)k=1;;esac; '
        'if [ "$i" -lt "$k" ]; then LOCAL_WORLD_SIZE=${t%%(*}; break; fi; i=$((i-k)); done'
    )
    return ("i=$NODE_RANK", loop)


def _devices(variable: str, count: int) -> tuple[str, ...]:
    """The accelerators of this rank: `count` from LOCAL_RANK x count on, unless the launcher has said already."""
    first = f"$((LOCAL_RANK*{count}))"
    more = "".join(f",$((LOCAL_RANK*{count}+{number}))" for number in range(1, count))
    return (f"export {variable}={first}{more}",)


def find_markers(chunk: bytes, name: str) -> tuple[bytes, tuple[StartupMarker, ...]]:
    """What is left of some output without the marks of the run `name`, and the marks."""
    found: list[StartupMarker] = []

    def take(match: re.Match[bytes]) -> bytes:
        if match["name"] != name.encode():
            return match[0]
        found.append(StartupMarker(match["what"].decode(), int(match["rank"]), match["host"].decode(errors="replace")))
        return b""

    return _MARK.sub(take, chunk), tuple(found)
