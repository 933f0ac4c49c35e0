"""The host's network stack around the switch: a device's transmit queue, softirqs, and the laboratory's veth pair.

A softirq runs in whatever thread raised it, once that thread lets it; the one that serves the network card's interrupt
has a CPU of its own here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.context import Level
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import CORE_DEV, IP_ICMP, IP_INPUT, SOFTIRQ, VETH
from virtviz.spec.frames import summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.traffic import Item, Traffic

BACKLOG = 1000
"""Frames that wait for process_backlog (net.core.netdev_max_backlog)."""
FROM_SWITCH, TO_SWITCH = 0, 1
"""Which end of the veth pair a frame in the backlog has come out of."""


@cells
class BacklogCells(Cells):
    """Per CPU, here per thread: what a softirq interrupts, and frames dropped because the backlog was full."""

    saved_packet: int = 0
    saved_skb: int = 0
    saved_level: int = 0
    saved_port: int = 0
    dropped: int = 0


class Backlog:
    """The frames one thread has raised a softirq for (netif_rx): twice the slot, plus the end of the veth pair."""

    def __init__(self, state: State, name: str) -> None:
        self.cells = state.add(BacklogCells, name)
        self.queue = Fifo(state, f"{name}.queue", BACKLOG)


class LocalSoftirqs(Routine):
    """local_bh_enable in the worker, after a batch: softirqs raised meanwhile run now, in this thread.

    Args:
        backlogs: for each thread, by number, its backlog; None for threads that never raise one.
        poll: works the backlog off.
    """

    def __init__(self, name: str, place: Place, backlogs: list[Backlog | None], poll: Routine) -> None:
        super().__init__(name, place)
        self.backlogs = backlogs
        self.poll = poll

    @op(
        "V-TX.11",
        "let softirqs run",
        "__local_bh_enable_ip",
        SOFTIRQ,
        text={
            "softirq": "The frame has raised a softirq, which runs now, in this same thread.",
            "none": "Softirqs were held off until now; none is waiting.",
        },
        to={"softirq": call("poll", None), "none": RETURN},
        private=True,
    )
    def bh_enable(self, me: Context) -> str:
        return "softirq" if softirq_waits(self.backlogs, me) else "none"


def softirq_waits(backlogs: Sequence[Backlog | None], me: Context) -> bool:
    """Say whether a thread has raised a softirq that has not run."""
    backlog = backlogs[me.index]
    return backlog is not None and bool(backlog.queue)


class VethXmit(Routine):
    """Transmission on one end of a veth pair: the frame comes out of the other end, in a softirq of the same thread.

    Args:
        backlogs: as in `LocalSoftirqs`.
        end: which end it comes out of.
        pool: the host's packet memory.
    """

    def __init__(
        self, name: str, place: Place, backlogs: list[Backlog | None], end: int, pool: PacketPool, device: str
    ) -> None:
        super().__init__(name, place)
        self.backlogs = backlogs
        self.end = end
        self.pool = pool
        self.device = device

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the device."""
        return {"device": self.device}

    @op(
        "NIC-TX.1",
        "transmit on the veth pair",
        "veth_xmit",
        VETH,
        text={
            "raised": (
                "{device} is one end of a veth pair: the frame is put on this CPU's backlog, and a softirq will "
                "take it out at the other end."
            ),
            DROPPED: "This CPU's backlog is full: the frame is dropped here.",
        },
        to={"raised": RETURN, DROPPED: RETURN},
        into={"raised": "backlog"},
        milestone={"raised": "on-wire"},
        cost="nic",
    )
    def veth_xmit(self, me: Context) -> str:
        backlog = self.backlogs[me.index]
        assert backlog is not None, me.index
        if backlog.queue.put(me.skb << 1 | self.end):
            return "raised"
        backlog.cells.dropped += 1
        self.pool.release(me.skb)
        return DROPPED


class VethXmitBack(VethXmit):
    """The same at the far end: what comes out is on its way into the guest."""

    @op(
        "N-IN.1",
        "answer on the veth pair",
        "veth_xmit",
        VETH,
        text={
            "raised": "The far end's answer goes into {device} and will come out at the switch, in the same softirq.",
            DROPPED: "This CPU's backlog is full: the frame is dropped here.",
        },
        to={"raised": RETURN, DROPPED: RETURN},
        into={"raised": "backlog"},
        milestone={"raised": "from-wire"},
        cost="nic",
    )
    def veth_xmit(self, me: Context) -> str:
        return super().veth_xmit(me) or ""


