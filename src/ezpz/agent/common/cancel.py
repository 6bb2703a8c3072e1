"""Cancelation: one token and one exception for both ends."""

from typing import Callable


class Cancelled(Exception):
    """The work was canceled: its result is not needed any more."""


class CancelToken:
    """A request to stop work, which the threads that do the work check often.

    It takes no lock, so that a signal handler may cancel, whatever the thread that it interrupts is doing.
    """

    def __init__(self) -> None:
        self._is_cancelled = False

    @property
    def is_cancelled(self) -> bool:
        """Whether the work should stop."""
        return self._is_cancelled

    def cancel(self) -> None:
        """Ask for the work to stop."""
        self._is_cancelled = True

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` once the work was canceled."""
        if self._is_cancelled:
            raise Cancelled


class ProgressToken(CancelToken):
    """Another token, whose every check reports that the work advances."""

    def __init__(self, token: CancelToken, report: Callable[[], None]) -> None:
        super().__init__()
        self.token = token
        self.report = report

    @property
    def is_cancelled(self) -> bool:
        """Whether the work should stop."""
        return self.token.is_cancelled

    def cancel(self) -> None:
        """Ask for the work to stop."""
        self.token.cancel()

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` once the work was canceled, else report progress."""
        self.token.raise_if_cancelled()
        self.report()


NEVER = CancelToken()
"""The token of work that is never canceled."""
