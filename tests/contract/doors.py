"""The two doors to a landing: imported here, and as the real agent in a process of some other Python."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from ezpz.agent.common.errors import AgentError, from_os_error
from ezpz.agent.common.messages.parts import ExpectedTree
from ezpz.agent.common.messages.receipt import Receipt
from ezpz.agent.common.messages.requests import PrepareRequest
from ezpz.agent.destination.deployment import Deployment
from ezpz.agent.query_server import READY
from ezpz.remote.bootstrap import BOOTSTRAP, bundle
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IMPORTED, SYSTEM = "imported", "system"
VERSIONS = ("3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
INSTALLED = Path.home() / ".pyenv" / "versions"  # before a test gives us another home


class Refused(Exception):
    """What a door answers instead of a result."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(f"{code}: {message} ({hint})")
        self.code, self.message, self.hint = code, message, hint


class Door(Protocol):
    """A landing, wherever it is."""

    def prepare(self, **request: Any) -> dict[str, Any]: ...

    def same(self, **made_of: Any) -> bool: ...

    def publish(self, *, expected: dict[str, Any], receipt: dict[str, Any], executable: bool) -> dict[str, Any]: ...

    def note(self, names: list[str]) -> str: ...

    def close(self) -> None: ...


class Imported:
    """The launching host's own."""

    def __init__(self) -> None:
        self._landing: Deployment | None = None

    @property
    def landing(self) -> Deployment:
        assert self._landing is not None, "nothing was prepared"
        return self._landing

    def prepare(self, **request: Any) -> dict[str, Any]:
        with _refusing():
            self._landing = Deployment(os.fsencode(request["dst"]), request["run"])
            return self.landing.prepare(PrepareRequest.from_json(request)).to_json()

    def same(self, **made_of: Any) -> bool:
        return is_same(self.landing.check_installed().to_json(), made_of)

    def publish(self, *, expected: dict[str, Any], receipt: dict[str, Any], executable: bool) -> dict[str, Any]:
        with _refusing():
            found = self.landing.verify(ExpectedTree.from_json(expected))
            return self.landing.publish(found, Receipt(**receipt), executable=executable).to_json()

    def note(self, names: list[str]) -> str:
        return self.landing.write_failed_nodes(names)

    def close(self) -> None:
        if self._landing is not None:
            self._landing.close()


def is_same(stock: dict[str, Any], made_of: dict[str, Any]) -> bool:
    """Whether what stands is untouched, and its receipt says all of this."""
    receipt = stock["receipt"] or {}
    return bool(stock["untouched"]) and all(receipt.get(name) == value for name, value in made_of.items())


class _refusing(contextlib.AbstractContextManager[None]):  # noqa: N801 - used as a function
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            error = from_os_error(error, "failed")
        if isinstance(error, AgentError):
            raise Refused(error.code, error.message, error.hint) from error


class Piped:
    """An agent in a process of its own, which is spoken to as over ssh."""

    def __init__(
        self,
        python: str,
        *,
        under: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        first: str = "",
    ) -> None:
        """Start `python` under the command `under`; `first` is a line of shell that runs before."""
        start = [*under, python, "-IS", "-c", BOOTSTRAP]
        if first:
            start = ["sh", "-c", f'{first}\nexec "$@"', "sh", *start]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(start, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        self.chatter: list[str] = []
        self.events: list[Any] = []
        self._number = 0
        self._heard = b""
        self.write(bundle())
        self.hello = self._message()
        assert self.hello["ready"] == READY

    def prepare(self, **request: Any) -> dict[str, Any]:
        return self.ask("prepare", **request)

    def same(self, **made_of: Any) -> bool:
        return is_same(self.ask("installed"), made_of)

    def publish(self, *, expected: dict[str, Any], receipt: dict[str, Any], executable: bool) -> dict[str, Any]:
        return self.ask("publish", expected=expected, receipt=receipt, executable=executable)

    def note(self, names: list[str]) -> str:
        path: str = self.ask("note", names=names)["path"]
        return path

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        self.send(op, **request)
        return self.answer()

    def send(self, op: str, **request: Any) -> None:
        """Ask, and leave the answer for later."""
        self._number += 1
        self.write(json.dumps(dict(request, id=self._number, op=op)).encode() + b"\n")

    def answer(self) -> dict[str, Any]:
        """The answer to the last request; its events are in `events`."""
        while "event" in (message := self._message()):
            self.events.append(message["event"])
        assert message["id"] == self._number
        if "error" in message:
            raise Refused(**message["error"])
        result: dict[str, Any] = message["result"]
        return result

    def hang_up(self) -> int:
        """End its stdin and return its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.hang_up()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def _message(self) -> dict[str, Any]:
        while True:
            line = self._line()
            try:
                message = json.loads(line)
            except ValueError:
                self.chatter.append(line)
                continue
            assert isinstance(message, dict)
            return message

    def _line(self) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
            data = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not data:
                self.process.kill()
                assert self.process.stderr is not None
                raise AssertionError(f"the agent is silent: {self.process.stderr.read().decode()}")
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode(errors="replace")


def interpreter(name: str) -> str:
    """The Python that `name` stands for; skips the test when it is not here."""
    found = [Path("/usr/bin/python3")] if name == SYSTEM else sorted(INSTALLED.glob(f"{name}.*/bin/python3"))
    if not found or not found[-1].exists():
        pytest.skip(f"Python {name} is not here")
    return str(found[-1])


def open_door(name: str) -> Door:
    """A new landing behind the door of that name."""
    return Imported() if name == IMPORTED else Piped(interpreter(name))
