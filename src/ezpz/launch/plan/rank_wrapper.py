"""The sh script that runs before each rank and sets its variables, the same for every launcher. Pure.

It is sh because every node has it and it starts in a millisecond. It is part of the launcher's command line, so that no
file has to be copied to the nodes. It ends with `exec`: the command gets the launcher's signals, and the launcher gets
the exit status of the command.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ezpz.launch.launchers.startup_protocol import NO_COMMAND, PRINT_FUNCTION, SCRIPT_NAME, STARTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ezpz.launch.launchers.base import RankVariables
    from ezpz.launch.plan.environment import RankEnvironment
    from ezpz.launch.plan.topology import Topology


def wrap_command(
    command: tuple[str, ...],
    names: RankVariables,
    topology: Topology,
    variables: Mapping[str, str],
    *,
    environment: RankEnvironment | None = None,
    devices: tuple[str, int] | None = None,
) -> tuple[str, ...]:
    """Return the words that run `command` as a rank.

    A command with a word ":" becomes a part of the script, because every launcher ends a command at that word.

    Args:
        command: The command.
        names: The variables that the launcher sets for each rank.
        topology: How many ranks run on how many nodes.
        variables: Variables to set to these values.
        environment: The Python environment that the command runs in.
        devices: The variable that names the accelerators of a rank, and how many it gets.
    """
    is_inlined = ":" in command
    parts = (
        PRINT_FUNCTION,
        *((f"set -- {shlex.join(command)}",) if is_inlined else ()),
        *_identity(names, topology),
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        *(environment.script() if environment else ()),
        *(_devices(*devices) if devices else ()),
        f'{_IS_PROGRAM}||{{ m {NO_COMMAND} "command not found: $1";exit 51;}}',
        f'm {STARTED} ""',
        'exec "$@"',
    )
    return ("sh", "-c", "; ".join(parts), SCRIPT_NAME, *(() if is_inlined else command))


def find_wrapper_name(argv: Sequence[str]) -> int | None:
    """Return the index of SCRIPT_NAME in a command line; None if its command is not wrapped."""
    return next(
        (at for at in range(2, len(argv)) if argv[at] == SCRIPT_NAME and argv[at - 1].startswith(PRINT_FUNCTION)),
        None,
    )


_IS_PROGRAM = 'case $1 in */*)[ -f "$1" ]&&[ -x "$1" ];;*)command -v "$1">/dev/null;;esac'


def _identity(names: RankVariables, topology: Topology) -> tuple[str, ...]:
    """Return the assignments of the rank's variables.

    A variable that the launcher does not set is computed: nodes are filled one after another.
    """
    ppn = topology.ppn
    remaining = f"WORLD_SIZE-NODE_RANK*{ppn}"
    computed = (
        f"RANK=${{{names.rank}:-0}}",
        _assignment(names.size, "WORLD_SIZE", str(topology.ranks)),
        _assignment(names.local_rank, "LOCAL_RANK", f"$((RANK%{ppn}))"),
        _assignment(names.node_rank, "NODE_RANK", f"$((RANK/{ppn}))"),
        _assignment(names.local_size, "LOCAL_WORLD_SIZE", f"$(({remaining}<{ppn}?{remaining}:{ppn}))"),
    )
    export = "export RANK WORLD_SIZE LOCAL_RANK NODE_RANK LOCAL_WORLD_SIZE"
    return (*computed, *(_from_tasks(names.tasks_per_node) if names.tasks_per_node else ()), export)


def _assignment(launcher_name: str, name: str, default: str) -> str:
    return f"{name}=${{{launcher_name}:-{default}}}" if launcher_name else f"{name}={default}"


def _from_tasks(variable: str) -> tuple[str, ...]:
    """Return statements that set LOCAL_WORLD_SIZE from a list such as 12(x3),4: the entry for NODE_RANK."""
    loop = (
        f'for t in $(echo "${{{variable}:-}}"|tr , " "); do case $t in *x*)k=${{t##*x}};k=${{k%)}};;*)k=1;;esac; '
        'if [ "$i" -lt "$k" ]; then LOCAL_WORLD_SIZE=${t%%(*}; break; fi; i=$((i-k)); done'
    )
    return ("i=$NODE_RANK", loop)


def _devices(variable: str, count: int) -> tuple[str, ...]:
    """Return the statement that assigns `count` accelerators to a rank, starting at LOCAL_RANK x count."""
    first = f"$((LOCAL_RANK*{count}))"
    more = "".join(f",$((LOCAL_RANK*{count}+{number}))" for number in range(1, count))
    return (f"export {variable}={first}{more}",)
