"""The pieces of a buffer, as a device finds them: checked one by one, by the rules of whoever reads the ring.

The split and the packed device side share this; what differs between them is only where the descriptors come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from virtviz.ring.split import DESC_BYTES
from virtviz.ring.split_device import INDIRECT_MAX, IOV_MAX
from virtviz.ring.verdicts import NAMES, Malformed, refused_by
from virtviz.spec.virtio import VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE

if TYPE_CHECKING:
    from virtviz.engine.memory import Port
    from virtviz.ring.verdicts import BackEnd

LENT_MAX: Final = 4096
"""Bytes of one buffer that may lie outside memory for QEMU, in one piece: it lends a page (the bounce buffer of
address_space_map)."""


class PieceCells(Protocol):
    """The cells in which pieces are noted.

    Attributes:
        readable, writable: pieces found so far.
        lent: 1 if one of them lies outside memory.
        seen, expected: numbers of the last thing found wrong, for its message.
        overlooked: place in `NAMES`, from 1, of the last state that was let pass; 0 for none.
        address, length: the pieces, readable ones first.
    """

    readable: int
    writable: int
    lent: int
    seen: int
    expected: int
    overlooked: int
    address: list[int]
    length: list[int]


class Pieces:
    """What is known of the buffer being read.

    Args:
        cells: where it is noted.
        memory: guest memory.
        back_end: who reads the ring.
    """

    def __init__(self, cells: PieceCells, memory: Port, back_end: BackEnd) -> None:
        self.cells = cells
        self.memory = memory
        self.back_end = back_end
        self._refused = refused_by(back_end)

    def begin(self) -> None:
        """Forget the pieces of the buffer before."""
        mine = self.cells
        if mine.readable:
            mine.readable = 0
        if mine.writable:
            mine.writable = 0
        if mine.lent:
            mine.lent = 0

    def refuse(self, problem: Malformed) -> Malformed | None:
        """Give the problem back if this back-end minds it; otherwise note that it was let pass."""
        if problem in self._refused:
            return problem
        self.cells.overlooked = NAMES.index(problem) + 1
        return None

    def note(self, address: int, length: int, flags: int) -> Malformed | None:
        """Note the piece that a descriptor describes."""
        mine = self.cells
        if mine.writable and not flags & VIRTQ_DESC_F_WRITE:
            return "readable after writable"
        if not length:
            return self.refuse("zero length")
        if self.memory.holds(address, length):
            return self._add(address, length, flags)
        if self.back_end != "qemu":
            return "address outside memory"
        # QEMU maps a piece that begins in memory as far as that goes, and lends a page for the rest.
        inside = self.memory.size - address
        if 0 < inside < length and self.memory.holds(address, inside):
            problem = self._add(address, inside, flags)
            if problem:
                return problem
            address, length = address + inside, length - inside
        if mine.lent or length > LENT_MAX:
            return "address outside memory"
        mine.lent = 1
        self.refuse_nothing("address outside memory")
        return self._add(address, length, flags)

    def wrong_table(self, address: int, length: int) -> Malformed | None:
        """Say what is wrong with the place of an indirect table, if anything is."""
        if not length or length % DESC_BYTES or length // DESC_BYTES > INDIRECT_MAX:
            return "indirect length"
        return None if self.memory.holds(address, length) else "table outside memory"

    def refuse_table(self, address: int, length: int, flags: int, *, allowed: bool, size: int) -> Malformed | None:
        """Say what this back-end minds about a descriptor that refers to an indirect table.

        Args:
            address: the table's address.
            length: its length in bytes.
            flags: those of the descriptor.
            allowed: INDIRECT_DESC was negotiated.
            size: descriptors of the queue.
        """
        problem = None if allowed else self.refuse("indirect not negotiated")
        if flags & VIRTQ_DESC_F_NEXT:
            problem = problem or self.refuse("indirect and next")
        problem = problem or self.wrong_table(address, length)
        if length // DESC_BYTES > size:
            problem = problem or self.refuse("longer than the queue")
        return problem

    def refuse_nothing(self, problem: Malformed) -> None:
        """Note a state that is let pass here, although this back-end minds it elsewhere."""
        self.cells.overlooked = NAMES.index(problem) + 1

    def _add(self, address: int, length: int, flags: int) -> Malformed | None:
        mine = self.cells
        count = mine.readable + mine.writable
        if count >= IOV_MAX:
            return "too many pieces"
        if mine.address[count] != address:
            mine.address[count] = address
        if mine.length[count] != length:
            mine.length[count] = length
        if flags & VIRTQ_DESC_F_WRITE:
            mine.writable += 1
        else:
            mine.readable += 1
        return None

    def found(self) -> list[tuple[int, int]]:
        """Give address and length of each piece, readable ones first."""
        mine = self.cells
        count = mine.readable + mine.writable
        return list(zip(mine.address[:count], mine.length[:count], strict=True))
