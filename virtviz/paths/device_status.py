"""The status of a virtio device, and how it asks to be reset.

A device that wants a reset sets a bit in its status, says that its configuration changed, and from then on serves no
queue. vhost itself never does: it only leaves the one queue alone until the next kick. So the bit stays clear unless
the back-end is set to check as another does (`device_checks`).

The interrupt for a changed configuration ends here, in the interrupt status: no code of the guest that would take it is
modelled, and nobody resets the device.

Source: virtio 1.4, 2.1.2; QEMU hw/virtio/virtio.c (virtio_error, virtio_notify_config).
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
    """

    status: int = LIVE
    isr: int = 0
    generation: int = 0


class DeviceStatus:
    """The status of one device, in use from the beginning."""

    def __init__(self, state: State, name: str) -> None:
        self.cells = state.add(StatusCells, name)

    @property
    def needs_reset(self) -> bool:
        """Say whether the device has given up."""
        return bool(self.cells.status & VIRTIO_CONFIG_S_NEEDS_RESET)

    def give_up(self) -> None:
        """Ask to be reset, and say that the configuration changed."""
        mine = self.cells
        mine.status |= VIRTIO_CONFIG_S_NEEDS_RESET
        mine.isr |= VIRTIO_PCI_ISR_QUEUE | VIRTIO_PCI_ISR_CONFIG
        mine.generation = (mine.generation + 1) & 0xFF
