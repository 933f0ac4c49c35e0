"""QEMU over packed rings, where it tells the guest by the device's line."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from virtviz.paths import qemu_packed
from virtviz.paths.qemu_virtio_mmio import TellsByLine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import Routine


class SendQueuedByLine(TellsByLine, qemu_packed.SendQueued):
    """The bottom half that sends."""


class DeliverByLine(TellsByLine, qemu_packed.Deliver):
    """What puts a frame into the guest's buffers."""


class DropQueuedByLine(TellsByLine, qemu_packed.DropQueued):
    """What drops packets for want of a link."""


BY_LINE: Final[Mapping[type[Routine], type[Routine]]] = MappingProxyType(
    {
        qemu_packed.SendQueued: SendQueuedByLine,
        qemu_packed.Deliver: DeliverByLine,
        qemu_packed.DropQueued: DropQueuedByLine,
    }
)
"""A routine that tells the guest by a queue's message -> the one that does by the device's line."""
