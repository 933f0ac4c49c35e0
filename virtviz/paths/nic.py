"""The host's network card: sending (block NIC-TX), and its engine in hardware (NIC-TX row 4, N-IN rows 1 and 2).

The engine is a thread of its own that reaches the host only through memory and interrupts. Sent frames are cleaned up
by the next poll of the card (`nic_poll.py`); only when many are waiting does the card interrupt for them alone
(interrupt moderation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import (
    DMA_READ,
    DMA_WRITTEN,
    DROPPED,
    HW_INTERRUPTED,
)
from virtviz.engine.ops import RETURN, Routine, goto, op
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import CORE_DEV, DUMMY, IXGBE, SCH_GENERIC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context
    from virtviz.paths.host_net import Wire
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.traffic import Traffic


QDISC_LIMIT = 1000
GRO_BATCH = 8
STOP_BELOW = 4
"""Free transmit descriptors below which the driver stops its queue."""


@cells
class NicCells(Cells):
    """What the card and its driver keep.

    Attributes:
        masked: 1 while the driver polls and wants no interrupt.
        driver_off: 1 while the transmit queue is stopped.
        qdisc_dropped: frames the queueing discipline had no room for.
        rx_missed: frames that found no free receive descriptor.
        polled: frames taken in this poll.
        sent: frames the card has ever sent: how far it has come in its transmit ring.
    """

    masked: int = 0
    sent: int = 0
    driver_off: int = 0
    qdisc_dropped: int = 0
    rx_missed: int = 0
    polled: int = 0


class Nic:
    """A network card.

    Attributes:
        tx: the transmit ring: frames whose descriptors the driver has written and not yet cleaned up, the sent ones
            first.
        rx: frames the card has received and the driver has not taken.
        collected: frames of this poll that wait to be handed up.
        qdisc: frames waiting because the transmit queue is stopped.
        softirq: the thread that serves its interrupt, set when it is made.
    """

    softirq: Thread

    def __init__(
        self, state: State, name: str, pool: PacketPool, wire: Wire, traffic: Traffic, ring: int, tx_frames: int
    ) -> None:
        self.name = name
        self.pool = pool
        self.wire = wire
        self.traffic = traffic
        self.ring = ring
        self.tx_frames = min(tx_frames, ring // 2)
        self.cells = state.add(NicCells, name)
        self.tx = Fifo(state, f"{name}.tx", ring)
        self.rx = Fifo(state, f"{name}.rx", ring)
        self.collected = Fifo(state, f"{name}.gro", GRO_BATCH)
        self.qdisc = Fifo(state, f"{name}.qdisc", QDISC_LIMIT)

    def free_descriptors(self) -> int:
        """Count the free transmit descriptors."""
        return self.ring - len(self.tx)

    def unsent(self) -> int:
        """Give the slot of the next frame to send, 0 if there is none."""
        ring, sent = self.tx.cells, self.cells.sent
        return ring.slots[sent % self.ring] if ring.put != sent else 0

    def interrupt_due(self) -> bool:
        """Say whether the card has something to interrupt for."""
        if self.cells.masked:
            return False
        received = self.rx.cells
        return received.put != received.taken or self.cells.sent - self.tx.cells.taken >= self.tx_frames

    def arrival(self) -> int:
        """Give the number of the next frame on the wire to this host; 0 if none."""
        return self.wire.answers.first() or self.wire.next_arrival()

    def has_work(self) -> bool:
        """Say whether the card's engine has anything to do."""
        return self.tx.cells.put != self.cells.sent or self.interrupt_due() or self.arrival() != 0


