"""Starter: start-up is a tree too: an agent starts agents on other nodes, and says where they listen."""

import json
import os
import socket
import subprocess
import threading
from typing import Any, Callable, Dict, List

from ezpz.agent.common.processes import end_group

STDERR_KEPT = 4096  # bytes


class AgentSpawner:
    """Runs one process for each node that is started from here, until `close`."""

    def __init__(self, tell: Callable[[Dict[str, Any]], None]) -> None:
        self.tell = tell
        self.processes: "List[subprocess.Popen[bytes]]" = []

    def start(self, request: Dict[str, Any]) -> None:
        """Start an agent by each of these command lines; each says on stdout where it listens, which is told.

        request: agents, a list of {"name", "argv", "feed" (what it gets on stdin, after the program itself)}
        """
        program = getattr(__import__("__main__"), "program", b"")
        for agent in request["agents"]:
            feed = b"\n%d\n" % len(program) + program + agent["feed"].encode()
            threading.Thread(target=self._start, args=(agent["name"], agent["argv"], feed), daemon=True).start()

    def _start(self, name: str, argv: List[str], feed: bytes) -> None:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as e:
            self.tell({"started": name, "status": 127, "stderr": str(e)})
            return
        self.processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(feed)
            process.stdin.flush()
        except OSError:
            pass  # what it says on stderr tells why
        for line in iter(process.stdout.readline, b""):
            where = result_in(line)
            if where:
                self.tell({"started": name, "where": where})
                return
        stderr = process.stderr.read()[-STDERR_KEPT:].decode("utf-8", "replace")
        self.tell({"started": name, "status": process.wait(), "stderr": stderr})

    def close(self) -> None:
        """End the processes; the agents at their far ends live on a connection of their own."""
        for process in self.processes:
            end_group(process)


def result_in(line: bytes) -> Dict[str, Any]:
    """The answer to `listen` in a line that an agent, or a chatty .bashrc, has printed; nothing in any other."""
    try:
        said = json.loads(line.decode("utf-8", "replace"))
    except ValueError:
        return {}
    found = said.get("result") if isinstance(said, dict) else None
    return found if isinstance(found, dict) and "port" in found else {}


def own_part(request: Dict[str, Any]) -> Dict[str, Any]:
    """What of a request that all nodes got alike is for this one: the entry of `names` that this host goes by."""
    names = request.get("names")
    if not names:
        return request
    known = (os.environ.get("SLURMD_NODENAME", ""), socket.gethostname(), socket.gethostname().partition(".")[0])
    name = next((name for name in known if name in names), None)
    if name is None:
        raise OSError("this host, {}, is none of the nodes that are wanted".format(known[1]))
    return dict(request, name=name, address=names[name])


def own_address(request: Dict[str, Any]) -> str:
    """The one address to listen on: the loopback when all goes through ssh, else the one by which we were reached."""
    if request.get("private"):
        return "127.0.0.1"
    reached = os.environ.get("SSH_CONNECTION", "").split()
    if len(reached) == 4 and "names" not in request:  # srun passes on the variables of the shell that called it
        return reached[2]
    return str(socket.getaddrinfo(request["address"], None, type=socket.SOCK_STREAM)[0][4][0])
