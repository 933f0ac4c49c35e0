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

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.spec.virtio import QUEUE_SIZE_MAX, VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED

if TYPE_CHECKING:
    from virtviz.engine.memory import Region

DESC_BYTES: Final = 16
EVENT_BYTES: Final = 4
_DESC_FIELDS: Final = {0: "addr", 8: "len", 12: "id", 14: "flags"}

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

    def desc(self, slot: int) -> int:
        """Address of a descriptor."""
        return self.ring + DESC_BYTES * slot

    def name_fields(self, memory: Region, queue: str) -> None:
        """Tell a region how the queue's fields are called, for people."""
        memory.name_stretch(self.ring, DESC_BYTES * self.size, queue, self._desc_field)
        memory.name_stretch(self.driver_event, EVENT_BYTES, queue, self._driver_field)
        memory.name_stretch(self.device_event, EVENT_BYTES, queue, self._device_field)

    @staticmethod
    def _desc_field(offset: int, size: int) -> str:
        name = f"desc[{offset // DESC_BYTES}]"
        return name if size > 8 else f"{name}.{_DESC_FIELDS.get(offset % DESC_BYTES, '?')}"

    @staticmethod
    def _driver_field(offset: int, size: int) -> str:
        return "driver_event" if size == EVENT_BYTES else f"driver_event.{'flags' if offset else 'off_wrap'}"

    @staticmethod
    def _device_field(offset: int, size: int) -> str:
        return "device_event" if size == EVENT_BYTES else f"device_event.{'flags' if offset else 'off_wrap'}"


def is_available(flags: int, wrap: int) -> bool:
    """Say whether a descriptor with these flags is available to who has that wrap counter (2.8.1)."""
    return flags & TURN == AVAILABLE[wrap]


def is_used(flags: int, wrap: int) -> bool:
    """Say whether a descriptor with these flags was used, for who has that wrap counter (2.8.1)."""
    return flags & TURN == USED[wrap]
