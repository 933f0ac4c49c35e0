"""ovs-vswitchd's upcall handlers: rows 4 to 10 of O-MISS.

A handler is a user-space thread. It sleeps in poll(), reads upcalls until there are none, decides what to do with each
packet, and tells the kernel in one sendmsg: install the flow, then execute the packet. The packet leaves the host
inside that sendmsg.

What its system calls do in the kernel is in `upcall_calls.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.ovs import Question
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import DPIF_NETLINK, LATCH, NETLINK_SOCKET, POLL_LOOP, UPCALL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.ovs import Datapath, UpcallSocket
    from virtviz.paths.packets import PacketPool


UPCALL_MAX_BATCH = 64
"""Upcalls a handler reads before it decides about them."""
LOST = 1 << 32
"""Instead of a slot: recvmsg() said ENOBUFS, messages were lost, and there may be others."""
OPERATE_MAX_OPS = 50
"""Operations, two for each packet, that one sendmsg carries."""


@cells
class HandlerCells(Cells):
    """What a handler keeps.

    Attributes:
        got: the slot in which the last recvmsg put a packet; 0 if it brought nothing, `LOST` if only an error.
        events: sockets that epoll_wait() has named and that have not been read yet, as bits.
        batch: upcalls read in this turn.
        at: the upcall being translated or carried out.
        carried: operations that the present sendmsg has carried out.
        outputs: the output ports decided for each, as bits.
    """

    got: int = 0
    events: int = 0
    batch: int = 0
    at: int = 0
    carried: int = 0
    outputs: list[int]


@cells
class SwitchCells(Cells):
    """What ovs-vswitchd keeps for all handlers: 1 if its count of the kernel's flows is older than 100 ms."""

    count_stale: int = 0


class Handler:
    """An upcall handler thread.

    Attributes:
        sockets: where upcalls wait for it in the kernel: one socket of its own, or every port's.
        by_port: which of the two.
        buffers: its own memory, for the packets of a batch.
        batch: the packets of this turn, in its own memory.
    """

    def __init__(
        self, state: State, name: str, datapath: Datapath, number: int, buffers: PacketPool, *, by_port: bool
    ) -> None:
        self.name = name
        self.thread_name = name.removeprefix("vswitchd.")
        self.dp = datapath
        self.sockets = datapath.upcalls if by_port else datapath.upcalls[number : number + 1]
        self.by_port = by_port
        self.buffers = buffers
        self.cells = state.add(HandlerCells, name, outputs=[0] * UPCALL_MAX_BATCH)
        self.batch = Fifo(state, f"{name}.batch", UPCALL_MAX_BATCH)

    def ready(self) -> int:
        """Say which of its sockets have messages, as bits."""
        return sum(1 << number for number, socket in enumerate(self.sockets) if socket)

    def next_socket(self) -> UpcallSocket:
        """Give the socket to be read now: its own, or the first that epoll_wait() has named."""
        events = self.cells.events
        return self.sockets[(events & -events).bit_length() - 1 if events else 0]


