"""Which directories every import looks into besides the environment, by the session's variables and directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Searched(NamedTuple):
    """A directory that imports look into; `case` is the notice's: "python-path", "user-site" or "working-directory"."""

    case: str
    path: bytes


def searched(
    environ: Mapping[str, str],
    working: bytes,
    *,
    user_site_of: str,
    is_local: Callable[[bytes], bool],
) -> tuple[Searched, ...]:
    """What the variables, the user's site-packages and the working directory add that is on no disk of a node's own.

    working: the working directory
    user_site_of: the version ("3.11") of a python that looks into the user's site-packages, else ""; that of a venv
        does so only with include-system-site-packages
    is_local: whether a path is on a disk that a node has itself, or in the environment
    """
    entries = [os.fsencode(entry) for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    found = [Searched("python-path", os.path.normpath(os.path.join(working, entry))) for entry in entries]
    home = environ.get("HOME", "")
    base = environ.get("PYTHONUSERBASE") or (os.path.join(home, ".local") if home else "")
    if user_site_of and base and not environ.get("PYTHONNOUSERSITE"):
        site = os.fsencode(os.path.join(base, "lib", f"python{user_site_of}", "site-packages"))
        if os.path.isdir(site):  # python adds it only then
            found.append(Searched("user-site", site))
    if not environ.get("PYTHONSAFEPATH"):
        found.append(Searched("working-directory", working))
    return tuple(dict.fromkeys(each for each in found if not is_local(each.path)))
