"""Shell: a session to a node that has no python, where a shell does what an agent would do for the rsync engine.

It stages beside the destination, counts what has come, and renames, as an agent does. What it cannot do: keep two runs
to one destination apart, try an environment out, and pull from another node.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ezpz.agent.common import filesystem, text
from ezpz.agent.common.layout import FAILED_NODES, RECEIPT
from ezpz.agent.common.messages.base import Message
from ezpz.agent.common.receipt import FORMAT
from ezpz.cluster.ssh import ssh_argv
from ezpz.errors import (
    DestinationNotOurs,
    DestinationRefused,
    DestinationUnwritable,
    EzpzError,
    NodeLost,
    NoSpace,
    TimedOut,
    ToolMissing,
    VerifyFailed,
)
from ezpz.remote.channel import ProcessChannel
from ezpz.runtime.async_process import AsyncProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ezpz.agent.common.messages.events import Event
    from ezpz.cluster.allocation import Node
    from ezpz.remote.session import Question

A = TypeVar("A", bound=Message)
DONE = b"EZPZ-SHELL "
LOOP = (
    "exec /bin/sh -c '"
    'staging=; free() { find "$staging" -type d -exec chmod u+rwx {} +; rm -rf -- "$staging"; }; '
    'clean() { [ -z "$staging" ] || free; }; '
    'trap clean EXIT; trap "exit 1" HUP TERM; '
    'while IFS= read -r line; do eval "$line"; echo "EZPZ-SHELL $?"; done'
    "'"
)
"""The remote command: runs a line after the other; the same text for sh, csh and fish as login shells."""
WITHIN = 120.0  # seconds for the shell to look at its disk
BLOCK = 1024  # bytes, of `df -k`


class ShellSession:
    """Answers the requests of the rsync engine as `Session` does. Every failure is an EzpzError that names the node."""

    is_agent = False

    def __init__(self, node: Node, line: ProcessChannel) -> None:
        self.node = node
        self.line = line
        self.address = node.address
        self.happened: Callable[[Event], None] = lambda _: None
        self.gone: Callable[[EzpzError], None] = lambda _: None
        self.host: dict[str, Any] = {}
        self.seen: dict[str, Any] | None = None
        self.dst = self.staging = self.run = ""
        self.replaced = ""
        self.public = False
        self.standing = ""  # device and inode of what stood at the destination when the run began
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, node: Node) -> ShellSession:
        """Reach a node that has rsync. Raises EzpzError."""
        child = await AsyncProcess.start(ssh_argv(node.address, LOOP))
        session = cls(node, ProcessChannel(child, node))
        try:
            status, _ = await session._say("command -v rsync >/dev/null && mv --version >/dev/null 2>&1", WITHIN)
        except EzpzError:
            await session.close()
            raise
        if status:
            await session.close()
            raise ToolMissing(
                f"{node.given}: it has neither python3 nor rsync and GNU coreutils",
                hint="install python3 there, or leave the node out",
            )
        return session

    @property
    def is_open(self) -> bool:
        return self.line.is_open

    async def wake(self) -> None:
        """There is nothing to start."""

    async def close(self, grace: float = 3.0) -> None:
        """End the shell: it removes its staging and goes. Never raises."""
        await self.line.end(grace)

    async def ask(
        self,
        request: Question[A],
        *,
        timeout: float | None = None,
        attached: bytes = b"",
        heard: Callable[[Event], None] | None = None,
    ) -> A:
        """Have the shell do something and return what an agent would. `timeout` is in seconds. Raises EzpzError."""
        act = self._acts.get(request.op)
        if act is None or attached or heard is not None:
            raise ToolMissing(f"{self.node.given}: it has no python3", hint="install it there")
        async with self._turn:
            return request.answer.from_json(await act(timeout or None, **request.to_json()))

    @property
    def _acts(self) -> dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]]:
        return {
            "capabilities": self._capabilities, "prepare": self._prepare, "publish": self._publish,
            "note": self._note,
        }  # fmt: skip

    async def _capabilities(self, _timeout: float | None) -> dict[str, Any]:
        return {"zstd": False, "rsync": True}

    async def _prepare(self, timeout: float | None, *, dst: str, run: str, **request: Any) -> dict[str, Any]:
        """Check the destination and make the staging directory; see `Deployment.prepare`."""
        if "\n" in dst:
            raise DestinationRefused(
                f"{self.node.given}: '{dst!r}' has a line break in it", hint="choose another --dst"
            )
        self.dst, self.run, self.public = dst, run, bool(request.get("public"))
        self.staging = os.fsdecode(filesystem.beside(os.fsencode(dst), b".ezpz-" + run.encode()))
        parent = os.path.dirname(dst)
        await self._demand(
            f"(umask g-w,o-w; mkdir -p -- {_q(parent)}) && [ -w {_q(parent)} ]", timeout,
            DestinationUnwritable(f"{self.node.given}: '{parent}' cannot be written to", hint="choose another --dst"),
        )  # fmt: skip
        await self._demand(
            f'[ -z "$(find {_q(parent)} -prune -perm -0002 ! -perm -1000)" ]', timeout,
            DestinationRefused(f"{self.node.given}: anybody may change '{parent}'", hint="choose another --dst"),
        )  # fmt: skip
        receipt = await self._receipt(timeout, replace=bool(request.get("replace")))
        self.replaced = str((receipt or {}).get("version", ""))
        free = await self._number(f"df -Pk -- {_q(parent)} | awk 'END {{ print $4 }}'", timeout)
        if free * BLOCK < int(request.get("allocated", 0)):
            raise NoSpace(
                f"{self.node.given}: '{parent}' has {text.format_bytes(free * BLOCK)} left, and "
                f"{text.format_bytes(int(request['allocated']))} are needed",
                hint="free some space there, or choose another --dst",
            )
        tree = f"{self.staging}/tree"
        await self._demand(
            f"mkdir -m 700 -- {_q(self.staging)} && staging={_q(self.staging)} && mkdir -m 700 -- {_q(tree)}", timeout,
            DestinationUnwritable(f"{self.node.given}: cannot make '{self.staging}'", hint="look at it by hand"),
        )  # fmt: skip
        return {"staging": tree, "receipt": receipt}

    async def _receipt(self, timeout: float | None, *, replace: bool) -> dict[str, Any] | None:
        """The receipt of what stands at the destination; None for nothing. Raises for what is not ours."""
        dst, path = _q(self.dst), _q(f"{self.dst}/{os.fsdecode(RECEIPT)}")
        _, standing = await self._say(_identity(dst), timeout)
        self.standing = os.fsdecode(standing[-1]) if standing else ""
        if not self.standing:
            return None
        look = f"[ ! -L {dst} ] && [ -d {dst} ] && [ -O {dst} ]"
        show = f"[ ! -L {path} ] && [ -f {path} ] && [ -O {path} ] && tr -d '\\n' <{path} && echo"
        status, said = await self._say(f"{look} && {show}", timeout)
        try:
            found = json.loads(b"".join(said)) if status == 0 else None
        except ValueError:
            found = None
        if isinstance(found, dict) and (found.get("format"), found.get("destination")) == (FORMAT, self.dst):
            return found
        if replace:
            status, _ = await self._say(look, timeout)
        if not replace or status:
            raise DestinationNotOurs(
                f"{self.node.given}: '{self.dst}' stands there, and was not made by ezpz for this place",
                hint="choose another --dst, or look at it and give --replace",
            )
        return None

    async def _publish(
        self, timeout: float | None, *, expected: dict[str, Any], receipt: dict[str, Any], **_: Any
    ) -> dict[str, Any]:
        """Count what has come, add the receipt and rename it into place; see `Deployment.publish`."""
        tree = f"{self.staging}/tree"
        files = await self._number(f"find {_q(tree)} ! -type d | wc -l", timeout)
        sizes = f"find {_q(tree)} -type f -printf '%s\\n'"
        size = await self._number(f"{sizes} | awk '{{ n += $1 }} END {{ print n + 0 }}'", timeout)
        if (files, size) != (expected["files"], expected["bytes"]):
            raise VerifyFailed(
                f"{self.node.given}: what landed is not what was sent: {files} files of {size} bytes, expected "
                f"{expected['files']} of {expected['bytes']}",
                hint="was the source changed during the run? run it again",
            )
        content = dict(receipt, **expected, format=FORMAT, destination=self.dst, run=self.run)
        content["created"] = int(time.time())
        note = _q(f"{tree}/{os.fsdecode(RECEIPT)}")
        dst, tree, old, mark = _q(self.dst), _q(tree), _q(f"{self.staging}/old"), _q(f"{self.staging}/time")
        close = "" if self.public else f"chmod a-st,go= {tree} && "
        swap = (
            f"{close}mode=$(stat -c %a {tree}) && chmod u+rwx {tree} && touch -r {tree} {mark} && "
            f"(umask 077; printf '%s\\n' {_q(json.dumps(content))} >{note}) && touch -r {mark} {tree} && "
            f"if [ -n {_q(self.standing)} ]; then chmod u+rwx {dst} && mv -T -- {dst} {old}; fi && "
            f"{{ mv -nT -- {tree} {dst} && [ ! -e {tree} ] || {{ mv -nT -- {old} {dst}; false; }}; }} && "
            f"chmod $mode {dst}"
        )
        await self._demand(
            f'[ "$({_identity(dst)})" = {_q(self.standing)} ]', timeout,
            DestinationNotOurs(
                f"{self.node.given}: '{self.dst}' has been changed by somebody else during the run",
                hint="look at it; run it again, with --replace if it may go",
            ),
        )  # fmt: skip
        await self._demand(
            swap, timeout, DestinationUnwritable(f"{self.node.given}: cannot put it at '{self.dst}'", hint="look at it")
        )
        await self._say("clean; staging=", timeout)
        return {"removed": 0, "replaced": self.replaced}

    async def _note(self, timeout: float | None, *, names: list[str]) -> dict[str, Any]:
        path = f"{self.dst}/{os.fsdecode(FAILED_NODES)}"
        lines = " ".join(map(_q, names))
        await self._demand(
            f"p=$(mktemp {_q(path)}.XXXXXXXXXX) && "
            f'{{ printf \'%s\\n\' {lines} >"$p" && mv -fT -- "$p" {_q(path)} || {{ rm -f -- "$p"; false; }}; }}',
            timeout,
            NodeLost(f"{self.node.given}: cannot write '{path}'"),
        )
        return {"path": path}

    async def _demand(self, command: str, timeout: float | None, error: EzpzError) -> None:
        status, _ = await self._say(command, timeout)
        if status:
            raise error

    async def _number(self, command: str, timeout: float | None) -> int:
        _, said = await self._say(command, timeout)
        try:
            return int(said[-1])
        except (IndexError, ValueError):
            raise NodeLost(f"{self.node.given}: its shell does not answer", hint="try it by hand over ssh") from None

    async def _say(self, command: str, timeout: float | None) -> tuple[int, list[bytes]]:
        """Run a line there: its status, and what it printed. Raises EzpzError."""
        self.line.write(os.fsencode(command) + b"\n")
        try:
            return await asyncio.wait_for(self._answer(), timeout)
        except asyncio.TimeoutError:
            await self.line.end(0.0)  # a late answer would be taken for the next one
            raise TimedOut(f"{self.node.given}: its shell does not answer", hint="is its disk hung?") from None

    async def _answer(self) -> tuple[int, list[bytes]]:
        said: list[bytes] = []
        with contextlib.suppress(ConnectionError):
            await self.line.drain()
        while line := await self.line.readline():
            if line.startswith(DONE):
                return int(line[len(DONE) :]), said
            said.append(line.rstrip(b"\n"))
        raise await self.line.lost()


def _identity(dst: str) -> str:
    """The command that tells what stands at a quoted path, a link as itself; nothing when nothing does."""
    return f"stat -c %d:%i -- {dst} 2>/dev/null"


_q = shlex.quote
