"""What texts say of a ring: the values that their `{...}` fields stand for, for either layout.

Only people need these, so that the bytes are read as an outsider reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.ring.packed import OFFSET
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver
from virtviz.spec.virtio import RING_EVENT_FLAG_NAMES, RING_EVENT_FLAGS_DESC, RING_EVENT_FLAGS_ENABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.memory import Port
    from virtviz.ring.packed_device import PackedDevice
    from virtviz.ring.packed_driver import PackedDriver
    from virtviz.ring.qemu_device import QemuDevice
    from virtviz.ring.rings import DpdkRing, DriverRing, QemuRing


def words_of(ring: DriverRing) -> Mapping[str, object]:
    """Give what a driver's texts say of its ring."""
    if isinstance(ring, SplitDriver):
        return _split_driver(ring)
    from virtviz.ring.packed_driver import PackedDriver  # noqa: PLC0415 - as all below: imported where a world has it

    assert isinstance(ring, PackedDriver), ring
    return _packed_driver(ring)


def device_words_of(ring: QemuRing) -> Mapping[str, object]:
    """Give what QEMU's texts say of its side of a ring."""
    from virtviz.ring.qemu_device import QemuDevice, QemuPackedDevice  # noqa: PLC0415

    if isinstance(ring, QemuPackedDevice):
        return _packed_device(ring)
    assert isinstance(ring, QemuDevice), ring
    return _split_device(ring)


def dpdk_words_of(ring: DpdkRing) -> Mapping[str, object]:
    """Give what the texts of DPDK's vhost library say of its side of a ring."""
    if isinstance(ring, SplitDevice):
        return _split_ring(ring)
    from virtviz.ring.packed_device import PackedDevice  # noqa: PLC0415

    assert isinstance(ring, PackedDevice), ring
    return _packed_device(ring)


def place_in_words(off_wrap: int) -> str:
    """Give a place in a packed ring: a slot, and the wrap counter with which it is meant."""
    return f"slot {off_wrap & OFFSET}, wrap {off_wrap >> 15}"


def _word(memory: Port, address: int) -> int:
    return int.from_bytes(memory.read(address, 2), "little")


# The driver


def _split_driver(ring: SplitDriver) -> Mapping[str, object]:
    mine, layout = ring.cells, ring.layout
    flags_or_event = ("avail_event", layout.avail_event) if ring.event_idx else ("used.flags", layout.used_flags)
    return {
        "head": mine.head,
        "written": mine.written,
        "last_used": mine.last_used_idx,
        "num_free": mine.num_free,
        "asked": f"used_event = {mine.last_used_idx}" if ring.event_idx else "avail.flags = 0",
        "late": _asked_late(ring),
        "wish": f"{flags_or_event[0]} {_word(ring.memory, flags_or_event[1])}",
    }


def _asked_late(ring: SplitDriver) -> str:
    """Say what a driver that wants to hear late has asked for."""
    mine = ring.cells
    if not ring.event_idx:
        return "avail.flags = 0: without event indices a late interrupt cannot be asked for, only one each time."
    last_used = mine.last_used_idx
    outstanding = mine.avail_idx_shadow - last_used & 0xFFFF
    return (
        f"used_event = {last_used + outstanding * 3 // 4 & 0xFFFF}: last used, {last_used}, + ¾ of the {outstanding} "
        "outstanding, rounded down. One interrupt for many packets, if there are many."
    )


def _packed_driver(ring: PackedDriver) -> Mapping[str, object]:
    mine = ring.cells
    slot, wrap = ring.late()
    outstanding = ring.layout.size - mine.num_free
    return {
        "head": mine.head,
        "slot": mine.head_slot,
        "flags": f"{mine.head_flags:04x}",
        "written": mine.written,
        "last_used": mine.last_used,
        "used_wrap": mine.used_wrap,
        "avail_wrap": mine.avail_wrap,
        "num_free": mine.num_free,
        "asked": f"slot {mine.last_used}, wrap {mine.used_wrap}",
        "late": f"slot {slot}, wrap {wrap}: ¾ of the {outstanding} outstanding descriptors on, rounded down",
        "wish": f"device_event, {_wish_in_words(ring.memory, ring.layout.device_event)}",
        "flags_asked": RING_EVENT_FLAG_NAMES[mine.event_flags_shadow],
    }


def _wish_in_words(memory: Port, address: int) -> str:
    """Give what an event suppression structure says: its flags, and the place if they refer to it."""
    place, flags = _word(memory, address), _word(memory, address + 2)
    name = RING_EVENT_FLAG_NAMES.get(flags, str(flags))
    return f"{name} ({place_in_words(place)})" if flags == RING_EVENT_FLAGS_DESC else name


# The device


def _split_device(ring: QemuDevice) -> Mapping[str, object]:
    mine = ring.cells
    return {
        **_split_ring(ring),
        "kicks": f"to be kicked for entry {mine.avail_idx}" if ring.event_idx else "for kicks (used.flags = 0)",
        "moves": " Kicks are wanted now, so avail_event moves along." if ring.event_idx and ring.wants_kicks else "",
        "unasked": "" if mine.signalled_used_valid else " (the first time QEMU does not even ask)",
    }


def _split_ring(ring: SplitDevice) -> Mapping[str, object]:
    """Give what any device's texts say of its side of a split ring."""
    mine = ring.cells
    at = ring.layout.used_event if ring.event_idx else ring.layout.avail_flags
    return {
        "head": mine.head,
        "avail": mine.avail_idx,
        "next": mine.last_avail_idx,
        "used": mine.last_used_idx,
        "wish": f"{'used_event' if ring.event_idx else 'avail.flags'} {_word(ring.memory, at)}",
    }


def _packed_device(ring: PackedDevice) -> Mapping[str, object]:
    mine = ring.cells
    return {
        "head": mine.head & 0xFFFF,
        "slot": mine.slot,
        "next": mine.next_avail,
        "avail_wrap": mine.avail_wrap,
        "used_slot": mine.hidden_slot,
        "used_wrap": mine.used_wrap,
        "wish": f"driver_event, {_wish_in_words(ring.memory, ring.layout.driver_event)}",
        "kicks": f"slot {mine.filled}, wrap {mine.filled_wrap}",
        "flags_asked": RING_EVENT_FLAG_NAMES[RING_EVENT_FLAGS_DESC if ring.event_idx else RING_EVENT_FLAGS_ENABLE],
        "unasked": "" if mine.signalled_used_valid else " (the first time in each lap QEMU does not compare places)",
    }
