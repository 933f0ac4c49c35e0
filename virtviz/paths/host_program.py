"""A program of the host that holds /dev/net/tun itself: a VPN client, or a network stack in user space. TUN-TX, TUN-RX.

It is where QEMU is otherwise, and there is no guest: no virtual CPU, no ring, no exit. What it writes to the descriptor
the host receives, what the host sends on the device it reads; each packet costs a system call and a copy.

Source: Linux 6.12 drivers/net/tun.c (tun_get_user, tun_do_read), fs/select.c.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import ALREADY_AWAKE, COPIED, DROPPED, WOKE
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.guest_program import Program
from virtviz.spec.citation import ETHERNET, POLL, SCENARIO, TUN
from virtviz.spec.frames import ETH_HEADER_BYTES
from virtviz.spec.tcp import TcpData

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.tap import Tap
    from virtviz.spec.frames import Capture, Template

IPV4, IPV6 = 4, 6
"""What the first four bits of a packet can be on a TUN."""


class WholePacket:
    """What a program writes that makes all headers itself: the frame, or what is behind its Ethernet header.

    Args:
        content: makes the frame.
        skip: bytes of it that the program does not write.
    """

    def __init__(self, content: Template | Capture, skip: int) -> None:
        self.content = content
        self.skip = skip
        self.length = content.length - skip
        self.part = 0

    def handed_over(self, sequence: int) -> bytes:
        """Give what is written, for a sequence number."""
        return (self.content.headers(sequence) + self.content.handed_over(sequence))[self.skip :]

    def headers(self, sequence: int) -> bytes:
        """Give nothing: the kernel adds no header."""
        return b""


@cells
class DescriptorCells(Cells):
    """What there is to know about the program's descriptor.

    Attributes:
        waiting: 1 while the program is on its wait queue.
        woken: 1 once it has been woken and has not run yet.
        readable: what poll() has answered.
        got: bytes of the last read.
        refused: writes that failed because they were no packet for this device.
    """

    waiting: int = 0
    woken: int = 0
    readable: int = 0
    got: int = 0
    refused: int = 0


class HostProgram(Program):
    """The program: writes its packets, waits in poll(), reads what comes.

    Attributes:
        device: the network device.
        fd: what there is to know about its descriptor.
        skip: bytes of an Ethernet frame that it neither writes nor reads: 0, or all of its header.
        write, poll, read: the system calls.
    """

    device: Tap
    fd: DescriptorCells
    skip: int = 0
    write: Routine
    poll: Routine
    read: Routine
    rows: Mapping[str, str] = {"G-TX.1": "TUN-TX.1"}

    def hold(self, state: State, device: Tap, skip: int) -> None:
        """Open the device; see the attributes."""
        self.device = device
        self.skip = skip
        self.fd = state.add(DescriptorCells, f"{device.name}.fd")
        # TCP does not come this way; a scenario with it is refused.
        ways = (content for content in self.traffic.contents if not isinstance(content, TcpData))
        self.contents = tuple(WholePacket(content, skip) for content in ways)

    def something_waits(self) -> bool:
        """Say whether a packet waits in its device."""
        return bool(self.device.queue)

    def words(self, me: Context) -> Mapping[str, object]:
        """Say what the packet is."""
        return {
            **super().words(me),
            "device": self.device.name,
            "bytes": self.traffic.length(me.packet) - self.skip if me.packet else 0,
            "got": self.fd.got,
            "kind": "an IP packet without Ethernet header" if self.skip else "a whole Ethernet frame",
        }

    @op(
        {"send": "TUN-TX.1", "": "TUN-RX.4"},
        {"send": "call write()", "receive": "call poll()", "work": "go on with other work"},
        "main",
        SCENARIO,
        text={
            "send": "The program has made {kind}, {bytes} bytes, and writes it to its descriptor: {what}.",
            "receive": "The program calls poll(): it wants to know when its descriptor can be read.",
            "work": "The program has nothing to send and does work of its own.",
        },
        to={"send": call("write", "next_act"), "receive": call("poll", "polled"), "work": goto("own_work")},
        milestone={"send": "sent"},
        cause="system call",
    )
    def next_act(self, me: Context) -> str:
        return super().next_act(me) or ""

    @op(
        "TUN-RX.5",
        {"read": "call read()", "gave up": "give up"},
        "main",
        SCENARIO,
        text={
            "read": "poll() says that {device} can be read. One read() takes one packet.",
            "gave up": "poll() has timed out: nothing will come any more, and the program goes on without it.",
        },
        to={"read": call("read", "take_packet"), "gave up": goto("next_act")},
        cause="system call",
    )
    def polled(self, me: Context) -> str:
        if self.fd.readable:
            return "read"
        self.give_up()
        return "gave up"

    @op(
        "TUN-RX.5",
        "look at the packet",
        "main",
        SCENARIO,
        text="The program has {kind}, {got} bytes. What is inside is its own business: no kernel looks at it for it.",
        to=goto("next_act"),
        milestone="received",
        private=True,
    )
    def take_packet(self, me: Context) -> None:
        self.received(self.fd.got)


class Write(Routine):
    """write(): a packet of the program comes out of the device and goes up the host's stack. Rows 2 and 3 of TUN-TX.

    This is a TAP: what is written is an Ethernet frame.

    Args:
        program: who writes.
        port: number of the switch's port that the device is; 0 if it is none.
        receive: what takes the packet.
    """

    def __init__(self, name: str, place: Place, program: HostProgram, port: int, receive: Routine) -> None:
        super().__init__(name, place)
        self.program = program
        self.device = program.device
        self.port = port
        self.receive = receive

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the device, the length, and the first four bits."""
        at = self.program.send_page
        return {
            "device": self.device.name,
            "length": self.length(me),
            "version": self.program.memory.bytes[at] >> 4,
        }

    def length(self, me: Context) -> int:
        """Give the bytes that are written."""
        return self.program.contents[self.program.cells.item].length

    @op(
        "TUN-TX.2",
        "copy the packet in",
        "tun_get_user",
        TUN,
        text={
            COPIED: "The kernel copies {length} bytes out of the program's memory into a socket buffer: the one copy.",
            DROPPED: "This is shorter than an Ethernet header, or the host has no memory for it: write() fails.",
        },
        to={COPIED: goto("find_protocol"), DROPPED: goto("finish")},
        size="length",
        cost="tap",
    )
    def copy_in(self, me: Context) -> str:
        pool, program = self.device.pool, self.program
        length = self.length(me)
        if length < self.least or not pool.cells.free_count:
            program.fd.refused += 1
            return DROPPED
        me.skb = slot = pool.take(me.packet)
        pool.fill(slot, program.memory.bytes[program.send_page : program.send_page + length])
        return COPIED

    least = ETH_HEADER_BYTES
    """Bytes below which nothing can be a packet."""

    @op(
        "TUN-TX.3",
        "find out what it is",
        "eth_type_trans",
        ETHERNET,
        text={
            "packet": "A TAP's packet begins with an Ethernet header: 14 bytes, two addresses and a type that tells.",
            DROPPED: "",
        },
        to={"packet": goto("hand_up"), DROPPED: goto("finish")},
    )
    def find_protocol(self, me: Context) -> str:
        return "packet"

    @op(
        "TUN-TX.3",
        "hand it up",
        "tun_rx_batched",
        TUN,
        text="{device} hands the frame to the switch whose port it is, in the program's own thread, inside write().",
        to=call("receive", "finish"),
        milestone="at-tap",
        private=True,
    )
    def hand_up(self, me: Context) -> None:
        if self.port:
            me.port = self.port

    @op(
        "TUN-TX.3",
        "return from write()",
        "tun_chr_write_iter",
        TUN,
        text="write() returns: the packet is with the card's driver, waits for somebody, or is lost.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def finish(self, me: Context) -> None:
        self.program.cells.done += 1


class WriteIp(Write):
    """The same with a TUN: what is written is an IP packet, and only its own first bits say which IP."""

    least = 1
    retold = MappingProxyType(
        {
            "hand_up": {
                "text": (
                    "{device} is no port of a switch: the packet goes to the host's own IP, in the program's thread."
                )
            }
        }
    )

    @op(
        "TUN-TX.3",
        "find out what it is",
        "tun_get_user",
        TUN,
        text={
            "packet": "No Ethernet header says what this is. The first four bits do: {version}, so it is IPv{version}.",
            DROPPED: "The first four bits are neither 4 nor 6: write() fails with EINVAL, and rx_dropped counts it.",
        },
        to={"packet": goto("hand_up"), DROPPED: goto("finish")},
    )
    def find_protocol(self, me: Context) -> str:
        pool = self.device.pool
        if pool.data(me.skb)[0] >> 4 in (IPV4, IPV6):
            return "packet"
        self.program.fd.refused += 1
        pool.release(me.skb)
        return DROPPED

    def hand_up(self, me: Context) -> None:
        """Leave the packet as it is: there is no Ethernet header to take off."""


class Poll(Routine):
    """poll() of the descriptor: the program sleeps until it can be read. Row 4 of TUN-RX."""

    def __init__(self, name: str, place: Place, program: HostProgram) -> None:
        super().__init__(name, place)
        self.program = program

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the device."""
        return {"device": self.program.device.name}

    @op(
        "TUN-RX.4",
        "look at the descriptor",
        "do_sys_poll",
        POLL,
        text={
            "ready": "{device}'s queue holds a packet: poll() returns at once.",
            "wait": "{device}'s queue is empty: the program goes on its wait queue and sleeps in the kernel.",
        },
        to={"ready": RETURN, "wait": goto("wait")},
        cause="return from the system call",
        fence=True,
    )
    def look(self, me: Context) -> str:
        fd, device = self.program.fd, self.program.device
        fd.readable = found = int(bool(device.queue))
        if found:
            return "ready"
        device.cells.watched = fd.waiting = 1
        return "wait"

    def is_woken(self) -> bool:
        """Say whether somebody has woken it."""
        return bool(self.program.fd.woken)

    def gives_up(self) -> bool:
        """Say whether poll() may time out."""
        return self.program.gives_up()

    @op(
        "TUN-RX.4",
        {"ready": "run again", "timeout": "time out"},
        "do_sys_poll",
        POLL,
        text={
            "ready": "The program runs again: {device} can be read now, and poll() returns.",
            "timeout": "Nothing has come for so long that poll() returns with nothing.",
        },
        to={"ready": RETURN, "timeout": RETURN},
        cause="return from the system call",
        guard="is_woken",
        patience="gives_up",
        milestone={"ready": "backend-awake"},
    )
    def wait(self, me: Context) -> str:
        fd, device = self.program.fd, self.program.device
        device.cells.watched = fd.waiting = fd.woken = 0
        fd.readable = int(bool(device.queue))
        if not fd.readable:
            return "timeout"
        if me.observed:
            me.packet = device.next_packet()
        return "ready"


class WakeReader(Routine):
    """The callback on the device's wait queue: wake the program that waits in poll(). N-IN.10."""

    def __init__(self, name: str, place: Place, program: HostProgram, reader: object) -> None:
        super().__init__(name, place)
        self.program = program
        self.reader = reader

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the device."""
        return {"device": self.program.device.name}

    @op(
        "N-IN.10",
        "wake who waits in poll()",
        "pollwake",
        POLL,
        text={
            WOKE: "The program sleeps in poll() because of {device}: it is made runnable.",
            ALREADY_AWAKE: "The program has been woken already, and has not run yet.",
        },
        to={WOKE: RETURN, ALREADY_AWAKE: RETURN},
        target="reader",
        fence=True,
    )
    def wake_reader(self, me: Context) -> str:
        fd = self.program.fd
        if fd.woken:
            return ALREADY_AWAKE
        fd.woken = 1
        return WOKE


class Read(Routine):
    """read(): a packet for the program is copied out of the device's queue. Row 5 of TUN-RX."""

    def __init__(self, name: str, place: Place, program: HostProgram) -> None:
        super().__init__(name, place)
        self.program = program

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the device and the length."""
        return {"device": self.program.device.name, "length": self.length(me)}

    def length(self, me: Context) -> int:
        """Give the bytes just read."""
        return self.program.fd.got

    @op(
        "TUN-RX.5",
        "read one packet",
        "tun_do_read",
        TUN,
        text="The kernel copies the packet, {length} bytes, into the program's memory, and frees its own buffer.",
        to={COPIED: RETURN},
        size="length",
        cause="return from the system call",
        cost="tap",
    )
    def read_packet(self, me: Context) -> str:
        program, device = self.program, self.program.device
        slot = device.queue.take()
        data = bytes(device.pool.data(slot))
        me.packet = device.pool.cells.packet[slot]
        device.pool.release(slot)
        program.memory.write(program.receive_page, data)
        program.fd.got = len(data)
        return COPIED
