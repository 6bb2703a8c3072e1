"""Schema: the form of what `ezpz yeet tar --json` prints."""

from __future__ import annotations

SCHEMA = "ezpz/archive/1"
