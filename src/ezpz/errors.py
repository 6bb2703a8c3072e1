"""Errors that end a run or fail a node: each class has a `code` for scripts and an `exit_code` for shells.

EzpzError
├── UsageError                 2   the command line contradicts itself or holds a bad value
├── PluginError                3   a plugin is broken, unknown or named twice
├── NodesFailed                1   too few nodes have it (the causes differ, or a threshold was missed)
├── source
│   ├── SourceNotFound        10
│   ├── SourceUnreadable      11
│   ├── SourceEmpty           12
│   ├── SourceChanged         13   it changed while it was read
│   ├── ArchiveCorrupt        14
│   ├── ArchiveUnsafe         15   a member would land outside the destination, or is a device
│   ├── PrefixUnknown         16   an archive does not name the original path of its environment
│   ├── InterpreterBroken     17   the environment's python does not start on this host
│   └── EditableRefused       18   an editable install that cannot be copied, or must not be
├── destination
│   ├── DestinationRefused    20   /, a home directory, a link, the source or around it, shared between nodes
│   ├── DestinationNotOurs    21   no receipt, or that of another user
│   ├── DestinationBusy       22   another run holds it
│   ├── NoSpace               23   bytes or inodes, before or in the middle
│   ├── NoExec                24
│   ├── DestinationUnwritable 25
│   ├── VerifyFailed          26   the copy differs from what was sent
│   ├── StaleList             27   an earlier list of failed nodes cannot be removed
│   ├── SmokeFailed           28   the environment's python does not work at the destination
│   └── PrefixTooLong         29   a compiled file has too little room for the new prefix
├── reaching a node
│   ├── ToolMissing           30   rsync, ssh, python3 ... here or there
│   ├── SshRefused            31
│   ├── HostKeyUnknown        32
│   ├── LoginRefused          33   a password is wanted, or no key is accepted
│   ├── HostUnknown           34
│   ├── ChattyShell           35   a banner printed by .bashrc broke the protocol
│   ├── NodeLost              36   it stopped answering
│   ├── TimedOut              37
│   ├── CopyFailed            38   rsync failed for another reason
│   └── LimitReached          39   this host is out of processes, open files or memory
├── the allocation
│   ├── BadHostName           40   refused, with the file and line
│   ├── HostfileError         41
│   └── SchedulerError        42
├── launch
│   ├── LauncherMissing       50
│   ├── CommandNotFound       51   here, or on a node
│   ├── LauncherFailed        52   srun or mpiexec itself, before any rank ran
│   ├── NotEnoughNodes        53   more nodes are needed than there are
│   ├── NodesOutside          54   --hosts or a hostfile names nodes that are not the job's
│   ├── SiteFileError         55   a file about a site is broken, with its line
│   ├── ChecksFailed          60   too few nodes passed the checks
│   ├── NoSpares              61   a node failed, and no spare is left
│   ├── NoProgress            62   restarted attempts made no progress
│   ├── RestartsExhausted     63
│   ├── Walltime              64   the job's time is over
│   └── IdleTimeout          124   the command printed nothing for too long
└── Interrupted          130/143   Ctrl-C or SIGTERM, 129 after SIGHUP: the first signal counts

A bug in ezpz itself exits with 70. A node's failure is the same `code`, kept as data in `NodeResult`.
"""

from __future__ import annotations


