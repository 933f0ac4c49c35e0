"""How a virtio-net device receives: into one buffer, or into as many mergeable ones as the frame needs.

QEMU counts what waits, then fills buffer after buffer; vhost takes buffers until they are enough, then writes all at
once, and puts back what it took for nothing.

Source: virtio 1.4, 5.1.9.3 and 5.1.9.4; QEMU hw/net/virtio-net.c, virtio_net_receive_rcu() and
virtio_net_has_buffers(); Linux drivers/vhost/net.c, handle_rx() and get_rx_bufs().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from virtviz.paths.virtio_device.buffers import wrong_to_receive
from virtviz.ring.rings import scatter, take, writable_bytes, write_buffer
from virtviz.ring.split_device import IOV_MAX
from virtviz.ring.verdicts import is_malformed
from virtviz.spec.virtio import NUM_BUFFERS_OFFSET, VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from virtviz.paths.virtio_device.device import NetDevice
    from virtviz.ring.rings import DeviceRing, RoomyRing
    from virtviz.ring.verdicts import Problem

Received = Literal["received", "filtered", "too long", "no room"]
"""What became of a frame: it is in the guest's memory, the filter kept it away, it did not fit into a buffer and is
gone, or it was not taken and has to wait."""


class Receiver:
    """The receiving part of a device; it has no state of its own."""

    def __init__(self, device: NetDevice) -> None:
        self.device = device

    def receive(self, queue: int, frame: bytes, header: bytes) -> Received:
        """Put a frame into the buffers of a receive queue; see `NetDevice.receive`."""
        if self.device.back_end == "vhost":
            return self._receive_as_vhost(queue, frame, header)
        ring: RoomyRing = self.device.rings[queue]  # type: ignore[assignment]  # so the constructor was told
        if not self.has_room(ring, queue, len(frame) + self.device.header_bytes):
            return "no room"
        if not self.device.filter.passes(frame):
            return "filtered"
        heads: list[int] = []
        written: list[int] = []
        first: list[tuple[int, int]] = []
        done = 0
        while done < len(frame) or not heads:
            problem = self._take_to_receive(ring, len(heads))
            if problem:
                self.device.fail(problem, queue)
                return "no room"
            skip = 0
            if not heads and writable_bytes(ring) < self.device.header_bytes:
                if self.device.back_end == "strict":
                    self.device.fail("no room for the header", queue)
                    return "no room"
                self.device.note("no room for the header", queue)
            if not heads:
                first, skip = ring.pieces()[ring.cells.readable :], self.device.header_bytes
                write_buffer(ring, header)
            part = write_buffer(ring, frame[done:], skip)
            done += part
            heads.append(ring.cells.head)
            written.append(part + skip)
            if done < len(frame) and not self.device.mergeable:
                ring.put_back(heads)
                return "too long"
        self.device.note_overlooked(queue)
        self._write_num_buffers(ring, first, len(heads))
        self.device.give_back(ring, heads, written)
        return "received"

    def has_room(self, ring: RoomyRing, queue: int, wanted: int) -> bool:
        """Say whether a frame can be received; while it cannot, kicks are asked for (virtio_net_has_buffers)."""
        if not self._enough(ring, queue, wanted):
            # The driver may have added buffers between the first look and the asking for kicks.
            ring.enable_kicks()
            if not self._enough(ring, queue, wanted):
                return False
        ring.disable_kicks()
        return True

    def _enough(self, ring: RoomyRing, queue: int, wanted: int) -> bool:
        if self.device.cells.broken:
            return False
        if self.device.mergeable:
            answer = ring.room(wanted)
            if is_malformed(answer):
                self.device.fail(answer, queue)
            return answer == "enough"
        return ring.waiting() or self._looks_new(ring, queue)

    def _looks_new(self, ring: RoomyRing, queue: int) -> bool:
        answer = ring.look()
        if is_malformed(answer):
            self.device.fail(answer, queue)
        return answer == "new"

    def _take_to_receive(self, ring: DeviceRing, taken: int) -> Problem | None:
        if taken == IOV_MAX:
            return "too many buffers"
        answer = take(ring)
        if answer == "empty":
            return "ring ran dry"
        return self.wrong_to_receive(ring) if answer == "buffer" else answer

    def wrong_to_receive(self, ring: DeviceRing) -> Problem | None:
        """Say what is wrong with a buffer to receive into, if anything is."""
        return wrong_to_receive(ring, self.device.back_end)

    def _receive_as_vhost(self, queue: int, frame: bytes, header: bytes) -> Received:
        """Take buffers until the frame fits, and only then write; what was taken for nothing is put back."""
        ring = self.device.rings[queue]
        wanted = len(frame) + self.device.header_bytes
        ring.disable_kicks()
        heads, lengths, pieces, problem = self._collect(ring, wanted)
        if problem == "ring ran dry":
            ring.put_back(heads)
            ring.enable_kicks()
            # The driver may have added buffers between the last look and the asking for kicks.
            heads, lengths, pieces, problem = self._collect(ring, wanted)
            if problem == "ring ran dry":
                ring.put_back(heads)
                return "no room"
            ring.disable_kicks()
        if problem:
            self.device.fail(problem, queue)
            return "no room"
        if sum(lengths) < wanted:
            ring.put_back(heads)
            if len(heads) == IOV_MAX:
                self.device.note("too many buffers", queue)
            return "too long"
        lengths[-1] -= sum(lengths) - wanted
        scatter(ring.memory, pieces, header)
        scatter(ring.memory, pieces, frame, self.device.header_bytes)
        self._write_num_buffers(ring, pieces, len(heads))
        self.device.give_back(ring, heads, lengths)
        return "received"

    def _collect(
        self, ring: DeviceRing, wanted: int
    ) -> tuple[list[int], list[int], list[tuple[int, int]], Problem | None]:
        """Take as many buffers as the frame needs; answers heads, lengths, pieces, and what was wrong."""
        heads: list[int] = []
        lengths: list[int] = []
        pieces: list[tuple[int, int]] = []
        # More buffers than can be noted are as good as one that is too small (get_rx_bufs).
        while sum(lengths) < wanted and len(heads) < IOV_MAX and (self.device.mergeable or not heads):
            problem = self._take_to_receive(ring, len(heads))
            if problem in ("nothing writable", "readable while receiving") and heads:
                # vhost goes back by as many buffers as were good, so it is the first of them that is lost.
                ring.put_back([*heads[1:], ring.cells.head])
                return [], [], [], problem
            if problem is None and len(pieces) + ring.cells.writable > IOV_MAX:
                ring.put_back([*heads, ring.cells.head])
                return [], [], [], "too many pieces"
            if problem:
                if problem != "ring ran dry":
                    ring.put_back(heads)
                return heads, lengths, pieces, problem
            heads.append(ring.cells.head)
            lengths.append(writable_bytes(ring))
            pieces += ring.pieces()
        return heads, lengths, pieces, None

    def _write_num_buffers(self, ring: DeviceRing, first: list[tuple[int, int]], count: int) -> None:
        # The specification wants 1 there without MRG_RXBUF too (5.1.9.4); QEMU 7.2 leaves it alone.
        if self.device.mergeable or (
            self.device.back_end == "strict" and self.device.header_bytes == VIRTIO_NET_HDR_BYTES
        ):
            scatter(ring.memory, first, count.to_bytes(2, "little"), NUM_BUFFERS_OFFSET)
