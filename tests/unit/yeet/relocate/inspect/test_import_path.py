"""What a session adds to every import is found before it costs every rank."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ezpz.yeet.relocate.inspect.import_path import ImportDirectory, extra_import_directories

if TYPE_CHECKING:
    from pathlib import Path

WORKING = b"/shared/job"


def is_local(path: bytes) -> bool:
    return path.startswith(b"/tmp/local")


def test_case_29_pythonpath_and_the_working_directory() -> None:
    environ = {"PYTHONPATH": "/shared/a:/tmp/local/b::../lib:/shared/a/"}
    assert extra_import_directories(environ, WORKING, user_site_of="", is_local=is_local) == (
        ImportDirectory("python-path", b"/shared/a"),
        ImportDirectory("python-path", b"/shared/lib"),
        ImportDirectory("working-directory", WORKING),
    )
    assert extra_import_directories({}, b"/tmp/local/job", user_site_of="", is_local=is_local) == ()
    assert extra_import_directories({"PYTHONSAFEPATH": "1"}, WORKING, user_site_of="", is_local=is_local) == ()


def test_case_29_the_user_site_when_python_looks_into_it(tmp_path: Path) -> None:
    home, other = {"HOME": str(tmp_path)}, {"PYTHONUSERBASE": str(tmp_path / "base"), "HOME": "/nowhere"}
    site = tmp_path / ".local" / "lib" / "python3.11" / "site-packages"
    safe = {"PYTHONSAFEPATH": "1"}

    def found(environ: dict[str, str], version: str = "3.11") -> tuple[ImportDirectory, ...]:
        return extra_import_directories({**environ, **safe}, WORKING, user_site_of=version, is_local=lambda _: False)

    assert found(home) == ()  # it is not there
    site.mkdir(parents=True)
    (tmp_path / "base" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    assert found(home) == (ImportDirectory("user-site", os.fsencode(site)),)
    assert found(other) == (ImportDirectory("user-site", os.fsencode(tmp_path / "base/lib/python3.11/site-packages")),)
    assert found(home, "3.12") == found(home, "") == found({**home, "PYTHONNOUSERSITE": "1"}) == found({}) == ()
