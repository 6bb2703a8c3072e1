"""A place to unpack archives in that come from anywhere: nothing around it changes, however that ends."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from ezpz.agent.common.cancel import CancelToken
from ezpz.agent.destination.remove_tree import remove_tree
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.source.scan import Scan
from ezpz.yeet.strategies.base import CopyJob
from tests.contract.support import photograph

if TYPE_CHECKING:
    from pathlib import Path

    from ezpz.yeet.strategies.base import Strategy


class Bench:
    """A staging directory, and a photograph of all around it."""

    def __init__(self, root: Path, strategy: Strategy, name: str) -> None:
        """`name`: of the archive."""
        self.root = root
        self.strategy = strategy
        self.archive = root / name
        self.staging = root / "run" / "tree"
        self.outside = root / "outside"
        self.outside.mkdir()
        (self.outside / "victim").write_text("keep me")
        self.moved = 0
        self.stop_after: float = math.inf
        self.cancel = CancelToken()
        self.recorder = RelocationRecorder(Relocation(b"/tmp/x"))

    def unpack(self, content: bytes) -> Path:
        """Unpack an archive and return the staging directory; nothing around it changes."""
        self.archive.write_bytes(content)
        remove_tree(os.fsencode(self.staging.parent))
        self.staging.mkdir(parents=True, mode=0o700)
        before = self._around()
        job = CopyJob(
            root=os.fsencode(self.archive), scan=Scan(b""), staging=os.fsencode(self.staging), recorder=self.recorder,
            cancel=self.cancel, moved=self._move,
        )  # fmt: skip
        try:
            self.strategy.fill(job)
        finally:
            assert self._around() == before
        assert [path.name for path in self.staging.parent.iterdir()] == ["tree"]
        return self.staging

    def _move(self, size: int) -> None:
        self.moved += size
        if self.moved >= self.stop_after:
            self.cancel.cancel()

    def _around(self) -> object:
        return [photograph(self.outside), sorted(path.name for path in self.root.iterdir()), self.archive.read_bytes()]


def names(staging: Path) -> list[str]:
    return sorted(str(path.relative_to(staging)) for path in staging.rglob("*"))
