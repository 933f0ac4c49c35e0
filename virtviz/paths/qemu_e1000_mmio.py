"""An access to a register of the e1000, as QEMU's vCPU thread serves it between two KVM_RUNs.

First comes the Big QEMU Lock, then what KVM has noted of stores that could wait, then the access itself.

Source: QEMU 10.0 system/physmem.c (prepare_mmio_access), accel/kvm/kvm-all.c (kvm_flush_coalesced_mmio_buffer),
hw/net/e1000.c (mac_icr_read, set_imc, set_ims, set_rdt).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.qemu_e1000 import E1000, E1000Routine
from virtviz.paths.qemu_threads import UnderLock
from virtviz.spec.citation import QEMU_E1000, QEMU_KVM, QEMU_MEMORY
from virtviz.spec.e1000 import STATUS_LINK_UP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm_device import AccessCells, CoalescedRing


class ServeAccess(UnderLock, E1000Routine):
    """An access, from KVM_RUN's return to its next call.

    Args:
        place: QEMU's vCPU thread.
        parked: stores that KVM has noted.
        take_tail: what a store to RDT leads to, when QEMU comes to see it.
        serve: what the access itself leads to.
        row: of the access.
    """

    links = MappingProxyType({"work": "catch_up"})
    retold = MappingProxyType(
        {"release_lock": {"text": "The access is done with: the lock is given up, and the thread calls KVM_RUN again."}}
    )

    def __init__(
        self,
        name: str,
        place: Place,
        device: E1000,
        *,
        register: str,
        parked: CoalescedRing,
        take_tail: Routine,
        serve: Routine,
        row: str,
    ) -> None:
        super().__init__(name, place, device, serve.queue)
        self.register = register
        self.parked = parked
        self.take_tail = take_tail
        self.serve = serve
        self.qemu = device.qemu
        self.rows = {"access": row, "take lock": row, "give lock up": row}

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the register."""
        return {**super().words(me), "register": self.register}

    @op(
        {"parked": "E1000-RX.16", "": "access"},
        {"parked": "catch up with a store to RDT", "": "find no store to catch up with"},
        "kvm_flush_coalesced_mmio_buffer",
        QEMU_KVM,
        text={
            "parked": "KVM has noted an earlier store that could wait: it comes first. RDT is {rdt} now.",
            "none": "No earlier store waits in the page that KVM and QEMU share.",
        },
        to={"parked": call("take_tail", "catch_up"), "none": goto("dispatch")},
    )
    def catch_up(self, me: Context) -> str:
        if not self.parked.queue:
            return "none"
        _, value = self.parked.take()
        self.mine.rdt = value & 0xFFFF
        return "parked"

    @op(
        "access",
        "find the register",
        "memory_region_dispatch_write",
        QEMU_MEMORY,
        text="The address belongs to the e1000, and there to {register}: the device model's function for it is called.",
        to=call("serve", "release_lock"),
        private=True,
    )
    def dispatch(self, me: Context) -> None: ...


class ServeLoad(ServeAccess):
    """A load, in the same way."""

    retold = MappingProxyType({"dispatch": {"function": "memory_region_dispatch_read"}})


class ReadCauses(E1000Routine):
    """A load from ICR: mac_icr_read.

    Args:
        access: where the value goes.
        interrupt: what comes of it that there are no causes any more.
    """

    def __init__(self, name: str, place: Place, device: E1000, access: AccessCells, interrupt: Routine) -> None:
        super().__init__(name, place, device, device.rx_name)
        self.access = access
        self.interrupt = interrupt

    @op(
        "E1000-TX.14",
        "read the causes",
        "mac_icr_read",
        QEMU_E1000,
        text="ICR says why the card interrupts: {icr}.",
    )
    def read(self, me: Context) -> None:
        self.access.value = self.mine.icr

    @op(
        "E1000-TX.14",
        "clear the causes",
        "mac_icr_read",
        QEMU_E1000,
        text="Reading ICR clears it: no cause is left, so that the line goes low before the load is even finished.",
        to=call("interrupt", None),
    )
    def clear(self, me: Context) -> None:
        self.mine.icr = 0


class ReadStatus(E1000Routine):
    """A load from STATUS: nothing happens.

    Args:
        access: where the value goes.
        row: which row it is.
    """

    def __init__(self, name: str, place: Place, device: E1000, access: AccessCells, row: str) -> None:
        super().__init__(name, place, device, device.rx_name)
        self.access = access
        self.rows = {"status": row}

    @op(
        "status",
        "read the status",
        "mac_readreg",
        QEMU_E1000,
        text="STATUS says that the link is up. Nobody wanted to know: the load only had to come after the store.",
        to=RETURN,
    )
    def read(self, me: Context) -> None:
        self.access.value = STATUS_LINK_UP


class SetMask(E1000Routine):
    """A store to IMC: no interrupts of these causes.

    Args:
        access: the value stored.
        interrupt: what comes of it.
    """

    def __init__(self, name: str, place: Place, device: E1000, access: AccessCells, interrupt: Routine) -> None:
        super().__init__(name, place, device, device.rx_name)
        self.access = access
        self.interrupt = interrupt

    @op(
        "E1000-TX.15",
        "mask causes",
        "set_imc",
        QEMU_E1000,
        text="The mask is {ims} now: no cause is wanted any more.",
        to=call("interrupt", None),
    )
    def mask(self, me: Context) -> None:
        self.mine.ims &= ~self.access.value


class ClearMask(E1000Routine):
    """A store to IMS: interrupts of these causes are wanted again."""

    def __init__(self, name: str, place: Place, device: E1000, access: AccessCells, interrupt: Routine) -> None:
        super().__init__(name, place, device, device.rx_name)
        self.access = access
        self.interrupt = interrupt

    @op(
        "E1000-TX.19",
        "unmask causes",
        "set_ims",
        QEMU_E1000,
        text="The mask is {ims} now. A cause that came during the poll, and was not wanted then, is one from now on.",
        to=call("interrupt", None),
    )
    def unmask(self, me: Context) -> None:
        self.mine.ims |= self.access.value
