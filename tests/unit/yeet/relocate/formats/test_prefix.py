"""Paths for others in text: whole paths only, whatever stands around them."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ezpz.yeet.relocate.formats.prefix import PrefixMap

OLD, NEW = b"/p/venv", b"/tmp/venv"
ONE = PrefixMap({OLD: NEW})
BASE = b"/p/venv-python"
TWO = PrefixMap({OLD: NEW, BASE: NEW + b"/.python"})
NAMES = st.text("abvenp.-_0", min_size=1, max_size=4).map(str.encode).filter(lambda name: name.strip(b".") != b"")
PATHS = st.lists(NAMES, min_size=2, max_size=4).map(lambda parts: b"/" + b"/".join(parts))
PIECES = st.sampled_from(
    [OLD, b"/p/venv-python", b"/p", b"/foo", b"/bin", b"python3", b" ", b":", b"=", b'"', b"'", b"\n", b"#!", b"-I",
     b"x", b"file://", b"..", b"\0", b"\xff", b"$", b"//", NEW, b"/q/other", b"\xc3\xa9", b"%20", b"\\ ",
     b"\\u00e9", b"/p/venv.old", b"/p/venv2", b"/p/venv-2"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=12).map(b"".join) | st.binary(max_size=60)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"/p/venv", b"/tmp/venv"),
        (b"/p/venv/", b"/tmp/venv/"),
        (b"#!/p/venv/bin/python3\n", b"#!/tmp/venv/bin/python3\n"),
        (b"#! /p/venv/bin/python3 -E\n", b"#! /tmp/venv/bin/python3 -E\n"),
        (b'VIRTUAL_ENV="/p/venv"', b'VIRTUAL_ENV="/tmp/venv"'),
        (b"VIRTUAL_ENV='/p/venv'", b"VIRTUAL_ENV='/tmp/venv'"),
        (b"VIRTUAL_ENV=/p/venv\n", b"VIRTUAL_ENV=/tmp/venv\n"),
        (b"setenv VIRTUAL_ENV /p/venv;", b"setenv VIRTUAL_ENV /tmp/venv;"),
        (b"PATH=/p/venv/bin:/p/venv/sbin:/usr/bin", b"PATH=/tmp/venv/bin:/tmp/venv/sbin:/usr/bin"),
        (b"/usr/bin:/p/venv", b"/usr/bin:/tmp/venv"),
        (b"/p/venv:/p/venv", b"/tmp/venv:/tmp/venv"),
        (b"a,/p/venv,b;/p/venv|/p/venv&", b"a,/tmp/venv,b;/tmp/venv|/tmp/venv&"),
        (b"-I/p/venv/include -L/p/venv/lib", b"-I/tmp/venv/include -L/tmp/venv/lib"),
        (b"-Wl,-rpath,/p/venv/lib", b"-Wl,-rpath,/tmp/venv/lib"),
        (b"--prefix=/p/venv", b"--prefix=/tmp/venv"),
        (b"file:///p/venv/x", b"file:///tmp/venv/x"),
        (b"[/p/venv](/p/venv)</p/venv>{/p/venv}", b"[/tmp/venv](/tmp/venv)</tmp/venv>{/tmp/venv}"),
        (b"\"'`$(/p/venv)", b"\"'`$(/tmp/venv)"),
        (b"\t/p/venv\r\n/p/venv", b"\t/tmp/venv\r\n/tmp/venv"),
    ],
)
def test_a_whole_path_is_replaced(before: bytes, after: bytes) -> None:
    new, count = ONE.substitute(before)
    assert new == after
    assert count == before.count(OLD)


@pytest.mark.parametrize(
    "text",
    [
        b"/p/venv-python",
        b"/p/venv-python/bin",
        b"/p/venv.old",
        b"/p/venv2",
        b"/p/venv_x",
        b"/p/venvs/venv",
        b"/foo/p/venv",
        b"/foo/p/venv/bin",
        b"/p/p/venv",
        b"./p/venv",
        b"../p/venv",
        b"~/p/venv",
        b"foo/p/venv",
        b"$HOME/p/venv",
        b"${HOME}/p/venv",
        b"$(pwd)/p/venv",
        b"/opt/a+b/p/venv",
        b"/opt/a@b/p/venv",
        b"https://host/p/venv/x",
        b"p/venv",
        b"/P/venv",
        b"/p//venv",
        b"",
        b"no path at all",
        b"C:/p/venvx",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: bytes) -> None:
    assert ONE.substitute(text) == (text, 0)


@pytest.mark.parametrize("more", [b"+cuda", b"~", b"@2", "é".encode(), b"\xff"])
def test_a_longer_name_is_another_path_whatever_it_goes_on_with(more: bytes) -> None:
    for text in (OLD + more, b"#!" + OLD + more + b"/bin/python", b"PATH=" + OLD + more + b":/usr/bin"):
        assert ONE.substitute(text) == (text, 0)


@pytest.mark.parametrize("name", ["café".encode(), b"\xff", b"a+b", b"a@b", b"100%", b"~"])
def test_a_deeper_path_is_another_path_whatever_it_begins_with(name: bytes) -> None:
    for text in (b"/" + name + OLD, b"#!/" + name + OLD + b"/bin/python"):
        assert ONE.substitute(text) == (text, 0)


def test_the_longest_alias_comes_first() -> None:
    both = PrefixMap({b"/p": NEW, b"/p/venv": NEW, b"/p/venv/real/": NEW})
    assert both.old == (b"/p/venv/real", b"/p/venv", b"/p")
    assert both.substitute(b"/p/venv/real/bin /p/venv/bin /p/bin") == (b"/tmp/venv/bin /tmp/venv/bin /tmp/venv/bin", 3)
    assert both.map_path(b"/p/venv/real/bin") == b"/tmp/venv/bin"


def test_what_is_not_the_longer_one_may_be_the_shorter_one() -> None:
    assert PrefixMap({b"/p": b"/q", b"/p/venv": b"/tmp/x"}).substitute(b"/p/venv-2/bin") == (b"/q/venv-2/bin", 1)


def test_prefixes_are_cleaned() -> None:
    cleaned = PrefixMap({b"/p/venv/": NEW + b"/", b"/p/venv": NEW, b"": NEW, NEW: NEW, b"/": NEW})
    assert cleaned.old == (b"/p/venv",)
    assert cleaned.moves == ((b"/p/venv", NEW),)
    for nothing in (PrefixMap({}), PrefixMap({NEW: NEW})):
        assert nothing.is_empty
        assert nothing.old == ()
        assert nothing.substitute(b"x " + OLD + b" " + NEW) == (b"x " + OLD + b" " + NEW, 0)
        assert not nothing.may_occur_in(OLD + NEW)
        assert nothing.map_path(NEW) is None
    assert not ONE.is_empty


def test_names_with_the_marks_of_regular_expressions() -> None:
    odd = PrefixMap({b"/p/c++ (1.0)[x]": rb"/tmp/\1\g<0>"})
    assert odd.substitute(b"=/p/c++ (1.0)[x]/bin") == (rb"=/tmp/\1\g<0>/bin", 1)


def test_what_was_replaced_is_not_looked_at_again() -> None:
    swap = PrefixMap({b"/p/a": b"/p/b", b"/p/b": b"/p/a"})
    assert swap.substitute(b"/p/a:/p/b") == (b"/p/b:/p/a", 2)
    assert PrefixMap({b"/p": b"/p/new"}).substitute(b"/p/x") == (b"/p/new/x", 1)


@pytest.mark.parametrize(
    ("path", "moved"),
    [
        (b"/p/venv", NEW), (b"/p/venv/", NEW + b"/"), (b"/p/venv/bin/x", NEW + b"/bin/x"), (b"/p/venv-x", None),
        (b"/p/venv-python/lib", NEW + b"/.python/lib"), (b"/q/p/venv", None), (b"p/venv", None), (b"/p", None),
        (b"", None),
    ],
)  # fmt: skip
def test_where_a_path_goes(path: bytes, moved: bytes | None) -> None:
    assert TWO.map_path(path) == moved


SPACED = PrefixMap({b"/p/my venv": b"/tmp/your env"})
ACCENTED = PrefixMap({"/p/v\u00e9nv".encode(): "/tmp/\u00fc".encode()})


@pytest.mark.parametrize(
    ("prefixes", "before", "after"),
    [
        (SPACED, b'"/p/my venv/bin"', b'"/tmp/your env/bin"'),
        (SPACED, b"file:///p/my%20venv/x", b"file:///tmp/your%20env/x"),
        (SPACED, b"git+file:///p/my%20venv", b"git+file:///tmp/your%20env"),
        (SPACED, b"cd /p/my\\ venv/bin", b"cd /tmp/your\\ env/bin"),
        (PrefixMap({b"/p/a (b)": b"/t/c & d"}), b"/p/a\\ \\(b\\)/x /p/a\\ (b)/x", b"/t/c\\ \\&\\ d/x /t/c\\ &\\ d/x"),
        (
            PrefixMap({b"/p/a+(b)": b"/t/c d"}),
            b"file:///p/a+(b) file:///p/a%2B%28b%29",
            b"file:///t/c%20d file:///t/c%20d",
        ),
        (PrefixMap({b"/p/it's": b"/t/o'n"}), b"""'/p/it'"'"'s'""", b"""'/t/o'"'"'n'"""),
        (PrefixMap({b"/p/it's": b"/t/o'n"}), rb"'/p/it\'s/x'", rb"'/t/o\'n/x'"),
        (PrefixMap({b"/p/it's": b"/t/o'n"}), rb"""'/p/it'\''s/x'""", rb"""'/t/o'\''n/x'"""),
        (PrefixMap({b"/p/a$b": b"/t/$c"}), rb'"/p/a\$b/x"', rb'"/t/\$c/x"'),
        (PrefixMap({b"/p/venv": b"/tmp/your env"}), b"file:///p/venv/x", b"file:///tmp/your%20env/x"),
        (PrefixMap({b"/p/venv": b"/tmp/your env"}), b"'/p/venv/x'", b"'/tmp/your env/x'"),
        (ACCENTED, b'{"argv": ["/p/v\\u00e9nv/bin/python"]}', b'{"argv": ["/tmp/\\u00fc/bin/python"]}'),
        (ACCENTED, "/p/v\u00e9nv/x".encode(), "/tmp/\u00fc/x".encode()),
        (ACCENTED, b"file:///p/v%C3%A9nv/x", b"file:///tmp/%C3%BC/x"),
        (PrefixMap({b"/p/\xff": b"/t/\xfe"}), b'"/p/\\udcff" /p/\xff', b'"/t/\\udcfe" /t/\xfe'),
        (ONE, b'"/p/venv\\n"', b'"/tmp/venv\\n"'),
        (ONE, b'"/p/venv\\u0027"', b'"/tmp/venv\\u0027"'),
    ],
)
def test_every_way_to_write_a_path(prefixes: PrefixMap, before: bytes, after: bytes) -> None:
    assert prefixes.may_occur_in(before)
    assert prefixes.substitute(before)[0] == after


