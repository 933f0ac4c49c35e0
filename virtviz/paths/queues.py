"""Rings of slots: the bounded first-in-first-out queues between two parties of the host or the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells

if TYPE_CHECKING:
    from virtviz.engine.state import State


@cells
class FifoCells(Cells):
    """What a queue keeps: entries ever put in, entries ever taken out, the entries by slot."""

    put: int = 0
    taken: int = 0
    slots: list[int]


class Fifo:
    """A bounded queue of numbers (packet slots, kinds of work).

    Args:
        state: where its cells are made.
        name: such as `tap0.queue`.
        capacity: entries it holds.
    """

    def __init__(self, state: State, name: str, capacity: int) -> None:
        self.name = name
        self.capacity = capacity
        self.cells = state.add(FifoCells, name, slots=[0] * capacity)

    def __len__(self) -> int:
        return self.cells.put - self.cells.taken

    @property
    def is_full(self) -> bool:
        """Whether another entry would not fit."""
        return self.cells.put - self.cells.taken == self.capacity

    def put(self, entry: int) -> bool:
        """Add an entry at the end; answers False, changing nothing, if it is full."""
        mine = self.cells
        count = mine.put
        if count - mine.taken == self.capacity:
            return False
        mine.slots[count % self.capacity] = entry
        mine.put = count + 1
        return True

    def take(self) -> int:
        """Take the first entry; the queue must not be empty."""
        mine = self.cells
        taken = mine.taken
        mine.taken = taken + 1
        return mine.slots[taken % self.capacity]

    def untake(self, entry: int) -> bool:
        """Put an entry back that was taken, before all others; answers False, changing nothing, if it is full."""
        mine = self.cells
        taken = mine.taken
        if mine.put - taken == self.capacity:
            return False
        mine.taken = taken = taken - 1
        mine.slots[taken % self.capacity] = entry
        return True

    def first(self) -> int:
        """Give the first entry, 0 if there is none."""
        mine = self.cells
        return mine.slots[mine.taken % self.capacity] if mine.put != mine.taken else 0

    def entry(self, index: int) -> int:
        """Give the entry behind `index` others; there must be so many."""
        mine = self.cells
        return mine.slots[(mine.taken + index) % self.capacity]
