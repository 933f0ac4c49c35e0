"""Packets whose checksum is unfinished or that are still to be cut, and the virtio-net header that says so.

A packet that is cut with scatter-gather shares its data with the frames cut off: each has headers of its own, and its
data stays where it was until the last of them is freed.

Source: virtio 1.4, 5.1.6 and 5.1.9.2; Linux include/linux/virtio_net.h (virtio_net_hdr_from_skb,
virtio_net_hdr_to_skb), net/core/skbuff.c (skb_segment), net/ipv4/tcp_offload.c (tcp_gso_segment).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.paths.packets import TABLE_BYTES, PacketPool
from virtviz.spec.frames import ETH_HEADER_BYTES, ETHERTYPE_IPV4, PROTO_TCP
from virtviz.spec.tcp import CSUM_OFFSET, CSUM_START, HEADER_BYTES, finished, frames_of, segment_headers
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from virtviz.engine.memory import Region
    from virtviz.engine.state import State
    from virtviz.paths.traffic import Traffic

HDR_F_NEEDS_CSUM: Final = 1
HDR_GSO_NONE, HDR_GSO_TCPV4 = 0, 1
HDR: Final = struct.Struct("<BBHHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers (5.1.6)."""
SLOT_STEP: Final = 2048
HEADROOM: Final = 64
SEGMENTS_MAX: Final = 64
"""Frames that one packet is cut into at most: 65000 bytes are 45."""
FRAGMENT_BYTES: Final = 32768
"""Bytes of one piece of memory that a socket's data lies in (SKB_FRAG_PAGE_ORDER)."""
SMALL_PAGE_BYTES: Final = 2048