class HandlerLoop(Routine):
    """The handler's user-space code: udpif_upcall_handler.

    Args:
        translate: decides the output ports of a frame that came in by a port, as bits.
        poll_wait, poll_now, receive, ask, answer, operate, drain: the system calls it makes.
    """

    first = "sleep"

    def __init__(
        self,
        name: str,
        place: Place,
        handler: Handler,
        switch: SwitchCells,
        translate: Callable[[bytes | bytearray, int], int],
        *,
        poll_wait: Routine,
        poll_now: Routine,
        receive: Routine,
        ask: Routine,
        answer: Routine,
        operate: Routine,
        drain: Routine,
    ) -> None:
        super().__init__(name, place)
        self.h = handler
        self.switch = switch
        self.decide = translate
        self.poll_wait = poll_wait
        self.poll_now = poll_now
        self.receive = receive
        self.ask = ask
        self.answer = answer
        self.operate = operate
        self.drain = drain

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the batch."""
        reads = "asks epoll_wait() which ports have upcalls" if self.h.by_port else "calls recvmsg() to read an upcall"
        return {"handler": self.h.thread_name, "batch": self.h.cells.batch, "reads": reads}

    @op(
        {"": "O-MISS.10"},
        "sleep in poll()",
        "poll_block",
        POLL_LOOP,
        text="Nothing to do: {handler} calls poll() and sleeps until a message comes.",
        to=call("poll_wait", "check_latch"),
        cause="system call poll()",
    )
    def sleep(self, me: Context) -> None:
        if me.packet:
            me.packet = 0

    @op(
        "O-MISS.4",
        "check whether it shall stop",
        "latch_is_set",
        LATCH,
        text="A poll() that does not wait: has somebody asked this thread to stop? Nobody has.",
        to=call("poll_now", "first_receive"),
        cause="system call poll()",
    )
    def check_latch(self, me: Context) -> None: ...

    @op(
        "O-MISS.4",
        "read the first upcall",
        "recv_upcalls",
        UPCALL,
        text="{handler} {reads}.",
        to=call("receive", "next_receive"),
        cause="system call recvmsg()",
    )
    def first_receive(self, me: Context) -> None: ...

    @op(
        {"sleep": "O-MISS.10", "": "O-MISS.4"},
        {"again": "read the next upcall", "translate": "stop reading", "sleep": "sleep in poll()"},
        "recv_upcalls",
        UPCALL,
        text={
            "again": "One upcall is read. Are there more? Up to 64 are handled together.",
            "translate": "No more upcalls: {batch} to decide about.",
            "sleep": "There was nothing: {handler} goes to sleep in poll().",
        },
        to={
            "again": call("receive", "next_receive"),
            "translate": goto("translate"),
            "sleep": call("poll_wait", "check_latch"),
        },
        cause="system call",
    )
    def next_receive(self, me: Context) -> str:
        mine = self.h.cells
        if mine.got and mine.batch < UPCALL_MAX_BATCH:
            return "again"
        if mine.batch:
            mine.at = 0
            return "translate"
        me.packet = 0
        return "sleep"

    @op(
        "O-MISS.5",
        "decide about the packet",
        "process_upcall",
        UPCALL,
        text=(
            "The OpenFlow tables say what is to be done with such packets. Here: look where the destination "
            "address was learned, and send it there."
        ),
        to={"next": goto("translate"), "last": goto("queue_operations")},
        cost="ovs translate",
        private=True,
    )
    def translate(self, me: Context) -> str:
        mine = self.h.cells
        slot, port, _ = Question.unpacked(self.h.batch.entry(mine.at))
        me.packet = self.h.buffers.cells.packet[slot]
        mine.outputs[mine.at] = self.decide(self.h.buffers.data(slot), port)
        mine.at += 1
        return "next" if mine.at < mine.batch else "last"

    @op(
        "O-MISS.6",
        "queue the operations",
        "handle_upcalls",
        UPCALL,
        text={
            "fresh": (
                "For each packet: install the flow first, then execute the packet. Up to 50 of these operations go "
                "into one sendmsg()."
            ),
            "stale": (
                "Install, then execute. But the number of kernel flows was last asked for more than 100 ms ago: "
                "first that."
            ),
        },
        to={"fresh": goto("send_operations"), "stale": call("ask", "read_flow_count")},
        cause="system call sendmsg()",
    )
    def queue_operations(self, me: Context) -> str:
        self.h.cells.at = 0
        if self.switch.count_stale:
            self.switch.count_stale = 0
            return "stale"
        return "fresh"

    @op(
        "O-MISS.6",
        "read the number of flows",
        "udpif_get_n_flows",
        UPCALL,
        text="The kernel's answer is read: how many flows it holds.",
        to=call("answer", "send_operations"),
        cause="system call recvmsg()",
    )
    def read_flow_count(self, me: Context) -> None: ...

    @op(
        "O-MISS.7",
        "tell the kernel",
        "nl_sock_transact_multiple__",
        NETLINK_SOCKET,
        text=("One sendmsg() carries the operations. Flows are installed and packets leave inside this system call."),
        to=call("operate", "check_errors"),
        cause="system call sendmsg()",
    )
    def send_operations(self, me: Context) -> None: ...

    @op(
        "O-MISS.10",
        "look for errors",
        "nl_sock_transact_multiple__",
        NETLINK_SOCKET,
        text="No acknowledgement was asked for. A recvmsg() that finds nothing means that nothing went wrong.",
        to=call("drain", "look_again"),
        cause="system call recvmsg()",
    )
    def check_errors(self, me: Context) -> None:
        self.h.cells.carried = 0

    @op(
        {"more operations": "O-MISS.7", "round": "O-MISS.10"},
        {"more operations": "tell the kernel the rest", "round": "make one more round"},
        "poll_block",
        POLL_LOOP,
        text={
            "more operations": "50 operations have been carried out: the next sendmsg() begins where this one ended.",
            "round": (
                "Before it sleeps, {handler} goes round once more, for upcalls that came meanwhile; first a "
                "poll() that does not wait."
            ),
        },
        to={"more operations": call("operate", "check_errors"), "round": call("poll_now", "check_latch")},
        cause="system call",
    )
    def look_again(self, me: Context) -> str:
        mine = self.h.cells
        if mine.at < mine.batch:
            return "more operations"
        while self.h.batch:
            self.h.buffers.release(Question.unpacked(self.h.batch.take()).slot)
        mine.batch = 0
        return "round"


class ReceiveByPort(Routine):
    """Reading an upcall where each port has a socket, shared by all handlers: dpif_netlink_recv_vport_dispatch.

    Args:
        epoll: asks which sockets have messages.
        receive: reads a message of the first of them.
    """

    def __init__(self, name: str, place: Place, handler: Handler, epoll: Routine, receive: Routine) -> None:
        super().__init__(name, place)
        self.h = handler
        self.epoll = epoll
        self.receive = receive

    @op(
        "O-MISS.4",
        "look which port is next",
        "dpif_netlink_recv",
        DPIF_NETLINK,
        text={
            "ask": "No port is known to have an upcall: epoll_wait() has to say which ones do.",
            "known": "epoll_wait() has named another port: its socket is read next.",
        },
        to={"ask": call("epoll", "read_socket"), "known": goto("read_socket")},
        cause="system call epoll_wait()",
        private=True,
    )
    def pick(self, me: Context) -> str:
        return "known" if self.h.cells.events else "ask"

    @op(
        "O-MISS.4",
        {"port": "read the port's socket", "none": "find no port"},
        "dpif_netlink_recv",
        DPIF_NETLINK,
        text={
            "port": "The first of the named ports has its socket read: recvmsg().",
            "none": "No port has an upcall: there is nothing to read.",
        },
        to={"port": call("receive", None), "none": RETURN},
        cause="system call recvmsg()",
    )
    def read_socket(self, me: Context) -> str:
        if self.h.cells.events:
            return "port"
        self.h.cells.got = 0
        return "none"
