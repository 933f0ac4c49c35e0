"""KVM's two uses of eventfds: blocks KICK and IRQ.

A guest's store to a notify address becomes a signal (ioeventfd); a signal becomes an interrupt of the guest (irqfd).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from virtviz.engine.effects import (
    ALREADY_AWAKE,
    AT_ENTRY,
    KICKED,
    POSTED,
    SIGNALLED,
    WOKE,
)
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.kvm import FIRST_VECTOR, EventfdCells, Vcpu
from virtviz.spec.citation import EVENTFD, KVM_EVENTFD, KVM_IRQ, KVM_MAIN, KVM_SVM, KVM_VMX, KVM_X86

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context


NOTIFY_BASE = 0xFEBFF000
"""Where the recorded machine put the notification area (BAR 4 + 0x3000); queue q's address is 4q further."""


class HandleKick(Routine):
    """A store to a queue's notify address: block KICK. The vCPU does leave the guest, but only into KVM.

    Args:
        queue: index of the virtqueue, which decides the address.
        eventfd: what KVM signals.
        waiter: what runs when it is signalled.
        enter: how the guest is entered again.
    """

    def __init__(
        self,
        name: str,
        kvm: Place,
        vcpu: Vcpu,
        queue_name: str,
        queue: int,
        eventfd: EventfdCells,
        waiter: Routine,
        enter: Routine,
    ) -> None:
        super().__init__(name, kvm, queue_name)
        self.vcpu = vcpu
        self.eventfd = eventfd
        self.waiter = waiter
        self.enter = enter
        self.address = NOTIFY_BASE + 4 * queue

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the address."""
        return {"address": f"{self.address:#x}"}

    @op(
        "KICK.3",
        "signal the eventfd",
        "ioeventfd_write",
        KVM_EVENTFD,
        text="The address belongs to an ioeventfd: KVM adds 1 to its counter. QEMU is not involved.",
        to={SIGNALLED: call("waiter", "done_with")},
        cost="eventfd",
    )
    def signal_eventfd(self, me: Context) -> str:
        self.eventfd.counter += 1
        return SIGNALLED


class HandleKickIntel(HandleKick):
    """The same on Intel: the exit itself says that a device page was touched, and nothing is decoded."""

    first = "exit_ept_misconfig"
    links: Mapping[str, str] = {"done_with": "skip_instruction"}

    @op(
        "KICK.1",
        "leave the guest: EPT misconfiguration",
        "handle_ept_misconfig",
        KVM_VMX,
        text=(
            "The page of {address} is marked as a device, so the store leaves the guest: a VM exit, into KVM "
            "and no further."
        ),
        to=goto("find_ioeventfd"),
        fence=True,
    )
    def exit_ept_misconfig(self, me: Context) -> None:
        self.vcpu.leave()

    @op(
        "KICK.2",
        "look the address up",
        "kvm_io_bus_write",
        KVM_MAIN,
        text=(
            "KVM looks {address} up on its fast MMIO bus. The instruction is not even decoded: the address "
            "alone says which queue."
        ),
        to=goto("signal_eventfd"),
        private=True,
    )
    def find_ioeventfd(self, me: Context) -> None: ...

    @op(
        "KICK.5",
        "skip the instruction",
        "kvm_skip_emulated_instruction",
        KVM_X86,
        text="The store is done with: KVM moves the guest's instruction pointer past it.",
        to=goto("enter"),
        private=True,
    )
    def skip_instruction(self, me: Context) -> None: ...


class HandleKickAmd(HandleKick):
    """The same on AMD: a nested page fault, and KVM has to emulate the store before it knows what was written."""

    first = "exit_npf"
    links: Mapping[str, str] = {"done_with": "enter"}

    @op(
        "KICK.1",
        "leave the guest: nested page fault",
        "npf_interception",
        KVM_SVM,
        text="No memory is behind {address}, so the store leaves the guest: a VM exit, into KVM and no further.",
        to=goto("emulate"),
        fence=True,
    )
    def exit_npf(self, me: Context) -> None:
        self.vcpu.leave()

    @op(
        "KICK.2",
        "emulate the store",
        "x86_emulate_instruction",
        KVM_X86,
        text="AMD has no shortcut here: KVM fetches and decodes the guest's instruction to learn what it stored where.",
        to=goto("find_ioeventfd"),
        cost="emulate",
        private=True,
    )
    def emulate(self, me: Context) -> None: ...

    @op(
        "KICK.2",
        "look the address up",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="KVM looks {address} up on its MMIO bus and finds the queue's ioeventfd.",
        to=goto("signal_eventfd"),
        private=True,
    )
    def find_ioeventfd(self, me: Context) -> None: ...


class Irqfd(Routine):
    """Signalling a queue's call eventfd interrupts the vCPU: block IRQ, rows 1 to 4, in the thread that signals.

    Args:
        bit: the queue's vector, as a bit number.
        eventfd: the call eventfd.
    """

    first = "irqfd_wakeup"

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, queue_name: str, bit: int, eventfd: EventfdCells) -> None:
        super().__init__(name, kvm, queue_name)
        self.vcpu = vcpu
        self.bit = bit
        self.eventfd = eventfd
        self.vcpu_thread = vcpu.thread

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the vector."""
        return {"vector": FIRST_VECTOR + self.bit, "vcpu": self.vcpu_thread.name}

    @op(
        "IRQ.1",
        "run the irqfd's callback",
        "irqfd_wakeup",
        KVM_EVENTFD,
        text="Nobody reads this eventfd: KVM put a callback on it, and the callback runs in the thread that signalled.",
        private=True,
    )
    def irqfd_wakeup(self, me: Context) -> None: ...

    @op(
        "IRQ.2",
        "take the counter back to 0",
        "eventfd_ctx_do_read",
        EVENTFD,
        text="The signal is taken off the eventfd's counter.",
    )
    def drain_counter(self, me: Context) -> None:
        self.eventfd.counter = 0

    @op(
        "IRQ.3",
        "look up the route",
        "kvm_arch_set_irq_inatomic",
        KVM_IRQ,
        text=(
            "The eventfd stands for an MSI route: vector {vector:#04x} on {vcpu}. It can be delivered right "
            "here, without a work queue."
        ),
        to=goto("deliver"),
        private=True,
    )
    def route_msi(self, me: Context) -> None: ...

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


class IrqfdPosted(Irqfd):
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


class IrqfdKicked(Irqfd):
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
