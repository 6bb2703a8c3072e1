"""What every kind of lab speaks of: a host, and why there may be none."""

from __future__ import annotations

import unittest
from dataclasses import dataclass


class LabError(Exception):
    """A lab did not come up or did not obey; the message holds the host's own log."""


class LabUnavailable(unittest.SkipTest):
    """This machine cannot give what was asked of the lab; pytest skips with the reason."""


@dataclass(frozen=True)
class Host:
    """One host: its names and addresses. The names resolve on every host of its lab."""

    index: int
    name: str
    fqdn: str
    address: str
    hsn_address: str | None = None

    @property
    def hsn_name(self) -> str | None:
        """The name of its high-speed interface, when it has one."""
        return f"{self.name}-hsn0" if self.hsn_address else None

    @property
    def names(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Its rows of /etc/hosts: an address and the names that lead there."""
        rows: tuple[tuple[str, tuple[str, ...]], ...] = ((self.address, (self.fqdn, self.name)),)
        if self.hsn_address:
            domain = self.fqdn.partition(".")[2]
            rows += ((self.hsn_address, (f"{self.hsn_name}.{domain}", f"{self.hsn_name}")),)
        return rows
