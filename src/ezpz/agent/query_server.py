"""The smallest agent: it answers questions about what ezpz created on its node, over stdin and stdout.

A question to every node should cost little more than the way there: this agent imports, and the launch host sends, a
third of what an agent needs that takes part in a run.
"""

import json
import os
import queue
import sys
import threading
from typing import Any, Dict, Optional, Tuple

from .common import errors
from .common.cancel import Cancelled, CancelToken
from .common.messages import envelope, queries
from .common.messages.base import Message
from .common.wire_paths import ProtocolError

READY = "EZPZ-AGENT-READY"
VERSION = "{}.{}.{}".format(*sys.version_info[:3])
EXIT_TIMEOUT = 3.0  # seconds that the work in hand has to end once the channel has ended; cleaning up has no limit


class QueryServer:
    """Reads requests, one JSON object per line, and answers each with a result or an error.

    The method whose name is `do_` and the op carries a request out. Requests wait for each other. What carries them out
    is imported then: a node compiles what it imports, and all of it would nearly double the time to start.
    """

    immediate: "Tuple[str, ...]" = ("heartbeat",)  # ops that do not wait

    def __init__(self, channel: Any, replies: Any) -> None:
        """Take the two ends of a channel: a file to read from, and one to write to."""
        self.channel = channel
        self.replies = replies
        self.cancel = CancelToken()
        self.is_ending = threading.Event()
        self.pending: "queue.Queue[Optional[envelope.AgentRequest]]" = queue.Queue()
        self.writing = threading.Lock()

    def serve(self) -> None:
        """Answer until the channel ends."""
        threading.Thread(target=self.read_requests, args=(self.channel,), daemon=True).start()
        self.replies.write(b"\n")  # ends an incomplete line that a .bashrc has printed
        self.send_ready()
        try:
            while not self.cancel.is_cancelled:
                request = self.pending.get()
                if request is None:
                    break
                self.answer(request)
        finally:
            self.is_ending.set()
            self.close()

    def close(self) -> None:
        """Clean up once the channel has ended."""

    def read_requests(self, channel: Any) -> None:
        """Read requests until a channel ends, or what arrives is no request."""
        for line in iter(channel.readline, b""):
            try:
                header, fields = envelope.parse_line(line)
            except ProtocolError:
                break
            attached = channel.read(header.attached)
            if len(attached) != header.attached:
                break
            try:
                request = envelope.parse_request(header.op, fields, header.id, attached)
            except ProtocolError as e:
                self.send_error(header.id, errors.AgentError("error", "agent: {}".format(e)))
                continue
            if request.op in self.immediate:
                self.answer(request)
            else:
                self.pending.put(request)
        if self.channel is channel:
            self.leave()

    def leave(self) -> None:
        """End this process soon, whatever the work in hand is doing."""
        self.abandon()
        if not self.is_ending.wait(EXIT_TIMEOUT):
            os._exit(2)

    def abandon(self) -> None:
        """Cancel all work: the channel has ended, or a signal has come."""
        self.cancel.cancel()
        self.pending.put(None)

    def answer(self, request: envelope.AgentRequest) -> None:
        """Carry out a request, and send its result, or the error that it raises."""
        try:
            result: Message = getattr(self, "do_" + request.op)(request)
            self.send({"id": request.number, "result": result.to_json()})
        except Cancelled:
            return
        except errors.AgentError as e:
            self.send_error(request.number, e)
        except OSError as e:
            self.send_error(request.number, errors.from_os_error(e, request.op))
        except Exception as e:  # the boundary of this process: a bug becomes an answer
            self.send_error(request.number, errors.AgentError("error", "agent: {}: {}".format(type(e).__name__, e)))

    def send_ready(self) -> None:
        """Send the first line."""
        self.send(envelope.Ready(ready=READY, host=os.uname().nodename, python=VERSION).to_json())

    def send_error(self, number: int, error: errors.AgentError) -> None:
        """Send an error as the answer to a request."""
        self.send({"id": number, "error": error.as_dict()})

    def send(self, message: "Dict[str, Any]") -> None:
        """Send one line; cancel all work if it cannot be sent."""
        try:
            with self.writing:
                self.replies.write(json.dumps(message).encode() + b"\n")
                self.replies.flush()
        except OSError:
            self.abandon()

    def do_heartbeat(self, _request: queries.HeartbeatRequest) -> envelope.Done:
        """Answer, and nothing else."""
        return envelope.Done()

    def do_inventory(self, request: queries.InventoryRequest) -> queries.InventoryAnswer:
        """See `inventory.survey`."""
        from .destination import inventory

        return inventory.survey(request, self.cancel)

    def do_clear(self, request: queries.ClearRequest) -> queries.ClearAnswer:
        """See `removal.clear`."""
        from .destination import removal

        return removal.clear(request, self.cancel)

    def do_health_check(self, request: queries.HealthCheckRequest) -> queries.HealthCheckAnswer:
        """See `health_check.answer`."""
        from . import health_check

        return health_check.answer(request)


def open_replies() -> Any:
    """Return stdout for replies alone: from now on, what else this process prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def main() -> None:
    """Serve on the stdin and stdout of this process."""
    QueryServer(sys.stdin.buffer, open_replies()).serve()
    os._exit(0)