class EzpzError(Exception):
    """A failure that a user can understand: what happened, what to do next, and the exit code.

    Args:
        text: One line that names the file or option.
        hint: The next step, or "".
        node: The node on which it happened, or "".
    """

    code = "error"
    exit_code = 1

    def __init__(self, text: str, *, hint: str = "", node: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
        self.node = node

    @property
    def message(self) -> str:
        """The text, with the name of the node if there is one."""
        return with_node(self.node, self.text)

    def __str__(self) -> str:
        return self.message


class UsageError(EzpzError):
    code, exit_code = "usage", 2


class PluginError(EzpzError):
    code, exit_code = "plugin", 3


class NodesFailed(EzpzError):
    code, exit_code = "nodes-failed", 1


class SourceNotFound(EzpzError):
    code, exit_code = "source-not-found", 10


class SourceUnreadable(EzpzError):
    code, exit_code = "source-unreadable", 11


class SourceEmpty(EzpzError):
    code, exit_code = "source-empty", 12


class SourceChanged(EzpzError):
    code, exit_code = "source-changed", 13


class ArchiveCorrupt(EzpzError):
    code, exit_code = "archive-corrupt", 14


class ArchiveUnsafe(EzpzError):
    code, exit_code = "archive-unsafe", 15


class PrefixUnknown(EzpzError):
    code, exit_code = "prefix-unknown", 16


class InterpreterBroken(EzpzError):
    code, exit_code = "interpreter-broken", 17


class EditableRefused(EzpzError):
    code, exit_code = "editable-refused", 18


class DestinationRefused(EzpzError):
    code, exit_code = "destination-refused", 20


class DestinationNotOurs(EzpzError):
    code, exit_code = "destination-not-ours", 21


class DestinationBusy(EzpzError):
    code, exit_code = "destination-busy", 22


class NoSpace(EzpzError):
    code, exit_code = "no-space", 23


class NoExec(EzpzError):
    code, exit_code = "noexec", 24


class DestinationUnwritable(EzpzError):
    code, exit_code = "destination-unwritable", 25


class VerifyFailed(EzpzError):
    code, exit_code = "verify-failed", 26


class StaleList(EzpzError):
    code, exit_code = "stale-list", 27


class SmokeFailed(EzpzError):
    code, exit_code = "smoke-failed", 28


class PrefixTooLong(EzpzError):
    code, exit_code = "prefix-too-long", 29


class ToolMissing(EzpzError):
    code, exit_code = "tool-missing", 30


class SshRefused(EzpzError):
    code, exit_code = "ssh-refused", 31


class HostKeyUnknown(EzpzError):
    code, exit_code = "host-key-unknown", 32


class LoginRefused(EzpzError):
    code, exit_code = "login-refused", 33


class HostUnknown(EzpzError):
    code, exit_code = "host-unknown", 34


class ChattyShell(EzpzError):
    code, exit_code = "chatty-shell", 35


class NodeLost(EzpzError):
    code, exit_code = "node-lost", 36


class TimedOut(EzpzError):
    code, exit_code = "timed-out", 37


class CopyFailed(EzpzError):
    code, exit_code = "copy-failed", 38


class LimitReached(EzpzError):
    code, exit_code = "limit-reached", 39


class BadHostName(EzpzError):
    code, exit_code = "bad-host-name", 40


class HostfileError(EzpzError):
    code, exit_code = "hostfile", 41


class SchedulerError(EzpzError):
    code, exit_code = "scheduler", 42


class LauncherMissing(EzpzError):
    code, exit_code = "launcher-missing", 50


class CommandNotFound(EzpzError):
    code, exit_code = "command-not-found", 51


class LauncherFailed(EzpzError):
    code, exit_code = "launcher-failed", 52


class NotEnoughNodes(EzpzError):
    code, exit_code = "not-enough-nodes", 53


class NodesOutside(EzpzError):
    code, exit_code = "nodes-outside", 54


class SiteFileError(EzpzError):
    code, exit_code = "site-file", 55


class ChecksFailed(EzpzError):
    code, exit_code = "checks-failed", 60


class NoSpares(EzpzError):
    code, exit_code = "no-spares", 61


class NoProgress(EzpzError):
    code, exit_code = "no-progress", 62


class RestartsExhausted(EzpzError):
    code, exit_code = "restarts-exhausted", 63


class Walltime(EzpzError):
    code, exit_code = "walltime", 64


class IdleTimeout(EzpzError):
    code, exit_code = "idle-timeout", 124


class Interrupted(EzpzError):
    """Ctrl-C (exit 130), SIGTERM (exit 143) or SIGHUP (exit 129); the first one counts."""

    code, exit_code = "interrupted", 130

    def __init__(self, text: str, *, hint: str = "", node: str = "", signal: int = 2) -> None:
        super().__init__(text, hint=hint, node=node)
        self.signal = signal
        self.exit_code = 128 + signal


def with_node(node: str, text: str) -> str:
    """Return a text about a node with the node's name in front of it; "" is the name of no node."""
    return f"{node}: {text}" if node else text


def by_code(code: str) -> type[EzpzError]:
    """Return the class with this `code`, or EzpzError if no class has it."""
    pending = [EzpzError]
    while pending:
        candidate = pending.pop()
        if candidate.code == code:
            return candidate
        pending.extend(candidate.__subclasses__())
    return EzpzError
