"""A vhost-user port of OVS-DPDK, from the guest: DPDK's vhost library takes a burst out of the transmit queue.

Rows 2 to 8 of block U-TX. The buffers go back to the guest before anything is done with the packets, because they were
copied. What the switch does with them is in `dpif_netdev.py`, the way into the guest in `vhost_user_send.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import COPIED, DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.pmd import BURST
from virtviz.paths.ring_words import dpdk_words_of
from virtviz.ring.dpdk_device import PIECES_MAX
from virtviz.ring.verdicts import NAMES, RETRIES, UNSENT, is_malformed, judge, tell
from virtviz.spec.citation import DPDK_VHOST, DPDK_VHOST_H
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.pmd import Pmd
    from virtviz.ring.rings import DpdkRing
    from virtviz.ring.verdicts import Problem, Verdict


@cells
class VhostUserCells(Cells):
    """What the library and OVS keep for one queue of a port.

    Attributes:
        burst: packets this burst is about: entries to take from the guest, or packets to put into it.
        packet: which of them is in hand.
        before: how many of them were dealt with before the last try.
        done: buffers used and not yet given back.
        first: the first of them that the packet in hand has taken.
        length: bytes of the packet in hand, header included.
        missing: bytes for which no room has been found yet.
        retries: how often this batch was tried again.
        dropped: packets dropped because the guest had no buffers.
        oversized: packets from the guest that were too long for any mbuf.
        errors: buffers found impossible.
        goes_on: 1 while what is noted is returned in the middle of a batch; only over packed rings it is.
        problem: place in the table of verdicts, from 1, of the last state not let pass.
        heads, written: heads of the buffers used, and the bytes written into each.
        piece_address, piece_length: where the packet in hand goes; `pieces` of them.
    """

    burst: int = 0
    packet: int = 0
    before: int = 0
    done: int = 0
    first: int = 0
    pieces: int = 0
    length: int = 0
    missing: int = 0
    retries: int = 0
    dropped: int = 0
    oversized: int = 0
    errors: int = 0
    goes_on: int = 0
    problem: int = 0
    heads: list[int]
    written: list[int]
    piece_address: list[int]
    piece_length: list[int]


class VhostUserQueue:
    """One queue of a vhost-user port.

    Args:
        state: where its cells are made.
        name: the port's, such as `vhost-user0`.
        direction: `tx` for what the guest sends, `rx` for what it receives.
        ring_name: the virtqueue's name.
        ring: the device's side of it.
        guest_pool: the guest's packets, or its receive buffers.
        pool: the host's packet memory: mbufs in huge pages.
        pmd: the thread that polls it.
        mergeable: MRG_RXBUF was negotiated.
    """

    def __init__(
        self,
        state: State,
        name: str,
        direction: str,
        ring_name: str,
        ring: DpdkRing,
        guest_pool: PacketPool,
        pool: PacketPool,
        pmd: Pmd,
        *,
        mergeable: bool,
    ) -> None:
        self.name = name
        self.ring_name = ring_name
        self.ring = ring
        self.guest_pool = guest_pool
        self.pool = pool
        self.pmd = pmd
        self.mergeable = mergeable
        self.size = size = ring.layout.size
        self.cells = state.add(
            VhostUserCells,
            f"{name}.{direction}",
            heads=[0] * size,
            written=[0] * size,
            piece_address=[0] * PIECES_MAX,
            piece_length=[0] * PIECES_MAX,
        )

    def has_something(self) -> bool:
        """Say whether a poll would find an entry that can be taken."""
        return self.ring.has_something()

    def next_packet(self) -> int:
        """Give the number of the packet that the next buffer belongs to; 0 if unknown. For people only."""
        return self.guest_pool.packet_at(self.ring.peek_next_address())


class VhostUserRoutine(Routine):
    """A routine that works on one queue of a vhost-user port, and says what is wrong with a ring."""

    def __init__(self, name: str, place: Place, queue: VhostUserQueue) -> None:
        super().__init__(name, place, queue.ring_name)
        self.q = queue
        self.ring = queue.ring
        self.mine = queue.ring.cells

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the texts speak of."""
        queue = self.q.cells
        return {
            **dpdk_words_of(self.ring),
            "port": self.q.name,
            "count": queue.done,
            "buffers": f"{queue.done} buffer{'s' * (queue.done != 1)}",
            "burst": queue.burst,
            "packets": f"{queue.burst} packet{'s' * (queue.burst != 1)}",
            "packet": queue.packet,
            "length": queue.length,
            "missing": queue.missing,
            "retries": queue.retries,
            "wrong": self._said(queue.problem),
            "passed": self._said_of_passed(),
        }

    def _said(self, number: int, *, refused: bool = True) -> str:
        """Say the verdict on the state of that number; empty for 0."""
        return tell(self.judge(NAMES[number - 1], refused=refused)) if number else ""

    def _said_of_passed(self) -> str:
        said = self._said(self.mine.overlooked, refused=False)
        return f" {said}" if said else ""

    def judge(self, problem: Problem, *, refused: bool = True) -> Verdict:
        """Make the verdict on a malformed state."""
        return judge(problem, "dpdk", refused=refused)

    def refuse(self, problem: Problem) -> str:
        """Note a malformed state; answers the verdict."""
        queue = self.q.cells
        queue.errors += 1
        queue.problem = NAMES.index(problem) + 1
        return self.judge(problem).what

    def begin_reading(self) -> None:
        """Forget what the step before let pass."""
        if self.mine.overlooked:
            self.mine.overlooked = 0


