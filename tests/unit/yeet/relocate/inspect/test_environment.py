"""Relocation of an environment: its old names are found, what names them follows, and the base never does."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.agent.common.cancel import Cancelled, CancelToken
from ezpz.errors import InterpreterBroken, PrefixUnknown
from ezpz.yeet.model.source import Kind
from ezpz.yeet.model.warnings import SourceWarnings
from ezpz.yeet.relocate.additions.plan import Snapshot, plan_relocation
from ezpz.yeet.relocate.formats.prefix import PrefixMap
from ezpz.yeet.relocate.in_place import relocate_tree
from ezpz.yeet.relocate.inspect.aliases import find_aliases
from ezpz.yeet.relocate.inspect.environment import Environment, inspect_environment, link_policy_of
from ezpz.yeet.relocate.inspect.tree_reader import TreeReader
from ezpz.yeet.relocate.options import RelocationOptions
from ezpz.yeet.relocate.recorder import RelocationRecorder
from ezpz.yeet.relocate.relocation import Relocation
from tests.contract.doors import interpreter
from tests.unit.yeet.programs import made_up
from tests.waiting import DEADLINE

NEW = b"/tmp/env"
MOVES = PrefixMap({b"/p/venv": NEW})
MOVED = Relocation(NEW, text=MOVES, links=MOVES, root=b"/p/venv")
VENV_VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


def inspected(
    root: bytes,
    known: tuple[bytes, ...],
    kind: Kind = Kind.VENV,
    notices: SourceWarnings | None = None,
    **options: Any,
) -> Environment:
    return inspect_environment(root, kind, known, RelocationOptions(**options), {}, notices or SourceWarnings())


def found(files: dict[bytes, bytes], *known: bytes) -> set[bytes]:
    """The aliases of an environment that holds these files."""
    scripts = [files[path] for path in sorted(files) if path.startswith(b"bin/")]
    return set(find_aliases(known, read=files.get, scripts=scripts))


def written(root: Path, files: dict[str, str]) -> bytes:
    """A tree of these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return os.fsencode(root)


