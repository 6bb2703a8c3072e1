"""Headers of scripts, by what they say and by running them: through the kernel, sh and python."""

from __future__ import annotations

import os
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.relocate.formats.prefix import PrefixMap
from ezpz.yeet.relocate.formats.shebang import PLAIN_LIMIT, is_text, parse_header, rewrite_text, rewrite_zipapp

OLD, NEW = b"/p/venv", b"/tmp/venv"
ONE = PrefixMap({OLD: NEW})
LONG = b"/" + b"l" * 140
SPACED = b"/tmp/my dir"
BODY = b"import sys\nprint('/p/venv-2')\n"
EXEC = b"#!/bin/sh\n'''exec' %b \"$0\" \"$@\"\n' '''\n"
TELL = b"import sys\nprint(ascii([sys.executable, sys.flags.ignore_environment, __file__, sys.argv[1:]]))\n"
FOLDERS = {
    "plain": "venv",
    "long": "/".join(["long" * 20] * 3),
    "spaced": "my own  venv",
    "marks": "it's \"a\" $HOME `b` \\n %s {x} #!&;|<>()*?'''",
    "accented": "caf\u00e9 \u4e2d",
    "accented without blanks": "caf\u00e9",
    "not utf-8": os.fsdecode(b"\xff\xe9"),
    "two lines": "a\nb\tc",
}


def rewritten(data: bytes, prefixes: PrefixMap) -> tuple[bytes, int]:
    """A script of `bin` afterwards, and how many prefixes were replaced."""
    return rewrite_text(b"bin/script", data, prefixes)