@pytest.mark.parametrize(
    ("prefixes", "text"),
    [
        (SPACED, b"file:///p/my%20venv%20old/x"),
        (SPACED, b"/p/my%20venv-2"),
        (SPACED, b"/p/my\\ venv\\ old/x"),
        (SPACED, b"/p/my_venv"),
        (ACCENTED, b'"/p/v\\u00e9nv\\u00e9/x"'),
        (ONE, b"file:///p/venv%20old/x"),
        (ONE, b"/p/venv\\ old/x"),
        (ONE, b'"/p/venv\\u00e9/x"'),
    ],
)
def test_a_longer_name_is_another_path_however_it_is_written(prefixes: PrefixMap, text: bytes) -> None:
    assert prefixes.substitute(text) == (text, 0)


def test_few_needles_find_what_could_be_replaced() -> None:
    assert PrefixMap({b"/p/venv": NEW, b"/p/venv/real": NEW, b"/x/p/venv": NEW})._needles == (b"/p/venv",)
    assert PrefixMap({b"/a": NEW, b"/b": NEW})._needles == (b"/b", b"/a")
    assert ONE.may_occur_in(b"\0\x7fELF\0/p/venv-python\0")  # whole paths or not: it is a quick test
    assert not ONE.may_occur_in(b"/p/ven")


