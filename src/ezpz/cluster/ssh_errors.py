"""Patterns of the messages of ssh, rsync, and remote shells, and the error that each of them means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ezpz import errors


@dataclass(frozen=True, slots=True)
class ErrorPattern:
    """A pattern of what ssh, rsync, or a shell prints (in any case), and the error that it means.

    `text` and `hint` may use {host} and the groups of the pattern.
    """

    pattern: str
    error: type[errors.EzpzError]
    text: str
    hint: str


_KEY_HINT = "run `ssh-keyscan -H {host} >> ~/.ssh/known_hosts` if you trust it; `--hsn off` dials the plain names"
_BUSY_HINT = "too many sessions at once (sshd's MaxStartups), or the node went down; run it again"
_DOWN_HINT = "is the node up and in your job? leave it out with --hosts or --hostfile"
_TOOLS = "rsync|ssh|python3|tar|zstd|gzip|sh"  # ezpz starts these; if a .bashrc misses another one, that is harmless
_ROOM_HINT = "free some space there, or choose another --dst"
ERROR_PATTERNS: tuple[ErrorPattern, ...] = (
    # ssh, before anything ran
    ErrorPattern(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        errors.HostKeyUnknown,
        "its host key is not the one in known_hosts",
        "if the node was reinstalled, run `ssh-keygen -R {host}`, then connect to it once by hand",
    ),
    ErrorPattern(
        r"Host key verification failed|no \S+ host key is known for",
        errors.HostKeyUnknown,
        "its host key is not in known_hosts",
        _KEY_HINT,
    ),
    ErrorPattern(
        r"Access denied by pam_slurm|pam_slurm_adopt",
        errors.LoginRefused,
        "Slurm lets nobody in who has no job there",
        "the job may have ended; run inside the allocation",
    ),
    ErrorPattern(
        r"Permission denied \((?P<methods>[a-z,-]+)\)",
        errors.LoginRefused,
        "no key is accepted there (it offers {methods}), and a password cannot be typed here",
        "make `ssh {host} true` work without a password: ssh-keygen, then append the .pub file to authorized_keys",
    ),
    ErrorPattern(
        r"Too many authentication failures|Permission denied, please try again"
        r"|account is (currently not available|locked)",
        errors.LoginRefused,
        "the login was refused",
        "make `ssh {host} true` work without a password",
    ),
    ErrorPattern(
        r"Could not resolve hostname|Name or service not known|Temporary failure in name resolution",
        errors.HostUnknown,
        "this name has no address",
        "is it spelled right? `--hsn off` dials the names as given",
    ),
    ErrorPattern(
        r"connect to (host|address) .*Connection refused",
        errors.SshRefused,
        "the connection was refused; no sshd listens there",
        "is sshd running there, on the port in your ~/.ssh/config?",
    ),
    ErrorPattern(
        r"Unable to negotiate with|no matching (host key type|cipher|MAC|key exchange)|Bad configuration option"
        r"|Bad owner or permissions on",
        errors.SshRefused,
        "ssh cannot be used: {line}",
        "try `ssh {host} true` and mend ~/.ssh/config",
    ),
    ErrorPattern(
        r"Connection (to \S+ port \d+ )?timed out|Operation timed out"
        r"|No route to host|Network is unreachable|Host is down",
        errors.NodeLost,
        "it did not answer: {line}",
        _DOWN_HINT,
    ),
    ErrorPattern(
        r"Timeout, server \S+ not responding",
        errors.NodeLost,
        "it stopped answering in the middle",
        _DOWN_HINT,
    ),
    ErrorPattern(
        r"kex_exchange_identification|ssh_exchange_identification|Connection (reset|closed) by .* port \d+"
        r"|Exceeded MaxStartups",
        errors.NodeLost,
        "it dropped the connection before the login",
        _BUSY_HINT,
    ),
    ErrorPattern(
        r"Connection to \S+ closed by remote host|client_loop: send disconnect|packet_write_wait",
        errors.NodeLost,
        "the connection broke in the middle",
        _DOWN_HINT,
    ),
    # the filesystem at the far end
    ErrorPattern(r"No space left on device", errors.NoSpace, "no space left on the device", _ROOM_HINT),
    ErrorPattern(r"Disk quota exceeded", errors.NoSpace, "the disk quota is used up", _ROOM_HINT),
    ErrorPattern(
        r"Read-only file system|(mkdir|mkstemp) .* failed: Permission denied",
        errors.DestinationUnwritable,
        "the destination cannot be written: {line}",
        "choose another --dst",
    ),
    ErrorPattern(
        r"(send_files failed to open|opendir|readlink_stat\S*) .*Permission denied",
        errors.SourceUnreadable,
        "a part of the source cannot be read: {line}",
        "may you read all of it? leave parts out with --exclude",
    ),
    # the shell at the far end
    ErrorPattern(
        r"no python3 \(3\.6 or newer\) was found",
        errors.ToolMissing,
        "no python3 (3.6 or newer) was found there",
        "`ssh {host} python3 --version` must work: load a module in .bashrc; or leave the node out with --hosts or "
        "--hostfile",
    ),
    ErrorPattern(
        r"is your shell clean|protocol version mismatch|unexpected tag \d+",
        errors.ChattyShell,
        "its login scripts print something, which breaks the protocol",
        "`ssh {host} true` must print nothing: guard the output in .bashrc with `[[ $- == *i* ]] || return`",
    ),
    ErrorPattern(
        rf"\b(?P<tool>{_TOOLS}): (command )?not found|command not found: (?P<tool2>{_TOOLS})\b"
        rf"|Failed to exec (?P<tool3>\S+): No such file|\W(?P<tool4>{_TOOLS})\W?: No such file or directory",
        errors.ToolMissing,
        "{tool} is not installed, or not on the PATH of a session without a terminal",
        "install {tool} there, or choose an engine that does not need it",
    ),
)
# rsync(1), "EXIT VALUES"; ssh(1): 255; POSIX shells: 127
STATUSES: dict[int, ErrorPattern] = {
    10: ErrorPattern("", errors.NodeLost, "rsync lost the connection: {line}", _DOWN_HINT),
    12: ErrorPattern("", errors.NodeLost, "the stream from rsync broke off: {line}", _DOWN_HINT),
    20: ErrorPattern("", errors.CopyFailed, "rsync was interrupted", "run it again"),
    23: ErrorPattern("", errors.CopyFailed, "rsync could not copy everything: {line}", "is all of it readable?"),
    24: ErrorPattern("", errors.SourceChanged, "files vanished while they were copied", "let the source rest"),
    30: ErrorPattern("", errors.TimedOut, "rsync waited too long for data", "raise --timeout, or leave the node out"),
    35: ErrorPattern("", errors.TimedOut, "rsync waited too long for the connection", _DOWN_HINT),
    127: ErrorPattern("", errors.ToolMissing, "a program is missing there: {line}", "install it there"),
    255: ErrorPattern("", errors.SshRefused, "ssh failed: {line}", "try `ssh {host} true`"),
}
OTHER = ErrorPattern("", errors.CopyFailed, "failed with {status}: {line}", "")
_COMPILED = tuple((re.compile(each.pattern, re.IGNORECASE), each) for each in ERROR_PATTERNS)
_NOISE = re.compile(r"^(rsync error: .*|rsync: (\[\w+\] )?connection unexpectedly closed.*|\**@*)$", re.IGNORECASE)


def classify_failure(stderr: str, returncode: int, host: str) -> errors.EzpzError:
    """Return the error that a failed ssh or rsync means.

    The printed text has precedence over the status. ERROR_PATTERNS are tried in their order: failures to connect come
    before failures at the far end. Do not use this for a program with its own exit statuses, such as the agent.

    Args:
        stderr: what it printed
        returncode: its exit status, negative for a signal
        host: the name of the node, for the message
    """
    text = _printable(stderr)
    for pattern, meaning in _COMPILED:
        match = pattern.search(text)
        if match:
            return _error(meaning, text, returncode, host, match)
    return _error(STATUSES.get(returncode, OTHER), text, returncode, host, None)


def _error(
    meaning: ErrorPattern, text: str, returncode: int, host: str, match: re.Match[str] | None
) -> errors.EzpzError:
    groups = {name: value for name, value in match.groupdict().items() if value} if match else {}
    tool = next((value for name, value in groups.items() if name.startswith("tool")), "")
    facts = {
        "host": host,
        "status": f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}",
        "line": _line_of(text, match) if match else _last_lines(text),
        "methods": groups.get("methods", ""),
        "tool": tool,
    }
    return meaning.error(meaning.text.format(**facts), hint=meaning.hint.format(**facts), node=host)


def _printable(stderr: str) -> str:
    """Return the lines without control characters, which could change a terminal, and with the same line ends."""
    lines = (line.strip() for line in stderr.splitlines())
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines if line)


def _line_of(text: str, match: re.Match[str]) -> str:
    end = text.find("\n", match.end())
    return text[text.rfind("\n", 0, match.start()) + 1 : end if end >= 0 else None]


def _last_lines(text: str, count: int = 2) -> str:
    """Return the last lines that give a reason. The last lines of rsync only repeat the status."""
    lines = text.splitlines()
    telling = [line for line in lines if not _NOISE.match(line)] or lines
    return "; ".join(telling[-count:]) or "it said nothing"
