"""The start-up rows: how long until a person sees something, and what the quick verbs must never load."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from benchmarks.table import Row, in_turns
from benchmarks.terminal import FRAME_END, ROOT, Terminal, TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

GROUP: Final = "start-up"
LESSON: Final = "3-vhost"
PLAYER: Final = (sys.executable, "-m", "virtviz", "lesson", LESSON)
STATIC_APP: Final = (sys.executable, "benchmarks/baselines/static_app.py")
FIRST_FRAME_MAX: Final = 1.25
NEVER: Final = ("textual", "networkx")
QUICK: Final = (("list",), ("run", LESSON, "--format", "table"), ("run", LESSON, "--counters"))


def rows(repetitions: int) -> Iterator[Row]:
    """Measure all of them. Each program is run once before, so that its byte code is there."""
    player, bare = _first_frame(PLAYER, shows_lesson), _first_frame(STATIC_APP, _shows_static)
    player()
    bare()
    measured, base, ratio = in_turns(player, bare, 2 * repetitions)
    yield Row(
        GROUP,
        "virtviz lesson, to the first frame",
        f"{measured * 1e3:.0f} ms",
        f"{base * 1e3:.0f} ms, a bare Textual app with one Static",
        f"{ratio:.2f}x",
        f"<= {FIRST_FRAME_MAX}x",
        ratio <= FIRST_FRAME_MAX,
    )
    for verb in QUICK:
        loaded = _loaded(verb)
        yield Row(
            GROUP,
            f"virtviz {' '.join(verb)}: modules of {' and '.join(NEVER)}",
            str(loaded),
            "-",
            "",
            "0",
            loaded == 0,
        )


def shows_lesson(lines: Sequence[str]) -> bool:
    """Say whether the player's first frame is on the screen, down to its last line."""
    return LESSON in lines[0] and bool(lines[-1].strip())


def _shows_static(lines: Sequence[str]) -> bool:
    return "ready" in lines[0]


def _first_frame(command: Sequence[str], seen: Callable[[Sequence[str]], bool]) -> Callable[[], float]:
    """Give a measurement: seconds from starting a program to the last byte of the first frame that shows something."""

    def measure() -> float:
        with Terminal(command) as terminal:
            complete = terminal.wait_for(lambda lines: FRAME_END in terminal.chunks[-1].data and seen(lines))
            return complete - terminal.started

    return measure


def _loaded(verb: Sequence[str]) -> int:
    """Count what a verb imports that it must not, in a process of its own."""
    names = ",".join(NEVER)
    program = (
        "import sys, atexit\n"
        f"def say(): print(sum(m.partition('.')[0] in {names.split(',')!r} for m in sys.modules), file=sys.stderr)\n"
        "atexit.register(say)\n"
        "from virtviz.cli import main\n"
        f"sys.exit(main({list(verb)!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ
    )
    said = done.stderr.strip().splitlines()
    if done.returncode or not said or not said[-1].isdecimal():
        raise TerminalError(f"virtviz {' '.join(verb)} failed:\n{done.stderr}")
    return int(said[-1])
