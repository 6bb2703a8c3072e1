"""The peers: shell commands on the launching host that copy a tree to several hosts."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.hosts import Lab
    from tests.lab.model import Host


NAIVE = "rsync -a to each, 8 at a time"
SBCAST = "sbcast of a ready .tar.gz, srun tar x"
SESSIONS, RAW, SQUEEZED = (
    "all ssh sessions at once",
    "one copy to one host",
    "one copy to one host, zstd -1 on the wire",
)


@dataclass(frozen=True)
class Peer:
    """A way to get ``SRC`` to ``/tmp/env`` of all ``hosts``; ``command`` is for a shell on the launching host."""

    way: str
    command: str
    slurm: bool = False


def peers(source: Path, archive: Path, hosts: tuple[Host, ...]) -> tuple[Peer, ...]:
    """Return the peers, the slow ones first."""
    names = " ".join(host.name for host in hosts)
    ranges = f"{hosts[0].name[0]}[{hosts[0].name[1:]}-{hosts[-1].name[1:]}]"
    env = shlex.quote(str(source))
    packed = shlex.quote(str(archive))

    def rsync(parallel: int) -> str:
        return f"printf '%s\\n' {names} | xargs -P {parallel} -I HOST rsync -a {env}/ HOST:/tmp/env/"

    unpack = f"sbcast {packed} /tmp/env.tar.gz && srun --ntasks-per-node=1 tar -C /tmp -xzf /tmp/env.tar.gz"
    return (
        Peer(NAIVE, rsync(8)),
        Peer("rsync -a to each, all at once", rsync(len(hosts))),
        Peer("clush --copy", f"clush -q -w {ranges} --copy {env} --dest /tmp/env"),
        Peer(
            SBCAST,
            f"salloc -Q -N {len(hosts)} -w {ranges} sh -c '{unpack}'",
            slurm=True,
        ),
    )


def floor(source: Path, hosts: tuple[Host, ...]) -> tuple[Peer, ...]:
    """Return the parts of the minimum of every way that uses ssh."""
    names = " ".join(host.name for host in hosts)
    env, first = shlex.quote(str(source)), hosts[0].name
    unpack = "mkdir /tmp/env && tar -C /tmp/env -xf -"
    return (
        Peer(SESSIONS, f"for host in {names}; do ssh $host true & done; wait"),
        Peer(RAW, f"tar -C {env} -cf - . | ssh {first} '{unpack}'"),
        Peer(SQUEEZED, f"tar -C {env} -cf - . | zstd -q -1 | ssh {first} 'zstd -qd | ({unpack})'"),
    )


def without_paths(command: str, lab: Lab) -> str:
    """Return a command as the page shows it."""
    return command.replace(f"{lab.shared}/", "/shared/")
