"""From a system call down to the driver: a socket buffer, headers, and the queueing discipline.

Rows 2 and 3 of block G-TX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import (
    COPIED,
    DROPPED,
)
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.context import Level
from virtviz.paths.guest_cpu import Waits
from virtviz.paths.guest_stack import LARGE_TRUESIZE, SMALL_FRAME, SMALL_TRUESIZE
from virtviz.spec.citation import CORE_DEV, CORE_SOCK, IP_OUTPUT, SOCKET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu
    from virtviz.paths.guest_program import Program
    from virtviz.paths.guest_stack import Socket, TxQueue
    from virtviz.paths.packets import PacketPool


class Sendmsg(Routine):
    """The guest kernel's way from a system call down to the driver: rows 2 and 3 of G-TX."""

    def __init__(
        self,
        name: str,
        place: Place,
        program: Program,
        socket: Socket,
        pool: PacketPool,
        queue: TxQueue,
        cpu: GuestCpu,
        start_xmit: Routine,
        run_queue: Routine,
        softirq: Routine,
        idle: Routine,
    ) -> None:
        super().__init__(name, place)
        self.program = program
        self.socket = socket
        self.pool = pool
        self.tx = queue
        self.cpu = cpu
        self.start_xmit = start_xmit
        self.run_queue = run_queue
        self.softirq = softirq
        self.idle = idle

    def words(self, me: Context) -> Mapping[str, object]:
        """Give sizes."""
        return {"length": self.pool.cells.length[me.skb] if me.skb else 0, "waiting": len(self.tx.qdisc)}

    @op(
        "G-TX.2",
        "get a socket buffer",
        "sock_alloc_send_pskb",
        CORE_SOCK,
        text={
            "room": "The kernel takes a socket buffer for the packet and charges it to the socket.",
            "full": "The socket's send buffer is used up by packets still under way: the sender has to wait.",
        },
        to={"room": goto("copy_from_user"), "full": call("idle", "allocate")},
        private=True,
    )
    def allocate(self, me: Context) -> str:
        mine, program = self.socket.cells, self.program
        if mine.charged >= self.socket.sndbuf:
            self.cpu.cells.waits = Waits.FOR_ROOM
            return "full"
        item = program.cells.item
        length = program.contents[item].length
        me.skb = skb = self.pool.take(me.packet, length)
        self.pool.cells.pieces[skb] = program.traffic.items[item].fragments
        mine.charged += SMALL_TRUESIZE if length <= SMALL_FRAME else LARGE_TRUESIZE
        return "room"

    @op(
        "G-TX.2",
        "copy the payload",
        "ip_generic_getfrag",
        IP_OUTPUT,
        text="The payload is copied from the program's memory into the socket buffer: one copy, inside the guest.",
        to={COPIED: goto("add_headers")},
        size="copied_in",
        private=True,
    )
    def copy_from_user(self, me: Context) -> str:
        program, pool = self.program, self.pool
        content = program.contents[program.cells.item]
        at, part = program.send_page, content.part
        pool.memory.write(pool.at[me.skb] + part, program.memory.bytes[at : at + content.length - part])
        return COPIED

    def copied_in(self, me: Context) -> int:
        """Give the bytes copied from the program."""
        content = self.program.contents[self.program.cells.item]
        return content.length - content.part

    @op(
        "G-TX.3",
        "put the headers in front",
        "ip_output",
        IP_OUTPUT,
        text="UDP or ICMP, IP and Ethernet headers go in front: the frame has {length} bytes.",
        private=True,
        cost="stack",
    )
    def add_headers(self, me: Context) -> None:
        mine = self.program.cells
        headers = self.program.contents[mine.item].headers(mine.sequence)
        if headers:
            self.pool.memory.write(self.pool.at[me.skb], headers)
        mine.done += 1

    @op(
        "G-TX.3",
        "go through the queueing discipline",
        "__dev_queue_xmit",
        CORE_DEV,
        text={
            "bypass": "The queueing discipline is empty and the queue runs: straight on to the driver.",
            "enqueue": "The queue is stopped or others wait: so does the packet. Packets waiting: {waiting}.",
            DROPPED: "The queueing discipline is full: the packet is dropped here.",
        },
        to={
            "bypass": call("start_xmit", "return_to_user"),
            "enqueue": call("run_queue", "return_to_user"),
            DROPPED: goto("return_to_user"),
        },
        into={"enqueue": "qdisc"},
    )
    def enqueue(self, me: Context) -> str:
        self.cpu.cells.softirqs_off = 1
        mine, waiting = self.tx.cells, self.tx.qdisc.cells
        if not (mine.driver_off or mine.stack_off or waiting.put != waiting.taken):
            if mine.more or mine.bulk:
                mine.more = mine.bulk = 0
            return "bypass"
        if self.tx.qdisc.put(me.skb):
            return "enqueue"
        mine.dropped += 1
        self.socket.uncharge(self.pool.cells.length[me.skb])
        self.pool.release(me.skb)
        return DROPPED

    @op(
        "G-TX.1",
        "return to the program",
        "__sys_sendmsg",
        SOCKET,
        text={
            "softirq": "Softirqs were held off while the packet was sent; one is waiting and runs now.",
            "return": (
                "sendmsg() returns. The packet is on its way, or at least in the ring; the program does not wait "
                "for it."
            ),
        },
        to={"softirq": call("softirq", "return_to_user"), "return": RETURN},
        cause="return from the system call",
        private=True,
    )
    def return_to_user(self, me: Context) -> str:
        cpu = self.cpu.cells
        if cpu.softirqs_off:
            cpu.softirqs_off = 0
        if not cpu.pending:
            return "return"
        self.cpu.save(me, Level.SOFTIRQ)
        return "softirq"
