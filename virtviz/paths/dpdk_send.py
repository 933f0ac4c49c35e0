"""DPDK's virtio driver sends: virtio_xmit_pkts, block P-TX. A burst is one packet here, as the scenario gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, OpSpec, Routine, call, goto, op
from virtviz.spec.citation import DPDK_VIRTIO, DPDK_VIRTQUEUE, SCENARIO
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.dpdk_program import DpdkProgram
    from virtviz.paths.packets import PacketPool
    from virtviz.ring.dpdk_driver import PollingDriver

FREE_THRESHOLD: Final = 32
"""DEFAULT_TX_FREE_THRESH, or a quarter of the queue if that is less."""
INDIRECT_BELOW: Final = 8
"""Pieces from which on no indirect table is used (VIRTIO_MAX_TX_INDIRECT)."""


@cells
class SendCells(Cells):
    """What the driver keeps while it sends: buffers to be taken back now, and descriptors that the packet needs.

    And what the program keeps: packets that it gave up.
    """

    cleaning: int = 0
    needed: int = 0
    dropped: int = 0


class SendBurst(Routine):
    """Put a packet into the transmit queue: block P-TX.

    Args:
        driver: the driver's place; the program is the one that tries again.
        program: whose packet it is.
        ring: the driver's side of the queue.
        pool: the program's packet memory.
        notify: the kick.
    """

    def __init__(
        self,
        state: State,
        name: str,
        driver: Place,
        program: DpdkProgram,
        ring: PollingDriver,
        pool: PacketPool,
        notify: Routine,
    ) -> None:
        super().__init__(name, driver, ring.name)
        self.program = program
        self.ring = ring
        self.pool = pool
        self.notify = notify
        self.cells = state.add(SendCells, name)
        size = ring.layout.size
        self.clean_above = size - min(FREE_THRESHOLD, size // 4)

    def place_of(self, spec: OpSpec) -> Place:
        """Making the frame and trying again are the program's."""
        return self.program.place if spec.name in ("make_frame", "try_again", "give_up") else self.place

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the texts speak of."""
        mine = self.ring.cells
        return {
            "head": mine.head,
            "avail": mine.avail_idx_shadow,
            "free": mine.num_free,
            "cleaning": self.cells.cleaning,
            "threshold": self.clean_above,
        }

    def has_come_back(self) -> bool:
        """Say whether the device has returned a buffer that was not looked at."""
        return self.ring.finds_used(self.program.memory)

    @op(
        "P-TX.1",
        "make the frame in an mbuf",
        "main",
        SCENARIO,
        text=(
            "The program makes the whole frame, headers too, in memory from its own pool. The device will read it from "
            "right there."
        ),
    )
    def make_frame(self, me: Context) -> None:
        frame = self.program.traffic.frame(me.packet)
        me.skb = slot = self.pool.take(me.packet)
        self.pool.fill(slot, frame)
        pieces = self.program.traffic.item_of(me.packet)[1].fragments
        self.pool.cells.pieces[slot] = pieces
        in_table = self.ring.indirect and pieces < INDIRECT_BELOW
        self.program.cells.done += 1
        self.cells.needed = 1 if pieces == 1 or in_table else pieces + 1

    @op(
        "P-TX.2",
        "read used.idx",
        "virtqueue_nused",
        DPDK_VIRTQUEUE,
        spec="2.7.14",
        text={
            "room": (
                "Buffers that came back are left in the ring until there are more than {threshold}: {free} descriptors "
                "are free, which is enough."
            ),
            "clean": "Buffers that have come back are taken back now, {cleaning} of them.",
            "full": "No descriptor is free, and no buffer has come back: the driver takes nothing.",
            "never": "The packet needs more descriptors than the whole queue has: the driver takes nothing.",
        },
        to={
            "room": goto("write_header"),
            "clean": goto("take_back"),
            "full": goto("try_again"),
            "never": goto("give_up"),
        },
        cost="ring cold",
    )
    def read_used_idx(self, me: Context) -> str:
        mine, used = self.cells, self.ring.used_count()
        if mine.needed > self.ring.layout.size:
            return "never"
        missing = mine.needed - self.ring.cells.num_free
        cleaning = used if used > self.clean_above else min(missing, used) if missing > 0 else 0
        if cleaning and not self.ring.cells.broken:
            mine.cleaning = cleaning
            return "clean"
        return "full" if missing > 0 else "room"

    @op(
        "P-TX.3",
        "take a sent buffer back",
        "virtio_xmit_cleanup",
        DPDK_VIRTQUEUE,
        spec="2.7.14",
        text={
            "more": "A used element names a buffer that was sent long ago: its mbuf goes back to the pool.",
            "room": "The last of them goes back to the pool: there is room.",
            "full": "A buffer goes back to the pool, but that is not enough for this packet.",
            "broken": "The used ring names a buffer that is not out: nothing can be taken back any more.",
        },
        to={
            "more": goto("take_back"),
            "room": goto("write_header"),
            "full": goto("try_again"),
            "broken": goto("try_again"),
        },
        milestone={"more": "completed", "room": "completed", "full": "completed"},
    )
    def take_back(self, me: Context) -> str:
        mine, ring = self.cells, self.ring
        if not ring.take_used():
            mine.cleaning = 0
            return "broken"
        slot = ring.cells.token
        me.packet = self.pool.cells.packet[slot]
        self.pool.release(slot)
        mine.cleaning -= 1
        if mine.cleaning:
            return "more"
        return "room" if ring.cells.num_free >= mine.needed else "full"

    @op(
        "P-TX.2",
        "call rte_eth_tx_burst() again",
        "main",
        SCENARIO,
        text="The program has tried again and again; now a buffer has come back.",
        to=goto("read_used_idx"),
        guard="has_come_back",
        private=True,
    )
    def try_again(self, me: Context) -> None:
        me.packet = self.pool.cells.packet[me.skb]

    @op(
        "P-TX.2",
        "free the mbuf",
        "main",
        SCENARIO,
        text={DROPPED: "No try would ever succeed: the program frees the packet that the driver did not take."},
        to={DROPPED: RETURN},
    )
    def give_up(self, me: Context) -> str:
        self.cells.dropped += 1
        self.pool.release(me.skb)
        return DROPPED

    @op(
        "P-TX.4",
        "clear the virtio-net header",
        "virtqueue_enqueue_xmit",
        DPDK_VIRTIO,
        spec="5.1.9.2",
        text="Twelve bytes in front of the frame, in the mbuf's headroom, are the header: all 0, nothing is offloaded.",
    )
    def write_header(self, me: Context) -> None:
        me.packet = self.pool.cells.packet[me.skb]
        self.pool.memory.write(self.pool.at[me.skb] - VIRTIO_NET_HDR_BYTES, bytes(VIRTIO_NET_HDR_BYTES))

    @op(
        "P-TX.5",
        "write the descriptor",
        "virtqueue_enqueue_xmit",
        DPDK_VIRTIO,
        spec="2.7.13.1",
        text={
            "one": "Descriptor {head} says where header and frame lie. The device cannot know of it yet.",
            "table": "The frame lies in several pieces: a table has them all, and descriptor {head} has the table.",
            "chain": "The frame lies in several pieces: a chain describes header and pieces, beginning at {head}.",
        },
        to={"one": goto("enter_head"), "table": goto("enter_head"), "chain": goto("enter_head")},
    )
    def write_desc(self, me: Context) -> str:
        pool, ring, slot = self.pool, self.ring, me.skb
        address, length, count = pool.at[slot], pool.cells.length[slot], pool.cells.pieces[slot]
        if count == 1:
            ring.write_single(address - VIRTIO_NET_HDR_BYTES, length + VIRTIO_NET_HDR_BYTES, 0, slot)
            return "one"
        share = length // count
        pieces = [(address + i * share, share) for i in range(count - 1)]
        pieces = [
            (address - VIRTIO_NET_HDR_BYTES, VIRTIO_NET_HDR_BYTES),
            *pieces,
            (address + (count - 1) * share, length - (count - 1) * share),
        ]
        if self.cells.needed > 1:
            ring.write_chain(pieces, 0, slot)
            return "chain"
        table = pool.table(slot)
        ring.write_indirect(table, pieces, 0)
        ring.write_indirect_desc(table, len(pieces), slot)
        return "table"

    @op(
        "P-TX.6",
        "enter the head",
        "vq_update_avail_ring",
        DPDK_VIRTQUEUE,
        spec="2.7.13.2",
        text={
            "written": "The next slot of the available ring gets the head, {head}.",
            "there": "The next slot of the available ring says {head} already: it is not written, to spare the cache.",
        },
        to={"written": goto("publish_avail_idx"), "there": goto("publish_avail_idx")},
    )
    def enter_head(self, me: Context) -> str:
        return "written" if self.ring.enter_head() else "there"

    @op(
        "P-TX.7",
        "publish avail.idx",
        "vq_update_avail_idx",
        DPDK_VIRTQUEUE,
        spec="2.7.13.3",
        text="avail.idx = {avail}, once for the whole burst: from here on the device may take it.",
        milestone="in-ring",
    )
    def publish_avail_idx(self, me: Context) -> None:
        self.ring.publish_all()

    @op(
        "P-TX.8",
        "full barrier",
        "virtqueue_kick_prepare",
        DPDK_VIRTQUEUE,
        spec="2.7.13.4.1",
        text="avail.idx must be visible before the driver reads whether the device wants to be told.",
        fence=True,
        cost="barrier",
    )
    def mb_before_kick_check(self, me: Context) -> None: ...

    @op(
        "P-TX.8",
        "ask whether a kick is wanted",
        "virtqueue_kick_prepare",
        DPDK_VIRTQUEUE,
        spec="2.7.13.4",
        text={
            "kick": "used.flags does not say NO_NOTIFY: the device sleeps, and has to be told.",
            "no kick": "used.flags says NO_NOTIFY: the device is at it, or polls as well. Nobody is told anything.",
        },
        to={"kick": call("notify", None), "no kick": RETURN},
        cost="ring cold",
    )
    def check_kick(self, me: Context) -> str:
        return "kick" if self.ring.kick_needed() else "no kick"


class NotifyFromUser(Routine):
    """The kick of a program that has the device's registers mapped: row 9 of P-TX, row 8 of P-RX.

    Args:
        exit_to_kvm: what the store leads to.
        row: which of the two rows it is.
    """

    def __init__(self, name: str, place: Place, queue: str, exit_to_kvm: Routine, row: str) -> None:
        super().__init__(name, place, queue)
        self.exit_to_kvm = exit_to_kvm
        self.rows = {"kick": row}

    @op(
        "kick",
        "kick the device",
        "virtqueue_notify",
        DPDK_VIRTQUEUE,
        spec="4.1.5.2",
        text=(
            "The program itself stores to the queue's notify address, which is mapped into it. No system call; but no "
            "memory is there, so the store leaves the guest."
        ),
        to=call("exit_to_kvm", None),
        cause="store to the notify address",
        cost="kick",
    )
    def kick(self, me: Context) -> None: ...
