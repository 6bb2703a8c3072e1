"""What one command may have another do first, without knowing it: `ezpz launch --yeet`.

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
    """What a preparation has done, or would do: the environment's place on the nodes, and who did not get it.

    exit_code: 0 if it is worth going on; document: what it says with --json
    """

    destination: str
    original: str
    failed: tuple[str, ...] = ()
    exit_code: int = 0
    document: Mapping[str, Any] | None = None


class Preparation(Protocol):
    """Puts an environment on the nodes. `args` are options of its own command; `dry_run` only says where to."""

    def __call__(self, output: Output, args: Sequence[str], *, dry_run: bool) -> Prepared: ...


PREPARATIONS: Registry[Preparation] = Registry("ezpz.preparations", "preparation")


class Aside(Output):
    """The voice of a preparation: stdout belongs to the command that comes after it."""

    def line(self, text: str = "", *, fg: str | None = None, bold: bool = False) -> None:  # noqa: ARG002 - as Output has it
        """Say it on stderr."""
        self.note(text)

    def document(self, mapping: Mapping[str, Any]) -> None:
        """Say nothing: the run prints one document."""

    @classmethod
    def beside(cls, output: Output) -> Aside:
        """As talkative as `output`."""
        return cls(json=output.json, verbose=output.verbose, quiet=output.quiet)