class GiveBack(VhostUserRoutine):
    """Return a burst's buffers: used elements, used.idx, and a call if the guest wants one.

    Rows 6 to 8 of U-TX, or 8 to 10 of U-RX. A subclass has the ops before.

    Args:
        call_guest: write() to the call eventfd.
    """

    after: Routine
    """What comes after, where the routine does not go on itself."""

    def __init__(self, name: str, place: Place, queue: VhostUserQueue, call_guest: Routine) -> None:
        super().__init__(name, place, queue)
        self.call_guest = call_guest

    @op(
        "write",
        "write the used elements",
        "flush_shadow_used_ring_split",
        DPDK_VHOST,
        spec="2.7.8",
        text={
            "written": (
                "What this burst used, {buffers}, goes into the used ring in one piece. Still invisible: "
                "used.idx has not moved."
            ),
            "nothing": "No buffer was used: there is nothing to give back.",
        },
        to={"written": goto("publish_used_idx"), "nothing": goto("nothing_used")},
    )
    def write_used(self, me: Context) -> str:
        queue = self.q.cells
        if not queue.done:
            return "nothing"
        self.ring.write_used(queue.heads[: queue.done], queue.written[: queue.done])
        return "written"

    @op(
        "publish",
        "publish used.idx",
        "flush_shadow_used_ring_split",
        DPDK_VHOST,
        spec="2.7.8.2",
        text="One addition makes the burst visible: used.idx = {used}. The guest has {buffers} back.",
        milestone="used",
    )
    def publish_used_idx(self, me: Context) -> None:
        self.ring.publish()

    @op(
        "decide",
        "full barrier",
        "vhost_vring_call_split",
        DPDK_VHOST_H,
        spec="2.7.7.2",
        text=(
            "used.idx must be visible before the library reads whether the guest wants a call. On x86 the addition was "
            "locked and saw to it; on other processors only this fence does."
        ),
        fence=True,
        cost="barrier",
    )
    def mb_before_call_check(self, me: Context) -> None: ...

    @op(
        "decide",
        "ask whether a call is wanted",
        "vhost_vring_call_split",
        DPDK_VHOST_H,
        spec="2.7.7.2",
        text={
            "call": (
                "By its {wish}, the guest wants to hear of what was just published: a process has to ask the kernel "
                "for that, by write() to the call eventfd."
            ),
            "unasked": (
                "It is the first time since the set-up: the library does not compare the guest's {wish} with anything "
                "yet, and calls, by write() to the call eventfd."
            ),
            "no call": "By its {wish}, the guest need not hear of what was just published: no system call.",
        },
        to={
            "call": call("call_guest", "given_back"),
            "unasked": call("call_guest", "given_back"),
            "no call": goto("given_back"),
        },
        cost="ring cold",
        cause="system call",
    )
    def check_call(self, me: Context) -> str:
        unasked = self.ring.calls_unasked()
        wanted = self.ring.interrupt_wanted()
        return "unasked" if unasked else "call" if wanted else "no call"


