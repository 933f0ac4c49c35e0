"""The guest's virtio-net driver: sending, getting sent packets back, receiving, refilling.

Blocks G-TX (rows 4 to 13), G-TXC and G-RX. What is done to the ring itself is `ring/`; here is the order, which is Linux's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import COPIED, DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.spec.citation import CORE_GRO, VIRTIO_NET, VIRTIO_PCI, VIRTIO_RING
from virtviz.spec.virtio import NUM_BUFFERS_OFFSET, VIRTIO_NET_HDR_BYTES, VIRTQ_DESC_F_WRITE

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu
    from virtviz.paths.guest_stack import Socket, TxQueue
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.queues import Fifo
    from virtviz.ring.split_driver import SplitDriver

NAPI_WEIGHT = 64
"""Packets a poll handles at most before others have a turn."""
PLAIN_HEADER = bytes(VIRTIO_NET_HDR_BYTES)
"""A virtio-net header that asks for nothing: no checksum, no segmentation, num_buffers 0."""
COPYBREAK = 128
"""Received packets up to this size are copied out of their buffer, so that it can be reused (GOOD_COPY_LEN)."""


@cells
class RxCells(Cells):
    """What a receive poll keeps: packets done, buffers still missing of a merged packet, its length, its first and last slot."""

    done: int = 0
    missing: int = 0
    length: int = 0
    first: int = 0
    last: int = 0
    scheduled: int = 0
    errors: int = 0


@cells
class TxCells(Cells):
    """What the transmit side keeps: whether its NAPI instance is scheduled, bytes freed in this round, packets that did not fit."""

    scheduled: int = 0
    freed: int = 0
    dropped: int = 0


class Transmitq:
    """A transmit queue of the driver.

    Attributes:
        ring: the driver's side of the virtqueue.
        pool: where socket buffers lie.
        threshold: free descriptors below which the queue is stopped.
        napi: its NAPI number.
        gives_up: without transmit NAPI a packet no longer counts for its socket once it is in the ring.
    """

    def __init__(  # noqa: PLR0913 - what a queue joins
        self,
        state: State,
        name: str,
        ring: SplitDriver,
        pool: PacketPool,
        tx: TxQueue,
        socket: Socket,
        cpu: GuestCpu,
        threshold: int,
        napi: int,
        *,
        gives_up: bool,
    ) -> None:
        self.name = name
        self.ring = ring
        self.pool = pool
        self.tx = tx
        self.socket = socket
        self.cpu = cpu
        self.threshold = threshold
        self.napi = napi
        self.gives_up = gives_up
        self.cells = state.add(TxCells, f"{name}.tx")

    def schedule(self) -> bool:
        """Schedule the queue's NAPI instance; answers False if it was scheduled already."""
        if self.cells.scheduled:
            return False
        self.cells.scheduled = 1
        self.cpu.schedule_poll(self.napi)
        return True


class _QueueRoutine(Routine):
    """A routine that works on one transmit queue."""

    def __init__(self, name: str, place: Place, queue: Transmitq, rows: Mapping[str, str] | None = None) -> None:
        super().__init__(name, place, queue.name)
        self.q = queue
        self.ring = queue.ring
        self.mine = queue.ring.cells
        if rows:
            self.rows = rows

    def words(self, me: Context) -> Mapping[str, object]:  # noqa: ARG002
        """Give what the driver's texts speak of."""
        mine = self.mine
        return {
            "head": mine.head,
            "idx": mine.avail_idx_shadow,
            "last_used": mine.last_used_idx,
            "num_free": mine.num_free,
            "threshold": self.q.threshold,
            "outstanding": (mine.avail_idx_shadow - mine.last_used_idx) & 0xFFFF,
        }


class Reclaim(_QueueRoutine):
    """Free packets the device has sent: free_old_xmit. Rows G-TX.5, G-TXC.2 and G-RX.2, by the caller."""

    @op(
        "reclaim",
        "look for sent packets",
        "free_old_xmit",
        VIRTIO_NET,
        spec="2.7.14",
        text={
            "more": "used.idx has moved past {last_used}: the device has returned a buffer.",
            "none": "used.idx is still {last_used}: nothing (more) has come back.",
        },
        to={"more": goto("take_used"), "none": RETURN},
        cost="ring cold",
    )
    def read_used_idx(self, me: Context) -> str:  # noqa: ARG002
        if self.ring.more_used():
            return "more"
        if self.q.cells.freed:
            self.q.tx.completed(self.q.cells.freed)
            self.q.cells.freed = 0
        return "none"

    @op(
        "reclaim",
        "take the buffer back",
        "virtqueue_get_buf_ctx_split",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "freed": "The used element names head {head}. Its descriptor is free again, and so is the packet's memory.",
            "asked again": "The used element names head {head}, which is free again; callbacks are on, so used_event moves along.",
            "bad": "The used element names a head that is not outstanding. Linux marks the queue broken and stops using it.",
        },
        to={"freed": goto("read_used_idx"), "asked again": goto("read_used_idx"), "bad": RETURN},
        milestone={"freed": "completed", "asked again": "completed"},
        cost="ring cold",
    )
    def take_used(self, me: Context) -> str:
        ring, queue = self.ring, self.q
        if not ring.take_used():
            return "bad"
        slot = self.mine.token
        pool = queue.pool
        length = pool.cells.length[slot]
        if me.observed:
            me.packet = pool.cells.packet[slot]
        queue.cells.freed += length
        pool.release(slot)
        if not queue.gives_up:
            queue.socket.uncharge(length)
        return "asked again" if ring.move_used_event() else "freed"


