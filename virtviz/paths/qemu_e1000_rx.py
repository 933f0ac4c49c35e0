"""QEMU's e1000 puts a frame from the TAP into the guest's receive ring: rows 3 to 7 of path (a)'s way in.

The frame lies in QEMU's memory already; this copies it once more. If the guest has given the device no buffer, the
frame stays where it is, and the TAP is not read until the guest has stored to RDT.

Source: QEMU 10.0 hw/net/e1000.c (e1000_can_receive, e1000_receive_iov, set_rdt), net/tap.c (tap_send), net/net.c.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.effects import COPIED, DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.qemu_e1000 import E1000, E1000Routine
from virtviz.paths.qemu_threads import TellsMainLoop
from virtviz.spec.citation import QEMU_E1000, QEMU_MAIN_LOOP, QEMU_NET, QEMU_TAP
from virtviz.spec.e1000 import (
    E1000_ICR_RXDMT0,
    E1000_ICR_RXT0,
    E1000_RXD_STAT_DD,
    E1000_RXD_STAT_EOP,
    E1000_RXD_STAT_IXSM,
    ETH_FCS_LEN,
    ETH_ZLEN,
    MAXIMUM_ETHERNET_VLAN_SIZE,
    RX_BUFFER_BYTES,
    RX_STATUS_AT,
)

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context


class ReceiveFrame(E1000Routine):
    """Put the frame in hand into the guest's receive ring, or keep it: e1000_receive_iov.

    Args:
        interrupt: what comes of new interrupt causes.
    """

    def __init__(self, name: str, place: Place, device: E1000, interrupt: Routine) -> None:
        super().__init__(name, place, device, device.rx_name)
        self.interrupt = interrupt

    @op(
        "E1000-RX.3",
        "pad a short frame",
        "eth_pad_short_frame",
        QEMU_TAP,
        text={
            "long enough": "The frame has {length} bytes, as much as a real wire would carry at least.",
            "padded": "A real card never sees a frame of fewer than 60 bytes: QEMU appends zeros.",
        },
        to={"long enough": goto("can_receive"), "padded": goto("can_receive")},
        private=True,
    )
    def pad(self, me: Context) -> str:
        memory, slot = self.device.memory, self.mine.frame
        length = memory.cells.length[slot]
        if length >= ETH_ZLEN:
            return "long enough"
        memory.memory.write(memory.at[slot] + length, bytes(ETH_ZLEN - length))
        memory.cells.length[slot] = ETH_ZLEN
        return "padded"

    @op(
        "E1000-RX.3",
        "see whether there are buffers",
        "e1000_can_receive",
        QEMU_E1000,
        text={
            "room": "RDH is {rdh}, RDT is {rdt}: the guest has given the device buffers, {left} of them.",
            "no room": "RDH and RDT are both {rdt}: the guest has given the device no buffer. The frame has to wait.",
        },
        to={"room": goto("ask_filter"), "no room": RETURN},
    )
    def can_receive(self, me: Context) -> str:
        return "room" if self.device.has_buffers() else "no room"

    @op(
        "E1000-RX.3",
        {DROPPED: "throw the frame away", "": "ask whom the frame is for"},
        "receive_filter",
        QEMU_E1000,
        text={
            "for this guest": "The device looks at length and address of the frame, as a real card would: it is taken.",
            DROPPED: "The frame is for another address, or longer than the driver takes: it is dropped here.",
        },
        to={"for this guest": goto("read_desc"), DROPPED: RETURN},
    )
    def ask_filter(self, me: Context) -> str:
        device, mine = self.device, self.mine
        frame = device.kept()
        if len(frame) > MAXIMUM_ETHERNET_VLAN_SIZE:
            mine.oversized += 1
        elif frame[0] & 1 or frame[: len(device.mac)] == device.mac:
            # A group's frames are taken as ones the guest has asked for.
            return "for this guest"
        else:
            mine.filtered += 1
        device.forget()
        return DROPPED

    @op(
        "E1000-RX.4",
        "read the descriptor",
        "e1000_receive_iov",
        QEMU_E1000,
        text="QEMU reads descriptor {rdh} out of guest memory: the address of an empty buffer.",
        cost="ring cold",
        fence=True,
    )
    def read_desc(self, me: Context) -> None:
        device, mine = self.device, self.mine
        mine.address = device.read_rx(device.rx.at(mine.rdh))[0]

    @op(
        "E1000-RX.5",
        "copy the frame into the guest",
        "e1000_receive_iov",
        QEMU_E1000,
        text={COPIED: "QEMU copies the frame, {length} bytes, from its own memory into the guest's: the second copy."},
        to={COPIED: goto("write_desc")},
        size="length",
        milestone="in-guest-buffer",
    )
    def copy_packet(self, me: Context) -> str:
        device, address = self.device, self.mine.address
        data = device.kept()[:RX_BUFFER_BYTES]
        if device.port.holds(address, len(data)):
            device.port.write(address, data)
            device.buffers.note_packet(address, me.packet)
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes of the frame in hand."""
        return self.device.kept_length()

    @op(
        "E1000-RX.6",
        "write the descriptor",
        "e1000_receive_iov",
        QEMU_E1000,
        text=(
            "Descriptor {rdh} gets the length, 4 bytes of checksum included, and that the frame ends here. Not DD yet."
        ),
        fence=True,
    )
    def write_desc(self, me: Context) -> None:
        device, mine = self.device, self.mine
        length = device.kept_length() + ETH_FCS_LEN
        status = E1000_RXD_STAT_EOP | E1000_RXD_STAT_IXSM
        device.write_rx(device.rx.at(mine.rdh), mine.address, length, 0, status, 0, 0)

    @op(
        "E1000-RX.6",
        "report the descriptor as done",
        "e1000_receive_iov",
        QEMU_E1000,
        text="A second write sets DD in descriptor {rdh}: only now may the driver believe the rest of it.",
        milestone="used",
        fence=True,
    )
    def set_done(self, me: Context) -> None:
        device, mine = self.device, self.mine
        status = E1000_RXD_STAT_EOP | E1000_RXD_STAT_IXSM | E1000_RXD_STAT_DD
        device.port.write(device.rx.at(mine.rdh) + RX_STATUS_AT, bytes((status,)))
        device.forget()

    @op(
        "E1000-RX.6",
        "move the head",
        "e1000_receive_iov",
        QEMU_E1000,
        text="RDH moves on to {rdh}.",
    )
    def advance_head(self, me: Context) -> None:
        mine = self.mine
        after = mine.rdh + 1
        mine.rdh = after if after < self.device.rx.size else 0

    @op(
        "E1000-RX.7",
        "note the cause of an interrupt",
        "set_ics",
        QEMU_E1000,
        text={
            "received": "Something was received: a cause of an interrupt. ICR is {icr}.",
            "running low": (
                "Something was received, and buffers are running low, with {left} left: two causes. ICR is {icr}."
            ),
        },
        to={"received": call("interrupt", None), "running low": call("interrupt", None)},
    )
    def note_cause(self, me: Context) -> str:
        mine = self.mine
        # RCTL.RDMTS: half the ring.
        if self.device.buffers_left() > self.device.rx.size // 2:
            mine.icr |= E1000_ICR_RXT0
            return "received"
        mine.icr |= E1000_ICR_RXT0 | E1000_ICR_RXDMT0
        return "running low"


