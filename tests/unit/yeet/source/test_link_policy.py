"""Boundary: which links of a tree lead out of it, what takes their place, and what the others say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezpz.yeet.source.link_policy import LinkDecision, LinkPolicy, is_below, on_shared_filesystem

if TYPE_CHECKING:
    from pathlib import Path


class Place:
    """A tree `S` with a neighbour `out`, on one disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = os.fsencode(folder / "S")
        for name in ("S/lib", "S/bin", "out/blobs", "out/snap"):
            (folder / name).mkdir(parents=True)
        for name in ("S/lib/file", "out/file", "out/blobs/1"):
            (folder / name).write_text(name)
        self.boundary = LinkPolicy((self.root,), image=())

    def bytes(self, name: str) -> bytes:
        return os.fsencode(self.folder / name)

    def resolve(self, path: str, target: str, boundary: LinkPolicy | None = None) -> LinkDecision:
        link = os.path.join(self.root, os.fsencode(path))
        return (boundary or self.boundary).resolve(link, os.fsencode(target), os.fsencode(path))

    def abroad(self, standing: str, target: str, path: str = "bin/x/l") -> LinkDecision:
        """The same for a link that stands in a folder outside, to which a link was followed."""
        link = self.bytes(standing)
        return self.boundary.resolve(link, os.fsencode(target), os.fsencode(path), (os.path.dirname(link),))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("target", ["file", "../lib/file", "../bin", "nothing", ".", "./x//y"])
def test_case_35_a_relative_link_inside_stays(place: Place, target: str) -> None:
    assert place.resolve("lib/l", target) == LinkDecision(None, target.encode())


@pytest.mark.parametrize(
    ("target", "said"), [("../../S/lib/file", "file"), ("../../S", ".."), ("../../S/bin/../lib/x", "x")]
)
def test_case_35_a_relative_link_by_the_name_of_the_tree_goes_without(place: Place, target: str, said: str) -> None:
    assert place.resolve("lib/l", target) == LinkDecision(None, said.encode())


def test_case_35_an_absolute_link_inside_stays_for_relocation(place: Place) -> None:
    target = str(place.folder / "S" / "lib" / "file")
    assert place.resolve("bin/l", target) == LinkDecision(None, target.encode())


def test_case_35_an_absolute_link_by_a_name_that_nobody_told_becomes_relative(place: Place) -> None:
    (place.folder / "alias").symlink_to("S")
    assert place.resolve("bin/l", str(place.folder / "alias" / "lib" / "file")) == LinkDecision(None, b"../lib/file")
    told = LinkPolicy((place.root, place.bytes("alias")), image=())
    target = str(place.folder / "alias" / "lib" / "file")
    assert place.resolve("bin/l", target, told) == LinkDecision(None, target.encode())


@pytest.mark.parametrize("target", ["../../out/file", "{}/out/file", "../../out/../out//file", "../../out/link"])
def test_case_36_a_link_that_leads_out_is_what_it_leads_to(place: Place, target: str) -> None:
    (place.folder / "out" / "link").symlink_to("file")
    assert place.resolve("lib/l", target.format(place.folder)).real == place.bytes("out/file")


def test_what_was_looked_at_on_the_way_is_told(place: Place) -> None:
    found = place.resolve("lib/l", "../../out/file")
    assert found.status is not None
    assert os.path.samestat(found.status, os.stat(place.bytes("out/file")))
    (place.folder / "out" / "link").symlink_to("file")
    assert place.resolve("lib/l", "../../out/link").status is None
    assert place.resolve("lib/l", "../../out/nothing") == LinkDecision(place.bytes("out/nothing"), b"../../out/nothing")


def test_case_36_a_neighbour_whose_name_begins_alike_is_outside(place: Place) -> None:
    (place.folder / "S-python").mkdir()
    assert place.resolve("lib/l", "../../S-python").real == place.bytes("S-python")


def test_case_36_a_link_out_and_in_again_is_inside(place: Place) -> None:
    (place.folder / "out" / "back").symlink_to("../S/lib")
    assert place.resolve("bin/l", "../../out/back/file") == LinkDecision(None, b"../lib/file")


def test_case_36_a_step_up_behind_a_link_is_where_the_filesystem_says(place: Place) -> None:
    (place.folder / "S" / "lib" / "far").symlink_to("../../out/snap")
    assert place.resolve("lib/l", "far/../file").real == place.bytes("out/file")  # and not S/lib/file
    (place.folder / "out" / "near").symlink_to("../S/bin")
    assert place.resolve("lib/l", "../../out/near/../lib/file") == LinkDecision(None, b"file")


