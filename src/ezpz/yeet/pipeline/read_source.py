"""Reading: the source becomes a staged tree that works at the destination, with all that comes along."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ezpz import __version__
from ezpz.yeet.model.report import RelocationSummary
from ezpz.yeet.model.source import Kind
from ezpz.yeet.model.warnings import SourceWarnings
from ezpz.yeet.pipeline.fingerprint import INPUTS, PUBLIC, REREAD, inputs_of, inputs_of_archive
from ezpz.yeet.pipeline.make_plan import relocation_options
from ezpz.yeet.pipeline.replay import bytecode_in, feed_bytecode, feed_tree, materialise, reuse_bytecode
from ezpz.yeet.relocate.additions.plan import check_path_is_free, generate_files, plan_relocation
from ezpz.yeet.relocate.bytecode.compile import CompileResult, compile_missing, link_previous, remove_bytecode
from ezpz.yeet.relocate.bytecode.validity import BytecodeTag, BytecodeTracker
from ezpz.yeet.relocate.in_place import relocate_tree
from ezpz.yeet.relocate.inspect.environment import Environment, inspect_base_of, inspect_environment
from ezpz.yeet.relocate.layout import EDITABLE_DIRECTORY, PYTHON_DIRECTORY
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.relocate.survey import SourceSurvey, survey_environment
from ezpz.yeet.source.changes import check_directories
from ezpz.yeet.source.errors import local_failure
from ezpz.yeet.source.inspect import kind_of
from ezpz.yeet.source.link_policy import on_shared_filesystem
from ezpz.yeet.source.scan import Scan
from ezpz.yeet.strategies.base import STRATEGIES, CopyJob
from ezpz.yeet.strategies.fill_staging import fill_staging
from ezpz.yeet.strategies.tree_copier import TreeCopier
from ezpz.yeet.transfer.unpack_feed import UnpackFeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.plan import Plan
    from ezpz.yeet.relocate.inspect.base_python import BasePython
    from ezpz.yeet.relocate.inspect.interpreter import Interpreter
    from ezpz.yeet.transfer.entry_tee import EntryTee
    from ezpz.yeet.transfer.previous_version import PreviousVersion

MOST_COMPILERS = 16  # processes; a login node has more cores, and other users
EMBEDDED, KEPT, NONE = "embedded", "kept", "none"


class SourceReader:
    """One source on its way into staging; blocking.

    everywhere: asks all nodes together whether they have an interpreter themselves, and answers why not, "" for yes
    """

    def __init__(
        self,
        plan: Plan,
        contents: SourceSurvey,
        environ: Mapping[str, str],
        cancel: CancelToken,
        moved: Callable[[int], None],
        everywhere: Callable[[dict[str, Any]], str],
    ) -> None:
        self.plan = plan
        self.contents = contents
        self.environ = environ
        self.cancel = cancel
        self.moved = moved
        self.everywhere = everywhere
        self.destination = os.fsencode(plan.destination)
        self.kind = plan.source.kind or Kind.DATA
        self.notices = SourceWarnings()
        self.ledger = RelocationRecorder(Relocation(self.destination))
        self.base = NONE
        self.base_reason = ""
        self.embedded: BasePython | None = None
        self.compiled = CompileResult(0, 0, 0.0)
        self.restore: Callable[[bytes], None] | None = None  # fills a folder with all that was read, once more
        self.inputs = ""
        self.trusted = self.interpreter = ""
        self.added = 0  # files of bytecode that were made, less those that were dropped

    @property
    def environment(self) -> Environment | None:
        return self.contents.environment

    def fill(
        self,
        staging: bytes,
        feed: EntryTee,
        known: PreviousVersion | None = None,
        *,
        kept: bool = True,
    ) -> None:
        """Fill an empty staging directory, and the feed. Raises EzpzError or Cancelled.

        known: what an earlier run made of the same; kept: whether staging is wanted; without, it gets only what has to
        be compiled
        """
        strategy = STRATEGIES.load(self.plan.strategy.name)()
        source = os.fsencode(self.plan.source.real)
        archive = self.plan.source.is_archive
        feeding = feed if strategy.feeds else None
        trail = UnpackFeed(feeding, staging, self.cancel) if feeding is not None and archive else None
        job = CopyJob(
            source, self.contents.scan, staging, self.ledger, self.cancel, self.moved,
            known if strategy.feeds else None, None if archive else feeding, kept, trail,
        )  # fmt: skip
        fill_staging(self.plan.strategy.name, job)
        try:
            if archive:
                self._relocate_unpacked(job)
            dropped = self._compile(job)
            if trail is not None:
                trail.settle(dropped)
        except OSError as e:
            raise local_failure(e) from e
        if feeding is None:
            feed_tree(staging, feed, self.cancel)
        self.restore = lambda folder: materialise(replace(job, staging=folder))

    @property
    def needs_staging(self) -> bool:
        """Whether what is read has to be written here, whoever wants it."""
        return self.plan.source.is_archive or not STRATEGIES.load(self.plan.strategy.name).feeds

    def settle(self, interpreter: str = "") -> dict[str, Any]:
        """Decide all that can be decided before it is read, and return what its receipt will say it is made of.

        interpreter: that every node has, as their receipts tell; they are asked when that depends on them and this is
        another. Raises EzpzError.
        """
        self.trusted = interpreter
        made_of = {"source": self.plan.source.real, "ezpz": __version__, PUBLIC: self.plan.request.public}
        if self.plan.source.is_archive:
            self.inputs = inputs_of_archive(self.plan)
        else:
            source = os.fsencode(self.plan.source.real)
            self.decide(source)
            self.contents.scan.add_all(self._coming_along(source))
            self.inputs = inputs_of(self.contents.scan, self.environment.interpreter if self.environment else None)
            made_of.update(kind=self.kind.value, relocation=self.digest)
        return {**made_of, INPUTS: REREAD if self.plan.request.checksum else self.inputs}

    def decide(self, root: bytes) -> None:
        """Decide what comes along, and with it the relocation; asks the nodes when that depends on them."""
        environment = self.environment
        assert environment is not None
        if environment.has_base:
            self._decide_on_base(environment, root)
        if self.contents.snapshot.moves:
            check_path_is_free(root, EDITABLE_DIRECTORY, "--editable keep")
        where = None if self.plan.source.is_archive else root
        relocation = plan_relocation(self.destination, environment, where, self.embedded, self.contents.snapshot)
        python = environment.interpreter
        bytecode_tag = BytecodeTag(python.tag, python.magic) if python is not None and python.tag else None
        self.ledger = RelocationRecorder(relocation, None if bytecode_tag is None else BytecodeTracker(bytecode_tag))

    def _decide_on_base(self, environment: Environment, root: bytes) -> None:
        """Embed the base interpreter when that was asked for, or when a node has not the same; else leave it."""
        python, mode = environment.interpreter, self.plan.request.base
        assert python is not None
        self.base, self.base_reason = KEPT, "asked for"
        if mode == "auto":
            self.base_reason = "" if self.trusted == named(python) else self.everywhere(question(python))
        if mode == "embed" or (mode == "auto" and self.base_reason):
            self.base = EMBEDDED
            check_path_is_free(root, PYTHON_DIRECTORY, "--base keep")
            self.embedded = environment.base or inspect_base_of(root, python, self.environ, self.cancel)
        elif mode == "auto":
            self.base_reason = "every node has it"
            self.interpreter = named(python)
        elif on_shared_filesystem(python.base_prefix):
            self.notices.note("base-kept", python.base_prefix)

    def _coming_along(self, root: bytes) -> list[Scan]:
        environment = self.environment
        assert environment is not None
        base = [self.embedded.scan] if self.embedded is not None else []
        return [
            *base,
            self.contents.snapshot.scan,
            generate_files(environment, root, self.destination, self.contents.notices),
        ]

    def _relocate_unpacked(self, job: CopyJob) -> None:
        """What was unpacked is looked at, relocated where it lies, and joined by what comes along."""
        self.kind = kind_of(job.staging)
        options = relocation_options(self.plan.request)
        notices = SourceWarnings()
        environment = inspect_environment(job.staging, self.kind, (), options, self.environ, notices, self.cancel)
        self.contents = survey_environment(
            job.staging, job.scan, environment, options, self.destination, notices, self.cancel
        )
        self.decide(job.staging)
        relocate_tree(job.staging, self.ledger, job.cancel)
        extra = Scan(job.staging)
        extra.add_all(self._coming_along(job.staging))
        more = CopyJob(job.root, extra, job.staging, self.ledger, job.cancel, job.moved)
        around = {os.path.dirname(entry.path) for batch in extra.batches() for entry in batch}
        with ExitStack() as opened:
            for folder in sorted(around):
                if os.path.isdir(os.path.join(job.staging, folder)):
                    opened.enter_context(_opened(os.path.join(job.staging, folder)))
            filling = TreeCopier(more, (entry for batch in extra.batches() for entry in batch))
            filling.run()
            more.finish_below(filling.directories)
        check_directories(extra, job.cancel)

    def _compile(self, job: CopyJob) -> tuple[bytes, ...]:
        """Renew the bytecode of what was patched and make what is missing, so that no node has to; what was dropped."""
        bytecode, environment = self.ledger.bytecode, self.environment
        if bytecode is None or environment is None or environment.interpreter is None:
            return ()
        stale = bytecode.stale()
        never = self.plan.request.compile == "never"
        wanted = () if never else (*stale.missing, *stale.outdated)
        dropped = remove_bytecode(job.staging, stale.outdated) if job.kept else bytecode_in(job.scan, stale.outdated)
        self.added = -len(dropped)
        if job.feed is not None and (wanted or dropped):
            job.feed.barrier()
            for path in sorted(dropped):
                job.feed.remove(path)
        if not job.kept:
            known = len(wanted)
            wanted = reuse_bytecode(job, wanted, bytecode.bytecode_tag)
            self.added += known - len(wanted)
            materialise(job, wanted)
        if not never:
            self._make(job, environment.interpreter, wanted, bytecode.bytecode_tag)
        if job.feed is not None:
            feed_bytecode(job.feed, job.staging, wanted, bytecode.bytecode_tag, job.known)
        return dropped

    def _make(self, job: CopyJob, python: Interpreter, wanted: tuple[bytes, ...], bytecode_tag: BytecodeTag) -> None:
        left = link_previous(job.staging, job.known.root if job.known is not None else None, wanted, bytecode_tag)
        self.compiled = compile_missing(
            job.staging, python.base_executable, left, self.destination,
            workers=min(MOST_COMPILERS, len(os.sched_getaffinity(0))), cancel=self.cancel,
        )  # fmt: skip
        if self.compiled.failed and not self.compiled.compiled:
            self.notices.note("not-compiled", left[0])
        self.added += len(wanted) - len(left) + self.compiled.compiled

    @property
    def digest(self) -> str:
        """The same for readings that make the same of the same source."""
        return f"{self.ledger.relocation.digest}-{self.plan.request.compile}"

    @property
    def trial(self) -> dict[str, Any] | None:
        """What the environment's python must say on every node; None for what has none."""
        environment = self.environment
        if environment is None or environment.interpreter is None:
            return None
        python = environment.interpreter
        library_path = self.environ.get("LD_LIBRARY_PATH")
        kept = {"LD_LIBRARY_PATH": library_path} if library_path and self.embedded is None else {}
        base = PYTHON_DIRECTORY if self.embedded is not None else self._base_in_tree(environment)
        return {"version": python.version, "base": os.fsdecode(base), "imports": python.imports, "environ": kept}

    def _base_in_tree(self, environment: Environment) -> bytes:
        """Where the standard library is, relative to the tree when it is in it."""
        python = environment.interpreter
        assert python is not None
        return python.base_prefix if environment.own_base is None else environment.own_base

    @property
    def origins(self) -> list[str]:
        """The places whose content came along: whatever leads there still is a leak."""
        source = self.plan.source
        found = {source.path, source.real}
        if self.environment is not None:
            found |= {os.fsdecode(alias) for alias in self.environment.aliases}
        if self.embedded is not None and not self.embedded.is_common:
            found |= {os.fsdecode(prefix) for prefix in self.embedded.prefixes}
        found |= {os.fsdecode(move.source) for move in self.contents.snapshot.moves}
        return sorted(found - {self.plan.destination})

    @property
    def carried(self) -> RelocationSummary:
        """What was done, for the report."""
        scan, environment, base = self.contents.scan, self.environment, self.embedded
        notices = [self.contents.notices, self.contents.scan.notices, self.notices, self.ledger.notices]
        python = environment.interpreter if environment is not None else None
        return RelocationSummary(
            files_patched=self.ledger.files,
            paths_replaced=self.ledger.replaced,
            links_rewritten=self.ledger.links,
            links_followed=scan.followed,
            followed_bytes=scan.followed_bytes,
            base=self.base,
            base_reason=self.base_reason,
            base_path=os.fsdecode(python.base_prefix) if python is not None and self.base != NONE else "",
            base_bytes=base.scan.size if base is not None else 0,
            base_site_packages=base.site_packages if base is not None else 0,
            python=python.name if python is not None else "",
            editables=tuple(os.fsdecode(move.source) for move in self.contents.snapshot.moves),
            bytecode_compiled=self.compiled.compiled,
            bytecode_failed=self.compiled.failed,
            warnings=tuple(warning for each in notices for warning in each.warnings()),
        )


@contextmanager
def _opened(folder: bytes) -> Iterator[None]:
    """Within it something may be put into a folder; afterwards its mode and time are as they were."""
    status = os.stat(folder)
    os.chmod(folder, stat.S_IMODE(status.st_mode) | 0o700)
    yield
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.chmod(folder, stat.S_IMODE(status.st_mode))


def named(python: Interpreter) -> str:
    """An interpreter, as receipts tell of it."""
    return f"{os.fsdecode(python.base_executable)}: {python.version}"


def question(python: Interpreter) -> dict[str, Any]:
    """What nodes are asked about the interpreter: see `agent.smoke.has_python`."""
    return {
        "executable": os.fsdecode(python.base_executable),
        "prefix": os.fsdecode(python.base_prefix),
        "version": python.version,
    }