class AddBuffer(_QueueRoutine):
    """Put one packet into the ring: virtqueue_add_outbuf. Rows 8 to 10 of G-TX."""

    first = "write_desc"

    def __init__(self, name: str, place: Place, queue: Transmitq, notify: Routine) -> None:
        super().__init__(name, place, queue)
        self.notify = notify

    def segments(self, slot: int) -> list[tuple[int, int]]:
        """Give the pieces of a packet with its header in front."""
        pool = self.q.pool
        address = pool.at[slot] - VIRTIO_NET_HDR_BYTES
        length = pool.cells.length[slot] + VIRTIO_NET_HDR_BYTES
        count = pool.cells.pieces[slot]
        share = length // count
        pieces = [(address + i * share, share) for i in range(count - 1)]
        return [*pieces, (address + (count - 1) * share, length - (count - 1) * share)]

    @op(
        "G-TX.8",
        "write the descriptor",
        "virtqueue_add_split",
        VIRTIO_RING,
        spec="2.7.13.1",
        text={
            "direct": "Descriptor {head} says where the packet lies and how long it is, header included. The device cannot know of it yet.",
            "table": "The packet lies in several pieces: they are described in a table of their own, outside the ring.",
            "no room": "Not enough descriptors are free, although the queue was not stopped. Linux kicks, in the hope that this helps.",
        },
        to={
            "direct": goto("write_avail_ring"),
            "table": goto("write_indirect_desc"),
            "no room": call("notify", "drop_packet"),
        },
    )
    def write_desc(self, me: Context) -> str:
        pool, skb = self.q.pool, me.skb
        slots = pool.cells
        if slots.pieces[skb] == 1 and self.mine.num_free:
            length = slots.length[skb] + VIRTIO_NET_HDR_BYTES
            self.ring.write_single(pool.at[skb] - VIRTIO_NET_HDR_BYTES, length, 0, skb)
            return "direct"
        segments = self.segments(me.skb)
        if self.ring.uses_indirect(len(segments)):
            self.ring.write_indirect(self.q.pool.table(me.skb), segments, 0)
            return "table"
        if not self.ring.fits(len(segments)):
            return "no room"
        self.ring.write_chain(segments, 0, me.skb)
        return "direct"

    @op(
        "G-TX.8",
        "write the descriptor of the table",
        "virtqueue_add_split",
        VIRTIO_RING,
        spec="2.7.5.3",
        text="One descriptor, {head}, stands for the whole table: flag INDIRECT, address and length of the table.",
        to=goto("write_avail_ring"),
    )
    def write_indirect_desc(self, me: Context) -> None:
        pool = self.q.pool
        self.ring.write_indirect_desc(pool.table(me.skb), pool.cells.pieces[me.skb], me.skb)

    @op(
        "G-TX.8",
        "drop the packet",
        "start_xmit",
        VIRTIO_NET,
        text="The packet does not fit into the ring and is dropped here.",
        to={DROPPED: RETURN},
    )
    def drop_packet(self, me: Context) -> str:
        pool = self.q.pool
        self.q.cells.dropped += 1
        self.q.socket.uncharge(pool.cells.length[me.skb])
        pool.release(me.skb)
        me.skb = 0
        return DROPPED

    @op(
        "G-TX.9",
        "write avail.ring",
        "virtqueue_add_split",
        VIRTIO_RING,
        spec="2.7.13.2",
        text="The next slot of the available ring gets the head, {head}. Still nothing the device would look at.",
    )
    def write_avail_ring(self, me: Context) -> None:  # noqa: ARG002
        self.ring.write_avail_ring()

    @op(
        "G-TX.10",
        "publish avail.idx",
        "virtqueue_add_split",
        VIRTIO_RING,
        spec="2.7.13.3",
        text="The driver makes head {head} visible: from here on the device may take it. Nobody has been told.",
        to=RETURN,
        milestone="in-ring",
        into="{queue}",
    )
    def publish_avail_idx(self, me: Context) -> None:  # noqa: ARG002
        self.ring.publish_avail_idx()


class Notify(Routine):
    """The kick: a 16-bit store to the queue's notify address. Row 13 of G-TX, row 7 of G-RX.

    Args:
        exit_to_kvm: what the store leads to.
        row: which of the two rows it is.
    """

    def __init__(self, name: str, place: Place, queue: str, cpu: GuestCpu, exit_to_kvm: Routine, row: str) -> None:
        super().__init__(name, place, queue)
        self.cpu = cpu
        self.exit_to_kvm = exit_to_kvm
        self.rows = {"kick": row}

    @op(
        "kick",
        "kick the device",
        "vp_notify",
        VIRTIO_PCI,
        spec="4.1.5.2",
        text="The driver stores the queue's number to the queue's notify address. It looks like any store, but no memory is there.",
        to=call("exit_to_kvm", None),
        cause="store to the notify address",
        cost="kick",
    )
    def kick(self, me: Context) -> None: ...


class NotifyInterruptsOff(Notify):
    """The same by a guest that happens to have interrupts disabled while it kicks."""

    @op(
        "kick",
        "kick the device",
        "vp_notify",
        VIRTIO_PCI,
        spec="4.1.5.2",
        text="The driver stores the queue's number to the queue's notify address. The guest has interrupts disabled just now.",
        to=call("exit_to_kvm", "enable_interrupts"),
        cause="store to the notify address",
        cost="kick",
    )
    def kick(self, me: Context) -> None:  # noqa: ARG002
        self.cpu.cells.interrupts_on = 0

    @op(
        "kick",
        "enable interrupts again",
        "virtqueue_notify",
        VIRTIO_RING,
        text="The guest enables interrupts again; one that waited can come now.",
        to=RETURN,
        opens=True,
        private=True,
    )
    def enable_interrupts(self, me: Context) -> None:  # noqa: ARG002
        self.cpu.cells.interrupts_on = 1


