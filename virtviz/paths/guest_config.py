"""The guest's driver hears of a changed configuration, and looks at the link. Rows 7, 8, 10 and 11 of CONFIG.

The interrupt only schedules work: reading the configuration leaves the guest for QEMU and may take long, so a kernel
thread does it. Here that thread runs as soon as the interrupt is over, unless softirqs are held off: as in a kernel
that can be preempted (`preempt=full`); others wait until the system call in hand returns.

Without a carrier the interface's queueing discipline is replaced by one that takes nothing; what waited is dropped, and
so is what programs send. Neighbour entries, which Linux forgets with the carrier, are not modelled.

Source: Linux drivers/virtio/virtio_pci_common.c (vp_config_changed), drivers/net/virtio_net.c (virtnet_config_changed,
virtnet_config_changed_work), net/core/link_watch.c, net/sched/sch_generic.c (dev_deactivate, noop_enqueue).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, OpSpec, Return, Routine, call, goto, op
from virtviz.engine.places import Domain
from virtviz.paths.context import Level
from virtviz.paths.guest_cpu import TakeInterrupt
from virtviz.paths.guest_send import Sendmsg
from virtviz.spec.citation import (
    CORE_DEV,
    ENTRY,
    LINK_WATCH,
    SCH_GENERIC,
    SOCKET,
    SOFTIRQ,
    VIRTIO_NET,
    VIRTIO_PCI,
    WORKQUEUE,
)
from virtviz.spec.virtio import VIRTIO_NET_S_LINK_UP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu
    from virtviz.paths.guest_stack import Socket, TxQueue
    from virtviz.paths.packets import PacketPool


@cells
class ConfigCells(Cells):
    """What the guest's kernel keeps for the link.

    Attributes:
        pending: 1 while the work is scheduled and has not begun.
        value: `status` of the configuration, as last read.
        status: the link's bit, as the driver last knew it.
        carrier: 1 while the interface has a carrier.
        inactive: 1 while its queueing discipline is one that takes nothing.
        dropped: packets dropped for want of a carrier.
        saved_packet, saved_skb: what the work interrupted.
    """

    pending: int = 0
    value: int = 0
    status: int = VIRTIO_NET_S_LINK_UP
    carrier: int = 1
    inactive: int = 0
    dropped: int = 0
    saved_packet: int = 0
    saved_skb: int = 0


class ConfigWork:
    """The work that looks at a changed configuration, and what it changes.

    Args:
        cpu: the CPU it runs on.
        tx: the interface's transmit queue.
        socket, pool: whose packets are dropped when the carrier goes, and where they lie.
    """

    def __init__(self, state: State, name: str, cpu: GuestCpu, tx: TxQueue, socket: Socket, pool: PacketPool) -> None:
        self.cells = state.add(ConfigCells, name)
        self.cpu = cpu
        self.tx = tx
        self.socket = socket
        self.pool = pool

    def may_run(self, me: Context) -> bool:
        """Say whether the work is scheduled and nothing keeps its thread from running."""
        return bool(self.cells.pending) and me.level == Level.PROCESS and not self.cpu.cells.softirqs_off

    def drop(self, skb: int) -> None:
        """Drop a packet for want of a carrier."""
        self.cells.dropped += 1
        self.socket.uncharge(self.pool.cells.length[skb])
        self.pool.release(skb)


class ConfigChanged(Routine):
    """The handler of the configuration's interrupt: schedule the work. Row 7 of CONFIG."""

    def __init__(self, name: str, place: Place, work: ConfigWork) -> None:
        super().__init__(name, place)
        self.work = work

    @op(
        "CONFIG.7",
        "hear of a changed configuration",
        "vp_config_changed",
        VIRTIO_PCI,
        spec="4.1.5.4",
        text="The configuration's vector: no queue is meant. The bus asks the driver to look at its device.",
        private=True,
    )
    def hear(self, me: Context) -> None: ...

    @op(
        "CONFIG.7",
        "schedule the work",
        "virtnet_config_changed",
        VIRTIO_NET,
        text={
            "scheduled": "To read the configuration takes long, so a kernel thread will do it; the interrupt is done.",
            "scheduled already": "The work is scheduled already: one look will do for both changes.",
        },
        to={"scheduled": RETURN, "scheduled already": RETURN},
        private=True,
    )
    def schedule(self, me: Context) -> str:
        mine = self.work.cells
        if mine.pending:
            return "scheduled already"
        mine.pending = 1
        return "scheduled"


