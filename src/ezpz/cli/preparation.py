"""Preparations: what another command does before a command, as in `ezpz launch --yeet`.

A preparation is one function and one line in the entry-point group `ezpz.preparations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ezpz.cli.output import Output
from ezpz.runtime.plugins import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Prepared:
    """The result of a preparation, or of its dry run.

    Attributes:
        destination: the path of the environment on the nodes
        original: the path of its source
        failed: the nodes that did not get it
        exit_code: 0 if the command can continue
        document: the JSON document of the preparation, or None
    """

    destination: str
    original: str
    failed: tuple[str, ...] = ()
    exit_code: int = 0
    document: Mapping[str, Any] | None = None


class Preparation(Protocol):
    """Copies an environment to the nodes. `args` are options of its own command. `dry_run` only returns the path."""

    def __call__(self, output: Output, args: Sequence[str], *, dry_run: bool) -> Prepared: ...


PREPARATIONS: Registry[Preparation] = Registry("ezpz.preparations", "preparation")


class PreparationOutput(Output):
    """The output of a preparation: stdout belongs to the command that runs after it."""

    def line(self, text: str = "", *, fg: str | None = None, bold: bool = False) -> None:  # noqa: ARG002 - as Output has it
        """Print the line on stderr."""
        self.note(text)

    def document(self, mapping: Mapping[str, Any]) -> None:
        """Print nothing: the command prints the only document of the run."""

    @classmethod
    def like(cls, output: Output) -> PreparationOutput:
        """Return the output of a preparation with the options of `output`."""
        return cls(json=output.json, verbose=output.verbose, quiet=output.quiet)
