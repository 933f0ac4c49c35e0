"""QEMU's virtio-net device, as one queue pair sees it: what it keeps, and what its routines share.

The same code is run by two threads: by the main loop, and with `ioeventfd=off` a queue's kick handler by the vCPU
thread. Both hold the Big QEMU Lock while they do.

A malformed ring is an error of the guest's: QEMU marks the device broken and serves it no more until it is reset
(`qemu_checks.py`).
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Protocol

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import Routine
from virtviz.paths.ring_words import device_words_of
from virtviz.ring.rings import read_buffer, readable_bytes
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.memory import Port
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.device_status import DeviceStatus
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.qemu import Qemu
    from virtviz.ring.rings import QemuRing

TX_BURST = 256
"""Packets that one run of the bottom half sends before it lets others have a turn (the property x-txburst)."""
TAP_BURST = 50
"""Frames read from the TAP before other descriptors have a turn (tap_send)."""
HEADS = 1024
"""Buffers that one packet may take (VIRTQUEUE_MAX_SIZE)."""


@cells
class NicCells(Cells):
    """What QEMU keeps for a virtio-net device.

    Attributes:
        tx_waiting: 1 from a kick of the transmit queue until the bottom half runs.
        broken: 1 once the guest has been found to misuse a ring.
        sent: packets sent since the bottom half began, or since it turned kicks on again.
        rearmed: 1 once the bottom half has turned kicks on again.
        frame: slot in QEMU's memory of the frame that was read and not yet delivered; 0 for none.
        got: bytes that the last read() of the TAP brought, 0 if none were there.
        read: frames read from the TAP in this turn.
        copied: bytes of the frame that are in the guest's buffers, header included.
        seen: how far the ring was filled when buffers for it were last counted.
        taken: buffers taken for it.
        at: address at which the number of buffers belongs into the first of them.
        heads, written: their heads, and the bytes written into each.
        errors: malformed buffers met.
        problem: place in `ring.verdicts.NAMES`, from 1, of what was wrong with the last one; 0 for none.
        filtered: frames that were for somebody else.
        discarded: frames that no buffer could hold.
        refused: frames that the TAP did not take.
        lost: frames read for a device that can take nothing any more.
        unlinked: frames of either direction that came while the link was down.
    """

    tx_waiting: int = 0
    broken: int = 0
    sent: int = 0
    rearmed: int = 0
    frame: int = 0
    got: int = 0
    read: int = 0
    copied: int = 0
    seen: int = 0
    taken: int = 0
    at: int = 0
    errors: int = 0
    problem: int = 0
    filtered: int = 0
    discarded: int = 0
    refused: int = 0
    lost: int = 0
    unlinked: int = 0
    heads: list[int]
    written: list[int]


class FrameCells(Protocol):
    """What every device of QEMU's that is behind a TAP keeps; see `NicCells`."""

    frame: int
    got: int
    read: int
    refused: int


class TapClient(Protocol):
    """A device of QEMU's, as the TAP behind it sees it.

    Attributes:
        title: how people call it.
        rx_name: name of the ring that frames from the TAP go into.
        pair: number of the queue pair that it is, from 0.
        header_bytes: length of the virtio-net header that goes with every frame through the TAP.
        sent_from: whose memory a frame is sent from, for people.
        copies_out: a sentence about how often it has been copied then.
        memory: where QEMU keeps frames between reading and delivering them.
    """

    title: str
    rx_name: str
    pair: int
    header_bytes: int
    sent_from: str
    copies_out: str
    memory: PacketPool

    @property
    def qemu(self) -> Qemu:
        """Its process."""

    @property
    def cells(self) -> FrameCells:
        """What it keeps."""

    def outgoing(self) -> bytes | bytearray:
        """Give the frame being sent, header included."""

    def outgoing_length(self) -> int:
        """Give its length, header included."""

    def outgoing_packet(self) -> int:
        """Give its number; for people only."""

    def keep(self, slot: int, frame: bytes) -> None:
        """Put a frame into QEMU's memory."""

    def kept_length(self) -> int:
        """Give the length of the frame in hand and its header; 0 if there is none."""

    def drops_kept(self) -> bool:
        """Drop the frame in hand if the device's link is down; says whether it was."""


