"""The guest's program and its network stack: sockets, the queueing discipline, byte queue limits.

The program follows its part of the scenario. What it sends is copied into a socket buffer, gets its headers, and goes through the
queueing discipline to the driver. A full transmit queue pushes back: first packets wait in the queueing discipline, then the
sender sleeps because its socket's send buffer is used up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import COPIED, DROPPED, WOKE_PROCESS
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.context import Level
from virtviz.paths.guest_cpu import NET_TX, Waits
from virtviz.paths.queues import Fifo
from virtviz.paths.traffic import END, PAUSE, RECEIVE, SEND, Act
from virtviz.spec.citation import CORE_DATAGRAM, CORE_DEV, CORE_GRO, CORE_SOCK, IP_OUTPUT, SCH_GENERIC, SYSCALL
from virtviz.spec.frames import application_part, summary

if TYPE_CHECKING:
    from virtviz.engine.memory import Region
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.guest_cpu import GuestCpu
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.traffic import Traffic

QDISC_LIMIT = 1000
"""Packets that wait in the queueing discipline: the default txqueuelen of an Ethernet device."""
RECEIVE_QUEUE = 256
"""Packets a socket holds before it drops: the default rcvbuf of 212992 bytes over a small packet's truesize of 768."""
SMALL_TRUESIZE, LARGE_TRUESIZE, SMALL_FRAME = 768, 2304, 448
"""What Linux charges a socket for a packet: a 512-byte or a 2048-byte buffer and the sk_buff; and which frames fit into the first."""


@cells
class AppCells(Cells):
    """Where the program is in its scenario.

    Attributes:
        done: acts done, over all rounds.
        item: index of the item it sends.
        sequence: the sequence number that goes into it.
        received: packets received.
        copied: bytes of the last one.
    """

    done: int = 0
    item: int = 0
    sequence: int = 0
    received: int = 0
    copied: int = 0


@cells
class SocketCells(Cells):
    """A socket: bytes charged to its send buffer, packets dropped because the receive queue was full."""

    charged: int = 0
    dropped: int = 0


class Socket:
    """The program's socket.

    Attributes:
        queue: packets received and not yet read; an entry is twice the slot, plus one if it lies in the receive buffers.
    """

    def __init__(self, state: State, name: str, cpu: GuestCpu, sndbuf: int) -> None:
        self.cpu = cpu
        self.sndbuf = sndbuf
        self.cells = state.add(SocketCells, name)
        self.queue = Fifo(state, f"{name}.receive_queue", RECEIVE_QUEUE)

    def uncharge(self, length: int) -> None:
        """A sent packet was freed: give its share of the send buffer back, and wake a waiting sender at half (sock_wfree)."""
        mine = self.cells
        mine.charged = charged = mine.charged - (SMALL_TRUESIZE if length <= SMALL_FRAME else LARGE_TRUESIZE)
        if charged * 2 < self.sndbuf and self.cpu.cells.waits:
            self.cpu.wake_program(Waits.FOR_ROOM)


@cells
class TxQueueCells(Cells):
    """A transmit queue as the stack sees it.

    Attributes:
        driver_off: 1 while the driver has stopped it.
        stack_off: 1 while byte queue limits have.
        more: 1 while the driver is told that another packet follows at once (xmit_more).
        bulk: bytes that may still go in the present bulk, plus one; 0 outside a bulk.
        dropped: packets the queueing discipline had no room for.
        limit, queued, completed, adjusted: byte queue limits: the limit, bytes ever queued and completed, limit plus completed.
        over, last_queued: what the last completion saw: bytes over the limit, bytes queued.
    """

    driver_off: int = 0
    stack_off: int = 0
    more: int = 0
    bulk: int = 0
    dropped: int = 0
    limit: int = 0
    queued: int = 0
    completed: int = 0
    adjusted: int = 0
    over: int = 0
    last_queued: int = 0


