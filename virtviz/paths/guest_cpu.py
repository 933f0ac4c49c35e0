"""The guest's CPU: taking interrupts, running softirqs, being idle.

A vCPU is one thread with three levels stacked on each other: what a program or system call does, softirqs, hard
interrupts. Each level up saves what the one below was doing. While a hard interrupt is handled no other is taken; a
softirq begun by a hard interrupt runs right after it, unless the interrupt came in the middle of another softirq or of
code that holds softirqs off.

How an interrupt comes into the guest at all is KVM's affair (`kvm.py`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, OpSpec, Return, Routine, call, call_any, op
from virtviz.engine.places import Domain
from virtviz.paths.context import Level
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import CORE_DEV, ENTRY, IDLE, IRQ, SOFTIRQ, X86_APIC, X86_ENTRY, X86_IDLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import Vcpu

NET_TX, NET_RX = 1, 2
"""Bits of the pending softirqs, in the order in which they are served."""


class Waits(IntEnum):
    """What the guest's program sleeps for."""

    FOR_NOTHING = 0
    FOR_ROOM = 1
    FOR_PACKET = 2


@cells
class CpuCells(Cells):
    """What the guest keeps for a CPU.

    Attributes:
        interrupts_on: the CPU's interrupt flag.
        softirqs_off: 1 while code holds softirqs off (local_bh_disable).
        pending: softirqs that were raised and have not run.
        waits: what the program sleeps for, by `Waits`.
        runnable: 1 when the program has something to do again.
        timed_out: 1 when its wait ended although nothing came.
        saved_level, saved_packet, saved_skb: what each level interrupted, by level.
    """

    interrupts_on: int = 1
    softirqs_off: int = 0
    pending: int = 0
    waits: int = 0
    runnable: int = 0
    timed_out: int = 0
    saved_level: list[int]
    saved_packet: list[int]
    saved_skb: list[int]


class GuestCpu:
    """A guest CPU's own state; KVM's side of it is `vcpu`.

    Attributes:
        polls: NAPI instances waiting to be polled, by number.
    """

    def __init__(self, state: State, name: str, vcpu: Vcpu) -> None:
        self.name = name
        self.vcpu = vcpu
        self.cells = state.add(CpuCells, name, saved_level=[0] * 3, saved_packet=[0] * 3, saved_skb=[0] * 3)
        self.polls = Fifo(state, f"{name}.napi", 8)

    def save(self, me: Context, level: Level) -> None:
        """Begin a level, noting what it interrupts."""
        mine = self.cells
        if mine.saved_level[level] != me.level:
            mine.saved_level[level] = me.level
        if mine.saved_packet[level] != me.packet:
            mine.saved_packet[level] = me.packet
        if mine.saved_skb[level] != me.skb:
            mine.saved_skb[level] = me.skb
        me.level = level

    def restore(self, me: Context, level: Level) -> None:
        """End a level."""
        mine = self.cells
        me.level = mine.saved_level[level]
        if me.packet != mine.saved_packet[level]:
            me.packet = mine.saved_packet[level]
        if me.skb != mine.saved_skb[level]:
            me.skb = mine.saved_skb[level]

    def raise_softirq(self, which: int) -> None:
        """Mark a softirq as pending."""
        if not self.cells.pending & which:
            self.cells.pending |= which

    def schedule_poll(self, napi: int) -> None:
        """Put a NAPI instance on the list of those to be polled."""
        self.polls.put(napi)
        self.raise_softirq(NET_RX)

    def wake_program(self, reason: Waits) -> bool:
        """Let the program run if it sleeps for this reason; answers whether it did."""
        mine = self.cells
        if mine.waits != reason:
            return False
        mine.waits = Waits.FOR_NOTHING
        mine.runnable = 1
        return True

    def softirq_due(self) -> bool:
        """Say whether a softirq waits and nothing holds it off."""
        return bool(self.cells.pending) and not self.cells.softirqs_off