@given(TEXTS)
def test_text_without_a_prefix_never_changes(text: bytes) -> None:
    if not TWO.may_occur_in(text):
        assert TWO.substitute(text) == (text, 0)
    if OLD not in text:
        assert TWO.substitute(text) == (text, 0)


@given(TEXTS, st.sampled_from([NEW, b"/p/venv-2", b"/p/venv.new", b"/p/venv2", b"/q/p/venv", b"/tmp/your env"]))
def test_twice_is_once(text: bytes, new: bytes) -> None:
    prefixes = PrefixMap({OLD: new})
    once, _ = prefixes.substitute(text)
    assert prefixes.substitute(once) == (once, 0)


@pytest.mark.parametrize(
    "trap", [b"/p/venv-python", b"/p/venv.old", b"/p/venv2", b"/p/venv_x", b"/p/venv+cu", b"/o/p/venv"]
)
@given(
    before=st.sampled_from([b"", b"#!", b'"', b"=", b":", b" ", b"-I", b"file://"]),
    after=st.sampled_from([b"", b"/bin", b"\n", b":", b'"']),
)
def test_case_15_a_path_that_only_begins_like_the_prefix_is_never_hit(trap: bytes, before: bytes, after: bytes) -> None:
    assert ONE.substitute(before + trap + after) == (before + trap + after, 0)


