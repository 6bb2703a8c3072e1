"""The ssh files of a lab: a throw-away user key, one key for each host, and who is known as what."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.lab.model import Host

SSHD = "/usr/sbin/sshd"


def generate(paths: Iterable[Path], at_once: int = 16) -> None:
    """Make an ed25519 key pair at each of these paths, several at once."""
    waiting = list(paths)
    while waiting:
        now, waiting = waiting[:at_once], waiting[at_once:]
        started = [
            subprocess.Popen(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ezpz-lab", "-f", str(path)])
            for path in now
        ]
        for process in started:
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, process.args)


def public(path: Path) -> str:
    """Return type and base64 text of the public half of a key."""
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def write_user(directory: Path, hosts: Sequence[Host], state: Path, port: int = 22) -> None:
    """Fill the directory that becomes every host's ~/.ssh: key, client config, known and authorized keys."""
    key = directory / "id_ed25519"
    (directory / "authorized_keys").write_text(f"{public(key)}\n")
    (directory / "known_hosts").write_text("".join(_known(host, state, port) for host in hosts))
    if port != 22:
        (directory / "config").write_text("".join(_alias(host, port) for host in hosts))
    for path in directory.iterdir():
        path.chmod(0o600)


def _known(host: Host, state: Path, port: int) -> str:
    names = [name for number, names in host.names for name in (number, *names)]
    if port != 22:
        names = [f"[{name}]:{port}" for name in names]
    return f"{','.join(names)} {public(host_key(host, state))}\n"


def _alias(host: Host, port: int) -> str:
    return f"Host {host.name} {host.fqdn} {host.address}\n    HostName {host.address}\n    Port {port}\n"


def host_key(host: Host, state: Path) -> Path:
    """Return where a host keeps its private key."""
    return state / host.name / "host_key"


def write_sshd(host: Host, state: Path, *, address: str = "0.0.0.0", port: int = 22, python: str) -> Path:
    """Write a host's sshd_config and return it; ``python3`` in its sessions means ``python``."""
    lines = [
        f"ListenAddress {address}",
        f"Port {port}",
        f"HostKey {host_key(host, state)}",
        f"AuthorizedKeysFile {state}/ssh/authorized_keys",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
        "UsePAM no",
        "StrictModes no",
        "PidFile none",
        "PrintMotd no",
        "PrintLastLog no",
        "AcceptEnv LANG LC_*",
        "Subsystem sftp internal-sftp",
    ]
    if os.path.realpath(python) != os.path.realpath("/usr/bin/python3"):
        lines.append(f"SetEnv PATH={state}/bin:/usr/local/bin:/usr/bin:/bin")
    config = state / host.name / "sshd_config"
    config.write_text("".join(f"{line}\n" for line in lines))
    return config