class NicXmit(Routine):
    """Send a frame by the card, in the thread of whoever sends: rows 1 to 3 of NIC-TX."""

    def __init__(self, name: str, place: Place, nic: Nic) -> None:
        super().__init__(name, place)
        self.nic = nic

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the card."""
        return {"nic": self.nic.name, "waiting": len(self.nic.qdisc), "free": self.nic.free_descriptors()}

    @op(
        "NIC-TX.1",
        "pass the queueing discipline",
        "__dev_queue_xmit",
        CORE_DEV,
        text={
            "direct": "{nic}'s queueing discipline is empty: straight to the card's driver.",
            "queued": "{nic}'s transmit queue is stopped: the frame waits. Frames waiting: {waiting}.",
            DROPPED: "{nic}'s queueing discipline is full: the frame is dropped here.",
        },
        to={"direct": goto("write_desc"), "queued": RETURN, DROPPED: RETURN},
        into={"queued": "{nic}.qdisc"},
    )
    def queue_xmit(self, me: Context) -> str:
        nic = self.nic
        if not nic.cells.driver_off and not nic.qdisc:
            return "direct"
        if nic.qdisc.put(me.skb):
            return "queued"
        nic.cells.qdisc_dropped += 1
        nic.pool.release(me.skb)
        return DROPPED

    @op(
        "NIC-TX.2",
        "write the card's descriptor",
        "ixgbe_xmit_frame_ring",
        IXGBE,
        text={
            "open": "The frame's memory is mapped for DMA and described in {nic}'s transmit ring.",
            "stopped": (
                "The frame is described in {nic}'s transmit ring. Descriptors left: {free}, so the queue is stopped."
            ),
        },
        to={"open": goto("ring_doorbell"), "stopped": goto("ring_doorbell")},
        into="{nic}.tx",
    )
    def write_desc(self, me: Context) -> str:
        nic = self.nic
        nic.tx.put(me.skb)
        if nic.free_descriptors() >= STOP_BELOW:
            return "open"
        nic.cells.driver_off = 1
        return "stopped"

    @op(
        "NIC-TX.3",
        "ring the doorbell",
        "ixgbe_tx_map",
        IXGBE,
        text=(
            "One write to the card's tail register: a real device, so no exit and no system call. The "
            "thread's work with this frame is done."
        ),
        to=RETURN,
        cost="doorbell",
        fence=True,
    )
    def ring_doorbell(self, me: Context) -> None: ...


class RunNicQueue(Routine):
    """Send what waits in the card's queueing discipline (NET_TX softirq)."""

    def __init__(self, name: str, place: Place, nic: Nic, xmit: Routine) -> None:
        super().__init__(name, place)
        self.nic = nic
        self.xmit = xmit

    @op(
        "NIC-TX.1",
        "take the next waiting frame",
        "__qdisc_run",
        SCH_GENERIC,
        text={
            "next": "The stopped queue goes on: the next waiting frame is sent.",
            "done": "Nothing waits, or the queue is full again.",
        },
        to={"next": goto("write_desc"), "done": RETURN},
        private=True,
    )
    def dequeue(self, me: Context) -> str:
        nic = self.nic
        if nic.cells.driver_off or not nic.qdisc:
            return "done"
        me.skb = nic.qdisc.take()
        me.packet = nic.pool.cells.packet[me.skb]
        return "next"

    @op(
        "NIC-TX.2",
        "write the card's descriptor",
        "ixgbe_xmit_frame_ring",
        IXGBE,
        text="The frame is described in the card's transmit ring, and the doorbell is rung.",
        to=goto("dequeue"),
        into="{nic}.tx",
        cost="doorbell",
    )
    def write_desc(self, me: Context) -> None:
        nic = self.nic
        nic.tx.put(me.skb)
        if nic.free_descriptors() < STOP_BELOW:
            nic.cells.driver_off = 1

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the card."""
        return {"nic": self.nic.name}


class NicEngine(Routine):
    """The card itself: row 4 of NIC-TX, rows 1 and 2 of N-IN."""

    def __init__(self, name: str, place: Place, nic: Nic) -> None:
        super().__init__(name, place)
        self.nic = nic
        self.softirq_thread = nic.softirq
        self.has_work = nic.has_work

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the card."""
        return {"nic": self.nic.name}

    @op(
        {DMA_READ: "NIC-TX.4", HW_INTERRUPTED: "N-IN.2", "": "N-IN.1"},
        {
            DMA_READ: "read the frame by DMA",
            DMA_WRITTEN: "write the frame by DMA",
            DROPPED: "drop the frame",
            HW_INTERRUPTED: "raise the interrupt",
        },
        "(hardware)",
        IXGBE,
        text={
            DMA_READ: (
                "{nic} finds a new descriptor in its transmit ring and reads the frame from the host's memory by "
                "itself."
            ),
            DMA_WRITTEN: "A frame comes in from the wire. {nic} writes it into the host's memory by itself.",
            DROPPED: (
                "A frame comes in from the wire, but no receive descriptor is free: {nic} drops it and counts it "
                "as missed."
            ),
            HW_INTERRUPTED: "{nic} sends its MSI-X interrupt to a CPU of the host.",
        },
        to={
            DMA_READ: goto("put_on_wire"),
            DMA_WRITTEN: goto("serve"),
            DROPPED: goto("serve"),
            HW_INTERRUPTED: goto("serve"),
        },
        milestone={DMA_WRITTEN: "from-wire"},
        into={DMA_WRITTEN: "{nic}.rx"},
        size="length",
        target="softirq_thread",
        guard="has_work",
        fence=True,
    )
    def serve(self, me: Context) -> str:
        nic = self.nic
        slot = nic.unsent()
        if slot:
            me.packet = nic.pool.cells.packet[slot]
            return DMA_READ
        if nic.interrupt_due():
            nic.cells.masked = 1
            self.softirq_thread.me.wake()
            return HW_INTERRUPTED
        return self._receive(me)

    def length(self, me: Context) -> int:
        """Give the bytes of the frame in hand."""
        return self.nic.wire.length(me.packet)

    def _receive(self, me: Context) -> str:
        nic = self.nic
        me.packet = nic.arrival()
        if nic.wire.answers:
            nic.wire.answers.take()
        else:
            nic.wire.take_arrival()
        if nic.rx.is_full:
            nic.cells.rx_missed += 1
            return DROPPED
        slot = nic.pool.take(me.packet)
        nic.wire.write(nic.pool, slot, me.packet)
        nic.rx.put(slot)
        return DMA_WRITTEN

    @op(
        "NIC-TX.4",
        "put the frame on the wire",
        "(hardware)",
        IXGBE,
        text={
            "answered": (
                "The frame is on the wire, and the far host will answer it. The guest's buffer was given back long ago."
            ),
            "sent": "The frame is on the wire. The guest's buffer was given back long ago.",
        },
        to={"answered": goto("serve"), "sent": goto("serve")},
        milestone="on-wire",
        into="wire",
        cost="wire",
    )
    def put_on_wire(self, me: Context) -> str:
        nic = self.nic
        is_answered = nic.wire.send(nic.pool, nic.unsent(), me.packet)
        nic.cells.sent += 1
        return "answered" if is_answered else "sent"


class DummyXmit(Routine):
    """A dummy device: takes every frame and throws it away."""

    def __init__(self, name: str, place: Place, pool: PacketPool) -> None:
        super().__init__(name, place)
        self.pool = pool

    @op(
        "NIC-TX.1",
        "transmit on a dummy device",
        "dummy_xmit",
        DUMMY,
        text="The far port is a dummy device: it takes the frame, counts it as sent, and forgets it.",
        to=RETURN,
        milestone="on-wire",
        into="wire",
    )
    def dummy_xmit(self, me: Context) -> None:
        self.pool.release(me.skb)
