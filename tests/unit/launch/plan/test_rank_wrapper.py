"""launch/wrapper.py, run by every sh at hand: who a rank is, what it gets, what it reports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.common import filesystem
from ezpz.launch.launchers.base import RankNames
from ezpz.launch.launchers.hydra import Hydra
from ezpz.launch.launchers.openmpi import OpenMpi
from ezpz.launch.launchers.pals import Pals
from ezpz.launch.launchers.srun import Srun
from ezpz.launch.plan.environment import SHARED_FILESYSTEMS, RankEnvironment, find_home
from ezpz.launch.plan.rank_wrapper import Mark, find_marks, wrap
from ezpz.launch.plan.topology import Topology
from tests.contract.support import NOBODY, needs_root
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable
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
        (RankNames("R", ""), {"R": "3"}, "3/7 1/2 1"),
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


def environment(root: Path, *, script: bool, conda: bool = False) -> RankEnvironment:
    """Something that looks like an environment."""
    place = root / "it's $x"
    (place / "bin").mkdir(parents=True)
    if conda:
        (place / "conda-meta").mkdir()
    if script:
        (place / "env.sh").write_text("export CACHES=moved\n")
    return RankEnvironment(str(place))


@pytest.mark.processes
@pytest.mark.parametrize("shell", SHELLS)
def test_a_copy_is_activated_by_its_own_script_or_by_hand(shell: str, tmp_path: Path) -> None:
    def shown(home: RankEnvironment) -> list[str]:
        return run(wrap(("env",), PLAIN, SEVEN, {}, home=home), shell).stdout.splitlines()

    assert "CACHES=moved" in shown(environment(tmp_path / "a", script=True))
    venv = environment(tmp_path / "b", script=False)
    assert f"VIRTUAL_ENV={venv.prefix}" in shown(venv)
    assert any(line.startswith(f"PATH={venv.prefix}/bin:") for line in shown(venv))
    conda = environment(tmp_path / "c", script=False, conda=True)
    assert f"CONDA_PREFIX={conda.prefix}" in shown(conda)
    active = RankEnvironment("/x", "CONDA_PREFIX")
    assert "CONDA_PREFIX=/x" in shown(active)


@pytest.mark.processes
def test_a_copy_that_is_missing_is_an_error() -> None:
    words: Any = wrap(("env",), PLAIN, SEVEN, {}, home=RankEnvironment("/no/it's there"))
    done = run(words)
    assert done.returncode == 51
    assert done.stderr.endswith("there is no environment at /no/it's there\n")


@pytest.fixture
def everybodys(tmp_path: Path) -> Path:
    """A directory like /tmp."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def copy_in(folder: Path) -> Path:
    """A copy of an environment, with a python and a script that tells that it was sourced."""
    copy = folder / "a copy"
    (copy / "bin").mkdir(parents=True)
    (copy / "bin" / "python3").symlink_to(sys.executable)
    (copy / "bin" / "activate").write_text("")
    (copy / "env.sh").write_text("echo sourced\n")
    return copy