class TxQueue:
    """A transmit queue: the queueing discipline in front of the driver, and its byte queue limits.

    Args:
        bql: byte queue limits are used.
        limit_min: the lowest limit, as in `byte_queue_limits/limit_min`.
    """

    def __init__(self, state: State, name: str, cpu: GuestCpu, *, bql: bool, limit_min: int) -> None:
        self.cpu = cpu
        self.bql = bql
        self.limit_min = limit_min
        self.cells = state.add(TxQueueCells, name, limit=limit_min, adjusted=limit_min)
        self.qdisc = Fifo(state, f"{name}.qdisc", QDISC_LIMIT)

    def room(self) -> int:
        """Give the bytes that may still be queued; negative when the limit is passed (dql_avail)."""
        return self.cells.adjusted - self.cells.queued

    def sent(self, length: int) -> bool:
        """Account for a packet given to the device; answers whether the device must be told now (__netdev_tx_sent_queue)."""
        mine = self.cells
        if not self.bql:
            return not mine.more or bool(mine.driver_off)
        mine.queued = queued = mine.queued + length
        if mine.more:
            return bool(mine.driver_off)
        if mine.adjusted < queued:
            mine.stack_off = 1
        return True

    def completed(self, length: int) -> None:
        """Account for bytes the device has done, and let the stack go on if that makes room (netdev_tx_completed_queue).

        The limit grows when the queue ran dry although it had been over the limit. It never shrinks here: Linux lowers it
        after a second without need, and no run lasts that long.
        """
        if not self.bql or not length:
            return
        mine = self.cells
        done = mine.completed + length
        over = max(0, mine.queued - mine.completed - mine.limit)
        all_done = done >= mine.last_queued
        limit = mine.limit
        if (over and mine.queued == done) or (mine.over and all_done):
            limit += max(0, done - mine.last_queued) + mine.over
        limit = max(limit, self.limit_min)
        if limit != mine.limit:
            mine.limit = limit
            over = 0
        mine.adjusted = limit + done
        if mine.over != over:
            mine.over = over
        mine.completed = done
        mine.last_queued = mine.queued
        if self.room() >= 0 and mine.stack_off:
            mine.stack_off = 0
            self.cpu.raise_softirq(NET_TX)

    def wake(self) -> bool:
        """Let the driver's queue go on; answers whether it had been stopped."""
        if not self.cells.driver_off:
            return False
        self.cells.driver_off = 0
        self.cpu.raise_softirq(NET_TX)
        return True


