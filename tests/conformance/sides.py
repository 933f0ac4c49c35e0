"""Our driver and device sides, used through the same calls as the oracle's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oracle import Buffer, Piece

from virtviz.ring.rings import take

if TYPE_CHECKING:
    from virtviz.ring.rings import DeviceRing, DriverRing


@dataclass
class OurDriver:
    ring: DriverRing
    table: int
    size: int

    def offer(self, pieces: list[Piece], writable: int, token: int, *, indirect: bool) -> bool:
        ring: Any = self.ring
        if not ring.fits(1 if indirect else len(pieces)):
            return False
        if indirect:
            base = self.table + 16 * self.size * ring.cells.free_head
            ring.write_indirect(base, pieces, writable)
            ring.write_indirect_desc(base, len(pieces), token)
        elif len(pieces) == 1:
            ring.write_single(*pieces[0], 2 * writable, token)
        else:
            ring.write_chain(pieces, writable, token)
        ring.list_head()
        ring.publish()
        return True

    def kick(self) -> bool:
        return self.ring.kick_needed()

    def reclaim(self) -> list[tuple[int, int]]:
        back = []
        while self.ring.more_used():
            assert self.ring.take_used()
            back.append((self.ring.cells.token, self.ring.cells.written))
            self.ring.move_used_event()
        return back

    def ask(self, wish: str) -> None:
        if wish == "never":
            self.ring.disable_callbacks()
        elif wish == "next":
            self.ring.enable_callbacks()
        else:
            self.ring.enable_callbacks_delayed()


@dataclass
class OurDevice:
    ring: DeviceRing

    def fetch(self) -> Buffer | None:
        answer = take(self.ring)
        if answer == "empty":
            return None
        assert answer == "buffer", answer
        pieces, readable = self.ring.pieces(), self.ring.cells.readable
        return Buffer(self.ring.cells.head, pieces[:readable], pieces[readable:])

    def give_back(self, buffers: list[tuple[Buffer, int]]) -> None:
        self.ring.write_used([buffer.name for buffer, _ in buffers], [written for _, written in buffers])
        self.ring.publish()

    def interrupt(self) -> bool:
        return self.ring.interrupt_wanted()

    def ask(self, *, wanted: bool) -> None:
        if wanted:
            self.ring.enable_kicks()
        else:
            self.ring.disable_kicks()
