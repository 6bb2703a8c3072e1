"""The argv of ssh and srun, and what their failures mean."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz import errors
from ezpz.cluster.allocation import Node
from ezpz.cluster.ssh import SSH_OPTIONS, srun_argv, ssh_argv, ssh_command_line
from ezpz.cluster.ssh_errors import classify_failure


def test_ssh_is_hardened_in_one_place() -> None:
    argv = ssh_argv("n1-hsn0", "exec python3 -")
    assert argv[0] == "ssh"
    assert argv[-3:] == ("--", "n1-hsn0", "exec python3 -")
    for option in ("BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=5", "ServerAliveCountMax=3"):
        assert option in argv
    assert "-T" in argv
    assert tuple(shlex.split(ssh_command_line())) == ("ssh", *SSH_OPTIONS, "--")
    assert not set("'\"\\") & set(ssh_command_line())  # rsync splits -e at spaces, with quoting of its own


def test_srun() -> None:
    nodes = tuple(Node(f"n{number}", f"n{number}-hsn0", f"n{number}") for number in (3, 1, 2))
    argv = srun_argv(nodes, ("hostname", "-s"))
    assert argv[:2] == ("srun", "--overlap")
    assert {"--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--nodelist=n[1-3]", "--kill-on-bad-exit=0"} <= set(argv)
    assert argv[-2:] == ("hostname", "-s")
    assert "--overlap" not in srun_argv(nodes, ("hostname",), overlap=False)


CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Host key verification failed.
rsync: connection unexpectedly closed (0 bytes received so far) [sender]
rsync error: unexplained error (code 255) at io.c(232) [sender=3.2.7]"""
STRICT = """No ED25519 host key is known for n1 and you have requested strict checking.
Host key verification failed."""
ADOPT = """Access denied by pam_slurm_adopt: you have no active jobs on this node
Connection closed by 10.0.0.1 port 22"""
KEYS = "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures"
BUSY = "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 10.0.0.1 port 22"
UNREADABLE = 'rsync: [sender] send_files failed to open "/s/x": Permission denied (13)\n'
STREAM = "rsync error: error in rsync protocol data stream (code 12) at io.c(232)"
SHELL = "protocol version mismatch -- is your shell clean?\n(see the rsync manpage for an explanation)\n"
CLOSED = "rsync: connection unexpectedly closed (0 bytes received so far) [sender]\n"
END = (
    "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1338) [sender=3.2.7]"
)


@pytest.mark.parametrize(
    ("stderr", "status", "code", "text"),
    [
        ("ssh: connect to host n1 port 22: Connection refused", 255, "ssh-refused", "refused"),
        ("SSH: CONNECT TO HOST n1 PORT 22: CONNECTION REFUSED\r\n", 255, "ssh-refused", "refused"),
        ("Host key verification failed.", 255, "host-key-unknown", "not in known_hosts"),
        (STRICT, 255, "host-key-unknown", "not in"),
        (CHANGED, 255, "host-key-unknown", "not the one"),
        ("alice@n1: Permission denied (publickey,password).", 255, "login-refused", "publickey,password"),
        (ADOPT, 255, "login-refused", "Slurm"),
        (KEYS, 255, "login-refused", "login"),
        ("ssh: Could not resolve hostname n1: Name or service not known", 255, "host-unknown", "no address"),
        ("ssh: connect to host n1 port 22: Connection timed out", 255, "node-lost", "Connection timed out"),
        ("Connection to 10.0.0.1 port 22 timed out", 255, "node-lost", "timed out"),
        ("ssh: connect to host n1 port 22: No route to host", 255, "node-lost", "No route"),
        ("Timeout, server n1 not responding.\r\n" + CLOSED, 12, "node-lost", "stopped answering"),
        (BUSY, 255, "node-lost", "before the login"),
        ("Connection closed by 10.0.0.1 port 22", 255, "node-lost", "before the login"),
        ("Connection to n1 closed by remote host.", 255, "node-lost", "broke"),
        ("client_loop: send disconnect: Broken pipe", 255, "node-lost", "broke"),
        ("Bad owner or permissions on /home/a/.ssh/config", 255, "ssh-refused", "Bad owner"),
        (SHELL + "rsync error: protocol incompatibility (code 2) at compat.c(622)", 2, "chatty-shell", "login scripts"),
        ('rsync: [receiver] write failed on "/tmp/e/x": No space left on device (28)\n' + END, 11, "no-space", "space"),
        ("tar: x: Cannot write: Disk quota exceeded", 2, "no-space", "quota"),
        ('rsync: [Receiver] mkdir "/x/y" failed: Permission denied (13)', 11, "destination-unwritable", "mkdir"),
        ('rsync: mkstemp "/x/.y" failed: Read-only file system (30)', 23, "destination-unwritable", "Read-only"),
        (UNREADABLE + END, 23, "source-unreadable", "/s/x"),
        ("bash: line 1: rsync: command not found\n" + CLOSED, 127, "tool-missing", "rsync"),
        ("sh: 1: rsync: not found", 127, "tool-missing", "rsync"),
        ("zsh:1: command not found: rsync", 127, "tool-missing", "rsync"),
        (".zshrc:3: command not found: module\nrsync: something odd\n" + END, 23, "copy-failed", "something odd"),
        ("rsync: Command not found.", 1, "tool-missing", "rsync"),
        ("env: \u2018python3\u2019: No such file or directory", 127, "tool-missing", "python3"),
        ("bash: /usr/bin/python3: No such file or directory", 127, "tool-missing", "python3"),
        ("rsync: [sender] Failed to exec ssh: No such file or directory (2)", 14, "tool-missing", "ssh"),
        ("ksh: foo", 127, "tool-missing", "ksh: foo"),
        ("bash: module: command not found\nrsync: something odd\n" + END, 23, "copy-failed", "something odd"),
        ("", 10, "node-lost", "said nothing"),
        (CLOSED + STREAM, 12, "node-lost", "code 12"),
        ("", 20, "copy-failed", "interrupted"),
        ("file has vanished: x", 24, "source-changed", "vanished"),
        ("rsync error: timeout in data send/receive (code 30)", 30, "timed-out", "too long"),
        ("rsync error: timeout waiting for daemon connection (code 35)", 35, "timed-out", "too long"),
        ("", 255, "ssh-refused", "ssh failed"),
        ("one\ntwo\nthree", 7, "copy-failed", "exit status 7: two; three"),
        ("", -9, "copy-failed", "signal 9"),
    ],
)  # fmt: skip
def test_explain(stderr: str, status: int, code: str, text: str) -> None:
    error = classify_failure(stderr, status, "n1")
    assert error.code == code, error.message
    assert error.message.startswith("n1: ")
    assert text in error.message
    assert "\n" not in error.message
    assert error.hint or code == "copy-failed"


def test_every_class_comes_from_the_tree() -> None:
    error = classify_failure("ssh: connect to host n1 port 22: Connection refused", 255, "n1")
    assert isinstance(error, errors.SshRefused)
    assert errors.by_code(error.code) is errors.SshRefused


@given(st.text(max_size=200), st.integers(-64, 255), st.text(max_size=20))
def test_whatever_was_printed_is_one_clean_line(stderr: str, status: int, host: str) -> None:
    message = classify_failure(stderr, status, host).message
    assert message.removeprefix(host).isprintable()


def test_braces_and_escapes_in_what_was_printed_are_harmless() -> None:
    assert "{host} ?[31mred" in classify_failure("{host} \x1b[31mred", 1, "n1").message
