"""Options of a relocation, as its caller wants it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelocationOptions:
    """What the user wants to happen to an environment.

    Attributes:
        base: What happens to the base Python: "auto", "embed", or "keep".
        editable: What happens to editable installs: "snapshot", "keep", or "refuse".
        orig_prefix: Path at which the environment in an archive was created. None if the user named none.
        public: Whether the copies can be read by other users, so that exposed files are reported.
    """

    base: str = "auto"
    editable: str = "snapshot"
    orig_prefix: str | None = None
    public: bool = False
