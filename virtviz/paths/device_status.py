"""The status of a virtio device, and how it asks to be reset.

A device that wants a reset sets a bit in its status, says that its configuration changed, and from then on serves no
queue. vhost itself never does: it only leaves the one queue alone until the next kick. So the bit stays clear unless
the back-end is set to check as another does (`device_checks`).

What the driver makes of a changed configuration is in `guest_config.py`. Linux's virtio-net looks at the link only, so
a device that wants a reset waits for it in vain: nobody resets it.

Source: virtio 1.4, 2.1.2, 2.5.3 and 5.1.4; QEMU hw/virtio/virtio.c (virtio_error, virtio_notify_config) and
hw/net/virtio-net.c (virtio_net_set_link_status).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.spec.virtio import (
    VIRTIO_CONFIG_S_ACKNOWLEDGE,
    VIRTIO_CONFIG_S_DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_NET_S_LINK_UP,
    VIRTIO_PCI_ISR_CONFIG,
    VIRTIO_PCI_ISR_QUEUE,
)

if TYPE_CHECKING:
    from virtviz.engine.state import State

LIVE: Final = (
    VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_DRIVER_OK
)  # fmt: skip
"""What a driver has written once its queues are in use."""


@cells
class StatusCells(Cells):
    """What a driver reads of a device.

    Attributes:
        status: device_status.
        isr: bit 0, a buffer was used; bit 1, the configuration changed.
        generation: of the configuration, u8.
        config_status: `status` of the network device's configuration; bit 0, the link is up.
    """

    status: int = LIVE
    isr: int = 0
    generation: int = 0
    config_status: int = VIRTIO_NET_S_LINK_UP


class DeviceStatus:
    """The status of one device, in use from the beginning."""

    def __init__(self, state: State, name: str) -> None:
        self.cells = state.add(StatusCells, name)

    @property
    def needs_reset(self) -> bool:
        """Say whether the device has given up."""
        return bool(self.cells.status & VIRTIO_CONFIG_S_NEEDS_RESET)

    @property
    def link_is_up(self) -> bool:
        """Say whether the link is up."""
        return bool(self.cells.config_status & VIRTIO_NET_S_LINK_UP)

    def give_up(self) -> None:
        """Ask to be reset, and say that the configuration changed."""
        self.ask_for_reset()
        self.note_change()

    def ask_for_reset(self) -> None:
        """Set DEVICE_NEEDS_RESET."""
        self.cells.status |= VIRTIO_CONFIG_S_NEEDS_RESET

    def set_link(self, *, up: bool) -> bool:
        """Set the link's bit in the configuration; answers whether it changed."""
        mine = self.cells
        before = mine.config_status
        after = before | VIRTIO_NET_S_LINK_UP if up else before & ~VIRTIO_NET_S_LINK_UP
        if before == after:
            return False
        mine.config_status = after
        return True

    def note_change(self) -> None:
        """Note that the configuration changed: in the interrupt status, and by its generation."""
        mine = self.cells
        mine.isr |= VIRTIO_PCI_ISR_QUEUE | VIRTIO_PCI_ISR_CONFIG
        mine.generation = (mine.generation + 1) & 0xFF
