"""Detection of the nodes of this job, by the detectors of all schedulers in order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ezpz.cluster.addresses import AUTO, Address, check_hsn, choose_addresses, summary
from ezpz.cluster.allocation import Allocation, Node
from ezpz.cluster.hostnames import check_name, fold, is_me, short
from ezpz.cluster.schedulers.base import REAL, DetectionContext, JobSystem, NodeDetector, NodesFound, System
from ezpz.cluster.schedulers.hostfile import is_named
from ezpz.errors import PluginError, SchedulerError
from ezpz.runtime.plugins import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEDULERS: Registry[tuple[NodeDetector, ...]] = Registry("ezpz.schedulers", "scheduler")


def detect_nodes(
    *,
    hosts: str | None = None,
    hostfile: str | None = None,
    hsn: str = AUTO,
    environ: Mapping[str, str],
    system: System = REAL,
    steps: Sequence[NodeDetector] | None = None,
) -> Allocation:
    """Return the nodes of this job, each once and in the scheduler's order, with addresses and evidence.

    The order is: --hosts, --hostfile, PBS_NODEFILE, HOSTFILE, PBS by job id, qstat, Slurm's environment, squeue, and
    this host alone.

    Args:
        hosts: the option --hosts, or None
        hostfile: the option --hostfile, or None
        hsn: the option --hsn
        environ: the environment of this process
        system: the programs and files to use
        steps: detectors that replace those of the plugins

    Raises:
        UsageError: an option is not valid
        BadHostName: a name is not safe to use
        HostfileError: a hostfile cannot be used
        SchedulerError: the scheduler's answer cannot be used
    """
    check_hsn(hsn)
    me = system.local_names()
    evidence: list[str] = []
    ordered = sorted(installed_steps(evidence) if steps is None else steps, key=lambda step: (step.rank, step.label))
    context = DetectionContext(environ, system, me, hosts, hostfile)
    step, found = _first(context, ordered, evidence)
    given = _unique(found.names, step.label, me)
    remote = [name for name in given if not is_me(name, me)]
    chosen = choose_addresses(remote, hsn=hsn, resolve=system.resolve, answers=system.answers)
    nodes = tuple(_node(name, chosen) for name in given)
    evidence.append(_deciding_line(step, found, nodes, chosen))
    return Allocation(found.scheduler, found.job_id, nodes, tuple(evidence), found.warnings + _fallbacks(hsn, chosen))


def installed_steps(evidence: list[str]) -> tuple[NodeDetector, ...]:
    """Return the detectors of all installed schedulers. A plugin that cannot be loaded becomes a line of evidence."""
    return tuple(step for name in SCHEDULERS.names() for step in _steps_of(name, evidence))


def job_system_of(allocation: Allocation, environ: Mapping[str, str]) -> JobSystem | None:
    """Return the scheduler whose job has these nodes, also if the user named some of them, or None outside of a job."""
    ordered = sorted(installed_steps([]), key=lambda step: step.rank)
    systems = {step.system.name: step.system for step in ordered if step.system is not None}
    if not is_named(allocation):
        return systems.get(allocation.scheduler)
    return next((each for each in reversed(systems.values()) if environ.get(each.job_variable)), None)


def _steps_of(name: str, evidence: list[str]) -> tuple[NodeDetector, ...]:
    try:
        return SCHEDULERS.load(name)
    except PluginError as e:
        evidence.append(e.message)
        return ()


def _first(
    context: DetectionContext, steps: Sequence[NodeDetector], evidence: list[str]
) -> tuple[NodeDetector, NodesFound]:
    """Return the first detector that finds nodes, and its answer. The lines of the others go into the evidence."""
    for step in steps:
        answer = step.find(context)
        if isinstance(answer, NodesFound):
            return step, answer
        line = f"{step.label}: {answer.why}"
        evidence.append(line)
        if answer.notable:
            context = replace(context, noted=(*context.noted, line))
    raise SchedulerError(
        "no step found any node: " + ("; ".join(evidence) or "no scheduler is installed"),
        hint="reinstall ezpz, whose entry points seem to be missing",
    )


def _unique(names: Sequence[str], where: str, me: frozenset[str]) -> tuple[str, ...]:
    """Return the names in order, one for each host. All names of this host count as one."""
    by_key: dict[str, str] = {}
    for name in names:
        check_name(name, where)
        by_key.setdefault("" if is_me(name, me) else short(name), name)
    return tuple(by_key.values())


def _node(given: str, chosen: Mapping[str, Address]) -> Node:
    """Return the node of a name. A name that was not probed belongs to this host."""
    dialled = chosen.get(given)
    return Node(short(given), dialled.address if dialled else given, given, is_local=dialled is None)


def _deciding_line(step: NodeDetector, found: NodesFound, nodes: Sequence[Node], chosen: dict[str, Address]) -> str:
    count = f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}"
    job = f" of job {found.job_id}" if found.job_id else ""
    addresses = f"; {summary(chosen)}" if chosen else ""
    return f"{step.label}: {count}{job}, {found.why}{addresses}"


def _fallbacks(hsn: str, chosen: Mapping[str, Address]) -> tuple[str, ...]:
    names = [name for name, address in chosen.items() if address.fell_back]
    if not names:
        return ()
    count = f"{len(names)} of {len(chosen)} nodes"
    reason = chosen[names[0]].reason
    return (f"--hsn {hsn}: {count} dialled by their given name, {fold(map(short, names))} ({reason})",)
