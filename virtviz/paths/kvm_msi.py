"""How a message-signalled interrupt reaches a vCPU: row 4 of block IRQ, in the thread that sends it.

An irqfd comes here from inside the kernel, a program by a system call of its own (`SignalMsi`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from virtviz.engine.effects import ALREADY_AWAKE, AT_ENTRY, KICKED, POSTED, WOKE
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.kvm import Vcpu, vector_of
from virtviz.spec.citation import KVM_IRQCHIP, KVM_MAIN, KVM_SVM, KVM_VMX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context


class MsiDelivery(Routine):
    """Delivers the vector of one queue to the vCPU that serves it.

    Args:
        bit: the queue's vector, as a bit number.
    """

    first = "deliver"

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, queue_name: str, bit: int) -> None:
        super().__init__(name, kvm, queue_name)
        self.vcpu = vcpu
        self.bit = bit
        self.vcpu_thread = vcpu.thread

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the vector."""
        return {"vector": vector_of(self.bit), "vcpu": self.vcpu_thread.name}

    @op(
        "IRQ.4",
        "wake the vCPU's thread",
        "kvm_vcpu_wake_up",
        KVM_MAIN,
        text={
            WOKE: "{vcpu} was halted and asleep: its thread is made runnable.",
            ALREADY_AWAKE: "{vcpu}'s thread is awake, only not in the guest: it will see the interrupt as it enters.",
        },
        to={WOKE: RETURN, ALREADY_AWAKE: RETURN},
        target="vcpu_thread",
        fence=True,
    )
    def wake_vcpu(self, me: Context) -> str:
        return self.vcpu_thread.me.wake()


class PostedMsi(MsiDelivery):
    """With APICv: the interrupt is posted."""

    @op(
        "IRQ.4",
        "set the vector's bit",
        "vmx_deliver_posted_interrupt",
        KVM_VMX,
        text={
            "new": "Bit {vector:#04x} is set in the posted-interrupt descriptor, which the processor itself reads.",
            "merged": "The bit is set already: this interrupt and the one before become one.",
            POSTED: "The bit is set, and a notification is under way already: it will do for both.",
        },
        to={"new": goto("notify_vcpu"), "merged": RETURN, POSTED: RETURN},
        target="vcpu_thread",
        fence=True,
    )
    def deliver(self, me: Context) -> str:
        mine = self.vcpu.cells
        if mine.posted >> self.bit & 1:
            return "merged"
        mine.posted |= 1 << self.bit
        if mine.outstanding:
            return POSTED
        mine.outstanding = 1
        return "new"

    @op(
        "IRQ.4",
        "tell the vCPU",
        "kvm_vcpu_trigger_posted_interrupt",
        KVM_VMX,
        text={
            POSTED: "{vcpu} runs in the guest: one IPI makes its processor take the posted interrupt. No exit.",
            AT_ENTRY: "{vcpu} is not in the guest: it will find the interrupt when it enters.",
        },
        to={POSTED: RETURN, AT_ENTRY: goto("wake_vcpu")},
        target="vcpu_thread",
        cost="ipi",
    )
    def notify_vcpu(self, me: Context) -> str:
        return POSTED if self.vcpu.cells.in_guest else AT_ENTRY


class KickedMsi(MsiDelivery):
    """Without APICv: the interrupt is noted, and a running vCPU is kicked out of the guest to get it."""

    def on_intel(self) -> Self:
        """Be the same on an Intel processor, where the function is another."""
        self.functions = {"svm_deliver_interrupt": ("vmx_deliver_interrupt", KVM_VMX)}
        return self

    @op(
        "IRQ.4",
        "note the interrupt",
        "svm_deliver_interrupt",
        KVM_SVM,
        text={
            "new": "Vector {vector:#04x} is set in the emulated APIC's request register.",
            "merged": "The vector is pending already: this interrupt and the one before become one.",
        },
        to={"new": goto("kick_vcpu"), "merged": goto("kick_again")},
        fence=True,
    )
    def deliver(self, me: Context) -> str:
        mine = self.vcpu.cells
        if mine.requested >> self.bit & 1:
            return "merged"
        mine.requested |= 1 << self.bit
        return "new"

    @op(
        "IRQ.4",
        "kick the vCPU",
        "kvm_vcpu_kick",
        KVM_MAIN,
        text={
            KICKED: "{vcpu} runs in the guest: an IPI forces it out, so that KVM can inject the interrupt.",
            AT_ENTRY: "{vcpu} is outside the guest: KVM will inject the interrupt when it enters.",
        },
        to={KICKED: RETURN, AT_ENTRY: goto("wake_vcpu")},
        target="vcpu_thread",
        cost="ipi",
    )
    def kick_vcpu(self, me: Context) -> str:
        mine = self.vcpu.cells
        if not mine.in_guest:
            return AT_ENTRY
        mine.kicked = 1
        return KICKED

    @op(
        "IRQ.4",
        "kick the vCPU once more",
        "kvm_vcpu_kick",
        KVM_MAIN,
        text={
            "forced out": "{vcpu} runs in the guest and is forced out again, although one injection will do for both.",
            "outside": "{vcpu} is outside the guest, and will find the vector when it enters.",
        },
        to={"forced out": RETURN, "outside": RETURN},
        cost="ipi",
    )
    def kick_again(self, me: Context) -> str:
        mine = self.vcpu.cells
        if not mine.in_guest:
            return "outside"
        mine.kicked = 1
        return "forced out"


class SignalMsi(Routine):
    """ioctl(KVM_SIGNAL_MSI): a program says itself what the device would have written. Row 3 of block IRQ.

    Args:
        deliver: delivers the queue's vector.
    """

    def __init__(self, name: str, place: Place, deliver: MsiDelivery) -> None:
        super().__init__(name, place, deliver.queue)
        self.deliver = deliver

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the vector."""
        return self.deliver.words(me)

    @op(
        "IRQ.3",
        "take the message",
        "kvm_send_userspace_msi",
        KVM_IRQCHIP,
        text=(
            "QEMU hands KVM the device's MSI message, vector {vector:#04x} on {vcpu}: no eventfd, but a system call "
            "for each interrupt."
        ),
        to=call("deliver", "finish"),
        private=True,
    )
    def send_msi(self, me: Context) -> None: ...

    @op(
        "IRQ.3",
        "return from the ioctl",
        "kvm_vm_ioctl",
        KVM_MAIN,
        text="The interrupt is on its way: ioctl() returns.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def finish(self, me: Context) -> None: ...
