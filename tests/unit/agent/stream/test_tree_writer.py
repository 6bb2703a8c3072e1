"""From a source through the feed, the ring and two ends of a connection into another tree: the very same."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ezpz.agent.common import layout, tree_version, wire_paths
from ezpz.agent.common.cancel import NEVER, Cancelled, CancelToken
from ezpz.agent.common.messages.events import AdvancedEvent, Event, PositionEvent, ReceivedEvent
from ezpz.agent.common.messages.requests import ExpectRequest, ListeningRequest, PrepareRequest
from ezpz.agent.destination.deployment import Deployment
from ezpz.agent.stream import chunks, frames
from ezpz.agent.stream.chunk_buffer import MAX_BYTES, ChunkBuffer
from ezpz.agent.stream.chunk_entry import ChunkEntry
from ezpz.agent.stream.chunk_index import ChunkIndex
from ezpz.agent.stream.codec import ZLIB, ZSTD, Codec
from ezpz.agent.stream.connection import Connection, Listener, MessageChannel, connect, dial
from ezpz.agent.stream.receiver import StreamReceiver
from ezpz.agent.stream.relay import Downstream, reason_of
from ezpz.yeet.engines.stream.sender import NOTHING, StreamSender
from ezpz.yeet.model.entry import Entry
from ezpz.yeet.pipeline.replay import ReplayReader, feed_tree
from ezpz.yeet.transfer.entry_tee import EntryTee
from tests.contract.node import KEY, SECRET, Node, facts
from tests.lab.nasty import nasty_tree
from tests.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ezpz.yeet.engines.base import RemoteFiles
    from ezpz.yeet.transfer.manifest_builder import ManifestSummary

FEEDS: list[StreamSender] = []

REQUEST = PrepareRequest(dst="/dst", run="", bytes=0, allocated=0, files=0)
LISTEN = ListeningRequest(secret=SECRET.hex(), stall=2.0)


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    root = tmp_path / "nasty"
    nasty_tree(root)
    times = (root / "specials").stat()
    for special in ("fifo", "socket"):
        (root / "specials" / special).unlink()
    os.utime(root / "specials", ns=(times.st_atime_ns, times.st_mtime_ns))
    return root


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    made: list[Node] = []
    yield made
    for node in made:
        node.close()


@pytest.fixture(autouse=True)
def feeds() -> Iterator[list[StreamSender]]:
    """What is fed in a test, to be closed after it."""
    yield FEEDS
    while FEEDS:
        FEEDS.pop().close()


class Fed(StreamSender):
    """A feed, and what an intake took for it."""

    taken: ManifestSummary


def fed(root: Path, kind: int = ZSTD, limit: int = 10_000, base: RemoteFiles = NOTHING) -> Fed:
    again = ReplayReader(os.fsencode(root), lambda: None)
    feed = Fed(SECRET, Codec(), kind, again.read, limit, base=base)
    FEEDS.append(feed)
    with contextlib.closing(EntryTee((feed,))) as intake:
        feed_tree(os.fsencode(root), intake, CancelToken())
        feed.taken = intake.end()
    return feed


@pytest.mark.parametrize("threads", [0, 1, 4])
@pytest.mark.parametrize("kind", [ZLIB, ZSTD])
def test_a_nasty_tree_arrives_as_it_is(tmp_path: Path, nasty: Path, nodes: list[Node], threads: int, kind: int) -> None:
    feed = fed(nasty, kind)
    nodes.append(node := Node(tmp_path / "node", threads))
    node.from_(feed.ring)
    node.finish()
    assert facts(node.root) == facts(nasty)
    assert node.writer.find_damaged(NEVER) == []
    assert (
        tree_version.summarize(os.fsencode(node.root))
        == feed.taken.survey
        == tree_version.summarize(os.fsencode(nasty))
    )


def test_a_node_that_has_landed_it_serves_another(tmp_path: Path, nasty: Path, nodes: list[Node]) -> None:
    feed = fed(nasty)
    nodes += [first := Node(tmp_path / "first"), second := Node(tmp_path / "second")]
    first.from_(feed.ring)
    first.finish()
    first.ring.frames.clear()  # all of it comes from the disk again
    second.from_(first.ring)
    second.finish()
    assert facts(second.root) == facts(nasty)


def test_a_child_goes_on_from_where_it_is(tmp_path: Path, nasty: Path, nodes: list[Node]) -> None:
    feed = fed(nasty)
    nodes.append(node := Node(tmp_path / "node"))
    total, feed.ring.total = feed.ring.total, None
    assert total is not None
    half = ChunkBuffer(feed.log.rebuild_frame)
    for number in range(total // 2):
        half.put(number, feed.ring.frames[number])
    node.from_(half)
    wait_until(lambda: node.ring.next == total // 2)
    feed.ring.total = total
    node.from_(feed.ring, serial=2)
    node.finish()
    assert facts(node.root) == facts(nasty)


def test_a_flipped_bit_on_the_disk_is_found_and_mended(tmp_path: Path, nasty: Path, nodes: list[Node]) -> None:
    (nasty / "victim").write_bytes(b"x" * 25_000)  # three chunks
    feed = fed(nasty)
    nodes.append(node := Node(tmp_path / "node"))
    node.from_(feed.ring)
    node.finish()
    with (node.root / "victim").open("r+b") as file:
        file.seek(12_000)
        file.write(b"y")
    damaged = node.writer.find_damaged(NEVER)
    assert len(damaged) == 1
    node.writer.staged.make_writable()
    node.from_(feed.ring, tuple(damaged), serial=2)
    wait_until(lambda: (node.root / "victim").read_bytes() == b"x" * 25_000)
    node.finish()
    assert node.writer.find_damaged(NEVER) == []
    assert facts(node.root) == facts(nasty)


def test_what_comes_after_a_barrier_takes_the_place_of_what_came_before(tmp_path: Path, nodes: list[Node]) -> None:
    sent = StreamSender(SECRET, Codec(), ZSTD, lambda *_: b"", limit=1000)
    FEEDS.append(sent)
    feed = EntryTee((sent,))
    large, new = b"2" * 5000, bytes(range(250)) * 10
    feed.directory(b"folder", 0o755, 10**18)
    for name, data in ((b"stays", b"1"), (b"changes", large), (b"goes", b"3"), (b"folder/goes", b"4"), (b"link", b"5")):
        feed.file(Entry(name, 0o100644, 10**18, len(data)), data)
    feed.hard_link(b"linked", b"link")
    feed.barrier()
    for name in (b"changes", b"goes", b"folder/goes", b"folder", b"linked"):
        feed.remove(name)
    feed.file(Entry(b"changes", 0o100600, 10**18, len(new)), new)  # in three pieces
    feed.file(Entry(b"linked", 0o100600, 10**18, 3), b"own")
    feed.directory(b"", 0o700, 10**18)
    feed.directory(b"", 0o755, 10**18)  # the last word on a folder counts
    taken = feed.end()
    feed.close()
    nodes.append(node := Node(tmp_path / "node", 4))
    node.from_(sent.ring)
    node.finish()
    landed = {path.name: path.read_bytes() for path in node.root.iterdir()}
    del landed[os.fsdecode(layout.MANIFEST)]
    assert landed == {
        "stays": b"1", "changes": new, "link": b"5", "linked": b"own",
    }  # fmt: skip
    assert node.root.stat().st_mode & 0o777 == 0o755
    assert node.writer.find_damaged(NEVER) == []
    assert taken.survey == tree_version.summarize(os.fsencode(node.root))
    for number in node.log.numbers():  # and any of it can be passed on from the disk
        frame = node.log.rebuild_frame(number)
        sent.ring.frames[number] = frame
    nodes.append(other := Node(tmp_path / "other"))
    other.from_(sent.ring)
    other.finish()
    assert facts(other.root) == facts(node.root)


def test_a_chunk_is_made_again_as_long_as_it_was_though_a_file_has_changed_since(tmp_path: Path) -> None:
    read = [b"12345"]
    log = ChunkIndex(os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT), Codec(), KEY, lambda *_: read[0])
    _, payload = chunks.pack([ChunkEntry("f", b"file", 0o644, 0, 5, "0" * 64, 0, 5)], b"12345", Codec(), ZSTD, 1)
    list_kind, packed, _ = chunks.split(memoryview(payload))
    log.add(0, list_kind, packed, 0)
    sound = log.rebuild_frame(0)
    for data in (b"123", b"1234567"):
        read[0] = data
        assert len(log.rebuild_frame(0)) == len(sound)
    log.close()


def test_a_chunk_that_lies_about_its_content_is_a_failure(tmp_path: Path, nodes: list[Node]) -> None:
    nodes.append(node := Node(tmp_path / "node"))
    entry = ChunkEntry("f", b"file", 0o644, 0, 9, "0" * 64, 0, 9)
    kind, payload = chunks.pack([entry], b"four", Codec(), ZSTD, 1)
    raw = bytearray(frames.encode_frame(KEY, frames.CHUNK, 0, payload, kind))
    node.writer.put(frames.Frame(frames.CHUNK, kind, 0, 0, memoryview(payload), raw))
    wait_until(lambda: bool(node.failures))
    assert isinstance(node.failures[0], wire_paths.ProtocolError)


class TestRing:
    def test_what_is_not_landed_stays_and_makes_others_wait(self) -> None:
        ring = ChunkBuffer(lambda number: b"again %d" % number)
        ring.put(0, bytes(MAX_BYTES + 1))
        waiting = threading.Thread(target=lambda: ring.put(1, b"next"), daemon=True)
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        ring.mark_written(0)
        waiting.join(DEADLINE)
        assert not waiting.is_alive()
        assert ring.get(0, "child", 0.0) == b"again 0"
        assert ring.get(1, "child", 0.0) == b"next"

    def test_a_child_that_is_stuck_stops_nobody_for_long(self) -> None:
        ring = ChunkBuffer(lambda number: b"again %d" % number)
        ring.put(0, bytes(MAX_BYTES + 1))
        ring.mark_written(0)
        ring.get(0, "stuck", 0.0)
        ring.put(1, b"next")
        assert ring.get(1, "child", 0.0) == b"next"

    def test_the_end_and_giving_up(self) -> None:
        ring = ChunkBuffer(lambda _: b"")
        assert ring.get(0, "child", 0.0) is None
        ring.end(0)
        assert ring.get(0, "child", 0.0) == b""
        ring.cancel_all()
        with pytest.raises(Cancelled):
            ring.get(0, "child", 0.0)


def test_a_part_that_is_closed_writes_nothing_any_more(tmp_path: Path, nasty: Path) -> None:
    """Its staging is removed next, and a folder in which something appears meanwhile would stay."""
    writing, wrote = threading.Event(), threading.Event()

    def say(event: Event) -> None:
        if isinstance(event, PositionEvent):
            writing.set()
            wrote.wait(0.5)
            wrote.set()

    landing = Deployment(os.fsencode(tmp_path / "dst"), "20261129-000000-00000000")
    landing.prepare(REQUEST)
    part = StreamReceiver(LISTEN, "child", "127.0.0.1", lambda _: None, say)
    part.join(landing)
    part.expect(ExpectRequest(parent="parent", serial=1))
    sending = Downstream(fed(nasty).ring, SECRET, "parent", 1, part.where, 2.0, lambda _: None)
    assert writing.wait(DEADLINE)
    part.close()
    assert wrote.is_set()
    landing.close()
    sending.release()
    assert list(tmp_path.glob(".dst*")) == []


def test_reading_back_is_reported_as_progress(tmp_path: Path, nasty: Path) -> None:
    landing = Deployment(os.fsencode(tmp_path / "dst"), "20261129-000000-00000001")
    landing.prepare(REQUEST)
    said: list[Event] = []
    part = StreamReceiver(LISTEN, "child", "127.0.0.1", lambda _: None, said.append)
    part.join(landing)
    part.expect(ExpectRequest(parent="parent", serial=1))
    sending = Downstream(fed(nasty).ring, SECRET, "parent", 1, part.where, 2.0, lambda _: None)
    part.wait_until_written(NEVER)
    part.close()
    landing.close()
    sending.release()
    assert said[-2:] == [AdvancedEvent(), ReceivedEvent()]


class TestStrangers:
    def listener(self, arrived: list[Connection]) -> Listener:
        return Listener("127.0.0.1", SECRET, lambda facts: {"hello": facts["from"]}, arrived.append)

    def test_who_knows_the_secret_gets_in_though_strangers_hang_about(self) -> None:
        arrived: list[Connection] = []
        listener = self.listener(arrived)
        strangers = [socket.create_connection((listener.address, listener.port)) for _ in range(40)]
        for stranger in strangers[::2]:
            stranger.sendall(secrets.token_bytes(200))
        found = dial(connect("127.0.0.1", listener.port, 5.0), SECRET, {"from": "us"})
        assert found.facts == {"hello": "us"}
        wait_until(lambda: len(arrived) == 1)
        for stranger in strangers:
            stranger.close()
        listener.close()

    def test_a_wrong_secret_and_a_recorded_conversation_are_turned_away(self) -> None:
        arrived: list[Connection] = []
        listener = self.listener(arrived)
        with pytest.raises((EOFError, OSError, frames.FrameError)):
            dial(connect("127.0.0.1", listener.port, 5.0), b"wrong" * 7, {"from": "us"})
        recorded: list[bytes] = []

        class Recorder:
            """A socket that keeps what is sent."""

            def __init__(self, sock: socket.socket) -> None:
                self.sock = sock

            def sendall(self, data: bytes) -> None:
                recorded.append(data)
                self.sock.sendall(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.sock, name)

        dial(Recorder(connect("127.0.0.1", listener.port, 5.0)), SECRET, {"from": "us"})  # type: ignore[arg-type]
        replay = connect("127.0.0.1", listener.port, 5.0)
        replay.sendall(b"".join(recorded))
        replay.settimeout(5.0)
        start = replay.recv(37)
        assert start.startswith(frames.MAGIC)
        assert replay.recv(1) == b""
        assert len(arrived) == 1
        listener.close()

    def test_who_takes_nothing_is_told_so_in_words(self) -> None:
        ours, theirs = socket.socketpair()
        link = Connection(ours, {}, b"n" * 64)
        link.limit(1)
        with pytest.raises(OSError, match=r"^it took nothing for 1 s$"):
            link.send(b"x" * 50_000_000)
        theirs.close()
        with pytest.raises(OSError, match="Broken pipe") as broken:
            link.send(b"x")
        assert reason_of(broken.value, "") == "Broken pipe"
        assert reason_of(EOFError(), "the connection was closed") == "the connection was closed"

    def test_a_line_carries_large_messages_both_ways_and_ends_when_one_is_tampered_with(self) -> None:
        ours, theirs = socket.socketpair()
        a = MessageChannel(Connection(ours, {}, b"n" * 64), SECRET, "one", "other")
        b = MessageChannel(Connection(theirs, {}, b"n" * 64), SECRET, "other", "one")
        for link in (a.link, b.link):
            link.limit(0)
        text = b"x" * 2_000_000 + b"\n"
        threading.Thread(target=a.write, args=(text,), daemon=True).start()
        assert b.readline() == text
        b.write(b"answer\n")
        assert a.readline() == b"answer\n"
        ours.sendall(frames.encode_frame(b"k" * 32, frames.MESSAGE, 2, b"mischief\n"))
        assert b.readline() == b""