class ProcessBacklog(Routine):
    """The softirq that works a backlog off: process_backlog.

    Args:
        receive: what takes frames that come out at the switch.
        peer: what takes frames that come out at the far end.
        port: the switch port of the near end.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        backlogs: list[Backlog | None],
        pool: PacketPool,
        receive: Routine,
        peer: Routine,
        port: int,
    ) -> None:
        super().__init__(name, place)
        self.backlogs = backlogs
        self.pool = pool
        self.receive = receive
        self.peer = peer
        self.port = port

    @op(
        "N-IN.3",
        "begin the softirq",
        "handle_softirqs",
        SOFTIRQ,
        text="The receive softirq runs in the thread that raised it, on top of what that thread was doing.",
        private=True,
    )
    def begin(self, me: Context) -> None:
        mine = self._backlog(me).cells
        mine.saved_packet, mine.saved_skb, mine.saved_level, mine.saved_port = me.packet, me.skb, me.level, me.port
        me.level = Level.SOFTIRQ

    def _backlog(self, me: Context) -> Backlog:
        backlog = self.backlogs[me.index]
        assert backlog is not None, me.index
        return backlog

    @op(
        "N-IN.3",
        {"empty": "end the softirq", "": "take the next frame of the backlog"},
        "process_backlog",
        CORE_DEV,
        text={
            "far end": "The frame comes out at the far end of the pair, in another network namespace.",
            "switch": "The frame comes out at the switch's end of the pair.",
            "empty": "The backlog is empty: the softirq ends.",
        },
        to={"far end": call("peer", "next_frame"), "switch": call("receive", "next_frame"), "empty": RETURN},
        private=True,
    )
    def next_frame(self, me: Context) -> str:
        backlog = self._backlog(me)
        if not backlog.queue:
            mine = backlog.cells
            me.packet, me.skb, me.level, me.port = (
                mine.saved_packet,
                mine.saved_skb,
                mine.saved_level,
                mine.saved_port,
            )
            return "empty"
        entry = backlog.queue.take()
        me.skb = entry >> 1
        me.packet = self.pool.cells.packet[me.skb]
        if entry & 1 == FROM_SWITCH:
            return "far end"
        me.port = self.port
        return "switch"


class PeerReceive(Routine):
    """The far host in the other namespace: takes the frame, and answers where the scenario says so.

    Args:
        back: transmission on its end of the pair.
    """

    def __init__(self, name: str, place: Place, pool: PacketPool, wire: Wire, back: Routine) -> None:
        super().__init__(name, place)
        self.pool = pool
        self.wire = wire
        self.traffic = wire.traffic
        self.back = back

    def words(self, me: Context) -> Mapping[str, object]:
        """Say what the packet is."""
        return {"what": summary(self.traffic.frame(me.packet)) if me.packet else ""}

    @op(
        "NIC-TX.4",
        "the far end takes the frame",
        "ip_protocol_deliver_rcu",
        IP_INPUT,
        text={
            "answer": "The far end has the frame, and answers it at once.",
            "taken": "The far end has the frame. Nobody answers.",
        },
        to={"answer": goto("answer"), "taken": RETURN},
    )
    def take(self, me: Context) -> str:
        self.pool.release(me.skb)
        return "answer" if self.traffic.answer_to(me.packet) else "taken"

    @op(
        "N-IN.1",
        "the far end answers",
        "icmp_reply",
        IP_ICMP,
        text="{what}.",
        to=call("back", None),
    )
    def answer(self, me: Context) -> None:
        packet = self.traffic.answer_to(me.packet)
        me.packet = packet
        me.skb = self.pool.take(packet)
        self.wire.write(self.pool, me.skb, packet)


class Arrivals(Routine):
    """The far host's own sender, for frames that come by themselves; it is a thread of the far namespace.

    Args:
        xmit: transmission on its end of the pair.
        softirq: takes the frame out at the other end.
    """

    def __init__(self, name: str, place: Place, pool: PacketPool, wire: Wire, xmit: Routine, softirq: Routine) -> None:
        super().__init__(name, place)
        self.pool = pool
        self.wire = wire
        self.xmit = xmit
        self.softirq = softirq

    def due(self) -> bool:
        """Say whether a frame waits to be sent."""
        return self.wire.next_arrival() != 0

    @op(
        "N-IN.1",
        "the far end sends",
        "dev_hard_start_xmit",
        CORE_DEV,
        text="A program at the far end sends a frame to the guest.",
        to=call("xmit", "sent"),
        guard="due",
    )
    def send(self, me: Context) -> None:
        me.packet = self.wire.take_arrival()
        me.skb = self.pool.take(me.packet)
        self.wire.write(self.pool, me.skb, me.packet)

    @op(
        "N-IN.1",
        "let softirqs run",
        "__local_bh_enable_ip",
        SOFTIRQ,
        text="The far end's sender lets the softirq run that its frame has raised.",
        to=call("softirq", "send"),
        private=True,
    )
    def sent(self, me: Context) -> None: ...


@cells
class WireCells(Cells):
    """How far the wire is with the frames that come by themselves: round, position in the list."""

    round: int = 0
    at: int = 0


class Wire:
    """What comes in from outside by itself or in answer: the order in which frames reach the host.

    Attributes:
        answers: answers under way to the host.
        phase: gives the round that the program of an item's receiver is in, and the pauses it has passed in it; set by
            the wiring.
    """

    phase: Callable[[Item], tuple[int, int]]

    def __init__(self, state: State, name: str, traffic: Traffic) -> None:
        self.traffic = traffic
        self.cells = state.add(WireCells, name)
        self.answers = Fifo(state, f"{name}.answers", 4096)

    def next_arrival(self) -> int:
        """Give the number of the next frame that comes by itself and is due; 0 if none."""
        mine, arrivals = self.cells, self.traffic.arrivals
        if mine.at >= len(arrivals):
            return 0
        index, pauses = arrivals[mine.at]
        is_due = self.phase(self.traffic.items[index]) >= (mine.round, pauses)
        return mine.round * len(self.traffic.items) + index + 1 if is_due else 0

    def send(self, pool: PacketPool, slot: int, packet: int) -> bool:
        """Let the far host have the frame in a slot of a pool, by its number; says whether it will answer."""
        answer = self.traffic.answer_to(packet)
        return bool(answer) and self.answers.put(answer)

    def write(self, pool: PacketPool, slot: int, packet: int) -> None:
        """Write a frame as it comes in from the far host into its slot."""
        pool.fill(slot, self.traffic.frame(packet))

    def length(self, packet: int) -> int:
        """Give the bytes that a frame has on the wire."""
        return self.traffic.length(packet)

    def take_arrival(self) -> int:
        """Take the frame that `next_arrival` gave."""
        packet = self.next_arrival()
        mine = self.cells
        mine.at += 1
        if mine.at >= len(self.traffic.arrivals) and mine.round + 1 < self.traffic.rounds:
            mine.at = 0
            mine.round += 1
        return packet
