"""Start agents on other nodes: start-up is a tree too."""

import json
import os
import socket
import subprocess
import threading
from typing import Callable, List, Optional, Sequence, Tuple

from .common.messages.events import Event, StartedEvent
from .common.messages.parts import PeerAddress, RemoteAgent
from .common.messages.requests import ListeningRequest
from .common.processes import end_group
from .common.wire_paths import ProtocolError

STDERR_KEPT = 4096  # bytes


class AgentSpawner:
    """Runs one process for each node that is started from here, until `close`."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        """Take what sends events to the launch host."""
        self.emit = emit
        self.processes: "List[subprocess.Popen[bytes]]" = []

    def start(self, agents: Sequence[RemoteAgent]) -> None:
        """Start agents; an event reports where each listens, or why it does not."""
        program = getattr(__import__("__main__"), "program", b"")
        for agent in agents:
            feed = b"\n%d\n" % len(program) + program + agent.feed.encode()
            threading.Thread(target=self._start, args=(agent.name, agent.argv, feed), daemon=True).start()

    def _start(self, name: str, argv: Sequence[str], feed: bytes) -> None:
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(list(argv), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        except OSError as e:
            self.emit(StartedEvent(started=name, status=127, stderr=str(e)))
            return
        self.processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(feed)
            process.stdin.flush()
        except OSError:
            pass  # stderr says why
        for line in iter(process.stdout.readline, b""):
            where = parse_address(line)
            if where is not None:
                self.emit(StartedEvent(started=name, where=where))
                return
        stderr = process.stderr.read()[-STDERR_KEPT:].decode("utf-8", "replace")
        self.emit(StartedEvent(started=name, status=process.wait(), stderr=stderr))

    def close(self) -> None:
        """End the processes; the agents at their far ends have connections of their own."""
        for process in self.processes:
            end_group(process)


def parse_address(line: bytes) -> Optional[PeerAddress]:
    """Return the answer to `listen` from a line that an agent has printed; None for any other, as of a .bashrc."""
    try:
        said = json.loads(line.decode("utf-8", "replace"))
        return PeerAddress.from_json(said.get("result") if isinstance(said, dict) else None)
    except (ValueError, RecursionError, ProtocolError):
        return None


def own_address(request: ListeningRequest) -> Tuple[str, str]:
    """Return the name of this node, and the one address to listen on. Raise OSError.

    The address is the loopback if everything goes through ssh, else the one by which this node was reached.
    """
    name, address = request.name, request.address
    if request.names:
        known = (os.environ.get("SLURMD_NODENAME", ""), socket.gethostname(), socket.gethostname().partition(".")[0])
        own = next((each for each in known if each in request.names), None)
        if own is None:
            raise OSError("this host, {}, is none of the nodes that are wanted".format(known[1]))
        name, address = own, request.names[own]
    if request.private:
        return name, "127.0.0.1"
    reached = os.environ.get("SSH_CONNECTION", "").split()
    if len(reached) == 4 and not request.names:  # srun passes on the variables of the shell that called it
        return name, reached[2]
    return name, str(socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][4][0])
