"""A guest's access to a register of an emulated device: out of the guest, and in most cases to QEMU and back.

Behind such an address there is no memory, so every load and store leaves the guest, and KVM has to emulate the
instruction to learn what it wanted. If nobody in the kernel knows the address, KVM_RUN returns to QEMU: a heavy exit.

A store that may wait does not go to QEMU at once. QEMU names such addresses to KVM beforehand (coalesced MMIO); KVM
then notes address and value in memory that it shares with QEMU, and lets the guest go on: a light exit. QEMU looks
there before it serves the next access that does reach it.

Source: Linux 6.12 arch/x86/kvm/x86.c (emulator_read_write, complete_emulated_mmio), virt/kvm/coalesced_mmio.c.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import KVM_COALESCED, KVM_MAIN, KVM_SVM, KVM_VMX, KVM_X86
from virtviz.spec.e1000 import ADDRESSES, REGISTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import Vcpu

COALESCED_MAX: Final = 170
"""Stores that the shared page has room for (KVM_COALESCED_MMIO_MAX). A driver fills no more than one ring between two
accesses that go to QEMU, 16 descriptors at a time, and no ring here is so long that this were not enough."""


@cells
class AccessCells(Cells):
    """The access under way: the value that the guest's instruction stores, or that it will get."""

    value: int = 0


class CoalescedRing:
    """The page in which KVM notes stores that may wait: offset of the register, and the value, in one number."""

    def __init__(self, state: State, name: str) -> None:
        self.queue = Fifo(state, name, COALESCED_MAX)

    def put(self, offset: int, value: int) -> None:
        """Note a store."""
        self.queue.put(offset << 32 | value)

    def take(self) -> tuple[int, int]:
        """Take the oldest store: offset and value."""
        entry = self.queue.take()
        return entry >> 32, entry & 0xFFFFFFFF


