"""The screen rows: how much the player writes, and how soon it answers a key, in a terminal of 80 by 24.

The lesson is stepped from its beginning. Where a question stops the way it is answered (`0`, not sure yet), and the
bytes of that are not counted: what is measured is a step.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from statistics import mean, quantiles
from typing import TYPE_CHECKING, Final

from benchmarks.baselines.full_redraw import redrawn
from benchmarks.startup import PLAYER, shows_lesson
from benchmarks.table import Row
from benchmarks.terminal import Terminal, TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GROUP: Final = "screen"
KEY_APP: Final = (sys.executable, "benchmarks/baselines/key_app.py")
STEPS: Final = 60
PLAY_FRAMES: Final = 15
PLAY_SECONDS: Final = 6.0
QUIET: Final = 0.2
"""Seconds without a byte after which a step is over; while packets glide there are 15 frames a second."""
STEP_BYTES_MAX: Final = 1536
PLAY_BYTES_MAX: Final = 6144
ANSWER_MAX: Final = 2.0
_POSITION: Final = re.compile(r"step (\d+) of (\d+)")


def rows() -> Iterator[Row]:
    """Measure all of them."""
    with Terminal(PLAYER) as player, Terminal(KEY_APP) as bare:
        player.wait_for(shows_lesson)
        bare.wait_for(lambda lines: "step 0" in lines[0])
        player.settle()
        bare.settle()
        steps = [_step(player, bare) for _ in range(STEPS)]
        yield _bytes_a_step(steps)
        yield _answer(steps)
    with Terminal(PLAYER) as player:
        player.wait_for(shows_lesson)
        player.settle()
        yield _play(player)


@dataclass(frozen=True, slots=True)
class Step:
    """A step on the screen.

    Attributes:
        written: bytes it wrote.
        redrawn: bytes of drawing the same screen whole.
        answered: seconds from the key to the first byte.
        bare: the same of the bare application.
    """

    written: int
    redrawn: int
    answered: float
    bare: float


def position(terminal: Terminal) -> int:
    """Read from the screen which step it shows."""
    found = _POSITION.search(terminal.screen.lines()[0])
    if found is None:
        raise TerminalError("no step number on the screen:\n" + "\n".join(terminal.screen.lines()))
    return int(found[1])


def _step(player: Terminal, bare: Terminal) -> Step:
    """Take one step in both programs, in turns."""
    before = position(player)
    for _ in range(3):
        answered, chunks = player.press("n", QUIET)
        if position(player) == before + 1:
            break
        player.press("0", QUIET)
    else:
        raise TerminalError(f"step {before} is not followed by another:\n" + "\n".join(player.screen.lines()))
    written = sum(len(chunk.data) for chunk in chunks)
    return Step(written, len(redrawn(player.screen)), answered, bare.press("n", QUIET)[0])


def _bytes_a_step(steps: Sequence[Step]) -> Row:
    written, whole = mean(step.written for step in steps), mean(step.redrawn for step in steps)
    return Row(
        GROUP,
        f"bytes a step, mean of {len(steps)}",
        f"{written:,.0f} B, most {max(step.written for step in steps):,}",
        f"{whole:,.0f} B, naive full redraw",
        f"{written / whole:.2f}x",
        f"<= {STEP_BYTES_MAX:,} B",
        written <= STEP_BYTES_MAX,
    )


def _answer(steps: Sequence[Step]) -> Row:
    answered, bare = (quantiles(times, n=20)[-1] for times in ([s.answered for s in steps], [s.bare for s in steps]))
    return Row(
        GROUP,
        f"key to first byte, p95 of {len(steps)}",
        f"{answered * 1e3:.1f} ms",
        f"{bare * 1e3:.1f} ms, a bare Textual app that updates one Static",
        f"{answered / bare:.2f}x",
        f"<= {ANSWER_MAX:g}x",
        answered <= ANSWER_MAX * bare,
    )


def _play(player: Terminal) -> Row:
    """Play from the beginning until a question stops it or time is up."""
    begin = len(player.chunks)
    started = player.send("\r")
    player.read_for(PLAY_SECONDS)
    chunks = player.chunks[begin:]
    if not chunks or position(player) == 0:
        raise TerminalError("the player does not play:\n" + "\n".join(player.screen.lines()))
    seconds = chunks[-1].when - started
    a_second = sum(len(chunk.data) for chunk in chunks) / seconds
    whole = len(redrawn(player.screen)) * PLAY_FRAMES
    return Row(
        GROUP,
        f"bytes a second of play, {position(player)} steps in {seconds:.1f} s",
        f"{a_second:,.0f} B",
        f"{whole:,.0f} B, naive full redraw, {PLAY_FRAMES} frames/s",
        f"{a_second / whole:.3f}x",
        f"<= {PLAY_BYTES_MAX:,} B",
        a_second <= PLAY_BYTES_MAX,
    )