def slot_bytes_for(traffic: Traffic) -> int:
    """Give the size of a packet slot that holds the longest packet, its headroom and its indirect table."""
    needed = HEADROOM + max(traffic.longest_tcp, SMALL_PAGE_BYTES) + TABLE_BYTES
    return -(-needed // SLOT_STEP) * SLOT_STEP


def fragments_of(length: int) -> int:
    """Count the pieces that so many bytes of a socket's data lie in."""
    return max(1, -(-length // FRAGMENT_BYTES))


@cells
class OffloadCells(Cells):
    """What is still to be done to the packet in each slot.

    Attributes:
        unfinished: 1 if its checksum is the pseudo header's sum only (CHECKSUM_PARTIAL).
        gso_size: bytes of data of each frame that it is to be cut into; 0 if it is one frame.
        parent: slot of the packet whose data it shares; 0 if its data is its own.
        data_at: where in that packet's data its own begins.
        sharers: frames that share its data and have not been freed.
    """

    unfinished: list[int]
    gso_size: list[int]
    parent: list[int]
    data_at: list[int]
    sharers: list[int]


class OffloadPool(PacketPool):
    """A pool of packets that somebody may still have to cut or to finish.

    Attributes:
        todo: what is to be done.
    """

    def __init__(
        self, state: State, name: str, memory: Region, base: int, slots: int, slot_bytes: int, headroom: int = HEADROOM
    ) -> None:
        super().__init__(state, name, memory, base, slots, slot_bytes, headroom)
        none = [0] * (slots + 1)
        self.todo = state.add(
            OffloadCells,
            f"{name}.offload",
            unfinished=none,
            gso_size=none,
            parent=none,
            data_at=none,
            sharers=none,
        )

    def take(self, packet: int, length: int = 0) -> int:
        """Take a free slot for a packet with which nothing is to be done; answers its number."""
        slot = super().take(packet, length)
        self._set(slot, 0, 0)
        if self.cells.pieces[slot] != 1:
            self.cells.pieces[slot] = 1
        return slot

    def _set(self, slot: int, unfinished: int, gso_size: int) -> None:
        todo = self.todo
        if todo.unfinished[slot] != unfinished:
            todo.unfinished[slot] = unfinished
        if todo.gso_size[slot] != gso_size:
            todo.gso_size[slot] = gso_size

    def leave(self, slot: int, gso_size: int) -> None:
        """Note that a packet's checksum is unfinished, and what it is to be cut into, 0 for one frame."""
        self._set(slot, 1, gso_size)

    def release(self, slot: int) -> None:
        """Give a slot back, and with the last frame that shares it a packet's data."""
        todo = self.todo
        parent = todo.parent[slot]
        super().release(slot)
        if parent:
            todo.parent[slot] = 0
            todo.sharers[parent] -= 1
            if not todo.sharers[parent]:
                super().release(parent)

    def data(self, slot: int) -> bytearray:
        """Give the packet's bytes, wherever its data lies."""
        if not self.todo.parent[slot]:
            return super().data(slot)
        return self.memory.read(self.at[slot], HEADER_BYTES) + self._shared(slot)

    def _shared(self, slot: int) -> bytearray:
        address, length = self.shared_data(slot)
        return self.memory.read(address, length)

    def shared_data(self, slot: int) -> tuple[int, int]:
        """Give address and length of the data that a frame shares with the packet it was cut from."""
        at = self.at[self.todo.parent[slot]] + HEADER_BYTES + self.todo.data_at[slot]
        return at, self.cells.length[slot] - HEADER_BYTES

    def data_length(self, slot: int) -> int:
        """Give the bytes of data of a TCP packet."""
        return self.cells.length[slot] - HEADER_BYTES

    def copy(self, slot: int, packet: int) -> int:
        """Take a slot with the same bytes as another's, with which the same is to be done."""
        made = super().copy(slot, packet)
        self._set(made, self.todo.unfinished[slot], self.todo.gso_size[slot])
        return made

    def finish(self, slot: int) -> None:
        """Finish a packet's checksum (skb_checksum_help)."""
        self.memory.write(self.at[slot], finished(self.data(slot)))
        self._set(slot, 0, 0)

    def cut(self, slot: int, *, share: bool, finish: bool) -> list[int]:
        """Cut a packet into frames; answers their slots. The packet itself is gone, or goes with the last of them.

        Args:
            slot: where it is.
            share: leave the data where it is; otherwise each frame gets a copy of its part.
            finish: finish each frame's checksum.
        """
        whole = self.data(slot)
        mss, length = self.todo.gso_size[slot], len(whole) - HEADER_BYTES
        made: list[int] = []
        for number in range(-(-length // mss)):
            headers, start, count = segment_headers(whole[:HEADER_BYTES], length, mss, number)
            frame = headers + whole[HEADER_BYTES + start : HEADER_BYTES + start + count]
            if finish:
                frame = finished(frame)
            part = self.take(self.cells.packet[slot], len(frame))
            self.memory.write(self.at[part], frame[:HEADER_BYTES] if share else frame)
            if not finish:
                self._set(part, 1, 0)
            if share:
                self.todo.parent[part] = slot
                self.todo.data_at[part] = start
                first, last = start // FRAGMENT_BYTES, (start + count - 1) // FRAGMENT_BYTES
                self.cells.pieces[part] = 2 + last - first
            made.append(part)
        if share:
            self.todo.sharers[slot] = len(made)
        else:
            self.release(slot)
        return made

    def wire_frames(self, slot: int) -> list[bytes]:
        """Give the frames that a card with all offloads makes of a packet: cut, and each checksum finished."""
        data = bytes(self.data(slot))
        todo = self.todo
        if not todo.unfinished[slot]:
            return [data]
        return frames_of(data, todo.gso_size[slot]) if todo.gso_size[slot] else [finished(data)]

    # The virtio-net header

    def header(self, slot: int) -> bytes:
        """Make the header that says what is still to be done (virtio_net_hdr_from_skb), 12 bytes."""
        if not self.todo.unfinished[slot]:
            return bytes(VIRTIO_NET_HDR_BYTES)
        size = self.todo.gso_size[slot]
        kind, linear = (HDR_GSO_TCPV4, HEADER_BYTES) if size else (HDR_GSO_NONE, 0)
        return HDR.pack(HDR_F_NEEDS_CSUM, kind, linear, size, CSUM_START, CSUM_OFFSET, 0)

    def note_header(self, slot: int) -> bool:
        """Note what the header in front of a packet asks for (virtio_net_hdr_to_skb); answers False if it cannot be.

        Nobody here asks for more than TCP over IPv4 with the headers that `spec.tcp` builds.
        """
        header = self.memory.read(self.at[slot] - VIRTIO_NET_HDR_BYTES, VIRTIO_NET_HDR_BYTES)
        flags, kind, _, size, start, offset, _ = map(int, HDR.unpack(bytes(header)))
        if not flags & HDR_F_NEEDS_CSUM:
            return kind == HDR_GSO_NONE
        length = self.cells.length[slot]
        frame = self.memory.read(self.at[slot], min(length, HEADER_BYTES))
        if (
            len(frame) < HEADER_BYTES
            or int.from_bytes(frame[12:ETH_HEADER_BYTES], "big") != ETHERTYPE_IPV4
            or frame[23] != PROTO_TCP
            or (start, offset) != (CSUM_START, CSUM_OFFSET)
            or kind not in (HDR_GSO_NONE, HDR_GSO_TCPV4)
            or (kind == HDR_GSO_TCPV4 and not size)
        ):
            return False
        # A packet of one frame is none to be cut.
        self._set(slot, 1, size if kind and length - HEADER_BYTES > size else 0)
        return True
