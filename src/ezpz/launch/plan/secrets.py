"""Command lines and environments without secrets, for messages and documents. Pure."""

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
MIN_SECRET_LENGTH = 8  # characters; a shorter value ("true", "1") can be in a line for other reasons

_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASS(W|PHRASE|$)|CREDENTIAL|(?<![A-Z])(PAT|AUTH)$", re.IGNORECASE)
_WORDS = "token|key|apikey|secret|pass|password|passwd|passphrase|credentials?"
_SECRET_OPTION = re.compile(rf"-.*(?<![a-z])({_WORDS})", re.IGNORECASE)
_SECRET_NAME = re.compile(rf"(?<![a-z])({_WORDS}|pat|auth)(?![a-z])", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(?:.*?[=,])?(?P<name>--?[\w-]+|[A-Za-z_]\w*)=(?P<value>.+)", re.DOTALL)
_ENV_OPTION = re.compile(r"-g?env")  # -genv NAME VALUE, -env NAME VALUE


def is_secret(name: str) -> bool:
    """Return whether the value of a variable with this name must not be shown."""
    return _SECRET.search(name) is not None


def mask_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with *** in place of secret values."""
    return {name: MASK if value and is_secret(name) else value for name, value in environ.items()}


def mask_words(words: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words of a line with *** in place of secrets.

    Secrets are the values of secret variables of `environ`, and the values of NAME=VALUE, --some-token VALUE, and
    -genv NAME VALUE with a secret name.
    """
    return tuple(
        "".join(text if literal else MASK for literal, text in parts) for parts in _split_secrets(words, environ)
    )


def quote_words(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return the words as a line for a shell. A secret value of a variable in `environ` becomes "$NAME".

    Any other secret becomes ***, and has to be typed again.
    """
    return " ".join(_quote_parts(parts) for parts in _split_secrets(words, environ))


def _quote_parts(parts: Sequence[tuple[bool, str]]) -> str:
    if all(literal and not text for literal, text in parts):
        return "''"
    return "".join(
        _quote_literal(text) if literal else f'"${{{text}}}"' if text else shlex.quote(MASK) for literal, text in parts
    )


def _quote_literal(text: str) -> str:
    """Return a part of a word, quoted for a shell. Characters that are not printable are printed by printf."""
    runs = ((shown, "".join(run)) for shown, run in itertools.groupby(text, lambda c: c.isprintable() or c == "\n"))
    return "".join(shlex.quote(run) if shown else f"\"$(printf '{_octal(run)}')\"" for shown, run in runs)


def _octal(text: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(text))


def _split_secrets(words: Sequence[str], environ: Mapping[str, str]) -> Iterator[tuple[tuple[bool, str], ...]]:
    """Yield each word as parts: literal text, or the name of the variable with the secret ("" for none)."""
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
    """Return the parts of NAME=VALUE, also after an option (--env=NAME=VALUE) or a value (--export=ALL,NAME=VALUE)."""
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
    return tuple((i % 2 == 0, secrets[piece] if i % 2 else piece) for i, piece in enumerate(pieces))


def shell_line(invocation: Invocation, environ: Mapping[str, str]) -> str:
    """Return a line for a shell that does the same as the invocation, with secrets of `environ` by name.

    It writes the hostfile first, if there is one. It starts ranks in parallel that this host starts itself.
    """
    if invocation.hostfile:
        index = invocation.argv.index(HOSTFILE)
        before, after = invocation.argv[:index], invocation.argv[index + 1 :]
        hosts = shlex.join(invocation.hostfile.splitlines())
        line = " ".join((quote_words(before, environ), '"$hosts"', quote_words(after, environ)))
        return f"hosts=$(mktemp) && printf '%s\\n' {hosts} > \"$hosts\" && {line}"
    line = quote_words(invocation.argv, environ)
    ranks = [
        " ".join((*(f"{name}={shlex.quote(value)}" for name, value in own.items()), line))
        for own in invocation.rank_environments
    ]
    return ranks[0] if len(ranks) == 1 else f"{{ {' & '.join(ranks)} & wait; }}"
