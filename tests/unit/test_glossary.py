"""One word per concept: no docstring, comment, or page for developers contains a word that the glossary bans."""

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
    REPOSITORY / "CONTRIBUTING.md",
    *(REPOSITORY / "docs" / name for name in ("architecture.md", "explanation/how-it-works.md", "how-to/plugins.md")),
    *sorted((REPOSITORY / "docs" / "adr").glob("*.md")),
]
CLASSES = {name for path in FILES for name in re.findall(r"^ *class (\w+)", path.read_text(), re.MULTILINE)}


def banned() -> list[str]:
    """Return the words of the second table of the glossary."""
    table = GLOSSARY.read_text().partition("## Words\n")[2]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ") and not line.startswith("| Say")]
    return [word.strip() for row in rows for word in row.split(",")]


def pattern() -> re.Pattern[str]:
    """Return what finds the banned words, also where a phrase goes over the end of a line."""
    words = (r"\s+".join(map(re.escape, word.split())) for word in sorted(banned(), key=len, reverse=True))
    return re.compile(rf"(?<![\w`'-])(?:{'|'.join(words)})(?![\w`'-])", re.IGNORECASE)


BANNED = pattern()


def banned_words(text: str) -> Iterator[re.Match[str]]:
    """Yield the banned words in a text; the name of a class, such as Cancelled, is none."""
    yield from (match for match in BANNED.finditer(text) if match[0] not in CLASSES)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and comments of a file, each with its line."""
    previous = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        docstring = token.type == tokenize.STRING and token.string.lstrip("rR").startswith('"""')
        if token.type == tokenize.COMMENT or (docstring and previous in OPENING):
            yield token.start[0], token.string
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            previous = token.type


@pytest.mark.parametrize("text", ["a folder", "Folders", "it was cancelled", "what comes\n    along"])
def test_a_banned_word_is_found(text: str) -> None:
    assert list(banned_words(text))


@pytest.mark.parametrize("text", ["a directory", "the `folder` argument", "Raises Cancelled.", "besides", "mender"])
def test_other_words_are_not(text: str) -> None:
    assert not list(banned_words(text))


def test_docstrings_and_comments_are_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""One."""\nx = """no"""  # two\n\n\ndef f() -> None:\n    r"""Three."""\n    g("""no""")\n')
    assert list(prose(module)) == [(1, '"""One."""'), (2, "# two"), (6, 'r"""Three."""')]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_docstrings_and_comments_use_the_words_of_the_glossary(path: Path) -> None:
    found = [f"{path.name}:{line}: {match[0]}" for line, text in prose(path) for match in banned_words(text)]
    assert found == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_for_contributors_use_the_words_of_the_glossary(path: Path) -> None:
    found = [match[0] for match in banned_words(re.sub(r"`[^`]*`", "", path.read_text()))]
    assert found == []
