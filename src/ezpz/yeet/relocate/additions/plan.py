"""Outfit: how an environment is relocated to one destination, and what comes along besides its own entries."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.agent.common.text import printable_path
from ezpz.errors import PrefixTooLong, UsageError
from ezpz.runtime.text import pluralize
from ezpz.yeet.model.source import Kind
from ezpz.yeet.relocate.additions.conda_activation import standalone_activation
from ezpz.yeet.relocate.additions.editable_snapshot import EXCLUDED_BELOW, destinations
from ezpz.yeet.relocate.additions.env_script import environment_script, is_ours
from ezpz.yeet.relocate.extra_entries import ExtraEntries
from ezpz.yeet.relocate.formats.prefix import PrefixMap
from ezpz.yeet.relocate.inspect.editable_errors import SIZE_LIMIT, snapshot_too_large
from ezpz.yeet.relocate.layout import ENV_SCRIPT
from ezpz.yeet.relocate.relocation import Relocation
from ezpz.yeet.source.scan import Scan

if TYPE_CHECKING:
    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.warnings import SourceWarnings
    from ezpz.yeet.relocate.inspect.base_python import BasePython
    from ezpz.yeet.relocate.inspect.environment import Environment
    from ezpz.yeet.relocate.layout import Move

PACKED = b"/ezpz/packed"  # no such place: a name for what the scripts of a packed environment leave to PATH
RUN_PATH = b"$ORIGIN/../lib"  # from `.python/bin` to the libraries that came along


@dataclass(slots=True)
class Snapshot:
    """The code of editable installs that comes along, counted."""

    moves: tuple[Move, ...] = ()
    scan: Scan = field(default_factory=lambda: Scan(b"/"), repr=False)


def snapshot_of(environment: Environment, destination: bytes, cancel: CancelToken | None = None) -> Snapshot:
    """Count what of the editable installs comes along. Raises EditableRefused when it is too large, OSError."""
    moves = destinations(environment.editables, destination)
    grafts = ExtraEntries(cancel)
    for move in moves:
        if not move.whole:
            _take(grafts, move.target, move.source)
        for name in move.names if move.whole else ():
            _take(grafts, os.path.join(move.target, name), os.path.join(move.source, name))
    if grafts.scan.size > SIZE_LIMIT:
        raise snapshot_too_large(grafts.scan.size, environment.editables)
    return Snapshot(moves, grafts.scan)


def _take(grafts: ExtraEntries, target: bytes, path: bytes) -> None:
    if os.path.isdir(path):
        grafts.add_folder(target, path, EXCLUDED_BELOW)
    else:
        grafts.add_file(target, os.path.realpath(path))


def relocation_to(
    destination: bytes, environment: Environment, root: bytes | None, embedded: BasePython | None, snapshot: Snapshot
) -> Relocation:
    """The relocation of a tree, as it stands at `root` or nowhere, to its destination. Pure.

    embedded: the base that comes along, None when it stays
    """
    own = dict.fromkeys(environment.aliases, destination)
    if not environment.kind.is_environment:
        return Relocation(destination, links=PrefixMap(own), root=root)
    packed = PACKED if environment.is_packed else b""
    moves = {**dict.fromkeys((*environment.packed, packed), destination), **own}
    base_moves = embedded.moves(destination) if embedded is not None else {}
    in_text = {} if embedded is None or embedded.is_common else base_moves
    carried = {old: new for move in snapshot.moves for old, new in move.prefixes}
    return Relocation(
        destination,
        text=PrefixMap({**in_text, **moves}),
        hooks=PrefixMap({**in_text, **carried, **moves}),
        links=PrefixMap({**base_moves, **moves}),
        root=root,
        python=embedded.python if embedded is not None else b"",
        run_path=RUN_PATH if embedded is not None and embedded.by_environment else b"",
        configuration=_configuration(destination, embedded) if embedded is not None else {},
        editables=snapshot.moves,
        hook_files=frozenset(editable.declared_by for editable in environment.editables),
        packed=packed,
        binaries=environment.binaries,
    )


def refuse_taken(root: bytes, folder: bytes, option: str) -> None:
    """Raise UsageError when something stands in the source already where more would come along.

    option: what leaves it where it is
    """
    if os.path.lexists(os.path.join(root, folder)):
        raise UsageError(
            f"'{printable_path(os.path.join(root, folder))}' is in the way of what would come along",
            hint=f"take it out of the source, or use {option}",
        )


def refuse_long(environment: Environment, destination: bytes) -> None:
    """Raise PrefixTooLong for a destination that conda packages have no room for in their compiled files."""
    path, room = min(environment.binaries.items(), key=lambda item: item[1], default=(b"", len(destination)))
    if len(destination) > room:
        raise PrefixTooLong(
            f"prefix too long by {len(destination) - room:,} bytes in {printable_path(path)}",
            hint="use a shorter --dst",
        )


def _configuration(destination: bytes, base: BasePython) -> dict[bytes, bytes]:
    """What `pyvenv.cfg` says of an embedded base: the keys of venv (PEP 405), virtualenv and uv."""
    python = os.path.join(destination, base.python)
    top = os.path.dirname(os.path.dirname(python))
    return {
        b"home": os.path.dirname(python),
        b"executable": python,
        b"base-executable": python,
        b"base-prefix": top,
        b"base-exec-prefix": top,
    }


def additions(environment: Environment, root: bytes, destination: bytes, notices: SourceWarnings) -> Scan:
    """What is made anew: `env.sh`, and for a conda environment its activation; nothing in place of the source's own."""
    scripts = os.path.join(root, b"bin")
    is_folder = os.path.isdir(scripts) and not os.path.islink(scripts)  # what a link leads to is not ours to write to
    grafts = ExtraEntries(standing=(b"bin",) if is_folder else ())
    if not environment.kind.is_environment:
        return grafts.scan
    wanted = environment.kind is Kind.CONDA and (is_folder or not os.path.lexists(scripts))
    made = standalone_activation(destination) if wanted else ()
    taken = {path for path, _ in made if os.path.lexists(os.path.join(root, path))}
    for path, content in made if not taken else ():
        grafts.add_content(path, content)
    if os.path.lexists(os.path.join(root, ENV_SCRIPT)):
        if not is_ours(os.path.join(root, ENV_SCRIPT)):
            notices.note("env-script-taken", ENV_SCRIPT)
    elif made or os.path.lexists(os.path.join(root, b"bin", b"activate")):
        grafts.add_content(ENV_SCRIPT, environment_script(destination))
    return grafts.scan


def describe_relocation(environment: Environment, destination: str, base: str) -> str:
    """What relocation will do, for the plan; `base` is the mode that was asked for."""
    names = ", ".join(printable_path(alias) for alias in environment.aliases)
    parts = [f"{names} becomes {destination}"] if environment.kind.is_environment else []
    python = environment.interpreter
    if environment.has_base and python is not None:
        what = {"embed": "embedded", "keep": "kept", "auto": "embedded unless every node has it"}[base]
        parts.append(f"{python.name} of {printable_path(python.base_prefix)} {what}")
    if environment.editables:
        parts.append(pluralize(len(environment.editables), "editable install"))
    return "; ".join(parts) or "links only: not an environment"
