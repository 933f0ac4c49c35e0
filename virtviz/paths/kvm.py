"""KVM: leaving the guest and entering it, ioeventfd and irqfd, and how an interrupt reaches a vCPU.

With APICv an interrupt is posted: a bit is set in memory that the processor itself looks at, and a running guest takes it without leaving. Without it
the guest has to be kicked out, and KVM injects the interrupt when it enters again; if the guest has interrupts disabled at that moment, KVM asks
for one more exit as soon as they are enabled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import ALREADY_AWAKE, AT_ENTRY, KICKED, POSTED, SIGNALLED, WOKE
from virtviz.engine.ops import RETURN, Routine, block, call, goto, op
from virtviz.spec.citation import EVENTFD, KVM_EVENTFD, KVM_IRQ, KVM_LAPIC, KVM_MAIN, KVM_SVM, KVM_VMX, KVM_X86

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu

FIRST_VECTOR = 0x27
"""Vector of queue 0 in the recorded guest; a guest chooses its own."""
NOTIFY_BASE = 0xFEBFF000
"""Where the recorded machine put the notification area (BAR 4 + 0x3000); queue q's address is 4q further."""


@cells
class EventfdCells(Cells):
    """An eventfd: its counter."""

    counter: int = 0


@cells
class VcpuCells(Cells):
    """What KVM keeps for a vCPU. Vectors are bits, by queue number.

    Attributes:
        in_guest: 1 while the processor is in guest mode.
        posted: vectors in the posted-interrupt descriptor (APICv).
        outstanding: 1 when a posted notification is under way (the ON bit).
        requested: vectors in the interrupt request register (no APICv).
        injected: the vector injected at the last entry, plus one; 0 for none.
        window: 1 when KVM asked to be told as soon as the guest enables interrupts.
        kicked: 1 when another CPU has sent an IPI to get the vCPU out of the guest.
        quiet_eoi: 1 when the guest may end the interrupt without an exit (paravirtual EOI).
        vector: the vector being handled.
    """

    in_guest: int = 1
    posted: int = 0
    outstanding: int = 0
    requested: int = 0
    injected: int = 0
    window: int = 0
    kicked: int = 0
    quiet_eoi: int = 0
    vector: int = 0


class Vcpu:
    """KVM's side of a vCPU.

    Attributes:
        guest: the guest's side, set when it is made.
        thread: its thread, set when it is made.
        take_gates, exit_gates: what interrupts it in user and in kernel mode, set by the wiring.
    """

    guest: GuestCpu
    thread: Thread
    take_gates: tuple[Routine, Routine]
    exit_gates: tuple[Routine, Routine]

    def __init__(self, state: State, name: str, queues: Sequence[str], *, apicv: bool) -> None:
        self.cells = state.add(VcpuCells, name)
        self.queues = queues
        self.apicv = apicv

    # What may interrupt the thread now

    def intercept(self, user_mode: bool) -> Routine | None:  # noqa: FBT001 - asked by the engine
        """Answer the gate to be taken before the vCPU's next step, None if it can go on."""
        mine = self.cells
        if not mine.in_guest:
            return None
        if self.apicv:
            return self._gate(self.take_gates, user_mode) if mine.posted and self.interrupts_on else None
        if mine.injected:
            return self._gate(self.take_gates, user_mode)
        if mine.kicked or (mine.window and self.interrupts_on):
            return self._gate(self.exit_gates, user_mode)
        return None

    @staticmethod
    def _gate(gates: tuple[Routine, Routine], user_mode: bool) -> Routine:  # noqa: FBT001
        return gates[0] if user_mode else gates[1]

    @property
    def interrupts_on(self) -> bool:
        """Whether the guest has interrupts enabled."""
        return bool(self.guest.cells.interrupts_on)

    # Leaving and entering

    def leave(self) -> None:
        """The processor leaves guest mode; a kick that was under way has done its work."""
        mine = self.cells
        mine.in_guest = 0
        if mine.kicked:
            mine.kicked = 0

    def enter(self) -> str:
        """The processor enters guest mode; answers `entered`, `injected` or `window`, by what KVM did before."""
        mine = self.cells
        mine.in_guest = 1
        if self.apicv or not mine.requested:
            return "entered"
        if not self.interrupts_on:
            mine.window = 1
            return "window"
        vector = mine.requested.bit_length() - 1
        mine.requested &= ~(1 << vector)
        mine.injected = vector + 1
        mine.quiet_eoi = int(not mine.requested)
        mine.window = int(bool(mine.requested))
        return "injected"

    # The interrupt being taken

    def take_highest(self) -> None:
        """Take the most urgent vector that is ready."""
        mine = self.cells
        if self.apicv:
            mine.vector = mine.posted.bit_length() - 1
            mine.posted &= ~(1 << mine.vector)
            if mine.outstanding:
                mine.outstanding = 0
        else:
            mine.vector = mine.injected - 1
            mine.injected = 0

    def eoi_leaves_guest(self) -> bool:
        """Say whether ending this interrupt needs an exit."""
        return not self.apicv and not self.cells.quiet_eoi

    def queue_of_vector(self) -> str:
        """Name the queue of the vector being handled."""
        return self.queues[self.cells.vector]

    def vector_number(self) -> int:
        """Give the number of the vector being handled."""
        return FIRST_VECTOR + self.cells.vector


