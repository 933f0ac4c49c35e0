"""Getting sent packets back from a virtio-net device: block G-TXC, and the part of G-TX and G-RX that frees them.

Used buffers are found in three places: when the next packet is sent, in the transmit queue's own NAPI poll, and in the
receive queue's.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.napi import EndOfPoll
from virtviz.paths.virtio_net import Transmitq, TransmitRoutine
from virtviz.spec.citation import CORE_DEV, VIRTIO_NET, VIRTIO_RING, VIRTIO_RING_H

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context


class Reclaim(TransmitRoutine):
    """Free packets the device has sent: free_old_xmit. Rows G-TX.5, G-TXC.2 and G-RX.2, by the caller."""

    @op(
        "reclaim",
        "look for sent packets",
        "free_old_xmit",
        VIRTIO_NET,
        spec="2.7.14",
        text={
            "more": "used.idx has moved past {last_used}: the device has returned a buffer.",
            "none": "used.idx is still {last_used}: there is nothing to take back.",
        },
        to={"more": goto("take_used"), "none": RETURN},
        cost="ring cold",
    )
    def read_used_idx(self, me: Context) -> str:
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
            "asked again": (
                "The used element names head {head}, which is free again; callbacks are on, so used_event moves along."
            ),
            "bad": (
                "The used element names a head that is not outstanding. Linux marks the queue broken and stops "
                "using it."
            ),
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


class TransmitDone(TransmitRoutine):
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
    def vring_interrupt(self, me: Context) -> str:
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
        text={
            "scheduled": (
                "Further interrupts are unwanted until the poll is done. Event indices need no write for that: one "
                "came, so none follows; else avail.flags says it."
            ),
            "scheduled already": "The poll is scheduled or at work already: it is only told to look once more.",
        },
        to={"scheduled": RETURN, "scheduled already": RETURN},
    )
    def schedule_poll(self, me: Context) -> str:
        self.ring.disable_callbacks()
        return "scheduled" if self.q.schedule() else "scheduled already"


class TransmitDoneWithoutNapi(TransmitDone):
    """The interrupt of a transmit queue with napi_tx=0: it only opens a stopped queue."""

    @op(
        "G-TXC.1",
        "let the queue go on",
        "skb_xmit_done",
        VIRTIO_NET,
        text="Without transmit NAPI nothing is freed here: only a queue that waited for free descriptors may go on.",
        to={"done": RETURN},
    )
    def schedule_poll(self, me: Context) -> str:
        self.ring.disable_callbacks()
        self.q.tx.wake()
        return "done"


class PollTransmit(EndOfPoll, TransmitRoutine):
    """NAPI for a transmit queue: virtnet_poll_tx, rows 2 to 4 of G-TXC."""

    first = "disable_callbacks"
    rows = MappingProxyType({"end": "G-TXC.4"})
    q: Transmitq

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
    def disable_callbacks(self, me: Context) -> str:
        return self.ring.disable_callbacks()

    @op(
        "G-TXC.3",
        "open the queue if it was stopped",
        "netif_tx_wake_queue",
        CORE_DEV,
        text={
            "opened": "Free descriptors: {num_free}. The stopped queue is opened, and waiting packets go on.",
            "was open": "The queue was not stopped.",
            "still full": "Free descriptors: {num_free}, too few. The queue stays stopped.",
        },
        to={k: goto("enable_callbacks") for k in ("opened", "was open", "still full")},
        private=True,
    )
    def wake_queue(self, me: Context) -> str:
        if self.mine.num_free < self.q.threshold:
            return "still full"
        return "opened" if self.q.tx.wake() else "was open"

    @op(
        "G-TXC.4",
        "ask for the next interrupt",
        "virtqueue_enable_cb_prepare_split",
        VIRTIO_RING,
        spec="2.7.7",
        text="{asked}: the next buffer that comes back shall interrupt.",
        to=goto("leave_poll_list"),
    )
    def enable_callbacks(self, me: Context) -> None:
        self.ring.enable_callbacks()

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
    def last_look(self, me: Context) -> str:
        return self.look_again()


class CleanTransmit(TransmitRoutine):
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
        text=(
            "Before it receives, the poll tidies the transmit queue of the same pair: perhaps that saves an interrupt."
        ),
        to={k: call("reclaim", "enable_callbacks_delayed") for k in ("event", "flag", "nothing")},
    )
    def disable_callbacks(self, me: Context) -> str:
        return self.ring.disable_callbacks()

    @op(
        "G-RX.2",
        "ask for a late completion interrupt",
        "virtqueue_enable_cb_delayed",
        VIRTIO_RING,
        spec="2.7.14",
        text="The transmit queue's {late}",
    )
    def enable_callbacks_delayed(self, me: Context) -> None:
        self.ring.enable_callbacks_delayed()

    @op(
        "G-RX.2",
        "full barrier",
        "virtio_store_mb",
        VIRTIO_RING_H,
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
    def recheck(self, me: Context) -> str:
        if self.ring.too_many_used():
            return "too late"
        opened = self.mine.num_free >= self.q.threshold and self.q.tx.wake()
        return "opened" if opened else "enough"
