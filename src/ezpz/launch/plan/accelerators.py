"""How many ranks a node takes when nobody says: what the job was given, what the site has, what this host shows."""

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

NVIDIA_SMI_TIMEOUT = 10.0  # seconds; nvidia-smi wakes the GPUs up
SIBLINGS_FILE = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"

_RENDER = re.compile(r"renderD\d+", re.ASCII)
_NVIDIA = re.compile(r"^GPU \d+:", re.MULTILINE)
_NUMBER = re.compile(r"\d+", re.ASCII)


def list_nvidia() -> str:
    """What `nvidia-smi -L` prints, or "" without it."""
    try:
        return process.run(("nvidia-smi", "-L"), timeout=NVIDIA_SMI_TIMEOUT).out
    except (ToolMissing, TimedOut):
        return ""


def list_dri() -> tuple[str, ...]:
    """The names in /dev/dri, () without it."""
    try:
        return tuple(os.listdir("/dev/dri"))
    except OSError:
        return ()


def count_cores() -> int:
    """The cores that this process may use, each once whatever its hardware threads."""
    return len({_siblings(number) for number in os.sched_getaffinity(0)})


def _siblings(thread: int) -> str:
    """Which hardware threads share the core of this one."""
    try:
        with open(SIBLINGS_FILE.format(thread), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return str(thread)


@dataclass(frozen=True, slots=True)
class AcceleratorProbe:
    """The ports through which this host's devices are seen; the defaults are the real ones."""

    nvidia: Callable[[], str] = list_nvidia
    dri: Callable[[], Sequence[str]] = list_dri
    cores: Callable[[], int] = count_cores


REAL_PROBE = AcceleratorProbe()


def capacity(
    site: tuple[str, int],
    allocation: Allocation,
    system: JobSystem | None,
    environ: Mapping[str, str],
    probe: AcceleratorProbe = REAL_PROBE,
) -> NodeCapacity:
    """How many ranks a node takes: one for each accelerator; in a job without any, one for each core; else one.

    site: its name and how many accelerators its nodes have, 0 for unknown. What the job was given counts before what
    the machine has. This host is asked only if it is one of the nodes: a login node is no measure of the others.
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
    """Ranks, accelerators and why, from one place after another; 0 ranks where there is no answer."""
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
    """The cores of a node of this job. Outside of a job nobody has said that all cores of these hosts are ours."""
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
    """The first number in a variable ("8", "64(x4)", "gpu:8"), 0 for none."""
    found = _NUMBER.search(environ.get(name, ""))
    return int(found[0]) if found and len(found[0]) < 7 else 0
