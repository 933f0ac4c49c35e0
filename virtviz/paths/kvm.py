"""KVM: leaving the guest and entering it, and how an interrupt reaches a vCPU.

With APICv an interrupt is posted: a bit is set in memory that the processor itself looks at, and a running guest takes
it without leaving. Without it the guest has to be kicked out, and KVM injects the interrupt when it enters again; if
the guest has interrupts disabled at that moment, KVM asks for one more exit as soon as they are enabled.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, block, call, goto, op
from virtviz.spec.citation import KVM_LAPIC, KVM_MAIN, KVM_X86

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu


FIRST_VECTOR = 0x27
"""Vector of queue 0 in the recorded guest; a guest chooses its own, on each of its vCPUs."""
RESCHEDULE, RESCHEDULE_BIT, RESCHEDULE_VECTOR = "reschedule", 2, 0xFD
"""What one vCPU interrupts another with because a program there can run: name, bit behind the queues', Linux's vector.
"""


def vector_of(bit: int) -> int:
    """Give the number of the vector that a bit stands for."""
    return RESCHEDULE_VECTOR if bit == RESCHEDULE_BIT else FIRST_VECTOR + bit


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

    Args:
        queues: the queue that each vector belongs to.
        apicv: interrupts are posted.
        pv_eoi: without that, the guest may end an interrupt in memory if no other one waits.

    Attributes:
        guest: the guest's side, set when it is made.
        thread: its thread, set when it is made.
        take_gates, exit_gates: what interrupts it in user and in kernel mode, set by the wiring.
    """

    guest: GuestCpu
    thread: Thread
    take_gates: tuple[Routine, Routine]
    exit_gates: tuple[Routine, Routine]

    def __init__(self, state: State, name: str, queues: Sequence[str], *, apicv: bool, pv_eoi: bool) -> None:
        self.cells = state.add(VcpuCells, name)
        self.queues = queues
        self.apicv = apicv
        self.pv_eoi = pv_eoi

    # What may interrupt the thread now

    def intercept(self, user_mode: bool) -> Routine | None:  # noqa: FBT001 - asked by the engine
        """Answer the gate to be taken before the vCPU's next step, None if it can go on."""
        mine = self.cells
        if not mine.in_guest:
            return None
        if self.apicv:
            return self._gate(self.take_gates, user_mode=user_mode) if mine.posted and self.interrupts_on else None
        if mine.injected:
            return self._gate(self.take_gates, user_mode=user_mode)
        if mine.kicked or (mine.window and self.interrupts_on):
            return self._gate(self.exit_gates, user_mode=user_mode)
        return None

    @staticmethod
    def _gate(gates: tuple[Routine, Routine], *, user_mode: bool) -> Routine:
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
        mine.quiet_eoi = int(self.pv_eoi and not mine.requested)
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
        return vector_of(self.cells.vector)


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

    def words(self, me: Context) -> Mapping[str, object]:
        """Say what is over."""
        return {"after": self.after}

    @op(
        "entry",
        "enter the guest",
        "vcpu_enter_guest",
        KVM_X86,
        text={
            "entered": "{after} KVM enters the guest again, which goes on where it left off.",
            "injected": "{after} KVM injects the waiting interrupt as it enters; the guest takes it at once.",
            "window": (
                "{after} An interrupt waits, but the guest has interrupts disabled: KVM asks to be told when it "
                "enables them."
            ),
        },
        to={"entered": RETURN, "injected": RETURN, "window": RETURN},
        cause="KVM resumes the guest",
        fence=True,
    )
    def vm_entry(self, me: Context) -> str:
        return self.vcpu.enter()


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
        cause="an interrupt for the guest",
        fence=True,
    )
    def leave_guest(self, me: Context) -> str:
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
        "kvm_x2apic_msr_write",
        KVM_LAPIC,
        text="The write to the APIC's EOI register left the guest. KVM takes the interrupt off its list.",
        to=call("enter", None),
        fence=True,
    )
    def exit_msr(self, me: Context) -> None:
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
        fence=True,
    )
    def exit_hlt(self, me: Context) -> None:
        self.vcpu.leave()
        self.vcpu.guest.cells.interrupts_on = 1

    @op(
        "IRQ.4",
        "put the vCPU's thread to sleep",
        "kvm_vcpu_block",
        KVM_MAIN,
        text={
            "sleep": (
                "The vCPU's thread sleeps; KVM may poll for a while first (halt_poll_ns). An interrupt will have to "
                "wake it, but needs no exit."
            ),
            "pending": "An interrupt came just now: the thread does not sleep.",
        },
        to={"sleep": block("enter"), "pending": goto("enter")},
    )
    def sleep(self, me: Context) -> str:
        mine = self.vcpu.cells
        return "pending" if mine.posted or mine.requested else "sleep"


class PollAndHaltVcpu(HaltVcpu):
    """The same where KVM polls for a while before it lets the vCPU's thread sleep.

    KVM finds the length for each vCPU by itself, up to the module's halt_poll_ns; here it polls so long from the
    beginning. Time is up once nothing else can move.

    Args:
        nanoseconds: how long at most, for people.

    Source: Linux virt/kvm/kvm_main.c (kvm_vcpu_halt, kvm_vcpu_can_poll).
    """

    retold = MappingProxyType({"exit_hlt": {"to": goto("poll")}})

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, enter: Routine, nanoseconds: int) -> None:
        super().__init__(name, kvm, vcpu, enter)
        self.nanoseconds = nanoseconds

    def words(self, me: Context) -> Mapping[str, object]:
        """Give how long."""
        return {"time": self.nanoseconds}

    def interrupt_waits(self) -> bool:
        """Say whether an interrupt has come."""
        mine = self.vcpu.cells
        return bool(mine.posted or mine.requested)

    def time_is_up(self) -> bool:
        """Say that polling ends once nothing else can move."""
        return True

    @op(
        "IRQ.4",
        "poll for an interrupt",
        "kvm_vcpu_halt",
        KVM_MAIN,
        text={
            "interrupt": "An interrupt has come while KVM polled: the thread need not be woken, for it never slept.",
            "time is up": "{time} ns are over, and nothing came: the thread goes to sleep after all.",
        },
        to={"interrupt": goto("enter"), "time is up": goto("sleep")},
        guard="interrupt_waits",
        patience="time_is_up",
    )
    def poll(self, me: Context) -> str:
        return "interrupt" if self.interrupt_waits() else "time is up"