class TakeInterrupt(Routine):
    """The CPU takes an interrupt: IRQ rows 5 and 6.

    Args:
        place: the CPU itself, in the mode in which it was interrupted.
        leaving: the CPU itself, in kernel mode, when it returns.
        kernel: where the handlers run.
        handlers: vector's queue -> the routine that handles it.
        eoi_exit: what happens when ending the interrupt leaves the guest.
    """

    def __init__(
        self,
        name: str,
        cpu: GuestCpu,
        place: Place,
        leaving: Place,
        kernel: Place,
        handlers: Mapping[str, Routine],
        softirq: Routine,
        eoi_exit: Routine,
    ) -> None:
        super().__init__(name, place)
        self.cpu = cpu
        self.leaving = leaving
        self.kernel = kernel
        self.handlers = handlers
        self.softirq = softirq
        self.eoi_exit = eoi_exit

    def place_of(self, spec: OpSpec) -> Place:
        """The CPU jumps and returns; what lies between is the kernel's code."""
        if spec.name == "take_vector":
            return self.place
        return self.kernel if spec.name in ("acknowledge", "call_handler") else self.leaving

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the vector and the queue it belongs to."""
        vcpu = self.cpu.vcpu
        why_exit = "Another one waits" if vcpu.pv_eoi else "Without paravirtual EOI KVM has to see it"
        return {"vector": vcpu.vector_number(), "queue": vcpu.queue_of_vector(), "why_exit": why_exit}

    @op(
        "IRQ.5",
        "take the interrupt",
        "asm_common_interrupt",
        X86_ENTRY,
        text="The CPU stops what it was doing and jumps to the handler of vector {vector:#04x}. Other interrupts wait.",
        cost="interrupt",
        cause="the CPU took an interrupt",
    )
    def take_vector(self, me: Context) -> None:
        vcpu = self.cpu.vcpu
        self.cpu.save(me, Level.HARDIRQ)
        self.cpu.cells.interrupts_on = 0
        vcpu.take_highest()
        if me.packet:
            me.packet = 0

    @op(
        "IRQ.5",
        "acknowledge the interrupt",
        "apic_ack_edge",
        X86_APIC,
        text={
            "exit": (
                "The edge interrupt is acknowledged before its handler runs. {why_exit}, so this end-of-interrupt has "
                "to leave the guest."
            ),
            "reschedule": "The interrupt is from another vCPU, and no device's; its end needs no exit.",
            "": (
                "The edge interrupt is acknowledged, without an exit, before its handler runs: {queue} has a "
                "vector and a handler of its own."
            ),
        },
        to={"exit": call("eoi_exit", "call_handler"), "handled": call_any("handlers", "irq_exit")},
        cause="the end-of-interrupt register is written",
        private=True,
    )
    def acknowledge(self, me: Context) -> str:
        vcpu = self.cpu.vcpu
        return "exit" if vcpu.eoi_leaves_guest() else vcpu.queue_of_vector()

    @op(
        "IRQ.6",
        "call the queue's handler",
        "__handle_irq_event_percpu",
        IRQ,
        text="Each queue has a vector of its own, so the kernel knows at once whose interrupt this is: {queue}.",
        to=call_any("handlers", "irq_exit"),
        private=True,
    )
    def call_handler(self, me: Context) -> str:
        return self.cpu.vcpu.queue_of_vector()

    @op(
        "IRQ.6",
        "leave the hard interrupt",
        "irq_exit_rcu",
        SOFTIRQ,
        text={
            "softirq": "The handler only scheduled the work. Now, with interrupts on again, the softirq does it.",
            "": "The handler is done and no softirq may run here: back to what was interrupted.",
        },
        to={
            "softirq": call("softirq", "iret"),
            "to user": Return(Domain.GUEST_USER),
            "to kernel": Return(Domain.GUEST_KERNEL),
        },
        opens=True,
    )
    def irq_exit(self, me: Context) -> str:
        self.cpu.restore(me, Level.HARDIRQ)
        self.cpu.cells.interrupts_on = 1
        if me.level == Level.PROCESS and self.cpu.softirq_due():
            self.cpu.save(me, Level.SOFTIRQ)
            return "softirq"
        return self._back_to()

    @op(
        "IRQ.6",
        "return from the interrupt",
        "irqentry_exit",
        ENTRY,
        text="Back to what the CPU was doing when the interrupt came.",
        to={"to user": Return(Domain.GUEST_USER), "to kernel": Return(Domain.GUEST_KERNEL)},
        cause="return from the interrupt",
        opens=True,
        fence=True,
        private=True,
    )
    def iret(self, me: Context) -> str:
        return self._back_to()

    def _back_to(self) -> str:
        return "to user" if self.place.domain is Domain.GUEST_USER else "to kernel"


class RunSoftirqs(Routine):
    """Run the softirqs that are pending: NET_TX restarts stopped queues, NET_RX polls NAPI instances.

    Whoever calls this has saved the level it interrupts; it is restored at the end. Interrupts are on meanwhile.

    Args:
        polls: name of a NAPI instance -> its poll routine, in the order of their numbers.
        restart: what NET_TX does.
    """

    def __init__(self, name: str, place: Place, cpu: GuestCpu, polls: Mapping[str, Routine], restart: Routine) -> None:
        super().__init__(name, place)
        self.cpu = cpu
        self.polls = polls
        self.restart = restart
        self._names = list(polls)

    @op(
        "IRQ.6",
        {"none": "end the softirqs", "": "take the next softirq work"},
        "net_rx_action",
        CORE_DEV,
        text={
            "transmit": "A transmit queue may go on: its waiting packets are sent.",
            "none": "Nothing is left to poll: the softirqs end.",
            "": "NAPI: the kernel polls this queue until it is empty or 64 packets are done.",
        },
        to={"transmit": call("restart", "next_work"), "poll": call_any("polls", "next_work"), "none": RETURN},
        opens=True,
    )
    def next_work(self, me: Context) -> str:
        mine = self.cpu.cells
        if mine.pending & NET_TX:
            mine.pending &= ~NET_TX
            return "transmit"
        if self.cpu.polls:
            return self._names[self.cpu.polls.take()]
        if mine.pending:
            mine.pending = 0
        self.cpu.restore(me, Level.SOFTIRQ)
        return "none"


class Idle(Routine):
    """The guest has nothing to run: it polls in guest mode, or halts.

    Args:
        halt: what a halt instruction leads to.
        gives_up: says whether the program's wait may end although nothing comes.
    """

    def __init__(self, name: str, place: Place, cpu: GuestCpu, halt: Routine, gives_up: Callable[[], bool]) -> None:
        super().__init__(name, place)
        self.cpu = cpu
        self.halt = halt
        self.gives_up = gives_up

    def has_work(self) -> bool:
        """Say whether the idle loop has something to leave for."""
        return bool(self.cpu.cells.runnable)

    def leave(self) -> None:
        """Go back to the program."""
        mine = self.cpu.cells
        if mine.runnable:
            mine.runnable = 0
        else:
            mine.waits = Waits.FOR_NOTHING
            mine.timed_out = 1


class PollingIdle(Idle):
    """The idle loop of a guest that never halts."""

    @op(
        "G-RX.9",
        "leave the idle loop",
        "cpu_idle_poll",
        IDLE,
        text="The program can run again: the idle loop gives way.",
        to=RETURN,
        guard="has_work",
        patience="gives_up",
    )
    def idle(self, me: Context) -> None:
        self.leave()


class HaltingIdle(Idle):
    """The idle loop of a guest that halts."""

    @op(
        "IRQ.4",
        "halt, or leave the idle loop",
        "default_idle",
        X86_IDLE,
        text={
            "halt": (
                "Nothing to run, seen with interrupts off: STI and HLT follow as one, so that none can slip in "
                "between. HLT leaves the guest for KVM."
            ),
            "work": "The program can run again: the idle loop gives way.",
        },
        to={"work": RETURN, "halt": call("halt", "idle")},
        cause="the guest executed HLT",
    )
    def idle(self, me: Context) -> str:
        if self.has_work():
            self.leave()
            return "work"
        # An interrupt between this look and HLT would be slept through. They are on again once the CPU has halted.
        self.cpu.cells.interrupts_on = 0
        return "halt"
