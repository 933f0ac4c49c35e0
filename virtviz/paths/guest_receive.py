"""From the driver up to a system call: IP and the socket, then the program's recvmsg(). Rows 8 and 9 of block G-RX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import (
    COPIED,
    DROPPED,
    WOKE_PROCESS,
)
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.guest_cpu import Waits
from virtviz.spec.citation import CORE_DATAGRAM, CORE_DEV, CORE_SOCK
from virtviz.spec.frames import application_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu
    from virtviz.paths.guest_program import Program
    from virtviz.paths.guest_stack import Socket
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.queues import Fifo


@cells
class OtherHostCells(Cells):
    """Frames that came to a network device and were for another station (rx_otherhost_dropped)."""

    dropped: int = 0


class Deliver(Routine):
    """Hand what NAPI collected to IP and the socket, and wake the program: the second half of row 8 of G-RX.

    Args:
        collected: packets collected in this poll, encoded as in `Socket.queue`.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        collected: Fifo,
        socket: Socket,
        small: PacketPool,
        buffers: PacketPool,
        cpu: GuestCpu,
    ) -> None:
        super().__init__(name, place)
        self.collected = collected
        self.socket = socket
        self.small = small
        self.buffers = buffers
        self.cpu = cpu

    @op(
        "G-RX.8",
        {"packet": "hand the next packet up", "none": "find no more packets"},
        "netif_receive_skb_list_internal",
        CORE_DEV,
        text={
            "packet": "IP and ICMP or UDP look at the packet and find the socket it is for.",
            "none": "Every collected packet has been handed up.",
        },
        to={"packet": goto("queue_on_socket"), "none": RETURN},
        private=True,
    )
    def next_packet(self, me: Context) -> str:
        if not self.collected:
            return "none"
        if me.observed:
            entry = self.collected.first()
            me.packet = (self.buffers if entry & 1 else self.small).cells.packet[entry >> 1]
        return "packet"

    @op(
        "G-RX.8",
        "put it on the socket",
        "sock_def_readable",
        CORE_SOCK,
        text={
            WOKE_PROCESS: "The packet is on the socket's queue and the program that waits for it can run again.",
            "queued": "The packet is on the socket's queue; the program will find it there.",
            DROPPED: "The socket's receive buffer is full: the packet is dropped here.",
        },
        to={WOKE_PROCESS: goto("next_packet"), "queued": goto("next_packet"), DROPPED: goto("next_packet")},
        into={WOKE_PROCESS: "socket", "queued": "socket"},
    )
    def queue_on_socket(self, me: Context) -> str:
        entry = self.collected.take()
        if self.socket.queue.put(entry):
            return WOKE_PROCESS if self.cpu.wake_program(Waits.FOR_PACKET) else "queued"
        self.socket.cells.dropped += 1
        (self.buffers if entry & 1 else self.small).release(entry >> 1)
        return DROPPED


class OwnFramesOnly(Deliver):
    """The same on a network where a switch floods frames that are for somebody else.

    Attributes:
        mac: the guest's own Ethernet address.
        others: what keeps the count of such frames.
    """

    mac: bytes
    others: OtherHostCells

    @op(
        "G-RX.8",
        {"packet": "hand the next packet up", "none": "find no more packets", DROPPED: "drop a frame for another host"},
        "netif_receive_skb_list_internal",
        CORE_DEV,
        text={
            "packet": "IP and ICMP or UDP look at the packet and find the socket it is for.",
            "none": "Every collected packet has been handed up.",
            DROPPED: "The frame's target is another station: its copy came by flooding. IP drops it unread.",
        },
        to={"packet": goto("queue_on_socket"), "none": RETURN, DROPPED: goto("next_packet")},
        private=True,
    )
    def next_packet(self, me: Context) -> str:
        answer = super().next_packet(me) or ""
        if answer == "none":
            return answer
        entry = self.collected.first()
        pool, slot = self.buffers if entry & 1 else self.small, entry >> 1
        target = pool.data(slot)[: len(self.mac)]
        if target[0] & 1 or target == self.mac:
            return answer
        self.collected.take()
        pool.release(slot)
        self.others.dropped += 1
        return DROPPED


class DeliverOwn(OwnFramesOnly):
    """That, for a guest with one vCPU."""


class Recvmsg(Routine):
    """The program waits for a packet and gets it: row 9 of G-RX.

    Args:
        pools: where packets on the socket lie: for each vCPU's receive queue, what was copied out, and its buffers.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        program: Program,
        socket: Socket,
        pools: Sequence[PacketPool],
        cpu: GuestCpu,
        idle: Routine,
    ) -> None:
        super().__init__(name, place)
        self.program = program
        self.socket = socket
        self.pools = pools
        self._in_all = len(pools)
        self.cpu = cpu
        self.idle = idle

    @op(
        "G-RX.9",
        "look for a packet",
        "__skb_try_recv_from_queue",
        CORE_DATAGRAM,
        text={
            "packet": "A packet is in the socket's queue.",
            "wait": "Nothing has come yet: the program sleeps, and the guest has nothing else to run.",
            "timeout": "Nothing will come any more: the call times out.",
        },
        to={"packet": goto("copy_to_user"), "wait": call("idle", "look"), "timeout": RETURN},
        cause="return from the system call",
    )
    def look(self, me: Context) -> str:
        queue, cpu = self.socket.queue, self.cpu.cells
        if queue:
            if cpu.timed_out:
                # It has come after all.
                cpu.timed_out = 0
            if me.observed:
                slot, pool = divmod(queue.first(), self._in_all)
                me.packet = self.pools[pool].cells.packet[slot]
            return "packet"
        if cpu.timed_out:
            cpu.timed_out = 0
            self.program.give_up()
            return "timeout"
        cpu.waits = Waits.FOR_PACKET
        return "wait"

    @op(
        "G-RX.9",
        "copy to the program",
        "skb_copy_datagram_iter",
        CORE_DATAGRAM,
        text="The payload is copied into the program's memory, and recvmsg() returns.",
        to={COPIED: RETURN},
        size="copied_out",
        milestone="received",
        cause="return from the system call",
    )
    def copy_to_user(self, me: Context) -> str:
        slot, number = divmod(self.socket.queue.take(), self._in_all)
        pool = self.pools[number]
        frame = pool.data(slot)
        payload = frame[application_part(frame) :]
        self.program.memory.write(self.program.receive_page, payload)
        pool.release(slot)
        self.program.received(len(payload))
        return COPIED

    def copied_out(self, me: Context) -> int:
        """Give the bytes copied to the program."""
        return self.program.cells.copied