class _Xmit(_QueueRoutine):
    """What start_xmit does with and without NAPI for the transmit queue: all but the beginning."""

    def __init__(  # noqa: PLR0913 - what a transmit routine joins
        self, name: str, place: Place, queue: Transmitq, reclaim: Routine, add: Routine, notify: Routine
    ) -> None:
        super().__init__(name, place, queue)
        self.reclaim = reclaim
        self.add = add
        self.notify = notify

    def packet_in_hand(self, me: Context) -> None:
        """Work on the packet of the socket buffer, whatever was freed meanwhile."""
        if me.observed:
            packet = self.q.pool.cells.packet[me.skb]
            if me.packet != packet:
                me.packet = packet

    @op(
        "G-TX.7",
        "fill in the virtio-net header",
        "xmit_skb",
        VIRTIO_NET,
        spec="5.1.9.2",
        text="12 bytes go in front of the frame: no checksum to finish, no segmentation, num_buffers 0.",
        to=call("add", "stop_if_full"),
    )
    def fill_header(self, me: Context) -> None:
        pool = self.q.pool
        pool.memory.write(pool.at[me.skb] - VIRTIO_NET_HDR_BYTES, PLAIN_HEADER)

    @op(
        "G-TX.11",
        "stop the queue if it is nearly full",
        "check_sq_full_and_disable",
        VIRTIO_NET,
        text={
            "room": "{num_free} descriptors are free, enough for any packet: the queue stays open.",
            "stopped": "Only {num_free} descriptors are free, fewer than {threshold}: the stack may send no more, and a late interrupt is asked for.",
        },
        to={"room": goto("decide_flush"), "stopped": goto("mb_before_stop_recheck")},
    )
    def stop_if_full(self, me: Context) -> str:  # noqa: ARG002
        if self.mine.num_free >= self.q.threshold:
            return "room"
        self.q.tx.cells.driver_off = 1
        self.ring.enable_callbacks_delayed()
        return "stopped"

    @op(
        "G-TX.11",
        "full barrier",
        "virtio_store_mb",
        VIRTIO_RING,
        spec="2.7.14",
        text="Again: ask first, barrier, then look, so that no completion slips through.",
        to=goto("recheck_after_stop"),
        fence=True,
        cost="barrier",
    )
    def mb_before_stop_recheck(self, me: Context) -> None: ...

    @op(
        "G-TX.13",
        "decide whether to tell the device now",
        "__netdev_tx_sent_queue",
        VIRTIO_NET,
        text={
            "now": "No other packet is announced: the device has to hear of this one, if it wants to.",
            "later": "Another packet follows at once: telling the device is left to the last of them.",
        },
        to={"now": goto("mb_before_kick_check"), "later": RETURN},
        private=True,
    )
    def decide_flush(self, me: Context) -> str:
        return "now" if self.q.tx.sent(self.q.pool.cells.length[me.skb]) else "later"

    @op(
        "G-TX.12",
        "full barrier",
        "virtio_mb",
        VIRTIO_RING,
        spec="2.7.13.4.1",
        text="avail.idx must be visible before the driver reads whether a kick is wanted. Without this barrier a kick can be lost.",
        fence=True,
        cost="barrier",
    )
    def mb_before_kick_check(self, me: Context) -> None: ...

    @op(
        "G-TX.12",
        "ask whether a kick is wanted",
        "virtqueue_kick_prepare_split",
        VIRTIO_RING,
        spec="2.7.13.4",
        text={
            "kick": "The device asked to hear of this entry: a kick is needed.",
            "no kick": "The device did not ask to hear of this entry; it is busy and will come by. No kick.",
        },
        to={"kick": call("notify", None), "no kick": RETURN},
        cost="ring cold",
    )
    def check_kick(self, me: Context) -> str:  # noqa: ARG002
        return "kick" if self.ring.kick_needed() else "no kick"


class StartXmit(_Xmit):
    """Send one packet: start_xmit, with NAPI for the transmit queue."""

    first = "disable_callbacks"

    @op(
        "G-TX.4",
        "ask for no completion interrupt",
        "virtqueue_disable_cb",
        VIRTIO_RING,
        spec="2.7.7",
        text={
            "event": "With event indices there is no way to say never: used_event is pointed at 0, far from where the device works.",
            "flag": "avail.flags says NO_INTERRUPT: the device need not interrupt for what it returns.",
            "nothing": "Callbacks are off already, so nothing is written.",
        },
        to={k: call("reclaim", "enable_callbacks_delayed") for k in ("event", "flag", "nothing")},
    )
    def disable_callbacks(self, me: Context) -> str:
        self.packet_in_hand(me)
        return self.ring.disable_callbacks()

    @op(
        "G-TX.6",
        "ask for a late completion interrupt",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.7",
        text={
            "asked": "used_event = last used + ¾ of the {outstanding} outstanding: one interrupt for many packets, if there are many.",
            "more to come": "Another packet follows at once: asking for an interrupt is left to the last of them.",
        },
        to={"asked": goto("mb_before_delayed_recheck"), "more to come": goto("fill_header")},
    )
    def enable_callbacks_delayed(self, me: Context) -> str:
        self.packet_in_hand(me)
        if self.q.tx.cells.more:
            return "more to come"
        self.ring.enable_callbacks_delayed()
        return "asked"

    @op(
        "G-TX.6",
        "full barrier",
        "virtio_store_mb",
        VIRTIO_RING,
        spec="2.7.14",
        text="The store of used_event must be visible before used.idx is read, or both sides could miss each other.",
        fence=True,
        cost="barrier",
    )
    def mb_before_delayed_recheck(self, me: Context) -> None: ...

    @op(
        "G-TX.6",
        "look at used.idx again",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "enough": "Too little has come back to need anything: go on.",
            "too late": "More has come back than the interrupt was asked for: free it first.",
        },
        to={"enough": goto("fill_header"), "too late": goto("disable_callbacks")},
        cost="ring cold",
    )
    def recheck_used_idx(self, me: Context) -> str:  # noqa: ARG002
        return "too late" if self.ring.too_many_used() else "enough"

    @op(
        "G-TX.11",
        "look at used.idx again",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "enough": "The interrupt asked for will open the queue again.",
            "too late": "More has come back already: the transmit NAPI is scheduled at once.",
        },
        to={"enough": goto("decide_flush"), "too late": goto("decide_flush")},
        cost="ring cold",
    )
    def recheck_after_stop(self, me: Context) -> str:  # noqa: ARG002
        if not self.ring.too_many_used():
            return "enough"
        if self.q.schedule():
            self.ring.disable_callbacks()
        return "too late"


