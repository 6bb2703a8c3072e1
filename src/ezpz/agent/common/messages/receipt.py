"""The receipt of a version."""

from typing import Optional, Sequence

from .base import Count, Message

FORMAT = "ezpz/receipt/1"
MADE_OF = ("source", "kind", "ezpz", "public", "relocation", "origins", "inputs", "interpreter", "contents")
"""Fields that are equal for equal versions; the same contents have many manifests, each with another order."""


class Receipt(Message):
    """What a version is and what it was made of, see docs/reference/receipt.md; "" for what is unknown.

    public: None if an older ezpz made it
    """

    format: "str" = FORMAT
    ezpz: "str" = ""
    run: "str" = ""
    source: "str" = ""
    destination: "str" = ""
    kind: "str" = ""
    version: "str" = ""
    files: "Count" = 0
    bytes: "Count" = 0
    relocation: "str" = ""
    inputs: "str" = ""
    interpreter: "str" = ""
    origins: "Sequence[str]" = ()
    contents: "str" = ""
    listing: "str" = ""
    manifest: "str" = ""
    mode: "str" = ""
    public: "Optional[bool]" = None
    created: "Count" = 0