def environment(folder: Path) -> bytes:
    """A prefix whose `bin/python3` is this interpreter."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python3").symlink_to(sys.executable)
    return os.fsencode(folder)


def run(script: Path, content: bytes) -> list[object]:
    """What the script tells when the kernel starts it."""
    script.write_bytes(content)
    script.chmod(0o755)
    done = subprocess.run([str(script), "one", "two words"], capture_output=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    told: list[object] = eval(done.stdout)
    return told


def expected(prefix: bytes, script: Path, *, ignores: int = 0) -> list[object]:
    return [os.fsdecode(prefix) + "/bin/python3", ignores, str(script), ["one", "two words"]]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"#!/p/venv/bin/python3\n", b"#!/tmp/venv/bin/python3\n"),
        (b"#!/p/venv/bin/python3.11 -E\n", b"#!/tmp/venv/bin/python3.11 -E\n"),
        (b"#! /p/venv/bin/python3\t-E \n", b"#!/tmp/venv/bin/python3 -E\n"),
        (b"#!/p/venv/bin/python3 -I/p/venv/x\n", b"#!/tmp/venv/bin/python3 -I/tmp/venv/x\n"),
        (b"#!/p/venv/bin/perl -w\n", b"#!/tmp/venv/bin/perl -w\n"),
        (b"#!/p/venv/bin/python3", b"#!/tmp/venv/bin/python3\n"),
    ],
)
def test_case_12_a_header_names_the_new_place(before: bytes, after: bytes) -> None:
    body = BODY if before.endswith(b"\n") else b""
    assert rewritten(before + body, ONE) == (after + body, before.count(OLD))


@pytest.mark.parametrize(
    "header",
    [
        b"#!/usr/bin/env python\n",
        b"#!/bin/sh\nexec /p/venv/bin/python\n",
        b"#!/p/venv-python/bin/python -E \n",
        b"#!  /usr/bin/python\t-E  \n",
        b"#!/p/venv/bin/python\r\n",
        b"#!/" + b"x" * 300 + b"/bin/python\n",
        b"#!\n",
        b"#!",
        b"",
        b"#!/p/venv/bin/py\0thon\n",
        b"# no header: #!/p/venv/bin/python\n",
        b"\n#!/p/venv/bin/python\n",
        EXEC % b'"/p/venv2/bin/python"',
        EXEC % b""""$(dirname -- "$(realpath -- "$0")")"/'python3'""",  # uv venv --relocatable
    ],
)
def test_case_12_what_is_no_header_that_moves_is_text_like_any_other(header: bytes) -> None:
    moved, count = rewritten(header + BODY, ONE)
    assert (moved, count) == ONE.substitute(header + BODY)
    assert count or moved == header + BODY


@pytest.mark.parametrize(
    "header",
    [
        EXEC % b"/p/venv/bin/python3",  # pip, where it is long
        EXEC % b'"/p/venv/bin/python3"',  # pip, where it has blanks
        EXEC % b"'/p/venv/bin/python3'",  # uv and virtualenv
        (EXEC % b'"/p/venv/bin/python3"').replace(b"\n' '''\n", b" #'''\n"),  # micromamba
        EXEC % b"\"$(printf '/p/\\166env/bin/python3')\"",
    ],
)
def test_case_13_an_exec_form_becomes_plain_where_it_can(header: bytes) -> None:
    assert rewritten(header + BODY, ONE) == (b"#!/tmp/venv/bin/python3\n" + BODY, 1)


def test_case_13_arguments_of_an_exec_form() -> None:
    assert rewritten(EXEC % b"/p/venv/bin/python3 -E", ONE)[0] == b"#!/tmp/venv/bin/python3 -E\n"
    two = rewritten(EXEC % b"/p/venv/bin/python3 -E '-X dev'", ONE)[0]
    assert two == EXEC % b"'/tmp/venv/bin/python3' '-E' '-X dev'"  # the kernel would make one of the two


@pytest.mark.parametrize(
    ("old", "quoted"),
    [
        (b"/p/my venv", b'"/p/my venv/bin/python3"'),
        (b"/p/my venv", rb"/p/my\ venv/bin/python3"),
        (b"/p/v$e'n\"v", b"""'/p/v$e'"'"'n"v/bin/python3'"""),
        (b'/p/v$`"\\', rb'"/p/v\$\`\"\\/bin/python3"'),
    ],
)
def test_case_13_every_way_to_quote(old: bytes, quoted: bytes) -> None:
    assert rewritten(EXEC % quoted + BODY, PrefixMap({old: NEW})) == (b"#!/tmp/venv/bin/python3\n" + BODY, 1)


@pytest.mark.processes
@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize("header", [b"#!/p/venv/bin/python3 -E\n", EXEC % b"'/p/venv/bin/python3' -E"])
def test_case_14_a_script_runs_wherever_it_goes(tmp_path: Path, folder: str, header: bytes) -> None:
    prefix = environment(tmp_path / folder)
    moved, count = rewritten(header + TELL, PrefixMap({OLD: prefix}))
    assert count == 1
    script = Path(os.fsdecode(prefix), "bin", "tell")
    assert run(script, moved) == expected(prefix, script, ignores=1)
    again, count = rewritten(moved, PrefixMap({prefix: OLD}))
    assert (again, count) == (b"#!/p/venv/bin/python3 -E\n" + TELL, 1)
    assert rewritten(moved, PrefixMap({OLD: prefix})) == (moved, 0)


@pytest.mark.processes
@pytest.mark.parametrize("shell", ["dash", "bash", "zsh", "ksh"])
@pytest.mark.parametrize("folder", [FOLDERS["marks"], FOLDERS["not utf-8"]])
def test_case_14_the_exec_form_in_every_sh(tmp_path: Path, folder: str, shell: str) -> None:
    prefix = environment(tmp_path / folder)
    script = tmp_path / "tell"
    script.write_bytes(rewritten(b"#!/p/venv/bin/python3\n" + TELL, PrefixMap({OLD: prefix}))[0])
    try:
        done = subprocess.run([shell, str(script), "one", "two words"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip(f"no {shell} here")
    assert eval(done.stdout) == expected(prefix, script)


def test_case_14_the_limit_of_the_kernel() -> None:
    assert PLAIN_LIMIT == 127
    for length in (PLAIN_LIMIT - 1, PLAIN_LIMIT, PLAIN_LIMIT + 1):
        new = b"/" + b"x" * (length - len(b"#!//bin/python3 -E"))
        line = rewritten(b"#!/p/venv/bin/python3 -E\n", PrefixMap({OLD: new}))[0].partition(b"\n")[0]
        assert len(line) == length if length <= PLAIN_LIMIT else line == b"#!/bin/sh"


@pytest.mark.parametrize("new", [LONG, SPACED])
def test_case_14_an_interpreter_that_is_not_python_is_found_by_name(new: bytes) -> None:
    moves = PrefixMap({OLD: new})
    assert rewritten(b"#!/p/venv/bin/perl\nprint 1;\n", moves) == (b"#!/usr/bin/env perl\nprint 1;\n", 1)
    assert rewritten(b"#!/p/venv/bin/perl -w\n", moves) == (b"#!/usr/bin/env -S perl -w\n", 1)


@pytest.mark.processes
@pytest.mark.parametrize("folder", ["long", "spaced", "accented", "accented without blanks", "plain"])
@pytest.mark.parametrize("coding", [b"latin-1", b"utf-8", b"euc-jp"])
@pytest.mark.parametrize("exec_first", [False, True])
def test_case_14_python_still_sees_the_encoding(
    tmp_path: Path, folder: str, coding: bytes, *, exec_first: bool
) -> None:
    prefix = environment(tmp_path / FOLDERS[folder])
    body = (
        b"# vim: fileencoding="
        + coding
        + b" don't $(false) `\nx = '"
        + "\u00e9\u4e2d"[coding == b"euc-jp"].encode(coding.decode())
        + b"'\n"
        + TELL
        + b"assert len(x) == 1\n"
    )
    source = b"#!/p/venv/bin/python3\n" + body
    if exec_first:  # as it comes back from an earlier move
        source = rewritten(source, PrefixMap({OLD: b"/p/another venv"}))[0].replace(b"/p/another venv", OLD)
        assert source.startswith(b"#!/bin/sh\n")
    moved, _ = rewritten(source, PrefixMap({OLD: prefix}))
    script = tmp_path / "tell"
    assert run(script, moved) == expected(prefix, script)
    assert rewritten(moved, PrefixMap({prefix: OLD}))[0] == b"#!/p/venv/bin/python3\n" + body


def test_case_14_a_path_that_the_encoding_of_the_script_does_not_know() -> None:
    accented = "/tmp/caf\u00e9".encode()
    moves = PrefixMap({OLD: accented, b"/p/other env": accented})
    plain = b"#!/p/venv/bin/python\n# coding: ascii\n" + BODY
    moved = rewritten(plain, moves)[0]
    assert moved.startswith(b"#!/bin/sh\n# coding: ascii\n'''exec' ")
    assert moved.isascii()
    spaced = rewritten(plain, PrefixMap({OLD: b"/p/other env"}))[0]
    assert rewritten(spaced, moves)[0] == moved


def test_the_rest_of_a_script_follows_and_nothing_is_replaced_twice() -> None:
    inner = PrefixMap({b"/p": b"/p/venv"})
    assert rewrite_text(b"bin/x", b"#!/p/bin/python\n/p/x\n", inner) == (b"#!/p/venv/bin/python\n/p/venv/x\n", 2)
    assert rewrite_text(b"bin/x", b"#!/usr/bin/env /p/bin/x\n", inner) == (b"#!/usr/bin/env /p/venv/bin/x\n", 1)
    assert rewrite_text(b"x.txt", b"no header: /p/x", inner) == (b"no header: /p/venv/x", 1)


@pytest.mark.processes
def test_case_17_a_wrapper_under_the_old_prefix_runs(tmp_path: Path) -> None:
    prefix = environment(tmp_path / FOLDERS["marks"].replace("\n", ""))
    text = b'#!/bin/sh\nX=/p/venv/lib:$X\nexec /p/venv/bin/python3 "/p/venv/bin/tell.py" \'/p/venv\'/x "$X" "$@"\n'
    wrapper, count = rewrite_text(b"bin/tell", text, PrefixMap({OLD: prefix}))
    assert count == 4
    Path(os.fsdecode(prefix), "bin/tell.py").write_bytes(TELL)
    place = os.fsdecode(prefix)
    told = [place + "/bin/python3", 0, place + "/bin/tell.py", [place + "/x", place + "/lib:", "one", "two words"]]
    assert run(tmp_path / "tell", wrapper) == told


def test_case_24_text_that_is_not_utf_8() -> None:
    assert is_text(b"\xff\xfe")
    assert not is_text(b"a\0b")
    body = b"# \xe9\nx = '\xff'\n"
    assert rewritten(b"#!/p/caf\xe9/bin/python\n" + body, PrefixMap({b"/p/caf\xe9": NEW})) == (
        b"#!/tmp/venv/bin/python\n" + body,
        1,
    )


def archive(tmp_path: Path, header: bytes) -> bytes:
    source = tmp_path / "app"
    source.mkdir()
    (source / "__main__.py").write_bytes(TELL.replace(b"__file__", b"sys.argv[0]") + b"import other\n")
    (source / "other.py").write_bytes(b"assert 'zipimporter' in repr(__loader__)\n")
    with open(tmp_path / "app.pyz", "wb") as file:
        file.write(header)
        with open(tmp_path / "bare", "w+b") as bare:
            zipapp.create_archive(source, bare)
        file.write((tmp_path / "bare").read_bytes())
    return (tmp_path / "app.pyz").read_bytes()


@pytest.mark.processes
@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize("old", ["p", "a very " * 30, "longer than the new one" * 10])
def test_case_25_a_zipapp_gets_a_new_header_and_still_runs(tmp_path: Path, folder: str, old: str) -> None:
    source = os.fsencode(f"/s/{old}")
    prefix = environment(tmp_path / folder)
    data = archive(tmp_path, rewritten(b"#!/p/venv/bin/python3 -E\n", PrefixMap({OLD: source}))[0])
    moved, count = rewrite_zipapp(data, PrefixMap({source: prefix}))
    assert count == 1
    assert moved[moved.index(b"PK") :] == data[data.index(b"PK") :]
    script = tmp_path / "moved.pyz"
    assert run(script, moved) == expected(prefix, script, ignores=1)


@pytest.mark.processes
def test_case_25_a_shorter_header_is_filled_up_with_blanks_that_the_kernel_drops(tmp_path: Path) -> None:
    prefix = environment(tmp_path / "v")
    data = archive(tmp_path, b"#!" + prefix + b"/and/some/more/that/makes/it/longer/bin/python3 -E\n")
    moved, _ = rewrite_zipapp(data, PrefixMap({prefix + b"/and/some/more/that/makes/it/longer": prefix}))
    assert len(moved) == len(data)
    assert moved.startswith(b"#!" + prefix + b"/bin/python3 -E   ")
    script = tmp_path / "moved.pyz"
    assert run(script, moved) == expected(prefix, script, ignores=1)


def test_case_25_what_is_no_zip_archive_is_left_alone() -> None:
    for data in (b"#!/p/venv/bin/python\n\0\1\2", b"#!/usr/bin/env python\nPK\5\6\0", b"PK\5\6/p/venv\0"):
        assert rewrite_zipapp(data, ONE) == (data, 0)


@given(st.binary(max_size=80) | st.lists(st.sampled_from(
    [b"#!", b"/bin/sh", b"\n", b"'''", b"exec' ", OLD, b"/bin/python", b' "$0" "$@"', b"' '''", b"#", b" ", b"'", b'"',
     b"$(printf '", b"coding: latin-1", b"\\", b"\0", b"/usr/bin/env "]), max_size=16).map(b"".join))  # fmt: skip
def test_what_follows_a_header_is_text_like_any_other(data: bytes) -> None:
    moved, _ = rewritten(data, ONE)
    header = parse_header(data)
    if header is None or ONE.map_path(header.interpreter) is None:
        assert moved == ONE.substitute(data)[0]
    else:
        assert moved.endswith(ONE.substitute(data[header.end :])[0]) or b"coding" in moved
    assert rewritten(moved, ONE) == (moved, 0)


@given(st.binary(min_size=1, max_size=40).filter(lambda name: not set(name) & set(b"\0/")), st.integers(0, 130))
def test_a_header_that_moves_there_and_back_is_as_before(name: bytes, more: int) -> None:
    place = b"/d/" + name + b"x" * more
    there = rewritten(b"#!/p/venv/bin/python -E\n" + BODY, PrefixMap({OLD: place}))[0]
    header = parse_header(there)
    assert header is not None
    assert header.interpreter == place + b"/bin/python"
    compile(there, "script", "exec")
    assert rewritten(there, PrefixMap({place: OLD}))[0] == b"#!/p/venv/bin/python -E\n" + BODY
