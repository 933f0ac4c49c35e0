"""QEMU's vCPU thread in user space: what a heavy exit to a queue's notify address leads to, with `ioeventfd=off`.

The vCPU thread itself handles the kick, under the Big QEMU Lock, while its guest stands still. It sends no packet: it
schedules the bottom half and wakes the main loop by writing to an eventfd, which is a system call of its own.

Source: QEMU 10.0 hw/virtio/virtio-pci.c (virtio_pci_notify_write), system/physmem.c (prepare_mmio_access), util/async.c
(aio_notify).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, op
from virtviz.paths.qemu_rx import ServeRxKick
from virtviz.paths.qemu_tx import ServeTxKick
from virtviz.spec.citation import QEMU_ASYNC, QEMU_PHYSMEM, QEMU_VIRTIO_PCI

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.qemu import Qemu
    from virtviz.paths.qemu_nic import Nic


class HandleMmio(Routine):
    """A store to a notify address, as QEMU's vCPU thread handles it between two KVM_RUNs.

    Args:
        qemu: its process.
        serve: what a kick of the queue leads to.
    """

    def __init__(self, name: str, place: Place, qemu: Qemu, queue: str, serve: Routine) -> None:
        super().__init__(name, place, queue)
        self.qemu = qemu
        self.serve = serve

    def lock_is_free(self) -> bool:
        """Say whether the thread can have the Big QEMU Lock."""
        return self.qemu.lock_is_free()

    @op(
        "KICK.3",
        "take the Big QEMU Lock",
        "prepare_mmio_access",
        QEMU_PHYSMEM,
        text="The vCPU's thread is in QEMU now, where devices run under one lock: it takes it. The guest stands still.",
        guard="lock_is_free",
    )
    def take_lock(self, me: Context) -> None:
        self.qemu.take_lock(me)

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

    @op(
        "KICK.5",
        "give the lock up, call KVM_RUN",
        "address_space_rw",
        QEMU_PHYSMEM,
        text="The store is done with: the lock is given up, and the thread calls KVM_RUN again at once.",
        to=RETURN,
        cause="ioctl(KVM_RUN)",
        fence=True,
    )
    def release_lock(self, me: Context) -> None:
        self.qemu.release_lock()


class _TellsMainLoop(Routine):
    """A handler that is run by another thread than the main loop's, and has to tell it.

    Attributes:
        qemu: its process.
        write: write() to the main loop's eventfd.
    """

    qemu: Qemu
    write: Routine

    @op(
        "KICK.4",
        "tell the main loop",
        "aio_notify",
        QEMU_ASYNC,
        text={
            "asleep": "The main loop is in ppoll(), or on its way there: its eventfd is written, a system call.",
            "awake": "The main loop is at work and will look before it waits: nothing has to be written.",
        },
        to={"asleep": call("write", None), "awake": RETURN},
        fence=True,
    )
    def notify(self, me: Context) -> str:
        return "asleep" if self.qemu.cells.notify_me else "awake"


class ServeTxKickFromVcpu(_TellsMainLoop, ServeTxKick):
    """A kick of the transmit queue, handled by the vCPU's thread."""

    first = "note_kick"
    links: Mapping[str, str] = {}

    def __init__(self, name: str, place: Place, nic: Nic, drop: Routine, write: Routine) -> None:
        super().__init__(name, place, nic, drop)
        self.qemu = nic.qemu
        self.write = write


class ServeRxKickFromVcpu(_TellsMainLoop, ServeRxKick):
    """A kick of the receive queue, handled by the vCPU's thread."""

    first = "flush"
    links: Mapping[str, str] = {}

    def __init__(self, name: str, place: Place, nic: Nic, deliver: Routine, write: Routine) -> None:
        super().__init__(name, place, nic, deliver)
        self.qemu = nic.qemu
        self.write = write