def test_case_15_the_base_interpreter_beside_the_environment_keeps_its_own_place() -> None:
    before = b"home = /p/venv-python/bin\nexecutable = /p/venv-python/bin/python3.11\ncommand = x -m venv /p/venv\n"
    assert ONE.substitute(before) == (before.replace(b"venv /p/venv\n", b"venv /tmp/venv\n"), 1)
    assert TWO.substitute(before)[0] == (
        b"home = /tmp/venv/.python/bin\nexecutable = /tmp/venv/.python/bin/python3.11\ncommand = x -m venv /tmp/venv\n"
    )


def test_case_16_every_alias_leads_to_the_new_place() -> None:
    aliases = PrefixMap({b"/eagle/x": NEW, b"/lus/eagle/x": NEW})
    text = b"VIRTUAL_ENV='/eagle/x'\n#!/lus/eagle/x/bin/python\n/lus/eagle/x2 /eagle/x2"
    assert aliases.substitute(text) == (b"VIRTUAL_ENV='/tmp/venv'\n#!/tmp/venv/bin/python\n/lus/eagle/x2 /eagle/x2", 2)
    assert aliases._needles == (b"/eagle/x",)


def test_case_17_a_shell_wrapper_names_the_prefix_in_its_body() -> None:
    before = b'#!/bin/bash\nexport LD_LIBRARY_PATH=/p/venv/lib:$LD_LIBRARY_PATH\nexec "/p/venv/bin/real" "$@"\n'
    assert ONE.substitute(before) == (before.replace(OLD, NEW), 2)


@pytest.mark.parametrize(
    "line",
    [
        b"    let virtual_env = r#'/p/venv'#\n",  # activate.nu of virtualenv; the next, of uv
        b"    const virtual_env = '/p/venv'\n",
        b"            self.embedded_virtual_env = '/p/venv'\n",  # activate.xsh
        b"setenv VIRTUAL_ENV '/p/venv'\n",  # activate.csh
        b"set deactivate_script = '/p/venv'\"/\"'bin'\"/deactivate.csh\"\n",
        b'setenv VIRTUAL_ENV "/p/venv"\n',
        b"set -gx VIRTUAL_ENV '/p/venv'\n",  # activate.fish
        b'@for %%i in ("/p/venv") do @set "VIRTUAL_ENV=%%~fi"\n',  # activate.bat
        b'@set "VIRTUAL_ENV=/p/venv"\r\n',
        b'$VirtualEnv = "/p/venv"\n',  # Activate.ps1
        b"if [ ! -d /p/venv ] &&\n        VIRTUAL_ENV=/p/venv\n",  # activate
        b'        VIRTUAL_ENV=$(cygpath "/p/venv")\n        export VIRTUAL_ENV="/p/venv"\n',
    ],
)
def test_case_18_activation_in_every_shell(line: bytes) -> None:
    assert ONE.substitute(line) == (line.replace(OLD, NEW), line.count(OLD))


