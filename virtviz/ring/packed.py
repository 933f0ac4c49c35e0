"""Where the fields of a packed virtqueue lie, and how they are called.

One ring of descriptors that both sides write: the driver makes a descriptor available, the device writes over it when
the buffer has been used. Whose turn it is stands in two bits of the descriptor's flags. Each side keeps a wrap counter,
1 at first, that it turns over whenever it passes the end of the ring; a descriptor is available if AVAIL equals the
driver's counter and USED does not, and used if both equal the device's. So a ring of zeros has nothing to offer, and no
index is ever written to memory.

Beside the ring, each side has four bytes in which it says whether, and at which descriptor, it wants to be notified.

Source: virtio 1.4, 2.8.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.spec.virtio import QUEUE_SIZE_MAX, VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED

if TYPE_CHECKING:
    from virtviz.engine.memory import Region

DESC_BYTES: Final = 16
EVENT_BYTES: Final = 4
_DESC_FIELDS: Final = {0: "addr", 8: "len", 12: "id", 14: "flags"}
FIELD_BYTES: Final = {"addr": 8, "len": 4, "id": 2, "flags": 2}
"""Length of each field of a descriptor."""
_FIELD: Final = re.compile(r"desc\[(\d{1,5})\]\.([a-z]+)")
FIELDS: Final = f"desc[n].{'/'.join(FIELD_BYTES)}, driver_event.desc/flags, device_event.desc/flags"
"""The names of all fields of a queue, for people, with `n` for a slot."""

AVAILABLE: Final = (VIRTQ_DESC_F_USED, VIRTQ_DESC_F_AVAIL)
"""By wrap counter: the two bits in the flags of an available descriptor."""
USED: Final = (0, VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED)
"""By wrap counter: the two bits in the flags of a used descriptor."""
TURN: Final = VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED
"""Mask of the two bits."""
OFFSET: Final = 0x7FFF
"""Mask of the offset in an event suppression structure; the wrap counter is the bit above it."""


class PackedLayout(Struct, frozen=True):
    """Guest-physical addresses of one packed virtqueue.

    Attributes:
        size: number of descriptors, 1 to 32768; it need not be a power of two.
        ring: address of the descriptor ring, a multiple of 16.
        driver_event: address of the driver's event suppression structure, a multiple of 4.
        device_event: address of the device's, a multiple of 4.

    Raises:
        ValueError: the size or an address is not allowed (2.8, 2.8.10.1).
    """

    size: int
    ring: int
    driver_event: int
    device_event: int

    def __post_init__(self) -> None:
        if not 1 <= self.size <= QUEUE_SIZE_MAX:
            raise ValueError(f"a packed virtqueue has 1 to 32768 descriptors, not {self.size}")
        if self.ring % 16 or self.driver_event % 4 or self.device_event % 4:
            raise ValueError("descriptor ring and event suppression structures lie at multiples of 16, 4 and 4")

    @classmethod
    def at(cls, address: int, size: int) -> PackedLayout:
        """Lay the three parts out one behind the other, from a multiple of 16 on."""
        behind = address + DESC_BYTES * size
        return cls(size, address, behind, behind + EVENT_BYTES)

    @property
    def end(self) -> int:
        """The address behind the last part, if they lie one behind the other."""
        return self.device_event + EVENT_BYTES

    @property
    def areas(self) -> tuple[int, int, int]:
        """Addresses of Descriptor Area, Driver Area and Device Area."""
        return self.ring, self.driver_event, self.device_event

    def desc(self, slot: int) -> int:
        """Address of a descriptor."""
        return self.ring + DESC_BYTES * slot

    def field_place(self, field: str) -> tuple[int, int]:
        """Give address and length in bytes of a field by its name, such as `desc[3].flags` or `driver_event.desc`.

        Raises:
            ValueError: there is no such field in a queue of this size.
        """
        words = {
            "driver_event.desc": self.driver_event,
            "driver_event.flags": self.driver_event + 2,
            "device_event.desc": self.device_event,
            "device_event.flags": self.device_event + 2,
        }
        if field in words:
            return words[field], 2
        match = _FIELD.fullmatch(field)
        slot, within = match.groups() if match else ("0", "")
        if int(slot) >= self.size:
            raise ValueError(f"slot {int(slot)} is behind the end of a queue of {self.size} descriptors")
        if within not in FIELD_BYTES:
            raise ValueError(f"a packed ring has no such field; it has {FIELDS}")
        offset = next(at for at, name in _DESC_FIELDS.items() if name == within)
        return self.desc(int(slot)) + offset, FIELD_BYTES[within]

    def begin_at(self, memory: Region, start: int) -> None:
        """Fill a ring as it is when descriptors have gone through it: all of them are used (2.8.1).

        Args:
            memory: guest memory, before the first step.
            start: how many; see `position_of`.
        """
        position, wrap = position_of(start, self.size)
        for slot in range(self.size):
            memory.plain_u16[(self.desc(slot) + 14) // 2] = USED[wrap if slot < position else 1 - wrap]

    def name_fields(self, memory: Region, queue: str) -> None:
        """Tell a region how the queue's fields are called, for people."""
        memory.name_stretch(self.ring, DESC_BYTES * self.size, queue, self._desc_field)
        memory.name_stretch(self.driver_event, EVENT_BYTES, queue, self._driver_field)
        memory.name_stretch(self.device_event, EVENT_BYTES, queue, self._device_field)

    @staticmethod
    def _desc_field(offset: int, size: int) -> str:
        name = f"desc[{offset // DESC_BYTES}]"
        field = _DESC_FIELDS.get(offset % DESC_BYTES, "?")
        return name if size > FIELD_BYTES.get(field, size) else f"{name}.{field}"

    @staticmethod
    def _driver_field(offset: int, size: int) -> str:
        return "driver_event" if size == EVENT_BYTES else f"driver_event.{'flags' if offset else 'desc'}"

    @staticmethod
    def _device_field(offset: int, size: int) -> str:
        return "device_event" if size == EVENT_BYTES else f"device_event.{'flags' if offset else 'desc'}"


def is_available(flags: int, wrap: int) -> bool:
    """Say whether a descriptor with these flags is available to who has that wrap counter (2.8.1)."""
    return flags & TURN == AVAILABLE[wrap]


def is_used(flags: int, wrap: int) -> bool:
    """Say whether a descriptor with these flags was used, for who has that wrap counter (2.8.1)."""
    return flags & TURN == USED[wrap]


def position_of(start: int, size: int) -> tuple[int, int]:
    """Give slot and wrap counter of a ring through which so many descriptors have gone."""
    laps, slot = divmod(start, size)
    return slot, 1 - laps % 2