class TakeBuffers(TellsMainLoop, E1000Routine):
    """A store to RDT has come to QEMU: the device has buffers again, and what waits is delivered.

    Args:
        receive: delivers the frame that waits.
        write: write() to the main loop's eventfd.
    """

    first = "flush"
    rows = MappingProxyType({"KICK.4": "E1000-RX.16"})

    def __init__(self, name: str, place: Place, device: E1000, receive: Routine, write: Routine) -> None:
        super().__init__(name, place, device, device.rx_name)
        self.qemu = device.qemu
        self.receive = receive
        self.write = write

    @op(
        "E1000-RX.16",
        "look for a frame that waits",
        "qemu_flush_queued_packets",
        QEMU_NET,
        text={
            "waits": "A frame has been waiting in QEMU for a buffer: it is delivered now, by the vCPU's thread.",
            "nothing waits": "The device has buffers. No frame has been waiting for them.",
            "no buffers": "RDH has come as far as the new RDT already: the device still has no buffer.",
        },
        to={"waits": call("receive", "read_tap_again"), "nothing waits": goto("notify_event"), "no buffers": RETURN},
    )
    def flush(self, me: Context) -> str:
        if not self.device.has_buffers():
            return "no buffers"
        if not self.mine.frame:
            return "nothing waits"
        me.packet = self.device.memory.cells.packet[self.mine.frame]
        return "waits"

    @op(
        "E1000-RX.16",
        "read the TAP again",
        "tap_send_completed",
        QEMU_TAP,
        text="The frame is out of QEMU's hands: the TAP is among what ppoll() waits for again.",
    )
    def read_tap_again(self, me: Context) -> None:
        self.device.qemu.poll_tap(0, wanted=True)

    @op(
        "E1000-RX.16",
        "have the main loop look at the TAP",
        "qemu_notify_event",
        QEMU_MAIN_LOOP,
        text="There may be frames on the TAP that could be delivered now: the main loop shall look, whether or not.",
        to=goto("notify"),
    )
    def notify_event(self, me: Context) -> None:
        self.device.qemu.schedule(0)