class StartXmitWithoutNapi(_Xmit):
    """Send one packet with napi_tx=0: nothing is asked for, and the packet is given up as soon as it is in the ring."""

    first = "begin"

    @op(
        "G-TX.5",
        "begin with what was sent before",
        "start_xmit",
        VIRTIO_NET,
        text="Without transmit NAPI the driver neither asks for interrupts nor against them: it frees old packets when it sends new ones.",
        to=call("reclaim", "fill_header"),
        private=True,
    )
    def begin(self, me: Context) -> None: ...

    @op(
        "G-TX.7",
        "fill in the virtio-net header",
        "xmit_skb",
        VIRTIO_NET,
        spec="5.1.9.2",
        text="12 bytes go in front of the frame: no checksum to finish, no segmentation, num_buffers 0.",
        to=call("add", "give_up"),
    )
    def fill_header(self, me: Context) -> None:
        self.packet_in_hand(me)
        super().fill_header(me)

    @op(
        "G-TX.10",
        "give the packet up",
        "skb_orphan",
        VIRTIO_NET,
        text={
            "given up": "The socket's send buffer is given its share back now: nobody knows when the packet's memory will be freed.",
            "gone": "There was no room for the packet: nothing is left to give up.",
        },
        to={"given up": goto("stop_if_full"), "gone": goto("stop_if_full")},
        private=True,
    )
    def give_up(self, me: Context) -> str:
        if not me.skb:
            return "gone"
        self.q.socket.uncharge(self.q.pool.cells.length[me.skb])
        return "given up"

    @op(
        "G-TX.11",
        "look at used.idx again",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "enough": "The interrupt asked for will open the queue again.",
            "too late": "More has come back already: it is freed at once.",
        },
        to={"enough": goto("decide_flush"), "too late": call("reclaim", "open_if_room")},
        cost="ring cold",
    )
    def recheck_after_stop(self, me: Context) -> str:  # noqa: ARG002
        return "too late" if self.ring.too_many_used() else "enough"

    @op(
        "G-TX.11",
        "open the queue again if there is room",
        "check_sq_full_and_disable",
        VIRTIO_NET,
        text={
            "opened": "{num_free} descriptors are free: the queue is opened again, and no interrupt is wanted.",
            "still full": "Only {num_free} descriptors are free: the queue stays stopped until the interrupt.",
        },
        to={"opened": goto("decide_flush"), "still full": goto("decide_flush")},
    )
    def open_if_room(self, me: Context) -> str:
        self.packet_in_hand(me)
        if self.mine.num_free < self.q.threshold:
            return "still full"
        self.q.tx.cells.driver_off = 0
        self.ring.disable_callbacks()
        return "opened"


class TransmitDone(_QueueRoutine):
    """The interrupt of a transmit queue: rows IRQ.6 and G-TXC.1."""

    @op(
        "IRQ.6",
        "see whether anything was used",
        "vring_interrupt",
        VIRTIO_RING,
        text={
            "work": "used.idx has moved: the interrupt is for this queue.",
            "no work": "used.idx has not moved since the driver last looked: nothing to do, and no harm done.",
        },
        to={"work": goto("schedule_poll"), "no work": RETURN},
        cost="ring cold",
    )
    def vring_interrupt(self, me: Context) -> str:  # noqa: ARG002
        if not self.ring.more_used():
            return "no work"
        self.ring.note_interrupt()
        return "work"

    @op(
        "G-TXC.1",
        "schedule the transmit NAPI",
        "skb_xmit_done",
        VIRTIO_NET,
        spec="5.1.9.2.3",
        text="Further interrupts are unwanted until the poll is done. With event indices that needs no write: an interrupt came, so none follows.",
        to=RETURN,
    )
    def schedule_poll(self, me: Context) -> None:  # noqa: ARG002
        self.ring.disable_callbacks()
        self.q.schedule()


class TransmitDoneWithoutNapi(TransmitDone):
    """The interrupt of a transmit queue with napi_tx=0: it only opens a stopped queue."""

    @op(
        "G-TXC.1",
        "let the queue go on",
        "skb_xmit_done",
        VIRTIO_NET,
        text="The driver was waiting for free descriptors: the stack may send again.",
        to=RETURN,
    )
    def schedule_poll(self, me: Context) -> None:  # noqa: ARG002
        self.ring.disable_callbacks()
        self.q.tx.wake()


