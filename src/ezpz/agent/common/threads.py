"""Calls in threads."""

import threading
from typing import Any, Callable, Optional


class BackgroundTask(threading.Thread):
    """A call that runs in a thread, and whose error `finish` raises."""

    def __init__(self, act: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self.act = act
        self.arguments = arguments
        self.error: Optional[BaseException] = None
        self.start()

    def run(self) -> None:
        """Make the call, and keep its error."""
        try:
            self.act(*self.arguments)
        except BaseException as e:
            self.error = e

    def finish(self) -> None:
        """Wait for the end of the call. Raise what it raised."""
        self.join()
        if self.error is not None:
            raise self.error
