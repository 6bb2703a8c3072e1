"""Part: this node's part in a stream: it receives, lands and passes on, as it is told."""

import os
import threading
import time
from typing import Any, Callable, Dict, Optional

from ezpz.agent.common.errors import AgentError, from_os_error
from ezpz.agent.destination.deployment import Deployment
from ezpz.agent.stream import frames
from ezpz.agent.stream.chunk_buffer import ChunkBuffer
from ezpz.agent.stream.chunk_index import ChunkIndex
from ezpz.agent.stream.codec import Codec, keep_memory
from ezpz.agent.stream.connection import Connection, Listener
from ezpz.agent.stream.relay import Downstream, Say, Upstream
from ezpz.agent.stream.tree_writer import TreeWriter

TELL_EVERY = 0.25  # seconds between two reports of how far it is
ADVANCED_EVERY = 1.0  # seconds between two reports of progress that lands nothing
LOG = b"log"  # in staging


class StreamReceiver:
    """Opens with the listener; `join` once the destination is prepared; then `expect` a parent and `serve` children.

    say: sends an event to the root
    """

    def __init__(self, request: Dict[str, Any], address: str, control: Callable[[Connection], None], say: Say) -> None:
        self.name = str(request["name"])
        self.secret = bytes.fromhex(request["secret"])
        self.stall = float(request["stall"])
        self.say = say
        self.control = control
        keep_memory()
        self.codec = Codec()
        self.ring: "Optional[ChunkBuffer]" = None
        self.writer: "Optional[TreeWriter]" = None
        self.upstream: "Optional[Upstream]" = None
        self.children: "Dict[int, Downstream]" = {}
        self.repairs: "set[int]" = set()
        self.failure: "Optional[BaseException]" = None
        self.content = 0
        self._told = 0.0
        self._told_advanced = 0.0
        self._lock = threading.Lock()
        self.listener = Listener(address, self.secret, self._answer, self._arrived)

    def join(self, landing: Deployment) -> None:
        """Take part with a destination that is prepared. Raises OSError."""
        key = frames.derive(self.secret, "chunks")
        path = os.path.join(landing.staging, LOG)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        tree = os.open(landing.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        log = ChunkIndex(file, self.codec, key, self._read)
        self.ring = ChunkBuffer(log.again)
        self.writer = TreeWriter(
            tree, landing.open_standing(), log, self.codec, self._landed, self._failed, going_on=self.tell_advanced
        )
        self.upstream = Upstream(self.ring, key, self.stall, self.writer.put, self.say)

    def expect(self, request: Dict[str, Any]) -> None:
        """Somebody will dial and send what is missing, or these chunks again."""
        assert self.upstream is not None
        self.repairs = set(request["chunks"])
        self.upstream.expect(request["parent"], request["serial"], request["chunks"])

    def serve(self, request: Dict[str, Any]) -> None:
        """Send to a child."""
        assert self.ring is not None
        serial = int(request["serial"])
        self.children[serial] = Downstream(
            self.ring, self.secret, self.name, serial, request["to"], self.stall, self.say
        )

    def release(self, serial: int) -> None:
        """Stop sending to a child."""
        child = self.children.pop(serial, None)
        if child is not None:
            child.release()

    def land(self, going_on: Callable[[], None]) -> None:
        """Wait until all of it has landed and is what was sent; what is not is asked for again. Raises Refusal."""
        assert self.writer is not None

        def checking() -> None:
            going_on()
            self.tell_advanced()

        while True:
            self._wait(going_on)
            self.writer.finish(checking)
            damaged = self.writer.damaged(checking)
            if not damaged:
                self.say({"stream": "whole"})
                return
            self.writer.reopen()
            self.repairs = set(damaged)
            self.say({"stream": "damaged", "chunks": damaged})

    def tell_advanced(self) -> None:
        """Report progress that lands nothing, such as reading back; call it as often as there is some."""
        now = time.monotonic()
        with self._lock:
            telling = now - self._told_advanced > ADVANCED_EVERY
            if telling:
                self._told_advanced = now
        if telling:
            self.say({"stream": "advanced"})

    def close(self) -> None:
        """Let go of every connection and thread; afterwards nothing is written any more, unless a disk hangs."""
        self.listener.close()
        for child in list(self.children.values()):
            child.release()
        if self.ring is not None:
            self.ring.give_up()
        if self.upstream is not None:
            self.upstream.expect("", -1, [])
        if self.writer is not None:
            self.writer.stop()
            self.writer.join()

    def _wait(self, going_on: Callable[[], None]) -> None:
        ring = self.ring
        assert ring is not None
        while not (ring.is_landed and not self.repairs):
            going_on()
            if self.failure is not None:
                raise _refusal(self.failure)
            with ring.changed:
                ring.changed.wait(0.2)

    def _answer(self, facts: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        if facts.get("to") != self.name:
            return None
        if facts.get("role") == "control":
            return {"name": self.name}
        return None if self.upstream is None else self.upstream.answer(facts)

    def _arrived(self, link: Connection) -> None:
        if link.facts.get("role") == "control":
            link.limit(0)
            self.control(link)
        elif self.upstream is not None:
            self.upstream.receive(link)

    def _read(self, path: bytes, offset: int, length: int) -> bytes:
        assert self.writer is not None
        return self.writer.read(path, offset, length)

    def _landed(self, number: int, size: int) -> None:
        ring = self.ring
        assert ring is not None
        ring.land(number)
        with self._lock:
            self.content += 0 if number in self.repairs else size
            self.repairs.discard(number)
            now = time.monotonic()
            telling = now - self._told > TELL_EVERY or ring.is_landed
            if telling:
                self._told = now
        if telling:
            at = {"position": ring.next, "wire": ring.wire, "content": self.content, "time": now}
            self.say(dict(at, stream="at"))

    def _failed(self, error: BaseException) -> None:
        self.failure = error
        refusal = _refusal(error)
        self.say({"stream": "failed", "failure": refusal.as_dict()})
        if self.ring is not None:
            self.ring.give_up()


def _refusal(error: BaseException) -> AgentError:
    """What a failure while landing means to a user."""
    if isinstance(error, OSError):
        return from_os_error(error, "cannot land '{}'".format(_named(error)))
    return AgentError("verify-failed", "what arrived cannot be landed: {}".format(error), "run it again")


def _named(error: OSError) -> str:
    name = error.filename
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name or "the stream")