class PollTransmit(_QueueRoutine):
    """NAPI for a transmit queue: virtnet_poll_tx, rows 2 to 4 of G-TXC."""

    def __init__(self, name: str, place: Place, queue: Transmitq, reclaim: Routine) -> None:
        super().__init__(name, place, queue)
        self.reclaim = reclaim

    @op(
        "G-TXC.2",
        "keep interrupts off",
        "virtqueue_disable_cb",
        VIRTIO_RING,
        spec="2.7.7",
        text={
            "nothing": "Callbacks are off already: nothing is written.",
            "": "The device need not interrupt while the poll is at work.",
        },
        to={k: call("reclaim", "wake_queue") for k in ("event", "flag", "nothing")},
    )
    def disable_callbacks(self, me: Context) -> str:  # noqa: ARG002
        return self.ring.disable_callbacks()

    @op(
        "G-TXC.3",
        "open the queue if it was stopped",
        "netif_tx_wake_queue",
        VIRTIO_NET,
        text={
            "opened": "{num_free} descriptors are free again: the stopped queue is opened, and waiting packets go on.",
            "was open": "The queue was not stopped.",
            "still full": "Only {num_free} descriptors are free: the queue stays stopped.",
        },
        to={k: goto("enable_callbacks") for k in ("opened", "was open", "still full")},
        private=True,
    )
    def wake_queue(self, me: Context) -> str:  # noqa: ARG002
        if self.mine.num_free < self.q.threshold:
            return "still full"
        return "opened" if self.q.tx.wake() else "was open"

    @op(
        "G-TXC.4",
        "ask for the next interrupt",
        "virtqueue_enable_cb_prepare_split",
        VIRTIO_RING,
        spec="2.7.7",
        text="used_event = {last_used}: the next buffer that comes back shall interrupt.",
    )
    def enable_callbacks(self, me: Context) -> None:  # noqa: ARG002
        self.ring.enable_callbacks()

    @op(
        "G-TXC.4",
        "end the poll",
        "napi_complete_done",
        CORE_GRO,
        text="The NAPI instance leaves the poll list; from now on an interrupt may schedule it again.",
        private=True,
    )
    def complete(self, me: Context) -> None:  # noqa: ARG002
        self.q.cells.scheduled = 0

    @op(
        "G-TXC.4",
        "full barrier",
        "virtio_mb",
        VIRTIO_RING,
        spec="2.7.14",
        text="The wish for an interrupt must be visible before the last look.",
        fence=True,
        cost="barrier",
    )
    def mb_before_last_look(self, me: Context) -> None: ...

    @op(
        "G-TXC.4",
        "look at used.idx one last time",
        "virtqueue_poll_split",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "nothing": "Nothing came back in between: the poll is over.",
            "more": "A buffer came back in between, and no interrupt will tell: poll again.",
        },
        to={"nothing": RETURN, "more": RETURN},
        cost="ring cold",
    )
    def last_look(self, me: Context) -> str:  # noqa: ARG002
        if not self.ring.more_used():
            return "nothing"
        if self.q.schedule():
            self.ring.disable_callbacks()
        return "more"


class Receiveq:
    """A receive queue of the driver.

    Attributes:
        ring: the driver's side of the virtqueue.
        buffers: the receive buffers.
        small: where packets go that are copied out of their buffer.
        collected: packets of this poll that wait to be handed up.
        napi: its NAPI number.
    """

    def __init__(  # noqa: PLR0913 - what a queue joins
        self,
        state: State,
        name: str,
        ring: SplitDriver,
        buffers: PacketPool,
        small: PacketPool,
        collected: Fifo,
        cpu: GuestCpu,
        napi: int,
        *,
        mergeable: bool,
    ) -> None:
        self.name = name
        self.ring = ring
        self.buffers = buffers
        self.small = small
        self.collected = collected
        self.cpu = cpu
        self.napi = napi
        self.mergeable = mergeable
        self.refill_above = min(NAPI_WEIGHT, ring.layout.size) // 2
        self.cells = state.add(RxCells, f"{name}.rx")

    def schedule(self) -> bool:
        """Schedule the queue's NAPI instance; answers False if it was scheduled already."""
        if self.cells.scheduled:
            return False
        self.cells.scheduled = 1
        self.cpu.schedule_poll(self.napi)
        return True


class _ReceiveRoutine(Routine):
    """A routine that works on one receive queue."""

    def __init__(self, name: str, place: Place, queue: Receiveq) -> None:
        super().__init__(name, place, queue.name)
        self.q = queue
        self.ring = queue.ring
        self.mine = queue.ring.cells

    def words(self, me: Context) -> Mapping[str, object]:  # noqa: ARG002
        """Give what the driver's texts speak of."""
        mine, poll = self.mine, self.q.cells
        return {
            "head": mine.head,
            "written": mine.written,
            "last_used": mine.last_used_idx,
            "num_free": mine.num_free,
            "threshold": self.q.refill_above,
            "missing": poll.missing,
            "length": poll.length,
            "done": poll.done,
        }


