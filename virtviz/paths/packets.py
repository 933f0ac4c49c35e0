"""Packet memory: pools of fixed-size slots in a memory region, in which socket buffers keep their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.errors import CapacityError

if TYPE_CHECKING:
    from virtviz.engine.memory import Region
    from virtviz.engine.state import State

PIECES_MAX = 18
"""Pieces a socket buffer can lie in: its linear part and MAX_SKB_FRAGS = 17 more."""
TABLE_BYTES = 16 * PIECES_MAX
"""Room for the indirect table of such a socket buffer, at the end of its slot, behind the longest frame."""


@cells
class PoolCells(Cells):
    """What a pool keeps; slots are numbered from 1, so that 0 can mean none.

    Attributes:
        free_count: slots on the free stack.
        free: the free stack.
        packet: number of the packet in each slot, for people.
        skip: bytes at the beginning of the slot that are not the packet's (a header that came with it).
        length: how many bytes it holds.
        link: next slot of the same packet, 0 if none.
        pieces: how many descriptors its bytes are spread over when it is sent, at least 1.
    """

    free_count: int = 0
    free: list[int]
    packet: list[int]
    skip: list[int]
    length: list[int]
    link: list[int]
    pieces: list[int]


class PacketPool:
    """A pool of packet slots.

    Args:
        state: where its cells are made.
        name: such as `host.skb`.
        memory: the region the slots lie in.
        base: address of the first slot.
        slots: how many.
        slot_bytes: size of each, headroom included.
        headroom: bytes kept free before a packet's data, for headers.

    Attributes:
        at: address of each slot, behind its headroom.
        longest: bytes that a slot has room for behind its headroom.
    """

    def __init__(
        self, state: State, name: str, memory: Region, base: int, slots: int, slot_bytes: int, headroom: int = 64
    ) -> None:
        self.name = name
        self.memory = memory
        self.slot_bytes = slot_bytes
        self.headroom = headroom
        self.longest = slot_bytes - headroom
        self.slots = slots
        self._base = base - slot_bytes
        self._last = base + slots * slot_bytes
        self.at = [self._base + slot * slot_bytes + headroom for slot in range(slots + 1)]
        self.cells = state.add(
            PoolCells,
            name,
            free_count=slots,
            free=list(range(slots, 0, -1)),
            packet=[0] * (slots + 1),
            skip=[0] * (slots + 1),
            length=[0] * (slots + 1),
            link=[0] * (slots + 1),
            pieces=[1] * (slots + 1),
        )
        memory.name_stretch(base, slots * slot_bytes, name, self._field)

    def _field(self, offset: int, size: int) -> str:
        return f"slot[{offset // self.slot_bytes + 1}]"

    @property
    def end(self) -> int:
        """The address behind the last slot."""
        return self._base + (self.slots + 1) * self.slot_bytes

    def take(self, packet: int, length: int = 0) -> int:
        """Take a free slot for a packet; answers its number.

        Raises:
            CapacityError: none is free; queues are bounded so that this cannot happen.
        """
        mine = self.cells
        if not mine.free_count:
            raise CapacityError(f"{self.name} has no slot left for packet {packet}")
        mine.free_count = count = mine.free_count - 1
        slot = mine.free[count]
        mine.packet[slot] = packet
        mine.length[slot] = length
        return slot

    def release(self, slot: int) -> None:
        """Give a slot, and those linked to it, back."""
        mine = self.cells
        count = mine.free_count
        mine.free[count] = slot
        mine.free_count = count + 1
        following = mine.link[slot]
        if following:
            mine.link[slot] = 0
            self.release(following)

    def table(self, slot: int) -> int:
        """Give the address of a slot's last bytes, where an indirect descriptor table for it can lie."""
        return self._base + (slot + 1) * self.slot_bytes - TABLE_BYTES

    def packet_at(self, address: int) -> int:
        """Give the number of the packet whose slot an address lies in; 0 if in none. For people only."""
        base, size = self._base, self.slot_bytes
        return self.cells.packet[(address - base) // size] if base + size <= address < self._last else 0

    def note_packet(self, address: int, packet: int) -> None:
        """Say which packet lies in the slot of an address. For people only."""
        slot = (address - self._base) // self.slot_bytes
        if 1 <= slot <= self.slots:
            self.cells.packet[slot] = packet

    def data(self, slot: int) -> bytearray:
        """Give the packet's bytes, of all linked slots."""
        mine = self.cells
        at = self.at[slot] + mine.skip[slot]
        data = self.memory.bytes[at : at + mine.length[slot]]
        slot = mine.link[slot]
        while slot:
            data += self.memory.read(self.at[slot], mine.length[slot])
            slot = mine.link[slot]
        return data

    def copy(self, slot: int, packet: int) -> int:
        """Take a slot for a packet with the same bytes as another's; answers its number."""
        made = self.take(packet)
        self.fill(made, self.data(slot))
        return made

    def fill(self, slot: int, data: bytes | bytearray) -> None:
        """Write a packet's bytes into its slot."""
        mine = self.cells
        if mine.length[slot] != len(data):
            mine.length[slot] = len(data)
        self.memory.write(self.at[slot], data)


@cells
class HeadroomCells(Cells):
    """What a pool keeps whose packets get headers in front, by slot.

    Attributes:
        pushed: bytes of such headers in front of the packet, in the slot's headroom.
        tunnel: the tunnel key that goes with the packet and is not in it: the virtual network it came in by, or is to
            go out by (metadata_dst), plus one; 0 for none.
    """

    pushed: list[int]
    tunnel: list[int]


class HeadroomPool(PacketPool):
    """A pool whose packets can get headers put in front, and taken off again, without being moved.

    Attributes:
        metadata: what it keeps for that.
    """

    def __init__(
        self, state: State, name: str, memory: Region, base: int, slots: int, slot_bytes: int, headroom: int = 64
    ) -> None:
        super().__init__(state, name, memory, base, slots, slot_bytes, headroom)
        none = [0] * (slots + 1)
        self.metadata = state.add(HeadroomCells, f"{name}.metadata", pushed=none, tunnel=none)

    def take(self, packet: int, length: int = 0) -> int:
        """Take a free slot for a packet, as it comes from no tunnel; answers its number."""
        slot = super().take(packet, length)
        extra = self.metadata
        if extra.pushed[slot]:
            extra.pushed[slot] = 0
        if extra.tunnel[slot]:
            extra.tunnel[slot] = 0
        return slot

    def copy(self, slot: int, packet: int) -> int:
        """Take a slot with the same bytes and the same tunnel key as another's."""
        made = super().copy(slot, packet)
        if self.metadata.tunnel[slot]:
            self.metadata.tunnel[made] = self.metadata.tunnel[slot]
        return made

    def push(self, slot: int, header: bytes) -> None:
        """Put a header in front of a packet (skb_push); there is room for `headroom` bytes in all."""
        self.metadata.pushed[slot] += len(header)
        self.cells.length[slot] += len(header)
        self.memory.write(self.at[slot] - self.metadata.pushed[slot], header)

    def pull(self, slot: int, count: int) -> None:
        """Take so many bytes off a packet's front (skb_pull), which were pushed."""
        self.metadata.pushed[slot] -= count
        self.cells.length[slot] -= count

    def rewrite(self, slot: int, header: bytes) -> None:
        """Write a packet's first bytes anew."""
        self.memory.write(self.at[slot] - self.metadata.pushed[slot], header)

    def data(self, slot: int) -> bytearray:
        """Give the packet's bytes, headers in front included."""
        at = self.at[slot] - self.metadata.pushed[slot]
        return self.memory.bytes[at : at + self.cells.length[slot]]

    def inner(self, slot: int) -> bytearray:
        """Give the bytes of the frame behind all that was put in front of it."""
        pushed = self.metadata.pushed[slot]
        return self.memory.bytes[self.at[slot] : self.at[slot] + self.cells.length[slot] - pushed]
