"""Pure: which words of a line are our options, which are the launcher's, and where COMMAND begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

END = "--"


@dataclass(frozen=True, slots=True)
class CommandWords:
    """A line taken apart: `ours` for click, `theirs` for the launcher in the order written, and the command."""

    our_options: tuple[str, ...]
    launcher_options: tuple[str, ...]
    command: tuple[str, ...]


def split_command_line(words: Sequence[str], options: Mapping[str, int]) -> CommandWords:
    """Take a line apart; `options` are ours by name, each with the number of values that follow it.

    COMMAND begins behind `--`, or at the first word that is no option, if no option before it is unknown: behind an
    unknown one, such a word may be its value. So unknown options need the `--`. Raises UsageError without it.
    """
    our_options: list[str] = []
    launcher_options: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word == END:
            return CommandWords(tuple(our_options), tuple(launcher_options), tuple(words[at + 1 :]))
        values = _value_count(word, options)
        if values is not None:
            our_options += words[at : at + 1 + values]
            at += 1 + values
        elif launcher_options or (word.startswith("-") and word != "-"):
            launcher_options.append(word)
            at += 1
        else:
            return CommandWords(tuple(our_options), (), tuple(words[at:]))
    if launcher_options:
        raise UsageError(
            f"No such option: {launcher_options[0]}",
            hint=f"to hand it to the launcher, write -- before COMMAND: ezpz launch {launcher_options[0]} -- COMMAND",
        )
    return CommandWords(tuple(our_options), (), ())


def _value_count(word: str, options: Mapping[str, int]) -> int | None:
    """How many words behind this one belong to it, or None if it is no option of ours."""
    if word in options:
        return options[word]
    name, equals, _ = word.partition("=")
    if equals and len(name) > 2 and name in options:  # --nproc=4, -np=4
        return 0
    if not word.startswith("-") or word.startswith("--") or len(word) < 3:
        return None
    letters = [f"-{letter}" for letter in word[1:]]
    if all(options.get(letter) == 0 for letter in letters):  # -vv
        return 0
    return 0 if options.get(letters[0]) == 1 and word[2:].isdigit() else None  # -n4
