"""A guest with several vCPUs, each with a queue pair of its own.

A packet goes out on the pair of the vCPU that sends it (XPS). One that comes in may be for a program that runs on
another vCPU than the one it came to.

Which vCPU finds a packet is the device's choice: the one that the packet's receive queue is bound to. On which vCPU a
program runs is the scheduler's; here it stays where it began. Mostly both are the same, because the TAP sends answers
to the queue pair that the question came from.

A vCPU that has nothing to run and polls looks at a flag in memory, so that waking a program there takes a store. One
that has halted has to be interrupted by another vCPU, which costs that one an exit.

Source: Linux 6.12 kernel/sched/core.c (ttwu_queue, resched_curr, set_nr_and_not_polling), kernel/sched/idle.c;
net/core/dev.c (netdev_pick_tx, get_xps_queue), drivers/net/virtio_net.c (virtnet_set_affinity).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED, WOKE_PROCESS
from virtviz.engine.ops import RETURN, Routine, call_any, goto, op
from virtviz.paths.guest_cpu import Waits
from virtviz.paths.guest_receive import Deliver, OwnFramesOnly
from virtviz.paths.guest_send import Sendmsg
from virtviz.paths.traffic import program_of
from virtviz.spec.citation import CORE_DEV, SCHED, X86_SMP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.guest_stack import Socket
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.queues import Fifo


class SendmsgOnPair(Sendmsg):
    """The way down to the driver, where the driver has several transmit queues: rows 2 and 3 of G-TX."""

    retold = MappingProxyType({"add_headers": {"to": goto("choose_queue")}})

    def words(self, me: Context) -> Mapping[str, object]:
        """Give sizes, and the queue."""
        vcpu = self.program.vcpu
        return {**super().words(me), "vcpu": f"vcpu{vcpu}", "queue": f"transmitq{vcpu + 1}"}

    @op(
        "G-TX.3",
        "choose the transmit queue",
        "netdev_pick_tx",
        CORE_DEV,
        text=(
            "The driver has bound a queue pair to each CPU: what {vcpu} sends goes by {queue}. Nothing is shared, so "
            "CPUs need not wait for each other."
        ),
        to=goto("enqueue"),
        private=True,
    )
    def choose_queue(self, me: Context) -> None: ...


@cells
class DeliverCells(Cells):
    """What handing up keeps: the vCPU whose program was woken last."""

    woken: int = 0


class DeliverToAny(Deliver):
    """Hand what NAPI collected to the sockets of all programs: the second half of row 8 of G-RX.

    Args:
        collected: packets collected in this poll: twice the slot, plus one if it lies in the receive buffers.
        sockets: for each vCPU, that of the program on it.
        number: the vCPU that this runs on.
        small, buffers: where the packets lie.
        interrupts: name of a vCPU -> what interrupting it leads to; empty where idle vCPUs poll.
    """

    retold = MappingProxyType(
        {
            "queue_on_socket": {
                "to": {WOKE_PROCESS: goto("let_it_run"), "queued": goto("next_packet"), DROPPED: goto("next_packet")}
            }
        }
    )

    def __init__(
        self,
        state: State,
        name: str,
        place: Place,
        collected: Fifo,
        sockets: Sequence[Socket],
        number: int,
        small: PacketPool,
        buffers: PacketPool,
        interrupts: Mapping[str, Routine],
    ) -> None:
        super().__init__(name, place, collected, sockets[number], small, buffers, sockets[number].cpu)
        self.sockets = sockets
        self.number = number
        self.interrupts = interrupts
        self.cells = state.add(DeliverCells, name)

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the vCPU whose program was woken."""
        return {"vcpu": f"vcpu{self.cells.woken}"}

    def queue_on_socket(self, me: Context) -> str:
        """Put it on the socket of the program that it is for, wherever that runs."""
        slot, is_buffer = divmod(self.collected.take(), 2)
        pool, programs = (self.buffers if is_buffer else self.small), len(self.sockets)
        number = program_of(pool.data(slot), programs)
        socket = self.sockets[number]
        if not socket.queue.put(2 * (slot * programs + self.number) + is_buffer):
            socket.cells.dropped += 1
            pool.release(slot)
            return DROPPED
        if not socket.cpu.wake_program(Waits.FOR_PACKET):
            return "queued"
        if self.cells.woken != number:
            self.cells.woken = number
        return WOKE_PROCESS

    @op(
        "G-RX.8",
        "choose where the program runs",
        "ttwu_queue",
        SCHED,
        text={
            "here": "The program runs on this vCPU, as soon as the softirq is over.",
            "there": "The program runs on {vcpu}, which has nothing to do and polls: a flag in memory is all it takes.",
            "": "The program runs on {vcpu}, which halts when it has nothing to do: it has to be interrupted.",
        },
        to={
            "here": goto("next_packet"),
            "there": goto("next_packet"),
            "interrupt": call_any("interrupts", "next_packet"),
        },
        cause="store to the APIC's command register",
    )
    def let_it_run(self, me: Context) -> str:
        woken = self.cells.woken
        if woken == self.number:
            return "here"
        return f"vcpu{woken}" if self.interrupts else "there"


class DeliverOwnToAny(OwnFramesOnly, DeliverToAny):
    """That, on a network where a switch floods frames that are for somebody else."""


class RescheduleInterrupt(Routine):
    """The interrupt of another vCPU: there is a program to run."""

    @op(
        "IRQ.6",
        "be told that a program can run",
        "sysvec_reschedule_ipi",
        X86_SMP,
        text="Another vCPU has made a program of this one runnable. The halt is over; this interrupt is for no more.",
        to=RETURN,
        private=True,
    )
    def reschedule(self, me: Context) -> None: ...
