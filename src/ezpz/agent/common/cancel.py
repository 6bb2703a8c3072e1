"""Cancelling: one token and one exception for both ends."""


class Cancelled(Exception):
    """The work was cancelled: its result is not needed any more."""


class CancelToken:
    """A request to stop work, which the threads that do the work check often.

    It takes no lock, so that a signal handler may cancel, whatever the thread that it interrupts is doing.
    """

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        """Ask for the work to stop."""
        self.is_cancelled = True

    def raise_if_cancelled(self) -> None:
        """Raise Cancelled once the work was cancelled."""
        if self.is_cancelled:
            raise Cancelled
