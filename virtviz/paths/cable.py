"""The cable between two hosts: what one host's network card puts on it comes in at the other's.

A real card sends a frame while the other receives it. Here a frame lies on the cable between two steps of two cards; as
many as `ROOM` can, and then the sending card waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.paths.dpdk_nic import PolledNic
from virtviz.paths.host_net import Wire
from virtviz.paths.nic import Nic
from virtviz.paths.packets import HeadroomPool, PacketPool
from virtviz.paths.queues import Fifo

if TYPE_CHECKING:
    from virtviz.engine.state import State
    from virtviz.paths.traffic import Traffic

ROOM: Final = 64
FRAME_BYTES: Final = 2048


@cells
class CableCells(Cells):
    """What an end of the cable keeps.

    Attributes:
        taken: the slot of the frame that has just been taken off.
    """

    taken: int = 0


class CableEnd(Wire):
    """The end of the cable that is in one host's card.

    Args:
        state: where its frames are kept.
        name: the end's name.
        traffic: what is sent.
        headers: bytes in front of each frame of the scenario, of a tunnel.

    Attributes:
        other: the other end; set when it is made.
    """

    other: CableEnd

    def __init__(self, state: State, name: str, traffic: Traffic, headers: int) -> None:
        super().__init__(state, name, traffic)
        self.headers = headers
        self.end = state.add(CableCells, f"{name}.end")
        memory = state.region(f"{name}.frames", ROOM * FRAME_BYTES)
        self.frames = PacketPool(state, f"{name}.pool", memory, 0, ROOM, FRAME_BYTES, headroom=0)
        self.coming = Fifo(state, f"{name}.coming", ROOM)

    def next_arrival(self) -> int:
        """Give the number of the next frame that comes in; 0 if none."""
        slot = self.coming.first()
        return self.frames.cells.packet[slot] if slot else 0

    def take_arrival(self) -> int:
        """Take it off the cable."""
        self.end.taken = slot = self.coming.take()
        packet = self.frames.cells.packet[slot]
        self.frames.release(slot)
        return packet

    def write(self, pool: PacketPool, slot: int, packet: int) -> None:
        """Write the frame that has just been taken off into a slot of the host's memory."""
        frame = bytes(self.frames.data(self.end.taken))
        pool.fill(slot, frame[self.headers :])
        if self.headers:
            assert isinstance(pool, HeadroomPool)
            pool.push(slot, frame[: self.headers])

    def length(self, packet: int) -> int:
        """Give the bytes that a frame has on the cable."""
        return self.traffic.length(packet) + self.headers

    def has_room(self) -> bool:
        """Say whether a frame can be put on the cable."""
        return not self.other.coming.is_full

    def send(self, pool: PacketPool, slot: int, packet: int) -> bool:
        """Put a frame on the cable; nobody but the other host answers it."""
        there = self.other
        at = there.frames.take(packet)
        there.frames.fill(at, bytes(pool.data(slot)))
        there.coming.put(at)
        return False


class CabledNic(Nic):
    """A network card whose cable leads to another host."""

    wire: CableEnd

    def unsent(self) -> int:
        """Give the slot of the next frame that can be sent, 0 if there is none."""
        return super().unsent() if self.wire.has_room() else 0

    def has_work(self) -> bool:
        """Say whether the card's engine has anything to do."""
        return self.unsent() != 0 or self.interrupt_due() or self.arrival() != 0


class CabledPolledNic(CabledNic, PolledNic):
    """One that a thread of OVS-DPDK drives."""
