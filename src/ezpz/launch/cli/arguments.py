"""Split a command line into options of ezpz, options of the launcher, and COMMAND. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

END = "--"


@dataclass(frozen=True, slots=True)
class CommandWords:
    """A split command line: options for click, options for the launcher in their order, and the command."""

    our_options: tuple[str, ...]
    launcher_options: tuple[str, ...]
    command: tuple[str, ...]


def split_command_line(words: Sequence[str], options: Mapping[str, int]) -> CommandWords:
    """Split a command line.

    COMMAND starts after `--`, or at the first word that is not an option. A word after an unknown option can be its
    value, so unknown options need the `--`.

    Args:
        words: The words of the line.
        options: The names of the options of ezpz, each with its number of values.

    Raises:
        UsageError: There is an unknown option and no `--`.
    """
    our_options: list[str] = []
    launcher_options: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word == END:
            return CommandWords(tuple(our_options), tuple(launcher_options), tuple(words[index + 1 :]))
        values = _value_count(word, options)
        if values is not None:
            our_options += words[index : index + 1 + values]
            index += 1 + values
        elif launcher_options or (word.startswith("-") and word != "-"):
            launcher_options.append(word)
            index += 1
        else:
            return CommandWords(tuple(our_options), (), tuple(words[index:]))
    if launcher_options:
        raise UsageError(
            f"No such option: {launcher_options[0]}",
            hint=f"to hand it to the launcher, write -- before COMMAND: ezpz launch {launcher_options[0]} -- COMMAND",
        )
    return CommandWords(tuple(our_options), (), ())


def _value_count(word: str, options: Mapping[str, int]) -> int | None:
    """Return the number of words after this option that belong to it; None if it is not an option of ezpz."""
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