class EnterGuest(Routine):
    """The last step of every exit that KVM handled itself.

    Args:
        row: the row of the block it ends.
        after: what has just been dealt with, as a clause for the learner.
    """

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, row: str, after: str) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.rows = {"entry": row}
        self.after = after

    def words(self, me: Context) -> Mapping[str, object]:  # noqa: ARG002
        """Say what is over."""
        return {"after": self.after}

    @op(
        "entry",
        "enter the guest",
        "kvm_arch_vcpu_ioctl_run",
        KVM_X86,
        text={
            "entered": "{after} KVM enters the guest again, which goes on where it left off.",
            "injected": "{after} KVM injects the waiting interrupt as it enters; the guest takes it before anything else.",
            "window": "{after} An interrupt waits, but the guest has interrupts disabled: KVM asks to be told when it enables them.",
        },
        to={"entered": RETURN, "injected": RETURN, "window": RETURN},
        cost="vcpu enter",
        cause="KVM resumes the guest",
        fence=True,
    )
    def vm_entry(self, me: Context) -> str:  # noqa: ARG002
        return self.vcpu.enter()


class HandleKick(Routine):
    """A store to a queue's notify address: block KICK. The vCPU does leave the guest, but only into KVM.

    Args:
        queue: index of the virtqueue, which decides the address.
        eventfd: what KVM signals.
        waiter: what runs when it is signalled.
        enter: how the guest is entered again.
    """

    def __init__(  # noqa: PLR0913 - what an ioeventfd joins
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

    def words(self, me: Context) -> Mapping[str, object]:  # noqa: ARG002
        """Name the address."""
        return {"address": f"{self.address:#x}", "counter": self.eventfd.counter}

    @op(
        "KICK.3",
        "signal the eventfd",
        "ioeventfd_write",
        KVM_EVENTFD,
        text="The address belongs to an ioeventfd: KVM adds 1 to its counter (now {counter}). QEMU is not involved.",
        to={SIGNALLED: call("waiter", "enter")},
        cost="eventfd",
    )
    def signal_eventfd(self, me: Context) -> str:  # noqa: ARG002
        self.eventfd.counter += 1
        return SIGNALLED


class HandleKickIntel(HandleKick):
    """The same on Intel: the exit itself says that a device page was touched, and nothing is decoded."""

    first = "exit_ept_misconfig"

    @op(
        "KICK.1",
        "leave the guest: EPT misconfiguration",
        "handle_ept_misconfig",
        KVM_VMX,
        text="The page of {address} is marked as a device, so the store leaves the guest: a VM exit, into KVM and no further.",
        to=goto("find_ioeventfd"),
        cost="vcpu exit",
        fence=True,
    )
    def exit_ept_misconfig(self, me: Context) -> None:  # noqa: ARG002
        self.vcpu.leave()

    @op(
        "KICK.2",
        "look the address up",
        "kvm_io_bus_write",
        KVM_VMX,
        text="KVM looks {address} up on its fast MMIO bus. The instruction is not even decoded: the address alone says which queue.",
        to=goto("signal_eventfd"),
        private=True,
    )
    def find_ioeventfd(self, me: Context) -> None: ...


class HandleKickAmd(HandleKick):
    """The same on AMD: a nested page fault, and KVM has to emulate the store before it knows what was written."""

    first = "exit_npf"

    @op(
        "KICK.1",
        "leave the guest: nested page fault",
        "npf_interception",
        KVM_SVM,
        text="No memory is behind {address}, so the store leaves the guest: a VM exit, into KVM and no further.",
        to=goto("emulate"),
        cost="vcpu exit",
        fence=True,
    )
    def exit_npf(self, me: Context) -> None:  # noqa: ARG002
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


class LeaveForInterrupt(Routine):
    """Without APICv: the running guest is left because of an interrupt for it, or because it has enabled interrupts.

    Args:
        place: the CPU, in the mode in which it leaves.
        enter: how the guest is entered again.
    """

    def __init__(self, name: str, place: Place, vcpu: Vcpu, enter: Routine) -> None:
        super().__init__(name, place)
        self.vcpu = vcpu
        self.enter = enter

    @op(
        "IRQ.4",
        "leave the guest",
        "vcpu_enter_guest",
        KVM_X86,
        text={
            "ipi": "The other CPU's IPI is an external interrupt: the guest is left at once.",
            "window": "The guest has enabled interrupts, as KVM asked to be told: one more exit.",
        },
        to={"ipi": goto("enter"), "window": goto("enter")},
        cost="vcpu exit",
        cause="an interrupt for the guest",
        fence=True,
    )
    def leave_guest(self, me: Context) -> str:  # noqa: ARG002
        reason = "ipi" if self.vcpu.cells.kicked else "window"
        self.vcpu.leave()
        if reason == "window":
            self.vcpu.cells.window = 0
        return reason


class EoiExit(Routine):
    """Without APICv and with another interrupt waiting: the end-of-interrupt leaves the guest."""

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, enter: Routine) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.enter = enter

    @op(
        "IRQ.5",
        "end the interrupt in KVM",
        "kvm_set_msr_common",
        KVM_LAPIC,
        text="The write to the APIC's EOI register left the guest. KVM takes the interrupt off its list.",
        to=call("enter", None),
        cost="vcpu exit",
        fence=True,
    )
    def exit_msr(self, me: Context) -> None:  # noqa: ARG002
        self.vcpu.leave()