class DequeueBurst(GiveBack):
    """Take a burst out of a guest's transmit queue: rte_vhost_dequeue_burst, rows 2 to 8 of U-TX.

    Args:
        process: what is done with the packets afterwards.
    """

    first = "read_avail_idx"
    links: Mapping[str, str] = {"given_back": "process", "nothing_used": ""}
    rows: Mapping[str, str] = {"write": "U-TX.6", "publish": "U-TX.7", "decide": "U-TX.8"}

    def __init__(self, name: str, place: Place, queue: VhostUserQueue, call_guest: Routine, process: Routine) -> None:
        super().__init__(name, place, queue, call_guest)
        self.process = process
        self.pmd = queue.pmd
        self._size = queue.guest_pool.memory.size

    @op(
        "U-TX.2",
        "read avail.idx",
        "virtio_dev_tx_split",
        DPDK_VHOST,
        spec="2.7.13",
        text={
            "new": (
                "avail.idx is {avail}, entry {next} is the next to be taken: {burst} of at most 32 will be taken in "
                "this burst. avail.idx is read once for all of them."
            ),
            "empty": "avail.idx is still {avail}: the guest has sent nothing.",
        },
        to={"new": goto("read_head"), "empty": RETURN},
        cost="ring cold",
    )
    def read_avail_idx(self, me: Context) -> str:
        queue = self.q.cells
        entries = self.ring.available(BURST)
        self.pmd.begin_burst()
        if not entries:
            return "empty"
        queue.burst = entries
        if queue.packet:
            queue.packet = 0
        if queue.done:
            queue.done = 0
        return "new"

    @op(
        "U-TX.3",
        "read the head",
        "fill_vec_buf_split",
        DPDK_VHOST,
        spec="2.7.6",
        text={"head": "The available ring's slot says: head {head}.", RETRIES: "{wrong}"},
        to={"head": goto("read_desc"), RETRIES: goto("write_used")},
        cost="ring cold",
    )
    def read_head(self, me: Context) -> str:
        answer = self.ring.begin()
        if is_malformed(answer):
            return self.stay(answer)
        if me.observed:
            me.packet = self.q.next_packet()
        return "head"

    def stay(self, problem: Problem) -> str:
        """End the burst at an entry that leads nowhere."""
        self.ring.give_up()
        return self.refuse(problem)

    @op(
        "U-TX.4",
        "read the descriptor",
        "fill_vec_buf_split",
        DPDK_VHOST,
        spec="2.7.5",
        text={
            "last": (
                "The descriptor gives a guest-physical address and a length. The guest's memory is mapped into this "
                "process: the library adds an offset, and asks nobody.{passed}"
            ),
            "next": "The descriptor gives a piece of the buffer; the chain goes on.{passed}",
            "indirect": "The descriptor refers to a table: the buffer's pieces are described there.{passed}",
            RETRIES: "{wrong}",
        },
        to={
            "last": goto("copy_packet"),
            "next": goto("read_desc"),
            "indirect": goto("read_desc"),
            RETRIES: goto("write_used"),
        },
        cost="ring cold",
        milestone={"last": "fetched"},
    )
    def read_desc(self, me: Context) -> str:
        self.begin_reading()
        answer = self.ring.read_desc()
        return self.stay(answer) if is_malformed(answer) else answer

    @op(
        "U-TX.5",
        "copy the packet into an mbuf",
        "desc_to_mbuf",
        DPDK_VHOST,
        spec="5.1.9.2",
        text={
            COPIED: (
                "The frame, {length} bytes with its header, is copied from guest memory into an mbuf in huge pages. It "
                "is the only copy on the host."
            ),
            UNSENT: "{wrong}",
            DROPPED: (
                "The frame, {length} bytes with its header, is longer than an mbuf has room for: it is dropped, and "
                "its buffer goes back."
            ),
        },
        to={COPIED: goto("note_used"), UNSENT: goto("write_used"), DROPPED: goto("write_used")},
        size="length",
    )
    def copy_packet(self, me: Context) -> str:
        queue, ring, pool = self.q.cells, self.ring, self.q.pool
        queue.heads[queue.done], queue.written[queue.done] = self.mine.head, 0
        queue.done += 1
        pieces = ring.pieces()
        queue.length = length = sum(size for _, size in pieces)
        if length <= VIRTIO_NET_HDR_BYTES:
            return self.refuse("nothing to send" if length == VIRTIO_NET_HDR_BYTES else "header incomplete")
        frame_bytes = length - VIRTIO_NET_HDR_BYTES
        if frame_bytes > pool.longest:
            queue.oversized += 1
            return DROPPED
        me.packet = packet = self.q.guest_pool.packet_at(pieces[0][0])
        memory = ring.memory
        data = bytearray().join(memory.read(address, size) for address, size in pieces)
        slot = pool.take(packet)
        pool.fill(slot, data[VIRTIO_NET_HDR_BYTES:])
        self.pmd.receive(slot)
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand, header included."""
        return self.q.cells.length

    @op(
        "U-TX.5",
        "note the buffer as used",
        "update_shadow_used_ring_split",
        DPDK_VHOST,
        text={
            "more": "Packet {packet} of {burst} is copied, its head noted in the library's own list. On to the next.",
            "all": "Packet {packet} of {burst} is copied, the last of this burst, and its head noted.",
        },
        to={"more": goto("read_head"), "all": goto("write_used")},
        private=True,
    )
    def note_used(self, me: Context) -> str:
        queue = self.q.cells
        queue.packet = done = queue.packet + 1
        return "more" if done < queue.burst else "all"
