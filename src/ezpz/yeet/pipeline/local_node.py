"""The launch host's part of a run: read the source once and, if this host is a node of the job, deploy it here."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.agent.common.errors import AgentError, from_os_error
from ezpz.agent.common.manifest import manifest_digest
from ezpz.agent.common.messages.parts import ExpectedTree, SmokeTest
from ezpz.agent.common.messages.receipt import Receipt
from ezpz.agent.common.messages.requests import PrepareRequest
from ezpz.agent.common.tree_version import Survey
from ezpz.agent.destination.deployment import Deployment
from ezpz.errors import EzpzError, by_code
from ezpz.yeet.engines.base import Payload
from ezpz.yeet.model.source import Kind
from ezpz.yeet.pipeline.replay import ReplayReader, feed_tree
from ezpz.yeet.source.changes import check_directories, check_files
from ezpz.yeet.transfer.previous_version import NO_PREVIOUS_VERSION, PreviousVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.agent.common.messages.answers import InstalledAnswer
    from ezpz.yeet.model.plan import Plan
    from ezpz.yeet.pipeline.read_source import SourceReader
    from ezpz.yeet.transfer.entry_tee import EntryTee
    from ezpz.yeet.transfer.manifest_builder import ManifestSummary


PRIVATE_PLACES = ("/var/tmp", "/dev/shm")  # noqa: S108 - tried in turn; staging is 0700


class LocalNode:
    """Prepares, reads and deploys on this host, then serves from `Payload.path` until it is closed.

    The calls block: they are meant for a thread.

    Args:
        plan: The plan of the run.
        reader: The reader of the source.
        cancel: Is canceled when the run is interrupted.
    """

    def __init__(self, plan: Plan, reader: SourceReader, cancel: CancelToken) -> None:
        self.plan = plan
        self.reader = reader
        self.cancel = cancel
        self.is_target = plan.allocation.local is not None
        self.deployment = self._deployment(plan.destination)
        self.is_unchanged = self.is_deployed = False
        self.published: dict[str, Any] = {}
        self._is_kept = True
        self._replays: list[ReplayReader] = []
        self._verified = Survey(0, 0, 0, "")
        self._comparing = threading.Lock()

    def prepare(self) -> None:
        """Check the destination on this host and take its lock, before anything is copied. Raise EzpzError."""
        if self.plan.in_place and not self._serves_in_place():  # this host keeps it as it is, the others get a copy
            self.is_unchanged = self.is_deployed = self.is_target
            self.prepare_elsewhere()
            return
        if not self.is_target:
            self.prepare_elsewhere()
            return
        with translate_agent_errors():
            if self.plan.in_place:
                self.deployment.lock.acquire()
                self.deployment.remove_failed_nodes()
            else:
                self.deployment.prepare(PrepareRequest.from_json(self.request))

    def prepare_elsewhere(self) -> None:
        """Leave the destination on this host alone and create private staging for the other nodes. Raise EzpzError."""
        self.deployment.close()
        self.is_target = False
        if self._serves_in_place():
            return
        failures: list[EzpzError] = []
        for parent in dict.fromkeys((tempfile.gettempdir(), *PRIVATE_PLACES)):
            self.deployment = self._deployment(os.path.join(parent, f"ezpz-origin-{self.plan.id}"))
            request = dict(self.request, executable=False, dst=os.fsdecode(self.deployment.dst))
            try:
                with translate_agent_errors():
                    self.deployment.prepare(PrepareRequest.from_json(request))
            except EzpzError as e:
                self.deployment.close()
                failures.append(e)
            else:
                return
        raise failures[0]

    def open_replay(self) -> ReplayReader:
        """Return a reader of what is about to be read, for content that has to be sent again. Raise EzpzError."""
        with translate_agent_errors():
            if self._serves_in_place():
                replay = ReplayReader(os.fsencode(self.plan.source.real), lambda: None)
            else:
                replay = ReplayReader(self.deployment.tree, self._restore)
        self._replays.append(replay)
        return replay

    def _restore(self) -> bytes | None:
        """Write the complete tree next to one that was not kept, and return its path. Return None if it was kept."""
        if self._is_kept:
            return None
        directory = os.path.join(self.deployment.staging, b"again")
        os.mkdir(directory, 0o700)
        self.reader.restore(directory)
        return directory

    def check_installed(self) -> InstalledAnswer:
        """Describe the installed version, see `ezpz.agent.destination.installed`. Raise EzpzError or `Cancelled`."""
        with translate_agent_errors():
            return self.deployment.check_installed()

    def accept_installed(self) -> None:
        """Accept the installed version as the result."""
        self.is_unchanged = self.is_deployed = True

    def installed_payload(self, receipt: Receipt) -> Payload:
        """Return the payload that all nodes already have, given the receipt of one of them."""
        facts = (receipt.version, receipt.files, receipt.bytes, receipt, False)
        return Payload("", self.plan.destination, *facts, self.reader.smoke_test)

    def read(self, tee: EntryTee, previous: PreviousVersion = NO_PREVIOUS_VERSION) -> Payload:
        """Read the source, relocate it, pass it to the tee and verify staging. Raise EzpzError or `Cancelled`.

        The tree is written to staging only if this host or an engine needs it.

        Args:
            tee: Where the entries go.
            previous: What an earlier run made of the same source.
        """
        with translate_agent_errors():
            if self._serves_in_place():
                return self._read_in_place(tee, previous)
            self._is_kept = tee.needs_tree or self.is_target or self.reader.needs_staging
            self.reader.fill(self.deployment.tree, tee, previous, is_kept=self._is_kept)
            summary = tee.end()
            for replay in self._replays:
                replay.ready.set()
            if not self._is_kept:
                return self._payload("", summary)
            self.deployment.write_manifest(summary.manifest)
            found = summary.survey
            facts = {"files": found.files, "bytes": found.bytes, "version": found.version, **self._expected()}
            trial = SmokeTest.from_json(self.reader.smoke_test) if self.is_target and self.reader.smoke_test else None
            self._verified = self.deployment.verify(ExpectedTree.from_json(facts), trial)
            return self._payload(os.fsdecode(self.deployment.tree), summary)

    def _read_in_place(self, tee: EntryTee, previous: PreviousVersion) -> Payload:
        """Pass the source itself to the tee."""
        scan = self.reader.contents.scan
        feed_tree(os.fsencode(self.plan.source.real), tee, self.cancel, scan, previous)
        check_directories(scan, self.cancel)
        payload = self._payload(self.plan.source.real, tee.end())
        return replace(payload, check_source=self._check_source)

    def publish(self, payload: Payload) -> Payload:
        """Publish what was read if this host is a target, and return the payload with the path it is served from."""
        if not self.is_target:
            return payload
        if self._serves_in_place():
            self.is_unchanged = self.is_deployed = True
            return payload
        with translate_agent_errors():
            self.is_unchanged = self.deployment.is_installed(payload.receipt)
            if not self.is_unchanged:
                receipt, executable = payload.receipt, payload.executable
                done = self.deployment.publish(self._verified, receipt, executable=executable)
                self.published = {"removed": done.removed, "replaced": done.replaced}
            self.is_deployed = True
        return replace(payload, path=self.plan.destination)

    def write_failed_nodes(self, names: tuple[str, ...]) -> str:
        """Write the list of failed nodes into the destination and return its path. Raise EzpzError."""
        with translate_agent_errors():
            return self.deployment.write_failed_nodes(names)

    def close(self) -> None:
        """Remove staging and release the lock. Later calls do nothing."""
        while self._replays:
            self._replays.pop().close()
        self.deployment.close()

    def _deployment(self, destination: str) -> Deployment:
        return Deployment(os.fsencode(destination), self.plan.id, self.cancel)

    def _serves_in_place(self) -> bool:
        """Return whether the source itself is sent: it is on a local disk and nothing in it has to change."""
        source, scan = self.plan.source, self.reader.contents.scan
        if self.plan.in_place:
            return not scan.followed and not scan.notices.counts.get("setuid")
        is_plain = source.node_local and source.kind in (Kind.DATA, Kind.TOOL)
        return not self.is_target and is_plain and not scan.left_out and not scan.altered

    def _check_source(self) -> None:
        """Raise SourceChanged if a source that is sent itself is no longer what was counted."""
        with self._comparing:
            check_files(self.reader.contents.scan, self.cancel)
            check_directories(self.reader.contents.scan, self.cancel)

    def _expected(self) -> dict[str, Any]:
        """Return what staging must hold according to the scan, with the bytecode that was made."""
        if self.plan.source.is_archive:
            return {}
        scan, relocation = self.reader.contents.scan, self.reader.recorder.relocation
        files = {"files": scan.files + self.reader.bytecode.added}
        return files if relocation.is_needed else {**files, "bytes": scan.size + scan.linked}

    def _payload(self, path: str, summary: ManifestSummary) -> Payload:
        reader, found = self.reader, summary.survey
        receipt = Receipt(
            source=self.plan.source.real,
            kind=reader.kind.value,
            ezpz=__version__,
            public=self.plan.request.public,
            relocation=reader.digest,
            origins=reader.origins,
            inputs=reader.inputs,
            interpreter=reader.base.interpreter,
            contents=summary.contents,
            manifest=manifest_digest(summary.manifest),
        )
        return Payload(
            path, self.plan.destination, found.version, found.files, found.bytes, receipt,
            reader.kind.is_environment, reader.smoke_test, summary.manifest,
        )  # fmt: skip

    @cached_property
    def request(self) -> dict[str, Any]:
        """The request of a deployment for this plan, see `Deployment.prepare`."""
        totals, source, contents = self.plan.totals, self.plan.source, self.reader.contents
        scans = (contents.scan, *contents.extra)
        made, made_bytes = contents.estimate_bytecode(self.plan.request.compile)
        return {
            "dst": self.plan.destination,
            "run": self.plan.id,
            "avoid": None if self.plan.in_place else source.real,
            "source": source.real,
            "bytes": totals.bytes + sum(scan.size for scan in contents.extra) + made_bytes,
            "allocated": totals.allocated + sum(scan.allocated for scan in contents.extra) + made_bytes,
            "files": (totals.files or 0) + (totals.directories or 0) + made
            + sum(scan.files + scan.directories for scan in contents.extra),
            "longest": max(scan.longest for scan in scans),
            "longest_name": max(scan.longest_name for scan in scans),
            "clash": os.fsdecode(contents.scan.clash),
            "executable": source.kind is not None and source.kind.is_environment,
            "replace": self.plan.request.replace,
            "public": self.plan.request.public,
        }  # fmt: skip


@contextmanager
def translate_agent_errors() -> Iterator[None]:
    """Raise the EzpzError for an AgentError or OSError of a deployment."""
    try:
        yield
    except EzpzError:
        raise
    except AgentError as e:
        raise by_code(e.code)(e.message, hint=e.hint) from e
    except OSError as e:
        refusal = from_os_error(e, f"cannot use '{e.filename or 'the local disk'}'")
        raise by_code(refusal.code)(refusal.message, hint=refusal.hint) from e