class TestAliases:
    """An environment goes by more names than the one it was given by."""

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            (b"bin/activate", b'VIRTUAL_ENV="/was/here"\nexport VIRTUAL_ENV\n'),
            (b"bin/activate", b"VIRTUAL_ENV='/was/here'\n"),
            (b"bin/activate", b"VIRTUAL_ENV=/was/here\n"),
            (b"bin/activate", b"    export VIRTUAL_ENV=/was/here\n"),
            (b"bin/activate", b"    VIRTUAL_ENV=$(cygpath '/was/here')\nVIRTUAL_ENV='/was/here'\n"),
            (b"bin/activate.csh", b'setenv VIRTUAL_ENV "/was/here"\n'),
            (b"bin/activate.csh", b"setenv VIRTUAL_ENV /was/here\n"),
            (b"bin/activate.fish", b'set -gx VIRTUAL_ENV "/was/here"\n'),
            (b"bin/activate.fish", b"set -gx VIRTUAL_ENV /was/here\n"),
            (b"pyvenv.cfg", b"home = /usr/bin\ncommand = /usr/bin/python3 -m venv /was/here\n"),
            (b"pyvenv.cfg", b"home = /usr/bin\ncommand = /usr/bin/python3 -m venv --copies /was/here\n"),
        ],
    )
    def test_what_the_files_say_is_an_alias(self, path: bytes, text: bytes) -> None:
        assert b"/was/here" in found({path: text}, b"/is/here")

    def test_shebangs_are_asked_and_the_most_common_counts(self) -> None:
        scripts = {b"bin/a%d" % number: b"#!/was/here/bin/python3\n" for number in range(3)}
        scripts[b"bin/b"] = b"#!/usr/bin/python3\n"
        scripts[b"bin/c"] = b"#!/bin/sh\n"
        assert found(scripts, b"/is/here") == {b"/was/here", b"/is/here"}

    def test_one_script_of_another_environment_does_not_make_that_an_alias(self) -> None:
        files = {b"bin/activate": b'VIRTUAL_ENV="/was/here"\n', b"bin/x": b"#!/another/env/bin/python3\n"}
        assert found(files, b"/is/here") == {b"/was/here", b"/is/here"}

    def test_as_given_and_resolved(self) -> None:
        assert found({}, b"/link/env", b"/real/env") == {b"/link/env", b"/real/env"}

    @pytest.mark.parametrize("line", [b"home = /opt/py/bin", b"base-prefix = /opt/py", b"base-exec-prefix = /opt/py"])
    def test_the_base_is_never_an_alias(self, line: bytes) -> None:
        files = {b"pyvenv.cfg": line + b"\n", b"bin/x": b"#!/opt/py/bin/python3\n"}
        assert found(files, b"/is/here") == {b"/is/here"}

    @pytest.mark.parametrize("kind", [Kind.TOOL, Kind.DATA])
    def test_a_tree_that_is_no_environment_has_its_own_names_and_keeps_its_text(
        self, kind: Kind, tmp_path: Path
    ) -> None:
        root = written(tmp_path, {"bin/activate": "VIRTUAL_ENV=/was/here\n"})
        environment = inspected(root, (b"/is/here",), kind=kind)
        assert (environment.aliases, environment.interpreter, environment.base) == ((b"/is/here",), None, None)
        relocation = plan_relocation(NEW, environment, root, None, Snapshot())
        assert relocation.text.is_empty
        assert not relocation.may_change_content(b"bin/activate")
        assert relocation.links.moves == ((b"/is/here", NEW),)

    def test_an_environment_at_the_top_of_the_filesystem_has_one(self) -> None:
        """As in many a container."""
        assert found({b"bin/activate": b"VIRTUAL_ENV=/venv\n"}, b"/venv") == {b"/venv"}

    @pytest.mark.parametrize("top", [b"/usr", b"/opt", b"/"])
    def test_a_shebang_of_the_system_is_no_alias(self, top: bytes) -> None:
        assert found({b"bin/x": b"#!" + top.rstrip(b"/") + b"/bin/python3\n"}, b"/is/here") == {b"/is/here"}

    def test_a_conda_environment_is_known_by_its_shebangs(self) -> None:
        files = {b"bin/x": b"#!/conda/envs/a/bin/python3.11\n"}
        assert found(files, b"/is/here") == {b"/conda/envs/a", b"/is/here"}

    def test_case_19_a_conda_environment_is_known_by_its_history(self) -> None:
        files = {b"conda-meta/history": b"# cmd: /opt/conda/bin/conda create -y -p /conda/envs/a python\n"}
        assert found(files) == {b"/conda/envs/a"}

    @pytest.mark.parametrize(
        "files",
        [
            {b"bin/activate": b"    VIRTUAL_ENV='/was/here'\n"},
            {b"bin/activate.nu": b"    const virtual_env = '/x'\n    let VIRTUAL_ENV = '/was/here'\n"},
            {b"bin/activate.xsh": b'    $VIRTUAL_ENV = "/was/here"\n'},
            {b"bin/a": b"#!/bin/sh\n'''exec' \"/was/here/bin/python\" \"$0\" \"$@\"\n' '''\n"},
            {b"bin/a": b"#!/was/here/bin/python3.12\n"},
        ],
    )
    def test_case_19_an_archive_is_known_by_what_its_files_say(self, files: dict[bytes, bytes]) -> None:
        assert found(files) == {b"/was/here"}