class ReceiveDone(_ReceiveRoutine):
    """The interrupt of a receive queue: rows IRQ.6 and G-RX.1."""

    @op(
        "IRQ.6",
        "see whether anything was used",
        "vring_interrupt",
        VIRTIO_RING,
        text={
            "work": "used.idx has moved: a packet has come.",
            "no work": "used.idx has not moved since the driver last looked: nothing to do, and no harm done.",
        },
        to={"work": goto("schedule_poll"), "no work": RETURN},
        milestone={"work": "interrupted"},
        cost="ring cold",
    )
    def vring_interrupt(self, me: Context) -> str:
        if not self.ring.more_used():
            return "no work"
        if me.observed:
            me.packet = self.q.buffers.cells.packet[self.ring.peek_token()]
        self.ring.note_interrupt()
        return "work"

    @op(
        "G-RX.1",
        "schedule the receive NAPI",
        "skb_recv_done",
        VIRTIO_NET,
        spec="2.7.7",
        text="Packets are not handled in the interrupt: it only schedules the poll, and wants no further interrupt until then.",
        to=RETURN,
    )
    def schedule_poll(self, me: Context) -> None:  # noqa: ARG002
        if self.q.schedule():
            self.ring.disable_callbacks()


class CleanTransmit(_QueueRoutine):
    """Tidy the transmit queue of the same pair before receiving: virtnet_poll_cleantx, row 2 of G-RX."""

    def __init__(self, name: str, place: Place, queue: Transmitq, reclaim: Routine) -> None:
        super().__init__(name, place, queue)
        self.reclaim = reclaim

    @op(
        "G-RX.2",
        "keep transmit interrupts off",
        "virtqueue_disable_cb",
        VIRTIO_RING,
        spec="2.7.7",
        text="Before it receives, the poll tidies the transmit queue of the same pair: perhaps that saves an interrupt.",
        to={k: call("reclaim", "enable_callbacks_delayed") for k in ("event", "flag", "nothing")},
    )
    def disable_callbacks(self, me: Context) -> str:  # noqa: ARG002
        return self.ring.disable_callbacks()

    @op(
        "G-RX.2",
        "ask for a late completion interrupt",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.14",
        text="used_event of the transmit queue = last used + ¾ of the {outstanding} outstanding.",
    )
    def enable_callbacks_delayed(self, me: Context) -> None:  # noqa: ARG002
        self.ring.enable_callbacks_delayed()

    @op(
        "G-RX.2",
        "full barrier",
        "virtio_store_mb",
        VIRTIO_RING,
        spec="2.7.14",
        text="Ask first, barrier, then look: as everywhere else.",
        fence=True,
        cost="barrier",
    )
    def mb_before_recheck(self, me: Context) -> None: ...

    @op(
        "G-RX.2",
        "look at the transmit used.idx again",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "enough": "Nothing to do for the transmit queue: on to what was received.",
            "opened": "Enough descriptors are free again: the stopped transmit queue is opened.",
            "too late": "More has come back meanwhile: once more.",
        },
        to={"enough": RETURN, "opened": RETURN, "too late": goto("disable_callbacks")},
        cost="ring cold",
    )
    def recheck(self, me: Context) -> str:  # noqa: ARG002
        if self.ring.too_many_used():
            return "too late"
        opened = self.mine.num_free >= self.q.threshold and self.q.tx.wake()
        return "opened" if opened else "enough"


class Refill(_ReceiveRoutine):
    """Put new buffers into the receive queue until it is full: try_fill_recv, rows 6 and 7 of G-RX."""

    first = "post_buffer"

    def __init__(self, name: str, place: Place, queue: Receiveq, notify: Routine) -> None:
        super().__init__(name, place, queue)
        self.notify = notify

    @op(
        "G-RX.6",
        "write a descriptor for an empty buffer",
        "add_recvbuf_mergeable",
        VIRTIO_NET,
        spec="5.1.9.3",
        text={
            "written": "An empty buffer is offered: descriptor {head}, for the device to write.",
            "full": "Every descriptor is offered: the queue is full of empty buffers.",
        },
        to={"written": goto("write_avail_ring"), "full": goto("mb_before_kick_check")},
    )
    def post_buffer(self, me: Context) -> str:  # noqa: ARG002
        if not self.mine.num_free:
            return "full"
        buffers = self.q.buffers
        size = buffers.slot_bytes
        slot = buffers.take(0, size)
        if buffers.cells.skip[slot]:
            buffers.cells.skip[slot] = 0
        self.ring.write_single(buffers.at[slot], size, VIRTQ_DESC_F_WRITE, slot)
        return "written"

    @op(
        "G-RX.6",
        "write avail.ring",
        "virtqueue_add_split",
        VIRTIO_RING,
        spec="2.7.13.2",
        text="The next slot of the available ring gets the head, {head}.",
    )
    def write_avail_ring(self, me: Context) -> None:  # noqa: ARG002
        self.ring.write_avail_ring()

    @op(
        "G-RX.6",
        "publish avail.idx",
        "virtqueue_add_split",
        VIRTIO_RING,
        spec="2.7.13.3",
        text="The device may use the buffer from now on.",
        to=goto("post_buffer"),
    )
    def publish_avail_idx(self, me: Context) -> None:  # noqa: ARG002
        self.ring.publish_avail_idx()

    @op(
        "G-RX.7",
        "full barrier",
        "virtio_mb",
        VIRTIO_RING,
        spec="2.7.13.4.1",
        text="The new buffers must be visible before the driver reads whether a kick is wanted.",
        fence=True,
        cost="barrier",
    )
    def mb_before_kick_check(self, me: Context) -> None: ...

    @op(
        "G-RX.7",
        "ask whether a kick is wanted",
        "virtqueue_kick_prepare_split",
        VIRTIO_RING,
        spec="2.7.13.4",
        text={
            "kick": "The device ran out of buffers and asked to be told: a kick is needed.",
            "no kick": "The device never ran out, so it did not ask: refilling costs no exit.",
        },
        to={"kick": call("notify", None), "no kick": RETURN},
        cost="ring cold",
    )
    def check_kick(self, me: Context) -> str:  # noqa: ARG002
        return "kick" if self.ring.kick_needed() else "no kick"


