"""Constants of the virtio specification and of the virtio-net device, spelled as they are spelled there.

Source: Virtual I/O Device (VIRTIO) Version 1.4, chapters 2.7 (split virtqueues), 5.1 (network device), 6 (features);
the C names are those of Linux include/uapi/linux/virtio_ring.h, virtio_net.h and virtio_config.h.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

VIRTQ_DESC_F_NEXT: Final = 1
VIRTQ_DESC_F_WRITE: Final = 2
VIRTQ_DESC_F_INDIRECT: Final = 4
VIRTQ_AVAIL_F_NO_INTERRUPT: Final = 1
VIRTQ_USED_F_NO_NOTIFY: Final = 1

VIRTQ_DESC: Final = struct.Struct("<QIHH")
"""A descriptor: addr, len, flags, next (2.7.5)."""
VIRTQ_USED_ELEM: Final = struct.Struct("<II")
"""A used element: id, len (2.7.8)."""

VIRTQ_DESC_F_AVAIL: Final = 1 << 7
VIRTQ_DESC_F_USED: Final = 1 << 15
VIRTQ_PACKED_DESC: Final = struct.Struct("<QIHH")
"""A descriptor of a packed ring: addr, len, id, flags (2.8.13)."""
RING_EVENT_FLAGS_ENABLE: Final = 0
RING_EVENT_FLAGS_DISABLE: Final = 1
RING_EVENT_FLAGS_DESC: Final = 2
RING_EVENT_FLAG_NAMES: Final = {
    RING_EVENT_FLAGS_ENABLE: "ENABLE",
    RING_EVENT_FLAGS_DISABLE: "DISABLE",
    RING_EVENT_FLAGS_DESC: "DESC",
}
VIRTQ_PACKED_EVENT: Final = struct.Struct("<HH")
"""An event suppression structure: offset and wrap counter, flags (2.8.14)."""

QUEUE_SIZE_MAX: Final = 32768

VIRTIO_NET_HDR: Final = struct.Struct("<BBHHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers (5.1.9): the 12-byte form."""
VIRTIO_NET_HDR_BYTES: Final = VIRTIO_NET_HDR.size
NUM_BUFFERS_OFFSET: Final = 10
VIRTIO_NET_HDR_LEGACY_BYTES: Final = 10
"""The form without num_buffers: neither VERSION_1 nor MRG_RXBUF was negotiated."""

VIRTIO_CONFIG_S_ACKNOWLEDGE: Final = 1
VIRTIO_CONFIG_S_DRIVER: Final = 2
VIRTIO_CONFIG_S_DRIVER_OK: Final = 4
VIRTIO_CONFIG_S_FEATURES_OK: Final = 8
VIRTIO_CONFIG_S_NEEDS_RESET: Final = 64
VIRTIO_CONFIG_S_FAILED: Final = 128
VIRTIO_PCI_ISR_QUEUE: Final = 1
VIRTIO_PCI_ISR_CONFIG: Final = 2

VIRTIO_NET_S_LINK_UP: Final = 1
VIRTIO_NET_S_ANNOUNCE: Final = 2
VIRTIO_NET_OK: Final = 0
VIRTIO_NET_ERR: Final = 1
VIRTIO_NET_CTRL_RX: Final = 0
VIRTIO_NET_CTRL_RX_PROMISC: Final = 0
VIRTIO_NET_CTRL_RX_ALLMULTI: Final = 1
VIRTIO_NET_CTRL_RX_ALLUNI: Final = 2
VIRTIO_NET_CTRL_RX_NOMULTI: Final = 3
VIRTIO_NET_CTRL_RX_NOUNI: Final = 4
VIRTIO_NET_CTRL_RX_NOBCAST: Final = 5
VIRTIO_NET_CTRL_MAC: Final = 1
VIRTIO_NET_CTRL_MAC_TABLE_SET: Final = 0
VIRTIO_NET_CTRL_MAC_ADDR_SET: Final = 1
VIRTIO_NET_CTRL_VLAN: Final = 2
VIRTIO_NET_CTRL_VLAN_ADD: Final = 0
VIRTIO_NET_CTRL_VLAN_DEL: Final = 1
VIRTIO_NET_CTRL_ANNOUNCE: Final = 3
VIRTIO_NET_CTRL_ANNOUNCE_ACK: Final = 0
VIRTIO_NET_CTRL_MQ: Final = 4
VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: Final = 0
VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX: Final = 0x8000
VIRTIO_NET_CTRL_GUEST_OFFLOADS: Final = 5
VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET: Final = 0


class Feature(IntEnum):
    """Feature bits by number, under their names in the specification without `VIRTIO_`."""

    NET_F_CSUM = 0
    NET_F_GUEST_CSUM = 1
    NET_F_CTRL_GUEST_OFFLOADS = 2
    NET_F_MTU = 3
    NET_F_MAC = 5
    NET_F_GUEST_TSO4 = 7
    NET_F_GUEST_TSO6 = 8
    NET_F_GUEST_ECN = 9
    NET_F_GUEST_UFO = 10
    NET_F_HOST_TSO4 = 11
    NET_F_HOST_TSO6 = 12
    NET_F_HOST_ECN = 13
    NET_F_HOST_UFO = 14
    NET_F_MRG_RXBUF = 15
    NET_F_STATUS = 16
    NET_F_CTRL_VQ = 17
    NET_F_CTRL_RX = 18
    NET_F_CTRL_VLAN = 19
    NET_F_CTRL_RX_EXTRA = 20
    NET_F_GUEST_ANNOUNCE = 21
    NET_F_MQ = 22
    NET_F_CTRL_MAC_ADDR = 23
    F_NOTIFY_ON_EMPTY = 24
    F_ANY_LAYOUT = 27
    RING_F_INDIRECT_DESC = 28
    RING_F_EVENT_IDX = 29
    F_VERSION_1 = 32
    F_ACCESS_PLATFORM = 33
    F_RING_PACKED = 34
    F_IN_ORDER = 35


def is_used_element(field: str, size: int) -> bool:
    """Say whether a field of a ring, by its name and length, is a whole used element."""
    return field.startswith("used.ring[") and size == VIRTQ_USED_ELEM.size


def in_parts(field: str, size: int, value: int) -> str:
    """Give the value of a ring's field for people: what has parts by its parts, the rest as a number.

    A used element is `id 0, len 110`; the place in an event suppression structure is `slot 3 w1`, with wrap counter 1.

    Args:
        field: its name, such as `used.ring[3]`.
        size: bytes that were read or written.
        value: they, as one little-endian number.
    """
    if is_used_element(field, size):
        head, written = VIRTQ_USED_ELEM.unpack(value.to_bytes(size, "little"))
        return f"id {head}, len {written}"
    if field.endswith("_event.desc"):
        return f"slot {value & 0x7FFF} w{value >> 15}"
    return str(value)
