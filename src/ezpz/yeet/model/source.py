"""Source: what is copied, and what kind of tree it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a tree is for; decides relocation, the noexec check, and how it is used afterwards."""

    VENV = "venv"
    CONDA = "conda"
    TOOL = "tool"
    DATA = "data"

    @property
    def is_environment(self) -> bool:
        return self in (Kind.VENV, Kind.CONDA)


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be put on the nodes.

    path: absolute, as the user gave it; real: with every link resolved; name: what the default destination is called
    kind: None for an archive until it has been unpacked; node_local: on a disk that only this host has, as far as its
    filesystem's type tells
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
    """`/tmp/NAME`, by the name that was given and not a link's target."""
    return f"/tmp/{source.name}"  # noqa: S108 - the node-local disk that every site has
