"""QEMU's vCPU thread in user space: what a heavy exit to a queue's notify address leads to, with `ioeventfd=off`.

The vCPU thread itself handles the kick, under the Big QEMU Lock, while its guest stands still. It sends no packet: it
schedules the bottom half and wakes the main loop by writing to an eventfd, which is a system call of its own.

Source: QEMU 10.0 hw/virtio/virtio-pci.c (virtio_pci_notify_write), system/physmem.c (prepare_mmio_access), util/async.c
(aio_notify).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, call, op
from virtviz.paths.qemu_rx import ServeRxKick
from virtviz.paths.qemu_threads import TellsMainLoop, UnderLock
from virtviz.paths.qemu_tx import ServeTxKick
from virtviz.spec.citation import QEMU_VIRTIO_PCI

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.qemu import Qemu
    from virtviz.paths.qemu_nic import Nic


class HandleMmio(UnderLock):
    """A store to a notify address, as QEMU's vCPU thread handles it between two KVM_RUNs.

    Args:
        qemu: its process.
        serve: what a kick of the queue leads to.
    """

    rows = MappingProxyType({"take lock": "KICK.3", "give lock up": "KICK.5"})
    links = MappingProxyType({"work": "find_queue"})

    def __init__(self, name: str, place: Place, qemu: Qemu, queue: str, serve: Routine) -> None:
        super().__init__(name, place, queue)
        self.qemu = qemu
        self.serve = serve

    @op(
        "Q-TX.3",
        "find the queue",
        "virtio_pci_notify_write",
        QEMU_VIRTIO_PCI,
        spec="4.1.4.4",
        text="The address is one of the device's notify addresses: QEMU runs the handler of its queue, in this thread.",
        to=call("serve", "release_lock"),
    )
    def find_queue(self, me: Context) -> None: ...


class ServeTxKickFromVcpu(TellsMainLoop, ServeTxKick):
    """A kick of the transmit queue, handled by the vCPU's thread."""

    first = "note_kick"
    links: Mapping[str, str] = {}

    def __init__(self, name: str, place: Place, nic: Nic, drop: Routine, write: Routine) -> None:
        super().__init__(name, place, nic, drop)
        self.qemu = nic.qemu
        self.write = write


class ServeRxKickFromVcpu(TellsMainLoop, ServeRxKick):
    """A kick of the receive queue, handled by the vCPU's thread."""

    first = "flush"
    links: Mapping[str, str] = {}

    def __init__(self, name: str, place: Place, nic: Nic, deliver: Routine, write: Routine) -> None:
        super().__init__(name, place, nic, deliver)
        self.qemu = nic.qemu
        self.write = write
