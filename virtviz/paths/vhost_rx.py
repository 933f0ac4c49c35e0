"""vhost-net delivers frames from the TAP's queue into the guest's buffers. Block V-RX, rows 2 to 10."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import (
    COPIED,
    DROPPED,
)
from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.vhost import BATCH, HEADS, VhostQueue, Work
from virtviz.paths.vhost_rearm import LastLook
from virtviz.paths.virtio_device.buffers import wrong_to_receive
from virtviz.ring.rings import scatter, writable_bytes
from virtviz.ring.verdicts import RESET, STOPS, is_malformed
from virtviz.spec.citation import TUN, VHOST, VHOST_NET
from virtviz.spec.virtio import NUM_BUFFERS_OFFSET, VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.ring.verdicts import Problem


class HandleRx(LastLook):
    """Deliver frames from the TAP's queue into the guest's buffers: handle_rx, block V-RX rows 2 to 10.

    Args:
        pool: the host's packet memory.
        give_back: publishes used elements and interrupts.
    """

    first = "disable_kicks"
    links: Mapping[str, str] = {"empty": "give_back", "more": "peek_frame"}
    rows: Mapping[str, str] = {"LAST-LOOK": "V-RX.6"}
    still_empty = "Still no buffer: the frames wait in the TAP's queue until the guest kicks."
    slipped_in = "The guest slipped buffers in meanwhile: on with them."

    def __init__(
        self, name: str, place: Place, queue: VhostQueue, pool: PacketPool, give_back: Routine, watch: Routine
    ) -> None:
        super().__init__(name, place, queue, "V-RX.6", give_back)
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
    def disable_kicks(self, me: Context) -> str:
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
    def stop_watching_tap(self, me: Context) -> None:
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
        {"known": "go on with the next entry", "": "read avail.idx"},
        "vhost_get_avail_idx",
        VHOST,
        spec="2.7.13",
        text={
            "known": "avail.idx was {avail} when last read, and is not read again: entry {next} is still to be taken.",
            "new": "avail.idx is {avail}: entry {next} is on offer, and the next to be taken.{passed}",
            "empty": "avail.idx is still {avail}: the guest has no empty buffer left.",
            STOPS: "{wrong}",
            RESET: "{wrong}",
        },
        to={
            "known": goto("read_head"),
            "new": goto("read_head"),
            "empty": goto("enable_kicks"),
            STOPS: goto("give_back"),
            RESET: goto("ask_for_reset"),
        },
        cost="ring cold",
    )
    def read_avail_idx(self, me: Context) -> str:
        if self.mine.avail_idx != self.mine.last_avail_idx:
            return "known"
        if self.mine.overlooked:
            self.mine.overlooked = 0
        answer = self.ring.read_avail_idx()
        if answer == "new":
            return "new"
        self._let_go()
        return self.refuse(answer) if is_malformed(answer) else answer

    def _let_go(self) -> None:
        """Give back the heads taken for the packet in hand."""
        queue = self.q.cells
        if queue.done > queue.first:
            self.ring.put_back(queue.heads[queue.first : queue.done])
            queue.done = queue.first

    @op(
        "V-RX.5",
        "read the head",
        "vhost_get_avail_head",
        VHOST,
        spec="2.7.6",
        text={
            "head": "The available ring's slot says: head {head}.",
            STOPS: "{wrong}",
            RESET: "{wrong}",
        },
        to={"head": goto("read_desc"), STOPS: goto("give_back"), RESET: goto("ask_for_reset")},
        cost="ring cold",
    )
    def read_head(self, me: Context) -> str:
        answer = self.ring.read_head()
        return answer if answer == "head" else self._stop(answer)

    def _stop(self, problem: Problem) -> str:
        self._let_go()
        return self.refuse(problem)

    @op(
        "V-RX.6",
        "read the descriptor",
        "vhost_get_vq_desc",
        VHOST,
        spec="5.1.9.3",
        text={
            "fits": "The descriptor names a buffer that is large enough for what is left of the packet.{passed}",
            "needs more": (
                "The buffer is full before the packet ends, {missing} bytes are left: another buffer is taken, as "
                "mergeable buffers allow.{passed}"
            ),
            "next": "The descriptor gives a piece of the buffer; the chain goes on.{passed}",
            "indirect": "The descriptor refers to a table: the buffer's pieces are described there.{passed}",
            "too small": (
                "The packet does not fit into this one buffer, and buffers cannot be merged: the packet will be "
                "thrown away."
            ),
            "too long": "The packet does not fit into 1024 buffers: it will be thrown away.{passed}",
            STOPS: "{wrong}",
            RESET: "{wrong}",
        },
        to={
            "fits": goto("copy_packet"),
            "needs more": goto("read_avail_idx"),
            "next": goto("read_desc"),
            "indirect": goto("read_desc"),
            "too small": goto("discard_packet"),
            "too long": goto("discard_packet"),
            STOPS: goto("give_back"),
            RESET: goto("ask_for_reset"),
        },
        cost="ring cold",
    )
    def read_desc(self, me: Context) -> str:
        mine, queue = self.mine, self.q.cells
        if mine.overlooked:
            mine.overlooked = 0
        answer = self.ring.read_desc()
        if answer in ("next", "indirect"):
            return answer
        problem: Problem | None = answer if is_malformed(answer) else self._wrong()
        if problem:
            return self._stop(problem)
        at, room = queue.done, 0
        for address, length in self.ring.pieces()[mine.readable :]:
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
        if not self.q.mergeable:
            return "too small"
        if self.minds("too many buffers"):
            return self.refuse("too many buffers")
        return "too long"

    def _wrong(self) -> Problem | None:
        """Say what this back-end minds about the buffer just read, if anything."""
        mine, queue = self.mine, self.q.cells
        problem = wrong_to_receive(self.ring, self.q.back_end)
        if problem:
            return problem
        if queue.pieces + mine.writable > HEADS:
            return "too many pieces"
        if mine.readable:
            self.let_pass("readable while receiving")
        if queue.done > queue.first or mine.length[mine.readable] >= VIRTIO_NET_HDR_BYTES:
            return None
        is_short = writable_bytes(self.ring) < VIRTIO_NET_HDR_BYTES
        return "no room for the header" if is_short and self.minds("no room for the header") else None

    @op(
        "V-RX.7",
        "copy the packet into the guest",
        "tun_put_user",
        TUN,
        spec="5.1.9.4",
        text=(
            "The TAP makes a virtio-net header and copies header and frame, {length} bytes, straight into the "
            "guest's buffer."
        ),
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

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand, header included."""
        return self.q.cells.length

    def _scatter(self, offset: int, data: bytes) -> None:
        """Write bytes into the buffer of the packet in hand, from an offset on, across its pieces."""
        queue = self.q.cells
        count = queue.pieces
        pieces = list(zip(queue.piece_address[:count], queue.piece_length[:count], strict=True))
        scatter(self.ring.memory, pieces, data, offset)

    @op(
        "V-RX.8",
        "write num_buffers",
        "handle_rx",
        VHOST_NET,
        spec="5.1.9.4",
        text={
            "written": "vhost itself fills in one field of the header: how many buffers the packet took.",
            "nothing": "Buffers are not merged on this queue, so vhost has no number of buffers to fill in.",
        },
        to={"written": goto("count_packet"), "nothing": goto("count_packet")},
    )
    def write_num_buffers(self, me: Context) -> str:
        if not self.q.mergeable:
            return "nothing"
        queue = self.q.cells
        self._scatter(NUM_BUFFERS_OFFSET, (queue.done - queue.first).to_bytes(2, "little"))
        return "written"

    @op(
        "V-RX.9",
        "go on, or flush",
        "vhost_exceeds_weight",
        VHOST,
        text={
            "more": "Buffers filled and not yet given back: {count}. On to the next frame.",
            "flush": "More than 64 buffers are filled: they are given back before the next frame.",
            "weight": (
                "{weight} packets, or 512 KiB, in one go: the worker queues itself again and lets other work have "
                "a turn."
            ),
        },
        to={"more": goto("peek_frame"), "flush": call("give_back", "peek_frame"), "weight": goto("requeue")},
        private=True,
    )
    def count_packet(self, me: Context) -> str:
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
        text="The same work goes to the end of the list: what the worker's other queue has to do comes first.",
        to=goto("give_back"),
    )
    def requeue(self, me: Context) -> None:
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
        text=(
            "Without empty buffers nothing can be delivered: the worker asks to be kicked when the guest "
            "refills its queue."
        ),
    )
    def enable_kicks(self, me: Context) -> None:
        self.ring.enable_kicks()

    @op(
        "V-RX.6",
        "full barrier",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text="The wish must be visible before avail.idx is read again.",
        to=goto("recheck_avail_idx"),
        fence=True,
        cost="barrier",
    )
    def mb_before_refill_recheck(self, me: Context) -> None: ...

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
    def watch_tap(self, me: Context) -> str:
        tap = self.q.tap
        if not tap.cells.watched:
            tap.cells.watched = 1
        return "readable" if tap.queue else "watching"
