"""The driver puts new buffers into its receive queue: try_fill_recv. Rows 6 and 7 of block G-RX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.virtio_net import Receiveq, ReceiveRoutine
from virtviz.spec.citation import VIRTIO_NET, VIRTIO_RING, VIRTIO_RING_H
from virtviz.spec.virtio import VIRTQ_DESC_F_WRITE

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context


class Refill(ReceiveRoutine):
    """Put new buffers into the receive queue until it is full: try_fill_recv, rows 6 and 7 of G-RX."""

    first = "post_buffer"

    def __init__(self, name: str, place: Place, queue: Receiveq, notify: Routine) -> None:
        super().__init__(name, place, queue)
        self.notify = notify
        if not queue.mergeable:
            self.functions = {"add_recvbuf_mergeable": ("add_recvbuf_small", VIRTIO_NET)}

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
    def post_buffer(self, me: Context) -> str:
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
    def write_avail_ring(self, me: Context) -> None:
        self.ring.list_head()

    @op(
        "G-RX.6",
        "publish avail.idx",
        "virtqueue_add_split",
        VIRTIO_RING,
        spec="2.7.13.3",
        text="The device may use the buffer from now on.",
        to=goto("post_buffer"),
    )
    def publish_avail_idx(self, me: Context) -> None:
        self.ring.publish()

    @op(
        "G-RX.7",
        "full barrier",
        "virtio_mb",
        VIRTIO_RING_H,
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
            "kick": "By its {wish}, the device wants to be told, as it does once buffers run out: a kick is needed.",
            "no kick": "By its {wish}, the device need not be told, as it has not run out: refilling costs no exit.",
        },
        to={"kick": call("notify", None), "no kick": RETURN},
        cost="ring cold",
    )
    def check_kick(self, me: Context) -> str:
        return "kick" if self.ring.kick_needed() else "no kick"
