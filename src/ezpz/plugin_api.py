"""The stable interface for plugins: the only module of ezpz that a plugin needs to import.

`_LOCATIONS` lists the names of each kind of plugin with the module that defines them. A name is imported when it is
first used, so that a command plugin does not load strategies and engines for `ezpz --help`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ezpz.errors import (
    ArchiveCorrupt,
    ArchiveUnsafe,
    BadHostName,
    ChattyShell,
    ChecksFailed,
    CommandNotFound,
    CopyFailed,
    DestinationBusy,
    DestinationNotOurs,
    DestinationRefused,
    DestinationUnwritable,
    EditableRefused,
    EzpzError,
    HostfileError,
    HostKeyUnknown,
    HostUnknown,
    IdleTimeout,
    InterpreterBroken,
    Interrupted,
    LauncherFailed,
    LauncherMissing,
    LimitReached,
    LoginRefused,
    NodeLost,
    NodesFailed,
    NodesOutside,
    NoExec,
    NoProgress,
    NoSpace,
    NoSpares,
    NotEnoughNodes,
    PluginError,
    PrefixTooLong,
    PrefixUnknown,
    RestartsExhausted,
    SchedulerError,
    SiteFileError,
    SmokeFailed,
    SourceChanged,
    SourceEmpty,
    SourceNotFound,
    SourceUnreadable,
    SshRefused,
    StaleList,
    TimedOut,
    ToolMissing,
    UsageError,
    VerifyFailed,
    Walltime,
)

if TYPE_CHECKING:
    from ezpz.agent.common.cancel import Cancelled, CancelToken
    from ezpz.cli.options import node_options
    from ezpz.cli.output import Output, output_options
    from ezpz.cluster.allocation import Allocation, Node
    from ezpz.cluster.detect_nodes import detect_nodes as detect
    from ezpz.cluster.hostnames import expand as expand_nodeset
    from ezpz.cluster.hostnames import fold as fold_nodeset
    from ezpz.cluster.schedulers.base import (
        Answer,
        DetectionContext,
        JobCandidate,
        JobSystem,
        NodeDetector,
        NodesFound,
        NotFound,
        System,
        run_query,
        select_job,
    )
    from ezpz.cluster.schedulers.hostfile import read_hostfile
    from ezpz.cluster.schedulers.pbs import PBS
    from ezpz.cluster.schedulers.slurm import SLURM
    from ezpz.launch.launchers.base import (
        HOSTFILE,
        Availability,
        Invocation,
        Launcher,
        LaunchSpec,
        RankVariables,
        Tools,
        binding_words,
        check_version,
    )
    from ezpz.launch.launchers.failure_lines import LOST_NODE_PATTERN, NODE_GROUP, SSH_FAILURES, FailurePattern
    from ezpz.launch.launchers.output_labels import LabelFormat
    from ezpz.remote.session import AgentSession
    from ezpz.runtime.process import Completed, Running
    from ezpz.runtime.process import run as run_process
    from ezpz.yeet.engines.agent_engine import AgentEngine
    from ezpz.yeet.engines.base import Engine, EngineOptions, EntrySink, Payload, RemoteFile, RemoteFiles, TransferSpec
    from ezpz.yeet.model.entry import Entry
    from ezpz.yeet.model.events import (
        DetailLogged,
        Emit,
        Event,
        NodeConnected,
        NodeDeferred,
        NodeDone,
        NodeProgress,
        NodeReceived,
        NodeRetrying,
        NodeStarted,
        WarningRaised,
    )
    from ezpz.yeet.model.results import Failure, NodeResult, Outcome
    from ezpz.yeet.source.errors import check_exit, local_failure
    from ezpz.yeet.source.scan import Scan
    from ezpz.yeet.strategies.base import CopyJob, Strategy, name_list
    from ezpz.yeet.strategies.external import normalize_copy
    from ezpz.yeet.strategies.tree_copier import TreeCopier

__all__ = [
    "HOSTFILE",
    "LOST_NODE_PATTERN",
    "NODE_GROUP",
    "PBS",
    "SLURM",
    "SSH_FAILURES",
    "AgentEngine",
    "AgentSession",
    "Allocation",
    "Answer",
    "ArchiveCorrupt",
    "ArchiveUnsafe",
    "Availability",
    "BadHostName",
    "CancelToken",
    "Cancelled",
    "ChattyShell",
    "ChecksFailed",
    "CommandNotFound",
    "Completed",
    "CopyFailed",
    "CopyJob",
    "DestinationBusy",
    "DestinationNotOurs",
    "DestinationRefused",
    "DestinationUnwritable",
    "DetailLogged",
    "DetectionContext",
    "EditableRefused",
    "Emit",
    "Engine",
    "EngineOptions",
    "Entry",
    "EntrySink",
    "Event",
    "EzpzError",
    "Failure",
    "FailurePattern",
    "HostKeyUnknown",
    "HostUnknown",
    "HostfileError",
    "IdleTimeout",
    "InterpreterBroken",
    "Interrupted",
    "Invocation",
    "JobCandidate",
    "JobSystem",
    "LabelFormat",
    "LaunchSpec",
    "Launcher",
    "LauncherFailed",
    "LauncherMissing",
    "LimitReached",
    "LoginRefused",
    "NoExec",
    "NoProgress",
    "NoSpace",
    "NoSpares",
    "Node",
    "NodeConnected",
    "NodeDeferred",
    "NodeDetector",
    "NodeDone",
    "NodeLost",
    "NodeProgress",
    "NodeReceived",
    "NodeResult",
    "NodeRetrying",
    "NodeStarted",
    "NodesFailed",
    "NodesFound",
    "NodesOutside",
    "NotEnoughNodes",
    "NotFound",
    "Outcome",
    "Output",
    "Payload",
    "PluginError",
    "PrefixTooLong",
    "PrefixUnknown",
    "RankVariables",
    "RemoteFile",
    "RemoteFiles",
    "RestartsExhausted",
    "Running",
    "Scan",
    "SchedulerError",
    "SiteFileError",
    "SmokeFailed",
    "SourceChanged",
    "SourceEmpty",
    "SourceNotFound",
    "SourceUnreadable",
    "SshRefused",
    "StaleList",
    "Strategy",
    "System",
    "TimedOut",
    "ToolMissing",
    "Tools",
    "TransferSpec",
    "TreeCopier",
    "UsageError",
    "VerifyFailed",
    "Walltime",
    "WarningRaised",
    "binding_words",
    "check_exit",
    "check_version",
    "detect",
    "expand_nodeset",
    "fold_nodeset",
    "local_failure",
    "name_list",
    "node_options",
    "normalize_copy",
    "output_options",
    "read_hostfile",
    "run_process",
    "run_query",
    "select_job",
]

_LOCATIONS = {
    # Nodes of the job
    "Allocation": "ezpz.cluster.allocation:Allocation",
    "Node": "ezpz.cluster.allocation:Node",
    "detect": "ezpz.cluster.detect_nodes:detect_nodes",
    "expand_nodeset": "ezpz.cluster.hostnames:expand",
    "fold_nodeset": "ezpz.cluster.hostnames:fold",
    # Local processes
    "CancelToken": "ezpz.agent.common.cancel:CancelToken",
    "Cancelled": "ezpz.agent.common.cancel:Cancelled",
    "Completed": "ezpz.runtime.process:Completed",
    "Running": "ezpz.runtime.process:Running",
    "run_process": "ezpz.runtime.process:run",
    # Commands
    "Output": "ezpz.cli.output:Output",
    "node_options": "ezpz.cli.options:node_options",
    "output_options": "ezpz.cli.output:output_options",
    # Strategies
    "CopyJob": "ezpz.yeet.strategies.base:CopyJob",
    "Entry": "ezpz.yeet.model.entry:Entry",
    "Scan": "ezpz.yeet.source.scan:Scan",
    "Strategy": "ezpz.yeet.strategies.base:Strategy",
    "TreeCopier": "ezpz.yeet.strategies.tree_copier:TreeCopier",
    "check_exit": "ezpz.yeet.source.errors:check_exit",
    "local_failure": "ezpz.yeet.source.errors:local_failure",
    "name_list": "ezpz.yeet.strategies.base:name_list",
    "normalize_copy": "ezpz.yeet.strategies.external:normalize_copy",
    # Engines
    "AgentEngine": "ezpz.yeet.engines.agent_engine:AgentEngine",
    "AgentSession": "ezpz.remote.session:AgentSession",
    "DetailLogged": "ezpz.yeet.model.events:DetailLogged",
    "Emit": "ezpz.yeet.model.events:Emit",
    "Engine": "ezpz.yeet.engines.base:Engine",
    "EngineOptions": "ezpz.yeet.engines.base:EngineOptions",
    "EntrySink": "ezpz.yeet.engines.base:EntrySink",
    "Event": "ezpz.yeet.model.events:Event",
    "Failure": "ezpz.yeet.model.results:Failure",
    "NodeConnected": "ezpz.yeet.model.events:NodeConnected",
    "NodeDeferred": "ezpz.yeet.model.events:NodeDeferred",
    "NodeDone": "ezpz.yeet.model.events:NodeDone",
    "NodeProgress": "ezpz.yeet.model.events:NodeProgress",
    "NodeReceived": "ezpz.yeet.model.events:NodeReceived",
    "NodeResult": "ezpz.yeet.model.results:NodeResult",
    "NodeRetrying": "ezpz.yeet.model.events:NodeRetrying",
    "NodeStarted": "ezpz.yeet.model.events:NodeStarted",
    "Outcome": "ezpz.yeet.model.results:Outcome",
    "Payload": "ezpz.yeet.engines.base:Payload",
    "RemoteFile": "ezpz.yeet.engines.base:RemoteFile",
    "RemoteFiles": "ezpz.yeet.engines.base:RemoteFiles",
    "TransferSpec": "ezpz.yeet.engines.base:TransferSpec",
    "WarningRaised": "ezpz.yeet.model.events:WarningRaised",
    # Schedulers
    "Answer": "ezpz.cluster.schedulers.base:Answer",
    "DetectionContext": "ezpz.cluster.schedulers.base:DetectionContext",
    "JobCandidate": "ezpz.cluster.schedulers.base:JobCandidate",
    "JobSystem": "ezpz.cluster.schedulers.base:JobSystem",
    "NodeDetector": "ezpz.cluster.schedulers.base:NodeDetector",
    "NodesFound": "ezpz.cluster.schedulers.base:NodesFound",
    "NotFound": "ezpz.cluster.schedulers.base:NotFound",
    "PBS": "ezpz.cluster.schedulers.pbs:PBS",
    "SLURM": "ezpz.cluster.schedulers.slurm:SLURM",
    "System": "ezpz.cluster.schedulers.base:System",
    "read_hostfile": "ezpz.cluster.schedulers.hostfile:read_hostfile",
    "run_query": "ezpz.cluster.schedulers.base:run_query",
    "select_job": "ezpz.cluster.schedulers.base:select_job",
    # Launchers
    "Availability": "ezpz.launch.launchers.base:Availability",
    "FailurePattern": "ezpz.launch.launchers.failure_lines:FailurePattern",
    "HOSTFILE": "ezpz.launch.launchers.base:HOSTFILE",
    "Invocation": "ezpz.launch.launchers.base:Invocation",
    "LaunchSpec": "ezpz.launch.launchers.base:LaunchSpec",
    "LOST_NODE_PATTERN": "ezpz.launch.launchers.failure_lines:LOST_NODE_PATTERN",
    "LabelFormat": "ezpz.launch.launchers.output_labels:LabelFormat",
    "Launcher": "ezpz.launch.launchers.base:Launcher",
    "NODE_GROUP": "ezpz.launch.launchers.failure_lines:NODE_GROUP",
    "RankVariables": "ezpz.launch.launchers.base:RankVariables",
    "SSH_FAILURES": "ezpz.launch.launchers.failure_lines:SSH_FAILURES",
    "Tools": "ezpz.launch.launchers.base:Tools",
    "binding_words": "ezpz.launch.launchers.base:binding_words",
    "check_version": "ezpz.launch.launchers.base:check_version",
}


def __getattr__(name: str) -> object:
    """Import a name of `_LOCATIONS` when it is first used (PEP 562)."""
    if name not in _LOCATIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LOCATIONS[name].partition(":")
    found: object = getattr(import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
