"""Registry: names without loading, one error for each way in which a plugin can be wrong."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import pytest

from ezpz.errors import PluginError, UsageError
from ezpz.runtime.plugins import Registry, reject_duplicates
from tests.cli.support import make_package

if TYPE_CHECKING:
    from pathlib import Path

GROUP = "ezpz.tests.things"
SOURCE = "import sys\nprint('loaded', file=sys.stderr)\n\ndef thing(): return 42\n"


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test puts on sys.path goes with it."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def install(site: Path) -> None:
    sys.path.insert(0, str(site))


def test_names_are_sorted_and_nothing_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = {"zebra": "things_a:thing", "ant": "things_a:thing", "gone": "no_such_module:thing"}
    install(make_package(tmp_path, "things_a", points, SOURCE, group=GROUP))
    registry = Registry[object](GROUP, "thing")
    assert registry.names() == ("ant", "gone", "zebra")
    assert capsys.readouterr().err == ""


def test_load(tmp_path: Path) -> None:
    install(make_package(tmp_path, "things_b", {"answer": "things_b:thing"}, SOURCE, group=GROUP))
    thing = Registry[object](GROUP, "thing").load("answer")
    assert callable(thing)
    assert thing() == 42


def test_an_empty_group_has_no_names() -> None:
    assert Registry[object]("ezpz.tests.nothing", "thing").names() == ()


def test_an_unknown_name_is_a_usage_error_that_lists_the_choices(tmp_path: Path) -> None:
    points = {"one": "things_c:thing", "two": "things_c:thing"}
    install(make_package(tmp_path, "things_c", points, SOURCE, group=GROUP))
    with pytest.raises(UsageError, match="--thing 'three': there is no such thing") as caught:
        Registry[object](GROUP, "thing").load("three")
    assert caught.value.hint == "choose one of: one, two"


@pytest.mark.parametrize("value", ["things_d:missing", "no_such_module_here:thing"])
def test_a_broken_plugin_is_a_plugin_error_that_names_it(tmp_path: Path, value: str) -> None:
    install(make_package(tmp_path, "things_d", {"broken": value}, SOURCE, group=GROUP))
    registry = Registry[object](GROUP, "thing")
    assert registry.names() == ("broken",)
    with pytest.raises(PluginError, match=f"thing 'broken' \\({value}\\) cannot be loaded"):
        registry.load("broken")


def test_two_plugins_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("castor_r", "pollux_r"):
        install(make_package(tmp_path, name, {"twin": f"{name}:thing"}, SOURCE, group=GROUP))
    with pytest.raises(PluginError, match="2 plugins declare the thing 'twin': castor_r:thing, pollux_r:thing"):
        Registry[object](GROUP, "thing").names()


def test_one_plugin_found_twice_is_one() -> None:
    point = EntryPoint(name="one", value="package:thing", group=GROUP)
    reject_duplicates("thing", (point, point))
