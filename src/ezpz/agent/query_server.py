"""Attend: the smallest agent: it answers questions about what is on its host, over stdin and stdout, like `serve`.

It exists because a question to every node should cost little more than the way there: it imports, and its launching
host sends, a third of what an agent that takes part in a run needs.
"""

import json
import os
import sys
import threading
from typing import Any, Dict

from ezpz.agent.common import errors
from ezpz.agent.common.cancel import Cancelled, CancelToken

READY = "EZPZ-AGENT-READY"


class QueryServer:
    """Answers one question after the other, each in a thread, while pings are answered at once."""

    def __init__(self, answers: Any) -> None:
        self.answers = answers
        self.cancel = CancelToken()
        self._saying = threading.Lock()
        self._answering = threading.Lock()

    def attend(self, requests: Any) -> None:
        """Answer until the line ends, then end what is being done."""
        self.say({"ready": READY})
        for line in iter(requests.readline, b""):
            request = json.loads(line.decode("utf-8"))
            if request["op"] == "ping":
                self.say({"id": request["id"], "result": {}})
            else:
                threading.Thread(target=self.answer, args=(request,)).start()
        self.cancel.cancel()

    def answer(self, request: Dict[str, Any]) -> None:
        number = request["id"]
        with self._answering:
            try:
                self.say({"id": number, "result": answer(request, self.cancel.raise_if_cancelled)})
            except Cancelled:
                return
            except errors.AgentError as e:
                self.say({"id": number, "error": e.as_dict()})
            except OSError as e:
                self.say({"id": number, "error": errors.from_os_error(e, request["what"]).as_dict()})
            except Exception as e:  # the boundary of this process: a bug becomes an answer
                message = "agent: {}: {}".format(type(e).__name__, e)
                self.say({"id": number, "error": {"code": "error", "message": message, "hint": ""}})

    def say(self, message: Dict[str, Any]) -> None:
        try:
            with self._saying:
                self.answers.write(json.dumps(message).encode() + b"\n")
                self.answers.flush()
        except OSError:
            self.cancel.cancel()


def answer(request: Dict[str, Any], going_on: Any) -> Dict[str, Any]:
    """Return the answer to a request about this host: `what` is "survey", "clear", or "health_check"."""
    if request["what"] == "survey":
        from ezpz.agent.destination import inventory

        return inventory.survey(request, going_on)
    if request["what"] == "health_check":
        from ezpz.agent import health_check

        return health_check.answer(request)
    from ezpz.agent.destination import removal

    return removal.clear(request, going_on)


def main() -> None:
    """Attend to this process's own stdin and stdout; whatever else prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(b"\n")  # ends whatever a chatty .bashrc left unfinished
    QueryServer(answers).attend(sys.stdin.buffer)
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()
    os._exit(0)
