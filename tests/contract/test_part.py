"""An agent plays its part in a stream under every Python that we find: it lands what comes, and passes it on."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from ezpz.agent.common.cancel import CancelToken
from ezpz.agent.common.layout import OWN_FILES
from ezpz.agent.common.messages.answers import LookAnswer
from ezpz.agent.common.messages.envelope import Done
from ezpz.agent.common.messages.events import Event, ServingEvent
from ezpz.agent.common.messages.parts import PeerAddress
from ezpz.agent.common.messages.queries import HeartbeatRequest
from ezpz.agent.common.messages.requests import LookRequest
from ezpz.agent.stream import chunks
from ezpz.agent.stream.chunk_buffer import KEPT_BYTES, ChunkBuffer
from ezpz.agent.stream.codec import PLAIN, ZLIB, ZSTD, Codec
from ezpz.agent.stream.relay import Downstream
from ezpz.cluster.allocation import Node
from ezpz.remote.startup import ListenRequest
from ezpz.yeet.engines.stream.sender import StreamSender
from ezpz.yeet.pipeline.replay import ReplayReader, feed_tree
from ezpz.yeet.transfer.entry_tee import EntryTee
from tests.contract.doors import SYSTEM, VERSIONS, Piped, Refused, interpreter
from tests.lab.compare import compare_trees
from tests.lab.nasty import nasty_tree
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ezpz.yeet.transfer.manifest_builder import ManifestSummary

every_python = pytest.mark.parametrize("python", [SYSTEM, *VERSIONS])

SECRET = b"s" * 32
STALL = 10.0  # seconds
CHUNK = 10_000  # bytes; so that there are many
RUN = "20240101-000000-00000001"
HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nasty_tree(tmp_path_factory.mktemp("source") / "nasty")


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than an agent keeps in memory for those who come later."""
    root = nasty_tree(tmp_path_factory.mktemp("source") / "heavy")
    (root / "heavy").write_bytes(os.urandom(3 * KEPT_BYTES))
    return root


class Hand(Piped):
    """An agent that takes part with a destination of its own."""

    def __init__(self, python: str, name: str, folder: Path) -> None:
        super().__init__(interpreter(python))
        self.name = name
        self.place = folder / name / "tree"
        self.place.parent.mkdir()

    def enlist(self) -> None:
        """Prepare, listen and join; `where` is how others find it."""
        about = {"avoid": None, "source": "/shared/nasty", "executable": False, "replace": False, "public": True}
        self.prepare(dst=str(self.place), run=RUN, files=200, bytes=10**8, allocated=10**8, **about)
        self.where = self.ask("listen", name=self.name, address=HERE, secret=SECRET.hex(), stall=STALL, private=True)
        assert (self.where["name"], self.where["address"]) == (self.name, HERE)
        self.ask("join")

    def finish(self, taken: ManifestSummary) -> None:
        """Wait for all of it, verify and publish."""
        found = taken.survey
        expected = {"version": found.version, "files": found.files, "bytes": found.bytes}
        self.ask("publish", expected=expected, receipt={"source": "nasty"}, executable=False, trial=None, streamed=True)


@pytest.fixture
def hands() -> Iterator[Callable[..., Hand]]:
    """Make agents, which are ended after the test."""
    made: list[Hand] = []

    def make(python: str, name: str, folder: Path) -> Hand:
        made.append(hand := Hand(python, name, folder))
        return hand

    yield make
    for hand in made:
        hand.close()


class Root:
    """The launching host's end: a feed, and those it serves."""

    def __init__(self, source: Path, kind: int = ZSTD, limit: int = CHUNK) -> None:
        self.again = ReplayReader(os.fsencode(source), lambda: None)
        self.feed = StreamSender(SECRET, Codec(), kind, self.again.read, limit)
        self.intake = EntryTee((self.feed,))
        self.source = source
        self.events: list[Event] = []
        self.serving: list[Downstream] = []

    def serve(self, hand: Hand, serial: int, ring: ChunkBuffer | None = None) -> None:
        """Send what is fed, or what another ring has."""
        hand.ask("expect", parent="root", serial=serial, chunks=[])
        ring = self.feed.ring if ring is None else ring
        self.serving.append(
            Downstream(ring, SECRET, "root", serial, PeerAddress.from_json(hand.where), STALL, self.events.append)
        )

    def read(self) -> None:
        feed_tree(os.fsencode(self.source), self.intake, CancelToken())
        self.taken = self.intake.end()

    def close(self) -> None:
        for downstream in self.serving:
            downstream.release()
        self.feed.close()
        self.again.close()