class Nic:
    """QEMU's virtio-net device, as one of its queue pairs has it.

    Args:
        status: the device's, as its driver reads it.
        pair: the pair's number, from 0.
        mac: its address.
        tx_name, rx_name: names of its virtqueues.
        tx, rx: the device's side of them.
        skbs, buffers: where the guest keeps its packets; only to know, for people, which packet an address belongs to.
        memory: where QEMU keeps frames between reading and delivering them.

    Attributes:
        device: all pairs of the device, set by the wiring: they are broken together.
    """

    title = "virtio-net device"
    header_bytes = VIRTIO_NET_HDR_BYTES
    sent_from = "guest memory"
    copies_out = "With the flow known, it is the host's only copy."
    device: Sequence[Nic]

    def __init__(
        self,
        state: State,
        name: str,
        qemu: Qemu,
        *,
        status: DeviceStatus,
        pair: int = 0,
        mac: bytes,
        tx_name: str,
        rx_name: str,
        tx: QemuRing,
        rx: QemuRing,
        skbs: PacketPool,
        buffers: PacketPool,
        memory: PacketPool,
        mergeable: bool,
    ) -> None:
        self.qemu = qemu
        self.status = status
        self.pair = pair
        self.mac = mac
        self.tx_name, self.rx_name = tx_name, rx_name
        self.tx, self.rx = tx, rx
        self.skbs, self.buffers, self.memory = skbs, buffers, memory
        self.mergeable = mergeable
        self.cells = state.add(NicCells, name, heads=[0] * HEADS, written=[0] * HEADS)

    def through(self, memory: Port) -> Nic:
        """Give the same device as another thread of QEMU has it, whose CPU reaches guest memory in its own way."""
        other = copy(self)
        other.tx, other.rx = self.tx.through(memory), self.rx.through(memory)
        return other

    def outgoing(self) -> bytes | bytearray:
        """Give the frame being sent, header included, from the guest's buffers."""
        return read_buffer(self.tx)

    def outgoing_length(self) -> int:
        """Give its length, header included."""
        return readable_bytes(self.tx)

    def outgoing_packet(self) -> int:
        """Give its number; for people only."""
        return self.skbs.packet_at(self.tx.cells.address[0])

    def keep(self, slot: int, frame: bytes) -> None:
        """Put a frame into QEMU's memory, behind a virtio-net header."""
        memory = self.memory
        memory.cells.skip[slot] = VIRTIO_NET_HDR_BYTES
        memory.cells.length[slot] = len(frame)
        memory.memory.write(memory.at[slot], bytes(VIRTIO_NET_HDR_BYTES) + frame)

    def kept(self) -> bytes:
        """Give the frame in hand, with the header in front of it."""
        memory, slot = self.memory, self.cells.frame
        at = memory.at[slot]
        return bytes(memory.memory.bytes[at : at + self.kept_length()])

    def kept_length(self) -> int:
        """Give the length of the frame in hand and its header; 0 if there is none."""
        slot = self.cells.frame
        return VIRTIO_NET_HDR_BYTES + self.memory.cells.length[slot] if slot else 0

    def ask_for_reset(self) -> None:
        """Ask for a reset, and mark the device broken (virtio_error)."""
        self.status.ask_for_reset()
        for pair in self.device:
            pair.cells.broken = 1

    def drop_kept(self) -> None:
        """Drop the frame in hand for want of a link."""
        mine = self.cells
        self.memory.release(mine.frame)
        mine.frame = 0
        mine.unlinked += 1

    def drops_kept(self) -> bool:
        """Drop the frame in hand if the link is down; says whether it was."""
        if self.status.cells.config_status:
            return False
        self.drop_kept()
        return True

    def next_out(self) -> int:
        """Give the number of the packet that the next available head belongs to; 0 if unknown. For people only."""
        return self.skbs.packet_at(self.tx.peek_next_address())

    def next_in(self) -> int:
        """Give the number of the next packet on the TAP, if there is one; for people only."""
        taps = self.qemu.taps
        return taps[self.pair].next_packet() if taps else 0


class NicRoutine(Routine):
    """A routine that works on one queue of QEMU's virtio-net device."""

    def __init__(self, name: str, place: Place, nic: Nic, queue: str, ring: QemuRing) -> None:
        super().__init__(name, place, queue)
        self.nic = nic
        self.ring = ring
        self.mine = ring.cells

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what QEMU's texts speak of."""
        nic = self.nic.cells
        return {
            **device_words_of(self.ring),
            "qemu": self.nic.qemu.name,
            "sent": nic.sent,
            "burst": TX_BURST,
            "taken": nic.taken,
            "length": self.length(me),
        }

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand, header included."""
        return readable_bytes(self.ring)
