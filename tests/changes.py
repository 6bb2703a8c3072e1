"""What has changed lately, by git: tests that only the lab or a benchmark can break run only then."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LATELY = 100  # commits; more than are ever landed at once
ALWAYS = "EZPZ_TEST_LAB"


@functools.cache
def why_not(paths: tuple[str, ...]) -> str:
    """Return why a test that only these paths can break need not run; "" when it has to.

    It has to when one of them differs from the last commit or was changed by one of the last `LATELY` commits, where
    there is no such history (a shallow clone, an archive), and when EZPZ_TEST_LAB is "always".
    """
    if os.environ.get(ALWAYS) == "always":
        return ""
    changed = _git("status", "--porcelain", "--", *paths)
    newest = _git("log", "-1", "--format=%H", "--", *paths)
    if changed or changed is None or not newest or _git("rev-parse", "--is-shallow-repository") != "false":
        return ""
    since = _git("rev-list", "--count", f"{newest}..HEAD")
    if since is None or int(since) < LATELY:
        return ""
    return f"no change of {', '.join(paths)} in the last {LATELY} commits; `make test-lab` runs it"


def _git(*arguments: str) -> str | None:
    """Return what git says; None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-C", REPOSITORY, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout.strip()