class PollReceive(_ReceiveRoutine):
    """NAPI for a receive queue: virtnet_poll, rows 2 to 8 of G-RX.

    Args:
        clean: tidies the transmit queue; runs `read_used_idx` after it.
        refill, deliver: as named.
    """

    def __init__(  # noqa: PLR0913 - what a poll joins
        self, name: str, place: Place, queue: Receiveq, clean: Routine, refill: Routine, deliver: Routine
    ) -> None:
        super().__init__(name, place, queue)
        self.clean = clean
        self.refill = refill
        self.deliver = deliver

    @op(
        "G-RX.2",
        "keep receive interrupts off",
        "virtnet_poll",
        VIRTIO_NET,
        text={
            "nothing": "The poll begins. Callbacks are off already: nothing is written.",
            "": "The poll begins; the device need not interrupt while it is at work.",
        },
        to={k: call("clean", "read_used_idx") for k in ("event", "flag", "nothing")},
    )
    def begin(self, me: Context) -> str:  # noqa: ARG002
        self.q.cells.done = 0
        return self.ring.disable_callbacks()

    @op(
        "G-RX.3",
        "look for a received packet",
        "virtnet_receive",
        VIRTIO_NET,
        spec="2.7.14",
        text={
            "more": "used.idx has moved past {last_used}: a buffer has come back with something in it.",
            "refill": "used.idx is still {last_used}: all packets are taken. Half the buffers of a poll are gone, so the queue is refilled.",
            "none": "used.idx is still {last_used}: all packets are taken. Enough empty buffers are left, so none is put back now.",
        },
        to={"more": goto("take_used"), "refill": call("refill", "finish"), "none": goto("finish")},
        cost="ring cold",
    )
    def read_used_idx(self, me: Context) -> str:  # noqa: ARG002
        if self.q.cells.done < NAPI_WEIGHT and self.ring.more_used():
            return "more"
        return "refill" if self.mine.num_free > self.q.refill_above else "none"

    @op(
        "G-RX.3",
        "take the buffer",
        "virtqueue_get_buf_ctx_split",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "first": "The used element names head {head} and says that {written} bytes were written.",
            "piece": "The used element names head {head}: {written} more bytes of the same packet.",
            "bad": "The used element names a head that is not outstanding. Linux marks the queue broken and stops using it.",
        },
        to={"first": goto("read_header"), "piece": goto("join_piece"), "bad": goto("finish")},
        milestone={"first": "polled"},
        cost="ring cold",
    )
    def take_used(self, me: Context) -> str:
        if not self.ring.take_used():
            return "bad"
        slot = self.mine.token
        poll = self.q.cells
        if poll.missing:
            return "piece"
        poll.first = poll.last = slot
        me.packet = self.q.buffers.cells.packet[slot]
        return "first"

    @op(
        "G-RX.4",
        "read the header",
        "receive_mergeable",
        VIRTIO_NET,
        spec="5.1.9.4",
        text={
            "whole": "num_buffers is 1: the packet lies in this one buffer.",
            "pieces": "num_buffers says that {missing} more buffers belong to the packet.",
            DROPPED: "The buffer holds no complete packet: it is dropped and counted as an error.",
        },
        to={"whole": goto("build_skb"), "pieces": goto("next_piece"), DROPPED: goto("read_used_idx")},
    )
    def read_header(self, me: Context) -> str:  # noqa: ARG002
        queue, poll = self.q, self.q.cells
        slot, written = poll.first, self.mine.written
        buffers = queue.buffers
        if not VIRTIO_NET_HDR_BYTES + 14 <= written <= buffers.slot_bytes:
            poll.errors += 1
            poll.done += 1
            buffers.release(slot)
            return DROPPED
        count = buffers.memory.u16[(buffers.at[slot] + NUM_BUFFERS_OFFSET) // 2] if queue.mergeable else 1
        buffers.cells.skip[slot] = VIRTIO_NET_HDR_BYTES
        buffers.cells.length[slot] = written - VIRTIO_NET_HDR_BYTES
        poll.length = written - VIRTIO_NET_HDR_BYTES
        poll.missing = max(count, 1) - 1
        return "pieces" if poll.missing else "whole"

    @op(
        "G-RX.4",
        "look for the next piece",
        "virtnet_build_skb",
        VIRTIO_NET,
        spec="5.1.9.4",
        text={
            "more": "The next piece of the packet is there too; the device published them all at once.",
            DROPPED: "The device promised more pieces than it returned: the packet is dropped and counted as an error.",
        },
        to={"more": goto("take_used"), DROPPED: goto("read_used_idx")},
        cost="ring cold",
    )
    def next_piece(self, me: Context) -> str:  # noqa: ARG002
        if self.ring.more_used():
            return "more"
        poll = self.q.cells
        poll.missing = 0
        poll.errors += 1
        poll.done += 1
        self.q.buffers.release(poll.first)
        return DROPPED

    @op(
        "G-RX.4",
        "join the piece",
        "virtnet_skb_append_frag",
        VIRTIO_NET,
        spec="5.1.9.4",
        text="The buffer becomes part of the packet, which now has {length} bytes; nothing is copied. {missing} pieces are missing.",
        to={"whole": goto("build_skb"), "pieces": goto("next_piece")},
        private=True,
    )
    def join_piece(self, me: Context) -> str:  # noqa: ARG002
        poll, buffers = self.q.cells, self.q.buffers
        slot = self.mine.token
        buffers.cells.length[slot] = self.mine.written
        buffers.cells.link[poll.last] = slot
        poll.last = slot
        poll.length += self.mine.written
        poll.missing -= 1
        return "pieces" if poll.missing else "whole"

    @op(
        "G-RX.4",
        "make a socket buffer of it",
        "receive_buf",
        VIRTIO_NET,
        spec="5.1.9.4",
        text={
            COPIED: "The packet is small ({length} bytes): it is copied out, and its buffer can be used again.",
            "kept": "The packet is large ({length} bytes): its buffer becomes part of the socket buffer, without a copy.",
        },
        to={COPIED: goto("collect"), "kept": goto("collect")},
        size="length",
        private=True,
    )
    def build_skb(self, me: Context) -> str:
        poll, queue = self.q.cells, self.q
        if poll.length > COPYBREAK:
            return "kept"
        data = queue.buffers.data(poll.first)
        slot = queue.small.take(me.packet)
        queue.small.fill(slot, data)
        queue.buffers.release(poll.first)
        poll.first = 0
        poll.last = slot
        return COPIED

    def length(self, me: Context) -> int:  # noqa: ARG002
        """Give the bytes of the packet in hand."""
        return self.q.cells.length

    @op(
        "G-RX.5",
        "collect it",
        "napi_gro_receive",
        CORE_GRO,
        text="Packets of one stream may be merged; this one is put on the poll's list, which goes up the stack at the end.",
        to={"list full": call("deliver", "read_used_idx"), "collected": goto("read_used_idx")},
        private=True,
    )
    def collect(self, me: Context) -> str:  # noqa: ARG002
        poll = self.q.cells
        entry = poll.first << 1 | 1 if poll.first else poll.last << 1
        self.q.collected.put(entry)
        poll.done += 1
        return "list full" if self.q.collected.is_full else "collected"

    @op(
        "G-RX.8",
        "end the poll, or go on later",
        "virtnet_poll",
        VIRTIO_NET,
        text={
            "complete": "Fewer than 64 packets were there: the poll can end.",
            "again": "64 packets are done and more may be there: the instance stays on the list and others have a turn.",
        },
        to={"complete": goto("enable_callbacks"), "again": call("deliver", None)},
        private=True,
    )
    def finish(self, me: Context) -> str:  # noqa: ARG002
        if self.q.cells.done < NAPI_WEIGHT:
            return "complete"
        self.q.cpu.schedule_poll(self.q.napi)
        return "again"

    @op(
        "G-RX.8",
        "ask for the next interrupt",
        "virtqueue_enable_cb_prepare_split",
        VIRTIO_RING,
        spec="2.7.7",
        text="used_event = {last_used}: the next packet shall interrupt.",
    )
    def enable_callbacks(self, me: Context) -> None:  # noqa: ARG002
        self.ring.enable_callbacks()

    @op(
        "G-RX.8",
        "end the poll",
        "napi_complete_done",
        CORE_GRO,
        text="The collected packets go up the stack; after that an interrupt may schedule the poll again.",
        to=call("deliver", "mb_before_last_look"),
        private=True,
    )
    def complete(self, me: Context) -> None:  # noqa: ARG002
        self.q.cells.scheduled = 0

    @op(
        "G-RX.8",
        "full barrier",
        "virtio_mb",
        VIRTIO_RING,
        spec="2.7.14",
        text="The wish for an interrupt must be visible before the last look.",
        fence=True,
        cost="barrier",
    )
    def mb_before_last_look(self, me: Context) -> None: ...

    @op(
        "G-RX.8",
        "look at used.idx one last time",
        "virtqueue_poll_split",
        VIRTIO_RING,
        spec="2.7.14",
        text={
            "nothing": "Nothing came in between: the poll is over.",
            "more": "A packet came in between, and no interrupt will tell: poll again.",
        },
        to={"nothing": RETURN, "more": RETURN},
        cost="ring cold",
    )
    def last_look(self, me: Context) -> str:  # noqa: ARG002
        if not self.ring.more_used():
            return "nothing"
        if self.q.schedule():
            self.ring.disable_callbacks()
        return "more"


class OpenDevice(Routine):
    """Bring the interface up: fill the receive queue and kick once (ndo_open). Runs before the first step."""

    def __init__(self, name: str, place: Place, refill: Routine, program: Routine) -> None:
        super().__init__(name, place)
        self.refill = refill
        self.program = program

    @op(
        "G-RX.6",
        "bring the interface up",
        "virtnet_open",
        VIRTIO_NET,
        text="The driver offers a buffer with every descriptor of the receive queue before the first packet can come.",
        to=call("refill", "up"),
    )
    def open(self, me: Context) -> None: ...

    @op(
        "G-RX.6",
        "the interface is up",
        "virtnet_open",
        VIRTIO_NET,
        text="The interface is up: programs can use the network.",
        to=call("program", None),
    )
    def up(self, me: Context) -> None: ...


class PollReceiveAlone(PollReceive):
    """The same in a guest without transmit NAPI: the transmit queue is left alone."""

    @op(
        "G-RX.2",
        "keep receive interrupts off",
        "virtnet_poll",
        VIRTIO_NET,
        text={
            "nothing": "The poll begins. Callbacks are off already: nothing is written.",
            "": "The poll begins; the device need not interrupt while it is at work.",
        },
        to={k: goto("read_used_idx") for k in ("event", "flag", "nothing")},
    )
    def begin(self, me: Context) -> str:
        return super().begin(me) or ""
