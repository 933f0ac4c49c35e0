"""TCP data on its way down the guest's stack: one long packet, which the kernel cuts and finishes if the device cannot.

Rows 2 and 3 of block G-TX. The connection exists already, and no acknowledgement is waited for.

Source: Linux 6.12 net/ipv4/tcp.c (tcp_sendmsg_locked), net/ipv4/tcp_output.c, net/core/dev.c (validate_xmit_skb).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import COPIED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.guest_cpu import Waits
from virtviz.paths.guest_send import Sendmsg
from virtviz.paths.guest_stack import LARGE_TRUESIZE, SMALL_FRAME, SMALL_TRUESIZE, RunQueue, Socket
from virtviz.paths.offloads import FRAGMENT_BYTES, SEGMENTS_MAX, OffloadPool, fragments_of
from virtviz.paths.queues import Fifo
from virtviz.paths.virtio_add import AddBuffer
from virtviz.paths.virtio_xmit import StartXmit, StartXmitWithoutNapi
from virtviz.spec.citation import AF_INET, CORE_DEV, SOCK_H, TCP, TCP_OFFLOAD, TCP_OUTPUT, VIRTIO_NET
from virtviz.spec.frames import ETH_FRAME_MAX
from virtviz.spec.tcp import HEADER_BYTES, MSS, segments_of
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.guest_stack import TxQueue


def truesize(length: int) -> int:
    """Give what a packet is charged: a long one lies in pages of its own, besides its headers' buffer."""
    if length <= SMALL_FRAME:
        return SMALL_TRUESIZE
    return LARGE_TRUESIZE + (length if length > ETH_FRAME_MAX else 0)


class StreamSocket(Socket):
    """A socket whose packets may be longer than a frame."""

    def uncharge(self, length: int) -> None:
        """Give a freed packet's share back, and wake a waiting sender at half."""
        if length > ETH_FRAME_MAX:
            self.cells.charged -= length
        super().uncharge(length)


class SendmsgOrTcp(Sendmsg):
    """The way down for datagrams and for TCP data."""

    first = "choose_protocol"
    pool: OffloadPool

    @op(
        "G-TX.2",
        "call the socket's protocol",
        "inet_sendmsg",
        AF_INET,
        text={
            "stream": "It is a TCP socket: what the program hands over is data of a stream, no packet yet.",
            "datagram": "What the program hands over becomes one packet.",
        },
        to={"stream": goto("allocate_stream"), "datagram": goto("allocate")},
        private=True,
    )
    def choose_protocol(self, me: Context) -> str:
        return "stream" if self.program.traffic.items[self.program.cells.item].kind == "tcp" else "datagram"

    @op(
        "G-TX.2",
        "get a socket buffer",
        "tcp_stream_alloc_skb",
        TCP,
        text={
            "room": "The kernel takes a socket buffer. TCP makes one packet of up to 64 KiB; cutting it comes later.",
            "full": "The socket's send buffer is used up by packets still under way: the sender has to wait.",
        },
        to={"room": goto("copy_stream"), "full": call("idle", "allocate_stream")},
        private=True,
    )
    def allocate_stream(self, me: Context) -> str:
        mine, program, pool = self.socket.cells, self.program, self.pool
        if mine.charged >= self.socket.sndbuf:
            self.cpu.cells.waits = Waits.FOR_ROOM
            return "full"
        item = program.traffic.items[program.cells.item]
        length = program.contents[program.cells.item].length
        me.skb = skb = pool.take(me.packet, length)
        pool.cells.pieces[skb] = 1 + max(item.fragments, fragments_of(item.length))
        mine.charged += truesize(length)
        return "room"

    @op(
        "G-TX.2",
        "copy the data",
        "skb_copy_to_page_nocache",
        SOCK_H,
        text="The data is copied from the program's memory into pages of the socket: one copy, inside the guest.",
        to={COPIED: goto("add_tcp_headers")},
        size="copied_in",
        private=True,
    )
    def copy_stream(self, me: Context) -> str:
        return self.copy_from_user(me) or ""

    @op(
        "G-TX.3",
        "put the headers in front",
        "__tcp_transmit_skb",
        TCP_OUTPUT,
        text="One set of headers for {length} bytes; the checksum covers the pseudo header only. Frames: {frames}.",
        to=goto("enqueue"),
        private=True,
        cost="stack",
    )
    def add_tcp_headers(self, me: Context) -> None:
        self.add_headers(me)
        data = self.pool.cells.length[me.skb] - HEADER_BYTES
        self.pool.leave(me.skb, MSS if data > MSS else 0)

    def words(self, me: Context) -> Mapping[str, object]:
        """Give sizes."""
        words = super().words(me)
        length = self.pool.cells.length[me.skb] if me.skb else 0
        return {**words, "frames": segments_of(max(0, length - HEADER_BYTES))}


