"""What a python says of itself, for every version, and pyvenv.cfg, of which everything else stays as it is."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.errors import InterpreterBroken, LimitReached
from ezpz.yeet.relocate.formats.pyvenv_cfg import parse_settings, replace_settings
from ezpz.yeet.relocate.inspect.interpreter import find_python, probe
from tests.contract.doors import INSTALLED, interpreter
from tests.unit.processes import alive
from tests.unit.yeet.programs import library, made_up, needs_gcc, program
from tests.waiting import act_when, wait_until

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
        assert parse_settings(CONFIGURATION) == {
            b"home": b"/opt/py/bin", b"implementation": b"CPython", b"include-system-site-packages": b"false",
            b"base-prefix": b"/opt/py", b"base-executable": b"/opt/py/bin/python3.11", b"prompt": b"'my = prompt'",
        }  # fmt: skip

    def test_what_is_no_setting_is_none(self) -> None:
        assert parse_settings(b"# a comment\nno setting\n\n = nothing\n") == {}

    def test_case_05_only_the_values_of_those_that_are_there_change(self) -> None:
        new = {b"home": b"/new/bin", b"base-prefix": b"/new", b"base-exec-prefix": b"/new"}
        assert replace_settings(CONFIGURATION, new) == CONFIGURATION.replace(
            b"home = /opt/py/bin", b"home = /new/bin"
        ).replace(b"Base-Prefix = /opt/py", b"Base-Prefix = /new")

    def test_ends_of_lines_stay(self) -> None:
        assert replace_settings(b"home = /a\r\nx = 1", {b"home": b"/b"}) == b"home = /b\r\nx = 1"

    def test_a_value_that_looks_like_a_pattern(self) -> None:
        assert replace_settings(b"home = /a\n", {b"home": rb"/\1\g<0>"}) == b"home = /\\1\\g<0>\n"

    @given(LINES, st.dictionaries(NAMES, VALUES, max_size=4))
    def test_afterwards_it_says_the_new_values_and_no_others(
        self, lines: list[tuple[bytes, bytes, bytes]], new: dict[bytes, bytes]
    ) -> None:
        before = text(lines)
        after = replace_settings(before, new)
        assert parse_settings(after) == {name: new.get(name, value) for name, value in parse_settings(before).items()}
        assert replace_settings(after, new) == after
        assert len(after.splitlines()) == len(before.splitlines())

    @given(st.binary())
    def test_no_new_values_no_change(self, data: bytes) -> None:
        assert replace_settings(data, {}) == data


class TestPythonOf:
    """Where the python of an environment is."""

    def test_the_first_name_that_is_there(self, tmp_path: Path) -> None:
        root = os.fsencode(tmp_path)
        assert find_python(root) is None
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python3").symlink_to("/nowhere")
        assert find_python(root) == root + b"/bin/python3"
        (tmp_path / "bin" / "python").symlink_to("python3")
        assert find_python(root) == root + b"/bin/python"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asked")


@pytest.mark.processes
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

    @pytest.mark.processes
    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("echo 'x: error while loading shared libraries: libpython3.11.so.1.0: cannot open' >&2; exit 127",
             "does not start: libpython3.11.so.1.0 not found"),
            ("echo 'first' >&2; echo 'No module named x' >&2; exit 1",
             "does not start: exit status 1: No module named x"),
            ("printf 'Fatal Python error: init\\nImportError: No x\\n\\nThread:\\n <no frame>\\n' >&2; exit 1",
             "does not start: exit status 1: ImportError: No x"),
            ("exit 3", "does not start: exit status 3"),
            ("kill -SEGV $$", "does not start: ended by SIGSEGV"),
            ("echo no answer", "does not answer as a python does"),
            ("echo ezpz:notjson", "does not answer as a python does"),
            ("echo ezpz:[1]", "does not answer as a python does"),
            ("echo 'ezpz:{}'", "does not answer as a python does"),
            ("printf 'ezpz:\\377\\n'", "does not answer as a python does"),
        ],
    )  # fmt: skip
    def test_case_08_what_it_said(self, tmp_path: Path, script: str, message: str) -> None:
        python = self._fake(tmp_path, script)
        with pytest.raises(InterpreterBroken) as caught:
            probe(python)
        assert caught.value.message == f"'{os.fsdecode(python)}' {message}"
        assert caught.value.hint
        assert ("module load" in caught.value.hint) == ("libpython" in message)

    @pytest.mark.processes
    def test_what_it_prints_besides_does_not_matter(self, tmp_path: Path) -> None:
        """As what a .pth file runs may do."""
        python = self._fake(tmp_path, f'echo hello; echo "{{}}"; printf ezpz:; exec {interpreter("3.11")} "$@"')
        assert probe(python).version.startswith("3.11.")

    @pytest.mark.processes
    def test_it_is_stopped(self, tmp_path: Path) -> None:
        cancel, begun = CancelToken(), tmp_path / "begun"
        watcher = act_when(begun.exists, cancel.cancel)
        with pytest.raises(Cancelled):
            probe(self._fake(tmp_path, f"touch {begun}; sleep 600"), cancel)
        watcher.join()

    @pytest.mark.processes
    def test_one_that_does_not_end_in_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ezpz.yeet.relocate.inspect.interpreter.PROBE_TIMEOUT", 0.3)
        with pytest.raises(InterpreterBroken, match=r"bin/python' did not end within 0\.3 s") as caught:
            probe(self._fake(tmp_path / "bin", "sleep 600"))
        assert "--base keep" in caught.value.hint

    @pytest.mark.processes
    @pytest.mark.parametrize("apart", [False, True])
    def test_what_a_pth_file_leaves_running_is_not_waited_for(self, tmp_path: Path, *, apart: bool) -> None:
        subprocess.run([interpreter("3.11"), "-m", "venv", "--without-pip", str(tmp_path)], check=True)
        pid = tmp_path / "pid"
        stays = ["sh", "-c", f"echo $$ > {pid}; exec sleep 600"]
        left = f"import subprocess; subprocess.Popen({stays}, start_new_session={apart})"
        (tmp_path / "lib/python3.11/site-packages/x.pth").write_text(left + "\n")
        assert probe(os.fsencode(tmp_path / "bin" / "python")).version.startswith("3.11.")
        if apart:
            running = int(wait_until(lambda: pid.exists() and pid.read_text().strip()))
            assert alive(running)
            os.kill(running, signal.SIGKILL)

    @pytest.mark.parametrize("what", ["a folder", "a file that is no program"])
    def test_one_that_may_not_be_executed(self, tmp_path: Path, what: str) -> None:
        python = tmp_path / "python"
        python.mkdir() if what == "a folder" else python.write_text("#!/bin/sh\n")
        with pytest.raises(InterpreterBroken, match="python' may not be executed") as caught:
            probe(os.fsencode(python))
        assert "PATH" not in caught.value.hint

    @pytest.mark.processes
    @pytest.mark.parametrize(
        ("order", "machine", "name"),
        [("<", 183, "aarch64"), (">", 21, "ppc64"), ("<", 21, "ppc64"), ("<", 0xFFF0, "ELF machine 65520")],
    )
    def test_one_of_another_architecture(self, tmp_path: Path, order: str, machine: int, name: str) -> None:
        data = bytearray(made_up(64, order))
        data[18:20] = struct.pack(order + "H", machine)
        python = tmp_path / "python"
        python.write_bytes(data)
        python.chmod(0o755)
        with pytest.raises(InterpreterBroken) as caught:
            probe(os.fsencode(python))
        told = f"'{python}' is made for another kind of machine ({name}) than this host ({os.uname().machine})"
        assert caught.value.message == told
        assert caught.value.hint

    @pytest.mark.processes
    @pytest.mark.parametrize("content", [b"", b"neither nor", b"\x7fELF", b"#!/no/such/shell\n"])
    def test_one_that_is_no_program_at_all(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "python").write_bytes(content)
        (tmp_path / "python").chmod(0o755)
        with pytest.raises(InterpreterBroken, match="python' cannot be started: "):
            probe(os.fsencode(tmp_path / "python"))

    def test_a_host_that_is_out_of_processes_is_not_the_fault_of_the_python(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

        python = self._fake(tmp_path, "exit 1")
        monkeypatch.setattr("subprocess.Popen", full)
        with pytest.raises(LimitReached, match="Resource temporarily unavailable"):
            probe(python)

    @pytest.mark.processes
    @pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
    def test_one_that_is_too_old(self, version: str) -> None:
        python = next(iter(sorted(INSTALLED.glob(f"{version}.*/bin/python{version}"))), None)
        if python is None:
            pytest.skip(f"Python {version} is not here")
        with pytest.raises(InterpreterBroken) as caught:
            probe(os.fsencode(python))
        assert caught.value.message == f"'{python}': Python {version} is too old: 3.8 to 3.14 can be relocated"
        assert "--base keep" in caught.value.hint

    def _fake(self, folder: Path, script: str) -> bytes:
        path = folder / "python"
        folder.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return os.fsencode(path)


@pytest.mark.processes
def test_the_users_settings_are_not_heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('taken')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert probe(os.fsencode(interpreter("3.11"))).version.startswith("3.11.")


@pytest.mark.processes
@needs_gcc
def test_it_finds_its_libraries_as_the_users_session_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By LD_LIBRARY_PATH, which a module of the system may have set."""
    needed = library(tmp_path / "lib" / "libneeded.so", "x")
    python = program(tmp_path / "python", needed)
    with pytest.raises(InterpreterBroken, match=r"libneeded\.so not found"):
        probe(os.fsencode(python))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(needed.parent))
    with pytest.raises(InterpreterBroken, match="does not answer"):
        probe(os.fsencode(python))
