"""The journal: one stream of integers that says what a stretch of steps overwrote and read.

An entry is two unsigned 64-bit words, `where` and a value. Most entries note what a store overwrote, so that it can be
put back; each step ends with a row, which says which thread took which arc. Reads are in the stream too, so that a step
can also say what it looked at.

    kind (low 3 bits)   the rest of `where`                         the value
    0 cell              cell number                                 the old value
    1 store of a word   half its address                            the old value
    2 write of bytes    address                                     the length; the old bytes are in `blobs`
    3 load of a word    half its address                            the value read
    4 read of a record  address                                     the length
    5 row               thread in 8 bits above, arc in 16 bits      the thread's clock before the step

Addresses here count all regions of a machine in one row. The first word stays below 2**30 for machines of up to 32 MiB,
which makes it a small integer for Python, and quick to make.
"""

from __future__ import annotations

from array import array
from typing import Final

CELL: Final = 0
STORE: Final = 1
SLICE: Final = 2
LOAD: Final = 3
RECORD: Final = 4
ROW: Final = 5

KIND: Final = 7
"""Mask of the kind."""


def cell_word(number: int) -> int:
    """Make the first word of an entry about a cell."""
    return number << 3 | CELL


def row_word(thread: int, arc: int) -> int:
    """Make the first word of a row."""
    return thread << 19 | arc << 3 | ROW


def thread_and_arc(word: int) -> tuple[int, int]:
    """Take a row's first word apart."""
    return word >> 19, word >> 3 & 0xFFFF


class Journal:
    """A growing list of entries; `tail` takes new ones and is packed into `packed` now and then.

    Appending to a plain list and packing in bulk is about twice as fast as appending to an `array` one by one, and
    keeps no object references: an entry is 16 bytes.
    """

    def __init__(self) -> None:
        self.packed: array[int] = array("Q")
        self.tail: list[int] = []
        self.blobs = bytearray()

    def pack(self) -> None:
        """Move the tail into the packed part."""
        self.packed.extend(self.tail)
        self.tail.clear()

    def clear(self) -> None:
        """Forget everything."""
        del self.packed[:]
        del self.blobs[:]
        self.tail.clear()
