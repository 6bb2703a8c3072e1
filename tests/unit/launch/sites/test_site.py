"""launch/site.py and site_file.py: the packaged files, the user's laid over them, and lines for what is wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from ezpz.errors import SiteFileError, UsageError
from ezpz.launch.sites.site import FailureRule, choose_site, user_directory
from ezpz.launch.sites.site_file import find_line, parse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.mark.parametrize(
    ("names", "environ", "site"),
    [
        (("x4310c3s2b0n0",), {}, "aurora"),
        (("aurora-uan-0010",), {}, "aurora"),
        (("x4310c3s2b0n0-hsn0.hsn.cm.aurora.alcf.anl.gov",), {}, "aurora"),
        (("x1921c0s3b0n0",), {}, "sunspot"),
        (("uan-0002",), {}, "sunspot"),
        (("uan01",), {}, "default"),
        (("x3001c0s1b0n0",), {}, "polaris"),
        (("x3001c0s1b0n0",), {"PBS_O_HOST": "sirius-login-01"}, "sirius"),
        (("sophia-gpu-07",), {}, "sophia"),
        (("frontier00123",), {}, "frontier"),
        (("nid001234",), {"NERSC_HOST": "perlmutter"}, "perlmutter"),
        (("nid001234",), {}, "default"),
        (("x1", "x3-gpu", "x4000"), {}, "default"),
        (("login07",), {"NERSC_HOST": "perlmutter"}, "perlmutter"),
        (("login07",), {}, "default"),
        (("laptop", "x3001c0s1b0n0"), {}, "polaris"),
        (("laptop",), {}, "default"),
    ],
)
def test_a_site_is_known_by_its_host_names(
    names: tuple[str, ...], environ: Mapping[str, str], site: str, tmp_path: Path
) -> None:
    assert choose_site(names, environ, directory=str(tmp_path)).name == site


def test_every_packaged_site_is_sound(tmp_path: Path) -> None:
    for name in ("aurora", "sunspot", "polaris", "sirius", "sophia", "frontier", "perlmutter", "default"):
        site = choose_site((), {}, wanted=name, directory=str(tmp_path))
        assert site.description
        assert all(re.compile(pattern) for pattern in (*site.noise, *(each.pattern for each in site.failures)))
        assert (site.accelerators > 0) == (name not in ("default", "sirius"))


def test_an_unknown_site_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such site") as caught:
        choose_site((), {}, wanted="mars", directory=str(tmp_path))
    assert "aurora" in caught.value.hint


def test_a_new_machine_needs_no_code(tmp_path: Path) -> None:
    (tmp_path / "mars.toml").write_text('accelerators = 3\n[[match]]\nhosts = ["Olympus*"]\n[options]\npals = ["-x"]\n')
    site = choose_site(("olympus7",), {}, directory=str(tmp_path))
    assert (site.name, site.accelerators, site.why) == ("mars", 3, "the host name olympus7")
    assert site.options == {"pals": ("-x",), "srun": ("--kill-on-bad-exit=1",)}
    assert site.files[-1] == str(tmp_path / "mars.toml")


def test_a_users_file_is_laid_over_ours_and_wins_over_a_site_that_matches_as_well(tmp_path: Path) -> None:
    (tmp_path / "aurora.toml").write_text('noise = ["mine"]\n[cpu-bind.pals]\n6 = "depth"\n')
    (tmp_path / "other.toml").write_text('[[match]]\nhosts = ["x3*"]\n')
    site = choose_site(("x4310c3s2b0n0",), {}, directory=str(tmp_path))
    assert site.noise[-1] == "mine"
    assert len(site.noise) > 1
    assert site.cpu_bind["pals"] == {"6": "depth"}
    assert site.accelerators == 12
    assert choose_site(("x3001c0s1b0n0",), {}, directory=str(tmp_path)).name == "other"


def test_bindings_are_by_ranks_a_node(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[cpu-bind.srun]\ndefault = "none"\n4 = "cores"\n')
    site = choose_site((), {}, wanted="m", directory=str(tmp_path))
    assert [site.binding("srun", ppn) for ppn in (4, 5)] == ["cores", "none"]
    assert site.binding("pals", 4) == ""


def test_where_the_users_files_lie() -> None:
    assert user_directory({"HOME": "/h"}) == "/h/.config/ezpz/sites"
    assert user_directory({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}) == "/x/ezpz/sites"
    for ignored in ("", "x", "./x"):
        assert user_directory({"HOME": "/h", "XDG_CONFIG_HOME": ignored}) == "/h/.config/ezpz/sites"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a = 1\nb = = 2\n", 2, "this is no TOML"),
        ("# c\n\nacelerators = 4\n", 3, "nobody knows the key 'acelerators'"),
        ('accelerators = "four"\n', 1, "accelerators must be a whole number, not 'four'"),
        ('description = "d"\naccelerators = -1\n', 2, "must be a whole number"),
        ('\nnoise = [\n  "fine",\n  "(",\n]\n', 4, "'(' is no regular expression"),
        ('noise = "x"\n', 1, "noise must be a list of texts"),
        ("[options]\npals = [1]\n", 2, "pals must be a list of texts"),
        ('options = "x"\n', 1, "options must be a table"),
        ('[cpu-bind.pals]\n12 = "x"\nmany = "y"\n', 3, "'many' is neither a number of ranks a node nor 'default'"),
        ("[cpu-bind.pals]\n\n12 = 4\n", 3, "12 must be text"),
        ("\n[[match]]\nhost = ['x']\n", 2, "a [[match]] has no hosts"),
        ("[[match]]\nhosts = ['x']\nuser = 'me'\n", 3, "nobody knows the key 'user'"),
        ("[[failure]]\npattern = '['\ncause = 'c'\n", 2, "is no regular expression"),
        ("[[failure]]\npattern = 'x'\ncause = 'c'\nculprit = 1\n", 4, "culprit must be true or false"),
        ("accelerators = 4\nnoise = [\n", 2, "this is no TOML"),
        ("[options]\n\nmpich = ['-x']\n", 3, "there is no launcher 'mpich'"),
        ("[cpu-bind.local]\n4 = 'x'\n", 1, "there is no launcher 'local'"),
        ('[cpu-bind.srun]\n4 = "a\'"\n', 2, "No closing quotation"),
        ("[with-devices]\nA = 1\n", 2, "A must be text"),
    ],
)
def test_what_is_wrong_has_its_line(text: str, line: int, what: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(SiteFileError) as caught:
        choose_site(("anything",), {}, directory=str(tmp_path))
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert what in caught.value.message
    assert caught.value.hint


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_bytes(b"description = '\xff'")
    with pytest.raises(SiteFileError, match=r"b\.toml:1: it cannot be read: it is not UTF-8"):
        choose_site((), {}, directory=str(tmp_path))


def test_failures_add_up(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text("[[failure]]\npattern = 'x'\ncause = 'c'\nculprit = false\n")
    (tmp_path / "default.toml").write_text("[[failure]]\npattern = 'y'\ncause = 'd'\n")
    failures = choose_site((), {}, wanted="m", directory=str(tmp_path)).failures
    assert failures == (FailureRule("y", "d"), FailureRule("x", "c", is_cause=False))


def test_a_line_is_found_below_its_table() -> None:
    assert find_line("a = 1\n[t]\na = 2\n", "t.a") == 3
    assert find_line("x = 1\n", "nothing") == 1
    assert parse("", "p").values == {}