def test_case_36_a_loop_leads_somewhere_and_ends(place: Place) -> None:
    (place.folder / "out" / "a").symlink_to("b")
    (place.folder / "out" / "b").symlink_to("a")
    assert place.resolve("lib/l", "../../out/a").real is not None


def test_links_to_what_every_node_has_stay(place: Place) -> None:
    boundary = LinkPolicy((place.root,))
    for target in ("/usr/bin/env", "/usr/lib", "/etc/no such thing", "/dev/null", "/proc/version"):
        assert place.resolve("lib/l", target, boundary) == LinkDecision(None, target.encode())


@pytest.mark.parametrize("first", ["/usr", "out"])
def test_one_folder_of_the_image_says_nothing_of_its_neighbours(place: Place, first: str) -> None:
    boundary = LinkPolicy((place.root,), image=(place.bytes("out"), b"/usr"))
    (place.folder / "other").mkdir()
    assert place.resolve("lib/l", os.path.join("../..", first), boundary).real is None
    assert place.resolve("lib/l", "../../other", boundary).real == place.bytes("other")
    assert place.resolve("lib/l", "/work-or-something-else", boundary).real == b"/work-or-something-else"


def test_a_shared_disk_below_the_image_is_not_what_every_node_has(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with /opt/site on NFS below a local /opt: the mount point itself is on the shared one."""
    shared = place.bytes("out/snap")
    (place.folder / "out" / "snap" / "x").touch()
    monkeypatch.setattr(
        "ezpz.agent.common.filesystem.filesystem", lambda path: "nfs4" if is_below(path, shared) else "ext4"
    )
    boundary = LinkPolicy((place.root,), image=(place.bytes("out"),))
    assert place.resolve("lib/l", "../../out/file", boundary).real is None
    assert place.resolve("lib/l", "../../out/snap", boundary).real == shared
    assert place.resolve("lib/l", "../../out/snap/x", boundary).real == shared + b"/x"
    assert place.resolve("lib/l", "../../out/blobs", boundary).real is None


def test_links_to_the_interpreter_are_left_to_it(place: Place) -> None:
    boundary = LinkPolicy((place.root,), (place.bytes("out"),), image=())
    assert place.resolve("bin/l", "../../out/file", boundary) == LinkDecision(None, b"../../out/file")
    (place.folder / "other").symlink_to("out")
    assert place.resolve("bin/l", "../../other/file", boundary) == LinkDecision(None, b"../../other/file")


class TestAbroad:
    """Links in a folder that a link was followed to: they stand elsewhere afterwards."""

    def test_within_their_folder_they_stay(self, place: Place) -> None:
        assert place.abroad("out/snap/l", "other") == LinkDecision(None, b"other")
        assert place.abroad("out/l", "snap/../file") == LinkDecision(None, b"snap/../file")
        assert place.abroad("out/snap/l", "../snap/other") == LinkDecision(None, b"other")
        assert place.abroad("out/snap/l", "../snap") == LinkDecision(None, b".")

    def test_out_of_their_folder_they_are_followed(self, place: Place) -> None:
        assert place.abroad("out/snap/l", "../blobs/1").real == place.bytes("out/blobs/1")

    def test_into_the_tree_they_are_told_from_their_new_place(self, place: Place) -> None:
        assert place.abroad("out/snap/l", "../../S/lib/file") == LinkDecision(None, b"../../lib/file")

    def test_what_stays_outside_is_told_in_full(self, place: Place) -> None:
        boundary = LinkPolicy((place.root,))
        up = "../" * 40 + "usr/bin/env"
        found = boundary.resolve(place.bytes("out/snap/l"), up.encode(), b"x/l", (place.bytes("out/snap"),))
        assert found == LinkDecision(None, b"/usr/bin/env")
        nothing = place.bytes("out/nothing")
        assert place.abroad("out/snap/l", "../nothing") == LinkDecision(nothing, nothing)


NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", ""]), min_size=1, max_size=6).map("/".join)


@given(NAMES, st.sampled_from(["l", "a/l", "a/b/l"]))
def test_where_a_link_leads_is_where_the_filesystem_says(target: str, path: str) -> None:
    """Without other links, the resolved path is below the top exactly when the link stays one."""
    top = b"/no-such-top/a"
    link = os.path.join(top, path.encode())
    real = os.path.realpath(os.path.join(os.path.dirname(link), target.encode()))
    found = LinkPolicy((top,), image=()).resolve(link, target.encode(), path.encode())
    assert (found.real is None) == is_below(real, top)
    if found.real is not None:
        assert found.real == real
    else:
        assert os.path.realpath(os.path.join(os.path.dirname(link), found.target)) == real


def test_what_is_not_there_is_not_shared() -> None:
    assert not on_shared_filesystem(b"/no/such/place")
