"""Bytecode of the copy: stale files are removed, missing files are taken from the previous version or compiled."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.yeet.model.entry import Entry
from ezpz.yeet.pipeline.replay import materialize
from ezpz.yeet.relocate.bytecode.compile import CompileResult, compile_missing, link_previous, remove_bytecode
from ezpz.yeet.relocate.bytecode.compile_worker import CACHE
from ezpz.yeet.relocate.bytecode.validity import source_of
from ezpz.yeet.source.scan import entries_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ezpz.yeet.relocate.bytecode.validity import BytecodeTag, BytecodeTracker
    from ezpz.yeet.source.scan import Scan
    from ezpz.yeet.strategies.base import CopyJob
    from ezpz.yeet.transfer.entry_tee import EntryTee
    from ezpz.yeet.transfer.previous_version import PreviousVersion

MAX_COMPILERS = 16  # processes; a login node has more cores, and other users
NOTHING_COMPILED = CompileResult(0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class RenewedBytecode:
    """What was done to the bytecode of a copy.

    Attributes:
        dropped: The paths of the stale files that were removed.
        added: The number of files that were made, less the dropped ones.
        compiled: The result of the compiler.
        not_compiled: A source, if not a single one could be compiled, else b"".
    """

    dropped: tuple[bytes, ...] = ()
    added: int = 0
    compiled: CompileResult = NOTHING_COMPILED
    not_compiled: bytes = b""


def renew_bytecode(
    job: CopyJob,
    tees: Sequence[EntryTee],
    bytecode: BytecodeTracker,
    python: bytes,
    destination: bytes,
    *,
    compiles: bool,
) -> RenewedBytecode:
    """Remove stale bytecode and make what is missing, so that no node has to. Raise EzpzError, `Cancelled` or OSError.

    Args:
        job: The job whose entries were copied to staging, to its sinks, or both.
        tees: The sinks that must be told of the changes.
        bytecode: What is known of the sources and their bytecode.
        python: The interpreter that compiles.
        destination: The path of the copy, which tracebacks show.
        compiles: Whether missing bytecode is made at all.
    """
    stale = bytecode.stale()
    missing = (*stale.missing, *stale.outdated) if compiles else ()
    is_staged = not job.sinks or any(sink.path_of(b"") is not None for sink in job.sinks)
    dropped = remove_bytecode(job.staging, stale.outdated) if is_staged else bytecode_in(job.scan, stale.outdated)
    for tee in tees if missing or dropped else ():
        tee.barrier()
        for path in sorted(dropped):
            tee.remove(path)
    wanted = missing
    if not is_staged:
        for tee in tees:
            wanted = reuse_bytecode(job, tee, wanted, bytecode.bytecode_tag)
        materialize(job, wanted)
    left = link_previous(job.staging, job.previous.root, wanted, bytecode.bytecode_tag) if compiles else ()
    compiled = NOTHING_COMPILED
    if compiles:
        workers = min(MAX_COMPILERS, len(os.sched_getaffinity(0)))
        compiled = compile_missing(job.staging, python, left, destination, workers=workers, cancel=job.cancel)
    for tee in tees:
        feed_bytecode(tee, job.staging, wanted, bytecode.bytecode_tag, job.previous)
    return RenewedBytecode(
        dropped,
        len(missing) - len(left) + compiled.compiled - len(dropped),
        compiled,
        left[0] if compiled.failed and not compiled.compiled else b"",
    )


def bytecode_in(scanned: Scan, sources: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the bytecode of these sources in a scan, by any interpreter."""
    wanted = set(sources)
    return tuple(entry.path for entry in entries_of(scanned) if _source(entry.path) in wanted)


def _source(path: bytes) -> bytes | None:
    directory, name = os.path.split(path)
    parent, cache = os.path.split(directory)
    source = source_of(name) if cache == CACHE else None
    return None if source is None else os.path.join(parent, source)


def reuse_bytecode(job: CopyJob, tee: EntryTee, sources: Iterable[bytes], tag: BytecodeTag) -> tuple[bytes, ...]:
    """Pass the bytecode of unchanged sources by its digest if all nodes have it. Return the other sources, sorted."""
    left = set(sources)
    passed: set[bytes] = set()  # directories
    for entry in () if job.previous.is_empty else entries_of(job.scan):
        if entry.path not in left or job.previous.result_of(entry) is None:
            continue
        directory, name = os.path.split(entry.path)
        cache = os.path.join(directory, CACHE)
        path = os.path.join(cache, tag.file_name(name))
        made, facts = job.previous.added(path), job.previous.cache(cache)
        if made is None or facts is None or made.mtime_ns != entry.mtime_ns or not tee.has(made.size, made.digest):
            continue
        if cache not in passed:
            passed.add(cache)
            tee.directory(cache, *facts)
        if tee.keep(Entry(path, stat.S_IFREG | made.mode, made.mtime_ns, made.size), made.size, made.digest):
            left.discard(entry.path)
    return tuple(sorted(left))


def feed_bytecode(
    tee: EntryTee, tree: bytes, sources: Iterable[bytes], tag: BytecodeTag, previous: PreviousVersion
) -> None:
    """Pass the bytecode that a tree now has of these sources. Raise OSError.

    Args:
        tee: Where the bytecode goes.
        tree: The tree.
        sources: The sources. One that could not be compiled has no bytecode and is skipped.
        tag: The interpreter that made the bytecode.
        previous: The version from which some bytecode was taken.
    """
    passed: set[bytes] = set()  # directories
    for source in sorted(sources):
        directory, name = os.path.split(source)
        cache = os.path.join(directory, CACHE)
        path = os.path.join(cache, tag.file_name(name))
        try:
            status = os.lstat(os.path.join(tree, path))
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        if cache not in passed:
            passed.add(cache)
            facts = os.lstat(os.path.join(tree, cache))
            tee.directory(cache, facts.st_mode, facts.st_mtime_ns)
        entry = Entry(path, status.st_mode, status.st_mtime_ns, status.st_size)
        made = previous.added(path)
        now = (stat.S_IMODE(status.st_mode), status.st_mtime_ns, status.st_size)
        if made is not None and made[:3] == now and tee.keep(entry, made.size, made.digest):
            continue
        with open(os.path.join(tree, path), "rb") as file:
            tee.open_file(entry, file.fileno())
