"""`ezpz launch` for real, on this host: exit status, standard streams, signals, what it says."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import clean_environ, ezpz
from tests.waiting import DEADLINE

HERE = ("--hosts", socket.gethostname())


def launch(*args: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `ezpz launch` on this host alone."""
    return ezpz("launch", *HERE, *args, stdin=stdin, variables=variables)


def start(*args: str) -> subprocess.Popen[str]:
    """Start `ezpz launch` on this host, and wait until the command has said "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ezpz", "launch", *HERE, *args], env=clean_environ(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> str:
    """What it still says, once it has ended."""
    out, _ = process.communicate(timeout=DEADLINE)
    return out


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_one_rank_here() -> None:
    done = launch("sh", "-c", "echo $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE")
    assert (done.stdout, done.stderr, done.returncode) == ("0/1 0/1\n", "", 0)


def test_several_ranks_here() -> None:
    done = launch("-n", "3", "sh", "-c", "echo $RANK of $WORLD_SIZE")
    assert sorted(done.stdout.splitlines()) == ["0 of 3", "1 of 3", "2 of 3"]


def test_standard_streams_are_the_commands() -> None:
    done = launch("sh", "-c", "tr a-z A-Z; echo oops >&2", stdin="hello")
    assert (done.stdout, done.stderr) == ("HELLO", "oops\n")


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill $$", 143)])
def test_the_exit_status_is_the_commands(script: str, status: int) -> None:
    assert launch("sh", "-c", script).returncode == status


def test_the_first_rank_that_fails_ends_the_others() -> None:
    assert launch("-n", "3", "sh", "-c", "test $RANK = 1 && exit 9; exec sleep 600").returncode == 9


def test_what_follows_the_command_is_the_commands() -> None:
    assert launch("echo", "--json", "-v", "--", "-n").stdout == "--json -v -- -n\n"
    assert launch("--", "echo", "--dry-run").stdout == "--dry-run\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_whole_tree_of_the_command(number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    with start(
        "sh", "-c", f"trap 'echo got {name}; exit 5' {name}; sh -c 'echo ready; exec sleep 60' & wait"
    ) as process:
        process.send_signal(number)
        assert finish(process) == f"got {name}\n"
        assert process.returncode == 5


def test_a_signal_reaches_every_rank() -> None:
    code = "import os, signal, time; signal.signal(15, lambda *_: exit(4)); os.write(1, b'ready\\n'); time.sleep(60)"
    with start("-n", "3", sys.executable, "-c", code) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        process.terminate()
        assert finish(process) == ""
        assert process.returncode == 4


def test_a_command_that_dies_of_the_signal_gives_its_status() -> None:
    with start("sh", "-c", "echo ready; exec sleep 60") as process:
        process.terminate()
        finish(process)
        assert process.returncode == 143


def test_an_interrupted_run_is_no_success() -> None:
    with start("sh", "-c", "trap 'exit 0' INT; sh -c 'echo ready; exec sleep 60' & wait") as process:
        process.send_signal(signal.SIGINT)
        finish(process)
        assert process.returncode == 130


def test_a_command_that_ignores_signals_is_killed_at_the_second() -> None:
    script = "trap '' TERM; trap 'echo heard' INT; echo ready; echo $$; while :; do sleep 600 & wait; done"
    with start("sh", "-c", script) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "heard\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        finish(process)
        assert process.returncode == 137
        assert not is_running(pid)


def test_nohup_is_respected() -> None:
    with subprocess.Popen(
        ["nohup", sys.executable, "-m", "ezpz", "launch", *HERE, "sh", "-c", "echo ready; read line; echo done"],
        env=clean_environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        process.stdin.write("\n")
        process.stdin.flush()
        assert finish(process) == "done\n"
        assert process.returncode == 0


def test_a_terminal_reaches_the_command_and_so_does_its_ctrl_c() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        code = "import sys; print(sys.stdin.isatty(), input(), flush=True); input()"
        argv = [sys.executable, "-m", "ezpz", "launch", *HERE, sys.executable, "-c", code]
        os.execve(sys.executable, argv, clean_environ())
    os.write(terminal, b"hello\n")
    said = b""
    while b"True hello" not in said:
        said += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130


def test_a_command_that_does_not_exist() -> None:
    done = launch("no-such-command-here")
    assert done.returncode == 51
    assert "'no-such-command-here' cannot be started on this host: No such file or directory" in done.stderr
    assert "hint:" in done.stderr


def test_a_script_without_an_interpreter_line(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    done = launch(str(script))
    assert done.returncode == 51
    assert "Exec format error" in done.stderr
    assert "#!" in done.stderr


def test_dry_run_runs_nothing(tmp_path: Path) -> None:
    done = launch("--dry-run", "-n", "2", "touch", str(tmp_path / "made"))
    assert done.returncode == 0
    assert "launcher  local: this host is the only node" in done.stdout
    assert "ranks     2, 2 a node" in done.stdout
    assert not (tmp_path / "made").exists()


def test_dry_run_in_json() -> None:
    document = json.loads(launch("--dry-run", "--json", "true").stdout)
    assert document["schema"] == "ezpz/launch/2"
    assert document["argv"] == ["true"]
    assert "exit_code" not in document


def test_json_is_one_document_after_the_command() -> None:
    done = launch("--json", "sh", "-c", "echo heard; exit 6")
    assert json.loads(done.stdout)["exit_code"] == done.returncode == 6
    assert done.stderr == "heard\n"


def test_verbose_says_how_it_was_decided() -> None:
    assert "local: this host is the only node" in launch("-v", "true").stderr


def test_the_environment_gives_options_and_the_line_wins(tmp_path: Path) -> None:
    assert launch("sh", "-c", "echo $WORLD_SIZE", EZPZ_LAUNCH_NPROC="2").stdout == "2\n2\n"
    assert launch("-n", "1", "sh", "-c", "echo $WORLD_SIZE", EZPZ_LAUNCH_NPROC="2").stdout == "1\n"
    assert launch("true", EZPZ_LAUNCH_HOSTFILE=str(tmp_path / "missing")).returncode == 0


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (("-n", "0", "true"), "'-n' / '--nproc' / '-np' / '--np' (env var: 'EZPZ_LAUNCH_NPROC'): 0 is not"),
        (("--ppn", "two", "true"), "'two' is not a valid integer"),
        (("--hostfile", "h", "true"), f"'--hosts {HERE[1]}' and '--hostfile h' exclude each other"),
        (("-n", "4", "--ppn", "3", "true"), "-n 4 does not fit with --ppn 3: 1 node x 3 = 3 < 4"),
        (("--launcher", "jsrun", "true"), "--launcher 'jsrun': there is no such launcher"),
        (("--launcher", "srun", "--", "true"), "nothing here can start ranks"),
        (("-np=x", "true"), "'x' is not a valid integer"),
        (("--nhosts", "many", "true"), "'many' is neither a number of nodes nor MIN:MAX"),
        (("--spares", "-1", "true"), "-1 is not in the range"),
        (("--spares", "1", "--nhosts", "1", "true"), "--nhosts and --spares exclude each other"),
        (("--gpus-per-rank", "0", "true"), "0 is not in the range"),
        (("--env", "relative", "true"), "--env 'relative' is not an absolute path"),
        (("--exclude", "n[1", "true"), "is not a nodeset"),
        (("--hsn", "fast", "true"), "--hsn 'fast' is not a network"),
        (("--site", "mars", "true"), "--site 'mars': there is no such site"),
        (("--", "-x"), "the command '-x' looks like an option"),
        (("-q", "-v", "true"), "exclude each other"),
        ((), "Missing argument 'COMMAND"),
        (("--no-such", "true"), "--no-such"),
    ],
)
def test_a_bad_line_is_a_usage_error(line: tuple[str, ...], named: str) -> None:
    done = launch(*line)
    assert done.returncode == (50 if "srun" in line else 2)
    assert named in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    error = json.loads(launch("--json", *line).stdout)["error"]
    assert (error["exit_code"], bool(error["hint"])) == (done.returncode, True)


def test_a_binding_in_the_environment_that_has_an_open_quote() -> None:
    done = launch("true", CPU_BIND="list:'1")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert "is ignored" in done.stderr


def test_other_hosts_without_a_launcher(tmp_path: Path) -> None:
    done = ezpz("launch", "--hosts", "n[1-2]", "--hsn", "off", "true", variables={"PATH": str(tmp_path)})
    assert done.returncode == 50
    assert "nothing here can start ranks on n[1-2]" in done.stderr


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_a_stub_launcher_gets_the_command_and_the_hosts(tmp_path: Path, scheduler: str) -> None:
    """A launcher that does what its kind does, but starts the command here, once, and shows its hostfile."""
    stub = tmp_path / ("srun" if scheduler == "slurm" else "mpiexec")
    stub.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo PALS 1.2; exit; }\n'
        'while [ $# -gt 0 ]; do case "$1" in --hostfile) shift; cat "$1"; stat -c %a "$1";;'
        ' --|--envall) shift; break;; esac; shift; done\nexec "$@"\n'
    )
    stub.chmod(0o755)
    nodefile = tmp_path / "nodefile"
    nodefile.write_text("n1\nn1\nn2\n")
    variables = {
        "slurm": {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"},
        "pbs": {"PBS_JOBID": "7.server", "PBS_NODEFILE": str(nodefile)},
    }[scheduler]
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = ezpz("launch", "--hsn", "off", "sh", "-c", "echo ran; exit 3", variables={"PATH": path, **variables})
    assert done.returncode == 3, done.stderr
    assert done.stdout == {"slurm": "ran\n", "pbs": "n1\nn2\n600\nran\n"}[scheduler]


def test_ranks_here_know_where_to_meet_and_which_accelerators_are_theirs() -> None:
    done = launch("-n", "2", "--gpus-per-rank", "2", "sh", "-c", "echo $NODE_RANK $MASTER_ADDR $CUDA_VISIBLE_DEVICES")
    assert sorted(done.stdout.splitlines()) == ["0 127.0.0.1 0,1", "0 127.0.0.1 2,3"]
    ports = launch("-n", "2", "sh", "-c", "echo $MASTER_PORT").stdout.split()
    assert len(set(ports)) == 1
    assert ports[0].isdigit()


ODD = ("a b", "it's", '"$HOME"', "$RANK", "*", "\\", "", "new\nline", "tab\t", "\x1b[1m", "é", ":", "&& false")


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("launcher", ["local", "hydra"])
def test_the_line_of_a_dry_run_does_the_same_when_pasted(shell: str, launcher: str, tmp_path: Path) -> None:
    """As it is shown, so with whatever the output makes of odd characters."""
    if launcher == "hydra" and shutil.which("mpiexec.hydra") is None:
        pytest.skip("MPICH is not installed")
    program = tmp_path / "the program's $name"
    program.write_text('#!/bin/sh\nfor word; do printf "%s/%s\\0" "$RANK" "$word"; done\n')
    program.chmod(0o755)
    line = ("-n", "2", "--launcher", launcher, "--", str(program), *ODD)
    *_, shown = launch("--dry-run", *line).stdout.partition("command   ")
    pasted = subprocess.run([shell, "-c", shown], capture_output=True, env=clean_environ())
    words = sorted(f"{rank}/{word}".encode() for rank in range(2) for word in ODD)
    assert sorted(pasted.stdout.split(b"\0")[:-1]) == words
    assert sorted(launch(*line).stdout.encode().split(b"\0")[:-1]) == words


def test_spares_and_labels_are_in_the_dry_run(tmp_path: Path) -> None:
    stub = tmp_path / "srun"
    stub.write_text("#!/bin/sh\n")
    stub.chmod(0o755)
    variables = {"PATH": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-4]"}
    line = ("launch", "--hsn", "off", "--spares", "1", "--dry-run", "--max-restarts", "2", "true")
    done = ezpz(*line, variables=variables)
    assert "nodes     n[1-3] (3), spare: n4\n" in done.stdout
    assert "command   srun --label --quit-on-interrupt" in done.stdout


@pytest.mark.parametrize("option", ["-np", "--np", "--nproc", "-ppn", "--ppn", "--nproc_per_node", "--nproc-per-node"])
def test_the_spellings_of_other_peoples_scripts(option: str) -> None:
    assert launch(option, "2", "sh", "-c", "echo $WORLD_SIZE").stdout == "2\n2\n"


@pytest.mark.parametrize("option", ["-nh", "--nhosts", "--nnodes"])
def test_more_nodes_than_there_are(option: str) -> None:
    done = launch(option, "2", "true")
    assert done.returncode == 53
    assert "--nhosts 2 needs 2 nodes, and there is 1" in done.stderr
    assert launch(option, "1:4", "true").returncode == 0
    assert launch(option, "2:1", "true").returncode == 2


def test_a_hostfile_that_names_nodes_outside_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "nodefile").write_text("n1\nn2\n")
    (tmp_path / "mine").write_text("n2\nn3\n")
    variables = {"PBS_NODEFILE": str(tmp_path / "nodefile"), "PBS_JOBID": "7.server"}
    done = ezpz("launch", "--hostfile", str(tmp_path / "mine"), "--hsn", "off", "true", variables=variables)
    assert done.returncode == 54
    assert (
        f"the hostfile {tmp_path}/mine names n3, which is not among the 2 nodes of job 7.server: n[1-2]" in done.stderr
    )


def test_a_file_about_a_site_in_the_home_directory(tmp_path: Path) -> None:
    folder = tmp_path / "ezpz" / "sites"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(f'accelerators = 3\n[[match]]\nhosts = ["{socket.gethostname()}"]\n')
    done = launch("sh", "-c", "echo $WORLD_SIZE", XDG_CONFIG_HOME=str(tmp_path))
    assert done.stdout == "3\n3\n3\n"
    (folder / "mine.toml").write_text("accelerators = 3\n\nnoise = 4\n")
    done = launch("true", XDG_CONFIG_HOME=str(tmp_path))
    assert done.returncode == 55
    assert f"{folder}/mine.toml:3: noise must be a list" in done.stderr


def test_yeet_here_and_run_from_the_copy(tmp_path: Path) -> None:
    source, place = tmp_path / "env", tmp_path / "copy"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", source], check=True)
    line = ("--yeet", "--env", str(place), "--", "python3", "-c", "import sys; print(sys.prefix)")
    dry = launch("--dry-run", *line, VIRTUAL_ENV=str(source))
    assert f"first     ezpz yeet env --hsn=auto --dst={place} --hosts={HERE[1]}\n" in dry.stdout
    assert f"python    {place} on every node" in dry.stdout
    for wrong, status in ((("--nhosts", "2"), 53), (("--site", "mars"), 2), (("-n", "4", "--ppn", "3"), 2)):
        assert launch(*wrong, *line, VIRTUAL_ENV=str(source)).returncode == status
    assert not place.exists()
    done = launch(*line, VIRTUAL_ENV=str(source))
    assert (done.stdout, done.returncode) == (f"{place}\n", 0), done.stderr
    assert f"{place} (venv" in done.stderr
    assert "next:" not in done.stderr
    failed = launch("--yeet", "--", "true", VIRTUAL_ENV=str(tmp_path / "none"))
    assert failed.returncode == 10


def test_secrets_are_not_shown() -> None:
    done = launch("--dry-run", "--json", "-v", "--", "app", "--auth", "hf_0123456789", HF_TOKEN="hf_0123456789")
    assert "hf_0123456789" not in done.stdout + done.stderr
    assert json.loads(done.stdout)["argv"] == ["app", "--auth", "***"]


def test_the_python_api() -> None:
    code = (
        "from ezpz.launch.api import plan, run\n"
        f"planned = plan(['sh', '-c', 'echo $RANK; exit 3'], nproc=2, hosts={HERE[1]!r})\n"
        "print(planned.topology.ranks, planned.launcher, flush=True)\n"
        "raise SystemExit(run(planned))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=clean_environ(), capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines()[0] == "2 local"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'python x.py'", "'python x.py' is no command"),
        ("[]", "[] is no command"),
        ("['true'], nproc=0", "nproc is 0, and must be at least 1"),
        ("['true'], nhosts=(2, 1)", "the most of nhosts is 1, and must be at least 2"),
    ],
)
def test_the_python_api_refuses_what_cannot_be(arguments: str, message: str) -> None:
    code = (
        "from ezpz.errors import UsageError\nfrom ezpz.launch.api import plan\n"
        f"try: plan({arguments}, hosts={HERE[1]!r})\nexcept UsageError as e: print(e.message)"
    ).replace("(, ", "(")
    done = subprocess.run([sys.executable, "-c", code], env=clean_environ(), capture_output=True, text=True)
    assert done.stdout == f"{message}\n", done.stderr
