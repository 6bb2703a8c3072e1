"""launch/wrapper.py, run by every sh at hand: who a rank is, what it gets, what it reports."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.launch.home import Home
from ezpz.launch.launchers import Hydra, OpenMpi, Pals, Srun
from ezpz.launch.topology import Topology
from ezpz.launch.wrapper import Mark, RankNames, find_marks, wrap
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from pathlib import Path

SHELLS = [shell for shell in ("dash", "bash", "busybox", "ksh", "mksh") if shutil.which(shell)]
PLAIN = RankNames("R", "S")


def run(
    words: tuple[str, ...], shell: str = "dash", name: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a wrapped command by one kind of sh."""
    first = (shell, "sh") if shell == "busybox" else (shell,)
    sh, option, script, zeroth, *command = words
    assert (sh, zeroth) == ("sh", "ezpz")
    argv = (*first, option, script, name or zeroth, *command)
    env = {"PATH": "/usr/bin:/bin", **variables}
    return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=DEADLINE)


def who(names: RankNames | None, topology: Topology, shell: str = "dash", **variables: str) -> str:
    """What a rank is told: rank/size local/local size node."""
    assert names is not None
    show = "echo $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $NODE_RANK"
    done = run(wrap(("sh", "-c", show), names, topology, {}), shell, **variables)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.strip()


SEVEN = Topology(4, 7, 2)


@pytest.mark.processes
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("names", "variables", "told"),
    [
        (PLAIN, {"R": "6"}, "6/7 0/1 3"),
        (PLAIN, {"R": "3", "S": "8"}, "3/8 1/2 1"),
        (Hydra.ranks, {"PMI_RANK": "3", "PMI_SIZE": "7", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}, "3/7 1/2 1"),
        (
            OpenMpi.ranks,
            {"OMPI_COMM_WORLD_RANK": "6", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_NODE_RANK": "5"},
            "6/7 0/1 3",
        ),
        (
            Pals.ranks,
            {"PALS_RANKID": "5", "PMI_SIZE": "7", "PALS_LOCAL_RANKID": "1", "PALS_LOCAL_SIZE": "2", "PALS_NODEID": "2"},
            "5/7 1/2 2",
        ),
        *(
            (
                Srun.ranks,
                {
                    "SLURM_PROCID": "4",
                    "SLURM_NTASKS": "7",
                    "SLURM_LOCALID": "1",
                    "SLURM_NODEID": node,
                    "SLURM_STEP_TASKS_PER_NODE": "3(x2),1,2",
                },
                f"4/7 1/{size} {node}",
            )
            for node, size in (("0", 3), ("1", 3), ("2", 1), ("3", 2))
        ),
    ],
)
def test_a_rank_knows_who_it_is(shell: str, names: RankNames | None, variables: dict[str, str], told: str) -> None:
    assert who(names, SEVEN, shell, **variables) == told


@pytest.mark.processes
@pytest.mark.parametrize("shell", SHELLS)
def test_variables_and_devices_are_set_and_odd_values_kept(shell: str) -> None:
    words = wrap(("env",), PLAIN, SEVEN, {"ODD": "a 'b' $c"}, devices=("DEVICES", 2))
    shown = run(words, shell, R="3").stdout.splitlines()
    assert "ODD=a 'b' $c" in shown
    assert "DEVICES=2,3" in shown


@pytest.mark.processes
@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_that_is_missing_is_told_to_whoever_listens(shell: str) -> None:
    words = wrap(("no-such-program", "x"), PLAIN, SEVEN, {})
    pasted = run(words, shell)
    assert pasted.returncode == 51
    assert pasted.stderr.endswith(": command not found: no-such-program\n")
    heard = run(words, shell, "ezpz-0a", R="4")
    rest, (mark,) = find_marks(heard.stderr.encode(), "ezpz-0a")
    assert (rest, mark.what, mark.rank, heard.returncode) == (b"", "absent", 4, 51)


@pytest.mark.processes
@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_no_program_is_told_apart_from_one_that_fails(shell: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n")
    for path in (tmp_path, tmp_path / "text", tmp_path / "none"):
        assert run(wrap((str(path),), PLAIN, SEVEN, {}), shell).returncode == 51
    (tmp_path / "text").chmod(0o755)
    assert run(wrap((str(tmp_path / "text"),), PLAIN, SEVEN, {}), shell).returncode == 0


@pytest.mark.processes
@pytest.mark.parametrize("shell", SHELLS)
def test_a_colon_arrives(shell: str) -> None:
    done = run(wrap(("printf", "%s|", ":", "a b", "it's"), PLAIN, SEVEN, {}), shell)
    assert done.stdout == ":|a b|it's|"


@pytest.mark.processes
def test_a_rank_that_starts_reports_once_and_its_arguments_are_as_given() -> None:
    odd = ("printf", "%s|", "a b", "$HOME", "", "*", "'", '"', "é\n")
    done = run(wrap(odd, PLAIN, SEVEN, {}), name="ezpz-0a", R="2")
    assert done.stdout == "a b|$HOME||*|'|\"|é\n|"
    rest, marks = find_marks(done.stderr.encode(), "ezpz-0a")
    assert rest == b""
    assert [(mark.what, mark.rank) for mark in marks] == [("started", 2)]


def test_only_the_marks_of_this_run_are_taken_out() -> None:
    text = b"a\x1eezpz-1 started 0 n1\x1e\nb\x1eezpz-2 started 1 n2\x1e\n"
    assert find_marks(text, "ezpz-1") == (b"ab\x1eezpz-2 started 1 n2\x1e\n", (Mark("started", 0, "n1"),))


def environment(root: Path, *, script: bool, conda: bool = False) -> Home:
    """Something that looks like an environment."""
    place = root / "it's $x"
    (place / "bin").mkdir(parents=True)
    if conda:
        (place / "conda-meta").mkdir()
    if script:
        (place / "env.sh").write_text("export CACHES=moved\n")
    return Home(str(place))


@pytest.mark.processes
@pytest.mark.parametrize("shell", SHELLS)
def test_a_copy_is_activated_by_its_own_script_or_by_hand(shell: str, tmp_path: Path) -> None:
    def shown(home: Home) -> list[str]:
        return run(wrap(("env",), PLAIN, SEVEN, {}, home=home), shell).stdout.splitlines()

    assert "CACHES=moved" in shown(environment(tmp_path / "a", script=True))
    venv = environment(tmp_path / "b", script=False)
    assert f"VIRTUAL_ENV={venv.prefix}" in shown(venv)
    assert any(line.startswith(f"PATH={venv.prefix}/bin:") for line in shown(venv))
    conda = environment(tmp_path / "c", script=False, conda=True)
    assert f"CONDA_PREFIX={conda.prefix}" in shown(conda)
    active = Home("/x", "CONDA_PREFIX")
    assert "CONDA_PREFIX=/x" in shown(active)


@pytest.mark.processes
def test_a_copy_that_is_missing_is_an_error() -> None:
    words: Any = wrap(("env",), PLAIN, SEVEN, {}, home=Home("/no/it's there"))
    done = run(words)
    assert done.returncode == 51
    assert done.stderr.endswith("there is no environment at /no/it's there\n")
