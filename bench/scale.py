"""A chart of the duration of a stream from 8 to 8,192 nodes, with published figures of others, as SVG."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.fluid import World

COUNTS = tuple(2**power for power in range(3, 14))
RUNS = 5  # seeds for every count; the line shows the worst
RSYNC = (
    (8, 69.7), (64, 91.2), (128, 110.4), (256, 132.9), (512, 174.5), (1024, 255.4), (2048, 421.4), (4096, 750.6),
)  # fmt: skip

WIDTH, HEIGHT = 880, 600
LEFT, RIGHT, TOP, BOTTOM = 70, 850, 76, 460
FASTEST, SLOWEST = 5.0, 1000.0  # seconds at the two ends of the axis
SECONDS = (5, 10, 20, 50, 100, 200, 500, 1000)
FONTS = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
INK, FAINT, GRID = "#1f2328", "#57606a", "#e4e7eb"
OURS, THEIRS, LIMIT = "#0a6ebd", "#b5480f", "#57606a"

Point = tuple[float, float]


def chart(world: World, measured: tuple[tuple[int, float, float], ...]) -> str:
    """Return the SVG; `measured`: number of nodes, and the seconds of the best and of the worst run."""
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONTS}" role="img">',
        f"<title>{_title(world)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 34, _title(world), size=18, weight=600),
        _text(LEFT, 56, "both axes are logarithmic; lower is better", color=FAINT),
        *_axes(),
        *_limits(world),
        *_rsync(),
        *_ours(world, measured),
        *_caption(world),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _title(world: World) -> str:
    return f"Seconds until the last node has {world.size / 1e9:g} GB"


def _x(count: float) -> float:
    share = math.log(count / COUNTS[0]) / math.log(COUNTS[-1] / COUNTS[0])
    return LEFT + share * (RIGHT - LEFT)


def _y(seconds: float) -> float:
    share = math.log(seconds / FASTEST) / math.log(SLOWEST / FASTEST)
    return BOTTOM - share * (BOTTOM - TOP)


def _axes() -> Iterator[str]:
    for seconds in SECONDS:
        y = _y(seconds)
        yield f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="{GRID}"/>'
        yield _text(LEFT - 8, y + 4, f"{seconds:,} s", color=FAINT, anchor="end")
    for count in COUNTS:
        x = _x(count)
        yield f'<path d="M{x:.1f} {BOTTOM}v5" stroke="{FAINT}"/>'
        yield _text(x, BOTTOM + 20, f"{count:,}", color=FAINT, anchor="middle")
    yield f'<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="{FAINT}"/>'
    yield _text((LEFT + RIGHT) / 2, BOTTOM + 40, "nodes", color=INK, anchor="middle")


def _limits(world: World) -> Iterator[str]:
    copy = world.size / world.rate
    tree = [(count, 2 * copy + math.log2(count) * world.chunk / world.rate) for count in COUNTS]
    yield _line([(COUNTS[0], copy), (COUNTS[-1], copy)], LIMIT, "6 4")
    yield _text(RIGHT, _y(copy) + 17, f"the limit: one copy, S/B = {copy:.0f} s", color=LIMIT, anchor="end")
    yield _line(tree, LIMIT, "2 4")
    what = f"a binary tree in which nobody dies, 2·S/B + log₂N·c/B = {tree[-1][1]:.0f} s"
    yield _text(RIGHT, _y(tree[-1][1]) + 17, what, color=LIMIT, anchor="end")


def _rsync() -> Iterator[str]:
    yield _line(RSYNC, THEIRS)
    yield from (_dot(count, seconds, THEIRS) for count, seconds in RSYNC)
    yield from (
        _text(_x(count) - 8, _y(seconds) - 9, f"{seconds:.0f} s", color=THEIRS, anchor="end")
        for count, seconds in RSYNC[1:]
    )
    yield _text(_x(8.5), _y(RSYNC[0][1]) - 84, "a greedy rsync tree, as published", color=THEIRS, weight=600)
    yield _text(_x(8.5), _y(RSYNC[0][1]) - 67, "measured; 91 + 0.161·N s from 128 nodes on", color=THEIRS)


def _ours(world: World, measured: tuple[tuple[int, float, float], ...]) -> Iterator[str]:
    worst = [(count, most) for count, _, most in measured]
    best = [(count, least) for count, least, _ in measured]
    edge = " ".join(f"{_x(count):.1f},{_y(seconds):.1f}" for count, seconds in [*worst, *reversed(best)])
    yield f'<polygon points="{edge}" fill="{OURS}" fill-opacity="0.15"/>'
    yield _line(worst, OURS)
    yield from (_dot(count, seconds, OURS) for count, seconds in worst)
    yield from (
        _text(_x(count), _y(seconds) - 11, f"{seconds:.0f} s", color=OURS, anchor="middle")
        for count, seconds in worst
        if count in (128, 512, 2048, 4096, 8192)
    )
    dying = f"{100 * world.dying:g} % of the nodes dying" if world.dying else "nobody dying"
    above = _y(worst[-1][1]) - 36
    yield _text(RIGHT, above - 17, "ezpz, the stream engine", color=OURS, weight=600, anchor="end")
    yield _text(RIGHT, above, f"simulated, {dying}; the worst of {RUNS} runs", color=OURS, anchor="end")


def _caption(world: World) -> Iterator[str]:
    network = f"{world.rate / 1e9:g} GB/s a node, {1000 * world.hop:g} ms a hop, {world.start:g} s to start a session"
    band = f"nobody dies among fewer than {_first_death(world)} nodes; half of the deaths are noticed only after"
    for number, line in enumerate((
        f"ezpz: python -m bench.simulate, its own decisions in a made-up network ({network}).",
        f"The band is best to worst; {band} {world.stall:g} s.",
        "rsync tree: saforem2/ezpz, docs/cli/yeet.md, measured on Aurora, a tarball of about 8 GB, 8 copies a source.",
        "A simulated stream beside whole runs on a real machine: the growth with N compares, the seconds only roughly.",
    )):  # fmt: skip
        yield _text(LEFT, BOTTOM + 72 + 17 * number, line, color=FAINT, size=12)


def _first_death(world: World) -> int:
    return next((count for count in range(1, COUNTS[-1]) if round(world.dying * count)), COUNTS[-1])


def _line(points: Iterable[Point], color: str, dashes: str = "") -> str:
    path = " ".join(f"{_x(count):.1f},{_y(seconds):.1f}" for count, seconds in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{1.5 if dashes else 2.5}"{dashed}/>'


def _dot(count: float, seconds: float, color: str) -> str:
    return f'<circle cx="{_x(count):.1f}" cy="{_y(seconds):.1f}" r="4" fill="{color}"/>'


def _text(
    x: float, y: float, text: str, *, color: str = INK, anchor: str = "start", size: int = 13, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}">{text}</text>'
    )
