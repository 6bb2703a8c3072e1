"""What a python says of itself, for every version, and pyvenv.cfg, of which everything else stays as it is."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.errors import InterpreterBroken
from ezpz.process import Stopped
from ezpz.yeet.relocate.interpreter import probe, python_of, settings, with_settings
from tests.contract.doors import interpreter

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
CONFIGURATION = b"""\
home = /opt/py/bin
implementation = CPython
include-system-site-packages = false
Base-Prefix = /opt/py
base-executable=/opt/py/bin/python3.11
prompt = 'my = prompt'
"""
NAMES = st.sampled_from([b"home", b"executable", b"base-prefix", b"prompt", b"command", b"extra"])
VALUES = st.binary(max_size=12).map(lambda value: bytes(b for b in value if b not in b"\r\n").strip(b" \t"))
LINES = st.lists(st.tuples(NAMES, st.sampled_from([b" = ", b"=", b" =", b"\t= "]), VALUES), max_size=6)


def text(lines: list[tuple[bytes, bytes, bytes]]) -> bytes:
    return b"".join(name + middle + value + b"\n" for name, middle, value in lines)


class TestSettings:
    """`pyvenv.cfg`, as site.py reads it: a name, an equals sign, a value, each stripped."""

    def test_names_are_in_lower_case(self) -> None:
        assert settings(CONFIGURATION) == {
            b"home": b"/opt/py/bin", b"implementation": b"CPython", b"include-system-site-packages": b"false",
            b"base-prefix": b"/opt/py", b"base-executable": b"/opt/py/bin/python3.11", b"prompt": b"'my = prompt'",
        }  # fmt: skip

    def test_what_is_no_setting_is_none(self) -> None:
        assert settings(b"# a comment\nno setting\n\n = nothing\n") == {}

    def test_case_05_only_the_values_of_those_that_are_there_change(self) -> None:
        new = {b"home": b"/new/bin", b"base-prefix": b"/new", b"base-exec-prefix": b"/new"}
        assert with_settings(CONFIGURATION, new) == CONFIGURATION.replace(
            b"home = /opt/py/bin", b"home = /new/bin"
        ).replace(b"Base-Prefix = /opt/py", b"Base-Prefix = /new")

    def test_ends_of_lines_stay(self) -> None:
        assert with_settings(b"home = /a\r\nx = 1", {b"home": b"/b"}) == b"home = /b\r\nx = 1"

    def test_a_value_that_looks_like_a_pattern(self) -> None:
        assert with_settings(b"home = /a\n", {b"home": rb"/\1\g<0>"}) == b"home = /\\1\\g<0>\n"

    @given(LINES, st.dictionaries(NAMES, VALUES, max_size=4))
    def test_afterwards_it_says_the_new_values_and_no_others(
        self, lines: list[tuple[bytes, bytes, bytes]], new: dict[bytes, bytes]
    ) -> None:
        before = text(lines)
        after = with_settings(before, new)
        assert settings(after) == {name: new.get(name, value) for name, value in settings(before).items()}
        assert with_settings(after, new) == after
        assert len(after.splitlines()) == len(before.splitlines())

    @given(st.binary())
    def test_no_new_values_no_change(self, data: bytes) -> None:
        assert with_settings(data, {}) == data


class TestPythonOf:
    """Where the python of an environment is."""

    def test_the_first_name_that_is_there(self, tmp_path: Path) -> None:
        root = os.fsencode(tmp_path)
        assert python_of(root) is None
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python3").symlink_to("/nowhere")
        assert python_of(root) == root + b"/bin/python3"
        (tmp_path / "bin" / "python").symlink_to("python3")
        assert python_of(root) == root + b"/bin/python"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asked")


@pytest.mark.parametrize("version", VERSIONS)
def test_case_01_what_a_venv_of_each_version_says(folder: Path, version: str) -> None:
    base = os.path.realpath(interpreter(version))
    root = folder / version
    subprocess.run([base, "-m", "venv", "--without-pip", str(root)], check=True)
    library = f"lib/python{version}"
    (root / library / "site-packages" / "sitecustomize.py").touch()  # which every start imports
    found = probe(os.fsencode(root / "bin" / "python"))
    top = Path(base).parents[1]
    assert found.version.startswith(f"{version}.")
    assert found.name.startswith(f"Python {version}.")
    assert found.prefix == os.fsencode(root)
    assert found.base_prefix == os.fsencode(top)
    assert found.base_executable == os.fsencode(base)
    assert (found.stdlib, found.platstdlib) == (os.fsencode(top / library),) * 2
    assert found.site_packages == (os.fsencode(root / library / "site-packages"),)
    assert found.base_site_packages == (os.fsencode(top / library / "site-packages"),)
    assert found.dynload == (os.fsencode(top / library / "lib-dynload"),)
    assert found.tag == b"cpython-%b" % version.replace(".", "").encode()
    assert len(found.magic) == 4
    assert {"ctypes", "zlib"} <= set(found.imports)
    assert found.user_site.endswith(f"/{library}/site-packages".encode())
    assert not list(root.rglob("*.pyc")), "asking wrote into the environment"


class TestBroken:
    """A python that does not start is told as what it is."""

    def test_a_link_to_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "python").symlink_to("/no/such/python3.11")
        with pytest.raises(InterpreterBroken, match=r"leads to nothing \('/no/such/python3\.11'\)") as caught:
            probe(os.fsencode(tmp_path / "python"))
        assert "load its module" in caught.value.hint

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("echo 'x: error while loading shared libraries: libpython3.11.so.1.0: cannot open' >&2; exit 127",
             "does not start: libpython3.11.so.1.0 not found"),
            ("echo 'first' >&2; echo 'No module named x' >&2; exit 1", "does not start: No module named x"),
            ("printf 'Fatal Python error: init\\nImportError: No x\\n\\nThread:\\n <no frame>\\n' >&2; exit 1",
             "does not start: ImportError: No x"),
            ("exit 3", "does not start: it ended with exit status 3"),
            ("echo no answer", "does not start: it ended with exit status 0"),
        ],
    )  # fmt: skip
    def test_case_08_what_it_said(self, tmp_path: Path, script: str, message: str) -> None:
        python = self._fake(tmp_path, script)
        with pytest.raises(InterpreterBroken) as caught:
            probe(python)
        assert caught.value.message == f"'{os.fsdecode(python)}' {message}"
        assert ("module load" in caught.value.hint) == ("libpython" in message)

    def test_what_it_prints_besides_does_not_matter(self, tmp_path: Path) -> None:
        """As what a .pth file runs may do."""
        python = self._fake(tmp_path, f'echo hello; echo "{{}}"; exec {interpreter("3.11")} "$@"')
        assert probe(python).version.startswith("3.11.")

    def test_it_is_stopped(self, tmp_path: Path) -> None:
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Stopped):
            probe(self._fake(tmp_path, "sleep 60"), stop)

    def _fake(self, folder: Path, script: str) -> bytes:
        path = folder / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return os.fsencode(path)


def test_the_users_settings_are_not_heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('taken')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert probe(os.fsencode(interpreter("3.11"))).version.startswith("3.11.")
