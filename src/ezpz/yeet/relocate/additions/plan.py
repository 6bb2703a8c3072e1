"""Plan the relocation of an environment, and what is added to its own entries."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ezpz.agent.common.text import printable_path
from ezpz.errors import PrefixTooLong, UsageError
from ezpz.runtime.text import pluralize
from ezpz.yeet.model.source import Kind
from ezpz.yeet.relocate.additions.conda_activation import standalone_activation
from ezpz.yeet.relocate.additions.editable_snapshot import EXCLUDED_BELOW, plan_moves
from ezpz.yeet.relocate.additions.env_script import is_env_script, render_env_script
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

PACKED_PREFIX = b"/ezpz/packed"
"""Does not exist. Placeholder for the prefix that the scripts of a packed environment find by PATH."""
RUN_PATH = b"$ORIGIN/../lib"  # from `.python/bin` to the included libraries


@dataclass(slots=True)
class Snapshot:
    """The included code of editable installs.

    Attributes:
        moves: Where it goes.
        scan: Its entries. Closed after use.
    """

    moves: tuple[Move, ...] = ()
    scan: Scan = field(default_factory=lambda: Scan(b"/"), repr=False)


def take_snapshot(environment: Environment, destination: bytes, cancel: CancelToken | None = None) -> Snapshot:
    """Scan the included code of editable installs. Raises OSError, and EditableRefused if it is too large."""
    moves = plan_moves(environment.editables, destination)
    extra = ExtraEntries(cancel)
    for move in moves:
        if not move.on_sys_path:
            _add(extra, move.target, move.source)
        for name in move.names if move.on_sys_path else ():
            _add(extra, os.path.join(move.target, name), os.path.join(move.source, name))
    if extra.scan.size > SIZE_LIMIT:
        raise snapshot_too_large(extra.scan.size, environment.editables)
    return Snapshot(moves, extra.scan)


def _add(extra: ExtraEntries, target: bytes, path: bytes) -> None:
    if os.path.isdir(path):
        extra.add_directory(target, path, EXCLUDED_BELOW)
    else:
        extra.add_file(target, os.path.realpath(path))


def plan_relocation(
    destination: bytes, environment: Environment, root: bytes | None, embedded: BasePython | None, snapshot: Snapshot
) -> Relocation:
    """Return the relocation of a tree to its destination. Pure.

    Args:
        destination: Path of the copy.
        environment: What the tree tells about itself.
        root: Real path of the tree now. None if it has none.
        embedded: The embedded base Python. None if it is not embedded.
        snapshot: The included code of editable installs.
    """
    own = dict.fromkeys(environment.aliases, destination)
    if not environment.kind.is_environment:
        return Relocation(destination, links=PrefixMap(own), root=root)
    packed = PACKED_PREFIX if environment.is_packed else b""
    moves = {**dict.fromkeys((*environment.packed, packed), destination), **own}
    base_moves = embedded.moves(destination) if embedded is not None else {}
    in_text = {} if embedded is None or embedded.is_common else base_moves
    included = {old: new for move in snapshot.moves for old, new in move.prefixes}
    return Relocation(
        destination,
        text=PrefixMap({**in_text, **moves}),
        hooks=PrefixMap({**in_text, **included, **moves}),
        links=PrefixMap({**base_moves, **moves}),
        root=root,
        python=embedded.python if embedded is not None else b"",
        run_path=RUN_PATH if embedded is not None and embedded.needs_library_path else b"",
        configuration=_base_settings(destination, embedded) if embedded is not None else {},
        editables=snapshot.moves,
        hook_files=frozenset(editable.declared_by for editable in environment.editables),
        packed=packed,
        binaries=environment.binaries,
    )


def check_path_is_free(root: bytes, path: bytes, option: str) -> None:
    """Raise UsageError if the source already has something at a path that an addition needs.

    Args:
        root: Path of the source.
        path: Relative path that the addition needs.
        option: Option that prevents the addition, for the hint.
    """
    if os.path.lexists(os.path.join(root, path)):
        raise UsageError(
            f"'{printable_path(os.path.join(root, path))}' is in the way of what would come along",
            hint=f"take it out of the source, or use {option}",
        )


def check_prefix_length(environment: Environment, destination: bytes) -> None:
    """Raise PrefixTooLong for a destination that the compiled files of conda packages have no room for."""
    path, room = min(environment.binaries.items(), key=lambda item: item[1], default=(b"", len(destination)))
    if len(destination) > room:
        raise PrefixTooLong(
            f"prefix too long by {len(destination) - room:,} bytes in {printable_path(path)}",
            hint="use a shorter --dst",
        )


def _base_settings(destination: bytes, base: BasePython) -> dict[bytes, bytes]:
    """Return the settings of `pyvenv.cfg` for an embedded base: the keys of venv (PEP 405), virtualenv, and uv."""
    python = os.path.join(destination, base.python)
    top = os.path.dirname(os.path.dirname(python))
    return {
        b"home": os.path.dirname(python),
        b"executable": python,
        b"base-executable": python,
        b"base-prefix": top,
        b"base-exec-prefix": top,
    }


def generate_files(environment: Environment, root: bytes, destination: bytes, notices: SourceWarnings) -> Scan:
    """Return the generated files: `env.sh`, and the activation of a conda environment. Files of the source stay."""
    scripts = os.path.join(root, b"bin")
    has_scripts = os.path.isdir(scripts) and not os.path.islink(scripts)  # never write through a link
    extra = ExtraEntries(existing=(b"bin",) if has_scripts else ())
    if not environment.kind.is_environment:
        return extra.scan
    wanted = environment.kind is Kind.CONDA and (has_scripts or not os.path.lexists(scripts))
    made = standalone_activation(destination) if wanted else ()
    existing = {path for path, _ in made if os.path.lexists(os.path.join(root, path))}
    for path, content in made if not existing else ():
        extra.add_content(path, content)
    if os.path.lexists(os.path.join(root, ENV_SCRIPT)):
        if not is_env_script(os.path.join(root, ENV_SCRIPT)):
            notices.add("env-script-taken", ENV_SCRIPT)
    elif made or os.path.lexists(os.path.join(root, b"bin", b"activate")):
        extra.add_content(ENV_SCRIPT, render_env_script(destination))
    return extra.scan


def describe_relocation(environment: Environment, destination: str, base: str) -> str:
    """Return what relocation will do, for the plan. `base` is the mode that the user chose."""
    names = ", ".join(printable_path(alias) for alias in environment.aliases)
    parts = [f"{names} becomes {destination}"] if environment.kind.is_environment else []
    python = environment.interpreter
    if environment.has_base and python is not None:
        what = {"embed": "embedded", "keep": "kept", "auto": "embedded unless every node has it"}[base]
        parts.append(f"{python.name} of {printable_path(python.base_prefix)} {what}")
    if environment.editables:
        parts.append(pluralize(len(environment.editables), "editable install"))
    return "; ".join(parts) or "links only: not an environment"
