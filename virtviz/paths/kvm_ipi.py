"""A vCPU interrupts another one of its machine: a store to the command register of its APIC (ICR).

With APICv too this store leaves the guest, unless the processor can virtualize interrupts between processors (IPI
virtualization, Intel since Sapphire Rapids; AVIC, AMD), which is not modelled.

Source: Linux 6.12 arch/x86/kvm/lapic.c (kvm_apic_send_ipi), arch/x86/kvm/vmx/vmx.c (vmx_update_msr_bitmap_x2apic).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, call, op
from virtviz.spec.citation import KVM_LAPIC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import Vcpu
    from virtviz.paths.kvm_msi import MsiDelivery


class SendIpi(Routine):
    """KVM sends an interrupt from one vCPU to another; row 4 of IRQ delivers it.

    Args:
        vcpu: the one that sends.
        deliver: delivers the vector to the other.
        enter: how the sender's guest is entered again.
    """

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, deliver: MsiDelivery, enter: Routine) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.deliver = deliver
        self.enter = enter

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the vector and the vCPU."""
        return self.deliver.words(me)

    @op(
        "IRQ.4",
        "send the interrupt on",
        "kvm_apic_send_ipi",
        KVM_LAPIC,
        text="The store to the APIC's command register left the guest: KVM sends vector {vector:#04x} on to {vcpu}.",
        to=call("deliver", "enter"),
        fence=True,
    )
    def exit_icr(self, me: Context) -> None:
        self.vcpu.leave()
