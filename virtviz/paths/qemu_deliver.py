"""QEMU puts a frame from the TAP into the guest's buffers: rows 3 to 10 of block Q-RX.

The frame lies in QEMU's memory already; this copies it once more. If the guest has no buffer for it, it stays where it
is.

Source: QEMU 10.0 hw/net/virtio-net.c (virtio_net_receive_rcu, virtio_net_has_buffers, receive_filter).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from virtviz.engine.effects import COPIED, DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.qemu_nic import HEADS
from virtviz.paths.qemu_used import TellingRoutine
from virtviz.ring.rings import scatter
from virtviz.ring.verdicts import NAMES, RESET, is_malformed
from virtviz.spec.citation import QEMU_VIRTIO, QEMU_VIRTIO_NET
from virtviz.spec.virtio import NUM_BUFFERS_OFFSET, VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.qemu_checks import VirtioError
    from virtviz.paths.qemu_nic import Nic
    from virtviz.ring.verdicts import Problem

NUM_BUFFERS_BYTES: Final = 2
NOWHERE: Final = (1 << 62) - 1
"""An address at which no memory is."""
OF_THE_NIC: Final = frozenset(
    NAMES.index(problem) + 1 for problem in ("nothing writable", "too many buffers", "ring ran dry")
)
"""States that virtio-net itself finds, where the ring has nothing against the buffer."""
TAKEN_ALL_THE_SAME: Final = NAMES.index("too many buffers") + 1
"""After this error QEMU takes the frame for received; after others, for failed."""


def _address_of(offset: int, pieces: Sequence[tuple[int, int]]) -> int:
    """Give the address of a byte of a buffer that lies in pieces; `NOWHERE` if the buffer is too short."""
    left = offset
    for address, length in pieces:
        if left < length:
            return address + left
        left -= length
    return NOWHERE


class Deliver(TellingRoutine):
    """Put the frame in hand into the guest's buffers, or keep it: virtio_net_receive_rcu. Rows 3 to 10 of Q-RX.

    Args:
        interrupt: what makes the queue's interrupt.
        error: what is done about a malformed ring.
    """

    first = "find_buffers"
    rows = MappingProxyType({"tell": "Q-RX.10"})

    def __init__(self, name: str, place: Place, nic: Nic, interrupt: Routine, error: VirtioError) -> None:
        super().__init__(name, place, nic, nic.rx_name, nic.rx, error)
        self.interrupt = interrupt

    def length(self, me: Context) -> int:
        """Give the bytes of the frame in hand, header included."""
        return self.nic.kept_length()

    @op(
        "Q-RX.3",
        "see whether there are buffers",
        "virtio_net_has_buffers",
        QEMU_VIRTIO_NET,
        spec="5.1.9.3",
        text={
            "room": "Buffers are on offer: avail.idx is {avail}, and entry {next} is the next to be taken.{passed}",
            "too little": "The buffers on offer cannot hold the frame: avail.idx is {avail}.",
            RESET: "{wrong}",
        },
        to={
            "room": goto("disable_kicks"),
            "too little": goto("enable_kicks"),
            RESET: call("error", "enable_kicks"),
        },
        cost="ring cold",
    )
    def find_buffers(self, me: Context) -> str:
        nic = self.nic
        self.forget_overlooked()
        # A broken device's queue counts as empty, and buffers of an empty queue are counted.
        found = self.ring.room(self.length(me)) if nic.mergeable or nic.cells.broken else self.ring.find()
        if found in ("enough", "known", "new"):
            return "room"
        return self.refuse(found) if is_malformed(found) else "too little"

    @op(
        "Q-RX.3",
        "ask for a kick",
        "virtio_queue_set_notification",
        QEMU_VIRTIO,
        spec="2.7.10",
        text="Without buffers nothing can be delivered: QEMU asks {kicks}.",
    )
    def enable_kicks(self, me: Context) -> None:
        self.nic.cells.seen = self.ring.mark()
        self.ring.enable_kicks()

    @op(
        "Q-RX.3",
        "full barrier",
        "virtio_queue_set_notification",
        QEMU_VIRTIO,
        spec="2.7.10",
        text="The wish must be visible before avail.idx is read again.",
        fence=True,
        cost="barrier",
    )
    def mb_before_refill_recheck(self, me: Context) -> None: ...

    @op(
        "Q-RX.3",
        "look at avail.idx again",
        "virtio_queue_enable_notification_and_check",
        QEMU_VIRTIO,
        spec="2.7.10",
        text={
            "more": "The guest slipped buffers in meanwhile: they are counted again.",
            "still too little": "Nothing came: the frame stays in QEMU's memory until the guest kicks.",
        },
        to={"more": goto("find_buffers"), "still too little": RETURN},
        cost="ring cold",
    )
    def recheck(self, me: Context) -> str:
        nic = self.nic.cells
        # Buffers of a broken device are not looked for (virtio_queue_poll).
        return "more" if self.ring.more_since(nic.seen) and not nic.broken else "still too little"

    @op(
        "Q-RX.3",
        "ask for no kicks",
        "virtio_queue_set_notification",
        QEMU_VIRTIO,
        spec="2.7.10",
        text={
            "written": "used.flags says NO_NOTIFY: the guest need not kick when it refills the queue.",
            "nothing": "With event indices nothing is written: kicks for refills are unwanted, and stay so.",
        },
        to={"written": goto("ask_filter"), "nothing": goto("ask_filter")},
    )
    def disable_kicks(self, me: Context) -> str:
        return "written" if self.ring.disable_kicks() else "nothing"

    @op(
        "Q-RX.4",
        "ask whom the frame is for",
        "receive_filter",
        QEMU_VIRTIO_NET,
        text={
            "for this guest": "The device looks at the address the frame is for, as a network card would: it is taken.",
            DROPPED: "The frame is for another address than this device's: it is dropped here.",
        },
        to={"for this guest": goto("read_head"), DROPPED: RETURN},
    )
    def ask_filter(self, me: Context) -> str:
        nic, mine = self.nic, self.nic.cells
        mine.copied = mine.taken = 0
        target = nic.kept()[VIRTIO_NET_HDR_BYTES:][: len(nic.mac)]
        # A group's frames are taken as ones the guest has asked for.
        if target[0] & 1 or target == nic.mac:
            return "for this guest"
        mine.filtered += 1
        self._done_with_frame()
        return DROPPED

    def _done_with_frame(self) -> None:
        mine = self.nic.cells
        self.nic.memory.release(mine.frame)
        mine.frame = 0

    @op(
        "Q-RX.5",
        "read the head",
        "virtqueue_get_head",
        QEMU_VIRTIO,
        spec="2.7.6",
        text={
            "head": "The available ring's slot says: head {head}.{moves}{passed}",
            DROPPED: "virtqueue_pop() gives no buffer: the ring is empty, or the device broken. The frame is lost.",
            RESET: "{wrong}",
        },
        to={"head": goto("read_desc"), DROPPED: RETURN, RESET: call("error", "after_error")},
        cost="ring cold",
    )
    def read_head(self, me: Context) -> str:
        self.forget_overlooked()
        nic = self.nic.cells
        if nic.taken >= HEADS:
            return self.refuse("too many buffers")
        if nic.broken or self.ring.find() == "empty":
            if nic.taken:
                return self.refuse("ring ran dry")
            self._lose()
            return DROPPED
        answer = self.ring.begin()
        if answer != "head":
            return self.refuse(answer)
        self.ring.move_kick_event()
        return "head"

    def _lose(self) -> None:
        """Lose the frame in hand: QEMU's device answers -1 for it."""
        mine = self.nic.cells
        mine.lost += 1
        mine.got = 0
        self._done_with_frame()

    @op(
        "Q-RX.5",
        "give up the frame",
        "virtio_net_receive_rcu",
        QEMU_VIRTIO_NET,
        text={
            DROPPED: "The frame is lost. Buffers that were taken for it are never returned: the driver waits in vain.",
            RESET: "{wrong}",
        },
        to={DROPPED: RETURN, RESET: call("error", "after_error")},
    )
    def after_error(self, me: Context) -> str:
        mine = self.nic.cells
        if mine.taken and mine.problem not in OF_THE_NIC:
            return self.refuse("ring ran dry")
        if mine.taken:
            self.ring.let_go(mine.heads[: mine.taken])
        mine.taken = 0
        got = mine.got
        self._lose()
        if mine.problem == TAKEN_ALL_THE_SAME:
            mine.got = got
        return DROPPED

    @op(
        "Q-RX.5",
        "read the descriptor",
        "virtqueue_map_desc",
        QEMU_VIRTIO,
        spec="5.1.9.3",
        text={
            "last": "The descriptor names an empty buffer; QEMU turns its address into a pointer.{passed}",
            "next": "The descriptor gives a piece of the buffer; the chain goes on.{passed}",
            "indirect": "The descriptor refers to a table: the buffer's pieces are described there.{passed}",
            RESET: "{wrong}",
        },
        to={
            "last": goto("copy_packet"),
            "next": goto("read_desc"),
            "indirect": goto("read_desc"),
            RESET: call("error", "after_error"),
        },
        cost="ring cold",
    )
    def read_desc(self, me: Context) -> str:
        self.forget_overlooked()
        answer = self.ring.read_desc()
        if answer in ("next", "indirect"):
            return answer
        problem: Problem | None = answer if is_malformed(answer) else None
        if problem is None and not self.mine.writable:
            # What was taken is let go, and never returned to the guest (virtqueue_detach_element).
            self.ring.let_go([self.mine.head])
            problem = "nothing writable"
        if problem:
            return self.refuse(problem)
        if self.mine.readable:
            self.let_pass("readable while receiving")
        return "last"

    @op(
        "Q-RX.6",
        {DROPPED: "throw the packet away", "": "copy the packet into the guest"},
        "virtio_net_receive_rcu",
        QEMU_VIRTIO_NET,
        spec="5.1.9.4",
        text={
            COPIED: (
                "QEMU copies header and frame, {length} bytes, from its own memory into the guest's: the second copy, "
                "where vhost-net needs only one."
            ),
            "buffer full": (
                "The buffer is full before the packet ends: another one is taken, as mergeable buffers allow. The copy "
                "goes on there.{passed}"
            ),
            DROPPED: "The frame does not fit into this one buffer, and buffers cannot be merged: it is thrown away.",
        },
        to={COPIED: goto("write_num_buffers"), "buffer full": goto("read_head"), DROPPED: RETURN},
        size="length",
        milestone={COPIED: "in-guest-buffer"},
    )
    def copy_packet(self, me: Context) -> str:
        nic, mine = self.nic, self.nic.cells
        self.forget_overlooked()
        data = nic.kept()
        start = mine.copied
        pieces = self.ring.pieces()[self.mine.readable :]
        at = start + scatter(self.ring.memory, pieces, data[start:])
        if at < VIRTIO_NET_HDR_BYTES:
            # QEMU goes on as if the header had been written whole.
            self.let_pass("no room for the header")
            at = VIRTIO_NET_HDR_BYTES
        for address, _ in pieces:
            nic.buffers.note_packet(address, me.packet)
        if at < len(data) and not nic.mergeable:
            self.ring.put_back([self.mine.head])
            mine.discarded += 1
            self._done_with_frame()
            return DROPPED
        if not mine.taken:
            mine.at = _address_of(NUM_BUFFERS_OFFSET, pieces)
        mine.heads[mine.taken] = self.mine.head
        mine.written[mine.taken] = at - start
        mine.taken += 1
        mine.copied = at
        return COPIED if at == len(data) else "buffer full"

    @op(
        "Q-RX.7",
        "write num_buffers",
        "virtio_net_receive_rcu",
        QEMU_VIRTIO_NET,
        spec="5.1.9.4",
        text={
            "written": "Only now QEMU knows how many buffers the packet took, {taken}, and writes it into the header.",
            "nothing": "Buffers are not merged on this queue, so there is no number of buffers to fill in.",
        },
        to={"written": goto("write_used"), "nothing": goto("write_used")},
    )
    def write_num_buffers(self, me: Context) -> str:
        if not self.nic.mergeable:
            return "nothing"
        mine = self.nic.cells
        if self.ring.memory.holds(mine.at, NUM_BUFFERS_BYTES):
            self.ring.memory.write(mine.at, mine.taken.to_bytes(NUM_BUFFERS_BYTES, "little"))
        return "written"

    @op(
        "Q-RX.8",
        "write the used elements",
        "virtqueue_split_fill",
        QEMU_VIRTIO,
        spec="2.7.8",
        text="Each buffer's head and the bytes written into it go into the used ring. Still invisible.",
    )
    def write_used(self, me: Context) -> None:
        mine = self.nic.cells
        self.ring.write_used(mine.heads[: mine.taken], mine.written[: mine.taken])

    @op(
        "Q-RX.9",
        "publish used.idx",
        "virtqueue_split_flush",
        QEMU_VIRTIO,
        spec="2.7.8.2",
        text="One store makes the packet's buffers visible: used.idx = {used}.",
        to=goto("tell"),
        milestone="used",
    )
    def publish_used_idx(self, me: Context) -> None:
        self.ring.publish()
        self._done_with_frame()
