"""The decision whether the base Python of an environment is embedded in the copy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ezpz.yeet.relocate.additions.plan import check_path_is_free
from ezpz.yeet.relocate.inspect.environment import inspect_base_of
from ezpz.yeet.relocate.layout import PYTHON_DIRECTORY
from ezpz.yeet.source.link_policy import on_shared_filesystem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ezpz.agent.common.cancel import CancelToken
    from ezpz.yeet.model.warnings import SourceWarnings
    from ezpz.yeet.relocate.inspect.base_python import BasePython
    from ezpz.yeet.relocate.inspect.environment import Environment
    from ezpz.yeet.relocate.inspect.interpreter import Interpreter

EMBEDDED, KEPT, NONE = "embedded", "kept", "none"


@dataclass(frozen=True, slots=True)
class BaseChoice:
    """What happens to the base Python of an environment.

    Attributes:
        mode: "embedded", "kept" or "none".
        reason: Why, for the user.
        embedded: The base Python that becomes part of the copy, or None.
        interpreter: The interpreter that every node has itself, as receipts name it, or "".
    """

    mode: str = NONE
    reason: str = ""
    embedded: BasePython | None = None
    interpreter: str = ""


def choose_base(
    environment: Environment,
    root: bytes,
    mode: str,
    missing_on: Callable[[Interpreter], str],
    notices: SourceWarnings,
    environ: Mapping[str, str],
    cancel: CancelToken,
) -> BaseChoice:
    """Embed the base Python if the user wants that, or if a node lacks it. Raise EzpzError or `Cancelled`.

    Args:
        environment: The environment.
        root: The path of the environment on this host.
        mode: What the user wants: "auto", "embed" or "keep".
        missing_on: Returns why not every node has an interpreter itself, or "" if every node has it.
        notices: Where warnings go.
        environ: The variables with which the base Python is inspected.
        cancel: Is canceled when the run is interrupted.
    """
    python = environment.interpreter
    if python is None or not environment.has_base:
        return BaseChoice()
    missing = missing_on(python) if mode == "auto" else ""
    if mode == "embed" or missing:
        check_path_is_free(root, PYTHON_DIRECTORY, "--base keep")
        base = environment.base or inspect_base_of(root, python, environ, cancel)
        return BaseChoice(EMBEDDED, missing or "asked for", base)
    if mode == "auto":
        return BaseChoice(KEPT, "every node has it", interpreter=interpreter_name(python))
    if on_shared_filesystem(python.base_prefix):
        notices.add("base-kept", python.base_prefix)
    return BaseChoice(KEPT, "asked for")


def interpreter_name(python: Interpreter) -> str:
    """Return the name of an interpreter in receipts."""
    return f"{os.fsdecode(python.base_executable)}: {python.version}"


def interpreter_request(python: Interpreter) -> dict[str, Any]:
    """Return the request that asks a node for an interpreter, see `ezpz.agent.destination.smoke_test.has_python`."""
    return {
        "executable": os.fsdecode(python.base_executable),
        "prefix": os.fsdecode(python.base_prefix),
        "version": python.version,
    }