class Program(Routine):
    """The program in the guest: sends, waits for answers, pauses, as the scenario says.

    Args:
        acts: its program for one round.
        memory: guest memory, in which it has one page to send from and one to receive into.
        send_page, receive_page: addresses of these pages.
    """

    first = "next_act"

    def __init__(  # noqa: PLR0913 - what a program needs
        self,
        state: State,
        name: str,
        place: Place,
        traffic: Traffic,
        vm: int,
        memory: Region,
        send_page: int,
        receive_page: int,
    ) -> None:
        super().__init__(name, place)
        self.traffic = traffic
        self.items = len(traffic.items)
        self.contents = traffic.contents
        self.acts = traffic.acts[vm] or ((END, 0),)
        self.acts_a_round = len(self.acts)
        self.acts_in_all = len(traffic.acts[vm]) * traffic.rounds
        self.pauses_before = [sum(act is PAUSE for act, _ in self.acts[:i]) for i in range(len(self.acts) + 1)]
        self.memory = memory
        self.send_page = send_page
        self.receive_page = receive_page
        self.cells = state.add(AppCells, name)
        self.sendmsg: Routine
        self.recvmsg: Routine

    def words(self, me: Context) -> Mapping[str, object]:
        """Say what the packet is."""
        return {"what": summary(self.traffic.frame(me.packet)) if me.packet else "", "received": self.cells.received}

    @property
    def act(self) -> Act:
        """What it does next."""
        done = self.cells.done
        return self.acts[done % len(self.acts)][0] if done < self.acts_in_all else END

    def phase(self) -> tuple[int, int]:
        """Give the round it is in, and how many pauses of that round it has passed."""
        round_, act = divmod(self.cells.done, len(self.acts))
        return round_, self.pauses_before[act]

    def can_go_on(self) -> bool:
        """Say whether a program that does its own work has something to send at once."""
        return self.act in (SEND, RECEIVE)

    def pause_ends(self) -> bool:
        """Say whether it has something to do after a while."""
        return self.act is PAUSE

    def gives_up(self) -> bool:
        """Say whether waiting for a packet may time out: there is more to do after it."""
        return self.act is RECEIVE and self.cells.done + 1 < self.acts_in_all

    @op(
        "G-TX.1",
        {"send": "call sendmsg()", "receive": "call recvmsg()", "work": "go on with other work"},
        "main",
        SYSCALL,
        text={
            "send": "The program has a packet ready and calls sendmsg(): {what}. A system call, and no exit from the guest.",
            "receive": "The program calls recvmsg(), to wait for what comes back.",
            "work": "The program has nothing to send and does work of its own.",
        },
        to={"send": call("sendmsg", "next_act"), "receive": call("recvmsg", "next_act"), "work": goto("own_work")},
        milestone={"send": "sent"},
        cause="system call",
    )
    def next_act(self, me: Context) -> str:
        mine = self.cells
        if mine.done < self.acts_in_all:
            round_, at = divmod(mine.done, self.acts_a_round)
            act, index = self.acts[at]
            if act is SEND:
                me.packet = packet = round_ * self.items + index + 1
                mine.item = index
                mine.sequence = sequence = packet - self.traffic.answers_back[index]
                self.memory.write(self.send_page, self.contents[index].handed_over(sequence))
                return "send"
            if act is RECEIVE:
                me.packet = 0
                return "receive"
        me.packet = 0
        return "work"

    @op(
        "G-TX.1",
        "do other work",
        "main",
        SYSCALL,
        text="After a while without network traffic the program goes on with its scenario.",
        to=goto("next_act"),
        guard="can_go_on",
        patience="pause_ends",
        private=True,
    )
    def own_work(self, me: Context) -> None:  # noqa: ARG002
        if self.act is PAUSE:
            self.cells.done += 1


