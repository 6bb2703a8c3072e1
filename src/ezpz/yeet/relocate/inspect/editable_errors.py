"""Refuse editable installs that cannot be copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ezpz.agent.common.text import format_bytes, printable_path
from ezpz.errors import EditableRefused

if TYPE_CHECKING:
    from ezpz.yeet.relocate.inspect.editable_installs import Editable


SIZE_LIMIT = 2_000_000_000  # bytes of all snapshots together; code is smaller, so a larger one includes data by mistake


def check_editables(editables: tuple[Editable, ...], mode: str) -> None:
    """Raise EditableRefused for editables that may not be: all for "refuse", else those that rebuild themselves."""
    rebuilding = tuple(editable for editable in editables if editable.rebuilds)
    if rebuilding:
        is_are = "is a rebuilding editable" if len(names_of(rebuilding)) == 1 else "are rebuilding editables"
        loaders = ", ".join(sorted({editable.loader for editable in rebuilding}))
        what = f"{list_names(rebuilding)} {is_are} ({loaders}): every rank would run its build"
        raise EditableRefused(what, hint=install_hint(rebuilding))
    if mode == "refuse" and editables:
        is_are = "is an editable install" if len(names_of(editables)) == 1 else "are editable installs"
        raise EditableRefused(
            f"{list_names(editables)} {is_are}, read from '{printable_path(editables[0].path)}'",
            hint=f"{install_hint(editables)}; or bring the code along with --editable snapshot",
        )


def snapshot_too_large(size: int, editables: tuple[Editable, ...]) -> EditableRefused:
    """Return the error for a snapshot of `size` bytes, which is above SIZE_LIMIT."""
    return EditableRefused(
        f"the code of {list_names(editables)} is {format_bytes(size)}, more than the {format_bytes(SIZE_LIMIT)} that "
        "are brought along",
        hint=f"leave it where it is with --editable keep; or {install_hint(editables)}",
    )


def names_of(editables: tuple[Editable, ...]) -> tuple[str, ...]:
    """Return the distinct names of editables."""
    return tuple(dict.fromkeys(editable.name for editable in editables))


def list_names(editables: tuple[Editable, ...]) -> str:
    """Return the first three names, and how many more there are."""
    names = names_of(editables)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def install_hint(editables: tuple[Editable, ...]) -> str:
    """Return the hint to install editables normally."""
    projects = dict.fromkeys(printable_path(editable.project or editable.path) for editable in editables)
    return f"install it normally: pip install {' '.join(projects)}"
