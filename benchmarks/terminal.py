"""A terminal of 80 by 24 without a window: a pseudo-terminal, and enough of an emulator to know what it shows.

A program under measurement runs as its users run it, and cannot tell the difference. The terminal says that it knows
synchronized output (DEC private mode 2026), as the terminals of today do; so the end of a frame can be seen in the
bytes.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

COLUMNS: Final = 80
ROWS: Final = 24
ROOT: Final = Path(__file__).resolve().parent.parent
PATIENCE: Final = 20.0
"""Seconds after which a program that shows nothing is given up."""

_ASKED_AND_ANSWER: Final = {
    b"\x1b[?2026$p": b"\x1b[?2026;2$y",
    b"\x1b[?2048$p": b"\x1b[?2048;0$y",
    b"\x1b[6n": b"\x1b[1;1R",
    b"\x1b[c": b"\x1b[?62;22c",
}
FRAME_END: Final = b"\x1b[?2026l"
_SEQUENCE: Final = re.compile(
    r"\x1b\[([0-9;?<>=:]*)([ -/]*)([@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[P_^X][^\x1b]*\x1b\\"
    r"|\x1b(?![\[\]P_^X])[ -/]*[0-~]|[\x00-\x1a\x1c-\x1f\x7f]"
)


class TerminalError(Exception):
    """A program did not do what was waited for."""


class Screen:
    """What is on the screen: for each cell its character and its style (the SGR sequence that set it)."""

    def __init__(self) -> None:
        self.characters = [[" "] * COLUMNS for _ in range(ROWS)]
        self.styles = [[""] * COLUMNS for _ in range(ROWS)]
        self.row = self.column = 0
        self.style = ""
        self._rest = ""

    def feed(self, text: str) -> None:
        """Take what a program writes."""
        text = self._rest + text
        at = 0
        for found in _SEQUENCE.finditer(text):
            self._put(text[at : found.start()])
            self._obey(found)
            at = found.end()
        rest = text[at:]
        cut = rest.find("\x1b")
        self._rest = "" if cut < 0 else rest[cut:]
        self._put(rest if cut < 0 else rest[:cut])

    def lines(self) -> list[str]:
        """Give the screen as text."""
        return ["".join(row) for row in self.characters]

    def _put(self, text: str) -> None:
        for character in text:
            if self.row < ROWS and self.column < COLUMNS:
                self.characters[self.row][self.column] = character
                self.styles[self.row][self.column] = self.style
            self.column += 1

    def _obey(self, found: re.Match[str]) -> None:
        sequence = found[0]
        if sequence == "\r":
            self.column = 0
        elif sequence == "\n":
            self.row = min(self.row + 1, ROWS - 1)
        elif found[3] == "m":
            self.style = (
                "" if found[1] in ("", "0") else sequence if found[1].startswith("0;") else self.style + sequence
            )
        elif found[3] in ("H", "f"):
            row, _, column = found[1].partition(";")
            self.row, self.column = int(row or 1) - 1, int(column or 1) - 1
        elif found[3] in ("A", "B", "C", "D"):
            by = int(found[1] or 1)
            self.row += by * {"A": -1, "B": 1}.get(found[3], 0)
            self.column += by * {"C": 1, "D": -1}.get(found[3], 0)
        elif found[3] == "J" and found[1] in ("2", "3"):
            self.characters = [[" "] * COLUMNS for _ in range(ROWS)]
            self.styles = [[""] * COLUMNS for _ in range(ROWS)]
        elif found[3] == "K":
            self.characters[self.row][self.column :] = [" "] * (COLUMNS - self.column)
            self.styles[self.row][self.column :] = [""] * (COLUMNS - self.column)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes that came at once, and when."""

    when: float
    data: bytes


class Terminal:
    """A program in a terminal of its own.

    Args:
        command: the program and its arguments, run from the repository's root.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.screen = Screen()
        self.chunks: list[Chunk] = []
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._home = tempfile.TemporaryDirectory()

    def __enter__(self) -> Self:
        controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        home = self._home.name
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV") if name in os.environ}
        environment = {**kept, "TERM": "xterm-256color", "COLORTERM": "truecolor", "HOME": home, "LC_ALL": "C.UTF-8"}
        self.started = perf_counter()
        self._process = subprocess.Popen(
            self.command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
        )
        os.close(terminal)
        self._controller = controller
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        os.close(self._controller)
        self._home.cleanup()

    def send(self, keys: str) -> float:
        """Press keys; answers when."""
        when = perf_counter()
        os.write(self._controller, keys.encode())
        return when

    def read(self, timeout: float) -> Chunk | None:
        """Take what the program writes next; None if it writes nothing in so many seconds."""
        ready, _, _ = select.select([self._controller], [], [], timeout)
        if not ready:
            return None
        try:
            data = os.read(self._controller, 65536)
        except OSError:  # the program has ended
            data = b""
        if not data:
            raise TerminalError(f"{' '.join(self.command)} ended:\n" + "\n".join(self.screen.lines()).rstrip())
        chunk = Chunk(perf_counter(), data)
        self.chunks.append(chunk)
        for asked, answer in _ASKED_AND_ANSWER.items():
            if asked in data:
                os.write(self._controller, answer)
        self.screen.feed(self._decode(data))
        return chunk

    def settle(self, quiet: float = 0.15) -> list[Chunk]:
        """Read until nothing has come for so many seconds; answers what came."""
        begin = len(self.chunks)
        while self.read(quiet) is not None:
            pass
        return self.chunks[begin:]

    def press(self, keys: str, quiet: float) -> tuple[float, list[Chunk]]:
        """Press keys and read what comes of it, until nothing has come for so many seconds.

        Returns:
            Seconds to the first byte, and everything that came.

        Raises:
            TerminalError: nothing comes of it.
        """
        pressed, begin = self.send(keys), len(self.chunks)
        if self.read(PATIENCE) is None:
            raise TerminalError(f"{' '.join(self.command)} does not answer {keys!r}")
        self.settle(quiet)
        return self.chunks[begin].when - pressed, self.chunks[begin:]

    def read_for(self, seconds: float) -> int:
        """Read for some time; answers how many bytes came."""
        end, total = perf_counter() + seconds, 0
        while (left := end - perf_counter()) > 0:
            chunk = self.read(left)
            total += len(chunk.data) if chunk else 0
        return total

    def wait_for(self, seen: Callable[[list[str]], bool]) -> float:
        """Read until the screen shows something; answers when the last byte of it came.

        Raises:
            TerminalError: it does not within a reasonable time.
        """
        end = perf_counter() + PATIENCE
        while perf_counter() < end:
            chunk = self.read(end - perf_counter())
            if chunk is not None and seen(self.screen.lines()):
                return chunk.when
        raise TerminalError(f"{' '.join(self.command)} shows:\n" + "\n".join(self.screen.lines()).rstrip())
