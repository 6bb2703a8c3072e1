"""The source on its way to staging and to the nodes: copied, relocated, with its additions and its bytecode."""

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
from ezpz.yeet.pipeline.choose_base import NONE, BaseChoice, choose_base, interpreter_name, interpreter_request
from ezpz.yeet.pipeline.fingerprint import REREAD, Fingerprint, inputs_of, inputs_of_archive
from ezpz.yeet.pipeline.make_plan import relocation_options
from ezpz.yeet.pipeline.renew_bytecode import RenewedBytecode, renew_bytecode
from ezpz.yeet.pipeline.replay import feed_tree, materialize
from ezpz.yeet.relocate.additions.plan import check_path_is_free, generate_files, plan_relocation
from ezpz.yeet.relocate.bytecode.validity import BytecodeTag, BytecodeTracker
from ezpz.yeet.relocate.in_place import relocate_tree
from ezpz.yeet.relocate.inspect.environment import Environment, inspect_environment
from ezpz.yeet.relocate.layout import EDITABLE_DIRECTORY, PYTHON_DIRECTORY
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.relocate.survey import SourceSurvey, survey_environment
from ezpz.yeet.source.changes import check_directories
from ezpz.yeet.source.errors import local_failure
from ezpz.yeet.source.inspect import kind_of
from ezpz.yeet.source.scan import Scan, entries_of
from ezpz.yeet.strategies.base import STRATEGIES, CopyJob
from ezpz.yeet.strategies.fill_staging import fill_staging
from ezpz.yeet.strategies.tree_copier import TreeCopier
from ezpz.yeet.transfer.copy_sinks import StagingSink
from ezpz.yeet.transfer.previous_version import NO_PREVIOUS_VERSION, PreviousVersion
from ezpz.yeet.transfer.unpack_feed import UnpackFeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.plan import Plan
    from ezpz.yeet.relocate.inspect.interpreter import Interpreter
    from ezpz.yeet.transfer.entry_tee import EntryTee


