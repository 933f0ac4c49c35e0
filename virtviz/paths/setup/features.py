"""Who can do what: the features of the device model, of the TAP, of vhost-net and of the guest's driver.

The guest is offered what the device model has, within what the TAP and the back-end can do. It accepts what of that its
driver knows. So the choice of a back-end is visible to the guest only as bits that are missing.

Source: virtio 1.4, 5.1.3 and 6; QEMU 10.0 hw/net/virtio-net.c (virtio_net_get_features), hw/net/vhost_net.c
(kernel_feature_bits); Linux 6.12 drivers/vhost/vhost.h, drivers/vhost/net.c (VHOST_NET_FEATURES),
drivers/net/virtio_net.c (features), drivers/virtio/virtio_ring.c (vring_transport_features). The accepted bits under
the recorded versions are those of the recording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.paths.features import EVENT_IDX, INDIRECT, MERGEABLE
from virtviz.spec.virtio import Feature

if TYPE_CHECKING:
    from collections.abc import Iterable

    from virtviz.paths.knobs import World

RING_RESET: Final = 40
GUEST_USO4, GUEST_USO6, HOST_USO = 54, 55, 56
F = Feature


def mask(bits: Iterable[int]) -> int:
    """Give the mask of some feature bits."""
    return sum(1 << bit for bit in bits)


_MODEL: Final = mask(
    (
        F.NET_F_CSUM, F.NET_F_GUEST_CSUM, F.NET_F_CTRL_GUEST_OFFLOADS, F.NET_F_MAC, F.NET_F_GUEST_TSO4,
        F.NET_F_GUEST_TSO6, F.NET_F_GUEST_ECN, F.NET_F_GUEST_UFO, F.NET_F_HOST_TSO4, F.NET_F_HOST_TSO6,
        F.NET_F_HOST_ECN, F.NET_F_HOST_UFO, F.NET_F_MRG_RXBUF, F.NET_F_STATUS, F.NET_F_CTRL_VQ, F.NET_F_CTRL_RX,
        F.NET_F_CTRL_VLAN, F.NET_F_CTRL_RX_EXTRA, F.NET_F_GUEST_ANNOUNCE, F.NET_F_CTRL_MAC_ADDR,
        F.RING_F_INDIRECT_DESC, F.RING_F_EVENT_IDX, F.F_VERSION_1, RING_RESET,
    )
)  # fmt: skip
"""What QEMU's device model has unless it is told otherwise."""
_USO: Final = mask((GUEST_USO4, GUEST_USO6, HOST_USO))
"""UDP segmentation: QEMU since 8.2, the TAP since Linux 6.2, the driver since Linux 6.2."""
NEEDS_VNET_HDR: Final = _USO | mask(
    (
        F.NET_F_CSUM, F.NET_F_GUEST_CSUM, F.NET_F_GUEST_TSO4, F.NET_F_GUEST_TSO6, F.NET_F_GUEST_ECN,
        F.NET_F_GUEST_UFO, F.NET_F_HOST_TSO4, F.NET_F_HOST_TSO6, F.NET_F_HOST_ECN, F.NET_F_HOST_UFO,
    )
)  # fmt: skip
"""What makes no sense without a virtio-net header on the TAP."""
VHOST_ASKED: Final = mask(
    (
        F.F_NOTIFY_ON_EMPTY, F.RING_F_INDIRECT_DESC, F.RING_F_EVENT_IDX, F.NET_F_MRG_RXBUF, F.F_VERSION_1,
        F.NET_F_MTU, F.F_ACCESS_PLATFORM, F.F_RING_PACKED, F.F_IN_ORDER, RING_RESET,
    )
)  # fmt: skip
"""The features about which a back-end in the kernel is asked; all others are QEMU's own affair."""
VHOST_FEATURES_6_1: Final = mask(
    (
        F.F_NOTIFY_ON_EMPTY, 26, F.F_ANY_LAYOUT, F.RING_F_INDIRECT_DESC, F.RING_F_EVENT_IDX, F.NET_F_MRG_RXBUF,
        F.F_VERSION_1, F.F_ACCESS_PLATFORM,
    )
)  # fmt: skip
"""What vhost-net answers to VHOST_GET_FEATURES; bit 26 is VHOST_F_LOG_ALL."""
VHOST_FEATURES_6_12: Final = VHOST_FEATURES_6_1 | mask((RING_RESET,))
_DRIVER: Final = _MODEL & ~mask((F.NET_F_CTRL_RX_EXTRA,)) | mask(
    (F.NET_F_MTU, F.NET_F_MQ, F.F_ACCESS_PLATFORM, F.F_RING_PACKED)
)
"""What Linux's driver knows; of all that the device model has it leaves out CTRL_RX_EXTRA only."""
GUEST_NEEDS: Final = {
    F.NET_F_GUEST_TSO4: F.NET_F_GUEST_CSUM,
    F.NET_F_GUEST_TSO6: F.NET_F_GUEST_CSUM,
    F.NET_F_GUEST_UFO: F.NET_F_GUEST_CSUM,
    F.NET_F_HOST_TSO4: F.NET_F_CSUM,
    F.NET_F_HOST_TSO6: F.NET_F_CSUM,
    F.NET_F_HOST_UFO: F.NET_F_CSUM,
    F.NET_F_CTRL_RX: F.NET_F_CTRL_VQ,
    F.NET_F_CTRL_VLAN: F.NET_F_CTRL_VQ,
    F.NET_F_GUEST_ANNOUNCE: F.NET_F_CTRL_VQ,
    F.NET_F_MQ: F.NET_F_CTRL_VQ,
    F.NET_F_CTRL_MAC_ADDR: F.NET_F_CTRL_VQ,
}
"""A feature -> the one that it needs (5.1.3.1)."""