def give_away(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def started(home: RankEnvironment, shell: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(wrap(command or ("echo", "ran"), PLAIN, SEVEN, {}, home=home), shell, **variables)


def assert_refused(done: subprocess.CompletedProcess[str], copy: Path) -> None:
    assert (done.stdout, done.returncode) == ("", 51)
    assert done.stderr.endswith(f": another user can change {copy}, or owns it\n")


def a_foreign_link(copy: Path) -> None:
    copy.rename(copy.with_name("true"))
    copy.symlink_to("true")
    give_away(copy)


def an_own_link_to_what_is_foreign(copy: Path) -> None:
    copy.rename(copy.with_name("true"))
    copy.symlink_to("true")
    give_away(copy.with_name("true"))


def a_python_elsewhere(copy: Path) -> None:
    base = copy.with_name("base")
    shutil.copyfile("/bin/true", base)
    base.chmod(0o755)
    give_away(base)
    (copy / "bin" / "python3").unlink()
    (copy / "bin" / "python3").symlink_to(base)


@pytest.mark.processes
@needs_root
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "spoil",
    [
        give_away,
        lambda copy: give_away(copy / "env.sh"),
        lambda copy: give_away(copy / "bin"),
        lambda copy: give_away(copy / "bin" / "activate"),
        lambda copy: give_away(copy / "bin" / "python3"),
        lambda copy: copy.chmod(0o777),
        lambda copy: (copy / "bin").chmod(0o777),
        lambda copy: (copy / "env.sh").chmod(0o666),
        lambda copy: copy.parent.chmod(0o777),
        a_foreign_link,
        an_own_link_to_what_is_foreign,
        a_python_elsewhere,
    ],
    ids=lambda spoil: getattr(spoil, "__name__", None),
)
def test_a_copy_that_another_user_made_or_can_change_is_not_used(
    shell: str, everybodys: Path, spoil: Callable[[Path], None]
) -> None:
    copy = copy_in(everybodys)
    assert started(RankEnvironment(str(copy)), shell).stdout == "sourced\nran\n"
    spoil(copy)
    assert_refused(started(RankEnvironment(str(copy)), shell), copy)


@pytest.mark.processes
@needs_root
@pytest.mark.parametrize("shell", SHELLS)
def test_a_program_of_the_copy_that_is_another_users_is_not_run(shell: str, everybodys: Path) -> None:
    copy = copy_in(everybodys)
    tool = copy / "bin" / "tool"
    tool.write_text("#!/bin/sh\necho tool\n")
    tool.chmod(0o755)
    assert started(RankEnvironment(str(copy)), shell, str(tool)).stdout == "sourced\ntool\n"
    give_away(tool)
    assert_refused(started(RankEnvironment(str(copy)), shell, str(tool)), copy)


@pytest.mark.processes
@needs_root
@pytest.mark.parametrize("shell", SHELLS)
def test_an_environment_of_a_colleague_is_used_where_only_he_could_put_it(shell: str, tmp_path: Path) -> None:
    colleague = tmp_path / "colleague"
    copy = copy_in(colleague)
    for path in (colleague, copy, copy / "bin", copy / "env.sh"):
        give_away(path)
    assert started(RankEnvironment(str(copy)), shell).stdout == "sourced\nran\n"


@pytest.mark.processes
@needs_root
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("kind", "used"), [("lustre", True), ("ext4", False), ("fuse.sshfs", False)])
def test_an_environment_of_a_colleague_is_used_on_a_filesystem_that_the_nodes_share(
    shell: str,
    everybodys: Path,
    tmp_path: Path,
    kind: str,
    used: bool,  # noqa: FBT001
) -> None:
    copy = copy_in(everybodys)
    give_away(copy)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "df").write_text(f"#!/bin/sh\necho Type\necho {kind}\n")
    (tmp_path / "bin" / "df").chmod(0o755)
    done = started(RankEnvironment(str(copy)), shell, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    if used:
        assert done.stdout == "sourced\nran\n"
    else:
        assert_refused(done, copy)


def test_the_shared_filesystems_are_those_of_the_agent() -> None:
    assert SHARED_FILESYSTEMS == filesystem.SHARED_FILESYSTEMS


@pytest.mark.processes
@needs_root
@pytest.mark.parametrize("shell", SHELLS)
def test_an_active_environment_in_a_place_for_everybody_is_looked_at_too(shell: str, everybodys: Path) -> None:
    venv = copy_in(everybodys)
    home = find_home({"VIRTUAL_ENV": str(venv)}, None, lambda _: False)
    assert home is not None
    assert started(home, shell).stdout == "ran\n"
    give_away(venv)
    assert_refused(started(home, shell), venv)
    shutil.rmtree(venv)
    assert started(home, shell).stdout == "ran\n"


def test_an_active_environment_elsewhere_needs_no_look() -> None:
    assert find_home({"VIRTUAL_ENV": "/usr"}, None, lambda _: False) == RankEnvironment("/usr", "VIRTUAL_ENV")


@pytest.mark.processes
def test_the_checks_leave_no_variable_behind(everybodys: Path) -> None:
    names = {"a", "c", "d", "f", "k", "p", "s", "t", "u", "w"}
    done = started(RankEnvironment(str(copy_in(everybodys))), "dash", "env", **dict.fromkeys(names, "mine"))
    assert {f"{name}=mine" for name in names} <= set(done.stdout.splitlines())
