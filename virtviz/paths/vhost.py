"""vhost-net: the kernel worker that serves the virtqueues, its list of work, and how it is woken.

One worker serves the receive and the transmit queue of a pair. It sleeps until a callback on an eventfd or on the TAP's
wait queue puts work on its list; it never reads the kick eventfd's counter. What it does for each direction is in
`vhost_tx.py` and `vhost_rx.py`, what it does to the rings in `ring/split_device.py`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import (
    ALREADY_AWAKE,
    WOKE,
)
from virtviz.engine.ops import RETURN, Routine, block, call_any, goto, op
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import VHOST, VHOST_TASK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context
    from virtviz.paths.device_status import DeviceStatus
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.tap import Tap
    from virtviz.ring.split_device import SplitDevice
    from virtviz.ring.verdicts import BackEnd


WEIGHT_BYTES = 0x80000
"""Bytes after which other work has a turn (VHOST_NET_WEIGHT)."""
HEADS = 1024
"""Heads that one packet may take: UIO_MAXIOV."""
BATCH = 64
"""Socket buffers taken from the TAP at a time, heads after which used elements are flushed (VHOST_NET_BATCH)."""


class Work(IntEnum):
    """Kinds of work on a worker's list; numbers of the routines that do them."""

    TX_KICK = 0
    RX_KICK = 1
    RX_NET = 2


@cells
class WorkerCells(Cells):
    """What a worker keeps.

    Attributes:
        queued: which kinds of work are queued already, as bits.
        detached: queues without a back-end, as bits: 1 the receive queue, 2 the transmit queue.
    """

    queued: int = 0
    detached: int = 0


class Worker:
    """A vhost worker.

    Attributes:
        what: what kind of thread it is, for people.
        list: its work, first in, first out.
        thread: its thread, set when it is made.
    """

    thread: Thread

    def __init__(self, state: State, name: str, what: str = "") -> None:
        self.name = name
        self.what = what
        self.cells = state.add(WorkerCells, name)
        self.list = Fifo(state, f"{name}.work", len(Work))

    def queue(self, work: Work) -> bool:
        """Put work on the list unless it is there already; answers whether it was put."""
        if self.cells.queued >> work & 1:
            return False
        self.cells.queued |= 1 << work
        self.list.put(work)
        return True


@cells
class QueueCells(Cells):
    """What vhost-net keeps for a virtqueue.

    Attributes:
        done: heads whose used elements are still to be written.
        packets: packets handled in this round.
        bytes: bytes handled in this round.
        length: bytes of the packet in hand, headers included.
        missing: bytes of it that still need a buffer.
        first: first head of the packet in hand, as an index into `heads`.
        discarded: packets that no buffer could hold.
        errors: malformed buffers met.
        problem: place in `ring.verdicts.NAMES`, from 1, of what was wrong with the last one; 0 for none.
        heads, written: per head: its number, bytes written into it.
        frames: per head, the packet slot collected for the TAP (transmit).
        pieces: pieces of guest memory that the packet in hand goes into (receive).
        piece_address, piece_length: those pieces.
    """

    done: int = 0
    packets: int = 0
    bytes: int = 0
    length: int = 0
    missing: int = 0
    first: int = 0
    pieces: int = 0
    discarded: int = 0
    errors: int = 0
    problem: int = 0
    heads: list[int]
    written: list[int]
    frames: list[int]
    piece_address: list[int]
    piece_length: list[int]


