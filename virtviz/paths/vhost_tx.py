"""vhost-net sends what the guest has put into its transmit queue. Block V-TX, rows 2 to 10."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import (
    COPIED,
)
from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.vhost import VhostQueue, Work
from virtviz.paths.vhost_rearm import LastLook
from virtviz.paths.virtio_device.buffers import wrong_to_send
from virtviz.ring.rings import read_buffer
from virtviz.ring.verdicts import RESET, STOPS, is_malformed
from virtviz.spec.citation import VHOST, VHOST_NET
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.ring.verdicts import Problem


class HandleTx(LastLook):
    """Send what the guest put into its transmit queue: handle_tx, block V-TX rows 2 to 9.

    Args:
        pool: the host's packet memory.
        flush: hands the collected frames to the TAP and returns the buffers.
    """

    first = "disable_kicks"
    links: Mapping[str, str] = {"empty": "flush", "more": "read_avail_idx"}
    rows: Mapping[str, str] = {"LAST-LOOK": "V-TX.9"}
    still_empty = "Nothing slipped in while the worker was asking: now the batch can go."
    slipped_in = "The guest slipped something in meanwhile: the wish is withdrawn, and the batch grows."

    def __init__(self, name: str, place: Place, queue: VhostQueue, pool: PacketPool, flush: Routine) -> None:
        super().__init__(name, place, queue, "V-TX.6", flush)
        self.pool = pool
        self.flush = flush
        self._memory = queue.guest_pool.memory

    @op(
        "V-TX.2",
        "ask for no more kicks",
        "vhost_disable_notify",
        VHOST,
        spec="2.7.10",
        text={
            "written": "used.flags says NO_NOTIFY: the guest need not kick while the worker is at it.",
            "nothing": (
                "With event indices nothing is written: the old avail_event lies behind, and that is suppression "
                "enough."
            ),
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
        {"known": "go on with the next entry", "": "read avail.idx"},
        "vhost_get_avail_idx",
        VHOST,
        spec="2.7.13",
        text={
            "known": "avail.idx was {avail} when last read, and is not read again: entry {next} is still to be taken.",
            "new": "avail.idx is {avail}: entry {next} is available, and the next to be taken.{passed}",
            "empty": "avail.idx is still {avail}: the ring is empty.",
            STOPS: "{wrong}",
            RESET: "{wrong}",
        },
        to={
            "known": goto("read_head"),
            "new": goto("read_head"),
            "empty": goto("enable_kicks"),
            STOPS: goto("flush"),
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
        return self.refuse(answer) if is_malformed(answer) else answer

    @op(
        "V-TX.5",
        "read the head",
        "vhost_get_avail_head",
        VHOST,
        spec="2.7.6",
        text={
            "head": "The available ring's slot says: head {head}.",
            STOPS: "{wrong}",
            RESET: "{wrong}",
        },
        to={"head": goto("read_desc"), STOPS: goto("flush"), RESET: goto("ask_for_reset")},
        cost="ring cold",
    )
    def read_head(self, me: Context) -> str:
        answer = self.ring.read_head()
        if answer != "head":
            return self.refuse(answer)
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
            "last": (
                "The descriptor gives a guest-physical address and a length. vhost translates it to an address in "
                "QEMU's memory.{passed}"
            ),
            "next": "The descriptor gives a piece of the buffer; the chain goes on.{passed}",
            "indirect": "The descriptor refers to a table: the buffer's pieces are described there.{passed}",
            STOPS: "{wrong}",
            RESET: "{wrong}",
        },
        to={
            "last": goto("copy_packet"),
            "next": goto("read_desc"),
            "indirect": goto("read_desc"),
            STOPS: goto("flush"),
            RESET: goto("ask_for_reset"),
        },
        cost="ring cold",
        milestone={"last": "fetched"},
    )
    def read_desc(self, me: Context) -> str:
        mine = self.mine
        if mine.overlooked:
            mine.overlooked = 0
        answer = self.ring.read_desc()
        # A transmit buffer is all for reading, and longer than its header.
        if (
            answer == "last"
            and mine.readable
            and not mine.writable
            and (mine.length[0] > VIRTIO_NET_HDR_BYTES or self.ring.total() > VIRTIO_NET_HDR_BYTES)
        ):
            return "last"
        return answer if answer in ("next", "indirect") else self._judge(answer)

    def _judge(self, answer: str) -> str:
        """Judge a buffer that is not as it should be."""
        problem: Problem | None
        if is_malformed(answer):
            problem = answer
        else:
            problem = wrong_to_send(self.ring, self.q.back_end, VIRTIO_NET_HDR_BYTES, vnet_hdr=True)
        if problem:
            return self.refuse(problem)
        self.let_pass("writable while sending" if self.mine.writable else "nothing to send")
        return "last"

    @op(
        "V-TX.7",
        "copy the packet out of the guest",
        "vhost_net_build_xdp",
        VHOST_NET,
        spec="5.1.9.2",
        text=(
            "Header and frame, {length} bytes, are copied from guest memory into a page of the host. With the "
            "flow known, it is the host's only copy."
        ),
        to={COPIED: goto("remember_head")},
        size="length",
    )
    def copy_packet(self, me: Context) -> str:
        queue, mine, pool = self.q.cells, self.mine, self.pool
        first = mine.address[0]
        end = first + mine.length[0]
        in_one_piece = mine.readable == 1 and end <= self._memory.size
        data = self._memory.bytes[first:end] if in_one_piece else read_buffer(self.ring)
        length = len(data)
        me.packet = packet = self.q.guest_pool.packet_at(first)
        # No page takes a frame that is longer than any driver sends: the TAP finds nothing in its place, and drops it.
        slot = 0
        if length <= pool.longest:
            slot = pool.take(packet, length - VIRTIO_NET_HDR_BYTES)
            # The header lies in front of the frame, in the slot's headroom.
            pool.memory.write(pool.at[slot] - VIRTIO_NET_HDR_BYTES, data)
        queue.length = length
        queue.bytes += length - VIRTIO_NET_HDR_BYTES
        queue.frames[queue.done] = slot
        return COPIED

    def length(self, me: Context) -> int:
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
            "weight": (
                "{weight} packets, or 512 KiB, in one go: the worker queues itself again and lets other work have "
                "a turn."
            ),
        },
        to={
            "more": goto("read_avail_idx"),
            "batch full": call("flush", "read_avail_idx"),
            "weight": goto("requeue"),
        },
        private=True,
    )
    def remember_head(self, me: Context) -> str:
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
        text="The same work goes to the end of the list: what the worker's other queue has to do comes first.",
        to=goto("flush"),
    )
    def requeue(self, me: Context) -> None:
        self.q.worker.queue(Work.TX_KICK)

    @op(
        "V-TX.9",
        "ask for the next kick",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text=("Before it sends what it has collected, the worker asks {kicks}: from now on the guest must tell."),
    )
    def enable_kicks(self, me: Context) -> None:
        self.ring.enable_kicks()

    @op(
        "V-TX.9",
        "full barrier",
        "vhost_enable_notify",
        VHOST,
        spec="2.7.10",
        text=(
            "The wish must be visible before avail.idx is read again. It is the twin of the driver's barrier "
            "before its kick check."
        ),
        to=goto("recheck_avail_idx"),
        fence=True,
        cost="barrier",
    )
    def mb_before_recheck(self, me: Context) -> None: ...


class FlushTx(Routine):
    """Hand the collected frames to the TAP, then return their buffers: vhost_tx_batch."""

    def __init__(self, name: str, place: Place, queue: VhostQueue, sendmsg: Routine, give_back: Routine) -> None:
        super().__init__(name, place, queue.ring_name)
        self.q = queue
        self.sendmsg = sendmsg
        self.give_back = give_back

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the number of frames."""
        return {"count": self.q.cells.done, "batch": self.q.batch}

    @op(
        "V-TX.10",
        "hand the batch to the TAP",
        "vhost_tx_batch",
        VHOST_NET,
        text={
            "batch": (
                "A batch of {count} (at most {batch}) goes to the TAP in one call inside the kernel, tun_sendmsg: no "
                "system call, and all that follows runs in this thread."
            ),
            "nothing": "There is nothing to send: the round is over.",
        },
        to={"batch": call("sendmsg", "give_back"), "nothing": goto("give_back")},
        private=True,
    )
    def send_batch(self, me: Context) -> str:
        return "batch" if self.q.cells.done else "nothing"
