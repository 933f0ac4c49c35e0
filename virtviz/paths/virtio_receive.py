"""Receiving with virtio-net: the interrupt and the NAPI poll. Block G-RX, rows 1 to 5 and 8."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.effects import (
    COPIED,
    DROPPED,
)
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.napi import EndOfPoll
from virtviz.paths.virtio_net import NAPI_WEIGHT, Receiveq, ReceiveRoutine
from virtviz.spec.citation import CORE_DEV, CORE_GRO, VIRTIO_NET, VIRTIO_RING
from virtviz.spec.virtio import NUM_BUFFERS_OFFSET, VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context


COPYBREAK = 128
"""Received packets up to this size are copied out of their buffer, so that it can be reused (GOOD_COPY_LEN)."""


class ReceiveDone(ReceiveRoutine):
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
        text={
            "scheduled": (
                "Packets are not handled in the interrupt: it only schedules the poll, and wants no further "
                "interrupt until then."
            ),
            "scheduled already": "The poll is scheduled or at work already: it is only told to look once more.",
        },
        to={"scheduled": RETURN, "scheduled already": RETURN},
    )
    def schedule_poll(self, me: Context) -> str:
        if not self.q.schedule():
            return "scheduled already"
        self.ring.disable_callbacks()
        return "scheduled"


class PollReceive(EndOfPoll, ReceiveRoutine):
    """NAPI for a receive queue: virtnet_poll, rows 2 to 8 of G-RX.

    Args:
        clean: tidies the transmit queue; runs `read_used_idx` after it.
        refill, deliver: as named.
    """

    first = "begin"
    rows = MappingProxyType({"end": "G-RX.8"})
    q: Receiveq

    def __init__(
        self, name: str, place: Place, queue: Receiveq, clean: Routine, refill: Routine, deliver: Routine
    ) -> None:
        super().__init__(name, place, queue)
        self.clean = clean
        self.refill = refill
        self.deliver = deliver
        if not queue.mergeable:
            small = ("receive_small", VIRTIO_NET)
            self.functions = {"receive_mergeable": small, "page_to_skb": small}

    @op(
        "G-RX.2",
        "keep receive interrupts off",
        "virtnet_poll",
        VIRTIO_NET,
        text={
            "nothing": "The poll begins. Callbacks are off already: nothing is written.",
            "begun": "The poll begins. Callbacks have been off since the interrupt.",
            "": "The poll begins; the device need not interrupt while it is at work.",
        },
        to={k: call("clean", "read_used_idx") for k in ("event", "flag", "nothing", "begun")},
    )
    def begin(self, me: Context) -> str:
        self.q.cells.done = 0
        return self.ring.disable_callbacks() if self.q.disables_in_poll else "begun"

    @op(
        "G-RX.3",
        "look for a received packet",
        "virtnet_receive",
        VIRTIO_NET,
        spec="2.7.14",
        text={
            "more": "used.idx has moved past {last_used}: a buffer has come back with something in it.",
            "refill": (
                "used.idx is still {last_used}: all packets are taken. More than {threshold} buffers are used up, so "
                "the queue is refilled."
            ),
            "none": (
                "used.idx is still {last_used}: all packets are taken. Enough empty buffers are left, so none is "
                "put back now."
            ),
        },
        to={"more": goto("take_used"), "refill": call("refill", "finish"), "none": goto("finish")},
        cost="ring cold",
    )
    def read_used_idx(self, me: Context) -> str:
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
            "bad": (
                "The used element names a head that is not outstanding. Linux marks the queue broken and stops "
                "using it."
            ),
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
            "alone": "Buffers are not merged: the packet lies in this one buffer, and num_buffers is not looked at.",
            "pieces": "By num_buffers the packet goes on in other buffers. Still to come: {missing}.",
            DROPPED: "The buffer holds no complete packet: it is dropped and counted as an error.",
        },
        to={
            "whole": goto("build_skb"),
            "alone": goto("build_skb"),
            "pieces": goto("next_piece"),
            DROPPED: goto("read_used_idx"),
        },
    )
    def read_header(self, me: Context) -> str:
        queue, poll = self.q, self.q.cells
        slot, written = poll.first, self.mine.written
        buffers = queue.buffers
        if not VIRTIO_NET_HDR_BYTES + 14 <= written <= buffers.slot_bytes:
            poll.errors += 1
            poll.done += 1
            buffers.release(slot)
            return DROPPED
        buffers.cells.skip[slot] = VIRTIO_NET_HDR_BYTES
        buffers.cells.length[slot] = written - VIRTIO_NET_HDR_BYTES
        poll.length = written - VIRTIO_NET_HDR_BYTES
        if not queue.mergeable:
            return "alone"
        count = buffers.memory.u16[(buffers.at[slot] + NUM_BUFFERS_OFFSET) // 2]
        poll.missing = max(count, 1) - 1
        return "pieces" if poll.missing else "whole"

    @op(
        "G-RX.4",
        "look for the next piece",
        "receive_mergeable",
        VIRTIO_NET,
        spec="5.1.9.4",
        text={
            "more": "The next piece of the packet is there too; the device published them all at once.",
            DROPPED: "The device promised more pieces than it returned: the packet is dropped and counted as an error.",
        },
        to={"more": goto("take_used"), DROPPED: goto("read_used_idx")},
        cost="ring cold",
    )
    def next_piece(self, me: Context) -> str:
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
        text=(
            "The buffer becomes part of the packet, which now has {length} bytes; nothing is copied. "
            "Still to come: {missing}."
        ),
        to={"whole": goto("build_skb"), "pieces": goto("next_piece")},
        private=True,
    )
    def join_piece(self, me: Context) -> str:
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
        "page_to_skb",
        VIRTIO_NET,
        spec="5.1.9.4",
        text={
            COPIED: "The packet is small ({length} bytes): it is copied out, and its buffer can be used again.",
            "kept": (
                "The packet is large ({length} bytes): its buffer becomes part of the socket buffer, without a copy."
            ),
            "built around": "Buffers are not merged: the socket buffer is built around it, and nothing is copied.",
        },
        to={COPIED: goto("collect"), "kept": goto("collect"), "built around": goto("collect")},
        size="length",
        private=True,
    )
    def build_skb(self, me: Context) -> str:
        poll, queue = self.q.cells, self.q
        if not queue.mergeable:
            return "built around"
        if poll.length > COPYBREAK:
            return "kept"
        data = queue.buffers.data(poll.first)
        slot = queue.small.take(me.packet)
        queue.small.fill(slot, data)
        queue.buffers.release(poll.first)
        poll.first = 0
        poll.last = slot
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand."""
        return self.q.cells.length

    @op(
        "G-RX.5",
        "collect it",
        "napi_gro_receive",
        CORE_GRO,
        text=(
            "Packets of one stream may be merged; this one is put on the poll's list, which goes up the stack "
            "at the end."
        ),
        to={"list full": call("deliver", "read_used_idx"), "collected": goto("read_used_idx")},
        private=True,
    )
    def collect(self, me: Context) -> str:
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
            "again": (
                "64 packets are done and more may be there: the instance stays on the list and others have a turn."
            ),
        },
        to={"complete": goto("enable_callbacks"), "again": call("deliver", None)},
        private=True,
    )
    def finish(self, me: Context) -> str:
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
        text="{asked}: the next packet shall interrupt.",
    )
    def enable_callbacks(self, me: Context) -> None:
        self.ring.enable_callbacks()

    @op(
        "G-RX.8",
        "hand up what was collected",
        "napi_complete_done",
        CORE_DEV,
        text="Before the poll is over, the packets it has collected go up the stack.",
        to=call("deliver", "leave_poll_list"),
        private=True,
    )
    def complete(self, me: Context) -> None: ...

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
    def last_look(self, me: Context) -> str:
        return self.look_again()


class PollReceiveAlone(PollReceive):
    """The same in a guest without transmit NAPI: the transmit queue is left alone."""

    retold = MappingProxyType(
        {"begin": {"to": {k: goto("read_used_idx") for k in ("event", "flag", "nothing", "begun")}}}
    )
