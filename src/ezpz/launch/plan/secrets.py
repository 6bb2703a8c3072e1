"""Pure: what may be shown of a command line and an environment; secrets may not."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from typing import TYPE_CHECKING

from ezpz.launch.launchers.base import HOSTFILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ezpz.launch.launchers.base import Invocation

MASK = "***"
MIN_SECRET_LENGTH = (
    8  # characters; a shorter value of a secret variable ("true", "1") may stand in a line for other reasons
)

_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASS(W|PHRASE|$)|CREDENTIAL|(?<![A-Z])(PAT|AUTH)$", re.IGNORECASE)
_WORDS = "token|key|apikey|secret|pass|password|passwd|passphrase|credentials?"
_SECRET_OPTION = re.compile(rf"-.*(?<![a-z])({_WORDS})", re.IGNORECASE)
_SECRET_NAME = re.compile(rf"(?<![a-z])({_WORDS}|pat|auth)(?![a-z])", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(?:.*?[=,])?(?P<name>--?[\w-]+|[A-Za-z_]\w*)=(?P<value>.+)", re.DOTALL)
_ENV_OPTION = re.compile(r"-g?env")  # -genv NAME VALUE, -env NAME VALUE


def is_secret(name: str) -> bool:
    """Whether the value of a variable of this name must not be shown."""
    return _SECRET.search(name) is not None


def mask_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The same variables, the values of secret ones replaced by ***."""
    return {name: MASK if value and is_secret(name) else value for name, value in environ.items()}


def mask_words(words: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The words of a line with *** for every secret: values of secret variables of `environ`, and NAME=VALUE,
    --some-token VALUE and -genv NAME VALUE whose name says that they are one.
    """
    return tuple(
        "".join(text if literal else MASK for literal, text in parts) for parts in _split_secrets(words, environ)
    )


def quote_words(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """The words as a line for a shell, that runs when pasted: secrets that stand in `environ` become "$NAME" there.

    A secret that stands nowhere but in the line itself becomes ***, and has to be typed again.
    """
    return " ".join(_quote_parts(parts) for parts in _split_secrets(words, environ))


def _quote_parts(parts: Sequence[tuple[bool, str]]) -> str:
    if all(literal and not text for literal, text in parts):
        return "''"
    return "".join(
        _quote_literal(text) if literal else f'"${{{text}}}"' if text else shlex.quote(MASK) for literal, text in parts
    )


def _quote_literal(text: str) -> str:
    """A part of a word for a shell; what a terminal does not show, or a shell does not take from it, is printf's."""
    runs = ((shown, "".join(run)) for shown, run in itertools.groupby(text, lambda c: c.isprintable() or c == "\n"))
    return "".join(shlex.quote(run) if shown else f"\"$(printf '{_octal(run)}')\"" for shown, run in runs)


def _octal(text: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(text))


def _split_secrets(words: Sequence[str], environ: Mapping[str, str]) -> Iterator[tuple[tuple[bool, str], ...]]:
    """Each word as parts: literal text, or the name of the variable that holds a secret ("" for none)."""
    secrets = {value: name for name, value in environ.items() if len(value) >= MIN_SECRET_LENGTH and is_secret(name)}
    before = two_before = ""
    for word in words:
        parts = _split_values(word, secrets)
        if all(literal for literal, _ in parts):
            named = _ENV_OPTION.fullmatch(two_before) and is_secret(before)
            parts = ((False, ""),) if word and (named or _SECRET_OPTION.fullmatch(before)) else _split_assignment(word)
        yield parts
        two_before, before = before, word


def _split_assignment(word: str) -> tuple[tuple[bool, str], ...]:
    """NAME=VALUE, also behind an option (--env=NAME=VALUE) or another one (--export=ALL,NAME=VALUE)."""
    start = 0
    while found := _ASSIGNMENT.match(word, start):
        if _names_secret(found["name"]):
            return ((True, word[: found.start("value")]), (False, ""))
        start = found.start("value")
    return ((True, word),)


def _names_secret(name: str) -> bool:
    return (_SECRET_OPTION.fullmatch if name.startswith("-") else _SECRET_NAME.search)(name) is not None


def _split_values(word: str, secrets: Mapping[str, str]) -> tuple[tuple[bool, str], ...]:
    if not secrets:
        return ((True, word),)
    pattern = "|".join(re.escape(value) for value in sorted(secrets, key=len, reverse=True))
    pieces = re.split(f"({pattern})", word)
    return tuple(
        (not odd, secrets[piece] if odd else piece) for piece, odd in zip(pieces, _alternating(), strict=False)
    )


def _alternating() -> Iterator[bool]:
    while True:
        yield False
        yield True


def shell_line(invocation: Invocation, environ: Mapping[str, str]) -> str:
    """The line that does what the invocation does, without secrets: those of `environ` stand there by their names.

    It writes the hostfile first, if there is one; ranks that this host starts itself are started side by side.
    """
    if invocation.hostfile:
        at = invocation.argv.index(HOSTFILE)
        before, after = invocation.argv[:at], invocation.argv[at + 1 :]
        hosts = shlex.join(invocation.hostfile.splitlines())
        line = " ".join((quote_words(before, environ), '"$hosts"', quote_words(after, environ)))
        return f"hosts=$(mktemp) && printf '%s\\n' {hosts} > \"$hosts\" && {line}"
    line = quote_words(invocation.argv, environ)
    ranks = [
        " ".join((*(f"{name}={shlex.quote(value)}" for name, value in own.items()), line))
        for own in invocation.rank_environments
    ]
    return ranks[0] if len(ranks) == 1 else f"{{ {' & '.join(ranks)} & wait; }}"
