"""A virtio-net device over its rings: what it does with a buffer, whoever runs it.

The device knows its queues only through `DeviceRing`, so it is the same over split and packed rings. Whose checks it
makes, and so what a malformed ring does to it, is `back_end`: with QEMU and `strict` it needs a reset, with vhost it
leaves the queue alone until the next kick. Nothing raises, and every loop ends: each buffer taken moves the ring on,
and there are no more of them than the ring's index can say.

Frames that come in wait outside (in the TAP's queue, or QEMU's); `receive` says whether it took one.

Source: virtio 1.4, 5.1; QEMU hw/net/virtio-net.c (virtio_net_receive_rcu, virtio_net_flush_tx, virtio_net_tx_bh,
virtio_net_handle_ctrl, virtio_net_reset) and hw/virtio/virtio.c (virtio_error, virtio_notify_config); Linux
drivers/vhost/net.c (get_rx_bufs, get_tx_bufs).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Literal

from virtviz.engine.cells import Cells, cells
from virtviz.paths.virtio_device.buffers import wrong_to_send
from virtviz.paths.virtio_device.control import GUEST_OFFLOADS, run_command
from virtviz.paths.virtio_device.filter import ReceiveFilter
from virtviz.paths.virtio_device.receive import Receiver
from virtviz.ring.rings import read_buffer, readable_bytes, restart, take, writable_bytes, write_buffer
from virtviz.ring.verdicts import NAMES, RESET, judge
from virtviz.spec.virtio import (
    VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_NET_HDR_BYTES,
    VIRTIO_NET_HDR_LEGACY_BYTES,
    VIRTIO_NET_S_ANNOUNCE,
    VIRTIO_NET_S_LINK_UP,
    VIRTIO_PCI_ISR_CONFIG,
    VIRTIO_PCI_ISR_QUEUE,
    Feature,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.state import State
    from virtviz.paths.virtio_device.receive import Received
    from virtviz.ring.rings import DeviceRing
    from virtviz.ring.verdicts import BackEnd, Problem, Verdict

CONFIG: Final = struct.Struct("<6sHH")
"""The device's configuration: mac, status, max_virtqueue_pairs (5.1.4)."""


@cells
class NetDeviceCells(Cells):
    """The state of the device.

    Attributes:
        status: device_status.
        isr: bit 0, a buffer was used; bit 1, the configuration changed.
        generation: of the configuration, u8.
        link: `status` of the configuration.
        pairs: queue pairs in use.
        offloads: the guest's offloads that are on.
        broken: 1 from a malformed ring that wants a reset, until that.
        problem: place in `NAMES`, from 1, of the last malformed state; 0 for none.
        seen, expected: the numbers in its message.
        refused: 1 if it was not merely let pass.
        queue: where it was found.
    """

    status: int = 0
    isr: int = 0
    generation: int = 0
    link: int = VIRTIO_NET_S_LINK_UP
    pairs: int = 1
    offloads: int = 0
    broken: int = 0
    problem: int = 0
    seen: int = 0
    expected: int = 0
    refused: int = 0
    queue: int = 0


