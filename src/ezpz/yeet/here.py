"""Here: the launching host's part of a yeet: read the source once and, if this is a node of the job, land it."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.errors import EzpzError, by_code
from ezpz.process import Stopped
from ezpz.yeet.agent import tree
from ezpz.yeet.agent.landing import Abandoned, Landing
from ezpz.yeet.agent.refusal import Refusal, from_os_error
from ezpz.yeet.copy.base import STRATEGIES, Job
from ezpz.yeet.fanout.base import Shipment
from ezpz.yeet.relocate.environment import Relocation
from ezpz.yeet.relocate.folder import relocate_folder, relocation_of_folder
from ezpz.yeet.source import Kind, kind_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from ezpz.yeet.plan import Plan
    from ezpz.yeet.scan import Scan


PRIVATE_PLACES = ("/var/tmp", "/dev/shm")  # noqa: S108 - tried in turn; staging is 0700


class Here:
    """Prepare, read, land; then serve from `shipment.path` until closed. Blocking: meant for a thread of its own.

    stop: set when the run is interrupted; moved: told the bytes that were read
    """

    def __init__(self, plan: Plan, scanned: Scan, stop: threading.Event, moved: Callable[[int], None]) -> None:
        self.plan = plan
        self.scan = scanned
        self.stop = stop
        self.moved = moved
        self.is_target = plan.allocation.local is not None
        self.landing = self._landing(plan.destination)
        self.previous: dict[str, Any] | None = None
        self.kind = plan.source.kind or Kind.DATA
        self.unchanged = self.landed = False
        self.published: dict[str, Any] = {}

    def interrupt(self) -> None:
        """Make whatever is going on here end soon; safe from any thread."""
        self.stop.set()
        self.landing.abandoned.set()

    def prepare(self) -> None:
        """Check the destination here and take its lock, before anything moves. Raises EzpzError."""
        if not self.is_target:
            self.prepare_elsewhere()
            return
        with _as_ezpz_errors():
            if self.plan.in_place:
                self.landing.lock.acquire()
                self.landing.forget_failed_nodes()
            else:
                self.previous = self.landing.prepare(prepare_request(self.plan))["receipt"]

    def prepare_elsewhere(self) -> None:
        """Leave the destination on this host alone and stage privately, to serve the others from. Raises EzpzError."""
        self.landing.close()
        self.is_target = False
        if self._serves_in_place():
            return
        refusal: EzpzError | None = None
        for folder in dict.fromkeys((tempfile.gettempdir(), *PRIVATE_PLACES)):
            self.landing = self._landing(os.path.join(folder, f"ezpz-origin-{self.plan.id}"))
            request = dict(prepare_request(self.plan), executable=False, dst=os.fsdecode(self.landing.dst))
            try:
                with _as_ezpz_errors():
                    self.landing.prepare(request)
            except EzpzError as e:
                self.landing.close()
                refusal = refusal or e
            else:
                return
        assert refusal is not None
        raise refusal

    def read(self) -> Shipment:
        """Fill staging, relocated and verified, and say what it is. Raises EzpzError or Stopped."""
        with _as_ezpz_errors():
            if self._serves_in_place():
                return self._shipment(
                    self.plan.source.real, tree.survey(os.fsencode(self.plan.source.real), self.landing.check_on)
                )
            relocation = self._fill()
            self.found = self.landing.verify(self._expected(relocation))
            return self._shipment(os.fsdecode(self.landing.tree), self.found)

    def publish(self, shipment: Shipment) -> Shipment:
        """Put what was read at the destination, if this host is a target, and say where it is served from now."""
        if not self.is_target or self._serves_in_place():
            self.unchanged = self.landed = self.is_target
            return shipment
        with _as_ezpz_errors():
            self.unchanged = self.landing.keep(shipment.version, shipment.receipt)
            if not self.unchanged:
                self.published = self.landing.publish(self.found, shipment.receipt, executable=shipment.executable)
            self.landed = True
        return self._shipment(self.plan.destination, self.found)

    def note_failed(self, names: tuple[str, ...]) -> str:
        """Write the list of failed nodes into the destination. Raises EzpzError."""
        with _as_ezpz_errors():
            return self.landing.note_failed_nodes(list(names))

    def close(self) -> None:
        """Remove staging and give up the lock; harmless twice."""
        self.landing.close()

    def _landing(self, destination: str) -> Landing:
        landing = Landing(os.fsencode(destination), self.plan.id)
        if self.stop.is_set():
            landing.abandoned.set()
        return landing

    def _serves_in_place(self) -> bool:
        """Whether the tree is sent from where it stands: nothing about it has to change, and it is on a local disk."""
        source = self.plan.source
        if self.plan.in_place:
            return True
        return (
            not self.is_target
            and source.node_local
            and source.kind in (Kind.DATA, Kind.TOOL)
            and not self.scan.left_out
        )

    def _fill(self) -> Relocation:
        source = self.plan.source
        strategy = STRATEGIES.load(self.plan.strategy.name)()
        destination = os.fsencode(self.plan.destination)
        relocation = Relocation((), destination)
        if source.kind is not None:
            known = (os.fsencode(source.path), os.fsencode(source.real))
            relocation = relocation_of_folder(os.fsencode(source.real), source.kind, known, destination)
        job = Job(
            os.fsencode(source.real), self.scan, self.landing.tree, relocation, self.stop, self.moved, self._linkable()
        )
        strategy.fill(job)
        if source.kind is None:
            self.kind = kind_of(self.landing.tree)
            relocation = relocation_of_folder(self.landing.tree, self.kind, (), destination)
            relocate_folder(self.landing.tree, relocation)
        return relocation

    def _linkable(self) -> bytes | None:
        """The version in place, if this ezpz made it from this source: then equal size and time mean equal content."""
        previous = self.previous or {}
        same = previous.get("source") == self.plan.source.real and previous.get("ezpz") == __version__
        return self.landing.dst if same else None

    def _expected(self, relocation: Relocation) -> dict[str, Any]:
        if self.plan.source.is_archive:
            return {}
        return {"files": self.scan.files, "bytes": None if relocation.is_needed else self.scan.size + self.scan.linked}

    def _shipment(self, path: str, found: tree.Survey) -> Shipment:
        receipt = {"source": self.plan.source.real, "kind": self.kind.value, "ezpz": __version__}
        return Shipment(
            path, self.plan.destination, found.version, found.files, found.bytes, receipt, self.kind.is_environment
        )


def prepare_request(plan: Plan) -> dict[str, Any]:
    """What a landing is asked to check and prepare for this plan."""
    totals = plan.totals
    return {
        "dst": plan.destination,
        "run": plan.id,
        "avoid": None if plan.in_place else plan.source.real,
        "source": plan.source.real,
        "bytes": totals.bytes,
        "allocated": totals.allocated,
        "files": (totals.files or 0) + (totals.directories or 0),
        "executable": plan.source.kind is not None and plan.source.kind.is_environment,
        "replace": plan.request.replace,
    }


class _as_ezpz_errors:  # noqa: N801 - reads as a function
    """Within it, what a landing raises becomes what the rest of ezpz understands."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refusal):
            raise by_code(error.code)(error.message, hint=error.hint) from error
        if isinstance(error, Abandoned):
            raise Stopped from None
        if isinstance(error, OSError) and not isinstance(error, EzpzError):
            refusal = from_os_error(error, f"cannot use '{error.filename or 'the local disk'}'")
            raise by_code(refusal.code)(refusal.message, hint=refusal.hint) from error
