"""The agent's loop: one JSON request a line on stdin, events and one answer a line on stdout, until stdin ends.

Request: {"id": int, "op": str, ...}.
Answers: {"id", "event": {...}} any number of times, then {"id", "result": {...}} or {"id", "error": {...}}.
When stdin ends, whoever asked is gone: what runs is ended, staging is removed, and so is the agent.
"""

import json
import os
import platform
import queue
import signal
import socket
import sys
import threading
from typing import Any, BinaryIO, Dict, Optional

from . import landing, leaks, refusal, smoke, transfer

READY = "EZPZ-AGENT-READY"
FAREWELL = 3.0  # seconds that the work in hand has to end once nobody listens


class Agent:
    """Answers requests about one destination on this host."""

    def __init__(self, answers: BinaryIO) -> None:
        self.answers = answers
        self.landing: Optional[landing.Landing] = None
        self.requests: "queue.Queue[Optional[Dict[str, Any]]]" = queue.Queue()
        self.gone = threading.Event()

    def serve(self, requests: BinaryIO) -> None:
        """Answer until `requests` ends."""
        threading.Thread(target=self._listen, args=(requests,), daemon=True).start()
        self.answers.write(b"\n")  # ends whatever a chatty .bashrc left unfinished
        self._say({"ready": READY, "host": socket.gethostname(), "python": platform.python_version()})
        try:
            while not self.gone.is_set():
                request = self.requests.get()
                if request is None:
                    break
                self._answer(request)
        finally:
            if self.landing is not None:
                self.landing.close()

    def abandon(self) -> None:
        """Let go of everything: called when stdin ends, when nobody reads the answers, and on SIGTERM or SIGHUP."""
        self.gone.set()
        if self.landing is not None:
            self.landing.abandoned.set()
        self.requests.put(None)

    def _listen(self, requests: BinaryIO) -> None:
        for line in iter(requests.readline, b""):
            request = json.loads(line.decode("utf-8"))
            ballast = int(request.get("ballast", 0))  # bytes that follow, sent only to see how fast they come
            if len(requests.read(ballast)) == ballast:
                self.requests.put(request)
        self.leave()

    def leave(self) -> None:
        """End this process soon, whatever the work in hand is doing."""
        self.abandon()
        threading.Event().wait(FAREWELL)
        os._exit(1)

    def _answer(self, request: Dict[str, Any]) -> None:
        number = request["id"]
        try:
            result = getattr(self, "do_" + request["op"])(request)
            self._say({"id": number, "result": result})
        except landing.Abandoned:
            return
        except refusal.Refusal as e:
            self._say({"id": number, "error": e.as_dict()})
        except OSError as e:
            self._say({"id": number, "error": refusal.from_os_error(e, request["op"]).as_dict()})
        except Exception as e:  # the boundary of this process: a bug becomes an answer
            self._say(
                {
                    "id": number,
                    "error": {"code": "error", "message": "agent: {}: {}".format(type(e).__name__, e), "hint": ""},
                }
            )

    def _say(self, message: Dict[str, Any]) -> None:
        try:
            self.answers.write(json.dumps(message).encode() + b"\n")
            self.answers.flush()
        except OSError:
            self.abandon()

    def _landed(self) -> landing.Landing:
        if self.landing is None:
            raise refusal.Refusal("error", "agent: nothing was prepared")
        return self.landing

    def do_weigh(self, _request: Dict[str, Any]) -> Dict[str, Any]:
        return {"zstd": transfer.knows_zstd()}

    def do_prepare(self, request: Dict[str, Any]) -> Dict[str, Any]:
        self.landing = landing.Landing(os.fsencode(request["dst"]), request["run"])
        return self.landing.prepare(request)

    def do_interpreter(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return smoke.has_python(request, self._check_on)

    def do_pull(self, request: Dict[str, Any]) -> Dict[str, Any]:
        landed = self._landed()

        def progress(size: int) -> None:
            self._say({"id": request["id"], "event": {"bytes": size}})

        return transfer.run_rsync(request["argv"], float(request["seconds"]), landed.check_on, progress)

    def do_keep(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return {"kept": self._landed().keep(request["version"], request["made_of"])}

    def do_publish(self, request: Dict[str, Any]) -> Dict[str, Any]:
        landed = self._landed()
        found = landed.verify(request["expected"], request.get("trial"))
        return landed.publish(found, request["receipt"], executable=bool(request["executable"]))

    def do_note(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return {"path": self._landed().note_failed_nodes(request["names"])}

    def do_look(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return {"standing": landing.look(os.fsencode(request["dst"]))}

    def do_leaks(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return leaks.find_leaks(os.fsencode(request["dst"]), request, self._check_on)

    def _check_on(self) -> None:
        if self.gone.is_set():
            raise landing.Abandoned


def main() -> None:
    """Serve on this process's own stdin and stdout; whatever else prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    agent = Agent(answers)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # a thread, because a handler that takes the queue's lock can meet itself holding it
        signal.signal(number, lambda *_: threading.Thread(target=agent.leave, daemon=True).start())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    agent.serve(sys.stdin.buffer)
    os._exit(0)