class VhostQueue:
    """A virtqueue served by vhost-net.

    Attributes:
        ring_name: the virtqueue's name, such as `vm1.transmitq1`.
        ring: the device's side of the virtqueue.
        tap: where its frames go to or come from.
        guest_pool: where the guest keeps its packets; only to know, for people, which packet an address belongs to.
        back_end: whose checks `ring` makes.
        device: the status of the device whose queue it is.
    """

    def __init__(
        self,
        state: State,
        name: str,
        ring_name: str,
        ring: SplitDevice,
        worker: Worker,
        tap: Tap,
        guest_pool: PacketPool,
        device: DeviceStatus,
        *,
        back_end: BackEnd,
        weight: int,
        batch: int,
        mergeable: bool,
    ) -> None:
        self.name = name
        self.ring_name = ring_name
        self.ring = ring
        self.worker = worker
        self.tap = tap
        self.guest_pool = guest_pool
        self.device = device
        self.back_end = back_end
        self.weight = weight
        self.batch = batch
        self.mergeable = mergeable
        size = HEADS + BATCH
        self.cells = state.add(
            QueueCells,
            name,
            heads=[0] * size,
            written=[0] * size,
            frames=[0] * BATCH,
            piece_address=[0] * HEADS,
            piece_length=[0] * HEADS,
        )

    def exceeds_weight(self) -> bool:
        """Count a packet; say whether others should have a turn (vhost_exceeds_weight)."""
        mine = self.cells
        mine.packets = packets = mine.packets + 1
        return packets >= self.weight or mine.bytes >= WEIGHT_BYTES

    def next_packet(self) -> int:
        """Give the number of the packet that the next available head belongs to; 0 if unknown. For people only."""
        ring = self.ring
        slot = ring.cells.last_avail_idx & (ring.layout.size - 1)
        head = int.from_bytes(ring.memory.read(ring.layout.avail_ring(slot), 2), "little")
        if head >= ring.layout.size:
            return 0
        desc = ring.layout.desc + 16 * head
        return self.guest_pool.packet_at(int.from_bytes(ring.memory.read(desc, 8), "little"))


class PollWakeup(Routine):
    """The callback on an eventfd or a wait queue, run by who signals: queue work, wake the worker. KICK.4, N-IN.10.

    Args:
        work: what is to be done.
        row: which row it is.
        who: what the worker is told, for people.
    """

    def __init__(self, name: str, place: Place, worker: Worker, work: Work, row: str, who: str) -> None:
        super().__init__(name, place)
        self.worker = worker
        self.work = work
        self.rows = {"wakeup": row}
        self.who = who
        self.worker_thread = worker.thread

    def words(self, me: Context) -> Mapping[str, object]:
        """Name worker and work."""
        return {"worker": self.worker.name, "who": self.who}

    @op(
        "wakeup",
        "put work on the worker's list",
        "vhost_poll_wakeup",
        VHOST,
        text={
            "queued": "A callback runs right here, in the thread that signalled: {worker} gets work, “{who}”.",
            "queued already": "The same work is on {worker}'s list already; everything will be found then.",
        },
        to={"queued": goto("wake_worker"), "queued already": RETURN},
        fence=True,
    )
    def queue_work(self, me: Context) -> str:
        return "queued" if self.worker.queue(self.work) else "queued already"

    @op(
        "wakeup",
        "wake the worker",
        "vhost_task_wake",
        VHOST_TASK,
        text={
            WOKE: "{worker} was asleep and is made runnable, mostly on another CPU. The thread that signalled goes on.",
            ALREADY_AWAKE: "{worker} is awake already: nothing to wake.",
        },
        to={WOKE: RETURN, ALREADY_AWAKE: RETURN},
        target="worker_thread",
        milestone="notified",
    )
    def wake_worker(self, me: Context) -> str:
        return self.worker_thread.me.wake()


class ServeTap(PollWakeup):
    """The same callback on the TAP's wait queue; it counts as the receive direction's `backend-awake` only later."""

    @op(
        "wakeup",
        "wake the worker",
        "vhost_task_wake",
        VHOST_TASK,
        text={
            WOKE: "{worker} was asleep and is made runnable: a frame waits in the TAP's queue.",
            ALREADY_AWAKE: "{worker} is awake already: it will come to the TAP's queue by itself.",
        },
        to={WOKE: RETURN, ALREADY_AWAKE: RETURN},
        target="worker_thread",
    )
    def wake_worker(self, me: Context) -> str:
        return self.worker_thread.me.wake()