class TestLinks:
    """What points into the environment by its full path becomes relative; all else stays."""

    @pytest.mark.parametrize(
        ("path", "target", "after"),
        [
            (b"bin/python", b"/p/venv/bin/python3", b"python3"),
            (b"lib64", b"/p/venv/lib", b"lib"),
            (b"a/b/up", b"/p/venv/lib/x", b"../../lib/x"),
            (b"a/b/top", b"/p/venv", b"../.."),
            (b"top", b"/p/venv/", b"."),
            (b"odd", b"/p/venv/lib/../bin//x", b"bin/x"),
            (b"bin/python", b"/usr/bin/python3", b"/usr/bin/python3"),
            (b"bin/x", b"/p/venv-2/bin/x", b"/p/venv-2/bin/x"),
            (b"bin/x", b"/p/venv/../other", b"/p/venv/../other"),
            (b"bin/x", b"python3", b"python3"),
            (b"bin/x", b"../lib/x", b"../lib/x"),
            (b"bin/x", b"p/venv/x", b"p/venv/x"),
            (b"bin/x", b"/p/venv/\xff\n", b"../\xff\n"),
        ],
    )
    def test_targets(self, path: bytes, target: bytes, after: bytes) -> None:
        assert MOVED.relocate_link(path, target) == after

    @given(
        st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4),
        st.lists(st.sampled_from([b"a", b"b"]), max_size=4),
    )
    def test_the_relative_link_leads_to_the_same_place(self, path: list[bytes], inside: list[bytes]) -> None:
        link = MOVED.relocate_link(b"/".join(path), b"/".join([b"/p/venv", *inside]))
        there = os.path.normpath(os.path.join(b"/new", *path[:-1], link))
        assert there == os.path.normpath(os.path.join(b"/new", *inside))

    @pytest.mark.parametrize(
        ("path", "target", "after"),
        [
            (b"x", b"../other/x", b"/p/other/x"),
            (b"bin/x", b"../../other/x", b"/p/other/x"),
            (b"bin/x", b"../../venv/lib/x", b"../lib/x"),
            (b"bin/x", b"../../venv-2/x", b"/p/venv-2/x"),
        ],
    )
    def test_case_36_a_relative_link_that_leads_out_leads_there_still(
        self, path: bytes, target: bytes, after: bytes
    ) -> None:
        assert MOVED.relocate_link(path, target) == after
        assert Relocation(NEW, links=MOVES).relocate_link(path, target) == target  # it stood nowhere

    def test_a_link_into_what_comes_along_leads_into_that(self) -> None:
        moves = PrefixMap({b"/p/venv": NEW, b"/opt/py": NEW + b"/.python"})
        relocation = Relocation(NEW, links=moves, root=b"/p/venv")
        assert relocation.relocate_link(b"bin/python3", b"/opt/py/bin/python3") == b"../.python/bin/python3"


