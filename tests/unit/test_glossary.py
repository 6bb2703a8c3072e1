"""One word per concept: the words that the glossary bans are in no docstring, comment, or architecture page."""

from __future__ import annotations

import io
import re
import tokenize
from typing import TYPE_CHECKING

import pytest

from tests.paths import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPENING = (tokenize.NEWLINE, tokenize.INDENT, tokenize.NL, tokenize.DEDENT)
GLOSSARY = REPOSITORY / "docs" / "glossary.md"
FILES = sorted((REPOSITORY / "src").rglob("*.py"))
PAGES = [
    REPOSITORY / "docs" / "architecture.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs" / "adr").glob("*.md")),
]


def banned() -> list[str]:
    table = GLOSSARY.read_text().partition("## Words\n")[2]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ") and not line.startswith("| Say")]
    return [word.strip() for row in rows for word in row.split(",")]


def pattern() -> re.Pattern[str]:
    words = sorted(banned(), key=len, reverse=True)
    return re.compile(rf"(?<![\w`'-])(?:{'|'.join(words)})(?:s|ed|ing)?(?![\w`'-])", re.IGNORECASE)


BANNED = pattern()


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and comments of a file, each with its line."""
    previous = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT or (
            token.type == tokenize.STRING and previous in OPENING and token.line.strip().startswith('"""')
        ):
            yield token.start[0], token.string
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            previous = token.type


def test_the_glossary_bans_something() -> None:
    assert BANNED.search("a folder")
    assert not BANNED.search("a directory")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_docstrings_and_comments_use_the_words_of_the_glossary(path: Path) -> None:
    found = [f"{path.name}:{line}: {match[0]}" for line, text in prose(path) for match in BANNED.finditer(text)]
    assert found == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_for_contributors_use_the_words_of_the_glossary(path: Path) -> None:
    found = [match[0] for match in BANNED.finditer(re.sub(r"`[^`]*`", "", path.read_text()))]
    assert found == []