class WorkerLoop(Routine):
    """The worker's own loop: take work, do it, sleep when there is none.

    Args:
        tx, rx: the queues, whose next packet is named when work begins.
        work: name of each kind of work -> the routine that does it, in the order of `Work`.
    """

    def __init__(
        self, name: str, place: Place, worker: Worker, tx: VhostQueue, rx: VhostQueue, work: Mapping[str, Routine]
    ) -> None:
        super().__init__(name, place)
        self.worker = worker
        self.tx = tx
        self.rx = rx
        self.work = work
        self._names = list(work)
        self._device = tx.device

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the worker, and say what it is."""
        return {"worker": self.worker.name, "what": self.worker.what}

    @op(
        {"sleep": "V-TX.16", "handle_rx_kick": "V-RX.1", "handle_rx_net": "V-RX.1", "": "V-TX.1"},
        {"sleep": "sleep until there is work", "": "take the next work"},
        "vhost_run_work_list",
        VHOST,
        text={
            "sleep": "The list is empty: {worker}, {what}, sleeps until it is woken.",
            "handle_tx_kick": (
                "{worker} runs: the guest has kicked its transmit queue. The kick's counter is never read, its "
                "wake-up was enough."
            ),
            "handle_rx_kick": "{worker} runs: the guest has put empty buffers into its receive queue.",
            "handle_rx_net": "{worker} runs: a frame waits in the TAP's queue.",
            "no back-end": "There is work, but the queue has no back-end: there is nothing to serve.",
            "deaf": "There is work, but the device needs a reset: until then {worker} leaves its queues as they are.",
        },
        to={
            "work": call_any("work", "next_work"),
            "sleep": block("next_work"),
            "deaf": goto("next_work"),
            "no back-end": goto("next_work"),
        },
        milestone={"handle_tx_kick": "backend-awake", "handle_rx_net": "backend-awake"},
        fence=True,
    )
    def next_work(self, me: Context) -> str:
        worker = self.worker
        if not worker.list:
            if me.packet:
                me.packet = 0
            return "sleep"
        work = worker.list.take()
        worker.cells.queued &= ~(1 << work)
        if self._device.needs_reset:
            return "deaf"
        if worker.cells.detached >> (work == Work.TX_KICK) & 1:
            return "no back-end"
        if me.observed:
            me.packet = self.tx.next_packet() if work == Work.TX_KICK else self.rx.tap.next_packet()
        return self._names[work]


class VhostRoutine(Routine):
    """A routine that works on one queue of vhost-net."""

    def __init__(self, name: str, place: Place, queue: VhostQueue) -> None:
        super().__init__(name, place, queue.ring_name)
        self.q = queue
        self.ring = queue.ring
        self.mine = queue.ring.cells

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what vhost's texts speak of."""
        mine, queue = self.mine, self.q.cells
        return {
            "worker": self.q.worker.name,
            "head": mine.head,
            "avail": mine.avail_idx,
            "next": mine.last_avail_idx,
            "used": mine.last_used_idx,
            "count": queue.done,
            "batch": self.q.batch,
            "weight": self.q.weight,
            "length": queue.length,
            "missing": queue.missing,
            "wish": self._wish(),
            "kicks": f"to be kicked for entry {mine.avail_idx}"
            if self.ring.event_idx
            else "for kicks (used.flags = 0)",
            "unasked": " (the first time vhost does not even ask)" if self.ring.event_idx else "",
        }

    def _wish(self) -> str:
        """Name what a guest says whether it wants interrupts by, and with event indices its value."""
        ring = self.ring
        if not ring.event_idx:
            return f"avail.flags {int.from_bytes(ring.memory.read(ring.layout.avail_flags, 2), 'little')}"
        return f"used_event {int.from_bytes(ring.memory.read(ring.layout.used_event, 2), 'little')}"