class Sendmsg(Routine):
    """The guest kernel's way from a system call down to the driver: rows 2 and 3 of G-TX."""

    def __init__(  # noqa: PLR0913 - what a send path joins
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
        "skb_copy_datagram_from_iter",
        CORE_DATAGRAM,
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

    def copied_in(self, me: Context) -> int:  # noqa: ARG002
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
            "enqueue": "The queue is stopped or others wait ({waiting}): the packet waits in the queueing discipline.",
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
        "__local_bh_enable_ip",
        CORE_DEV,
        text={
            "softirq": "Softirqs were held off while the packet was sent; one is waiting and runs now.",
            "return": "sendmsg() returns. The packet is on its way, or at least in the ring; the program does not wait for it.",
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


class RunQueue(Routine):
    """Send what waits in the queueing discipline while the driver takes it, several in a row where limits allow."""

    def __init__(self, name: str, place: Place, queue: TxQueue, pool: PacketPool, start_xmit: Routine) -> None:
        super().__init__(name, place)
        self.tx = queue
        self.pool = pool
        self.start_xmit = start_xmit

    def words(self, me: Context) -> Mapping[str, object]:  # noqa: ARG002
        """Give the number waiting."""
        return {"waiting": len(self.tx.qdisc)}

    @op(
        "G-TX.3",
        "take the next waiting packet",
        "__qdisc_run",
        SCH_GENERIC,
        text={
            "next": "The next packet goes to the driver; {waiting} more wait.",
            "stopped": "The transmit queue is stopped: {waiting} packets go on waiting.",
            "empty": "Nothing waits any more.",
        },
        to={"next": call("start_xmit", "dequeue"), "stopped": RETURN, "empty": RETURN},
        private=True,
    )
    def dequeue(self, me: Context) -> str:
        queue, mine = self.tx, self.tx.cells
        if not queue.qdisc:
            return "empty"
        # Byte queue limits stop the stack between bulks, not inside one.
        if mine.driver_off or (mine.stack_off and not mine.bulk):
            mine.bulk = 0
            return "stopped"
        skb = queue.qdisc.take()
        length = self.pool.cells.length[skb]
        left = (mine.bulk - 1 if mine.bulk else queue.room() if queue.bql else 0) - length
        more = left > 0 and len(queue.qdisc) > 0
        if mine.more != more:
            mine.more = int(more)
        if mine.bulk or more:
            mine.bulk = left + 1 if more else 0
        me.skb = skb
        me.packet = self.pool.cells.packet[skb]
        return "next"


class Recvmsg(Routine):
    """The program waits for a packet and gets it: row 9 of G-RX."""

    def __init__(  # noqa: PLR0913 - what a receive path joins
        self,
        name: str,
        place: Place,
        program: Program,
        socket: Socket,
        small: PacketPool,
        buffers: PacketPool,
        cpu: GuestCpu,
        idle: Routine,
    ) -> None:
        super().__init__(name, place)
        self.program = program
        self.socket = socket
        self.small = small
        self.buffers = buffers
        self.cpu = cpu
        self.idle = idle

    @op(
        "G-RX.9",
        "look for a packet",
        "__skb_recv_udp",
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
        queue = self.socket.queue
        if queue:
            if me.observed:
                entry = queue.first()
                me.packet = (self.buffers if entry & 1 else self.small).cells.packet[entry >> 1]
            return "packet"
        cpu = self.cpu.cells
        if cpu.timed_out:
            cpu.timed_out = 0
            self.program.cells.done += 1
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
    def copy_to_user(self, me: Context) -> str:  # noqa: ARG002
        entry = self.socket.queue.take()
        pool = self.buffers if entry & 1 else self.small
        frame = pool.data(entry >> 1)
        payload = frame[application_part(frame) :]
        self.program.memory.write(self.program.receive_page, payload)
        self.program.cells.copied = len(payload)
        pool.release(entry >> 1)
        self.program.cells.received += 1
        self.program.cells.done += 1
        return COPIED

    def copied_out(self, me: Context) -> int:  # noqa: ARG002
        """Give the bytes copied to the program."""
        return self.program.cells.copied


class Deliver(Routine):
    """Hand what NAPI collected to IP and the socket, and wake the program: the second half of row 8 of G-RX.

    Args:
        collected: packets collected in this poll, encoded as in `Socket.queue`.
    """

    def __init__(  # noqa: PLR0913 - what delivery joins
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
        "hand the next packet up",
        "netif_receive_skb_list_internal",
        CORE_GRO,
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
        "__udp_enqueue_schedule_skb",
        CORE_SOCK,
        text={
            WOKE_PROCESS: "The packet is on the socket's queue and the program that waits for it can run again.",
            "queued": "The packet is on the socket's queue; the program will find it there.",
            DROPPED: "The socket's receive buffer is full: the packet is dropped here.",
        },
        to={WOKE_PROCESS: goto("next_packet"), "queued": goto("next_packet"), DROPPED: goto("next_packet")},
        into={WOKE_PROCESS: "socket", "queued": "socket"},
    )
    def queue_on_socket(self, me: Context) -> str:  # noqa: ARG002
        entry = self.collected.take()
        if self.socket.queue.put(entry):
            return WOKE_PROCESS if self.cpu.wake_program(Waits.FOR_PACKET) else "queued"
        self.socket.cells.dropped += 1
        (self.buffers if entry & 1 else self.small).release(entry >> 1)
        return DROPPED
