"""What is copied, and what kind of tree it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Kind of a tree. It decides about relocation, the noexec check, and the advice after a run."""

    VENV = "venv"
    CONDA = "conda"
    TOOL = "tool"
    DATA = "data"

    @property
    def is_environment(self) -> bool:
        return self in (Kind.VENV, Kind.CONDA)


@dataclass(frozen=True, slots=True)
class Source:
    """What is copied to the nodes.

    Attributes:
        path: Absolute path as the user gave it.
        real: The path with every link resolved.
        name: Name of the default destination.
        kind: Kind of the tree, None for an archive before it is unpacked.
        node_local: Whether it is on a disk of this host only, according to the type of its filesystem.
    """

    path: str
    real: str
    name: str
    kind: Kind | None
    node_local: bool

    @property
    def is_archive(self) -> bool:
        return self.kind is None


def default_destination(source: Source) -> str:
    """Return `/tmp/NAME`, by the name that the user gave and not by that of a link's target."""
    return f"/tmp/{source.name}"  # noqa: S108 - the node-local disk that every site has
