"""A conda environment is activated in real shells with no conda anywhere, and left again."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ezpz.yeet.relocate.additions.conda_activation import standalone_activation
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

PATH = "/usr/bin:/bin"
LOG = {
    "sh": 'export LOG="${{LOG-}}{}"; : "$NEVER_SET"; false\n',
    "fish": 'set -gx LOG "$LOG"{}\n',
    "csh": 'if ( ! $?LOG ) setenv LOG ""\nsetenv LOG "${{LOG}}{}"\n',
}
NAMES = (b"plain", b'it\'s $HOME `id` "x" !y \\z *[a] 100%', b"-n", b"caf\xc3\xa9", b"two\nlines", b"bytes \xff\xfe")
SHOWN = "env -0 | tr '\\n' '?' | tr '\\0' '\\n' | grep -a -E '^(PATH|CONDA_.*|LOG)=' | sort; echo ---\n"


class Shell(NamedTuple):
    """How to run a program in a shell. script: what it sources; strict: how it is told to die of any mistake"""

    argv: tuple[str, ...]
    family: str
    strict: str = ""
    prompt: str = 'printf "%s\\n" "$PS1"'
    set_prompt: str = "PS1='old> '"

    @property
    def source(self) -> str:
        return {"sh": '. "$ACTIVATE"\n', "fish": 'source "$ACTIVATE"\n', "csh": 'source "$ACTIVATE:q"\n'}[self.family]


SHELLS = {
    "bash": Shell(("bash", "--norc"), "sh", "set -eu"),
    "zsh": Shell(("zsh", "-f"), "sh", "set -eu"),
    "dash": Shell(("dash",), "sh", "set -eu"),
    "fish": Shell(("fish", "--no-config"), "fish", "", "fish_prompt", "function fish_prompt; echo 'old> '; end"),
    "tcsh": Shell(("tcsh", "-f"), "csh", "", 'printf "%s\\n" "$prompt:q"', "set prompt = 'old> '"),
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Shell:
    """A shell that is installed here."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return SHELLS[request.param]


def make(folder: Path, name: bytes, mark: str = "") -> bytes:
    """An environment with the scripts and two scripts of packages for each occasion, which log that they ran."""
    root = os.path.join(bytes(folder), name)
    for path, content in standalone_activation(root):
        write(os.path.join(root, path), content)
    for occasion in ("activate", "deactivate"):
        for number in ("1 first", "2-second"):
            for suffix, text in LOG.items():
                path = f"etc/conda/{occasion}.d/{number}.{suffix}".encode()
                write(os.path.join(root, path), text.format(f"{mark}{occasion[0]}{number[0]}").encode())
    return root


