"""A call in a thread of its own, whose failure is raised where its end is waited for."""

import threading
from typing import Any, Callable, Optional


class BackgroundTask(threading.Thread):
    """Calls `act` at once; `finish` waits for its end and raises what it raised."""

    def __init__(self, act: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self.act = act
        self.arguments = arguments
        self.error: Optional[BaseException] = None
        self.start()

    def run(self) -> None:
        try:
            self.act(*self.arguments)
        except BaseException as e:
            self.error = e

    def finish(self) -> None:
        """Wait for the end of the call. Raises what it raised."""
        self.join()
        if self.error is not None:
            raise self.error
