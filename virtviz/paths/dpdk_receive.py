"""DPDK's virtio driver receives: virtio_recv_mergeable_pkts, block P-RX, rows 1 to 8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.dpdk_program import WAITING
from virtviz.spec.citation import DPDK_VIRTIO, DPDK_VIRTIO_ETHDEV, DPDK_VIRTQUEUE
from virtviz.spec.frames import ETH_HEADER_BYTES
from virtviz.spec.virtio import NUM_BUFFERS_OFFSET, VIRTIO_NET_HDR_BYTES, VIRTQ_DESC_F_WRITE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.dpdk_program import DpdkProgram
    from virtviz.paths.packets import PacketPool
    from virtviz.ring.dpdk_driver import PollingDriver

BURST: Final = 32
"""Packets that the program asks for at a time."""
IN_A_LINE: Final = 4
"""Descriptors in a cache line: the driver stops at the end of one rather than in its middle (DESC_PER_CACHELINE)."""


@cells
class ReceiveCells(Cells):
    """What the driver keeps while it receives.

    Attributes:
        left: used elements of this burst still to be taken.
        missing: buffers that the packet in hand still needs.
        first, last: its first and its last buffer; 0 for none.
        errors: packets too short, or whose other buffers did not come.
    """

    left: int = 0
    missing: int = 0
    first: int = 0
    last: int = 0
    errors: int = 0


class ReceiveBurst(Routine):
    """Take a burst out of the receive queue, and fill the queue up again: block P-RX.

    Args:
        program: gets the packets.
        ring: the driver's side of the queue.
        buffers: the receive buffers.
        mergeable: MRG_RXBUF was negotiated.
        notify: the kick.
    """

    first = "read_used_idx"

    def __init__(
        self,
        state: State,
        name: str,
        place: Place,
        program: DpdkProgram,
        ring: PollingDriver,
        buffers: PacketPool,
        notify: Routine,
        *,
        mergeable: bool,
    ) -> None:
        super().__init__(name, place, ring.name)
        self.program = program
        self.ring = ring
        self.buffers = buffers
        self.notify = notify
        self.mergeable = mergeable
        self.cells = state.add(ReceiveCells, name)

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the texts speak of."""
        mine, ring = self.cells, self.ring.cells
        return {
            "left": mine.left,
            "missing": mine.missing,
            "head": ring.head,
            "written": ring.written,
            "avail": ring.avail_idx_shadow,
        }

    def ready(self) -> bool:
        """Say whether a call would do anything: something has come back, or a descriptor can be filled again."""
        if len(self.program.waiting) > WAITING:
            return False
        ring = self.ring
        return ring.finds_used(self.program.memory) or bool(ring.cells.num_free and self.buffers.cells.free_count)

    @op(
        "P-RX.1",
        "read used.idx",
        "virtqueue_nused",
        DPDK_VIRTQUEUE,
        spec="2.7.14",
        text={
            "some": "Buffers have come back: {left} of them are taken now. Nobody has interrupted the guest for them.",
            "none": "Nothing has come back, but descriptors can be filled again.",
        },
        to={"some": goto("take_used"), "none": goto("write_desc")},
        cost="ring cold",
    )
    def read_used_idx(self, me: Context) -> str:
        mine, ring = self.cells, self.ring
        count = 0 if ring.cells.broken else min(ring.used_count(), BURST)
        if count > IN_A_LINE:
            count -= (ring.cells.last_used_idx + count) % IN_A_LINE
        mine.left = count
        return "some" if count else "none"

    @op(
        "P-RX.2",
        "read the used element",
        "virtqueue_dequeue_burst_rx",
        DPDK_VIRTIO,
        spec="2.7.14",
        text={
            "first": "The used element names buffer {head} and {written} bytes.",
            "further": "The packet goes on in buffer {head}: {written} bytes.",
            "broken": "The used element names a buffer that is not out: the driver gets no further in this queue.",
        },
        to={"first": goto("read_header"), "further": goto("join_buffer"), "broken": goto("write_desc")},
        milestone={"first": "polled"},
        cost="ring cold",
    )
    def take_used(self, me: Context) -> str:
        mine, ring = self.cells, self.ring
        if not ring.take_used():
            mine.left = 0
            return "broken"
        if mine.left:
            mine.left -= 1
        if me.observed:
            me.packet = self.buffers.cells.packet[ring.cells.token]
        return "further" if mine.missing else "first"

    @op(
        "P-RX.3",
        "read the virtio-net header",
        "virtio_recv_mergeable_pkts",
        DPDK_VIRTIO,
        spec="5.1.9.4",
        text={
            "whole": "The header says that the packet is all in this buffer.",
            "goes on": "The header says that the packet goes on; buffers still to come: {missing}.",
            DROPPED: "What is in this buffer is too short for a packet: it is thrown away.",
        },
        to={"whole": goto("hand_up"), "goes on": goto("more_used"), DROPPED: goto("next_used")},
    )
    def read_header(self, me: Context) -> str:
        mine, ring, pool = self.cells, self.ring.cells, self.buffers
        slot = ring.token
        if ring.written < VIRTIO_NET_HDR_BYTES + ETH_HEADER_BYTES:
            pool.release(slot)
            mine.errors += 1
            return DROPPED
        at = pool.at[slot] + NUM_BUFFERS_OFFSET
        count = max(int.from_bytes(pool.memory.read(at, 2), "little"), 1) if self.mergeable else 1
        pool.cells.skip[slot] = VIRTIO_NET_HDR_BYTES
        pool.cells.length[slot] = min(ring.written, pool.slot_bytes) - VIRTIO_NET_HDR_BYTES
        mine.first = mine.last = slot
        mine.missing = count - 1
        return "goes on" if mine.missing else "whole"

    @op(
        "P-RX.3",
        "look for the rest of the packet",
        "virtio_recv_mergeable_pkts",
        DPDK_VIRTIO,
        text={
            "there": "Its next buffer has come back as well.",
            DROPPED: "Its other buffers have not come back, which cannot be: what there is of it is thrown away.",
        },
        to={"there": goto("take_used"), DROPPED: goto("write_desc")},
    )
    def more_used(self, me: Context) -> str:
        mine = self.cells
        if mine.left or self.ring.used_count() >= mine.missing:
            return "there"
        self.buffers.release(mine.first)
        mine.errors += 1
        mine.missing = mine.first = mine.last = 0
        return DROPPED

    @op(
        "P-RX.3",
        "join the buffer to the packet",
        "virtio_recv_mergeable_pkts",
        DPDK_VIRTIO,
        text={
            "whole": "That was the last buffer of this packet; they are chained, not copied.",
            "goes on": "The buffer is chained to the others. Still to come: {missing}.",
        },
        to={"whole": goto("hand_up"), "goes on": goto("more_used")},
    )
    def join_buffer(self, me: Context) -> str:
        mine, pool, slot = self.cells, self.buffers.cells, self.ring.cells.token
        pool.skip[slot] = 0
        pool.length[slot] = min(self.ring.cells.written, self.buffers.slot_bytes)
        pool.link[mine.last] = slot
        mine.last = slot
        mine.missing -= 1
        return "goes on" if mine.missing else "whole"

    @op(
        "P-RX.3",
        "hand the packet to the program",
        "virtio_recv_mergeable_pkts",
        DPDK_VIRTIO,
        text={
            "more": "The packet goes into the burst that the program will get. Used elements left: {left}.",
            "last": "The packet goes into the burst that the program will get. It was the last one.",
        },
        to={"more": goto("take_used"), "last": goto("write_desc")},
        private=True,
    )
    def hand_up(self, me: Context) -> str:
        self.program.waiting.put(self.cells.first)
        return "more" if self.cells.left else "last"

    @op(
        "P-RX.3",
        "go on with the burst",
        "virtio_recv_mergeable_pkts",
        DPDK_VIRTIO,
        text={"more": "Used elements left: {left}.", "last": "It was the last one of this burst."},
        to={"more": goto("take_used"), "last": goto("write_desc")},
        private=True,
    )
    def next_used(self, me: Context) -> str:
        return "more" if self.cells.left else "last"

    @op(
        "P-RX.4",
        "write a descriptor for an empty buffer",
        "virtqueue_enqueue_recv_refill",
        DPDK_VIRTIO,
        spec="5.1.9.3",
        text={
            "written": "An empty mbuf takes the place of what was taken: descriptor {head}, for the device to write.",
            "full": "Every descriptor offers an empty mbuf again.",
            "no memory": "No mbuf is free: the rest of the descriptors stay empty until one is.",
        },
        to={"written": goto("enter_head"), "full": goto("publish_avail_idx"), "no memory": goto("publish_avail_idx")},
    )
    def write_desc(self, me: Context) -> str:
        ring, pool = self.ring, self.buffers
        if me.packet:
            me.packet = 0
        if not ring.cells.num_free:
            return "full"
        if not pool.cells.free_count:
            return "no memory"
        size = pool.slot_bytes
        slot = pool.take(0, size)
        if pool.cells.skip[slot]:
            pool.cells.skip[slot] = 0
        ring.write_single(pool.at[slot], size, VIRTQ_DESC_F_WRITE, slot)
        return "written"

    @op(
        "P-RX.5",
        "enter the head",
        "vq_update_avail_ring",
        DPDK_VIRTQUEUE,
        spec="2.7.13.2",
        text={
            "written": "The next slot of the available ring gets the head, {head}.",
            "there": "The next slot of the available ring says {head} already, and is left alone.",
        },
        to={"written": goto("write_desc"), "there": goto("write_desc")},
    )
    def enter_head(self, me: Context) -> str:
        return "written" if self.ring.enter_head() else "there"

    @op(
        "P-RX.6",
        "publish avail.idx",
        "vq_update_avail_idx",
        DPDK_VIRTQUEUE,
        spec="2.7.13.3",
        text="avail.idx = {avail}, once for all of them: the device may use them from now on.",
    )
    def publish_avail_idx(self, me: Context) -> None:
        self.ring.publish_all()

    @op(
        "P-RX.7",
        "full barrier",
        "virtqueue_kick_prepare",
        DPDK_VIRTQUEUE,
        spec="2.7.13.4.1",
        text="The new buffers must be visible before the driver reads whether the device wants to be told.",
        fence=True,
        cost="barrier",
    )
    def mb_before_kick_check(self, me: Context) -> None: ...

    @op(
        "P-RX.7",
        "ask whether a kick is wanted",
        "virtqueue_kick_prepare",
        DPDK_VIRTQUEUE,
        spec="2.7.13.4",
        text={
            "kick": "used.flags does not say NO_NOTIFY: the device waits for buffers, and has to be told.",
            "no kick": "used.flags says NO_NOTIFY: the device will find the buffers by itself.",
        },
        to={"kick": call("notify", None), "no kick": RETURN},
        cost="ring cold",
    )
    def check_kick(self, me: Context) -> str:
        return "kick" if self.ring.kick_needed() else "no kick"


class StartPort(Routine):
    """Start the port: fill the receive queue. Runs before the first step."""

    def __init__(self, name: str, place: Place, refill: Routine, program: Routine) -> None:
        super().__init__(name, place)
        self.refill = refill
        self.program = program

    @op(
        "P-RX.4",
        "start the port",
        "virtio_dev_rx_queue_setup_finish",
        DPDK_VIRTIO,
        text="The driver offers an mbuf with every descriptor of the receive queue before the first packet can come.",
        to=call("refill", "started"),
    )
    def start(self, me: Context) -> None: ...

    @op(
        "P-RX.4",
        "the port is started",
        "virtio_dev_start",
        DPDK_VIRTIO_ETHDEV,
        text="The port is started: the program's loop begins.",
        to=call("program", None),
    )
    def started(self, me: Context) -> None: ...
