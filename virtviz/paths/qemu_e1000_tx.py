"""QEMU's e1000 sends what lies between head and tail: rows 7 to 12 of path (a)'s way out.

This is the vCPU's thread, in user space: as long as it copies, calls writev() and waits for the host's switch, its
guest stands still. The frame is copied twice on the host: guest memory to QEMU's, QEMU's to the TAP's socket buffer.

Source: QEMU 10.0 hw/net/e1000.c (set_tctl, start_xmit, process_tx_desc, xmit_seg, txdesc_writeback).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import COPIED
from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.qemu_e1000 import E1000, TX_BUFFER_BYTES, E1000Routine
from virtviz.spec.citation import QEMU_E1000
from virtviz.spec.e1000 import (
    E1000_ICR_TXDW,
    E1000_ICR_TXQE,
    E1000_TXD_CMD_EOP,
    E1000_TXD_CMD_RS,
    E1000_TXD_STAT_DD,
    TX_STATUS_AT,
    TX_UPPER,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm_device import AccessCells

ADDRESS, LENGTH, COMMAND = 0, 1, 3
"""Where these stand in a descriptor that was read."""


class SendRing(E1000Routine):
    """A store to TDT: send descriptor after descriptor, until the head has reached the tail.

    Args:
        access: the value stored.
        writev: writev() on the TAP.
        interrupt: what comes of new interrupt causes.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        device: E1000,
        access: AccessCells,
        writev: Routine,
        interrupt: Routine,
    ) -> None:
        super().__init__(name, place, device, device.tx_name)
        self.access = access
        self.writev = writev
        self.interrupt = interrupt

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the length of the descriptor's piece too."""
        return {**super().words(me), "piece": self.piece(me)}

    def _desc(self) -> tuple[int, ...]:
        """Give the descriptor at the head, without noting that it was read."""
        at = self.device.tx.at(self.mine.tdh)
        address = int.from_bytes(self.device.port.read(at, 8), "little")
        length = int.from_bytes(self.device.port.read(at + 8, 2), "little")
        return address, length, 0, self.device.port.read(at + 11, 1)[0]

    def piece(self, me: Context) -> int:
        """Give the bytes that the descriptor at the head names."""
        return self._desc()[LENGTH]

    @op(
        "E1000-TX.7",
        "set the tail register",
        "set_tctl",
        QEMU_E1000,
        text=(
            "The store was to TDT: it is {tdt} now. For the device model that is the order to send, and it does "
            "so here."
        ),
        milestone="backend-awake",
    )
    def set_tail(self, me: Context) -> None:
        self.mine.tdt = self.access.value & 0xFFFF
        if self.mine.reported:
            self.mine.reported = 0

    @op(
        "E1000-TX.7",
        "compare head and tail",
        "start_xmit",
        QEMU_E1000,
        text={
            "descriptors": "TDH is {tdh}, TDT is {tdt}: what lies in between is to be sent.",
            "none": "TDH has reached TDT, {tdt}: the ring is empty.",
        },
        to={"descriptors": goto("read_desc"), "none": goto("note_causes")},
        private=True,
    )
    def compare(self, me: Context) -> str:
        return "descriptors" if self.mine.tdh != self.mine.tdt else "none"

    @op(
        "E1000-TX.8",
        "read the descriptor",
        "start_xmit",
        QEMU_E1000,
        text={
            "first": "QEMU reads descriptor {tdh} out of guest memory: {piece} bytes, and where they lie.",
            "more": "QEMU reads descriptor {tdh}: {piece} more bytes of the same frame.",
        },
        to={"first": goto("copy_packet"), "more": goto("copy_packet")},
        milestone={"first": "fetched"},
        cost="ring cold",
        fence=True,
    )
    def read_desc(self, me: Context) -> str:
        device, mine = self.device, self.mine
        address = device.read_tx(device.tx.at(mine.tdh))[ADDRESS]
        if mine.size:
            return "more"
        me.packet = mine.fetched = device.skbs.packet_at(address)
        return "first"

    @op(
        "E1000-TX.9",
        "copy the frame into QEMU's memory",
        "process_tx_desc",
        QEMU_E1000,
        text={
            COPIED: "{piece} bytes are copied out of guest memory into the device model's own buffer: the first copy."
        },
        to={COPIED: goto("end_of_frame")},
        size="piece",
    )
    def copy_packet(self, me: Context) -> str:
        device, mine = self.device, self.mine
        address, length, _, _ = self._desc()
        length = min(length, TX_BUFFER_BYTES - mine.size)
        port = device.port
        data = port.read(address, length) if port.holds(address, length) else bytes(length)
        device.data.write(mine.size, data)
        mine.size += length
        return COPIED

    @op(
        "E1000-TX.10",
        "see whether the frame is whole",
        "process_tx_desc",
        QEMU_E1000,
        text={
            "whole": "The descriptor says that the frame ends here: its {size} bytes go to the TAP.",
            "part": "The frame goes on in the next descriptor.",
        },
        to={"whole": goto("send"), "part": goto("write_back")},
        private=True,
    )
    def end_of_frame(self, me: Context) -> str:
        return "whole" if self._desc()[COMMAND] & E1000_TXD_CMD_EOP else "part"

    @op(
        "E1000-TX.10",
        "write the frame to the TAP",
        "xmit_seg",
        QEMU_E1000,
        text="One writev() for one frame, by the vCPU's own thread. The guest is outside, and waits for all of it.",
        to=call("writev", "take_up_again"),
    )
    def send(self, me: Context) -> None:
        self.mine.skb = me.skb

    @op(
        "E1000-TX.10",
        "go on with the ring",
        "process_tx_desc",
        QEMU_E1000,
        text="The frame is out of QEMU's hands: its buffer is empty again.",
        to=goto("write_back"),
        private=True,
    )
    def take_up_again(self, me: Context) -> None:
        mine = self.mine
        me.skb = mine.skb
        mine.size = 0
        if me.packet != mine.fetched:
            me.packet = mine.fetched

    @op(
        "E1000-TX.11",
        "report the descriptor as done",
        "txdesc_writeback",
        QEMU_E1000,
        text={
            "reported": "DD is set in descriptor {tdh}: the driver may free the packet. Only now, after writev().",
            "not asked for": "The driver has not asked for a report on this descriptor: nothing is written.",
        },
        to={"reported": goto("advance_head"), "not asked for": goto("advance_head")},
        milestone={"reported": "used"},
        fence=True,
    )
    def write_back(self, me: Context) -> str:
        device, mine = self.device, self.mine
        if not self._desc()[COMMAND] & E1000_TXD_CMD_RS:
            return "not asked for"
        at = device.tx.at(mine.tdh) + TX_STATUS_AT
        status, css, special = TX_UPPER.unpack(device.port.read(at, TX_UPPER.size))
        device.port.write(at, TX_UPPER.pack(status | E1000_TXD_STAT_DD, css, special))
        if not mine.reported:
            mine.reported = 1
        return "reported"

    @op(
        "E1000-TX.11",
        "move the head",
        "start_xmit",
        QEMU_E1000,
        text="TDH moves on to {tdh}.",
        to=goto("compare"),
    )
    def advance_head(self, me: Context) -> None:
        mine = self.mine
        after = mine.tdh + 1
        mine.tdh = after if after < self.device.tx.size else 0

    @op(
        "E1000-TX.12",
        "note the causes of an interrupt",
        "set_ics",
        QEMU_E1000,
        text="The ring is empty, and descriptors were written back: two causes of an interrupt. ICR is {icr}.",
        to=call("interrupt", None),
    )
    def note_causes(self, me: Context) -> None:
        self.mine.icr |= E1000_ICR_TXQE | (E1000_ICR_TXDW if self.mine.reported else 0)
