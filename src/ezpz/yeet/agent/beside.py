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
        try:
            self.act(*self.arguments)
        except BaseException as e:  # raised again where it is waited for
            self.error = e

    def finish(self) -> None:
        self.join()
        if self.error is not None:
            raise self.error