class LookAtLink(Routine):
    """The work: read the link's status, and start or stop the interface. Rows 8, 10 and 11 of CONFIG.

    Args:
        kernel: the place of what is not the driver's.
        read: what a load from the configuration leads to.
    """

    def __init__(self, name: str, place: Place, kernel: Place, work: ConfigWork, read: Routine) -> None:
        super().__init__(name, place)
        self.kernel = kernel
        self.work = work
        self.read = read

    def place_of(self, spec: OpSpec) -> Place:
        """The driver reads and decides; the kernel runs its work and keeps the queueing discipline."""
        return self.kernel if spec.name in ("begin", "deactivate", "activate", "end") else self.place

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the number of packets that wait."""
        return {"waiting": len(self.work.tx.qdisc)}

    @op(
        "CONFIG.8",
        "run the scheduled work",
        "process_one_work",
        WORKQUEUE,
        text="A kernel thread runs the work now: a process context, which may take its time.",
        private=True,
        cost="wake",
    )
    def begin(self, me: Context) -> None:
        mine = self.work.cells
        mine.saved_packet, mine.saved_skb = me.packet, me.skb
        me.packet = 0
        mine.pending = 0

    @op(
        "CONFIG.8",
        "read the link's status",
        "virtnet_config_changed_work",
        VIRTIO_NET,
        spec="5.1.4",
        text="The driver loads two bytes from the device's configuration. No memory is there: QEMU has to answer.",
        to=call("read", "decide"),
        cause="load from the device's configuration",
        cost="kick",
    )
    def read_status(self, me: Context) -> None: ...

    @op(
        "CONFIG.10",
        "compare it with what was known",
        "virtnet_config_changed_work",
        VIRTIO_NET,
        spec="5.1.4",
        text={
            "down": "VIRTIO_NET_S_LINK_UP is clear: the link has gone down.",
            "up": "VIRTIO_NET_S_LINK_UP is set: the link is up again.",
            "unchanged": (
                "The link is as it was, and the driver looks at nothing else: a device that needs a reset waits for it "
                "in vain."
            ),
        },
        to={"down": goto("carrier_off"), "up": goto("carrier_on"), "unchanged": goto("end")},
        private=True,
    )
    def decide(self, me: Context) -> str:
        mine = self.work.cells
        now = mine.value & VIRTIO_NET_S_LINK_UP
        if now == mine.status:
            return "unchanged"
        mine.status = now
        return "up" if now else "down"

    @op(
        "CONFIG.10",
        "take the carrier away",
        "netif_carrier_off",
        SCH_GENERIC,
        text="The interface has no carrier any more; programs and routing can see it. Who watches links is told.",
    )
    def carrier_off(self, me: Context) -> None:
        self.work.cells.carrier = 0

    @op(
        "CONFIG.10",
        "stop the transmit queue",
        "netif_tx_stop_all_queues",
        CORE_DEV,
        text="The driver takes no packet any more: what comes now has to wait in the queueing discipline.",
    )
    def stop_queue(self, me: Context) -> None:
        self.work.tx.cells.driver_off = 1

    @op(
        "CONFIG.11",
        {DROPPED: "drop what waits", "": "take the queueing discipline away"},
        "dev_deactivate",
        LINK_WATCH,
        text={
            DROPPED: "A packet waited in the queueing discipline, which goes: it is dropped. Still waiting: {waiting}.",
            "gone": "In the place of the queueing discipline comes noop, which takes nothing: what is sent is lost.",
        },
        to={DROPPED: goto("deactivate"), "gone": goto("end")},
    )
    def deactivate(self, me: Context) -> str:
        work = self.work
        if not work.cells.inactive:
            work.cells.inactive = 1
        if not work.tx.qdisc:
            return "gone"
        skb = work.tx.qdisc.take()
        me.packet = work.pool.cells.packet[skb]
        work.drop(skb)
        return DROPPED

    @op(
        "CONFIG.10",
        "give the carrier back",
        "netif_carrier_on",
        SCH_GENERIC,
        text="The interface has a carrier again. Who watches links is told, this time with priority.",
    )
    def carrier_on(self, me: Context) -> None:
        self.work.cells.carrier = 1

    @op(
        "CONFIG.10",
        "let the transmit queue go on",
        "netif_tx_wake_all_queues",
        CORE_DEV,
        text="The driver takes packets again.",
    )
    def wake_queue(self, me: Context) -> None:
        if self.work.tx.cells.driver_off:
            self.work.tx.cells.driver_off = 0

    @op(
        "CONFIG.11",
        "bring the queueing discipline back",
        "dev_activate",
        LINK_WATCH,
        text="A working queueing discipline takes noop's place: packets reach the driver again.",
    )
    def activate(self, me: Context) -> None:
        self.work.cells.inactive = 0

    @op(
        "CONFIG.11",
        "end the work",
        "worker_thread",
        WORKQUEUE,
        text="The kernel thread has nothing more to do: back to what it took the CPU from.",
        to=RETURN,
        private=True,
    )
    def end(self, me: Context) -> None:
        mine = self.work.cells
        me.packet, me.skb = mine.saved_packet, mine.saved_skb


class TakeInterruptThenWork(TakeInterrupt):
    """The same where an interrupt may have scheduled work.

    Attributes:
        config, work: what is scheduled, and what does it; set by the wiring.
    """

    config: ConfigWork
    work: Routine

    @op(
        "IRQ.6",
        "leave the hard interrupt",
        "irq_exit_rcu",
        SOFTIRQ,
        text={
            "softirq": "The handler only scheduled the work. Now, with interrupts on again, the softirq does it.",
            "work": "The handler is done. What it has scheduled is for a kernel thread, which may run here and now.",
            "": "The handler is done and no softirq may run here: back to what was interrupted.",
        },
        to={
            "softirq": call("softirq", "iret"),
            "work": call("work", "iret"),
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
        return "work" if self.config.may_run(me) else self._back_to()

    @op(
        "IRQ.6",
        "return from the interrupt",
        "irqentry_exit",
        ENTRY,
        text={
            "work": "Before the CPU goes back, a kernel thread that has work to do takes it.",
            "": "Back to what the CPU was doing when the interrupt came.",
        },
        to={
            "work": call("work", "iret"),
            "to user": Return(Domain.GUEST_USER),
            "to kernel": Return(Domain.GUEST_KERNEL),
        },
        cause="return from the interrupt",
        opens=True,
        fence=True,
        private=True,
    )
    def iret(self, me: Context) -> str:
        return "work" if self.config.may_run(me) else self._back_to()


class SendmsgThenWork(Sendmsg):
    """Sending where the interface may have lost its carrier, and work may have been scheduled meanwhile.

    Attributes:
        config, work: what is scheduled, and what does it; set by the wiring.
    """

    config: ConfigWork
    work: Routine

    @op(
        "G-TX.3",
        "go through the queueing discipline",
        "__dev_queue_xmit",
        CORE_DEV,
        text={
            "bypass": "The queueing discipline is empty and the queue runs: straight on to the driver.",
            "enqueue": "The queue is stopped or others wait: so does the packet. Packets waiting: {waiting}.",
            DROPPED: "The queueing discipline takes nothing, for it is full or there is no carrier: a packet is lost.",
        },
        to={
            "bypass": call("start_xmit", "return_to_user"),
            "enqueue": call("run_queue", "return_to_user"),
            DROPPED: goto("return_to_user"),
        },
        into={"enqueue": "qdisc"},
    )
    def enqueue(self, me: Context) -> str:
        if not self.config.cells.inactive:
            return Sendmsg.enqueue(self, me) or ""
        self.cpu.cells.softirqs_off = 1
        self.config.drop(me.skb)
        return DROPPED

    @op(
        "G-TX.1",
        "return to the program",
        "__sys_sendmsg",
        SOCKET,
        text={
            "softirq": "Softirqs were held off while the packet was sent; one is waiting and runs now.",
            "work": "With softirqs on again a kernel thread may run, and one has work to do.",
            "return": (
                "sendmsg() returns. The packet is on its way, or at least in the ring; the program does not wait "
                "for it."
            ),
        },
        to={"softirq": call("softirq", "return_to_user"), "work": call("work", "return_to_user"), "return": RETURN},
        cause="return from the system call",
        private=True,
    )
    def return_to_user(self, me: Context) -> str:
        answer = Sendmsg.return_to_user(self, me) or ""
        return "work" if answer == "return" and self.config.may_run(me) else answer
