"""Beside: something that is done in a thread of its own while this one goes on."""

import threading
from typing import Any, Callable, Optional


class Beside(threading.Thread):
    """Runs `act` at once; `finish` waits for it, and raises what it raised."""

    def __init__(self, act: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self.act = act
        self.arguments = arguments
        self.error: Optional[BaseException] = None
        self.start()

    def run(self) -> None:
        with self:
            self.act(*self.arguments)

    def __enter__(self) -> None:
        """What is raised within is raised again where it is waited for."""

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> bool:
        self.error = error
        return True

    def finish(self) -> None:
        self.join()
        if self.error is not None:
            raise self.error
