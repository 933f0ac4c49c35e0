"""Where the fields of a split virtqueue lie, and how they are called.

Three parts, each contiguous in guest memory: the descriptor table (written by the driver), the available ring (by the
driver) and the used ring (by the device). Each side's wish about notifications lies at the end of the ring that it may
write: `used_event` behind the available ring, `avail_event` behind the used ring.

Source: virtio 1.4, 2.7.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from virtviz.spec.virtio import QUEUE_SIZE_MAX

if TYPE_CHECKING:
    from virtviz.engine.memory import Region

DESC_BYTES = 16
USED_ELEM_BYTES = 8
FIELD_BYTES = {"addr": 8, "len": 4, "flags": 2, "next": 2}
"""Length of each field of a descriptor."""
_FIELD = re.compile(r"(desc|avail\.ring|used\.ring)\[(\d{1,5})\](?:\.([a-z]+))?")
_DESC_FIELDS = {0: "addr", 8: "len", 12: "flags", 14: "next"}
FIELDS = (
    f"desc[n].{'/'.join(FIELD_BYTES)}, avail.flags, avail.idx, avail.ring[n], used_event, used.flags, used.idx, "
    "used.ring[n].id/len, avail_event"
)
"""The names of all fields of a queue, for people, with `n` for a slot."""


class SplitLayout(Struct, frozen=True):
    """Guest-physical addresses of one split virtqueue.

    Attributes:
        size: number of descriptors, a power of two up to 32768.
        desc, avail, used: addresses of the three parts, multiples of 16, 2 and 4.

    Raises:
        ValueError: the size or an address is not allowed (2.7, 2.7.5, 2.7.6, 2.7.8).
    """

    size: int
    desc: int
    avail: int
    used: int

    def __post_init__(self) -> None:
        if self.size < 1 or self.size > QUEUE_SIZE_MAX or self.size & (self.size - 1):
            raise ValueError(f"a split virtqueue has a power of two from 1 to 32768 descriptors, not {self.size}")
        if self.desc % 16 or self.avail % 2 or self.used % 4:
            raise ValueError("descriptor table, available and used ring lie at multiples of 16, 2 and 4")

    @classmethod
    def at(cls, address: int, size: int) -> SplitLayout:
        """Lay the three parts out one behind the other, from a multiple of 16 on."""
        avail = address + DESC_BYTES * size
        used = -(-(avail + 6 + 2 * size) // 4) * 4
        return cls(size, address, avail, used)

    @property
    def end(self) -> int:
        """The address behind the last part."""
        return self.used + 6 + USED_ELEM_BYTES * self.size

    @property
    def areas(self) -> tuple[int, int, int]:
        """Addresses of Descriptor Area, Driver Area and Device Area."""
        return self.desc, self.avail, self.used

    @property
    def avail_flags(self) -> int:
        """Address of the available ring's flags (u16)."""
        return self.avail

    @property
    def avail_idx(self) -> int:
        """Address of avail.idx (u16)."""
        return self.avail + 2

    def avail_ring(self, slot: int) -> int:
        """Address of avail.ring[slot] (u16)."""
        return self.avail + 4 + 2 * slot

    @property
    def used_event(self) -> int:
        """Address of used_event (u16), written by the driver."""
        return self.avail + 4 + 2 * self.size

    @property
    def used_flags(self) -> int:
        """Address of the used ring's flags (u16)."""
        return self.used

    @property
    def used_idx(self) -> int:
        """Address of used.idx (u16)."""
        return self.used + 2

    def used_ring(self, slot: int) -> int:
        """Address of used.ring[slot] (id u32, len u32)."""
        return self.used + 4 + USED_ELEM_BYTES * slot

    @property
    def avail_event(self) -> int:
        """Address of avail_event (u16), written by the device."""
        return self.used + 4 + USED_ELEM_BYTES * self.size

    def field_place(self, field: str) -> tuple[int, int]:
        """Give address and length in bytes of a field by its name, such as `avail.idx` or `desc[3].flags`.

        Raises:
            ValueError: there is no such field in a queue of this size.
        """
        words = {
            "avail.flags": self.avail_flags,
            "avail.idx": self.avail_idx,
            "used_event": self.used_event,
            "used.flags": self.used_flags,
            "used.idx": self.used_idx,
            "avail_event": self.avail_event,
        }
        if field in words:
            return words[field], 2
        match = _FIELD.fullmatch(field)
        part, slot, within = match.groups() if match else ("", "0", None)
        if match and int(slot) >= self.size:
            raise ValueError(f"slot {int(slot)} is behind the end of a queue of {self.size} descriptors")
        if part == "desc" and within in FIELD_BYTES:
            offset = next(at for at, name in _DESC_FIELDS.items() if name == within)
            return self.desc + DESC_BYTES * int(slot) + offset, FIELD_BYTES[within]
        if part == "used.ring" and within in ("id", "len"):
            return self.used_ring(int(slot)) + 4 * (within == "len"), 4
        if part == "avail.ring" and within is None:
            return self.avail_ring(int(slot)), 2
        raise ValueError(f"a ring has no such field; it has {FIELDS}")

    def begin_at(self, memory: Region, start: int) -> None:
        """Let a queue begin at an index.

        Args:
            memory: guest memory, before the first step.
            start: the index, u16.
        """
        for address in (self.avail_idx, self.used_idx, self.used_event, self.avail_event):
            memory.plain_u16[address // 2] = start

    def name_fields(self, memory: Region, queue: str) -> None:
        """Tell a region how the queue's fields are called, for people."""
        memory.name_stretch(self.desc, DESC_BYTES * self.size, queue, self._desc_field)
        memory.name_stretch(self.avail, 6 + 2 * self.size, queue, self._avail_field)
        memory.name_stretch(self.used, 6 + USED_ELEM_BYTES * self.size, queue, self._used_field)

    @staticmethod
    def _desc_field(offset: int, size: int) -> str:
        name = f"desc[{offset // DESC_BYTES}]"
        return name if size >= DESC_BYTES else f"{name}.{_DESC_FIELDS.get(offset % DESC_BYTES, '?')}"

    def _avail_field(self, offset: int, size: int) -> str:  # noqa: ARG002 - all are 16 bits wide
        if offset < 4:
            return "avail.flags" if offset < 2 else "avail.idx"
        slot = (offset - 4) // 2
        return "used_event" if slot == self.size else f"avail.ring[{slot}]"

    def _used_field(self, offset: int, size: int) -> str:
        if offset < 4:
            return "used.flags" if offset < 2 else "used.idx"
        slot, within = divmod(offset - 4, USED_ELEM_BYTES)
        if slot == self.size:
            return "avail_event"
        name = f"used.ring[{slot}]"
        return name if size >= USED_ELEM_BYTES else f"{name}.{'len' if within else 'id'}"
