"""The commands of virtio-net's control queue.

A command is a class, a command of that class and its data, all readable; the answer is one byte, VIRTIO_NET_OK or
VIRTIO_NET_ERR. What is not known is an error, never a surprise.

Source: virtio 1.4, 5.1.9.5; QEMU hw/net/virtio-net.c, virtio_net_handle_ctrl_iov() and what it calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.paths.virtio_device.filter import MAC_BYTES, VLANS
from virtviz.spec.virtio import (
    VIRTIO_NET_CTRL_ANNOUNCE,
    VIRTIO_NET_CTRL_ANNOUNCE_ACK,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
    VIRTIO_NET_CTRL_MAC,
    VIRTIO_NET_CTRL_MAC_ADDR_SET,
    VIRTIO_NET_CTRL_MAC_TABLE_SET,
    VIRTIO_NET_CTRL_MQ,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
    VIRTIO_NET_CTRL_RX,
    VIRTIO_NET_CTRL_RX_ALLMULTI,
    VIRTIO_NET_CTRL_RX_ALLUNI,
    VIRTIO_NET_CTRL_RX_NOBCAST,
    VIRTIO_NET_CTRL_RX_NOMULTI,
    VIRTIO_NET_CTRL_RX_NOUNI,
    VIRTIO_NET_CTRL_RX_PROMISC,
    VIRTIO_NET_CTRL_VLAN,
    VIRTIO_NET_CTRL_VLAN_ADD,
    VIRTIO_NET_CTRL_VLAN_DEL,
    VIRTIO_NET_ERR,
    VIRTIO_NET_OK,
    VIRTIO_NET_S_ANNOUNCE,
    Feature,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from virtviz.paths.virtio_device.device import NetDevice

_MODES: Final = {
    VIRTIO_NET_CTRL_RX_PROMISC: "promisc",
    VIRTIO_NET_CTRL_RX_ALLMULTI: "allmulti",
    VIRTIO_NET_CTRL_RX_ALLUNI: "alluni",
    VIRTIO_NET_CTRL_RX_NOMULTI: "nomulti",
    VIRTIO_NET_CTRL_RX_NOUNI: "nouni",
    VIRTIO_NET_CTRL_RX_NOBCAST: "nobcast",
}
GUEST_OFFLOADS: Final = sum(
    1 << bit
    for bit in (
        Feature.NET_F_GUEST_CSUM,
        Feature.NET_F_GUEST_TSO4,
        Feature.NET_F_GUEST_TSO6,
        Feature.NET_F_GUEST_ECN,
        Feature.NET_F_GUEST_UFO,
    )
)
"""The features that the guest may switch off and on again while it runs."""


def run_command(device: NetDevice, command: bytes) -> int:
    """Carry out a command.

    Args:
        device: whose command it is.
        command: its readable bytes, at least two.

    Returns:
        VIRTIO_NET_OK or VIRTIO_NET_ERR.
    """
    handler = _HANDLERS.get(command[0])
    done = handler is not None and handler(device, command[1], command[2:])
    return VIRTIO_NET_OK if done else VIRTIO_NET_ERR


def _receive_mode(device: NetDevice, command: int, data: bytes) -> bool:
    if command not in _MODES or not data:
        return False
    setattr(device.filter.cells, _MODES[command], data[0])
    return True


def _mac(device: NetDevice, command: int, data: bytes) -> bool:
    if command == VIRTIO_NET_CTRL_MAC_ADDR_SET and len(data) == MAC_BYTES:
        device.filter.cells.mac = int.from_bytes(data, "big")
        return True
    if command != VIRTIO_NET_CTRL_MAC_TABLE_SET:
        return False
    unicast, rest = _addresses(data)
    if unicast is None:
        return False
    multicast, rest = _addresses(rest)
    if multicast is None or rest:
        return False
    device.filter.set_table(unicast, multicast)
    return True


def _addresses(data: bytes) -> tuple[list[bytes] | None, bytes]:
    """Read a number (u32) and so many addresses; None if the data ends before."""
    end = 4 + MAC_BYTES * int.from_bytes(data[:4], "little")
    if len(data) < max(4, end):
        return None, b""
    return [data[at : at + MAC_BYTES] for at in range(4, end, MAC_BYTES)], data[end:]


def _vlan(device: NetDevice, command: int, data: bytes) -> bool:
    vlan = int.from_bytes(data[:2], "little")
    if len(data) < 2 or vlan >= VLANS or command not in (VIRTIO_NET_CTRL_VLAN_ADD, VIRTIO_NET_CTRL_VLAN_DEL):
        return False
    device.filter.set_vlan(vlan, passes=command == VIRTIO_NET_CTRL_VLAN_ADD)
    return True


def _announce(device: NetDevice, command: int, data: bytes) -> bool:  # noqa: ARG001 - the command has no data
    mine = device.cells
    if command != VIRTIO_NET_CTRL_ANNOUNCE_ACK or not mine.link & VIRTIO_NET_S_ANNOUNCE:
        return False
    mine.link &= ~VIRTIO_NET_S_ANNOUNCE
    return True


def _pairs(device: NetDevice, command: int, data: bytes) -> bool:
    pairs = int.from_bytes(data[:2], "little")
    most = min(device.max_pairs, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX)
    if command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET or len(data) < 2 or not 1 <= pairs <= most:
        return False
    if not device.has(Feature.NET_F_MQ):
        return False
    device.cells.pairs = pairs
    return True


def _offloads(device: NetDevice, command: int, data: bytes) -> bool:
    if command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET or not device.has(Feature.NET_F_CTRL_GUEST_OFFLOADS):
        return False
    offloads = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not device.vnet_hdr or offloads & ~(device.features & GUEST_OFFLOADS):
        return False
    device.cells.offloads = offloads
    return True


_HANDLERS: Final[dict[int, Callable[[NetDevice, int, bytes], bool]]] = {
    VIRTIO_NET_CTRL_RX: _receive_mode,
    VIRTIO_NET_CTRL_MAC: _mac,
    VIRTIO_NET_CTRL_VLAN: _vlan,
    VIRTIO_NET_CTRL_ANNOUNCE: _announce,
    VIRTIO_NET_CTRL_MQ: _pairs,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS: _offloads,
}