def write(path: bytes, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def run(shell: Shell, folder: Path, script: str, root: bytes, **more: str | bytes) -> list[bytes]:
    """What a script prints, which must end well and complain of nothing, up to each ---."""
    suffix = {"sh": b"", "fish": b".fish", "csh": b".csh"}[shell.family]
    env: dict[str, str | bytes] = {"PATH": PATH, "HOME": str(folder), "LC_ALL": "C.UTF-8", "TERM": "dumb"}
    env |= {"ACTIVATE": root + b"/bin/activate" + suffix, **more}
    file = folder / "script"  # csh reads a line at a time
    file.write_text(f"{shell.strict}\n{script}")
    done = subprocess.run([*shell.argv, str(file)], env=env, capture_output=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.split(b"---\n")


def variables(shown: bytes) -> dict[str, bytes]:
    return {name.decode(): value for name, _, value in (line.partition(b"=") for line in shown.splitlines())}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_case_52_an_environment_is_activated_and_left_without_conda(shell: Shell, tmp_path: Path, name: bytes) -> None:
    if shell.family == "csh" and b"\n" in name:
        pytest.skip("csh has no strings of several lines")
    root = make(tmp_path, name)
    active, left, _ = run(shell, tmp_path, f"{shell.source}{SHOWN}deactivate\n{SHOWN}", root)
    place, base = root.replace(b"\n", b"?"), name.replace(b"\n", b"?")
    found = variables(active)
    modifier = found.pop("CONDA_PROMPT_MODIFIER")
    assert modifier.startswith(b"(")
    assert modifier.endswith(b") ")
    assert found == {
        "PATH": place + b"/bin:/usr/bin:/bin", "CONDA_PREFIX": place, "CONDA_DEFAULT_ENV": base, "CONDA_SHLVL": b"1",
        "LOG": b"a1a2",
    }  # fmt: skip
    assert variables(left) == {"PATH": PATH.encode(), "LOG": b"a1a2d2d1"}


def test_case_52_sourcing_twice_is_leaving_and_entering_again(shell: Shell, tmp_path: Path) -> None:
    root = make(tmp_path, b"env")
    script = f"{shell.set_prompt}\n{shell.source}{shell.source}{SHOWN}{shell.prompt}\necho ---\ndeactivate\n"
    active, prompt, left, last, _ = run(shell, tmp_path, f"{script}{SHOWN}{shell.prompt}\necho ---\n", root)
    assert variables(active)["LOG"] == b"a1a2d2d1a1a2"
    assert variables(active)["PATH"] == root + b"/bin:/usr/bin:/bin"
    assert variables(active)["CONDA_SHLVL"] == b"1"
    assert (prompt.rstrip(), last.rstrip()) == (b"(env) old>", b"old>")
    assert variables(left) == {"PATH": PATH.encode(), "LOG": b"a1a2d2d1a1a2d2d1"}


def test_case_52_nothing_of_the_environment_that_was_active_stays_and_it_comes_back(
    shell: Shell, tmp_path: Path
) -> None:
    old, new = make(tmp_path, b"source env", "S"), make(tmp_path, b"copy", "D")
    before: dict[str, str | bytes] = {
        "CONDA_PREFIX": old, "CONDA_DEFAULT_ENV": "source env", "CONDA_SHLVL": "1",
        "CONDA_PROMPT_MODIFIER": "(source env) ", "PATH": b"/opt/first:" + old + b"/bin:" + PATH.encode(),
    }  # fmt: skip
    active, left, _ = run(shell, tmp_path, f"{shell.source}{SHOWN}deactivate\n{SHOWN}", new, **before)
    assert variables(active) == {
        "CONDA_PREFIX": new, "CONDA_PREFIX_1": old, "CONDA_DEFAULT_ENV": b"copy", "CONDA_SHLVL": b"2",
        "CONDA_PROMPT_MODIFIER": b"(copy) ", "PATH": new + b"/bin:/opt/first:" + PATH.encode(), "LOG": b"Sd2Sd1Da1Da2",
    }  # fmt: skip
    after = variables(left)
    assert after.pop("LOG") == b"Sd2Sd1Da1Da2Dd2Dd1Sa1Sa2"
    assert after.pop("PATH") == old + b"/bin:/opt/first:" + PATH.encode()
    assert after == {key: os.fsencode(value) for key, value in before.items() if key != "PATH"}


def test_case_52_one_activation_takes_the_place_of_another(shell: Shell, tmp_path: Path) -> None:
    first, second = make(tmp_path, b"first", "A"), make(tmp_path, b"second", "B")
    other = f"'{os.fsdecode(second)}/bin/activate{ {'sh': '', 'fish': '.fish', 'csh': '.csh'}[shell.family] }'"
    script = shell.source + shell.source.replace('"$ACTIVATE"', other).replace('"$ACTIVATE:q"', other)
    active, left, _ = run(shell, tmp_path, f"{script}{SHOWN}deactivate\n{SHOWN}", first)
    assert variables(active)["PATH"] == second + b"/bin:/usr/bin:/bin"
    assert variables(active)["LOG"] == b"Aa1Aa2Ad2Ad1Ba1Ba2"
    assert variables(left) == {"PATH": PATH.encode(), "LOG": b"Aa1Aa2Ad2Ad1Ba1Ba2Bd2Bd1"}


def test_case_52_what_was_put_before_it_meanwhile_stays(shell: Shell, tmp_path: Path) -> None:
    root = make(tmp_path, b"env")
    more = {"sh": "PATH=/opt/x:$PATH", "fish": "set PATH /opt/x $PATH", "csh": "set path = ( /opt/x $path )"}
    (left, _) = run(shell, tmp_path, f"{shell.source}{more[shell.family]}\ndeactivate\n{SHOWN}", root)
    assert variables(left)["PATH"] == b"/opt/x:" + PATH.encode()


def test_case_52_an_environment_without_scripts_of_packages_is_activated_too(shell: Shell, tmp_path: Path) -> None:
    root = make(tmp_path, b"env")
    shutil.rmtree(os.path.join(root, b"etc", b"conda", b"deactivate.d"))
    os.rename(os.path.join(root, b"etc/conda/activate.d/2-second.sh"), os.path.join(root, b"etc/unused"))
    for path in (b"1 first.sh", b"1 first.fish", b"2-second.fish", b"1 first.csh", b"2-second.csh"):
        os.unlink(os.path.join(root, b"etc/conda/activate.d", path))
    active, left, _ = run(shell, tmp_path, f"{shell.source}{SHOWN}deactivate\n{SHOWN}", root)
    assert "LOG" not in variables(active)
    assert variables(left) == {"PATH": PATH.encode()}


@pytest.mark.parametrize("script", ["$(touch HIT)", "`touch HIT`", "';touch HIT;'", '";touch HIT;"', "%(touch HIT)"])
def test_a_name_is_never_run(shell: Shell, tmp_path: Path, script: str) -> None:
    root = make(tmp_path, script.encode())
    run(shell, tmp_path, f"cd '{tmp_path}'\n{shell.set_prompt}\n{shell.source}{shell.prompt}\ndeactivate\n", root)
    assert not (tmp_path / "HIT").exists()
    for _, content in standalone_activation(root):
        modifier = next(line for line in content.splitlines() if line.strip().endswith(b") '"))
        assert not set(modifier.rpartition(b"'(")[2].removesuffix(b") '")) & set(b"$`'\"\\%!();")
