"""Default number of ranks per node: from the job, from the site, or from the devices and cores of this host."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ezpz.errors import TimedOut, ToolMissing
from ezpz.launch.plan.topology import NodeCapacity
from ezpz.runtime import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ezpz.cluster.allocation import Allocation
    from ezpz.cluster.schedulers.base import JobSystem

NVIDIA_SMI_TIMEOUT = 10.0  # seconds; nvidia-smi initializes idle GPUs
SIBLINGS_FILE = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"

_RENDER = re.compile(r"renderD\d+", re.ASCII)
_NVIDIA = re.compile(r"^GPU \d+:", re.MULTILINE)
_NUMBER = re.compile(r"\d+", re.ASCII)


def list_nvidia() -> str:
    """Return what `nvidia-smi -L` prints, or "" without it."""
    try:
        return process.run(("nvidia-smi", "-L"), timeout=NVIDIA_SMI_TIMEOUT).out
    except (ToolMissing, TimedOut):
        return ""


def list_dri() -> tuple[str, ...]:
    """Return the names in /dev/dri, () without it."""
    try:
        return tuple(os.listdir("/dev/dri"))
    except OSError:
        return ()


def count_cores() -> int:
    """Return the number of cores that this process may use. Hardware threads of a core are not counted."""
    return len({_siblings(number) for number in os.sched_getaffinity(0)})


def _siblings(thread: int) -> str:
    """Return the hardware threads that share the core of this one."""
    try:
        with open(SIBLINGS_FILE.format(thread), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return str(thread)


@dataclass(frozen=True, slots=True)
class AcceleratorProbe:
    """The ports to the devices of this host. The defaults are the real ones."""

    nvidia: Callable[[], str] = list_nvidia
    dri: Callable[[], Sequence[str]] = list_dri
    cores: Callable[[], int] = count_cores


REAL_PROBE = AcceleratorProbe()


def find_capacity(
    site: tuple[str, int],
    allocation: Allocation,
    system: JobSystem | None,
    environ: Mapping[str, str],
    probe: AcceleratorProbe = REAL_PROBE,
) -> NodeCapacity:
    """Return how many ranks run on a node: one per accelerator, in a job without any one per core, else one.

    The resources of the job have priority over those of the machine. The devices of this host count only if it is one
    of the nodes, because a login node can have others.

    Args:
        site: The name of the site and the accelerators of its nodes, 0 if their number is unknown.
        allocation: The nodes.
        system: The scheduler of the job, None outside of a job.
        environ: The environment.
        probe: The devices of this host.
    """
    evidence: list[str] = []
    for found, accelerators, why in _candidates(site, allocation, system, environ, probe):
        if found:
            return NodeCapacity(found, accelerators, why, tuple(evidence))
        evidence.append(f"ranks a node: {why}")
    return NodeCapacity(1, 0, "no accelerator is known of", tuple(evidence))


def _candidates(
    site: tuple[str, int],
    allocation: Allocation,
    system: JobSystem | None,
    environ: Mapping[str, str],
    probe: AcceleratorProbe,
) -> Iterator[tuple[int, int, str]]:
    """Yield ranks, accelerators, and why, from one source after another; 0 ranks without an answer."""
    if system is not None:
        asked, gpus = _first_number(environ, system.ranks), _first_number(environ, system.accelerators)
        if asked:
            yield asked, gpus or site[1], f"{system.ranks} is {asked}, which the job asked for"
        if system.accelerators:
            yield gpus, gpus, f"{system.accelerators} is {gpus or 'not set'}"
    yield site[1], site[1], f"site {site[0]} has {site[1] or 'no known number of'} accelerators a node"
    if allocation.local is not None:
        cards = len(_NVIDIA.findall(probe.nvidia()))
        yield cards, cards, f"nvidia-smi lists {cards} here"
        cards = sum(_RENDER.fullmatch(name) is not None for name in probe.dri())
        yield cards, cards, f"/dev/dri has {cards} render nodes here"
    else:
        yield 0, 0, "this host is none of the nodes, so it is not asked for its devices"
    yield _job_cores(allocation, system, environ, probe)


def _job_cores(
    allocation: Allocation, system: JobSystem | None, environ: Mapping[str, str], probe: AcceleratorProbe
) -> tuple[int, int, str]:
    """Return the cores of a node of the job. Outside of a job, other users can need the cores of a host."""
    if system is None:
        return 0, 0, "no accelerators, and outside of a job cores are not counted"
    given = _first_number(environ, system.cores)
    if given:
        return given, 0, f"no accelerators, and the job has {given} CPUs a node ({system.cores})"
    if allocation.local is None:
        return 0, 0, "this host is none of the nodes, so its cores are not counted"
    cores = probe.cores()
    return cores, 0, f"no accelerators, and {cores} cores here"


def _first_number(environ: Mapping[str, str], name: str) -> int:
    """Return the first number in a variable ("8", "64(x4)", "gpu:8"), 0 for none."""
    found = _NUMBER.search(environ.get(name, ""))
    return int(found[0]) if found and len(found[0]) < 7 else 0
