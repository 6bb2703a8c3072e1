"""The error of an agent: a code of `ezpz.errors`, one line, and the next step."""

import errno
from typing import Dict


class AgentError(Exception):
    """A request that was not carried out; `code` is that of a class in `ezpz.errors`."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def as_dict(self) -> Dict[str, str]:
        """Return the fields of the message `Failing`."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


def from_os_error(error: OSError, doing: str) -> AgentError:
    """Return what an error of the operating system means to a user; `doing` says what was being done."""
    reason = "{}: {}".format(doing, error.strerror or error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AgentError("no-space", reason, "free some space there, or choose another place with --dst")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AgentError("destination-unwritable", reason, "choose a place that you may write to with --dst")
    return AgentError("destination-unwritable", reason)