class TestContent:
    """Which files are looked at, and what becomes of them."""

    @pytest.mark.parametrize(
        ("path", "wanted"),
        [
            (b"pyvenv.cfg", True), (b"bin/pip", True), (b"bin/activate.fish", True), (b"etc/profile.d/x.sh", True),
            (b"etc/conda/activate.d/x.sh", True), (b"lib/python3.11/site-packages/x.py", True), (b"bin/sub/x", True),
            (b"lib/x.so", True), (b"lib/__pycache__/x.cpython-311.pyc", False), (b"conda-meta/x-1.json", False),
            (b"conda-meta/history", True), (b"share/conda-meta/x.json", True), (b"README", True),
        ],
    )  # fmt: skip
    def test_which_files_are_looked_at(self, path: bytes, *, wanted: bool) -> None:
        assert MOVED.may_change_content(path) is wanted
        assert not Relocation(NEW).may_change_content(path)
        assert not Relocation(NEW, links=MOVES).may_change_content(path)

    @pytest.mark.parametrize(
        "path", [b"bin/tool", b"lib/python3.11/site-packages/x.py", b"share/kernel.json", b"README"]
    )
    def test_case_17_text_follows_wherever_it_is_and_binaries_do_not(self, path: bytes) -> None:
        text = MOVED.relocate_content(path, b"/p/venv/bin/python /p/venv-2\n")
        assert text is not None
        assert (text.data, text.replaced, text.case) == (b"/tmp/env/bin/python /p/venv-2\n", 1, "")
        binary = MOVED.relocate_content(path, b"\x7fELX\0/p/venv\0")
        assert binary is not None
        assert (binary.data, binary.replaced, binary.case) == (b"\x7fELX\0/p/venv\0", 0, "baked-prefix")
        assert MOVED.relocate_content(path, b"nothing of it\n") is None
        assert MOVED.relocate_content(path, b"/p/venv-2\n") is None

    def test_case_23_a_record_of_hashes_stays_as_it_is(self) -> None:
        """What it says of a patched file is out of date then; `pip check` and `pip uninstall` do not look."""
        record = b"../../../bin/tool,sha256=AAAA,223\nx/__init__.py,sha256=BBBB,10\nx-1.dist-info/RECORD,,\n"
        assert MOVED.relocate_content(b"lib/python3.11/site-packages/x-1.dist-info/RECORD", record) is None

    def test_one_that_stays_where_it_is_needs_nothing(self) -> None:
        assert not Relocation(NEW).is_needed
        assert not Relocation(NEW, text=PrefixMap({NEW: NEW})).is_needed
        assert Relocation(NEW).relocate_content(b"bin/tool", b"/p/venv") is None

    def test_its_digest_tells_what_it_makes(self) -> None:
        others = [
            Relocation(NEW),
            Relocation(b"/tmp/other"),
            Relocation(NEW, text=MOVES),
            Relocation(NEW, links=MOVES),
            Relocation(NEW, python=b".python/bin/python3"),
            Relocation(NEW, configuration={b"home": b"/x"}),
            MOVED,
        ]
        assert len({each.digest for each in others}) == len(others)
        assert Relocation(NEW, text=PrefixMap({b"/p/venv": NEW}), links=MOVES, root=b"/p/venv").digest == MOVED.digest


