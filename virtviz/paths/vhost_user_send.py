"""A vhost-user port of OVS-DPDK, into the guest: a batch is put into the guest's receive buffers.

Rows 4 to 10 of block U-RX. Nobody waits for the guest: if it has no empty buffers left, the packets that found none are
dropped, after at most 8 more tries, and only as long as each try brings at least one further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.effects import COPIED, DROPPED
from virtviz.engine.ops import RETURN, Routine, call_any, goto, op
from virtviz.paths.vhost_user import GiveBack
from virtviz.ring.dpdk_device import PIECES_MAX
from virtviz.ring.rings import scatter
from virtviz.ring.verdicts import RETRIES, is_malformed
from virtviz.spec.citation import DPDK_VHOST, OVS_NETDEV_DPDK
from virtviz.spec.virtio import NUM_BUFFERS_OFFSET, VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.vhost_user import VhostUserQueue
    from virtviz.ring.verdicts import Problem

STATIC_TX_QID: Final = 1
"""Into which queue of a port a polling thread sends, modulo how many there are. Each thread has a number of its own for
that, and 0 is of the thread that does not poll (lib/dpif-netdev.c: pmd_alloc_static_tx_qid, create_dp_netdev)."""
RETRIES_MAX: Final = 8
"""How often a batch is tried again (VHOST_ENQ_RETRY_DEF)."""


class ChooseQueue(Routine):
    """Choose the queue of a port with several queue pairs: the thread's own, or another if that is switched off.

    Args:
        sends: by pair, in their order: name -> what puts a batch into its receive queue.

    Attributes:
        is_on: says of a pair, by its number from 0, whether it is in use.
    """

    def __init__(self, name: str, place: Place, sends: Mapping[str, Routine]) -> None:
        super().__init__(name, place)
        self.sends = sends
        self.is_on: Callable[[int], bool] = lambda _: True

    def words(self, me: Context) -> Mapping[str, object]:
        """Name what there is to choose from."""
        return {"queues": len(self.sends), "own": self._own + 1}

    @property
    def _own(self) -> int:
        return STATIC_TX_QID % len(self.sends)

    @op(
        "U-RX.4",
        "take the thread's own queue",
        "netdev_dpdk_vhost_send",
        OVS_NETDEV_DPDK,
        text=(
            "The port has {queues} queue pairs, and this thread always fills the receive queue of pair {own}: each "
            "polling thread has a queue of its own, so that none has to wait for another. While that pair is not in "
            "use, it is the first that is."
        ),
        to=call_any("sends", None),
        private=True,
    )
    def choose(self, me: Context) -> str:
        names, own = list(self.sends), self._own
        if self.is_on(own):
            return names[own]
        return names[next(filter(self.is_on, range(len(names))), own)]


class SendBatch(GiveBack):
    """Put the output batch of a port into the guest: netdev_dpdk_vhost_send, rows 4 to 10 of U-RX.

    Args:
        port: number of the switch's port, from 0.
    """

    first = "begin_send"
    links: Mapping[str, str] = {"given_back": "settle", "nothing_used": "settle"}
    rows: Mapping[str, str] = {"write": "U-RX.8", "publish": "U-RX.9", "decide": "U-RX.10"}

    def __init__(self, name: str, place: Place, queue: VhostUserQueue, call_guest: Routine, port: int) -> None:
        super().__init__(name, place, queue, call_guest)
        self.port = port
        self.pmd = queue.pmd

    def _mbuf(self) -> int:
        """Give the slot of the packet in hand."""
        return self.pmd.output(self.port)[self.q.cells.packet]

    @op(
        "U-RX.4",
        "send the batch into the guest",
        "netdev_dpdk_vhost_send",
        OVS_NETDEV_DPDK,
        text=(
            "{port} leads into a guest: its batch ({packets}) goes to the vhost library by a function call. No other "
            "thread takes part."
        ),
        private=True,
    )
    def begin_send(self, me: Context) -> None:
        queue = self.q.cells
        queue.burst = self.pmd.cells.waiting[self.port]
        queue.retries = queue.packet = queue.before = 0
        self.take(me)

    def take(self, me: Context) -> None:
        """Take the next packet of the batch in hand."""
        queue, pool = self.q.cells, self.q.pool
        me.skb = slot = self._mbuf()
        me.packet = pool.cells.packet[slot]
        queue.length = queue.missing = pool.cells.length[slot] + VIRTIO_NET_HDR_BYTES
        queue.first = queue.done
        queue.pieces = 0

    @op(
        "U-RX.5",
        "read avail.idx",
        "virtio_dev_rx_split",
        DPDK_VHOST,
        spec="2.7.13",
        text=(
            "avail.idx is {avail}, entry {next} is the next to be taken. It is read once for the whole batch: what the "
            "guest adds meanwhile is for the next one."
        ),
        milestone="backend-awake",
        cost="ring cold",
    )
    def read_avail_idx(self, me: Context) -> None:
        queue = self.q.cells
        if queue.done:
            queue.done = 0
        self.ring.available(self.q.size)
        self.take(me)

    @op(
        "U-RX.6",
        "read the head",
        "fill_vec_buf_split",
        DPDK_VHOST,
        spec="2.7.6",
        text={
            "head": "The available ring's slot says: head {head}.",
            "none": (
                "No further buffer is there, and {missing} bytes of this packet have no room: it is not delivered, and "
                "neither is what comes after it in the batch."
            ),
            RETRIES: "{wrong}",
        },
        to={"head": goto("read_desc"), "none": goto("write_used"), RETRIES: goto("write_used")},
        cost="ring cold",
    )
    def read_head(self, me: Context) -> str:
        if not self.another():
            self._let_go()
            return "none"
        answer = self.ring.begin()
        return self._stop(answer) if is_malformed(answer) else "head"

    def another(self) -> bool:
        """Say whether a further buffer is there."""
        return self.ring.waiting()

    def _let_go(self) -> None:
        """Take the buffers of the packet in hand as not taken."""
        queue = self.q.cells
        if queue.done > queue.first:
            self.ring.put_back(queue.heads[queue.first : queue.done])
            queue.done = queue.first

    def _stop(self, problem: Problem) -> str:
        self._let_go()
        return self.refuse(problem)

    @op(
        "U-RX.6",
        "read the descriptor",
        "fill_vec_buf_split",
        DPDK_VHOST,
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
                "The packet does not fit into this one buffer, and buffers cannot be merged: it is not delivered, and "
                "neither is what comes after it in the batch."
            ),
            RETRIES: "{wrong}",
        },
        to={
            "fits": goto("copy_packet"),
            "needs more": goto("read_head"),
            "next": goto("read_desc"),
            "indirect": goto("read_desc"),
            "too small": goto("write_used"),
            RETRIES: goto("write_used"),
        },
        cost="ring cold",
    )
    def read_desc(self, me: Context) -> str:
        self.begin_reading()
        answer = self.ring.read_desc()
        if is_malformed(answer):
            return self._stop(answer)
        return self._use_buffer() if answer == "last" else answer

    def _use_buffer(self) -> str:
        """Note the buffer just read for the packet in hand."""
        queue, at = self.q.cells, self.q.cells.done
        pieces = self.ring.pieces()
        # The chain just read is not noted yet.
        queue.done = at + 1
        if queue.pieces + len(pieces) > PIECES_MAX:
            return self._stop("too many pieces")
        room = 0
        for address, length in pieces:
            queue.piece_address[queue.pieces] = address
            queue.piece_length[queue.pieces] = length
            queue.pieces += 1
            room += length
        used = min(room, queue.missing)
        queue.heads[at], queue.written[at] = self.mine.head, used
        queue.missing -= used
        if not queue.missing:
            fits = queue.pieces > 1 or queue.piece_length[0] >= VIRTIO_NET_HDR_BYTES
            return "fits" if fits else self._stop("no room for the header")
        if self.q.mergeable and queue.done - queue.first < self.q.size - 1:
            if queue.done < self.q.size:
                return "needs more"
            return self._stop("too many buffers")
        self._let_go()
        return "too small"

    @op(
        "U-RX.7",
        "copy the packet into the guest",
        "mbuf_to_desc",
        DPDK_VHOST,
        spec="5.1.9.4",
        text=(
            "A virtio-net header is made in the guest's buffer, with the number of buffers if they can be merged, and "
            "the frame is copied behind it: {length} bytes."
        ),
        to={COPIED: goto("take_next")},
        size="length",
        milestone="in-guest-buffer",
    )
    def copy_packet(self, me: Context) -> str:
        queue, count = self.q.cells, self.q.cells.pieces
        pieces = list(zip(queue.piece_address[:count], queue.piece_length[:count], strict=True))
        header = bytearray(NUM_BUFFERS_OFFSET)
        frame = self.q.pool.data(me.skb)
        memory = self.ring.memory
        if self.q.mergeable:
            header += (queue.done - queue.first).to_bytes(2, "little")
            scatter(memory, pieces, header + frame)
        else:
            # The library leaves num_buffers as it is.
            scatter(memory, pieces, header)
            scatter(memory, pieces, frame, VIRTIO_NET_HDR_BYTES)
        for address, _ in pieces:
            self.q.guest_pool.note_packet(address, me.packet)
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand, header included."""
        return self.q.cells.length

    @op(
        "U-RX.7",
        "take the next packet",
        "virtio_dev_rx_split",
        DPDK_VHOST,
        text={
            "more": "Packet {packet} of {burst} is copied; on to the next.",
            "all": (
                "Packet {packet} of {burst} is copied: the whole batch is in the guest's buffers. It does not know yet."
            ),
            "no buffer": (
                "Packet {packet} of {burst} is copied; the batch's used elements fill the ring, so it is given back."
            ),
        },
        to={"more": goto("read_head"), "all": goto("write_used"), "no buffer": goto("write_used")},
        private=True,
    )
    def take_next(self, me: Context) -> str:
        queue = self.q.cells
        queue.packet = done = queue.packet + 1
        if done == queue.burst:
            return "all"
        if queue.done == self.q.size:
            return "no buffer"
        self.take(me)
        return "more"

    @op(
        "U-RX.4",
        {DROPPED: "drop what was not delivered", "again": "try again", "": "free the mbufs"},
        "netdev_dpdk_vhost_send",
        OVS_NETDEV_DPDK,
        text={
            "sent": "All of the batch was delivered: its mbufs are free again.",
            "again": (
                "Only {packet} of {burst} were delivered, but some were: the rest is tried again, time {retries} of at "
                "most 8. The thread does nothing else meanwhile."
            ),
            DROPPED: (
                "The guest has no buffer for this packet, and nobody waits for one: it is dropped here, and counted as "
                "tx_failure_drops of {port}."
            ),
        },
        to={"sent": RETURN, "again": goto("read_avail_idx"), DROPPED: goto("settle")},
        private=True,
    )
    def settle(self, me: Context) -> str:
        queue, pool = self.q.cells, self.q.pool
        if queue.packet < queue.burst:
            if queue.packet > queue.before and queue.retries < RETRIES_MAX:
                queue.retries += 1
                queue.before = queue.packet
                return "again"
            me.packet = pool.cells.packet[self._mbuf()]
            queue.packet = queue.before = queue.packet + 1
            queue.dropped += 1
            return DROPPED
        for slot in self.pmd.output(self.port):
            pool.release(slot)
        self.pmd.cells.waiting[self.port] = 0
        return "sent"
