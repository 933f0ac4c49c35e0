"""A store to a notify address that no ioeventfd listens to: block KICK with `ioeventfd=off`.

KVM finds nobody for the address and has to ask QEMU: KVM_RUN returns, QEMU's vCPU thread does in user space what the
device does on a kick, and calls KVM_RUN again. That is a heavy exit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import call, goto, op
from virtviz.paths.kvm_notify import LeaveOnAmd, LeaveOnIntel, NotifyStore
from virtviz.spec.citation import KVM_MAIN, KVM_X86

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import Vcpu


class HeavyKick(NotifyStore):
    """A store to a queue's notify address that ends in QEMU.

    Args:
        qemu: what QEMU does between KVM_RUN's return and the next one.
    """

    def __init__(
        self, name: str, kvm: Place, vcpu: Vcpu, queue_name: str, queue: int, qemu: Routine, enter: Routine
    ) -> None:
        super().__init__(name, kvm, vcpu, queue_name, queue, enter)
        self.qemu = qemu

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


class HeavyKickIntel(LeaveOnIntel, HeavyKick):
    """The same on Intel: the shortcut finds nobody, so the store is emulated after all."""

    links: Mapping[str, str] = {"left": "try_fast_bus"}

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


class HeavyKickAmd(LeaveOnAmd, HeavyKick):
    """The same on AMD: a nested page fault."""

    links: Mapping[str, str] = {"left": "emulate"}