class SourceReader:
    """Reads one source. The calls block: they are meant for a thread.

    Args:
        plan: The plan of the run.
        contents: The entries of the source, and its environment.
        environ: The variables of the run.
        cancel: Is canceled when the run is interrupted.
        moved: Is called with the number of further bytes of content that were copied.
        missing_on: Asks all nodes for an interpreter. Returns why not every node has it, or "" if every node has it.
    """

    def __init__(
        self,
        plan: Plan,
        contents: SourceSurvey,
        environ: Mapping[str, str],
        cancel: CancelToken,
        moved: Callable[[int], None],
        missing_on: Callable[[dict[str, Any]], str],
    ) -> None:
        self.plan = plan
        self.contents = contents
        self.environ = environ
        self.cancel = cancel
        self.moved = moved
        self.missing_on = missing_on
        self.destination = os.fsencode(plan.destination)
        self.kind = plan.source.kind or Kind.DATA
        self.notices = SourceWarnings()
        self.recorder = RelocationRecorder(Relocation(self.destination))
        self.base = BaseChoice()
        self.bytecode = RenewedBytecode()
        self.restore: Callable[[bytes], None] = lambda _: None  # writes what was read to a directory once more
        self.inputs = ""
        self.trusted_interpreter = ""

    @property
    def environment(self) -> Environment | None:
        """The environment in the source, if there is one and it was inspected."""
        return self.contents.environment

    @property
    def needs_staging(self) -> bool:
        """Whether the source can be read only by writing it to staging."""
        return self.plan.source.is_archive or not STRATEGIES.load(self.plan.strategy.name).feeds

    def prepare(self, trusted_interpreter: str = "") -> Fingerprint:
        """Decide what can be decided before reading, and return what identifies the version. Raise EzpzError.

        Args:
            trusted_interpreter: The interpreter that every node has according to its receipt. Nodes are asked only
                about another one, and only if the decision depends on it.
        """
        self.trusted_interpreter = trusted_interpreter
        environment = self.environment
        kind = relocation = None
        if environment is None:
            self.inputs = inputs_of_archive(self.plan)
        else:
            source = os.fsencode(self.plan.source.real)
            self._decide(environment, source)
            self.contents.scan.add_all(self._additions(environment, source))
            self.inputs = inputs_of(self.contents.scan, environment.interpreter)
            kind, relocation = self.kind.value, self.digest
        request = self.plan.request
        inputs = REREAD if request.checksum else self.inputs
        return Fingerprint(self.plan.source.real, __version__, request.public, inputs, kind, relocation)

    def fill(
        self, staging: bytes, tee: EntryTee, previous: PreviousVersion = NO_PREVIOUS_VERSION, *, is_kept: bool = True
    ) -> None:
        """Read the source, and pass everything to the tee. Raise EzpzError or `Cancelled`.

        Args:
            staging: An empty directory.
            tee: Where the entries go.
            previous: What an earlier run made of the same source by the same rules.
            is_kept: Whether the tree is written to staging. If not, staging gets only what is compiled.
        """
        source = os.fsencode(self.plan.source.real)
        job = CopyJob(source, self.contents.scan, staging, self.recorder, self.cancel, self.moved)
        if not STRATEGIES.load(self.plan.strategy.name).feeds:
            self._copy(job)
            feed_tree(staging, tee, self.cancel)
        elif self.plan.source.is_archive:
            feed = UnpackFeed(tee, staging, self.cancel)
            self._copy(replace(job, previous=previous, unpack_feeds=(feed,)))
        else:
            sinks = (tee, StagingSink(staging, previous)) if is_kept else (tee,)
            job = replace(job, previous=previous, sinks=sinks)
            self._copy(job, (tee,))
        self.restore = lambda directory: materialize(replace(job, staging=directory))

    def _copy(self, job: CopyJob, tees: Sequence[EntryTee] = ()) -> None:
        """Run the strategy, then finish the tree. `tees` are the sinks that are told of changed bytecode."""
        fill_staging(self.plan.strategy.name, job)
        try:
            if self.plan.source.is_archive:
                self._relocate_unpacked(job)
            self._renew_bytecode(job, tees)
            for feed in job.unpack_feeds:
                feed.feed_changes(self.bytecode.dropped)
        except OSError as e:
            raise local_failure(e) from e

    def _decide(self, environment: Environment, root: bytes) -> None:
        """Decide which additions the copy gets, and how it is relocated. Ask the nodes if that depends on them."""
        self.base = choose_base(
            environment, root, self.plan.request.base, self._missing_on, self.notices, self.environ, self.cancel
        )
        if self.contents.snapshot.moves:
            check_path_is_free(root, EDITABLE_DIRECTORY, "--editable keep")
        where = None if self.plan.source.is_archive else root
        relocation = plan_relocation(self.destination, environment, where, self.base.embedded, self.contents.snapshot)
        python = environment.interpreter
        tag = BytecodeTag(python.tag, python.magic) if python is not None and python.tag else None
        self.recorder = RelocationRecorder(relocation, None if tag is None else BytecodeTracker(tag))

    def _missing_on(self, python: Interpreter) -> str:
        if self.trusted_interpreter == interpreter_name(python):
            return ""
        return self.missing_on(interpreter_request(python))

    def _additions(self, environment: Environment, root: bytes) -> list[Scan]:
        base = [self.base.embedded.scan] if self.base.embedded is not None else []
        return [
            *base,
            self.contents.snapshot.scan,
            generate_files(environment, root, self.destination, self.contents.notices),
        ]

    def _relocate_unpacked(self, job: CopyJob) -> None:
        """Inspect what was unpacked, relocate it in place, and write the additions to it."""
        self.kind = kind_of(job.staging)
        options = relocation_options(self.plan.request)
        notices = SourceWarnings()
        environment = inspect_environment(job.staging, self.kind, (), options, self.environ, notices, self.cancel)
        self.contents = survey_environment(
            job.staging, job.scan, environment, options, self.destination, notices, self.cancel
        )
        self._decide(environment, job.staging)
        relocate_tree(job.staging, self.recorder, job.cancel)
        extra = Scan(job.staging)
        extra.add_all(self._additions(environment, job.staging))
        more = replace(
            job, scan=extra, recorder=self.recorder, previous=NO_PREVIOUS_VERSION, sinks=(StagingSink(job.staging),)
        )
        parents = {os.path.dirname(entry.path) for entry in entries_of(extra)}
        with ExitStack() as opened:
            for parent in sorted(parents):
                if os.path.isdir(os.path.join(job.staging, parent)):
                    opened.enter_context(_writable(os.path.join(job.staging, parent)))
            copier = TreeCopier(more, entries_of(extra))
            copier.run()
            copier.finish()
        check_directories(extra, job.cancel)

    def _renew_bytecode(self, job: CopyJob, tees: Sequence[EntryTee]) -> None:
        bytecode = self.recorder.bytecode
        python = self.environment.interpreter if self.environment is not None else None
        if bytecode is None or python is None:
            return
        compiles = self.plan.request.compile != "never"
        self.bytecode = renew_bytecode(job, tees, bytecode, python.base_executable, self.destination, compiles=compiles)
        if self.bytecode.not_compiled:
            self.notices.add("not-compiled", self.bytecode.not_compiled)

    @property
    def digest(self) -> str:
        """Fingerprint of the rules: equal for two readers that make the same copy of the same source."""
        return f"{self.recorder.relocation.digest}-{self.plan.request.compile}"

    @property
    def smoke_test(self) -> dict[str, Any] | None:
        """What the Python of the copy must report on every node. None for a copy without Python."""
        environment = self.environment
        if environment is None or environment.interpreter is None:
            return None
        python = environment.interpreter
        library_path = self.environ.get("LD_LIBRARY_PATH")
        kept = {"LD_LIBRARY_PATH": library_path} if library_path and self.base.embedded is None else {}
        base = python.base_prefix if environment.own_base is None else environment.own_base
        if self.base.embedded is not None:
            base = PYTHON_DIRECTORY
        return {"version": python.version, "base": os.fsdecode(base), "imports": python.imports, "environ": kept}

    @property
    def origins(self) -> list[str]:
        """The paths whose content is in the copy. What still points to one of them is a leak."""
        source, embedded = self.plan.source, self.base.embedded
        found = {source.path, source.real}
        if self.environment is not None:
            found |= {os.fsdecode(alias) for alias in self.environment.aliases}
        if embedded is not None and not embedded.is_common:
            found |= {os.fsdecode(prefix) for prefix in embedded.prefixes}
        found |= {os.fsdecode(move.source) for move in self.contents.snapshot.moves}
        return sorted(found - {self.plan.destination})

    @property
    def carried(self) -> RelocationSummary:
        """The summary of the relocation for the report."""
        scan, environment, base = self.contents.scan, self.environment, self.base.embedded
        notices = (self.contents.notices, self.contents.scan.notices, self.notices, self.recorder.notices)
        python = environment.interpreter if environment is not None else None
        return RelocationSummary(
            files_patched=self.recorder.files,
            paths_replaced=self.recorder.replaced,
            links_rewritten=self.recorder.links,
            links_followed=scan.followed,
            followed_bytes=scan.followed_bytes,
            base=self.base.mode,
            base_reason=self.base.reason,
            base_path=os.fsdecode(python.base_prefix) if python is not None and self.base.mode != NONE else "",
            base_bytes=base.scan.size if base is not None else 0,
            base_site_packages=base.site_packages if base is not None else 0,
            python=python.name if python is not None else "",
            editables=tuple(os.fsdecode(move.source) for move in self.contents.snapshot.moves),
            bytecode_compiled=self.bytecode.compiled.compiled,
            bytecode_failed=self.bytecode.compiled.failed,
            warnings=tuple(warning for each in notices for warning in each.warnings()),
        )


@contextmanager
def _writable(directory: bytes) -> Iterator[None]:
    """Allow new entries in a directory. Afterwards its mode and time are what they were."""
    status = os.stat(directory)
    os.chmod(directory, stat.S_IMODE(status.st_mode) | 0o700)
    yield
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.chmod(directory, stat.S_IMODE(status.st_mode))