class _Access(Routine):
    """What all parts of an access know: the register.

    Attributes:
        addresses: where the device's registers are; an e1000's unless a subclass says otherwise.
    """

    addresses: ClassVar[Mapping[str, int]] = ADDRESSES

    def __init__(self, name: str, kvm: Place, register: str, queue: str, rows: tuple[str, str]) -> None:
        super().__init__(name, kvm, queue)
        self.register = register
        self.rows = {"leave": rows[0], "serve": rows[1]}

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the register and its address."""
        return {"register": self.register, "address": f"{self.addresses[self.register]:#x}"}


class LeaveForDevice(_Access):
    """The exit, and KVM's emulation of the instruction.

    Args:
        access: what the instruction turns out to want.
    """

    def __init__(
        self, name: str, kvm: Place, vcpu: Vcpu, register: str, queue: str, rows: tuple[str, str], access: Routine
    ) -> None:
        super().__init__(name, kvm, register, queue, rows)
        self.vcpu = vcpu
        self.access = access

    @op(
        "serve",
        "emulate the instruction",
        "x86_emulate_instruction",
        KVM_X86,
        text="KVM fetches and decodes the guest's instruction, to learn whether it loads or stores, and what.",
        to=goto("access"),
        cost="emulate",
        private=True,
    )
    def emulate(self, me: Context) -> None: ...


class LeaveForDeviceIntel(LeaveForDevice):
    """The same on Intel: the page is marked, and there is a shortcut, which does not help here."""

    first = "exit_ept_misconfig"

    @op(
        "leave",
        "leave the guest: EPT misconfiguration",
        "handle_ept_misconfig",
        KVM_VMX,
        text="The page of {address}, register {register}, is marked as a device: the access leaves the guest.",
        to=goto("try_fast_bus"),
        fence=True,
    )
    def exit_ept_misconfig(self, me: Context) -> None:
        self.vcpu.leave()

    @op(
        "serve",
        "look at the fast bus",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="{address} is not on KVM's fast MMIO bus, as a virtio device's kick would be: no shortcut.",
        to=goto("emulate"),
        private=True,
    )
    def try_fast_bus(self, me: Context) -> None: ...


class LeaveForDeviceAmd(LeaveForDevice):
    """The same on AMD: a nested page fault."""

    first = "exit_npf"

    @op(
        "leave",
        "leave the guest: nested page fault",
        "npf_interception",
        KVM_SVM,
        text="No memory is behind {address}, register {register}: the access leaves the guest.",
        to=goto("emulate"),
        fence=True,
    )
    def exit_npf(self, me: Context) -> None:
        self.vcpu.leave()


class StoreInQemu(_Access):
    """A store that only QEMU can carry out.

    Args:
        qemu: what QEMU does between KVM_RUN's return and the next one.
        enter: how the guest is entered again.
    """

    def __init__(
        self, name: str, kvm: Place, register: str, queue: str, rows: tuple[str, str], qemu: Routine, enter: Routine
    ) -> None:
        super().__init__(name, kvm, register, queue, rows)
        self.qemu = qemu
        self.enter = enter

    @op(
        "serve",
        "look the address up",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="Nobody in the kernel knows {address}. Only QEMU can know what a store to {register} does.",
        private=True,
    )
    def find_nobody(self, me: Context) -> None: ...

    @op(
        "serve",
        "let KVM_RUN return",
        "kvm_arch_vcpu_ioctl_run",
        KVM_X86,
        text="KVM_RUN returns with KVM_EXIT_MMIO: the exit becomes a heavy one, and the guest waits for QEMU.",
        to=call("qemu", "enter"),
        cause="KVM_RUN returns: KVM_EXIT_MMIO",
        private=True,
    )
    def return_to_qemu(self, me: Context) -> None: ...


class KickInQemu(StoreInQemu):
    """A store that tells the device of a packet to be sent."""

    retold = MappingProxyType({"return_to_qemu": {"milestone": "notified"}})


class LoadInQemu(_Access):
    """A load whose value only QEMU knows: the instruction is emulated once more when it has come."""

    def __init__(
        self, name: str, kvm: Place, register: str, queue: str, rows: tuple[str, str], qemu: Routine, enter: Routine
    ) -> None:
        super().__init__(name, kvm, register, queue, rows)
        self.qemu = qemu
        self.enter = enter

    @op(
        "serve",
        "look the address up",
        "kvm_io_bus_read",
        KVM_MAIN,
        text="Nobody in the kernel knows {address}. Only QEMU can know what {register} holds.",
        private=True,
    )
    def find_nobody(self, me: Context) -> None: ...

    @op(
        "serve",
        "let KVM_RUN return",
        "kvm_arch_vcpu_ioctl_run",
        KVM_X86,
        text="KVM_RUN returns with KVM_EXIT_MMIO, and nothing loaded yet: a heavy exit, and the guest waits for QEMU.",
        to=call("qemu", "complete"),
        cause="KVM_RUN returns: KVM_EXIT_MMIO",
        private=True,
    )
    def return_to_qemu(self, me: Context) -> None: ...

    @op(
        "serve",
        "finish the load",
        "complete_emulated_mmio",
        KVM_X86,
        text=(
            "KVM_RUN was called again, and the value is there: the instruction is emulated a second time, and gets it."
        ),
        to=goto("enter"),
        cost="emulate",
        private=True,
    )
    def complete(self, me: Context) -> None: ...


class StoreLater(_Access):
    """A store that may wait: it is only noted.

    Args:
        access: the value stored.
        ring: where it is noted.
        enter: how the guest is entered again.
    """

    def __init__(
        self,
        name: str,
        kvm: Place,
        register: str,
        queue: str,
        rows: tuple[str, str],
        access: AccessCells,
        ring: CoalescedRing,
        enter: Routine,
    ) -> None:
        super().__init__(name, kvm, register, queue, rows)
        self.access = access
        self.ring = ring
        self.enter = enter

    @op(
        "serve",
        "note the store for later",
        "coalesced_mmio_write",
        KVM_COALESCED,
        text=(
            "QEMU has said that a store to {register} may wait: KVM notes it in a page they share. The exit stays a "
            "light one."
        ),
        to=goto("enter"),
    )
    def park(self, me: Context) -> None:
        self.ring.put(REGISTERS[self.register], self.access.value)
