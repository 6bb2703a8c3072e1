"""Names that users and plugins rely on: commands, entry points, the Python API, and the interface for plugins."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys

import pytest

import ezpz.plugin_api
from ezpz import errors
from tests.paths import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SCRIPTS = {"ezpz", "ezpz-yeet-env", "ezpz-tar-env", "ezpz-launch"}
ENTRY_POINTS = {
    "ezpz.commands": {"launch", "yeet", "yeet-env", "tar-env"},
    "ezpz.preparations": {"yeet"},
    "ezpz.yeet.strategies": {"direct", "rsync", "cp", "compress", "tarball", "squashfs"},
    "ezpz.yeet.engines": {"rsync", "stream"},
    "ezpz.schedulers": {"hosts", "pbs", "slurm", "localhost"},
    "ezpz.launchers": {"srun", "local", "pals", "hydra", "openmpi"},
}
MODULES = {
    "ezpz.utils.yeet_env": "main parse_args pick_source run",
    "ezpz.launch.api": "LaunchPlan plan run",
    "ezpz.plugin_api": """
        Allocation Node detect expand_nodeset fold_nodeset
        CancelToken Cancelled Completed Running run_process
        Output node_options output_options
        CopyJob Entry Scan Strategy TreeCopier check_exit local_failure name_list normalize_copy
        AgentEngine AgentSession Engine EngineOptions EntrySink Failure NodeResult Outcome Payload RemoteFile
        RemoteFiles TransferSpec
        DetailLogged Emit Event NodeConnected NodeDeferred NodeDone NodeProgress NodeReceived NodeRetrying NodeStarted
        WarningRaised
        Answer DetectionContext JobCandidate JobSystem NodeDetector NodesFound NotFound PBS SLURM System read_hostfile
        run_query select_job
        HOSTFILE Invocation LaunchSpec LOST_NODE_PATTERN LabelFormat Launcher NODE_GROUP RankVariables
        SSH_FAILURES FailurePattern Tools Availability binding_words
        check_version
        ArchiveCorrupt ArchiveUnsafe BadHostName ChattyShell ChecksFailed CommandNotFound CopyFailed DestinationBusy
        DestinationNotOurs DestinationRefused DestinationUnwritable EditableRefused EzpzError HostKeyUnknown HostUnknown
        HostfileError IdleTimeout InterpreterBroken Interrupted LauncherFailed LauncherMissing LimitReached LoginRefused
        NoExec NoProgress NoSpace NoSpares NodeLost NodesFailed NodesOutside NotEnoughNodes PluginError PrefixTooLong
        PrefixUnknown RestartsExhausted SchedulerError SiteFileError SmokeFailed SourceChanged SourceEmpty
        SourceNotFound SourceUnreadable SshRefused StaleList TimedOut ToolMissing UsageError VerifyFailed Walltime
    """,
}


def test_the_console_scripts_are_declared() -> None:
    assert set(PROJECT["scripts"]) == SCRIPTS


def test_the_entry_points_are_declared() -> None:
    assert {group: set(points) for group, points in PROJECT["entry-points"].items()} == ENTRY_POINTS


@pytest.mark.parametrize(
    "value",
    [*PROJECT["scripts"].values(), *(value for group in PROJECT["entry-points"].values() for value in group.values())],
)
def test_every_entry_point_can_be_imported(value: str) -> None:
    module, _, attribute = value.partition(":")
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_exports_these_names(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) == set(MODULES[name].split())
    assert [each for each in module.__all__ if not hasattr(module, each)] == []


# The interface for plugins


def test_the_interface_has_every_error() -> None:
    declared = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert declared <= set(ezpz.plugin_api.__all__)


def test_type_checkers_see_the_names_where_they_are_loaded_from() -> None:
    """Compare the imports for type checkers with the table for the lazy imports."""
    tree = ast.parse((REPOSITORY / "src" / "ezpz" / "plugin_api.py").read_text())
    (block,) = (each for each in tree.body if isinstance(each, ast.If))
    seen = {
        alias.asname or alias.name: f"{each.module}:{alias.name}"
        for each in block.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
    assert seen == ezpz.plugin_api._LOCATIONS


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Strategies'"):
        _ = ezpz.plugin_api.Strategies


@pytest.mark.processes
def test_a_command_plugin_loads_neither_strategies_nor_launchers() -> None:
    program = """
import sys
from ezpz.plugin_api import Output, UsageError, detect, node_options, output_options
print(*(name for name in sys.modules if name.startswith(("ezpz.launch", "ezpz.remote", "ezpz.yeet"))))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_the_page_about_plugins_imports_nothing_else_of_ezpz() -> None:
    page = (REPOSITORY / "docs" / "how-to" / "plugins.md").read_text()
    programs = re.findall(r"```python[^\n]*\n(.*?)```", page, re.DOTALL)
    nodes = [node for program in programs for node in ast.walk(ast.parse(program))]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    assert {name for name in modules if name.partition(".")[0] == "ezpz"} == {"ezpz.plugin_api"}
