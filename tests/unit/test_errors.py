"""Every failure has a code for scripts and an exit code for shells, and both are written down."""

from __future__ import annotations

import re
import signal

import pytest

from ezpz import errors
from ezpz.cli.app import InternalError
from ezpz.errors import EzpzError, Interrupted, by_code
from tests.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "exit-codes.md"
CLASSES: list[type[EzpzError]] = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EzpzError)
]
ELSEWHERE: list[type[EzpzError]] = [InternalError]
OWN = [kind for kind in CLASSES if kind is not EzpzError]
by_name = pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)


def test_every_code_and_every_exit_code_is_there_once() -> None:
    kinds = [*OWN, *ELSEWHERE]
    assert len({kind.code for kind in kinds} | {EzpzError.code}) == len(kinds) + 1
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
    assert all(0 < kind.exit_code < 126 or kind is Interrupted for kind in kinds)


@by_name
def test_codes_are_words_for_scripts(kind: type[EzpzError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)


@by_name
def test_the_tree_in_the_docstring_has_it_with_its_exit_code(kind: type[EzpzError]) -> None:
    lines = (errors.__doc__ or "").splitlines()
    (line,) = [line for line in lines if re.search(rf"[├└]── {kind.__name__}\b", line)]
    number = re.search(rf"{kind.__name__} +(\d+)", line)
    assert number is not None
    assert int(number.group(1)) == kind.exit_code


def test_the_tree_in_the_docstring_has_nothing_else() -> None:
    named = set(re.findall(r"[├└]── ([A-Z]\w+)", errors.__doc__ or ""))
    assert named == {kind.__name__ for kind in OWN}


@pytest.mark.parametrize("kind", [*OWN, InternalError], ids=lambda kind: kind.__name__)
def test_the_page_has_it(kind: type[EzpzError]) -> None:
    lines = PAGE.read_text().splitlines()
    rows = [line for line in lines if line.startswith("|") and f"`{kind.code}`" in line]
    assert any(re.search(rf"(?<!\d){kind.exit_code}(?!\d)", row) for row in rows), f"no row for {kind.code}"


def test_the_page_has_nothing_else() -> None:
    rows = re.findall(r"^\| *(\d+)[^|]*\| *`([a-z-]+)`", PAGE.read_text(), re.MULTILINE)
    assert rows
    known = {(kind.exit_code, kind.code) for kind in [*CLASSES, *ELSEWHERE]} | {(143, Interrupted.code)}
    assert {(int(number), code) for number, code in rows} <= known


@by_name
def test_a_class_is_found_by_its_code(kind: type[EzpzError]) -> None:
    assert by_code(kind.code) is kind


def test_an_unknown_code_is_the_root() -> None:
    assert by_code("from-the-future") is EzpzError
    assert by_code("error") is EzpzError


@by_name
def test_a_message_a_hint_and_nothing_more(kind: type[EzpzError]) -> None:
    error = kind("n001: what happened", hint="what to do")
    assert (str(error), error.message, error.hint) == ("n001: what happened",) * 2 + ("what to do",)
    assert kind("alone").hint == ""


@by_name
def test_the_node_is_kept_beside_the_text_and_printed_in_front_of_it(kind: type[EzpzError]) -> None:
    error = kind("what happened", node="n001")
    assert (error.node, error.text) == ("n001", "what happened")
    assert str(error) == error.message == "n001: what happened"


GLUED = re.compile(r'\(f"\{[\w.]*\b(node|host)[\w.]*\}: ')


@pytest.mark.parametrize("package", ["remote", "cluster", "yeet"])
def test_no_text_begins_with_the_name_of_a_node(package: str) -> None:
    """An error has a `node` for that; a name inside the text would have to be cut off again."""
    directory = REPOSITORY / "src" / "ezpz" / package
    found = [path.name for path in directory.rglob("*.py") if GLUED.search(path.read_text())]
    assert found == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_exits_as_a_shell_would_say(number: int, code: int) -> None:
    assert Interrupted("interrupted", signal=number).exit_code == code
    assert Interrupted("interrupted").exit_code == 130
