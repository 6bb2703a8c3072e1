"""The agent's loop: one JSON request a line, events and one answer a line back, until the line ends or falls silent.

Request: {"id": int, "op": str, ...}.
Answers: {"id", "event": {...}} any number of times, then {"id", "result": {...}} or {"id", "error": {...}}; without an
id, what happens to a stream. The line is stdin and stdout, until somebody who knows the secret of `listen` connects and
takes over. When it ends, whoever asked is gone: what runs is ended, staging is removed, and so is the agent.

Modules are imported where they are needed, because each is compiled on every node.
"""

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Optional

from ezpz.agent.common import errors
from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.agent.destination import deployment, installed

if TYPE_CHECKING:
    from ezpz.agent.stream.connection import Connection
    from ezpz.agent.stream.receiver import StreamReceiver

READY = "EZPZ-AGENT-READY"
VERSION = "{}.{}.{}".format(*sys.version_info[:3])
AT_ONCE = ("ping", "expect", "serve", "release", "start")  # also while something else is being done
HEARTBEAT_TIMEOUT = 10.0  # seconds without a word, once there was a ping, after which whoever asked is taken for dead
FAREWELL = 3.0  # seconds that the work in hand has to end once nobody listens; tidying up takes what it takes


class AgentServer:
    """Answers requests about one destination on this host."""

    def __init__(self, requests: Any, answers: Any) -> None:
        self.line = requests
        self.answers = answers
        self.landing: Optional[deployment.Deployment] = None
        self.part: "Optional[StreamReceiver]" = None
        self.starter: Any = None
        self.requests: "queue.Queue[Optional[Dict[str, Any]]]" = queue.Queue()
        self.cancel = CancelToken()
        self.tidying = threading.Event()
        self.heard = 0.0  # when there was a ping
        self._saying = threading.Lock()

    def serve(self) -> None:
        """Answer until the line ends."""
        threading.Thread(target=self._listen, args=(self.line,), daemon=True).start()
        self.answers.write(b"\n")  # ends whatever a chatty .bashrc left unfinished
        self._say({"ready": READY, "host": os.uname().nodename, "python": VERSION})
        try:
            while not self.cancel.is_cancelled:
                request = self.requests.get()
                if request is None:
                    break
                self._answer(request)
        finally:
            self.tidying.set()
            if self.starter is not None:
                self.starter.close()
            if self.part is not None:
                self.part.close()
            if self.landing is not None:
                self.landing.close()

    def abandon(self) -> None:
        """Let go of everything: called when stdin ends, when nobody reads the answers, and on SIGTERM or SIGHUP."""
        self.cancel.cancel()
        self.requests.put(None)

    def _listen(self, line: Any) -> None:
        for text in iter(line.readline, b""):
            request = json.loads(text.decode("utf-8"))
            size = int(request.get("attached", 0))  # bytes that follow
            request["attached"] = line.read(size)
            if len(request["attached"]) != size:
                break
            if request["op"] in AT_ONCE:
                self._answer(request)
            else:
                self.requests.put(request)
        if self.line is line:
            self.leave()

    def do_ping(self, _request: Dict[str, Any]) -> Dict[str, Any]:
        """Whoever asked is alive; from now on a silence means that it is not."""
        first, self.heard = not self.heard, time.monotonic()
        if first:
            threading.Thread(target=self._watch, daemon=True).start()
        return {}

    def _watch(self) -> None:
        while time.monotonic() - self.heard < HEARTBEAT_TIMEOUT:
            time.sleep(1.0)
        self.leave()

    def take_over(self, found: "Connection") -> None:
        """From now on, requests come over this connection."""
        from ezpz.agent.stream import connection

        assert self.part is not None
        line = connection.MessageChannel(found, self.part.secret, outgoing="to root", incoming="from root")
        with self._saying:
            self.line = self.answers = line
        self._say({"ready": READY, "host": os.uname().nodename, "python": VERSION})
        self._listen(line)

    def leave(self) -> None:
        """End this process soon, whatever the work in hand is doing."""
        self.abandon()
        if not self.tidying.wait(FAREWELL):
            os._exit(2)

    def _answer(self, request: Dict[str, Any]) -> None:
        number = request["id"]
        try:
            result = getattr(self, "do_" + request["op"])(request)
            self._say({"id": number, "result": result})
        except Cancelled:
            return
        except errors.AgentError as e:
            self._say({"id": number, "error": e.as_dict()})
        except OSError as e:
            self._say({"id": number, "error": errors.from_os_error(e, request["op"]).as_dict()})
        except Exception as e:  # the boundary of this process: a bug becomes an answer
            self._say(
                {
                    "id": number,
                    "error": {"code": "error", "message": "agent: {}: {}".format(type(e).__name__, e), "hint": ""},
                }
            )

    def _say(self, message: Dict[str, Any]) -> None:
        try:
            with self._saying:
                self.answers.write(json.dumps(message).encode() + b"\n")
                self.answers.flush()
        except OSError:
            self.abandon()

    def _tell(self, event: Dict[str, Any]) -> None:
        self._say({"event": event})

    def _landed(self) -> deployment.Deployment:
        if self.landing is None:
            raise errors.AgentError("error", "agent: nothing was prepared")
        return self.landing

    def _part(self) -> "StreamReceiver":
        if self.part is None:
            raise errors.AgentError("error", "agent: nobody listens")
        return self.part

    def do_weigh(self, _request: Dict[str, Any]) -> Dict[str, Any]:
        import shutil

        from ezpz.agent import run_rsync

        return {"zstd": run_rsync.knows_zstd(), "rsync": shutil.which("rsync") is not None}

    def do_prepare(self, request: Dict[str, Any]) -> Dict[str, Any]:
        self.landing = deployment.Deployment(os.fsencode(request["dst"]), request["run"], self.cancel)
        return self.landing.prepare(request)

    def do_interpreter(self, request: Dict[str, Any]) -> Dict[str, Any]:
        from ezpz.agent.destination import smoke_test

        return smoke_test.has_python(request, self.cancel.raise_if_cancelled)

    def do_pull(self, request: Dict[str, Any]) -> Dict[str, Any]:
        from ezpz.agent import run_rsync

        landed = self._landed()

        def progress(size: int) -> None:
            self._say({"id": request["id"], "event": {"bytes": size}})

        return run_rsync.run_rsync(request["argv"], float(request["seconds"]), landed.check_on, progress)

    def do_stock(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return self._landed().take_stock(request.get("seen", ()))

    def do_adopt(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return {"files": self._landed().adopt(request["attached"])}

    def do_manifest(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return installed.read_manifest(os.fsencode(request["dst"]), request["offset"])

    def do_listen(self, request: Dict[str, Any]) -> Dict[str, Any]:
        from ezpz.agent import spawner
        from ezpz.agent.stream import receiver

        request = spawner.own_part(request)
        address = spawner.own_address(request)
        self.part = receiver.StreamReceiver(request, address, self.take_over, self._tell)
        return {
            "name": self.part.name,
            "address": address,
            "port": self.part.listener.port,
            "codec": self.part.codec.best,
        }

    def do_start(self, request: Dict[str, Any]) -> Dict[str, Any]:
        from ezpz.agent import spawner

        if self.starter is None:
            self.starter = spawner.AgentSpawner(self._tell)
        self.starter.start(request)
        return {}

    def do_join(self, _request: Dict[str, Any]) -> Dict[str, Any]:
        self._part().join(self._landed())
        return {}

    def do_expect(self, request: Dict[str, Any]) -> Dict[str, Any]:
        self._part().expect(request)
        return {}

    def do_serve(self, request: Dict[str, Any]) -> Dict[str, Any]:
        self._part().serve(request)
        return {}

    def do_release(self, request: Dict[str, Any]) -> Dict[str, Any]:
        self._part().release(int(request["serial"]))
        return {}

    def do_publish(self, request: Dict[str, Any]) -> Dict[str, Any]:
        landed = self._landed()
        if request.get("streamed"):
            self._part().land(landed.check_on)
            landed.advanced = self._part().tell_advanced
        if landed.has(request["receipt"]):
            return {"unchanged": True}
        found = landed.verify(request["expected"], request.get("trial"))
        return landed.publish(found, request["receipt"], executable=bool(request["executable"]))

    def do_note(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return {"path": self._landed().note_failed_nodes(request["names"])}

    def do_look(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return {"standing": installed.describe(os.fsencode(request["dst"]))}

    def do_estate(self, request: Dict[str, Any]) -> Dict[str, Any]:
        from ezpz.agent import query_server

        return query_server.answer(request, self.cancel.raise_if_cancelled)

    def do_leaks(self, request: Dict[str, Any]) -> Dict[str, Any]:
        from ezpz.agent.destination import leaks

        return leaks.find_leaks(os.fsencode(request["dst"]), request, self.cancel.raise_if_cancelled)


def main() -> None:
    """Serve on this process's own stdin and stdout; whatever else prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    agent = AgentServer(sys.stdin.buffer, answers)
    gc.set_threshold(50_000)  # lists of entries refer to nothing, and are many: by default they are looked at in vain
    for number in (signal.SIGTERM, signal.SIGHUP):
        # a thread, because a handler that takes the queue's lock can meet itself holding it
        signal.signal(number, lambda *_: threading.Thread(target=agent.leave, daemon=True).start())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    agent.serve()
    os._exit(0)
