"""Putting one packet into the transmit ring, so that the device may take it. Rows 8 to 10 of block G-TX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import (
    DROPPED,
)
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.virtio_net import Transmitq, TransmitRoutine
from virtviz.spec.citation import VIRTIO_NET, VIRTIO_RING
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context


class AddBuffer(TransmitRoutine):
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
            "direct": (
                "Descriptor {head} says where the packet lies and how long it is, header included. The device "
                "cannot know of it yet."
            ),
            "table": "The packet lies in several pieces: they are described in a table of their own, outside the ring.",
            "no room": (
                "Not enough descriptors are free, although the queue was not stopped. Linux kicks, in the hope "
                "that this helps."
            ),
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
    def write_avail_ring(self, me: Context) -> None:
        self.ring.list_head()

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
    def publish_avail_idx(self, me: Context) -> None:
        self.ring.publish()