class HaltVcpu(Routine):
    """The guest executed HLT: the vCPU's thread sleeps until an interrupt comes for it."""

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, enter: Routine) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.enter = enter

    @op(
        "IRQ.4",
        "leave the guest: HLT",
        "kvm_emulate_halt",
        KVM_X86,
        text="HLT leaves the guest: from here on the vCPU is only a thread of the host with nothing to do.",
        cost="vcpu exit",
        fence=True,
    )
    def exit_hlt(self, me: Context) -> None:  # noqa: ARG002
        self.vcpu.leave()
        self.vcpu.guest.cells.interrupts_on = 1

    @op(
        "IRQ.4",
        "put the vCPU's thread to sleep",
        "kvm_vcpu_block",
        KVM_MAIN,
        text={
            "sleep": "The vCPU's thread sleeps. An interrupt for it will have to wake it first, but needs no exit any more.",
            "pending": "An interrupt came just now: the thread does not sleep.",
        },
        to={"sleep": block("enter"), "pending": goto("enter")},
    )
    def sleep(self, me: Context) -> str:  # noqa: ARG002
        mine = self.vcpu.cells
        return "pending" if mine.posted or mine.requested else "sleep"


class Irqfd(Routine):
    """Signalling a queue's call eventfd interrupts the vCPU: block IRQ, rows 1 to 4, in the thread that signals.

    Args:
        bit: the queue's vector, as a bit number.
        eventfd: the call eventfd.
    """

    first = "irqfd_wakeup"

    def __init__(  # noqa: PLR0913 - what an irqfd joins
        self, name: str, kvm: Place, vcpu: Vcpu, queue_name: str, bit: int, eventfd: EventfdCells
    ) -> None:
        super().__init__(name, kvm, queue_name)
        self.vcpu = vcpu
        self.bit = bit
        self.eventfd = eventfd
        self.vcpu_thread = vcpu.thread

    def words(self, me: Context) -> Mapping[str, object]:  # noqa: ARG002
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
    def drain_counter(self, me: Context) -> None:  # noqa: ARG002
        self.eventfd.counter = 0

    @op(
        "IRQ.3",
        "look up the route",
        "kvm_arch_set_irq_inatomic",
        KVM_IRQ,
        text="The eventfd stands for an MSI route: vector {vector:#04x} on {vcpu}. It can be delivered right here, without a work queue.",
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
        cost="wake",
        fence=True,
    )
    def wake_vcpu(self, me: Context) -> str:  # noqa: ARG002
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
    def deliver(self, me: Context) -> str:  # noqa: ARG002
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
    def notify_vcpu(self, me: Context) -> str:  # noqa: ARG002
        return POSTED if self.vcpu.cells.in_guest else AT_ENTRY


class IrqfdKicked(Irqfd):
    """Without APICv: the interrupt is noted, and a running vCPU is kicked out of the guest to get it."""

    @op(
        "IRQ.4",
        "note the interrupt",
        "svm_deliver_interrupt",
        KVM_SVM,
        text={
            "new": "Vector {vector:#04x} is set in the emulated APIC's request register.",
            "merged": "The vector is pending already: this interrupt and the one before become one.",
        },
        to={"new": goto("kick_vcpu"), "merged": RETURN},
        fence=True,
    )
    def deliver(self, me: Context) -> str:  # noqa: ARG002
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
    def kick_vcpu(self, me: Context) -> str:  # noqa: ARG002
        mine = self.vcpu.cells
        if not mine.in_guest:
            return AT_ENTRY
        mine.kicked = 1
        return KICKED
