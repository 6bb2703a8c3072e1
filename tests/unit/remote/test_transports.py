"""Transports, and the choice between them: pure, except for PATH."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from ezpz.cluster.allocation import Allocation, Node
from ezpz.errors import UsageError
from ezpz.remote.transports import AUTO, TRANSPORTS, transport_of_job, usable
from ezpz.yeet.cli.options import transport_option
from ezpz.yeet.model.plan import Request, transport_choice

if TYPE_CHECKING:
    from pathlib import Path

NODE = Node("n1", "n1-hsn0", "n1.site")
IN_JOB = Allocation("slurm", "7", (NODE,))
BOTH = ("ssh", "srun")


@pytest.mark.parametrize("name", TRANSPORTS)
def test_a_command_reaches_a_node(name: str) -> None:
    argv = TRANSPORTS[name].argv(NODE, "echo hello")
    assert "echo hello" in argv[-1]
    assert any("n1" in word for word in argv)


def test_each_is_an_option() -> None:
    command = transport_option()(click.command("x")(lambda: None))
    kind = command.params[0].type
    assert isinstance(kind, click.Choice)
    assert list(kind.choices) == [AUTO, *TRANSPORTS]


def test_ssh_takes_a_detour() -> None:
    assert TRANSPORTS["ssh"].detour("n1", "n2", 7) is not None
    assert TRANSPORTS["srun"].detour("n1", "n2", 7) is None


def test_srun_is_usable_inside_of_a_job_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert usable({"SLURM_JOB_ID": "7"}) == ("ssh",)
    (tmp_path / "srun").touch(0o755)
    assert usable({"SLURM_JOB_ID": "7"}) == BOTH
    assert usable({}) == ("ssh",)
    assert transport_of_job({"SLURM_JOB_ID": "7"}).name == "srun"
    assert transport_of_job({}).name == "ssh"


@pytest.mark.parametrize(
    ("request_", "allocation", "able", "here", "chosen"),
    [
        (Request(), IN_JOB, BOTH, BOTH, ("srun", "inside Slurm job 7")),
        (Request(), IN_JOB, BOTH, ("ssh",), ("ssh", "default")),
        (Request(), IN_JOB, ("ssh",), BOTH, ("ssh", "default")),
        (Request(encrypt=True), IN_JOB, BOTH, BOTH, ("ssh", "default")),
        (Request(), Allocation("hosts", None, (NODE,)), BOTH, BOTH, ("ssh", "default")),
        (Request(transport="ssh"), IN_JOB, BOTH, BOTH, ("ssh", "asked for")),
        (Request(transport="srun"), Allocation("hosts", None, (NODE,)), BOTH, BOTH, ("srun", "asked for")),
    ],
)
def test_the_choice(
    request_: Request, allocation: Allocation, able: tuple[str, ...], here: tuple[str, ...], chosen: tuple[str, str]
) -> None:
    choice = transport_choice(request_, allocation, able, here)
    assert (choice.name, choice.reason) == chosen


@pytest.mark.parametrize(
    ("request_", "able", "here", "message"),
    [
        (Request(transport="srun", encrypt=True), BOTH, BOTH, "--transport srun excludes --encrypt, which needs ssh"),
        (
            Request(transport="srun", engine="rsync"),
            ("ssh",),
            BOTH,
            "--transport srun excludes --engine rsync, which needs ssh",
        ),
        (Request(transport="srun"), BOTH, ("ssh",), "--transport srun works inside a Slurm job only"),
    ],
)
def test_what_excludes_a_transport(
    request_: Request, able: tuple[str, ...], here: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        transport_choice(request_, IN_JOB, able, here)
    assert caught.value.message == message
