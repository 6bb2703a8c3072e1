"""Worker: a thread whose failure is not lost, whatever it is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


class Worker(threading.Thread):
    """Runs `act`; what that raises is handed to `fail` at once, from this thread, and goes no further.

    A daemon, because one that reads from a filesystem that hangs must not keep the process from ending.
    """

    def __init__(self, act: Callable[[], None], fail: Callable[[BaseException], None]) -> None:
        super().__init__(daemon=True)
        self.act = act
        self.fail = fail

    @classmethod
    def started(cls, act: Callable[[], None], fail: Callable[[BaseException], None]) -> Self:
        """A worker that runs."""
        worker = cls(act, fail)
        worker.start()
        return worker

    def run(self) -> None:
        with self:
            self.act()

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self.fail(error)
        return True
