"""A store to a notify address that no ioeventfd listens to: block KICK with `ioeventfd=off`.

KVM finds nobody for the address and has to ask QEMU: KVM_RUN returns, QEMU's vCPU thread does in user space what the
device does on a kick, and calls KVM_RUN again. That is a heavy exit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.kvm_eventfd import NOTIFY_BASE
from virtviz.spec.citation import KVM_MAIN, KVM_SVM, KVM_VMX, KVM_X86

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import Vcpu


class HeavyKick(Routine):
    """A store to a queue's notify address that ends in QEMU.

    Args:
        queue: index of the virtqueue, which decides the address.
        qemu: what QEMU does between KVM_RUN's return and the next one.
        enter: how the guest is entered again.
    """

    def __init__(
        self, name: str, kvm: Place, vcpu: Vcpu, queue_name: str, queue: int, qemu: Routine, enter: Routine
    ) -> None:
        super().__init__(name, kvm, queue_name)
        self.vcpu = vcpu
        self.qemu = qemu
        self.enter = enter
        self.address = NOTIFY_BASE + 4 * queue

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the address."""
        return {"address": f"{self.address:#x}"}

    @op(
        "KICK.2",
        "emulate the store",
        "x86_emulate_instruction",
        KVM_X86,
        text="KVM fetches and decodes the guest's instruction to learn what it stored where.",
        to=goto("find_nobody"),
        cost="emulate",
        private=True,
    )
    def emulate(self, me: Context) -> None: ...

    @op(
        "KICK.2",
        "look the address up",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="Nobody in the kernel listens at {address}: no ioeventfd was set up. Only QEMU can know what to do.",
        to=goto("return_to_qemu"),
        private=True,
    )
    def find_nobody(self, me: Context) -> None: ...

    @op(
        "KICK.3",
        "let KVM_RUN return",
        "kvm_arch_vcpu_ioctl_run",
        KVM_X86,
        text="KVM_RUN returns with KVM_EXIT_MMIO: the exit becomes a heavy one, and the guest waits for QEMU.",
        to=call("qemu", "enter"),
        cause="KVM_RUN returns: KVM_EXIT_MMIO",
        private=True,
    )
    def return_to_qemu(self, me: Context) -> None: ...


class HeavyKickIntel(HeavyKick):
    """The same on Intel: the shortcut finds nobody, so the store is emulated after all."""

    first = "exit_ept_misconfig"

    @op(
        "KICK.1",
        "leave the guest: EPT misconfiguration",
        "handle_ept_misconfig",
        KVM_VMX,
        text="The page of {address} is marked as a device, so the store leaves the guest: a VM exit.",
        to=goto("try_fast_bus"),
        fence=True,
    )
    def exit_ept_misconfig(self, me: Context) -> None:
        self.vcpu.leave()

    @op(
        "KICK.2",
        "look at the fast bus",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="{address} is not on KVM's fast MMIO bus: the shortcut does not help.",
        to=goto("emulate"),
        private=True,
    )
    def try_fast_bus(self, me: Context) -> None: ...


class HeavyKickAmd(HeavyKick):
    """The same on AMD: a nested page fault."""

    first = "exit_npf"

    @op(
        "KICK.1",
        "leave the guest: nested page fault",
        "npf_interception",
        KVM_SVM,
        text="No memory is behind {address}, so the store leaves the guest: a VM exit.",
        to=goto("emulate"),
        fence=True,
    )
    def exit_npf(self, me: Context) -> None:
        self.vcpu.leave()
