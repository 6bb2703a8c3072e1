"""env.sh activates an environment and points caches at storage that is this node's and this user's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ezpz.yeet.relocate.additions.env_script import CACHE_VARIABLES, is_env_script, render_env_script
from tests.contract.support import REPOSITORY

SHELLS = ("sh", "bash", "zsh")
SHOW = 'printf "%s\\n" "$ACTIVATED"; env | sort'
SEARCHED = {"PYTHONPATH": "/some/modules"}  # where python looks for modules is the user's business
OF_A_SHELL = ("LOGNAME", "OLDPWD", "PWD", "SHLVL", "_")


def run(folder: Path, shell: str, *, before: str = "", place: Path | None = None) -> dict[str, str]:
    """All that is set once `env.sh` of an environment was read and was not before; `ACTIVATED` by its activation."""
    environment = place or folder / "the env's"
    (environment / "bin").mkdir(parents=True, exist_ok=True)
    (environment / "bin" / "activate").write_text("ACTIVATED=yes\n")
    script = environment / "env.sh"
    script.write_bytes(render_env_script(os.fsencode(environment)))
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    given = {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "HOME": "/nowhere", **SEARCHED}
    done = subprocess.run(
        [shell, "-euc", f'{before}\n. "$1"\n{SHOW}', shell, script],
        env=given,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    activated, *lines = done.stdout.splitlines()
    now = dict(line.split("=", 1) for line in lines)
    assert {name: now.get(name) for name in given} == given
    return {"ACTIVATED": activated, **{name: now[name] for name in now.keys() - given.keys() - {*OF_A_SHELL}}}


@pytest.mark.processes
@pytest.mark.parametrize("shell", SHELLS)
def test_case_30_caches_are_on_this_node(tmp_path: Path, shell: str) -> None:
    said = run(tmp_path, shell)
    assert said.pop("ACTIVATED") == "yes"
    folder = tmp_path / f"ezpz-cache-{os.geteuid()}"
    assert set(said) == {name.decode() for name in CACHE_VARIABLES}
    assert {Path(path).parent for path in said.values()} == {folder}
    assert len(set(said.values())) == len(CACHE_VARIABLES)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_case_30_the_docs_name_what_is_set() -> None:
    page = (REPOSITORY / "docs" / "how-to" / "environments.md").read_text()
    [table] = re.findall(r"^\| It sets \|.*?\n\n", page, re.MULTILINE | re.DOTALL)
    rows = [row.split("|") for row in table.strip().splitlines()[2:]]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert named == {name.decode() for name in CACHE_VARIABLES}


@pytest.mark.processes
def test_case_30_a_second_time_it_is_the_same_folder(tmp_path: Path) -> None:
    assert run(tmp_path, "sh") == run(tmp_path, "sh")


@pytest.mark.processes
@pytest.mark.parametrize("shell", SHELLS)
def test_case_30_a_link_or_a_file_of_that_name_is_not_used(tmp_path: Path, shell: str) -> None:
    """In /tmp anybody could have made it."""
    taken = tmp_path / f"ezpz-cache-{os.geteuid()}"
    (tmp_path / "elsewhere").mkdir()
    taken.symlink_to(tmp_path / "elsewhere")
    assert run(tmp_path, shell) == {"ACTIVATED": "yes"}


@pytest.mark.processes
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_case_30_nor_one_of_another_user(tmp_path: Path) -> None:
    taken = tmp_path / f"ezpz-cache-{os.geteuid()}"
    taken.mkdir()
    os.chown(taken, 65534, 65534)
    assert run(tmp_path, "bash") == {"ACTIVATED": "yes"}


def test_it_is_known_again(tmp_path: Path) -> None:
    for name, content, ours in (("a", render_env_script(b"/tmp/env"), True), ("b", b"export X=1\n", False)):
        (tmp_path / name).write_bytes(content)
        assert is_env_script(os.fsencode(tmp_path / name)) is ours
    assert not is_env_script(os.fsencode(tmp_path / "none"))
