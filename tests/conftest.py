"""Fixtures for tests on real hosts: labs that are made once and as new for every test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.changes import why_not
from tests.lab import FaultyLab, Host, LabUnavailable, make_lab
from tests.lab.slurm import Slurm
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

REPOSITORY = Path(__file__).resolve().parents[1]
LABS = ("lab4", "lab16", "shaped", "slurm")
FOREIGN = ("PBS_", "SLURM_", "PMI_", "PALS_", "EZPZ_", "VIRTUAL_ENV", "CONDA_", "PYTHONDONTWRITEBYTECODE")


# How long an example takes says nothing: the machine may be busy. `make check` draws fewer examples.
settings.register_profile("full", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("check", settings.get_profile("full"), max_examples=15)
settings.load_profile("full")

SLOWEST = ("tests/cluster/", "tests/relocation/", "")


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end the run as Ctrl-C does, so that no lab outlives it; and let what tests start get its signals.

    A shell that runs us in the background has SIGINT ignored, nohup has SIGHUP, and our children would inherit that.
    """
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests on one worker (pytest-xdist), and a moved environment's: what they share is made once.

    What takes long comes first, so that no worker is left with it in the end.
    """
    items.sort(key=lambda item: next(at for at, place in enumerate(SLOWEST) if item.nodeid.startswith(place)))
    for item in items:
        paths = item.get_closest_marker("broken_only_by")
        if paths is not None and (reason := why_not((item.nodeid.partition("::")[0], *paths.args))):
            item.add_marker(pytest.mark.skip(reason=reason))
        case = getattr(item, "callspec", None)
        moved = case is not None and "landed" in case.params
        group = f"landed {case.params['landed']}" if case is not None and moved else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a pytest-xdist that has not read the marks."""
    grouped = getattr(session.config.option, "loadgroup", False)
    if grouped and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("this pytest and this pytest-xdist keep no group together: run `make setup`")


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt("SIGTERM")


def _session_lab(count: int, **options: str) -> Iterator[FaultyLab]:
    if REPOSITORY.is_relative_to("/tmp"):
        raise LabUnavailable(f"{REPOSITORY} lies in /tmp, of which each host has its own")
    with make_lab(count, **options) as lab:
        yield lab


@pytest.fixture(scope="session")
def lab4() -> Iterator[FaultyLab]:
    """Four unshaped hosts, as new for each test."""
    yield from _session_lab(4)


@pytest.fixture(scope="session")
def lab16() -> Iterator[FaultyLab]:
    """Sixteen unshaped hosts, as new for each test."""
    yield from _session_lab(16)


@pytest.fixture(scope="session")
def shaped() -> Iterator[FaultyLab]:
    """Six hosts at 200 Mbit/s with small disks, as new for each test: slow enough to be broken in the middle."""
    yield from _session_lab(6, rate="200mbit", tmp_size="300m")


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Slurm on four hosts of its own, ``slurm.lab``."""
    for lab in _session_lab(4):
        with Slurm(lab) as running:
            yield running


def _labs_of(request: pytest.FixtureRequest) -> list[FaultyLab]:
    """Return the labs that a test names; one that only runs `ezpz` does so on `lab4`."""
    names = [name for name in LABS if name in request.fixturenames]
    if not names and "ezpz" in request.fixturenames:
        names = ["lab4"]
    made = (request.getfixturevalue(name) for name in names)
    return [each.lab if isinstance(each, Slurm) else each for each in made]


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make the hosts that a test used as new, and fail it if anything of it still runs on one it did not break."""
    labs = _labs_of(request)
    yield
    leaks = [leak for lab in labs for leak in lab.clean()]
    assert not leaks, "left running: " + "; ".join(leaks)


@pytest.fixture
def deep_path(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory for trees that are too deep for `shutil.rmtree`, with which pytest removes them."""
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what schedulers, ezpz and virtual environments put in one."""
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


class Ezpz:
    """``ezpz`` on the launching host of a lab, in a clean environment."""

    def __init__(self, lab: FaultyLab) -> None:
        """Run on this lab."""
        self.lab = lab

    def argv(self, *arguments: str | os.PathLike[str]) -> list[str]:
        """Return the command line that these arguments stand for."""
        return [sys.executable, "-m", "ezpz", *(os.fspath(argument) for argument in arguments)]

    def __call__(
        self,
        *arguments: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        host: Host | str = "n000",
        timeout: float = DEADLINE,
        check: bool = False,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run gives it
    ) -> subprocess.CompletedProcess[str]:
        """Run ``ezpz`` to its end with ``env`` added to the clean environment."""
        return self.lab.run(
            host,
            self.argv(*arguments),
            env={**clean_environment(), **(env or {})},
            cwd=cwd,
            timeout=timeout,
            check=check,
            input=input,
        )

    def popen(
        self, *arguments: str | os.PathLike[str], env: Mapping[str, str] | None = None, host: Host | str = "n000"
    ) -> subprocess.Popen[str]:
        """Start ``ezpz`` with its output in pipes; its pid is its own, so signals arrive."""
        environment = {**clean_environment(), **(env or {})}
        return self.lab.popen(
            host,
            self.argv(*arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@pytest.fixture
def ezpz(request: pytest.FixtureRequest) -> Ezpz:
    """Run ``ezpz`` on n000 of the lab that the test uses, or else of `lab4`."""
    return Ezpz(_labs_of(request)[0])
