"""Pure: an invocation as one line for a shell, to look at, to copy and to paste."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ezpz.launch.launchers.base import HOSTFILE
from ezpz.launch.masking import shell_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ezpz.launch.launchers.base import Invocation


def pasteable(invocation: Invocation, environ: Mapping[str, str]) -> str:
    """The line that does what the invocation does, without secrets: those of `environ` stand there by their names.

    It writes the hostfile first, if there is one; ranks that this host starts itself are started side by side.
    """
    if invocation.hostfile:
        at = invocation.argv.index(HOSTFILE)
        before, after = invocation.argv[:at], invocation.argv[at + 1 :]
        hosts = shlex.join(invocation.hostfile.splitlines())
        line = " ".join((shell_line(before, environ), '"$hosts"', shell_line(after, environ)))
        return f"hosts=$(mktemp) && printf '%s\\n' {hosts} > \"$hosts\" && {line}"
    line = shell_line(invocation.argv, environ)
    ranks = [
        " ".join((*(f"{name}={shlex.quote(value)}" for name, value in own.items()), line)) for own in invocation.ranks
    ]
    return ranks[0] if len(ranks) == 1 else f"{{ {' & '.join(ranks)} & wait; }}"