class TestExamine:
    """What a tree tells of itself, and what it must tell."""

    def test_case_19_an_archive_that_tells_nothing_is_refused_unless_one_says_where_it_stood(
        self, tmp_path: Path
    ) -> None:
        root = written(tmp_path, {"pyvenv.cfg": "home = /usr/bin\n", "bin/x": "#!/usr/bin/env sh\n"})
        with pytest.raises(PrefixUnknown, match="cannot determine the original prefix") as caught:
            inspected(root, ())
        assert "--orig-prefix" in caught.value.hint
        assert inspected(root, (), orig_prefix="/was/here").aliases == (b"/was/here",)
        assert inspected(root, (b"/p/venv",)).aliases == (b"/p/venv",)

    @pytest.mark.parametrize(
        "files",
        [
            {"pyvenv.cfg": "home = /usr/bin\nrelocatable = true\n"},
            {"bin/x": "#!/bin/sh\n'''exec' \"$(dirname -- \"$0\")/python\" \"$0\" \"$@\"\n' '''\n"},
            {"bin/x": "#!/usr/bin/env python\n"},
        ],
    )
    def test_one_that_was_made_to_be_moved_needs_not_tell(self, tmp_path: Path, files: dict[str, str]) -> None:
        root = written(tmp_path, {"pyvenv.cfg": "home = /usr/bin\n"} | files)
        assert inspected(root, ()).aliases == ()

    def test_an_environment_without_a_python_is_noted(self, tmp_path: Path) -> None:
        root = written(tmp_path, {"pyvenv.cfg": "home = /usr/bin\n"})
        notices = SourceWarnings()
        environment = inspected(root, (root,), notices=notices)
        assert (environment.interpreter, environment.base, environment.editables) == (None, None, ())
        assert notices.paths == {"no-interpreter": [b"bin/python"]}

    @pytest.mark.processes
    @pytest.mark.parametrize("python", ["/no/such/python", "/bin/false", "/bin/true"])
    def test_one_whose_python_does_not_start_is_refused_unless_that_may_stay(self, tmp_path: Path, python: str) -> None:
        root = written(tmp_path, {"pyvenv.cfg": "home = /usr/bin\n", "bin/activate": f"VIRTUAL_ENV={tmp_path}\n"})
        (tmp_path / "bin" / "python").symlink_to(python)
        for base in ("auto", "embed"):
            with pytest.raises(InterpreterBroken, match="bin/python"):
                inspected(root, (root,), base=base)
        notices = SourceWarnings()
        environment = inspected(root, (root,), notices=notices, base="keep")
        assert environment.interpreter is None
        assert notices.counts == {"no-interpreter": 1}

    @pytest.mark.processes
    def test_one_that_is_too_old_is_refused_unless_it_may_stay(self, tmp_path: Path) -> None:
        root = written(tmp_path, {"pyvenv.cfg": "home = /usr/bin\n"})
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python").symlink_to(interpreter("3.6"))
        with pytest.raises(InterpreterBroken, match=r"bin/python': Python 3\.6 is too old"):
            inspected(root, (root,))
        notices = SourceWarnings()
        inspected(root, (root,), notices=notices, base="keep")
        assert notices.counts == {"no-interpreter": 1}

    @pytest.mark.processes
    def test_one_of_another_architecture_may_stay(self, tmp_path: Path) -> None:
        root = written(tmp_path, {"pyvenv.cfg": "home = /usr/bin\n", "bin/python": ""})
        (tmp_path / "bin" / "python").write_bytes(made_up(64, ">"))
        (tmp_path / "bin" / "python").chmod(0o755)
        with pytest.raises(InterpreterBroken, match="another kind of machine"):
            inspected(root, (root,))
        assert inspected(root, (root,), base="keep").interpreter is None

    @pytest.mark.processes
    def test_a_pyvenv_cfg_that_is_no_text_is_named(self, tmp_path: Path) -> None:
        root = written(tmp_path, {"bin/tool": "#!/bin/sh\n"})
        (tmp_path / "bin" / "python").symlink_to(interpreter("3.11"))
        (tmp_path / "pyvenv.cfg").write_bytes(b"home = \xff\xfe\n")
        with pytest.raises(InterpreterBroken) as caught:
            inspected(root, (root,))
        assert caught.value.message == f"'{tmp_path}/pyvenv.cfg' is damaged: it is no text"
        assert "make the environment again" in caught.value.hint
        notices = SourceWarnings()
        inspected(root, (root,), notices=notices, base="keep")
        assert notices.counts == {"no-interpreter": 1}


def bytes_read() -> int:
    """How much this process has read so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names of the files that are opened by their descriptors."""
    names: list[bytes] = []
    really = os.open

    def noting(path: bytes, flags: int, *more: int, **where: int) -> int:
        names.append(os.path.basename(os.fsencode(path)))
        return really(path, flags, *more, **where)

    monkeypatch.setattr("os.open", noting)
    return names


