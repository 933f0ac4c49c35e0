"""QEMU's e1000: the registers of the card, and what its routines share.

The device model is a table of registers in QEMU's memory, and code that runs when one is touched. A store to TDT runs
`qemu_e1000_tx.py` in the vCPU's thread; a frame on the TAP runs `qemu_e1000_rx.py` in the main loop; both end in
`qemu_e1000_irq.py`. All of it runs under the Big QEMU Lock.

Source: QEMU 10.0 hw/net/e1000.c.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import Routine
from virtviz.paths.qemu import Qemu, Ready
from virtviz.spec.e1000 import E1000_RX_DESC, E1000_TX_DESC
from virtviz.spec.virtio import VIRTIO_NET_HDR_LEGACY_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.memory import Port, Region
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.ring.e1000 import E1000Layout

TIMER_OFF, TIMER_RUNS, TIMER_DUE = 0, 1, 2
"""The mitigation timer: not set, set, and its time has come."""
TX_BUFFER_BYTES = 0x10000
"""Room for one frame being put together (e1000_tx.data)."""


@cells
class E1000Cells(Cells):
    """What QEMU keeps for an e1000: registers by their names, then the device's own.

    Attributes:
        tdh, tdt, rdh, rdt: heads and tails of the rings, u16.
        icr: interrupt causes that nobody has read.
        ims: causes that the driver wants to hear of.
        irq_level: 1 while the device wants its line high.
        timer: the mitigation timer, see `TIMER_OFF` and the others.
        size: bytes of the frame being put together.
        fetched: number of the packet it is; for people only.
        reported: 1 once a descriptor of this run has been reported as done.
        skb: what the thread carried before it sent the frame.
        frame: slot in QEMU's memory of the frame that was read and not yet delivered; 0 for none.
        got: bytes that the last read() of the TAP brought, 0 if none were there.
        read: frames read from the TAP in this turn.
        address: address of the buffer being filled.
        filtered: frames that were for somebody else.
        oversized: frames longer than the driver takes.
        refused: frames that the TAP did not take.
    """

    tdh: int = 0
    tdt: int = 0
    rdh: int = 0
    rdt: int = 0
    icr: int = 0
    ims: int = 0
    irq_level: int = 0
    timer: int = TIMER_OFF
    size: int = 0
    fetched: int = 0
    reported: int = 0
    skb: int = 0
    frame: int = 0
    got: int = 0
    read: int = 0
    address: int = 0
    filtered: int = 0
    oversized: int = 0
    refused: int = 0


class E1000Qemu(Qemu):
    """A QEMU process whose network card is an e1000: nobody kicks, and there is a timer.

    Attributes:
        device: the card's registers, set when they are made.
    """

    device: E1000Cells

    def look(self) -> int:
        """Give what is ready, as bits of `Ready`."""
        return super().look() | (Ready.TIMER if self.device.timer == TIMER_DUE else 0)


class E1000:
    """QEMU's e1000; it is a `TapClient`.

    Args:
        mac: its address.
        port: guest memory, as the thread reaches it that runs the device's code.
        tx, rx: where the rings lie.
        skbs, buffers: where the guest keeps its packets; only to know, for people, which packet an address belongs to.
        memory: where QEMU keeps frames between reading and delivering them.
        data: where it puts a frame together that is to be sent.
    """

    title = "e1000 device"
    pair = 0
    header_bytes = VIRTIO_NET_HDR_LEGACY_BYTES
    sent_from = "QEMU's memory"
    copies_out = "The second copy: QEMU itself made the first."

    def __init__(
        self,
        state: State,
        name: str,
        qemu: E1000Qemu,
        *,
        mac: bytes,
        port: Port,
        tx_name: str,
        rx_name: str,
        tx: E1000Layout,
        rx: E1000Layout,
        skbs: PacketPool,
        buffers: PacketPool,
        memory: PacketPool,
        data: Region,
    ) -> None:
        self.name = name
        self.qemu = qemu
        self.mac = mac
        self.tx_name, self.rx_name = tx_name, rx_name
        self.tx, self.rx = tx, rx
        self.skbs, self.buffers, self.memory, self.data = skbs, buffers, memory, data
        self.cells = qemu.device = state.add(E1000Cells, name)
        self._reach(port)

    def _reach(self, port: Port) -> None:
        self.port = port
        self.read_tx, self.read_rx = port.reader(E1000_TX_DESC), port.reader(E1000_RX_DESC)
        self.write_rx = port.writer(E1000_RX_DESC)

    def through(self, port: Port) -> E1000:
        """Give the same device as another thread of QEMU has it, whose CPU reaches guest memory in its own way."""
        other = copy(self)
        other._reach(port)  # noqa: SLF001 - a copy of itself
        return other

    # Frames out

    def outgoing(self) -> bytes | bytearray:
        """Give the frame that was put together, behind a virtio-net header of zeros, which the TAP wants."""
        return bytes(self.header_bytes) + self.data.bytes[: self.cells.size]

    def outgoing_length(self) -> int:
        """Give its length, header included."""
        return self.header_bytes + self.cells.size

    def outgoing_packet(self) -> int:
        """Give its number; for people only."""
        return self.cells.fetched

    # Frames in

    def keep(self, slot: int, frame: bytes) -> None:
        """Put a frame into QEMU's memory."""
        self.memory.cells.length[slot] = len(frame)
        self.memory.memory.write(self.memory.at[slot], frame)

    def kept(self) -> bytes:
        """Give the frame in hand."""
        at = self.memory.at[self.cells.frame]
        return bytes(self.memory.memory.bytes[at : at + self.memory.cells.length[self.cells.frame]])

    def kept_length(self) -> int:
        """Give the length of the frame in hand; 0 if there is none."""
        slot = self.cells.frame
        return self.memory.cells.length[slot] if slot else 0

    def drops_kept(self) -> bool:
        """Say whether the frame in hand was dropped for want of a link: never, for here its link is always up."""
        return False

    def forget(self) -> None:
        """Let the frame in hand go."""
        self.memory.release(self.cells.frame)
        self.cells.frame = 0

    def has_buffers(self) -> bool:
        """Say whether the guest has given the device a buffer (e1000_has_rxbufs)."""
        return self.cells.rdh != self.cells.rdt

    def buffers_left(self) -> int:
        """Count the buffers that the device has."""
        return (self.cells.rdt - self.cells.rdh) % self.rx.size

    def next_in(self) -> int:
        """Give the number of the next packet on the TAP; for people only."""
        return self.qemu.taps[0].next_packet()


class E1000Routine(Routine):
    """A routine of the device model.

    Args:
        ring: name of the ring it works on, if it works on one.
    """

    def __init__(self, name: str, place: Place, device: E1000, ring: str = "") -> None:
        super().__init__(name, place, ring)
        self.device = device
        self.mine = device.cells

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the device's texts speak of."""
        mine, device = self.mine, self.device
        return {
            "qemu": device.qemu.name,
            "tdh": mine.tdh,
            "tdt": mine.tdt,
            "rdh": mine.rdh,
            "rdt": mine.rdt,
            "icr": f"{mine.icr:#x}",
            "ims": f"{mine.ims:#x}",
            "size": mine.size,
            "length": device.kept_length(),
            "left": device.buffers_left(),
        }
