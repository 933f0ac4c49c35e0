"""What the guest's network stack keeps: a socket, and a transmit queue with queueing discipline and byte limits.

A full transmit queue pushes back: first packets wait in the queueing discipline, then the sender sleeps because its
socket's send buffer is used up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, call, op
from virtviz.paths.guest_cpu import NET_TX, Waits
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import SCH_GENERIC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu
    from virtviz.paths.packets import PacketPool


QDISC_LIMIT = 1000
"""Packets that wait in the queueing discipline: the default txqueuelen of an Ethernet device."""
RECEIVE_QUEUE = 256
"""Packets a socket holds before it drops: the default rcvbuf of 212992 bytes over a small packet's truesize of 768."""
SMALL_TRUESIZE, LARGE_TRUESIZE, SMALL_FRAME = 768, 2304, 448
"""What Linux charges a socket for a packet: a 512-byte or a 2048-byte buffer and the sk_buff; and which frames fit into
the first."""


@cells
class SocketCells(Cells):
    """A socket: bytes charged to its send buffer, packets dropped because the receive queue was full."""

    charged: int = 0
    dropped: int = 0


class Socket:
    """The program's socket.

    Attributes:
        queue: packets received and not yet read. An entry is the slot, times as many pools as there are, plus the
            pool's number: 0 for a packet that was copied out of its buffer, 1 for one that lies in the receive buffers;
            and so on for the receive queues of further vCPUs.
    """

    def __init__(self, state: State, name: str, cpu: GuestCpu, sndbuf: int) -> None:
        self.cpu = cpu
        self.sndbuf = sndbuf
        self.cells = state.add(SocketCells, name)
        self.queue = Fifo(state, f"{name}.receive_queue", RECEIVE_QUEUE)

    def uncharge(self, length: int) -> None:
        """Give a freed packet's share of the send buffer back (sock_wfree), and wake a waiting sender at half."""
        mine = self.cells
        mine.charged = charged = mine.charged - (SMALL_TRUESIZE if length <= SMALL_FRAME else LARGE_TRUESIZE)
        if charged * 2 < self.sndbuf and self.cpu.cells.waits:
            self.cpu.wake_program(Waits.FOR_ROOM)


@cells
class TxQueueCells(Cells):
    """A transmit queue as the stack sees it.

    Attributes:
        driver_off: 1 while the driver has stopped it.
        stack_off: 1 while byte queue limits have.
        more: 1 while the driver is told that another packet follows at once (xmit_more).
        bulk: bytes that may still go in the present bulk, plus one; 0 outside a bulk.
        dropped: packets the queueing discipline had no room for.
        limit, queued, completed, adjusted: byte queue limits: the limit, bytes ever queued and completed, limit plus
            completed.
        over, last_queued: what the last completion saw: bytes over the limit, bytes queued.
    """

    driver_off: int = 0
    stack_off: int = 0
    more: int = 0
    bulk: int = 0
    dropped: int = 0
    limit: int = 0
    queued: int = 0
    completed: int = 0
    adjusted: int = 0
    over: int = 0
    last_queued: int = 0


class TxQueue:
    """A transmit queue: the queueing discipline in front of the driver, and its byte queue limits.

    Args:
        bql: byte queue limits are used.
        limit_min: the lowest limit, as in `byte_queue_limits/limit_min`.
    """

    def __init__(self, state: State, name: str, cpu: GuestCpu, *, bql: bool, limit_min: int) -> None:
        self.cpu = cpu
        self.bql = bql
        self.limit_min = limit_min
        self.cells = state.add(TxQueueCells, name, limit=limit_min, adjusted=limit_min)
        self.qdisc = Fifo(state, f"{name}.qdisc", QDISC_LIMIT)

    def room(self) -> int:
        """Give the bytes that may still be queued; negative when the limit is passed (dql_avail)."""
        return self.cells.adjusted - self.cells.queued

    def sent(self, length: int) -> bool:
        """Account for a packet given to the device (__netdev_tx_sent_queue); answers whether it must be told now."""
        mine = self.cells
        if not self.bql:
            return not mine.more or bool(mine.driver_off)
        mine.queued = queued = mine.queued + length
        if mine.more:
            return bool(mine.driver_off)
        if mine.adjusted < queued:
            mine.stack_off = 1
        return True

    def count_sent(self, length: int) -> None:
        """Account for a packet given to the device, and stop the stack at the limit (netdev_sent_queue)."""
        if not self.bql:
            return
        mine = self.cells
        mine.queued = queued = mine.queued + length
        if mine.adjusted < queued and not mine.stack_off:
            mine.stack_off = 1

    def completed(self, length: int) -> None:
        """Account for bytes the device has done (netdev_tx_completed_queue), and let the stack go on if there is room.

        The limit grows when the queue ran dry although it had been over the limit. It never shrinks here: Linux lowers
        it after a second without need, and no run lasts that long.
        """
        if not self.bql or not length:
            return
        mine = self.cells
        done = mine.completed + length
        over = max(0, mine.queued - mine.completed - mine.limit)
        all_done = done >= mine.last_queued
        limit = mine.limit
        if (over and mine.queued == done) or (mine.over and all_done):
            limit += max(0, done - mine.last_queued) + mine.over
        limit = max(limit, self.limit_min)
        if limit != mine.limit:
            mine.limit = limit
            over = 0
        mine.adjusted = limit + done
        if mine.over != over:
            mine.over = over
        mine.completed = done
        mine.last_queued = mine.queued
        if self.room() >= 0 and mine.stack_off:
            mine.stack_off = 0
            self.cpu.raise_softirq(NET_TX)

    def wake(self) -> bool:
        """Let the driver's queue go on; answers whether it had been stopped."""
        if not self.cells.driver_off:
            return False
        self.cells.driver_off = 0
        self.cpu.raise_softirq(NET_TX)
        return True


class RunQueue(Routine):
    """Send what waits in the queueing discipline while the driver takes it, several in a row where limits allow."""

    def __init__(self, name: str, place: Place, queue: TxQueue, pool: PacketPool, start_xmit: Routine) -> None:
        super().__init__(name, place)
        self.tx = queue
        self.pool = pool
        self.start_xmit = start_xmit

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the number waiting."""
        return {"waiting": len(self.tx.qdisc)}

    @op(
        "G-TX.3",
        "take the next waiting packet",
        "__qdisc_run",
        SCH_GENERIC,
        text={
            "next": "The next packet goes to the driver. Still waiting: {waiting}.",
            "stopped": "The transmit queue is stopped. Still waiting: {waiting}.",
            "empty": "Nothing waits any more.",
        },
        to={"next": call("start_xmit", "dequeue"), "stopped": RETURN, "empty": RETURN},
        private=True,
    )
    def dequeue(self, me: Context) -> str:
        queue, mine = self.tx, self.tx.cells
        if not queue.qdisc:
            return "empty"
        # Byte queue limits stop the stack between bulks, not inside one.
        if mine.driver_off or (mine.stack_off and not mine.bulk):
            mine.bulk = 0
            return "stopped"
        skb = queue.qdisc.take()
        length = self.pool.cells.length[skb]
        left = (mine.bulk - 1 if mine.bulk else queue.room() if queue.bql else 0) - length
        more = left > 0 and len(queue.qdisc) > 0
        if mine.more != more:
            mine.more = int(more)
        if mine.bulk or more:
            mine.bulk = left + 1 if more else 0
        me.skb = skb
        me.packet = self.pool.cells.packet[skb]
        return "next"