class TestFolder:
    """A tree on a shared filesystem is asked for little, and nothing in it keeps us waiting."""

    def test_the_beginning_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(bytes(range(256)) * 64)
        folder = TreeReader(os.fsencode(tmp_path))
        before = bytes_read()
        assert folder.head(b"file", 100) == bytes(range(100))
        assert bytes_read() - before < 4096
        assert folder.head(b"file", 1 << 20) == folder.read(b"file") == folder.read_whole(b"file")

    def test_what_is_no_file_of_the_tree_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("file")
        (tmp_path / "round").symlink_to("round")
        os.mkfifo(tmp_path / "pipe")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "socket"))
        folder = TreeReader(os.fsencode(tmp_path))
        for name in (b"folder", b"link", b"round", b"round/x", b"pipe", b"socket", b"none", b"none/x", b"file/x"):
            assert (folder.head(name, 9), folder.read(name), folder.read_whole(name)) == (None, None, None)
        assert folder.names(b"none") == folder.names(b"file") == ()

    def test_a_large_file_is_read_only_whole(self, tmp_path: Path) -> None:
        with open(tmp_path / "file", "wb") as file:
            file.truncate((4 << 20) + 1)
        folder = TreeReader(os.fsencode(tmp_path))
        assert folder.read(b"file") is None
        assert len(folder.read_whole(b"file") or b"") == (4 << 20) + 1

    def test_what_may_not_be_read_says_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The scan refuses it, or leaves it out."""

        def refused(*_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        (tmp_path / "file").write_text("x")
        monkeypatch.setattr("os.open", refused)
        assert TreeReader(os.fsencode(tmp_path)).read(b"file") is None

    def test_any_other_failure_is_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("os.open", broken)
        with pytest.raises(OSError, match="Input/output error"):
            TreeReader(os.fsencode(tmp_path)).read(b"file")

    def test_of_programs_only_the_beginning_is_read(self, tmp_path: Path) -> None:
        root = written(tmp_path, {f"bin/tool{n}": "#!/was/here/bin/python\n" + "x" * 200_000 for n in range(9)})
        (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
        before = bytes_read()
        assert inspected(root, (b"/is/here",)).aliases == (
            b"/is/here",
            b"/was/here",
        )
        assert bytes_read() - before < 150_000

    def test_of_many_programs_only_some_are_opened(self, tmp_path: Path, opened: list[bytes]) -> None:
        root = written(tmp_path, {f"bin/tool{n}": "#!/was/here/bin/python\n" for n in range(200)})
        inspected(root, (b"/is/here",), kind=Kind.CONDA)
        assert sum(name.startswith(b"tool") for name in opened) == 50

    def test_pyvenv_cfg_is_read_once(self, tmp_path: Path, opened: list[bytes]) -> None:
        root = written(tmp_path, {"pyvenv.cfg": "home = /usr/bin\nrelocatable = true\n", "bin/x": "#!/bin/sh\n"})
        inspected(root, ())
        assert opened.count(b"pyvenv.cfg") == 1
        link_policy_of(Kind.VENV, (root,))
        assert opened.count(b"pyvenv.cfg") == 2


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("venvs")


@pytest.mark.processes
@pytest.mark.parametrize("version", VENV_VERSIONS)
class TestRealVenvs:
    """What `python -m venv` of each version writes works from its new place."""

    @pytest.fixture
    def moved(self, version: str, cache: Path) -> Path:
        """A venv that was copied elsewhere and relocated, and whose first place is gone."""
        new = cache / f"new-{version}" / "env"
        if new.exists():
            return new
        old = cache / f"old {version}" / "env"
        subprocess.run([interpreter(version), "-m", "venv", "--without-pip", str(old)], check=True)
        for name, first in (
            ("tool", f"#!{old}/bin/python3"),
            ("more", f"#!{old}/bin/python3"),
            ("other", f"#!{old}-other/bin/python3"),
        ):
            (old / "bin" / name).write_text(f"{first}\nimport sys\nprint(sys.prefix)\n")
            (old / "bin" / name).chmod(0o755)
        (old / "bin" / "absolute").symlink_to(old / "bin" / "tool")
        shutil.copytree(old, new, symlinks=True)
        root = os.fsencode(new)
        environment = inspected(root, (os.fsencode(old),), base="keep")
        assert environment.aliases == (os.fsencode(old),)
        relocation = plan_relocation(root, environment, os.fsencode(old), None, Snapshot())
        once, again = RelocationRecorder(relocation), RelocationRecorder(relocation)
        relocate_tree(root, once, CancelToken())
        assert once.files >= 4
        assert once.links >= 1
        relocate_tree(root, again, CancelToken())
        assert (again.files, again.links) == (0, 0)
        shutil.rmtree(old)
        return new

    @pytest.mark.parametrize("shell", ["bash", "zsh", "sh", "fish", "csh", "tcsh"])
    def test_it_is_activated_in_every_shell(self, version: str, shell: str, moved: Path, tmp_path: Path) -> None:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not here")
        script = {"fish": "activate.fish", "csh": "activate.csh", "tcsh": "activate.csh"}.get(shell, "activate")
        source = 'set prompt = "% "\nsource' if shell.endswith("csh") else "."  # activate.csh wants a prompt
        show = 'echo "$VIRTUAL_ENV"\npython -c "import sys; print(sys.prefix)"\ndeactivate\n'
        (tmp_path / "script").write_text(f"{source} '{moved}/bin/{script}'\n{show}")
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        done = subprocess.run(
            [shell, tmp_path / "script"], capture_output=True, text=True, env=environment, timeout=DEADLINE
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{moved}\n{moved}\n", "")

    def test_nothing_names_the_old_place(self, version: str, moved: Path) -> None:
        old = f"old {version}/env"
        naming = [
            path.name for path in moved.rglob("*")
            if path.is_file() and not path.is_symlink() and old in path.read_text(errors="replace")
        ]  # fmt: skip
        assert naming == ["other"]
        assert (moved / "bin" / "other").read_text().startswith(f"#!{moved.parents[1]}/{old}-other/bin/python3\n")
        assert (moved / "bin" / "absolute").readlink() == Path("tool")

    def test_the_base_python_stays_what_it_was(self, version: str, moved: Path) -> None:
        settings = dict(line.split(" = ", 1) for line in (moved / "pyvenv.cfg").read_text().splitlines())
        assert settings["home"] == str(Path(interpreter(version)).parent)

    def test_its_scripts_run(self, version: str, moved: Path) -> None:
        done = subprocess.run([moved / "bin" / "tool"], capture_output=True, text=True, timeout=DEADLINE)
        assert (done.stdout, done.stderr) == (f"{moved}\n", "")


def test_a_file_that_has_our_working_name_does_no_harm(tmp_path: Path) -> None:
    for name, text in (("tool", "#!/p/venv/bin/python\n"), ("tool.ezpz", "mine\n")):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
    relocate_tree(os.fsencode(tmp_path), RelocationRecorder(MOVED), CancelToken())
    assert (tmp_path / "bin" / "tool").read_text() == "#!/tmp/env/bin/python\n"
    assert (tmp_path / "bin" / "tool.ezpz").read_text() == "mine\n"


def test_the_longest_possible_names_are_relocated_too(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script, link = tmp_path / "bin" / ("s" * 255), tmp_path / "bin" / ("l" * 255)
    script.write_text("#!/p/venv/bin/python\n")
    link.symlink_to("/p/venv/bin/python")
    recorder = RelocationRecorder(MOVED)
    relocate_tree(os.fsencode(tmp_path), recorder, CancelToken())
    assert (recorder.files, recorder.links) == (1, 1)
    assert script.read_text() == "#!/tmp/env/bin/python\n"
    assert link.readlink() == Path("python")


def test_modes_and_times_stay_when_content_changes(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "tool"
    script.write_text("#!/p/venv/bin/python\n")
    script.chmod(0o555)
    for path in (script, tmp_path / "bin"):
        os.utime(path, ns=(10**18 + 1, 10**18 + 2))
    (tmp_path / "bin").chmod(0o555)
    recorder = RelocationRecorder(MOVED)
    relocate_tree(os.fsencode(tmp_path), recorder, CancelToken())
    assert recorder.files == 1
    for path in (script, tmp_path / "bin"):
        assert path.stat().st_mtime_ns == 10**18 + 2
        assert path.stat().st_mode & 0o777 == 0o555


def test_a_staged_tree_is_given_up_when_the_run_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"/was/here/file\n")
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        relocate_tree(os.fsencode(tmp_path), RelocationRecorder(MOVED), cancel)