def model_features(world: World) -> int:
    """Give what the device model has in a world: QEMU's defaults, without what the knob `features` takes away."""
    found = _MODEL | (_USO if world["qemu_version"] != "7.2" else 0)
    for word, bit in (
        (EVENT_IDX, F.RING_F_EVENT_IDX),
        (INDIRECT, F.RING_F_INDIRECT_DESC),
        (MERGEABLE, F.NET_F_MRG_RXBUF),
    ):
        if not world.has(word):
            found &= ~mask((bit,))
    if world.number("queues") > 1:
        # -device virtio-net-pci,mq=on
        found |= mask((F.NET_F_MQ,))
    if world["queue.format"] == "packed":
        # -device virtio-net-pci,packed=on
        found |= mask((F.F_RING_PACKED,))
    if world.on("refuse_features"):
        found |= mask((F.F_ACCESS_PLATFORM,))
    return found


def tap_features(world: World, found: int, *, vnet_hdr: bool) -> int:
    """Take away what the TAP cannot do."""
    if not vnet_hdr:
        return found & ~NEEDS_VNET_HDR
    return found & ~_USO if world["host_kernel"] == "6.1" else found


def known_to_driver(world: World) -> int:
    """Give what the guest's driver knows."""
    found = _DRIVER | (_USO if world["guest_kernel"] != "6.1" else 0)
    # A driver from before Linux 4.8 has never heard of ACCESS_PLATFORM.
    return found & ~mask((F.F_ACCESS_PLATFORM,)) if world.on("refuse_features") else found


def without_unmet(wanted: int) -> int:
    """Drop features whose condition is not among the accepted ones."""
    for feature, condition in GUEST_NEEDS.items():
        if wanted >> feature & 1 and not wanted >> condition & 1:
            wanted &= ~(1 << feature)
    return wanted


TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_UFO, TUN_F_USO4, TUN_F_USO6 = (
    1 << number for number in range(7)
)
_OFFLOADS: Final = (
    (F.NET_F_GUEST_CSUM, TUN_F_CSUM),
    (F.NET_F_GUEST_TSO4, TUN_F_TSO4),
    (F.NET_F_GUEST_TSO6, TUN_F_TSO6),
    (F.NET_F_GUEST_ECN, TUN_F_TSO_ECN),
    (F.NET_F_GUEST_UFO, TUN_F_UFO),
    (GUEST_USO4, TUN_F_USO4),
    (GUEST_USO6, TUN_F_USO6),
)


def tap_offload(features: int) -> int:
    """Give the bits TUN_F_* that say to the TAP what a guest of these features takes unsegmented."""
    if not features >> F.NET_F_GUEST_CSUM & 1:
        return 0
    return sum(bit for feature, bit in _OFFLOADS if features >> feature & 1)


def names_of(features: int) -> str:
    """Name features by their bits, for people: `28, 29, 32`."""
    return ", ".join(str(bit) for bit in range(64) if features >> bit & 1)