@cells
class ValidateCells(Cells):
    """What sending a packet's frames one by one keeps: whether another packet follows the last of them."""

    more_after: int = 0


class ValidateXmit(Routine):
    """Do to a packet what the device cannot, then hand it to the driver: validate_xmit_skb, sch_direct_xmit.

    Args:
        csum: the device finishes checksums, and takes packets in several pieces.
        tso: the device cuts packets.
        start_xmit: the driver.

    Attributes:
        waiting: frames cut off and not yet handed over (gso_skb of the queueing discipline, where the driver stopped).
    """

    def __init__(
        self,
        state: State,
        name: str,
        place: Place,
        queue: TxQueue,
        socket: Socket,
        pool: OffloadPool,
        start_xmit: Routine,
        *,
        csum: bool,
        tso: bool,
    ) -> None:
        super().__init__(name, place)
        self.cells = state.add(ValidateCells, name)
        self.tx = queue
        self.socket = socket
        self.pool = pool
        self.start_xmit = start_xmit
        self.csum = csum
        self.tso = tso
        self.waiting = Fifo(state, f"{name}.frames", SEGMENTS_MAX)

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the frames that wait."""
        return {"waiting": len(self.waiting)}

    @op(
        "G-TX.3",
        "see what the device cannot do",
        "validate_xmit_skb",
        CORE_DEV,
        text={
            "nothing": "The device can do all that is still to be done to this packet, if anything is.",
            "checksum": "The device finishes no checksums: the kernel has to.",
            "cut": "The device does not cut packets: the kernel has to (software GSO).",
            "go on": "Frames of a packet that was cut wait for the driver: they come first.",
        },
        to={
            "nothing": call("start_xmit", None),
            "checksum": goto("finish_checksum"),
            "cut": goto("cut"),
            "go on": goto("next_frame"),
        },
        private=True,
    )
    def validate(self, me: Context) -> str:
        if self.waiting:
            return "go on"
        todo = self.pool.todo
        if todo.gso_size[me.skb] and not self.tso:
            return "cut"
        return "checksum" if todo.unfinished[me.skb] and not self.csum else "nothing"

    @op(
        "G-TX.3",
        "finish the checksum",
        "skb_checksum_help",
        CORE_DEV,
        text=(
            "Without csum the device takes no scattered packets: the data is copied to its headers. Then the vCPU sums "
            "it up for the TCP header."
        ),
        to={COPIED: call("start_xmit", None)},
        size="data_bytes",
        private=True,
    )
    def finish_checksum(self, me: Context) -> str:
        self.pool.finish(me.skb)
        self.pool.cells.pieces[me.skb] = 1
        return COPIED

    def data_bytes(self, me: Context) -> int:
        """Give the bytes of data of the packet in hand."""
        return self.pool.cells.length[me.skb] - HEADER_BYTES

    @op(
        "G-TX.3",
        "cut the packet",
        "tcp_gso_segment",
        TCP_OFFLOAD,
        text={
            COPIED: (
                "{waiting} frames, with headers and checksum each. Without csum the device takes no scattered packets: "
                "the data is copied once more."
            ),
            "shared": "{waiting} frames, with headers each. Their data stays where it is: the device gathers it.",
        },
        to={COPIED: goto("next_frame"), "shared": goto("next_frame")},
        size="copied",
        private=True,
        cost="stack",
    )
    def cut(self, me: Context) -> str:
        pool, charged = self.pool, self.socket.cells
        whole = truesize(pool.cells.length[me.skb])
        frames = pool.cut(me.skb, share=self.csum, finish=not self.csum)
        for frame in frames:
            self.waiting.put(frame)
        me.skb = 0
        charged.charged += sum(truesize(pool.cells.length[frame]) for frame in frames) - whole
        self.cells.more_after = self.tx.cells.more
        return "shared" if self.csum else COPIED

    def copied(self, me: Context) -> int:
        """Give the bytes copied: the data of all frames."""
        slots, lengths = self.waiting, self.pool.cells.length
        return sum(lengths[slots.entry(i)] - HEADER_BYTES for i in range(len(slots)))

    @op(
        "G-TX.3",
        {"frame": "hand over the next frame", "": "end the list of frames"},
        "dev_hard_start_xmit",
        CORE_DEV,
        text={
            "frame": "The next frame goes to the driver, which hears that more follow. Still waiting: {waiting}.",
            "stopped": "The driver has stopped its queue: {waiting} frames wait until it goes on.",
            "all": "All frames have gone to the driver.",
        },
        to={"frame": call("start_xmit", "next_frame"), "stopped": RETURN, "all": RETURN},
        private=True,
    )
    def next_frame(self, me: Context) -> str:
        mine = self.tx.cells
        if not self.waiting:
            return "all"
        if mine.driver_off:
            return "stopped"
        me.skb = skb = self.waiting.take()
        me.packet = self.pool.cells.packet[skb]
        more = 1 if self.waiting else self.cells.more_after
        if mine.more != more:
            mine.more = more
        return "frame"


class RunQueueOfFrames(RunQueue):
    """Send what waits, the frames of a packet that was cut half-way first."""

    start_xmit: ValidateXmit

    def dequeue(self, me: Context) -> str:
        """Take frames that wait for the driver, or the next packet."""
        if self.start_xmit.waiting and not self.tx.cells.driver_off:
            me.skb = 0
            return "next"
        return super().dequeue(me) or ""


class AddPieces(AddBuffer):
    """Put one packet into the ring: header and headers in one piece, data in the pieces of memory that it lies in."""

    def segments(self, slot: int) -> list[tuple[int, int]]:
        """Give the pieces of a packet with its header in front."""
        pool = self.q.pool
        assert isinstance(pool, OffloadPool)
        todo, count = pool.todo, pool.cells.pieces[slot]
        if not todo.unfinished[slot]:
            return super().segments(slot)
        first = (pool.at[slot] - VIRTIO_NET_HDR_BYTES, VIRTIO_NET_HDR_BYTES + HEADER_BYTES)
        parent, at, length = todo.parent[slot], pool.at[slot] + HEADER_BYTES, pool.cells.length[slot] - HEADER_BYTES
        if parent:
            at, length = pool.shared_data(slot)
        # Borders are where the pages of the socket end; what a scenario scatters further lies in equal pieces.
        in_pages = parent or count - 1 == fragments_of(length)
        share = FRAGMENT_BYTES if in_pages else -(-length // (count - 1))
        pieces, left, room = [first], length, share - (todo.data_at[slot] % share if parent else 0)
        for _ in range(count - 1):
            part = min(room, left)
            pieces.append((at, part))
            at, left, room = at + part, left - part, share
        return pieces


_HEADER_TEXT = {
    "plain": "12 bytes go in front of the frame: no checksum to finish, no segmentation, num_buffers 0.",
    "checksum": "12 bytes go in front: NEEDS_CSUM, from byte 34 on, stored 16 behind that: the device's to finish.",
    "cut": "12 bytes go in front: GSO_TCPV4, {mss} bytes of data a frame, headers of 66 bytes, NEEDS_CSUM.",
}


def _fill_header(routine: StartXmit | StartXmitWithoutNapi, me: Context) -> str:
    pool = routine.q.pool
    assert isinstance(pool, OffloadPool)
    pool.memory.write(pool.at[me.skb] - VIRTIO_NET_HDR_BYTES, pool.header(me.skb))
    if not pool.todo.unfinished[me.skb]:
        return "plain"
    return "cut" if pool.todo.gso_size[me.skb] else "checksum"


class StartXmitAsking(StartXmit):
    """Send one packet, with a header that asks the device for what is left to do."""

    @op(
        "G-TX.7",
        "fill in the virtio-net header",
        "xmit_skb",
        VIRTIO_NET,
        spec="5.1.9.2",
        text=_HEADER_TEXT,
        to={asked: call("add", "stop_if_full") for asked in _HEADER_TEXT},
    )
    def fill_header(self, me: Context) -> str:
        return _fill_header(self, me)

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the bytes of data of a frame, too."""
        return {**super().words(me), "mss": MSS}


class StartXmitAskingWithoutNapi(StartXmitWithoutNapi):
    """The same with napi_tx=0."""

    @op(
        "G-TX.7",
        "fill in the virtio-net header",
        "xmit_skb",
        VIRTIO_NET,
        spec="5.1.9.2",
        text=_HEADER_TEXT,
        to={asked: call("add", "give_up") for asked in _HEADER_TEXT},
    )
    def fill_header(self, me: Context) -> str:
        self.packet_in_hand(me)
        return _fill_header(self, me)

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the bytes of data of a frame, too."""
        return {**super().words(me), "mss": MSS}
