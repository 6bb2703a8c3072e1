"""launch/arguments.py: ours, the launcher's, and where COMMAND begins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.errors import UsageError
from ezpz.launch.cli.arguments import CommandWords, split_command_line

OPTIONS = {"-n": 1, "-np": 1, "--nproc": 1, "-ppn": 1, "-v": 0, "-q": 0, "--dry-run": 0}


@pytest.mark.parametrize(
    ("line", "our_options", "launcher_options", "command"),
    [
        ("echo -n --json -- x", "", "", "echo -n --json -- x"),
        ("-n 4 -vq --dry-run echo", "-n 4 -vq --dry-run", "", "echo"),
        ("-n4 --nproc=3 -np 2 -- echo", "-n4 --nproc=3 -np 2", "", "echo"),
        ("-np=4 -ppn=2 echo", "-np=4 -ppn=2", "", "echo"),
        ("-n=4 -- echo", "", "-n=4", "echo"),
        ("--opt val -n 2 -o -p=3 -- ./a.out --opt", "-n 2", "--opt val -o -p=3", "./a.out --opt"),
        ("--depth 8 -n 4 --no-vni -v -- a -- b", "-n 4 -v", "--depth 8 --no-vni", "a -- b"),
        ("-genv A 1 -nolocal -- a", "", "-genv A 1 -nolocal", "a"),
        ("-x -- ", "", "-x", ""),
        ("-v", "-v", "", ""),
        ("- x", "", "", "- x"),
    ],
)
def test_a_line_is_taken_apart(line: str, our_options: str, launcher_options: str, command: str) -> None:
    assert split_command_line(line.split(), OPTIONS) == CommandWords(
        tuple(our_options.split()), tuple(launcher_options.split()), tuple(command.split())
    )


def test_an_unknown_option_needs_the_dashes() -> None:
    with pytest.raises(UsageError, match="No such option: --depth") as caught:
        split_command_line(["--depth", "8", "echo"], OPTIONS)
    assert "write -- before COMMAND" in caught.value.hint


@given(st.lists(st.sampled_from(["-n", "4", "-v", "--foo", "bar", "-x=1", "--nproc=2"])), st.lists(st.text()))
def test_behind_the_dashes_all_is_the_commands_and_before_them_nothing_is_lost(
    before: list[str], after: list[str]
) -> None:
    found = split_command_line(["--foo", *before, "-v", "--", *after], OPTIONS)
    assert found.command[-len(after) :] == tuple(after) or not after
    taken = [*found.our_options, *found.launcher_options]
    assert sorted(taken) == sorted(["--foo", *before, "-v", *(["--"] if "--" in found.our_options else [])])
