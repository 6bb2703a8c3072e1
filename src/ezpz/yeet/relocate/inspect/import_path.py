"""Find the directories that imports search in addition to the environment, by variables and the working directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class ImportDirectory(NamedTuple):
    """A directory that imports search.

    Attributes:
        case: Case of the warning: "python-path", "user-site", or "working-directory".
        path: Its path.
    """

    case: str
    path: bytes


def extra_import_directories(
    environ: Mapping[str, str],
    working_directory: bytes,
    *,
    user_site_of: str,
    is_local: Callable[[bytes], bool],
) -> tuple[ImportDirectory, ...]:
    """Return the directories not on a node's own disk that every import searches.

    They come from variables, the user's site-packages, and the working directory.

    Args:
        environ: Environment variables of the session.
        working_directory: Path of the working directory.
        user_site_of: Version ("3.11") of a python that searches the user's site-packages, else "". The python of a venv
            does so only with include-system-site-packages.
        is_local: Returns whether a path is on a disk of the node itself, or in the environment.
    """
    entries = [os.fsencode(entry) for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    found = [
        ImportDirectory("python-path", os.path.normpath(os.path.join(working_directory, entry))) for entry in entries
    ]
    home = environ.get("HOME", "")
    base = environ.get("PYTHONUSERBASE") or (os.path.join(home, ".local") if home else "")
    if user_site_of and base and not environ.get("PYTHONNOUSERSITE"):
        site = os.fsencode(os.path.join(base, "lib", f"python{user_site_of}", "site-packages"))
        if os.path.isdir(site):  # python adds it only then
            found.append(ImportDirectory("user-site", site))
    if not environ.get("PYTHONSAFEPATH"):
        found.append(ImportDirectory("working-directory", working_directory))
    return tuple(dict.fromkeys(each for each in found if not is_local(each.path)))
