"""Here: the launching host's part of a yeet: read the source once and, if this is a node of the job, land it."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.agent.common.errors import AgentError, from_os_error
from ezpz.agent.common.manifest import manifest_digest
from ezpz.agent.common.messages.parts import ExpectedTree, SmokeTest
from ezpz.agent.common.messages.requests import PrepareRequest
from ezpz.agent.destination.deployment import Deployment
from ezpz.errors import EzpzError, by_code
from ezpz.yeet.engines.base import Payload
from ezpz.yeet.model.source import Kind
from ezpz.yeet.pipeline.fingerprint import PUBLIC
from ezpz.yeet.pipeline.replay import ReplayReader, feed_tree
from ezpz.yeet.source.changes import refuse_changed, refuse_changed_files

if TYPE_CHECKING:
    from ezpz.agent.common.cancel import CancelToken
    from ezpz.agent.common.messages.answers import InstalledAnswer
    from ezpz.yeet.model.plan import Plan
    from ezpz.yeet.pipeline.read_source import SourceReader
    from ezpz.yeet.transfer.entry_tee import EntryTee, ManifestSummary
    from ezpz.yeet.transfer.previous_version import PreviousVersion


PRIVATE_PLACES = ("/var/tmp", "/dev/shm")  # noqa: S108 - tried in turn; staging is 0700


class LocalNode:
    """Prepare, read, land; then serve from `shipment.path` until closed. Blocking: meant for a thread of its own.

    cancel: cancelled when the run is interrupted
    """

    def __init__(self, plan: Plan, reading: SourceReader, cancel: CancelToken) -> None:
        self.plan = plan
        self.reading = reading
        self.cancel = cancel
        self.is_target = plan.allocation.local is not None
        self.landing = self._landing(plan.destination)
        self.unchanged = self.landed = False
        self.is_kept = True
        self.again: ReplayReader | None = None
        self.published: dict[str, Any] = {}
        self.comparing = threading.Lock()

    def prepare(self) -> None:
        """Check the destination here and take its lock, before anything moves. Raises EzpzError."""
        if self.plan.in_place and not self._serves_in_place():  # it stays here as it is, and the others get it whole
            self.unchanged = self.landed = self.is_target
            self.prepare_elsewhere()
            return
        if not self.is_target:
            self.prepare_elsewhere()
            return
        with _as_ezpz_errors():
            if self.plan.in_place:
                self.landing.lock.acquire()
                self.landing.remove_failed_nodes()
            else:
                self.landing.prepare(PrepareRequest.from_json(self.request))

    def prepare_elsewhere(self) -> None:
        """Leave the destination on this host alone and stage privately, to serve the others from. Raises EzpzError."""
        self.landing.close()
        self.is_target = False
        if self._serves_in_place():
            return
        refusal: EzpzError | None = None
        for folder in dict.fromkeys((tempfile.gettempdir(), *PRIVATE_PLACES)):
            self.landing = self._landing(os.path.join(folder, f"ezpz-origin-{self.plan.id}"))
            request = dict(self.request, executable=False, dst=os.fsdecode(self.landing.dst))
            try:
                with _as_ezpz_errors():
                    self.landing.prepare(PrepareRequest.from_json(request))
            except EzpzError as e:
                self.landing.close()
                refusal = refusal or e
            else:
                return
        assert refusal is not None
        raise refusal

    def begin(self) -> ReplayReader:
        """What makes it possible to send something once more while, and after, it is read. Raises EzpzError."""
        with _as_ezpz_errors():
            if self._serves_in_place():
                self.again = ReplayReader(os.fsencode(self.plan.source.real), lambda: None)
            else:
                self.again = ReplayReader(self.landing.tree, self._restored)
        return self.again

    def _restored(self) -> bytes | None:
        """A whole tree beside the one that was not kept."""
        if self.reading.restore is None or self.is_kept:
            return None
        folder = os.path.join(self.landing.staging, b"again")
        os.mkdir(folder, 0o700)
        self.reading.restore(folder)
        return folder

    def take_stock(self) -> InstalledAnswer:
        """What this host has of a version in place; see `Deployment.check_installed`. Raises EzpzError or Cancelled."""
        with _as_ezpz_errors():
            return self.landing.check_installed()

    def keep(self) -> None:
        """What stands here is all of it already."""
        self.unchanged = self.landed = True

    def standing(self, receipt: dict[str, Any]) -> Payload:
        """What all nodes have already, given the receipt of one of them."""
        facts = (receipt["version"], receipt["files"], receipt["bytes"], receipt)
        return Payload("", self.plan.destination, *facts, executable=False, trial=self.reading.trial)

    def read(self, intake: EntryTee, known: PreviousVersion | None = None) -> Payload:
        """Fill staging, or the intake, or both, relocated and verified; what it is. Raises EzpzError or Cancelled.

        This host's own copy is one more place where it goes, and is left out when nobody wants it.
        known: what an earlier run made of the same
        """
        with _as_ezpz_errors():
            if self._serves_in_place():
                real = os.fsencode(self.plan.source.real)
                feed_tree(real, intake, self.cancel, self.reading.contents.scan, known)
                refuse_changed(self.reading.contents.scan, self.cancel)
                shipment = self._shipment(self.plan.source.real, intake.end())
                return replace(shipment, refuse_changed=self._refuse_changed)
            self.is_kept = intake.needs_tree or self.is_target or self.reading.needs_staging
            self.reading.fill(self.landing.tree, intake, known, kept=self.is_kept)
            taken = intake.end()
            if self.again is not None:
                self.again.ready.set()
            if not self.is_kept:
                return self._shipment("", taken)
            self.landing.write_manifest(taken.manifest)
            survey = taken.survey
            facts = {"files": survey.files, "bytes": survey.bytes, "version": survey.version, **self._expected()}
            smoke = SmokeTest.from_json(self.reading.trial) if self.is_target and self.reading.trial else None
            self.found = self.landing.verify(ExpectedTree.from_json(facts), smoke)
            return self._shipment(os.fsdecode(self.landing.tree), taken)

    def publish(self, shipment: Payload) -> Payload:
        """Put what was read at the destination, if this host is a target, and say where it is served from now."""
        if not self.is_target:
            return shipment
        if self._serves_in_place():
            self.unchanged = self.landed = True
            return shipment
        with _as_ezpz_errors():
            self.unchanged = self.landing.is_installed(shipment.receipt)
            if not self.unchanged:
                published = self.landing.publish(self.found, shipment.receipt, executable=shipment.executable)
                self.published = {"removed": published.removed, "replaced": published.replaced}
            self.landed = True
        return replace(shipment, path=self.plan.destination)

    def note_failed(self, names: tuple[str, ...]) -> str:
        """Write the list of failed nodes into the destination. Raises EzpzError."""
        with _as_ezpz_errors():
            return self.landing.write_failed_nodes(names)

    def close(self) -> None:
        """Remove staging and give up the lock; harmless twice."""
        if self.again is not None:
            self.again.close()
            self.again = None
        self.landing.close()

    def _landing(self, destination: str) -> Deployment:
        return Deployment(os.fsencode(destination), self.plan.id, self.cancel)

    def _serves_in_place(self) -> bool:
        """Whether the tree is sent from where it stands: nothing about it has to change, and it is on a local disk."""
        source, scan = self.plan.source, self.reading.contents.scan
        if self.plan.in_place:
            return not scan.followed and not scan.notices.counts.get("setuid")
        plain = source.node_local and source.kind in (Kind.DATA, Kind.TOOL)
        return not self.is_target and plain and not scan.left_out and not scan.altered

    def _refuse_changed(self) -> None:
        """Raise SourceChanged when the tree that is sent from where it stands is no longer what was counted."""
        with self.comparing:
            refuse_changed_files(self.reading.contents.scan, self.cancel)
            refuse_changed(self.reading.contents.scan, self.cancel)

    def _expected(self) -> dict[str, Any]:
        """What staging must hold, as far as the scan tells; bytecode that was made is counted."""
        if self.plan.source.is_archive:
            return {}
        scan, relocation = self.reading.contents.scan, self.reading.ledger.relocation
        files = {"files": scan.files + self.reading.added}
        return files if relocation.is_needed else {**files, "bytes": scan.size + scan.linked}

    def _shipment(self, path: str, taken: ManifestSummary) -> Payload:
        reading, found = self.reading, taken.survey
        receipt = {
            "source": self.plan.source.real,
            "kind": reading.kind.value,
            "ezpz": __version__,
            PUBLIC: self.plan.request.public,
            "relocation": reading.digest,
            "origins": reading.origins,
            "inputs": reading.inputs,
            "interpreter": reading.interpreter,
            "contents": taken.contents,
            "manifest": manifest_digest(taken.manifest),
        }
        return Payload(
            path, self.plan.destination, found.version, found.files, found.bytes, receipt,
            reading.kind.is_environment, reading.trial, taken.manifest,
        )  # fmt: skip

    @cached_property
    def request(self) -> dict[str, Any]:
        """What a landing is asked to check and prepare for this plan."""
        totals, source, contents = self.plan.totals, self.plan.source, self.reading.contents
        scans = (contents.scan, *contents.extra)
        made, made_bytes = contents.bytecode_to_make(self.plan.request.compile)
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


class _as_ezpz_errors:  # noqa: N801 - reads as a function
    """Within it, what a landing raises becomes what the rest of ezpz understands."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AgentError):
            raise by_code(error.code)(error.message, hint=error.hint) from error
        if isinstance(error, OSError) and not isinstance(error, EzpzError):
            refusal = from_os_error(error, f"cannot use '{error.filename or 'the local disk'}'")
            raise by_code(refusal.code)(refusal.message, hint=refusal.hint) from error