@pytest.fixture
def root(nasty: Path) -> Iterator[Root]:
    with contextlib.closing(Root(nasty)) as found:
        yield found


@every_python
def test_it_lands_a_nasty_tree_and_passes_it_on_meanwhile(
    python: str, hands: Callable[..., Hand], root: Root, nasty: Path, tmp_path: Path
) -> None:
    first, second = hands(python, "first", tmp_path), hands(python, "second", tmp_path)
    for hand in (first, second):
        hand.enlist()
    root.feed.kind = min(Codec().best, first.where["codec"], second.where["codec"])
    second.ask("expect", parent="first", serial=2, chunks=[])
    first.ask("serve", serial=2, to=second.where)
    root.serve(first, 1)
    root.read()
    for hand in (first, second):
        hand.finish(root.taken)
        assert compare_trees(nasty, hand.place, but=OWN_FILES) == []
    assert root.events == [ServingEvent(serial=1, how="tcp")]
    for hand in (first, second):
        assert {"at", "whole"} <= {event["stream"] for event in hand.events}
        assert hand.hang_up() == 0
        assert os.listdir(hand.place.parent) == ["tree"]


@pytest.mark.parametrize(("python", "kind"), [(VERSIONS[0], ZLIB), (SYSTEM, PLAIN), (VERSIONS[-1], ZSTD)])
def test_it_serves_from_its_disk_whoever_comes_later_and_goes_on_from_the_position_of_that(
    python: str, kind: int, hands: Callable[..., Hand], heavy: Path, tmp_path: Path
) -> None:
    first, second = hands(python, "first", tmp_path), hands(python, "second", tmp_path)
    with contextlib.closing(Root(heavy, kind, chunks.CONTENT_LIMIT)) as root:
        for hand in (first, second):
            hand.enlist()
        root.serve(first, 1)
        root.read()
        first.finish(root.taken)
        total = root.feed.ring.total
        assert total is not None
        half = ChunkBuffer(root.feed.log.rebuild_frame)  # of somebody who knows no more, and then is gone
        for number in range(total // 2):
            half.put(number, root.feed.log.rebuild_frame(number))
        root.serve(second, 2, half)
        wait_until(lambda: max(list(half.cursors.values()), default=0) == total // 2)
        root.serving[1].release()
        second.ask("expect", parent="first", serial=3, chunks=[])
        first.ask("serve", serial=3, to=second.where)
        second.finish(root.taken)
    assert compare_trees(heavy, second.place, but=OWN_FILES) == []


@every_python
def test_who_knows_the_secret_takes_over(python: str, hands: Callable[..., Hand], tmp_path: Path) -> None:
    hand = hands(python, "node", tmp_path)
    hand.enlist()

    async def take_over() -> None:
        session = await ListenRequest(SECRET, "this host", STALL).accept(
            Node("node", HERE, "node"), PeerAddress.from_json(hand.where)
        )
        assert session.host.python == hand.hello["python"]
        assert await session.ask(HeartbeatRequest(), attached=bytes(2_000_000)) == Done()
        assert await session.ask(LookRequest(dst=str(hand.place))) == LookAnswer(standing=None)
        await session.close()

    asyncio.run(take_over())
    hand.process.wait(DEADLINE)
    assert os.listdir(hand.place.parent) == []


def test_what_is_not_the_tree_that_was_fed_is_not_published(
    hands: Callable[..., Hand], root: Root, tmp_path: Path
) -> None:
    hand = hands(SYSTEM, "node", tmp_path)
    hand.enlist()
    root.serve(hand, 1)
    root.read()
    expected = {"version": "0" * 64, "files": None, "bytes": None}
    with pytest.raises(Refused, match="verify-failed"):
        hand.ask("publish", expected=expected, receipt={}, executable=False, trial=None, streamed=True)
    assert hand.hang_up() == 0
    assert os.listdir(hand.place.parent) == []