class NetDevice:
    """A virtio-net device.

    Args:
        state: where its cells are made.
        name: such as `qemu-4002.net0`.
        rings: the device's side of its queues, by queue index: receiveq1, transmitq1, ..., controlq last, at 2 x
            max_pairs. A data queue's is a `RoomyRing` unless the back-end is vhost. A queue that the driver did not set
            up is missing.
        features: what was negotiated, a bit mask.
        back_end: whose checks are made.
        mac: the address it was made with.
        max_pairs: queue pairs it has.
        vnet_hdr: what frames go to and come from understands virtio-net headers, as a TAP does.
    """

    def __init__(
        self,
        state: State,
        name: str,
        rings: dict[int, DeviceRing],
        *,
        features: int,
        back_end: BackEnd,
        mac: bytes,
        max_pairs: int = 1,
        vnet_hdr: bool = True,
    ) -> None:
        self.name = name
        self.rings = rings
        self.features = features
        self.back_end = back_end
        self.max_pairs = max_pairs
        self.vnet_hdr = vnet_hdr
        self.mergeable = self.has(Feature.NET_F_MRG_RXBUF)
        long_header = self.mergeable or self.has(Feature.F_VERSION_1)
        self.header_bytes = VIRTIO_NET_HDR_BYTES if long_header else VIRTIO_NET_HDR_LEGACY_BYTES
        self.filter = ReceiveFilter(state, f"{name}.filter", mac, by_vlan=self.has(Feature.NET_F_CTRL_VLAN))
        self.receiver = Receiver(self)
        self.cells = state.add(NetDeviceCells, name, offloads=features & GUEST_OFFLOADS)

    def has(self, feature: Feature) -> bool:
        """Say whether a feature was negotiated."""
        return bool(self.features >> feature & 1)

    # Status and configuration

    def set_status(self, status: int) -> None:
        """Store device_status; 0 resets the device."""
        if status:
            self.cells.status |= status
        else:
            self.reset()

    def reset(self) -> None:
        """Go back to how the device was made; the queues begin anew."""
        mine = self.cells
        for field, value in mine.fields.items():
            setattr(mine, field, value)
        mine.offloads = self.features & GUEST_OFFLOADS
        self.filter.reset()
        for ring in self.rings.values():
            restart(ring)

    def read_isr(self) -> int:
        """Read the interrupt status; that clears it."""
        isr, self.cells.isr = self.cells.isr, 0
        return isr

    def config(self) -> bytes:
        """Give the device's configuration."""
        return CONFIG.pack(self.filter.mac, self.cells.link, self.max_pairs)

    def change_config(self) -> None:
        """Tell the driver that the configuration changed."""
        mine = self.cells
        mine.generation = (mine.generation + 1) & 0xFF
        mine.isr |= VIRTIO_PCI_ISR_QUEUE | VIRTIO_PCI_ISR_CONFIG if mine.broken else VIRTIO_PCI_ISR_CONFIG

    def set_link(self, *, up: bool) -> None:
        """Plug the cable in, or pull it out."""
        mine = self.cells
        mine.link = mine.link | VIRTIO_NET_S_LINK_UP if up else mine.link & ~VIRTIO_NET_S_LINK_UP
        self.change_config()

    def ask_to_announce(self) -> None:
        """Ask the driver to make itself known on the network, as after a migration."""
        if self.has(Feature.NET_F_GUEST_ANNOUNCE):
            self.cells.link |= VIRTIO_NET_S_ANNOUNCE
            self.change_config()

    def verdict(self) -> Verdict | None:
        """Give the verdict on the last malformed state met, if there was one."""
        mine = self.cells
        if not mine.problem:
            return None
        return judge(
            NAMES[mine.problem - 1],
            self._judge_of(mine.queue),
            seen=mine.seen,
            expected=mine.expected,
            refused=bool(mine.refused),
        )

    def _judge_of(self, queue: int) -> BackEnd:
        # The control queue is QEMU's even where vhost has the others.
        return "qemu" if self.back_end == "vhost" and queue == 2 * self.max_pairs else self.back_end

    def refuse_queue(self, queue: int) -> None:
        """Note that the driver set a queue up as no queue can be; it is not among `rings`, and stays as it is."""
        self.fail("queue not allowed", queue)

    # Kicks

    def kick(self, queue: int) -> list[bytes]:
        """Do what there is to do on a queue; answers the frames that went out."""
        if not self._ready(queue) or queue not in self.rings:
            return []
        if queue == 2 * self.max_pairs:
            while self.run_one_command():
                pass
            return []
        return self._send_all(queue) if queue % 2 else []

    def _ready(self, queue: int) -> bool:
        mine = self.cells
        if not mine.status & VIRTIO_CONFIG_S_DRIVER_OK:
            self.note("not ready", queue)
            return False
        return not mine.broken

    def _send_all(self, queue: int) -> list[bytes]:
        ring, frames = self.rings[queue], []
        ring.disable_kicks()
        while True:
            answer = self.send_one(queue)
            if isinstance(answer, bytes):
                frames.append(answer)
            elif answer == "refused" or (answer == "malformed" and self.back_end != "qemu"):
                return frames
            else:
                # QEMU asks for kicks even where it could make nothing of the ring. A buffer may have come meanwhile.
                ring.enable_kicks()
                answer = "empty" if answer == "malformed" else self.send_one(queue)
                if not isinstance(answer, bytes):
                    return frames
                frames.append(answer)
                ring.disable_kicks()

    # Sending (5.1.9.2)

    def send_one(self, queue: int) -> bytes | Literal["empty", "malformed", "refused"]:
        """Take the next frame out of a transmit queue, and return its buffer.

        Answers the frame without its virtio-net header, `empty`, `malformed` if the ring made no sense, `refused` if it
        did and the buffer did not.
        """
        ring = self.rings[queue]
        taken = take(ring)
        if taken == "empty":
            return "empty"
        if taken != "buffer":
            self.fail(taken, queue)
            return "malformed"
        problem = self.wrong_to_send(ring)
        if problem:
            self.fail(problem, queue)
            return "refused"
        self.note_overlooked(queue)
        frame = read_buffer(ring)[self.header_bytes :]
        self.give_back(ring, [ring.cells.head], [0])
        return frame

    def wrong_to_send(self, ring: DeviceRing) -> Problem | None:
        """Say what is wrong with a buffer to send, if anything is."""
        return wrong_to_send(ring, self.back_end, self.header_bytes, vnet_hdr=self.vnet_hdr)

    # Receiving (5.1.9.3, 5.1.9.4)

    def receive(self, frame: bytes, pair: int = 0, header: bytes = bytes(VIRTIO_NET_HDR_LEGACY_BYTES)) -> Received:
        """Put a frame that has arrived into the guest's memory.

        Args:
            frame: the frame.
            pair: the queue pair it is meant for, from 0.
            header: the first ten bytes of the virtio-net header.
        """
        queue = 2 * pair
        if pair >= self.cells.pairs or queue not in self.rings or not self._ready(queue):
            return "no room"
        return self.receiver.receive(queue, frame, header)

    # Commands (5.1.9.5)

    def run_one_command(self) -> bool:
        """Carry out the next command; answers whether there was one."""
        queue = 2 * self.max_pairs
        ring = self.rings[queue]
        taken = take(ring)
        if taken == "empty":
            return False
        problem: Problem | None = taken if taken != "buffer" else None
        if not problem and (writable_bytes(ring) < 1 or readable_bytes(ring) < 2):
            problem = "command incomplete"
        if problem:
            self.fail(problem, queue)
            return False
        self.note_overlooked(queue)
        answer = run_command(self, read_buffer(ring))
        write_buffer(ring, bytes([answer]))
        self.give_back(ring, [ring.cells.head], [1])
        return True

    # What all of them do

    def give_back(self, ring: DeviceRing, heads: Sequence[int], written: Sequence[int]) -> None:
        """Return buffers, and interrupt if that is wanted."""
        ring.write_used(heads, written)
        ring.publish()
        if ring.interrupt_wanted():
            self.cells.isr |= VIRTIO_PCI_ISR_QUEUE

    def fail(self, problem: Problem, queue: int) -> None:
        """Do what the back-end does about a malformed ring."""
        self._note(problem, queue, refused=True)
        verdict = self.verdict()
        if verdict is not None and verdict.what == RESET:
            mine = self.cells
            mine.broken = 1
            if self.has(Feature.F_VERSION_1):
                mine.status |= VIRTIO_CONFIG_S_NEEDS_RESET
            self.change_config()

    def note(self, problem: Problem, queue: int) -> None:
        """Keep for the learner what was let pass."""
        self._note(problem, queue, refused=False)

    def _note(self, problem: Problem, queue: int, *, refused: bool) -> None:
        mine = self.cells
        ring_cells = self.rings[queue].cells if queue in self.rings else None
        mine.problem, mine.queue, mine.refused = NAMES.index(problem) + 1, queue, int(refused)
        mine.seen, mine.expected = getattr(ring_cells, "seen", 0), getattr(ring_cells, "expected", 0)

    def note_overlooked(self, queue: int) -> None:
        """Keep for the learner what the ring let pass in the buffer just taken."""
        ring_cells = self.rings[queue].cells
        overlooked = getattr(ring_cells, "overlooked", 0)
        if overlooked:
            self.note(NAMES[overlooked - 1], queue)
            setattr(ring_cells, "overlooked", 0)  # noqa: B010 - vhost's ring has no such cell