@pytest.mark.parametrize("prefix", ["/p/venv", "/p/my venv", "/p/v\u00e9nv"])
def test_case_21_a_kernelspec_of_jupyter(prefix: str) -> None:
    spec = {
        "argv": [prefix + "/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "env": {"X": prefix},
    }
    moved, count = PrefixMap({prefix.encode(): "/tmp/\u00fc b".encode()}).substitute(
        json.dumps(spec, indent=1).encode()
    )
    assert count == 2
    assert json.loads(moved) == json.loads(json.dumps(spec).replace(json.dumps(prefix)[1:-1], "/tmp/\u00fc b"))


@pytest.mark.parametrize(
    "text",
    [
        b"prefix=/p/venv\nlibdir=${prefix}/lib\nCflags: -I/p/venv/include -L/p/venv/lib\n",  # .pc
        b'set(_IMPORT_PREFIX "/p/venv")\nINTERFACE_INCLUDE_DIRECTORIES "/p/venv/include;/p/venv/include/x"\n',  # cmake
        b"export GDAL_DATA=/p/venv/share/gdal\nsetenv PROJ_LIB /p/venv/share/proj\n",  # activate.d
        b'#!/bin/sh\nprefix="/p/venv"\necho "-L/p/venv/lib -Wl,-rpath,/p/venv/lib"\n',  # *-config
        b"build_time_vars = {'prefix': '/p/venv',\n 'CONFIG_ARGS': \"'--prefix=/p/venv' 'CC=gcc'\"}\n",
    ],
)
def test_case_22_configuration_for_building(text: bytes) -> None:
    assert ONE.substitute(text) == (text.replace(OLD, NEW), text.count(OLD))


def test_case_24_text_and_names_that_are_not_utf_8() -> None:
    odd = PrefixMap({b"/p/caf\xe9": b"/tmp/\xff"})
    assert odd.substitute(b"# \xe4\xf6 \xff\n/p/caf\xe9/bin /p/caf\xe9\xe9\n") == (
        b"# \xe4\xf6 \xff\n/tmp/\xff/bin /p/caf\xe9\xe9\n",
        1,
    )
    assert ONE.substitute(b"\xe4 '/p/venv' \xff") == (b"\xe4 '/tmp/venv' \xff", 1)


@given(TEXTS)
def test_nothing_but_whole_prefixes_changes(text: bytes) -> None:
    """What was replaced, put back, is what was there before; and every change stands between two boundaries."""
    assume(b"/N_W" not in text)
    fresh = PrefixMap({OLD: b"/N_W"})
    changed, count = fresh.substitute(text)
    assert changed.count(b"/N_W") == count
    assert changed.replace(b"/N_W", OLD) == text
    for piece in changed.split(b"/N_W")[1:]:
        assert not piece[:1].isalnum()
        assert piece[:1] not in (b"-", b".", b"_")


@given(PATHS, PATHS, st.lists(NAMES, max_size=3), st.sampled_from([b" ", b":", b'"', b"'", b"=", b"\n", b";", b","]))
def test_any_path_below_any_prefix(old: bytes, new: bytes, rest: list[bytes], edge: bytes) -> None:
    assume(not new.startswith(old) and not old.startswith(new))
    below = b"".join(b"/" + name for name in rest)
    prefixes = PrefixMap({old: new})
    assert prefixes.substitute(edge + old + below + edge) == (edge + new + below + edge, 1)
    assert prefixes.map_path(old + below) == new + below


@given(PATHS, NAMES)
def test_a_sibling_is_never_touched(old: bytes, more: bytes) -> None:
    for sibling in (old + more, b"/x" + old, old.rpartition(b"/")[0]):
        assert PrefixMap({old: b"/tmp/new"}).substitute(b'"' + sibling + b'"') == (b'"' + sibling + b'"', 0)
