"""`ezpz yeet` as a real process on this host: what each option means, and what is said of one that makes no sense."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.support import clean_environ
from tests.contract.support import photograph, powerless
from tests.unit.yeet.plans import assert_valid
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOST = socket.gethostname()
MANIFEST, RECEIPT, FAILED = ".ezpz-yeet-manifest", ".ezpz-yeet-receipt.json", ".ezpz-yeet-failed-nodes.txt"
SSH_REFUSED = '#!/bin/sh\necho "ssh: connect to host $1 port 22: Connection refused" >&2\nexit 255\n'


class Yeet:
    """Runs `ezpz yeet` in a directory of its own with a PATH of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "path"
        self.source = root / "data"
        self.dst = root / "local" / "data"
        for folder in (self.path, self.source / "sub", self.dst.parent):
            folder.mkdir(parents=True)
        (self.source / "file").write_text("content")
        (self.source / "sub" / "other.pyc").write_text("more")

    def tools(self, *names: str) -> None:
        """Put these real programs on its PATH."""
        for name in names:
            found = shutil.which(name)
            if found is None:
                pytest.skip(f"{name} is not here")
            (self.path / name).symlink_to(found)

    def stub(self, name: str, script: str) -> None:
        (self.path / name).write_text(script)
        (self.path / name).chmod(0o755)

    def __call__(
        self, *args: str | Path, variables: Mapping[str, str] | None = None, module: str = "ezpz", command: str = "yeet"
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; `command` comes first."""
        own = {"PATH": str(self.path), "VIRTUAL_ENV": "", "CONDA_PREFIX": "", **(variables or {})}
        environ = clean_environ(**own)
        first = [command] if command else []
        return subprocess.run(
            [sys.executable, "-m", module, *first, *map(str, args)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, cwd=self.root, env=environ,
        )  # fmt: skip

    def here(self, *args: str | Path, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run it with this host as the only node."""
        return self(*args, "--hosts", HOST, variables=variables)

    def plan(self, *args: str | Path, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The plan that a dry run prints as JSON."""
        done = self.here(*args, "--dry-run", "--json", variables=variables)
        assert done.returncode == 0, done.stderr + done.stdout
        document: dict[str, Any] = json.loads(done.stdout)
        assert_valid(document, "yeet-plan")
        plan: dict[str, Any] = document["plan"]
        return plan


@pytest.fixture
def yeet(tmp_path: Path) -> Yeet:
    return Yeet(tmp_path)


class TestMistakes:
    """A bad value or a contradiction is exit 2, and the line names the option and the value."""

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--strategy", "teleport"),
            ("--engine", "steam"),
            ("--retries", "-1"),
            ("--retries", "1.5"),
            ("--timeout", "-1"),
            ("--timeout", "soon"),
            ("--timeout", "nan"),
            ("--timeout", "inf"),
            ("--min-success-nodes", "0"),
            ("--min-success-nodes", "two"),
            ("--min-success-nodes", "2"),
            ("--min-success-fraction", "0"),
            ("--min-success-fraction", "1.01"),
            ("--min-success-fraction", "nan"),
            ("--min-success-fraction", "most"),
            ("--dst", "relative/path"),
            ("--dst", ""),
            ("--src", ""),
            ("--hsn", "a b"),
            ("--base", "copy"),
            ("--editable", "yes"),
            ("--compile", "always"),
        ],
    )
    def test_a_bad_value(self, yeet: Yeet, option: str, value: str) -> None:
        src = () if option == "--src" else (yeet.source,)
        dst = () if option == "--dst" else ("--dst", yeet.dst)
        done = yeet.here(*src, *dst, option, value, "--dry-run")
        assert (done.returncode, done.stdout) == (2, "")
        error = done.stderr.splitlines()[0]
        assert error.startswith("error: ")
        assert option in error
        assert value in error
        assert option != "--dst" or value or "''" in error
        assert "Traceback" not in done.stderr

    def test_an_option_that_there_is_not(self, yeet: Yeet) -> None:
        done = yeet.here(yeet.source, "--dst", yeet.dst, "--retrys", "3", "--dry-run")
        assert (done.returncode, done.stdout) == (2, "")
        assert "--retrys" in done.stderr
        assert "--retries" in done.stderr

    @pytest.mark.parametrize(
        "pair",
        [
            ("--src", "{source}"),
            ("--strategy", "cp", "--copy"),
            ("--strategy", "rsync", "--compress"),
            ("--copy", "--compress"),
            ("--min-success-nodes", "1", "--min-success-fraction", "0.5"),
            ("--hosts", "n1", "--hostfile", "hosts.txt"),
            ("{source}",),
            ("-q", "-v"),
        ],
        ids=" ".join,
    )
    def test_what_excludes_each_other(self, yeet: Yeet, pair: tuple[str, ...]) -> None:
        (yeet.root / "hosts.txt").write_text(HOST)
        words = [word.format(source=yeet.source) for word in pair]
        hosts = () if "--hosts" in pair else ("--hosts", HOST)
        done = yeet(yeet.source, *words, *hosts, "--dst", yeet.dst, "--dry-run")
        assert (done.returncode, done.stdout) == (2, "")
        assert all(word in done.stderr.splitlines()[0] for word in words if word.startswith("-"))

    @pytest.mark.parametrize("value", ["-oProxyCommand=id", "n1;id", "n[1-", "a b"])
    def test_a_host_that_is_none(self, yeet: Yeet, value: str) -> None:
        done = yeet(yeet.source, f"--hosts={value}", "--dry-run")
        assert done.returncode in (2, 40, 41)
        assert "--hosts" in done.stderr.splitlines()[0]
        assert value in done.stderr.splitlines()[0]

    def test_a_source_that_is_an_empty_word_is_no_invitation_to_guess(self, yeet: Yeet) -> None:
        done = yeet.here("", "--dst", yeet.dst, "--dry-run", variables={"VIRTUAL_ENV": str(yeet.source)})
        assert done.returncode in (2, 10)
        assert done.stdout == ""

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("EZPZ_YEET_RETRIES", "many"),
            ("EZPZ_YEET_RSYNC_TIMEOUT", "soon"),
            ("EZPZ_YEET_MIN_SUCCESS_FRACTION", "2"),
            ("EZPZ_YEET_STRATEGY", "teleport"),
        ],
    )
    def test_a_bad_value_in_the_environment(self, yeet: Yeet, variable: str, value: str) -> None:
        done = yeet.here(yeet.source, "--dst", yeet.dst, "--dry-run", variables={variable: value})
        assert (done.returncode, done.stdout) == (2, "")
        assert value in done.stderr.splitlines()[0]

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (("x.tar.gz", "--exclude", "*.pyc"), ("--exclude", "*.pyc")),
            (("x.tar.gz", "--strategy", "direct"), ("--strategy", "direct")),
            (("data", "--strategy", "tarball"), ("--strategy", "tarball")),
            (("data/file",), ("data/file",)),
        ],
    )
    def test_what_does_not_fit_the_source(self, yeet: Yeet, args: tuple[str, ...], words: tuple[str, ...]) -> None:
        with tarfile.open(yeet.root / "x.tar.gz", "w:gz") as archive:
            archive.add(yeet.source, "data")
        done = yeet.here(*args, "--dst", yeet.dst, "--dry-run")
        assert (done.returncode, done.stdout) == (2, "")
        assert all(word in done.stderr.splitlines()[0] for word in words)

    @pytest.mark.parametrize(
        ("args", "code", "name"),
        [
            (("--retries", "many"), 2, "usage"),
            (("missing",), 10, "source-not-found"),
            ((), 10, "source-not-found"),
            (("empty",), 12, "source-empty"),
            (("data", "--dst", "/usr"), 20, "destination-refused"),
            (("data", "--hostfile", "missing"), 41, "hostfile"),
        ],
    )
    def test_with_json_an_error_is_one_document(self, yeet: Yeet, args: tuple[str, ...], code: int, name: str) -> None:
        (yeet.root / "empty").mkdir()
        hosts = () if "--hostfile" in args else ("--hosts", HOST)
        done = yeet(*args, *hosts, "--json")
        assert (done.returncode, done.stderr) == (code, "")
        document = json.loads(done.stdout)
        if document["schema"] == "ezpz/error/1":
            assert_valid(document, "error")
            assert (document["error"]["code"], document["error"]["exit_code"]) == (name, code)
        else:
            assert_valid(document, "yeet-report")
            assert {node["failure"]["code"] for node in document["nodes"]} == {name}


class TestEnvironment:
    """Each option has a variable; the command line wins; the older names keep working."""

    def test_every_option_shows_its_variable(self, yeet: Yeet) -> None:
        text = " ".join(yeet("env", "--help").stdout.split())
        options = set(re.findall(r"(?<![\w'])--[a-z][a-z-]+", text[text.index("Options:") :])) - {"--help"}
        assert {"--src", "--dst", "--hosts", "--hostfile", "--hsn", "--strategy", "--copy", "--compress"} <= options
        for option in options:
            assert f"EZPZ_YEET_{option[2:].upper().replace('-', '_')}" in text
        assert "EZPZ_YEET_RSYNC_RETRIES" in text
        assert "EZPZ_YEET_RSYNC_TIMEOUT" in text

    def test_all_at_once(self, yeet: Yeet) -> None:
        variables = {
            "SRC": str(yeet.source), "DST": str(yeet.dst), "HOSTS": HOST, "STRATEGY": "cp", "ENGINE": "rsync",
            "EXCLUDE": "*.pyc", "MIN_SUCCESS_NODES": "1", "RETRIES": "7", "TIMEOUT": "8.5", "DRY_RUN": "1", "JSON": "1",
            "BASE": "embed", "EDITABLE": "keep", "COMPILE": "never",
        }  # fmt: skip
        done = yeet(variables={f"EZPZ_YEET_{name}": value for name, value in variables.items()})
        assert (done.returncode, done.stderr) == (0, "")
        plan = json.loads(done.stdout)["plan"]
        assert (plan["source"]["path"], plan["destination"]) == (str(yeet.source), str(yeet.dst))
        assert (plan["strategy"]["name"], plan["engine"]["name"]) == ("cp", "rsync")
        assert (plan["exclude"], plan["threshold"], plan["retries"], plan["timeout"]) == (["*.pyc"], 1, 7, 8.5)
        assert (plan["base"], plan["editable"], plan["compile"]) == ("embed", "keep", "never")
        assert plan["source"]["files"] == 1
        assert list(yeet.dst.parent.iterdir()) == []

    @pytest.mark.parametrize(
        ("variables", "args", "retries", "timeout"),
        [
            ({}, (), 2, 3600.0),
            ({"RSYNC_RETRIES": "5", "RSYNC_TIMEOUT": "0"}, (), 5, 0.0),
            ({"RSYNC_RETRIES": "5", "RETRIES": "6", "RSYNC_TIMEOUT": "1", "TIMEOUT": "9"}, (), 6, 9.0),
            ({"RSYNC_RETRIES": "5", "RETRIES": "6"}, ("--retries", "0", "--timeout", "3"), 0, 3.0),
        ],
    )
    def test_retries_and_timeout(
        self, yeet: Yeet, variables: dict[str, str], args: tuple[str, ...], retries: int, timeout: float
    ) -> None:
        environ = {f"EZPZ_YEET_{name}": value for name, value in variables.items()}
        plan = yeet.plan(yeet.source, "--dst", yeet.dst, *args, variables=environ)
        assert (plan["retries"], plan["timeout"]) == (retries, timeout)

    def test_the_command_line_wins_over_what_it_excludes(self, yeet: Yeet) -> None:
        environ = {"EZPZ_YEET_STRATEGY": "rsync", "EZPZ_YEET_MIN_SUCCESS_NODES": "1", "EZPZ_YEET_SRC": "/nowhere"}
        args = ("--copy", "--min-success-fraction", "1")
        plan = yeet.plan(yeet.source, *args, "--dst", yeet.dst, variables=environ)
        assert (plan["strategy"]["name"], plan["threshold"]) == ("cp", 1)
        assert plan["source"]["path"] == str(yeet.source)

    @pytest.mark.parametrize(("flag", "name"), [("--copy", "cp"), ("--compress", "compress")])
    def test_short_for_a_strategy(self, yeet: Yeet, flag: str, name: str) -> None:
        assert yeet.plan(yeet.source, flag, "--dst", yeet.dst)["strategy"] == {"name": name, "reason": "asked for"}


class TestSources:
    """What SRC may be, and where it goes by default."""

    def test_a_subcommand_and_a_path_of_its_name(self, yeet: Yeet) -> None:
        shutil.copytree(yeet.source, yeet.root / "tar")
        assert yeet.plan("./tar")["source"]["path"] == str(yeet.root / "tar")
        assert yeet.plan("env", "tar")["source"]["path"] == str(yeet.root / "tar")
        done = yeet("tar")
        assert (done.returncode, done.stdout) == (10, "")
        assert not (yeet.root / "tar.tar.gz").exists()

    def test_a_link_keeps_its_own_name(self, yeet: Yeet) -> None:
        (yeet.root / "env-link").symlink_to(yeet.source)
        assert yeet.plan("env-link")["destination"] == "/tmp/env-link"
        assert yeet.plan("env-link/")["destination"] == "/tmp/env-link"
        assert yeet.plan("--src", "env-link")["destination"] == "/tmp/env-link"

    def test_the_active_environment(self, yeet: Yeet) -> None:
        (yeet.source / "pyvenv.cfg").write_text("home = /usr/bin\n")
        for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
            plan = yeet.plan(variables={variable: str(yeet.source)})
            assert (plan["source"]["path"], plan["source"]["kind"]) == (str(yeet.source), "venv")
            assert plan["destination"] == "/tmp/data"

    def test_an_archive_there_and_back(self, yeet: Yeet) -> None:
        done = yeet("tar", yeet.source, "--exclude", "*.pyc", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        document = json.loads(done.stdout)
        assert_valid(document, "archive")
        archive = yeet.root / "data.tar.zst"
        assert (document["archive"], document["files"]) == (str(archive), 1)
        assert document["bytes"] == archive.stat().st_size
        done = yeet.here(archive, "--dst", yeet.dst)
        assert done.returncode == 0, done.stderr
        assert (yeet.dst / "file").read_text() == "content"
        assert sorted(os.listdir(yeet.dst)) == [MANIFEST, RECEIPT, "file", "sub"]
        assert list(yeet.dst.parent.iterdir()) == [yeet.dst]

    @pytest.mark.parametrize(
        ("args", "code"),
        [
            (("data", "-o", "x.zip"), 2), (("data", "-o", "data/x.tar.gz"), 20), (("data", "-o", "no/x.tgz"), 20),
            (("missing",), 10), (("x.tar.gz",), 2),
        ],
    )  # fmt: skip
    def test_an_archive_that_cannot_be_made(self, yeet: Yeet, args: tuple[str, ...], code: int) -> None:
        with tarfile.open(yeet.root / "x.tar.gz", "w:gz") as archive:
            archive.add(yeet.source, "data")
        before = photograph(yeet.root)
        done = yeet("tar", *args)
        assert (done.returncode, done.stdout) == (code, "")
        assert photograph(yeet.root) == before

    @pytest.mark.parametrize(("kind", "code"), [("cut", 14), ("text", 14), ("dots", 15), ("device", 15)])
    def test_an_archive_that_cannot_be_taken(self, yeet: Yeet, kind: str, code: int) -> None:
        path = yeet.root / "x.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(yeet.source, "data")
            if kind == "dots":
                archive.addfile(tarfile.TarInfo("../../escaped"))
            elif kind == "device":
                info = tarfile.TarInfo("null")
                info.type = tarfile.CHRTYPE
                archive.addfile(info)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:-30])
        elif kind == "text":
            path.write_text("no archive at all")
        done = yeet.here(path, "--dst", yeet.dst)
        assert done.returncode == code
        assert str(path) in done.stderr + done.stdout
        assert list(yeet.dst.parent.iterdir()) == []


class TestDryRun:
    """It prints the plan, and moves nothing."""

    def test_as_text(self, yeet: Yeet) -> None:
        before = photograph(yeet.root)
        done = yeet.here(yeet.source, "--dst", yeet.dst, "--dry-run", "--min-success-nodes", "1")
        assert (done.returncode, done.stderr) == (0, "")
        for word in (
            str(yeet.source),
            str(yeet.dst),
            HOST.partition(".")[0],
            "direct",
            "default",
            "stream",
            "2 files",
            "1 of 1",
        ):
            assert word in done.stdout
        assert photograph(yeet.root) == before

    def test_as_json(self, yeet: Yeet) -> None:
        before = photograph(yeet.root)
        plan = yeet.plan(yeet.source, "--dst", yeet.dst)
        assert (plan["source"]["files"], plan["source"]["directories"], plan["source"]["bytes"]) == (2, 1, 11)
        assert (plan["source"]["kind"], plan["threshold"], plan["relocation"]) == (
            "data",
            None,
            "links only: not an environment",
        )
        assert plan["allocation"]["nodes"] == [HOST]
        assert plan["allocation"]["evidence"]
        assert photograph(yeet.root) == before

    def test_evidence_is_in_the_plan_and_with_v_in_a_run(self, yeet: Yeet) -> None:
        assert "--hosts" in yeet.here(yeet.source, "--dst", yeet.dst, "--dry-run").stdout
        assert "--hosts" not in yeet.here(yeet.source, "--dst", yeet.dst).stderr
        assert "--hosts" in yeet.here(yeet.source, "--dst", yeet.dst, "-v").stderr

    def test_what_is_not_carried_is_told(self, yeet: Yeet) -> None:
        os.mkfifo(yeet.source / "pipe")
        done = yeet.here(yeet.source, "--dst", yeet.dst, "--dry-run")
        assert "warning: not carried: 'pipe'," in done.stderr
        done = yeet.here(yeet.source, "--dst", yeet.dst, "--json")
        (warning,) = json.loads(done.stdout)["relocation"]["warnings"]
        assert (warning["case"], warning["count"], warning["paths"]) == ("special-file", 1, ["pipe"])

    def test_of_an_environment(self, yeet: Yeet) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", yeet.root / "venv"], check=True)
        before = photograph(yeet.root)
        plan = yeet.plan("venv", "--dst", yeet.dst)
        assert plan["relocation"].startswith(
            f"{yeet.root}/venv becomes {yeet.dst}; Python {sys.version.split()[0]} of "
        )
        assert plan["relocation"].endswith("embedded unless every node has it")
        assert yeet.plan("venv", "--dst", yeet.dst, "--base", "embed")["relocation"].endswith("embedded")
        assert yeet.plan("venv", "--dst", yeet.dst, "--base", "keep")["relocation"].endswith(" kept")
        assert photograph(yeet.root) == before

    def test_of_one_that_stands_there_already(self, yeet: Yeet) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", yeet.root / "venv"], check=True)
        plan = yeet.plan("venv", "--dst", yeet.root / "venv")
        assert plan["source"]["in_place"]
        assert "none: it stands there already" in plan["relocation"]


class TestRuns:
    """On this host alone, which needs neither ssh nor rsync."""

    def test_case_59_first_second_and_a_change(self, yeet: Yeet) -> None:
        before = photograph(yeet.source)
        first = yeet.here(yeet.source, "--dst", yeet.dst)
        assert first.returncode == 0, first.stderr
        assert sorted(os.listdir(yeet.dst)) == [MANIFEST, RECEIPT, "file", "sub"]
        assert photograph(yeet.source) == before
        receipt = json.loads((yeet.dst / RECEIPT).read_text())
        assert_valid(receipt, "receipt")
        assert receipt["source"] == str(yeet.source)
        second = yeet.here(yeet.source, "--dst", yeet.dst, "--json")
        document = json.loads(second.stdout)
        assert_valid(document, "yeet-report")
        assert (document["status"], document["nodes"][0]["unchanged"]) == ("success", True)
        assert document["version"] == receipt["version"]
        (yeet.source / "file").unlink()
        third = yeet.here(yeet.source, "--dst", yeet.dst, "--json")
        document = json.loads(third.stdout)
        assert (document["nodes"][0]["removed"], document["nodes"][0]["unchanged"]) == (1, False)
        assert sorted(os.listdir(yeet.dst)) == [MANIFEST, RECEIPT, "sub"]
        assert list(yeet.dst.parent.iterdir()) == [yeet.dst]

    def test_source_and_destination_are_one(self, yeet: Yeet) -> None:
        before = photograph(yeet.source)
        done = yeet.here(yeet.source, "--dst", yeet.source, "--json")
        assert done.returncode == 0, done.stdout
        document = json.loads(done.stdout)
        assert document["plan"]["source"]["in_place"]
        assert document["nodes"][0]["outcome"] == "ok"
        assert photograph(yeet.source) == before
        assert not [path for path in yeet.root.iterdir() if path.name.startswith(".")]

    def test_in_place_nothing_can_be_left_out(self, yeet: Yeet) -> None:
        done = yeet.here(yeet.source, "--dst", yeet.source, "--exclude", "*.pyc")
        assert (done.returncode, done.stdout) == (2, "")
        assert "--exclude *.pyc" in done.stderr

    def test_a_directory_that_is_not_ours(self, yeet: Yeet) -> None:
        yeet.dst.mkdir()
        (yeet.dst / "mine").touch()
        before = photograph(yeet.dst.parent)
        refused = yeet.here(yeet.source, "--dst", yeet.dst)
        assert refused.returncode == 21
        assert "--replace" in refused.stdout + refused.stderr
        assert {path: facts for path, facts in photograph(yeet.dst.parent).items() if path != b"."} == {
            path: facts for path, facts in before.items() if path != b"."
        }
        assert yeet.here(yeet.source, "--dst", yeet.dst, "--replace").returncode == 0
        assert sorted(os.listdir(yeet.dst)) == [MANIFEST, RECEIPT, "file", "sub"]

    def test_quiet_says_nothing_of_success(self, yeet: Yeet) -> None:
        done = yeet.here(yeet.source, "--dst", yeet.dst, "-q")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_what_to_do_next(self, yeet: Yeet) -> None:
        (yeet.source / "pyvenv.cfg").write_text("home = /usr/bin\n")
        done = yeet.here(yeet.source, "--dst", yeet.dst)
        assert f"source {yeet.dst}/bin/activate" in done.stdout
        assert "ezpz launch" in done.stdout

    @pytest.mark.parametrize("where", ["beside the environment", "in the working directory"])
    def test_a_newer_archive_is_pointed_at_when_the_source_was_guessed(self, yeet: Yeet, where: str) -> None:
        env = yeet.root / "envs" / "env"
        shutil.copytree(yeet.source, env)
        (env / "pyvenv.cfg").write_text("home = /usr/bin\n")
        archive = (env.parent if where == "beside the environment" else yeet.root) / "env.tar.gz"
        archive.touch()
        os.utime(archive, (4 * 10**9, 4 * 10**9))
        guessed = yeet.here("--dst", yeet.dst, variables={"VIRTUAL_ENV": str(env)})
        assert guessed.returncode == 0, guessed.stderr
        said = [line for line in (guessed.stdout + guessed.stderr).splitlines() if "env.tar.gz" in line]
        assert len(said) == 1
        named = yeet.here(env, "--dst", yeet.dst)
        assert "env.tar.gz" not in named.stdout + named.stderr

    def test_status(self, yeet: Yeet) -> None:
        absent = yeet.here("status", yeet.dst)
        assert absent.returncode == 1
        yeet.here(yeet.source, "--dst", yeet.dst)
        present = yeet.here("status", yeet.dst, "--json")
        assert (present.returncode, present.stderr) == (0, "")
        document = json.loads(present.stdout)
        assert_valid(document, "yeet-status")
        [node] = document["destinations"][0]["nodes"]
        assert (node["state"], node["files"]) == ("current", 2)

    @pytest.mark.parametrize("first", ["--verify", "--leaks", "--watch"])
    @pytest.mark.parametrize("second", ["--verify", "--leaks", "--watch"])
    def test_ways_to_look_exclude_each_other(self, yeet: Yeet, first: str, second: str) -> None:
        if first != second:
            done = yeet.here("status", yeet.dst, first, second)
            assert done.returncode == 2
            assert "exclude each other" in done.stderr

    def test_clean(self, yeet: Yeet) -> None:
        yeet.here(yeet.source, "--dst", yeet.dst)
        done = yeet.here("clean", yeet.dst, "--yes", "--dry-run")
        assert done.returncode == 2
        assert "exclude each other" in done.stderr
        done = yeet.here("clean", yeet.dst, "--yes", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert_valid(json.loads(done.stdout), "yeet-clean")
        assert not os.path.exists(yeet.dst)


class TestEnvironments:
    """What becomes of a venv, as the options say."""

    @pytest.fixture
    def env(self, yeet: Yeet) -> Path:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", yeet.root / "env"], check=True)
        return yeet.root / "env"

    def test_it_runs_there_and_a_rerun_finds_it_unchanged(self, yeet: Yeet, env: Path) -> None:
        before = photograph(env)
        first = json.loads(yeet.here(env, "--dst", yeet.dst, "--base", "embed", "--json").stdout)
        assert_valid(first, "yeet-report")
        assert first["relocation"]["base"]["mode"] == "embedded"
        assert first["relocation"]["base"]["bytes"] > 10**6
        assert_valid(json.loads((yeet.dst / RECEIPT).read_text()), "receipt")
        program = "import sys, json; print(json.dumps([sys.prefix, sys.base_prefix]))"
        done = subprocess.run([yeet.dst / "bin" / "python", "-c", program], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == [str(yeet.dst), f"{yeet.dst}/.python"]
        assert (yeet.dst / "env.sh").is_file()
        second = json.loads(yeet.here(env, "--dst", yeet.dst, "--base", "embed", "--json").stdout)
        assert (second["nodes"][0]["unchanged"], second["version"]) == (True, first["version"])
        assert second["relocation"]["bytecode"] == {"compiled": 0, "failed": 0}
        assert photograph(env) == before

    def test_case_30_its_script_keeps_caches_on_the_node(self, yeet: Yeet, env: Path) -> None:
        done = yeet.here(env, "--dst", yeet.dst, "--base", "keep")
        assert done.returncode == 0, done.stderr
        temporary = yeet.root / "temporary"
        temporary.mkdir()
        environ = clean_environ(HOME=str(yeet.root / "home"), TMPDIR=str(temporary))
        show = f". '{yeet.dst}/env.sh' && env"
        said = subprocess.run(["sh", "-c", show], env=environ, capture_output=True, text=True, check=True)
        found = dict(line.split("=", 1) for line in said.stdout.splitlines() if "=" in line)
        for name in ("TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "CUDA_CACHE_PATH"):
            assert found[name].startswith(f"{temporary}/")
        assert found["VIRTUAL_ENV"] == str(yeet.dst)
        assert [path.stat().st_mode & 0o777 for path in temporary.iterdir()] == [0o700]
        assert said.stderr == ""

    def test_its_base_may_stay(self, yeet: Yeet, env: Path) -> None:
        done = json.loads(yeet.here(env, "--dst", yeet.dst, "--base", "keep", "--json").stdout)
        assert (done["relocation"]["base"]["mode"], done["relocation"]["base"]["bytes"]) == ("kept", 0)
        assert not (yeet.dst / ".python").exists()
        said = subprocess.run([yeet.dst / "bin" / "python", "-c", "import sys; print(sys.prefix)"], capture_output=True)
        assert said.stdout.decode() == f"{yeet.dst}\n"

    def test_bytecode_is_made_once_or_never(self, yeet: Yeet, env: Path) -> None:
        package = next(env.glob("lib/python3*/site-packages")) / "pkg.py"
        package.write_text("x = 1\n")
        never = json.loads(yeet.here(env, "--dst", yeet.dst, "--base", "keep", "--compile", "never", "--json").stdout)
        assert never["relocation"]["bytecode"]["compiled"] == 0
        assert list(yeet.dst.rglob("pkg.*.pyc")) == []
        once = json.loads(yeet.here(env, "--dst", yeet.dst, "--base", "keep", "--json").stdout)
        assert once["relocation"]["bytecode"]["compiled"] == 1
        assert len(list(yeet.dst.rglob("pkg.*.pyc"))) == 1

    def test_a_python_that_does_not_start(self, yeet: Yeet, env: Path) -> None:
        for name in ("python", "python3", f"python3.{sys.version_info.minor}"):
            (env / "bin" / name).unlink()
        (env / "bin" / "python").symlink_to("/no/such/python3")
        done = yeet.here(env, "--dst", yeet.dst)
        assert (done.returncode, list(yeet.dst.parent.iterdir())) == (17, [])
        assert "bin/python" in done.stderr
        done = yeet.here(env, "--dst", yeet.dst, "--base", "keep", "--json")
        assert done.returncode == 0, done.stdout
        assert "no-interpreter" in [each["case"] for each in json.loads(done.stdout)["relocation"]["warnings"]]
        assert (yeet.dst / "bin" / "python").readlink().as_posix() == "/no/such/python3"

    def test_an_editable_install_is_refused_when_asked(self, yeet: Yeet, env: Path) -> None:
        code = yeet.root / "code"
        code.mkdir()
        (code / "pkg.py").write_text("x = 1\n")
        (next(env.glob("lib/python3*/site-packages")) / "mine.pth").write_text(f"{code}\n")
        refused = yeet.here(env, "--dst", yeet.dst, "--editable", "refuse")
        assert (refused.returncode, list(yeet.dst.parent.iterdir())) == (18, [])
        assert str(code) in refused.stderr
        kept = json.loads(yeet.here(env, "--dst", yeet.dst, "--editable", "keep", "--base", "keep", "--json").stdout)
        assert "editable-kept" in [warning["case"] for warning in kept["relocation"]["warnings"]]
        taken = json.loads(yeet.here(env, "--dst", yeet.dst, "--base", "keep", "--json").stdout)
        assert taken["relocation"]["editables"] == [str(code)]
        code.rename(yeet.root / "gone")
        program = "import pkg; print(pkg.__file__)"
        done = subprocess.run([yeet.dst / "bin" / "python", "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"{yeet.dst}/")

    def test_an_archive_that_does_not_tell_where_it_stood(self, yeet: Yeet) -> None:
        (yeet.source / "pyvenv.cfg").write_text("home = /usr/bin\n")
        (yeet.source / "bin").mkdir()
        (yeet.source / "bin" / "wrapper").write_text("exec /was/here/bin/real\n")
        with tarfile.open(yeet.root / "x.tar.gz", "w:gz") as archive:
            archive.add(yeet.source, "data")
        done = yeet.here("x.tar.gz", "--dst", yeet.dst)
        assert (done.returncode, list(yeet.dst.parent.iterdir())) == (16, [])
        assert "--orig-prefix" in done.stderr
        done = yeet.here("x.tar.gz", "--dst", yeet.dst, "--orig-prefix", "/was/here")
        assert done.returncode == 0, done.stderr
        assert (yeet.dst / "bin" / "wrapper").read_text() == f"exec {yeet.dst}/bin/real\n"

    def test_what_may_not_be_read(self, yeet: Yeet) -> None:
        secrets = [yeet.source / "sub" / f"secret{number:02}" for number in range(12)]
        for secret in secrets:
            secret.touch(0o000)
        code = "from ezpz.cli.app import main\nmain()\n"
        args = ("yeet", yeet.source, "--dst", yeet.dst, "--hosts", HOST)
        done = powerless(code, *args)
        assert (done.returncode, list(yeet.dst.parent.iterdir())) == (11, [])
        assert len(re.findall(r"sub/secret\d\d'", done.stderr)) == 10
        assert "and 2 more" in done.stderr
        assert "--skip-unreadable" in done.stderr
        done = powerless(code, *args, "--skip-unreadable")
        assert done.returncode == 0, done.stderr
        assert "and 9 more, which cannot be read" in done.stderr
        assert os.listdir(yeet.dst / "sub") == ["other.pyc"]


class TestTools:
    """Only what is needed has to be on PATH, and what is missing is named."""

    @pytest.mark.parametrize(("strategy", "tool"), [("rsync", "rsync"), ("cp", "cp"), ("compress", "tar")])
    def test_a_tool_of_the_strategy(self, yeet: Yeet, strategy: str, tool: str) -> None:
        done = yeet.here(yeet.source, "--dst", yeet.dst, "--strategy", strategy)
        assert done.returncode == 30
        assert f"'{tool}'" in done.stderr
        assert list(yeet.dst.parent.iterdir()) == []
        yeet.tools("tar", "gzip", "cp", "rsync")
        assert yeet.here(yeet.source, "--dst", yeet.dst, "--strategy", strategy).returncode == 0

    @pytest.mark.parametrize("tool", ["ssh", "rsync"])
    def test_a_tool_of_the_engine_is_needed_for_other_nodes_only(self, yeet: Yeet, tool: str) -> None:
        for other in {"ssh", "rsync"} - {tool}:
            yeet.stub(other, SSH_REFUSED)
        done = yeet(yeet.source, "--dst", yeet.dst, "--hosts", f"{HOST},ghost", "--engine", "rsync")
        assert done.returncode == 30
        assert f"'{tool}'" in done.stderr
        assert list(yeet.dst.parent.iterdir()) == []

    def test_a_node_that_cannot_be_reached(self, yeet: Yeet) -> None:
        yeet.stub("ssh", SSH_REFUSED)
        yeet.stub("rsync", "#!/bin/sh\nexit 1\n")
        hosts = ("--hosts", f"{HOST},ghost[1-2]", "--hsn", "off", "--dst", yeet.dst)
        (yeet.source / "more").touch()
        done = yeet(yeet.source, *hosts, "--json")
        assert done.returncode == 31
        document = json.loads(done.stdout)
        assert_valid(document, "yeet-report")
        outcomes = {node["node"]: node["outcome"] for node in document["nodes"]}
        assert outcomes == {HOST: "ok", "ghost1": "unreachable", "ghost2": "unreachable"}
        assert not (yeet.dst / FAILED).exists()

        done = yeet(yeet.source, *hosts, "--min-success-nodes", "1")
        assert done.returncode == 0
        assert (yeet.dst / FAILED).read_text() == "ghost1\nghost2\n"
        assert yeet(yeet.source, *hosts, "--min-success-nodes", "2").returncode == 1
        assert not (yeet.dst / FAILED).exists()
        assert yeet(yeet.source, *hosts, "--min-success-fraction", "0.3").returncode == 0
        assert (yeet.dst / FAILED).exists()
        assert yeet.here(yeet.source, "--dst", yeet.dst).returncode == 0
        assert not (yeet.dst / FAILED).exists()


class TestOldModule:
    """`ezpz.utils.yeet_env`: the documented functions over the same parser."""

    def test_it_runs(self, yeet: Yeet) -> None:
        args = (yeet.source, "--dst", yeet.dst, "--hosts", HOST, "--dry-run", "--json")
        old = yeet(*args, module="ezpz.utils.yeet_env", command="yeet-env")
        new = yeet(*args)
        assert (old.returncode, new.returncode) == (0, 0)
        assert json.loads(old.stdout)["plan"].keys() == json.loads(new.stdout)["plan"].keys()
        assert json.loads(old.stdout)["plan"]["destination"] == str(yeet.dst)

    def test_a_bad_line_is_the_same_error(self, yeet: Yeet) -> None:
        old = yeet("--retries", "many", module="ezpz.utils.yeet_env", command="")
        new = yeet("--retries", "many")
        assert (old.returncode, new.returncode) == (2, 2)
        assert old.stderr.splitlines()[0] == new.stderr.splitlines()[0]

    @pytest.mark.parametrize("line", [["/env"], ["--src", "/env"], ["yeet", "/env"], ["yeet-env", "--src=/env"]])
    def test_src_is_the_positional_or_the_option(self, line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        from ezpz.utils.yeet_env import parse_args

        for name in [name for name in os.environ if name.startswith("EZPZ_")]:
            monkeypatch.delenv(name)
        args = parse_args([*line, "--copy", "--exclude", "a", "--exclude", "b", "--retries", "4"])
        assert (args.src, args.copy, args.exclude, args.retries) == ("/env", True, ("a", "b"), 4)
        assert (args.dst, args.timeout, args.dry_run, args.json) == (None, 3600.0, False, False)

    @pytest.mark.parametrize(
        "line",
        [
            ["/a", "--src", "/b"],
            ["--copy", "--compress"],
            ["--timeout", "x"],
            ["--min-success-nodes", "0"],
            ["/a", "/b"],
        ],
        ids=" ".join,
    )
    def test_a_contradiction_exits_with_2(self, line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        from ezpz.utils.yeet_env import parse_args

        with pytest.raises(SystemExit) as caught:
            parse_args(line)
        assert caught.value.code == 2
        assert capsys.readouterr().err

    def test_pick_source_is_the_one_of_the_engine(self) -> None:
        from ezpz.yeet.engines import copy_tree
        from ezpz.yeet.engines.copy_tree import pick_source

        assert pick_source is copy_tree.pick_source


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_tar_that_is_ended_leaves_no_half_archive(yeet: Yeet, number: int, status: int) -> None:
    (yeet.source / "noise").write_bytes(os.urandom(60_000_000))
    argv = [sys.executable, "-m", "ezpz", "yeet", "tar", str(yeet.source), "--level", "19"]
    environ = clean_environ(PATH=str(yeet.path))
    before = sorted(path.name for path in yeet.root.iterdir())
    with subprocess.Popen(argv, cwd=yeet.root, env=environ, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert any(line.startswith("packing") for line in iter(running.stderr.readline, ""))
        running.send_signal(number)
        said = running.stderr.read()
    assert running.returncode == status, said
    assert said == ("" if number == signal.SIGKILL else "error: interrupted; no archive was made\n")
    assert sorted(path.name for path in yeet.root.iterdir()) == before


def test_unpack_is_a_yeet_to_this_host(yeet: Yeet) -> None:
    assert yeet("tar", yeet.source).returncode == 0
    done = yeet("tar", "--unpack", "data.tar.zst", yeet.dst, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert_valid(document, "yeet-report")
    assert (document["status"], document["plan"]["destination"]) == ("success", str(yeet.dst))
    assert (yeet.dst / "file").read_text() == "content"
    (yeet.root / "theirs").mkdir()
    refused = yeet("tar", "--unpack", "data.tar.zst", yeet.root / "theirs")
    assert refused.returncode == 21


@pytest.mark.parametrize(
    "args",
    [
        ("data", "--unpack", "x.tar.zst", "y"),
        ("--unpack", "data", "y"),
        ("--unpack", "x.tar.zst", "y", "-o", "z.tar"),
        ("--unpack", "x.tar.zst", "y", "--exclude", "*.pyc"),
        ("--exclude", "a", "--unpack", "x.tar.zst", "y"),
        ("--unpack", "x.tar.zst", "y", "--format", "tar"),
        ("--unpack", "x.tar.zst", "y", "--level", "3"),
    ],
    ids=" ".join,
)
def test_unpack_goes_with_nothing_else(yeet: Yeet, args: tuple[str, ...]) -> None:
    done = yeet("tar", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert "exclude each other" in done.stderr or "is no archive" in done.stderr


def test_a_second_tar_does_nothing_and_a_third_says_what_changed(yeet: Yeet) -> None:
    assert yeet("tar", yeet.source).returncode == 0
    again = yeet("tar", yeet.source)
    assert "is up to date" in again.stdout
    (yeet.source / "file").write_text("content, and more")
    third = yeet("tar", yeet.source)
    assert "out of date: 1 changed (file)" in third.stderr
    assert third.returncode == 0
