"""The timeline: the steps of one run, checkpoints, and a window with what each step overwrote.

The rows (thread and arc, three bytes a step) cover everything. The window covers the stretch behind the present
position, as far as somebody has stepped through it; taking steps back reads it. Where it does not reach, it is made
again from the checkpoint before: the machine is deterministic, so running the same steps again overwrites the same
things.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from msgspec import Struct, field

from virtviz.engine.journal import KIND, ROW, Journal

if TYPE_CHECKING:
    from virtviz.engine.state import Snapshot

CHECKPOINT_STEPS = 16384
"""Steps between checkpoints: a jump repeats at most this many steps. Half as many would be felt by nobody, and double
what checkpoints take up and cost."""


class Checkpoint(Struct):
    """The whole machine at one position."""

    position: int
    snapshot: Snapshot
    stands: tuple[tuple[int, tuple[int, ...]], ...]
    """For each thread, the op it does next and its stack."""
    hits: array[int]
    current: int


class Future(Struct):
    """What came after a position on a branch that was left, so that it can be put back."""

    start: int
    arcs: array[int]
    threads: array[int]
    checkpoints: list[Checkpoint]


class Timeline(Struct):
    """The past of one branch.

    Attributes:
        journal: the window: everything that the steps from `window_start` on overwrote and read.
        arcs, threads: the rows, a step each.
        checkpoints: in order of position.
        window_start, window_end: positions at which the window begins and ends.
        ends: for each step of the window that has been indexed, the journal word behind its row.
    """

    journal: Journal
    arcs: array[int] = field(default_factory=lambda: array("H"))
    threads: array[int] = field(default_factory=lambda: array("B"))
    checkpoints: list[Checkpoint] = field(default_factory=list)
    window_start: int = 0
    window_end: int = 0
    ends: array[int] = field(default_factory=lambda: array("Q"))

    def __len__(self) -> int:
        return len(self.arcs)

    def entries_of(self, step: int) -> array[int]:
        """Give the window's words of a step (counted from 0), its row at the end included."""
        start = self.ends[-1] if self.ends else 0
        words = self.journal.packed[start::2]
        self.ends.extend([start + 2 * i + 2 for i, word in enumerate(words) if word & KIND == ROW])
        at = step - self.window_start
        return self.journal.packed[self.ends[at - 1] if at else 0 : self.ends[at]]

    def clear_window(self, position: int) -> None:
        """Let the window begin at a position, empty."""
        self.journal.clear()
        del self.ends[:]
        self.window_start = self.window_end = position

    def cut_window(self, position: int, word_at: int, blob_at: int) -> None:
        """Take away what the window holds after a position, up to which it has so many words and bytes."""
        self.window_end = position
        del self.ends[position - self.window_start :]
        del self.journal.packed[word_at:]
        del self.journal.blobs[blob_at:]

    def checkpoint_before(self, position: int) -> Checkpoint | None:
        """Give the last checkpoint at or before a position."""
        return next((c for c in reversed(self.checkpoints) if c.position <= position), None)

    def cut(self, position: int) -> Future:
        """Take away and return the rows and checkpoints after a position."""
        kept = [c for c in self.checkpoints if c.position <= position]
        future = Future(position, self.arcs[position:], self.threads[position:], self.checkpoints[len(kept) :])
        del self.arcs[position:]
        del self.threads[position:]
        self.checkpoints = kept
        return future

    def put_back(self, future: Future) -> None:
        """Add a future that was cut off at the present end."""
        self.arcs.extend(future.arcs)
        self.threads.extend(future.threads)
        self.checkpoints += future.checkpoints
