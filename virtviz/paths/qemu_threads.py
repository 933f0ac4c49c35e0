"""What QEMU's vCPU threads owe its main loop: the Big QEMU Lock around what they do, and word of what is to be done.

Source: QEMU 10.0 system/physmem.c (prepare_mmio_access), util/async.c (aio_notify).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.spec.citation import QEMU_ASYNC, QEMU_PHYSMEM

if TYPE_CHECKING:
    from virtviz.paths.context import Context
    from virtviz.paths.qemu import Qemu


class UnderLock(Routine):
    """What a vCPU's thread does between KVM_RUN's return and its next call, under the Big QEMU Lock.

    What it does there, `work`, and the rows are a subclass's.

    Attributes:
        qemu: its process.
    """

    qemu: Qemu

    def lock_is_free(self) -> bool:
        """Say whether the thread can have the Big QEMU Lock."""
        return self.qemu.lock_is_free()

    @op(
        "take lock",
        "take the Big QEMU Lock",
        "prepare_mmio_access",
        QEMU_PHYSMEM,
        text="The vCPU's thread is in QEMU now, where devices run under one lock: it takes it. The guest stands still.",
        to=goto("work"),
        guard="lock_is_free",
    )
    def take_lock(self, me: Context) -> None:
        self.qemu.take_lock(me)

    @op(
        "give lock up",
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


class TellsMainLoop(Routine):
    """Something that another thread than the main loop does, and that the main loop has to hear of.

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
