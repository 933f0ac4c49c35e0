"""vhost-net: the kernel worker that serves the virtqueues. Blocks V-TX and V-RX.

One worker serves the receive and the transmit queue of a pair. It sleeps until a callback on an eventfd or on the TAP's wait queue puts work on its list; it
never reads the kick eventfd's counter. What it does to the rings is `ring/split_device.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import ALREADY_AWAKE, COPIED, DROPPED, SIGNALLED, WOKE
from virtviz.engine.ops import RETURN, Routine, block, call, call_any, goto, op
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import EVENTFD, TUN, VHOST, VHOST_NET
from virtviz.spec.virtio import NUM_BUFFERS_OFFSET, VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import EventfdCells
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.tap import Tap
    from virtviz.ring.split_device import SplitDevice

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
    """What a worker keeps: which kinds of work are queued already, as bits."""

    queued: int = 0


class Worker:
    """A vhost worker.

    Attributes:
        list: its work, first in, first out.
        thread: its thread, set when it is made.
    """

    thread: Thread

    def __init__(self, state: State, name: str) -> None:
        self.name = name
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
    """

    def __init__(  # noqa: PLR0913 - what a queue joins
        self,
        state: State,
        name: str,
        ring_name: str,
        ring: SplitDevice,
        worker: Worker,
        tap: Tap,
        guest_pool: PacketPool,
        *,
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
    """The callback on an eventfd or a wait queue: queue work, wake the worker. Row KICK.4 or N-IN.10, in the thread that signals.

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

    def words(self, me: Context) -> Mapping[str, object]:  # noqa: ARG002
        """Name worker and work."""
        return {"worker": self.worker.name, "who": self.who}

    @op(
        "wakeup",
        "put work on the worker's list",
        "vhost_poll_wakeup",
        VHOST,
        text={
            "queued": "A callback runs right here, in the thread that signalled: {worker} gets work, “{who}”.",
            "queued already": "The same work is on {worker}'s list already; it will find everything when it comes to it.",
        },
        to={"queued": goto("wake_worker"), "queued already": RETURN},
        fence=True,
    )
    def queue_work(self, me: Context) -> str:  # noqa: ARG002
        return "queued" if self.worker.queue(self.work) else "queued already"

    @op(
        "wakeup",
        "wake the worker",
        "vhost_worker_queue",
        VHOST,
        text={
            WOKE: "{worker} was asleep and is made runnable, on another CPU. The thread that signalled goes on.",
            ALREADY_AWAKE: "{worker} is awake already: nothing to wake.",
        },
        to={WOKE: RETURN, ALREADY_AWAKE: RETURN},
        target="worker_thread",
        cost="wake",
        milestone="notified",
    )
    def wake_worker(self, me: Context) -> str:  # noqa: ARG002
        return self.worker_thread.me.wake()


class ServeTap(PollWakeup):
    """The same callback on the TAP's wait queue; it counts as the receive direction's `backend-awake` only later."""

    @op(
        "wakeup",
        "wake the worker",
        "vhost_worker_queue",
        VHOST,
        text={
            WOKE: "{worker} was asleep and is made runnable: a frame waits in the TAP's queue.",
            ALREADY_AWAKE: "{worker} is awake already: it will come to the TAP's queue by itself.",
        },
        to={WOKE: RETURN, ALREADY_AWAKE: RETURN},
        target="worker_thread",
        cost="wake",
    )
    def wake_worker(self, me: Context) -> str:  # noqa: ARG002
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

    def words(self, me: Context) -> Mapping[str, object]:  # noqa: ARG002
        """Name the worker."""
        return {"worker": self.worker.name}

    @op(
        {"sleep": "V-TX.16", "handle_rx_kick": "V-RX.1", "handle_rx_net": "V-RX.1", "": "V-TX.1"},
        "take the next work",
        "vhost_run_work_list",
        VHOST,
        text={
            "sleep": "The list is empty: {worker} sleeps. It will not be polling anything; it waits to be woken.",
            "handle_tx_kick": "{worker} runs: the guest has kicked its transmit queue. The kick's counter is never read, its wake-up was enough.",
            "handle_rx_kick": "{worker} runs: the guest has put empty buffers into its receive queue.",
            "handle_rx_net": "{worker} runs: a frame waits in the TAP's queue.",
        },
        to={"work": call_any("work", "next_work"), "sleep": block("next_work")},
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
        if me.observed:
            me.packet = self.tx.next_packet() if work == Work.TX_KICK else self.rx.tap.next_packet()
        return self._names[work]


class _VhostRoutine(Routine):
    """A routine that works on one queue of vhost-net."""

    def __init__(self, name: str, place: Place, queue: VhostQueue) -> None:
        super().__init__(name, place, queue.ring_name)
        self.q = queue
        self.ring = queue.ring
        self.mine = queue.ring.cells

    def words(self, me: Context) -> Mapping[str, object]:  # noqa: ARG002
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
        }


class HandleTx(_VhostRoutine):
    """Send what the guest put into its transmit queue: handle_tx, block V-TX rows 2 to 9.

    Args:
        pool: the host's packet memory.
        flush: hands the collected frames to the TAP and returns the buffers.
    """

    def __init__(self, name: str, place: Place, queue: VhostQueue, pool: PacketPool, flush: Routine) -> None:
        super().__init__(name, place, queue)
        self.pool = pool
        self.flush = flush
        self._memory = queue.ring.memory

    @op(
        "V-TX.2",
        "ask for no more kicks",
        "vhost_disable_notify",
        VHOST,
        spec="2.7.10",
        text={
            "written": "used.flags says NO_NOTIFY: the guest need not kick while the worker is at it.",
            "nothing": "With event indices nothing is written: the old avail_event lies behind, and that is suppression enough.",
        },
        to={"written": goto("stop_watching_tap"), "nothing": goto("stop_watching_tap")},
    )
    def disable_kicks(self, me: Context) -> str:  # noqa: ARG002
        queue = self.q.cells
        if queue.packets:
            queue.packets = 0
        if queue.bytes:
            queue.bytes = 0
        return "written" if self.ring.disable_kicks() else "nothing"

    @op(
        "V-TX.3",
        "stop watching the TAP",
        "vhost_net_disable_vq",
        VHOST_NET,
        text="The worker is about to write to the TAP and need not be told when it becomes writable.",
        private=True,
    )
    def stop_watching_tap(self, me: Context) -> None: ...

    @op(
        "V-TX.4",
        "read avail.idx",
        "vhost_get_avail_idx",
        VHOST,
        spec="2.7.13",
        text={
            "known": "avail.idx was {avail} when it was last read: entry {next} is still to be taken.",
            "new": "avail.idx is {avail}: the guest has made entry {next} available.",
            "empty": "avail.idx is still {avail}: the ring is empty.",
            "bad": "avail.idx has jumped further than the ring is long. vhost reports an error and stops until the next kick.",
        },
        to={
            "known": goto("read_head"),
            "new": goto("read_head"),
            "empty": goto("enable_kicks"),
            "bad": goto("flush"),
        },
        cost="ring cold",
    )
    def read_avail_idx(self, me: Context) -> str:  # noqa: ARG002
        if self.mine.avail_idx != self.mine.last_avail_idx:
            return "known"
        answer = self.ring.read_avail_idx()
        return answer if answer in ("new", "empty") else self._bad()

    def _bad(self) -> str:
        self.q.cells.errors += 1
        return "bad"

    @op(
        "V-TX.5",
        "read the head",
        "vhost_get_avail_head",
        VHOST,
        spec="2.7.6",
        text={
            "head": "The available ring's slot says: head {head}.",
            "bad": "The head is no number of a descriptor. vhost reports an error and stops until the next kick.",
        },
        to={"head": goto("read_desc"), "bad": goto("flush")},
        cost="ring cold",
    )
    def read_head(self, me: Context) -> str:
        if self.ring.read_head() != "head":
            return self._bad()
        if me.observed:
            me.packet = self.q.guest_pool.packet_at(self.ring.peek_address())
        return "head"

    @op(
        "V-TX.6",
        "read the descriptor",
        "vhost_get_vq_desc",
        VHOST,
        spec="2.7.5",
        text={
            "last": "The descriptor gives a guest-physical address and a length. vhost translates it to an address in QEMU's memory.",
            "next": "The descriptor gives a piece of the buffer; the chain goes on.",
            "indirect": "The descriptor refers to a table: the buffer's pieces are described there.",
            "bad": "The descriptor makes no sense. vhost reports an error and stops until the next kick.",
        },
        to={
            "last": goto("copy_packet"),
            "next": goto("read_desc"),
            "indirect": goto("read_desc"),
            "bad": goto("flush"),
        },
        cost="ring cold",
        milestone={"last": "fetched"},
    )
    def read_desc(self, me: Context) -> str:  # noqa: ARG002
        answer = self.ring.read_desc()
        mine = self.mine
        # A transmit buffer is all for reading, and longer than its header.
        if answer == "last" and not mine.writable and (mine.length[0] > VIRTIO_NET_HDR_BYTES or self.ring.total() > VIRTIO_NET_HDR_BYTES):
            return "last"
        return answer if answer in ("next", "indirect") else self._bad()

    @op(
        "V-TX.7",
        "copy the packet out of the guest",
        "vhost_net_build_xdp",
        VHOST_NET,
        spec="5.1.9.2",
        text="Header and frame, {length} bytes, are copied from guest memory into a page of the host. This is the only copy the host makes.",
        to={COPIED: goto("remember_head")},
        size="length",
    )
    def copy_packet(self, me: Context) -> str:
        queue, mine, pool = self.q.cells, self.mine, self.pool
        first = mine.address[0]
        if mine.readable == 1:
            data = self._memory.bytes[first : first + mine.length[0]]
        else:
            data = self.ring.gather()
        length = len(data)
        me.packet = packet = self.q.guest_pool.packet_at(first)
        slot = pool.take(packet, length - VIRTIO_NET_HDR_BYTES)
        # The header lies in front of the frame, in the slot's headroom.
        pool.memory.write(pool.at[slot] - VIRTIO_NET_HDR_BYTES, data)
        queue.length = length
        queue.bytes += length - VIRTIO_NET_HDR_BYTES
        queue.frames[queue.done] = slot
        return COPIED

    def length(self, me: Context) -> int:  # noqa: ARG002
        """Give the bytes of the packet in hand, header included."""
        return self.q.cells.length

    @op(
        "V-TX.8",
        "remember the head",
        "handle_tx_copy",
        VHOST_NET,
        text={
            "more": "Frame {count} of at most {batch} is in the batch; nothing is sent yet. On to the next entry.",
            "batch full": "{batch} frames are collected: the batch is sent before the next entry is taken.",
            "weight": "{weight} packets, or 512 KiB, in one go: the worker queues itself again and lets other work have a turn.",
        },
        to={
            "more": goto("read_avail_idx"),
            "batch full": call("flush", "read_avail_idx"),
            "weight": goto("requeue"),
        },
        private=True,
    )
    def remember_head(self, me: Context) -> str:  # noqa: ARG002
        queue = self.q.cells
        done = queue.done
        queue.heads[done] = self.mine.head
        queue.written[done] = 0
        queue.done = done = done + 1
        if self.q.exceeds_weight():
            return "weight"
        return "batch full" if done >= self.q.batch else "more"

    @op(
        "V-TX.8",
        "queue itself again",
        "vhost_exceeds_weight",
        VHOST,
        text="The same work goes to the end of the list: the other queue of this worker comes first.",
        to=goto("flush"),
    )
    def requeue(self, me: Context) -> None:  # noqa: ARG002
        self.q.worker.queue(Work.TX_KICK)

    @op(
        "V-TX.9",
        "ask for the next kick",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text="Before it sends anything, the worker asks to be kicked for entry {avail}: from now on the guest must tell.",
    )
    def enable_kicks(self, me: Context) -> None:  # noqa: ARG002
        self.ring.enable_kicks()

    @op(
        "V-TX.9",
        "full barrier",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text="The wish must be visible before avail.idx is read again. It is the twin of the driver's barrier before its kick check.",
        fence=True,
        cost="barrier",
    )
    def mb_before_recheck(self, me: Context) -> None: ...

    @op(
        "V-TX.9",
        "look at avail.idx again",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text={
            "still empty": "Nothing slipped in while the worker was asking: now the batch can go.",
            "more": "The guest slipped something in meanwhile: the wish is withdrawn, and the batch grows.",
        },
        to={"still empty": goto("flush"), "more": goto("disable_again")},
        cost="ring cold",
    )
    def recheck_avail_idx(self, me: Context) -> str:  # noqa: ARG002
        return "more" if self.ring.read_avail_idx() == "new" else "still empty"

    @op(
        "V-TX.9",
        "ask for no more kicks",
        "vhost_disable_notify",
        VHOST,
        spec="2.7.10",
        text="The worker is at it again and needs no kick.",
        to=goto("read_avail_idx"),
    )
    def disable_again(self, me: Context) -> None:  # noqa: ARG002
        self.ring.disable_kicks()


class ReturnBuffers(_VhostRoutine):
    """Write used elements, publish them, interrupt if wanted: vhost_add_used_and_signal_n.

    Rows V-TX.12 to 15 or V-RX.11 to 14.

    Args:
        eventfd: the call eventfd.
        irqfd: what signalling it leads to.
    """

    def __init__(  # noqa: PLR0913 - what returning buffers joins
        self,
        name: str,
        place: Place,
        queue: VhostQueue,
        eventfd: EventfdCells,
        irqfd: Routine,
        rows: Mapping[str, str],
    ) -> None:
        super().__init__(name, place, queue)
        self.eventfd = eventfd
        self.irqfd = irqfd
        self.rows = rows

    @op(
        "write",
        "write the used elements",
        "vhost_add_used_n",
        VHOST,
        spec="2.7.8",
        text={
            "written": "Head and bytes written of each buffer go into the used ring, only now that its packet is done with. Still invisible: used.idx has not moved.",
            "nothing": "There is no buffer to give back: the round is over.",
        },
        to={"written": goto("publish_used_idx"), "nothing": RETURN},
    )
    def write_used(self, me: Context) -> str:  # noqa: ARG002
        queue = self.q.cells
        if not queue.done:
            return "nothing"
        self.ring.write_used(queue.heads[: queue.done], queue.written[: queue.done])
        queue.done = 0
        return "written"

    @op(
        "publish",
        "publish used.idx",
        "vhost_put_used_idx",
        VHOST,
        spec="2.7.8.2",
        text="One store makes all of them visible: used.idx = {used}. The buffers belong to the guest again.",
        milestone="used",
    )
    def publish_used_idx(self, me: Context) -> None:  # noqa: ARG002
        self.ring.publish_used_idx()

    @op(
        "decide",
        "full barrier",
        "vhost_notify",
        VHOST,
        spec="2.7.7.2",
        text="used.idx must be visible before the worker reads whether the guest wants an interrupt.",
        fence=True,
        cost="barrier",
    )
    def mb_before_interrupt_check(self, me: Context) -> None: ...

    @op(
        "decide",
        "ask whether an interrupt is wanted",
        "vhost_notify",
        VHOST,
        spec="2.7.7.2",
        text={
            "interrupt": "The guest asked to be interrupted when this entry is used (or was never asked before): it gets its interrupt.",
            "no interrupt": "The guest did not ask to hear of these entries: no interrupt.",
        },
        to={"interrupt": goto("signal_call"), "no interrupt": RETURN},
        cost="ring cold",
    )
    def check_interrupt(self, me: Context) -> str:  # noqa: ARG002
        return "interrupt" if self.ring.interrupt_wanted() else "no interrupt"

    @op(
        "signal",
        "signal the call eventfd",
        "vhost_signal",
        EVENTFD,
        spec="4.1.5.3",
        text="The worker adds 1 to the queue's call eventfd. What follows runs in this very thread; QEMU sleeps on.",
        to={SIGNALLED: call("irqfd", None)},
        cost="eventfd",
    )
    def signal_call(self, me: Context) -> str:  # noqa: ARG002
        self.eventfd.counter += 1
        return SIGNALLED


class FlushTx(Routine):
    """Hand the collected frames to the TAP, then return their buffers: vhost_tx_batch."""

    def __init__(self, name: str, place: Place, queue: VhostQueue, sendmsg: Routine, give_back: Routine) -> None:
        super().__init__(name, place, queue.ring_name)
        self.q = queue
        self.sendmsg = sendmsg
        self.give_back = give_back

    def words(self, me: Context) -> Mapping[str, object]:  # noqa: ARG002
        """Give the number of frames."""
        return {"count": self.q.cells.done}

    @op(
        "V-TX.10",
        "hand the batch to the TAP",
        "vhost_tx_batch",
        VHOST_NET,
        text={
            "batch": "{count} frame(s) go to the TAP in one call inside the kernel, tun_sendmsg. It is no system call, and all that follows runs in this thread.",
            "nothing": "There is nothing to send: the round is over.",
        },
        to={"batch": call("sendmsg", "give_back"), "nothing": goto("give_back")},
        private=True,
    )
    def send_batch(self, me: Context) -> str:  # noqa: ARG002
        return "batch" if self.q.cells.done else "nothing"


class HandleRx(_VhostRoutine):
    """Deliver frames from the TAP's queue into the guest's buffers: handle_rx, block V-RX rows 2 to 10.

    Args:
        pool: the host's packet memory.
        give_back: publishes used elements and interrupts.
    """

    def __init__(  # noqa: PLR0913 - what receiving joins
        self, name: str, place: Place, queue: VhostQueue, pool: PacketPool, give_back: Routine, watch: Routine
    ) -> None:
        super().__init__(name, place, queue)
        self.pool = pool
        self.give_back = give_back
        self.watch = watch

    @op(
        "V-RX.2",
        "ask for no more kicks",
        "vhost_disable_notify",
        VHOST,
        spec="2.7.10",
        text={
            "written": "used.flags says NO_NOTIFY: the guest need not kick when it refills the queue.",
            "nothing": "Nothing is written: kicks for refills are unwanted already, or event indices make it needless.",
        },
        to={"written": goto("stop_watching_tap"), "nothing": goto("stop_watching_tap")},
    )
    def disable_kicks(self, me: Context) -> str:  # noqa: ARG002
        queue = self.q.cells
        if queue.packets:
            queue.packets = 0
        if queue.bytes:
            queue.bytes = 0
        return "written" if self.ring.disable_kicks() else "nothing"

    @op(
        "V-RX.2",
        "stop watching the TAP",
        "vhost_net_disable_vq",
        VHOST_NET,
        text="While the worker empties the TAP's queue it need not be woken for every frame.",
    )
    def stop_watching_tap(self, me: Context) -> None:  # noqa: ARG002
        if self.q.tap.cells.watched:
            self.q.tap.cells.watched = 0

    @op(
        "V-RX.3",
        "look at the next frame",
        "vhost_net_buf_peek",
        VHOST_NET,
        text={
            "frame": "A frame of {length} bytes, header included, is next.",
            "empty": "The TAP's queue is empty.",
        },
        to={"frame": goto("read_avail_idx"), "empty": goto("watch_tap")},
    )
    def peek_frame(self, me: Context) -> str:
        queue = self.q.cells
        slot = self.q.tap.peek()
        if not slot:
            return "empty"
        me.skb = slot
        me.packet = self.pool.cells.packet[slot]
        queue.length = queue.missing = self.pool.cells.length[slot] + VIRTIO_NET_HDR_BYTES
        queue.first = queue.done
        queue.pieces = 0
        return "frame"

    @op(
        "V-RX.4",
        "read avail.idx",
        "vhost_get_avail_idx",
        VHOST,
        spec="2.7.13",
        text={
            "known": "avail.idx was {avail} when it was last read: entry {next} is still to be taken.",
            "new": "avail.idx is {avail}: the guest has offered entry {next}.",
            "empty": "avail.idx is still {avail}: the guest has no empty buffer left.",
            "bad": "avail.idx has jumped further than the ring is long. vhost reports an error and stops until the next kick.",
        },
        to={
            "known": goto("read_head"),
            "new": goto("read_head"),
            "empty": goto("enable_kicks"),
            "bad": goto("give_back"),
        },
        cost="ring cold",
    )
    def read_avail_idx(self, me: Context) -> str:  # noqa: ARG002
        if self.mine.avail_idx != self.mine.last_avail_idx:
            return "known"
        answer = self.ring.read_avail_idx()
        if answer == "new":
            return "new"
        self._let_go()
        if answer == "empty":
            return "empty"
        self.q.cells.errors += 1
        return "bad"

    def _let_go(self) -> None:
        """Give back the heads taken for the packet in hand."""
        queue = self.q.cells
        taken = queue.done - queue.first
        if taken:
            self.ring.give_back(taken)
            queue.done = queue.first

    @op(
        "V-RX.5",
        "read the head",
        "vhost_get_avail_head",
        VHOST,
        spec="2.7.6",
        text={
            "head": "The available ring's slot says: head {head}.",
            "bad": "The head is no number of a descriptor. vhost reports an error and stops until the next kick.",
        },
        to={"head": goto("read_desc"), "bad": goto("give_back")},
        cost="ring cold",
    )
    def read_head(self, me: Context) -> str:  # noqa: ARG002
        return "head" if self.ring.read_head() == "head" else self._bad()

    def _bad(self) -> str:
        self._let_go()
        self.q.cells.errors += 1
        return "bad"

    @op(
        "V-RX.6",
        "read the descriptor",
        "vhost_get_vq_desc",
        VHOST,
        spec="5.1.9.3",
        text={
            "fits": "The buffer is large enough for what is left of the packet.",
            "needs more": "The buffer is full before the packet ends, {missing} bytes are left: another buffer is taken, as mergeable buffers allow.",
            "next": "The descriptor gives a piece of the buffer; the chain goes on.",
            "indirect": "The descriptor refers to a table: the buffer's pieces are described there.",
            "too small": "The packet does not fit into this one buffer, and buffers cannot be merged: the packet will be thrown away.",
            "bad": "The descriptor makes no sense for a receive queue. vhost reports an error and stops until the next kick.",
        },
        to={
            "fits": goto("copy_packet"),
            "needs more": goto("read_avail_idx"),
            "next": goto("read_desc"),
            "indirect": goto("read_desc"),
            "too small": goto("discard_packet"),
            "bad": goto("give_back"),
        },
        cost="ring cold",
    )
    def read_desc(self, me: Context) -> str:  # noqa: ARG002
        answer = self.ring.read_desc()
        if answer in ("next", "indirect"):
            return answer
        mine, queue = self.mine, self.q.cells
        if answer != "last" or mine.readable or not mine.writable:
            return self._bad()
        at, room = queue.done, 0
        if queue.pieces + mine.writable > HEADS:
            return self._bad()
        for address, length in self.ring.pieces():
            queue.piece_address[queue.pieces] = address
            queue.piece_length[queue.pieces] = length
            queue.pieces += 1
            room += length
        queue.heads[at] = mine.head
        queue.written[at] = min(room, queue.missing)
        queue.done = at + 1
        queue.missing -= min(room, queue.missing)
        if not queue.missing:
            return "fits"
        if self.q.mergeable and queue.done - queue.first < HEADS:
            return "needs more"
        self._let_go()
        return "too small"

    @op(
        "V-RX.7",
        "copy the packet into the guest",
        "tun_put_user",
        TUN,
        spec="5.1.9.4",
        text="The TAP makes a virtio-net header and copies header and frame, {length} bytes, straight into the guest's buffer.",
        to={COPIED: goto("write_num_buffers")},
        size="length",
        milestone="in-guest-buffer",
    )
    def copy_packet(self, me: Context) -> str:
        queue = self.q.cells
        self.q.tap.consume()
        self._scatter(0, bytes(VIRTIO_NET_HDR_BYTES) + self.pool.data(me.skb))
        for i in range(queue.pieces):
            self.q.guest_pool.note_packet(queue.piece_address[i], me.packet)
        self.pool.release(me.skb)
        return COPIED

    def length(self, me: Context) -> int:  # noqa: ARG002
        """Give the bytes of the packet in hand, header included."""
        return self.q.cells.length

    def _scatter(self, offset: int, data: bytes) -> None:
        """Write bytes into the buffer of the packet in hand, from an offset on, across its pieces."""
        queue, memory = self.q.cells, self.ring.memory
        at = 0
        for i in range(queue.pieces):
            address, length = queue.piece_address[i], queue.piece_length[i]
            if offset < length and at < len(data):
                part = data[at : at + length - offset]
                memory.write(address + offset, part)
                at += len(part)
            offset = max(0, offset - length)

    @op(
        "V-RX.8",
        "write num_buffers",
        "handle_rx",
        VHOST_NET,
        spec="5.1.9.4",
        text="vhost itself only fills in how many buffers the packet took.",
    )
    def write_num_buffers(self, me: Context) -> None:  # noqa: ARG002
        if self.q.mergeable:
            queue = self.q.cells
            self._scatter(NUM_BUFFERS_OFFSET, (queue.done - queue.first).to_bytes(2, "little"))

    @op(
        "V-RX.9",
        "go on, or flush",
        "vhost_exceeds_weight",
        VHOST,
        text={
            "more": "{count} buffer(s) are filled and not yet given back. On to the next frame.",
            "flush": "More than 64 buffers are filled: they are given back before the next frame.",
            "weight": "{weight} packets, or 512 KiB, in one go: the worker queues itself again and lets other work have a turn.",
        },
        to={"more": goto("peek_frame"), "flush": call("give_back", "peek_frame"), "weight": goto("requeue")},
        private=True,
    )
    def count_packet(self, me: Context) -> str:  # noqa: ARG002
        queue = self.q.cells
        queue.bytes += queue.length
        if self.q.exceeds_weight():
            return "weight"
        return "flush" if queue.done > BATCH else "more"

    @op(
        "V-RX.9",
        "queue itself again",
        "vhost_exceeds_weight",
        VHOST,
        text="The same work goes to the end of the list: the other queue of this worker comes first.",
        to=goto("give_back"),
    )
    def requeue(self, me: Context) -> None:  # noqa: ARG002
        self.q.worker.queue(Work.RX_KICK)

    @op(
        "V-RX.6",
        "throw the packet away",
        "handle_rx",
        VHOST_NET,
        text={DROPPED: "The frame is taken off the TAP's queue and dropped: no buffer of this guest can hold it."},
        to={DROPPED: goto("peek_frame")},
    )
    def discard_packet(self, me: Context) -> str:
        self.q.tap.consume()
        self.pool.release(me.skb)
        self.q.cells.discarded += 1
        return DROPPED

    @op(
        "V-RX.6",
        "ask for a kick",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text="Without empty buffers nothing can be delivered: the worker asks to be kicked when the guest refills its queue.",
    )
    def enable_kicks(self, me: Context) -> None:  # noqa: ARG002
        self.ring.enable_kicks()

    @op(
        "V-RX.6",
        "full barrier",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text="The wish must be visible before avail.idx is read again.",
        fence=True,
        cost="barrier",
    )
    def mb_before_refill_recheck(self, me: Context) -> None: ...

    @op(
        "V-RX.6",
        "look at avail.idx again",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text={
            "still empty": "Still no buffer: the frames wait in the TAP's queue until the guest kicks.",
            "more": "The guest slipped buffers in meanwhile: on with them.",
        },
        to={"still empty": goto("give_back"), "more": goto("disable_again")},
        cost="ring cold",
    )
    def recheck_avail_idx(self, me: Context) -> str:  # noqa: ARG002
        return "more" if self.ring.read_avail_idx() == "new" else "still empty"

    @op(
        "V-RX.6",
        "ask for no more kicks",
        "vhost_disable_notify",
        VHOST,
        spec="2.7.10",
        text="The worker is at it again and needs no kick.",
        to=goto("peek_frame"),
    )
    def disable_again(self, me: Context) -> None:  # noqa: ARG002
        self.ring.disable_kicks()

    @op(
        "V-RX.10",
        "watch the TAP again",
        "vhost_net_enable_vq",
        VHOST_NET,
        text={
            "watching": "The worker puts its callback back on the TAP's wait queue: the next frame will wake it.",
            "readable": "Meanwhile a frame has come: the callback runs at once.",
        },
        to={"watching": goto("give_back"), "readable": call("watch", "give_back")},
    )
    def watch_tap(self, me: Context) -> str:  # noqa: ARG002
        tap = self.q.tap
        if not tap.cells.watched:
            tap.cells.watched = 1
        return "readable" if tap.queue else "watching"
