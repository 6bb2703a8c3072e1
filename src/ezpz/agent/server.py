"""The agent that takes part in a run: it prepares, receives, forwards, verifies, and publishes one destination.

The channel is stdin and stdout, until someone who knows the secret of `listen` connects and takes over. When the
channel ends, the launch host is gone: all work is canceled, staging is removed, and the agent exits.

Modules are imported where they are needed, because each is compiled on every node.
"""

import gc
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Optional

from .common.errors import AgentError
from .common.messages import answers, envelope, queries, requests
from .destination import deployment, installed
from .query_server import QueryServer, open_replies

if TYPE_CHECKING:
    from .common.messages.events import Event
    from .common.messages.parts import PeerAddress
    from .stream.connection import Connection
    from .stream.receiver import StreamReceiver

HEARTBEAT_TIMEOUT = 10.0  # seconds without one, after the first, until the launch host counts as dead


class AgentServer(QueryServer):
    """Answers requests about one destination on this node."""

    immediate = ("heartbeat", "expect", "serve", "release", "start")

    def __init__(self, channel: Any, replies: Any) -> None:
        """Take the two ends of a channel: a file to read from, and one to write to."""
        super().__init__(channel, replies)
        self.deployment: Optional[deployment.Deployment] = None
        self.receiver: "Optional[StreamReceiver]" = None
        self.spawner: Any = None
        self.last_heartbeat = 0.0

    def close(self) -> None:
        """End what was started, and remove what was not published."""
        for each in (self.spawner, self.receiver, self.deployment):
            if each is not None:
                each.close()

    def take_over(self, found: "Connection") -> None:
        """Take requests from this connection from now on."""
        from .stream import connection

        channel = connection.MessageChannel(found, self._receiver().secret, outgoing="to root", incoming="from root")
        with self.writing:
            self.channel = self.replies = channel
        self.send_ready()
        self.read_requests(channel)

    def emit(self, event: "Event") -> None:
        """Send an event that belongs to no request."""
        self.send({"event": event.to_json()})

    def _deployment(self) -> deployment.Deployment:
        if self.deployment is None:
            raise AgentError("error", "agent: nothing was prepared")
        return self.deployment

    def _receiver(self) -> "StreamReceiver":
        if self.receiver is None:
            raise AgentError("error", "agent: nobody listens")
        return self.receiver

    def do_heartbeat(self, _request: queries.HeartbeatRequest) -> envelope.Done:
        """Note that the launch host is alive; from now on, a missing heartbeat means that it is not."""
        first, self.last_heartbeat = not self.last_heartbeat, time.monotonic()
        if first:
            threading.Thread(target=self._watch_heartbeats, daemon=True).start()
        return envelope.Done()

    def _watch_heartbeats(self) -> None:
        while time.monotonic() - self.last_heartbeat < HEARTBEAT_TIMEOUT:
            time.sleep(1.0)
        self.leave()

    def do_capabilities(self, _request: requests.CapabilitiesRequest) -> answers.CapabilitiesAnswer:
        """Return what the rsync of this node can do."""
        import shutil

        from . import run_rsync

        return answers.CapabilitiesAnswer(zstd=run_rsync.knows_zstd(), rsync=shutil.which("rsync") is not None)

    def do_prepare(self, request: requests.PrepareRequest) -> answers.PrepareAnswer:
        """See `Deployment.prepare`."""
        self.deployment = deployment.Deployment(os.fsencode(request.dst), request.run, self.cancel)
        return self.deployment.prepare(request)

    def do_interpreter(self, request: requests.InterpreterRequest) -> answers.InterpreterAnswer:
        """See `smoke_test.has_python`."""
        from .destination import smoke_test

        return smoke_test.has_python(request, self.cancel)

    def do_pull(self, request: requests.PullRequest) -> answers.PullAnswer:
        """Run an rsync, and report how far it is."""
        from . import run_rsync
        from .common.messages.events import ProgressEvent

        cancel = self._deployment().cancel

        def progress(size: int) -> None:
            self.send({"id": request.number, "event": ProgressEvent(bytes=size).to_json()})

        return run_rsync.run_rsync(request.argv, request.seconds, cancel, progress)

    def do_installed(self, request: requests.InstalledRequest) -> answers.InstalledAnswer:
        """See `Deployment.check_installed`."""
        return self._deployment().check_installed(request.seen)

    def do_adopt(self, request: requests.AdoptRequest) -> answers.AdoptAnswer:
        """See `Deployment.adopt`."""
        return answers.AdoptAnswer(files=self._deployment().adopt(request.attached))

    def do_manifest(self, request: requests.ManifestRequest) -> answers.ManifestAnswer:
        """See `installed.read_manifest`."""
        return installed.read_manifest(os.fsencode(request.dst), request.offset)

    def do_listen(self, request: requests.ListeningRequest) -> "PeerAddress":
        """Open the listener, and return where it is."""
        from . import spawner
        from .stream import receiver

        name, address = spawner.own_address(request)
        self.receiver = receiver.StreamReceiver(request, name, address, self.take_over, self.emit)
        return self.receiver.where

    def do_start(self, request: requests.StartRequest) -> envelope.Done:
        """See `AgentSpawner.start`."""
        from . import spawner

        if self.spawner is None:
            self.spawner = spawner.AgentSpawner(self.emit)
        self.spawner.start(request.agents)
        return envelope.Done()

    def do_join(self, _request: requests.JoinRequest) -> envelope.Done:
        """See `StreamReceiver.join`."""
        self._receiver().join(self._deployment())
        return envelope.Done()

    def do_expect(self, request: requests.ExpectRequest) -> envelope.Done:
        """See `StreamReceiver.expect`."""
        self._receiver().expect(request)
        return envelope.Done()

    def do_serve(self, request: requests.ServeRequest) -> envelope.Done:
        """See `StreamReceiver.serve`."""
        self._receiver().serve(request)
        return envelope.Done()

    def do_release(self, request: requests.ReleaseRequest) -> envelope.Done:
        """See `StreamReceiver.release`."""
        self._receiver().release(request.serial)
        return envelope.Done()

    def do_publish(self, request: requests.PublishRequest) -> answers.PublishAnswer:
        """Wait for the end of the stream, if there is one, then verify and publish."""
        landed = self._deployment()
        if request.streamed:
            self._receiver().wait_until_written(landed.cancel)
            landed.report_progress = self._receiver().report_advanced
        if landed.is_installed(request.receipt):
            return answers.PublishAnswer(unchanged=True)
        found = landed.verify(request.expected, request.trial)
        return landed.publish(found, request.receipt, executable=request.executable)

    def do_note(self, request: requests.NoteRequest) -> answers.NoteAnswer:
        """See `Deployment.note_failed_nodes`."""
        return answers.NoteAnswer(path=self._deployment().write_failed_nodes(request.names))

    def do_look(self, request: requests.LookRequest) -> answers.LookAnswer:
        """See `installed.describe`."""
        return answers.LookAnswer(standing=installed.describe(os.fsencode(request.dst)))

    def do_leaks(self, request: requests.LeaksRequest) -> answers.LeaksAnswer:
        """See `leaks.find_leaks`."""
        from .destination import leaks

        return leaks.find_leaks(request, self.cancel)


def main() -> None:
    """Serve on the stdin and stdout of this process."""
    agent = AgentServer(sys.stdin.buffer, open_replies())
    gc.set_threshold(50_000)  # there are many lists of entries, which refer to nothing: looking at them is in vain
    for number in (signal.SIGTERM, signal.SIGHUP):
        # a thread, because a handler that takes the queue's lock can meet itself holding it
        signal.signal(number, lambda *_: threading.Thread(target=agent.leave, daemon=True).start())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    agent.serve()
    os._exit(0)
