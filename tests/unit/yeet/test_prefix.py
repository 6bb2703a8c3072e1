"""One path for another in text: whole paths only, whatever stands around them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ezpz.yeet.relocate.prefix import PrefixMap

OLD, NEW = b"/p/venv", b"/tmp/venv"
ONE = PrefixMap((OLD,), NEW)
NAMES = st.text("abvenp.-_0", min_size=1, max_size=4).map(str.encode).filter(lambda name: name.strip(b".") != b"")
PATHS = st.lists(NAMES, min_size=2, max_size=4).map(lambda parts: b"/" + b"/".join(parts))
PIECES = st.sampled_from(
    [OLD, b"/p/venv-python", b"/p", b"/foo", b"/bin", b"python3", b" ", b":", b"=", b'"', b"'", b"\n", b"#!", b"-I",
     b"x", b"file://", b"..", b"\0", b"\xff", b"$", b"//", NEW, b"/q/other", b"\xc3\xa9"]
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
    assert ONE.replace(before) == after


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
    assert ONE.replace(text) == text


@pytest.mark.parametrize("more", [b"+cuda", b"~", b"@2", "é".encode(), b"\xff"])
def test_a_longer_name_is_another_path_whatever_it_goes_on_with(more: bytes) -> None:
    for text in (OLD + more, b"#!" + OLD + more + b"/bin/python", b"PATH=" + OLD + more + b":/usr/bin"):
        assert ONE.replace(text) == text


@pytest.mark.parametrize("name", ["café".encode(), b"\xff", b"a+b", b"a@b", b"100%", b"~"])
def test_a_deeper_path_is_another_path_whatever_it_begins_with(name: bytes) -> None:
    for text in (b"/" + name + OLD, b"#!/" + name + OLD + b"/bin/python"):
        assert ONE.replace(text) == text


def test_the_longest_alias_comes_first() -> None:
    both = PrefixMap((b"/p", b"/p/venv", b"/p/venv/real/"), NEW)
    assert both.replace(b"/p/venv/real/bin /p/venv/bin /p/bin") == b"/tmp/venv/bin /tmp/venv/bin /tmp/venv/bin"
    assert both.below(b"/p/venv/real/bin") == b"bin"


def test_aliases_are_cleaned() -> None:
    assert PrefixMap((b"/p/venv/", b"/p/venv", b"", NEW, b"/"), NEW).old == (b"/p/venv",)
    assert PrefixMap((), NEW).replace(b"/p/venv") == b"/p/venv"
    assert PrefixMap((NEW,), NEW).replace(b"x " + NEW) == b"x " + NEW


def test_names_with_the_marks_of_regular_expressions() -> None:
    odd = PrefixMap((b"/p/c++ (1.0)[x]",), rb"/tmp/\1\g<0>")
    assert odd.replace(b"=/p/c++ (1.0)[x]/bin") == rb"=/tmp/\1\g<0>/bin"


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        (b"/p/venv", b""), (b"/p/venv/", b""), (b"/p/venv/bin/x", b"bin/x"), (b"/p/venv-x", None), (b"/q/p/venv", None),
        (b"p/venv", None), (b"/p", None), (b"", None),
    ],
)  # fmt: skip
def test_below(path: bytes, rest: bytes | None) -> None:
    assert ONE.below(path) == rest


@given(TEXTS)
def test_text_without_the_prefix_never_changes(text: bytes) -> None:
    if OLD not in text:
        assert ONE.replace(text) == text


@given(TEXTS)
def test_twice_is_once(text: bytes) -> None:
    once = ONE.replace(text)
    assert ONE.replace(once) == once


@given(TEXTS)
def test_nothing_but_whole_prefixes_changes(text: bytes) -> None:
    """What was replaced, put back, is what was there before; and every change stands between two boundaries."""
    fresh = PrefixMap((OLD,), b"/N\x01W")
    changed = fresh.replace(text)
    assert changed.replace(b"/N\x01W", OLD) == text
    for piece in changed.split(b"/N\x01W")[1:]:
        assert not piece[:1].isalnum()
        assert piece[:1] not in (b"-", b".", b"_")


@given(PATHS, PATHS, st.lists(NAMES, max_size=3), st.sampled_from([b" ", b":", b'"', b"'", b"=", b"\n", b";", b","]))
def test_any_path_below_any_prefix(old: bytes, new: bytes, rest: list[bytes], edge: bytes) -> None:
    assume(not new.startswith(old) and not old.startswith(new))
    below = b"".join(b"/" + name for name in rest)
    both = PrefixMap((old,), new)
    assert both.replace(edge + old + below + edge) == edge + new + below + edge
    assert both.below(old + below) == below[1:]


@given(PATHS, NAMES)
def test_a_sibling_is_never_touched(old: bytes, more: bytes) -> None:
    for sibling in (old + more, b"/x" + old, old.rpartition(b"/")[0]):
        assert PrefixMap((old,), b"/tmp/new").replace(b'"' + sibling + b'"') == b'"' + sibling + b'"'
