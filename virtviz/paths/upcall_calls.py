"""The system calls of an upcall handler, in the kernel: rows 4 and 8 to 10 of O-MISS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import (
    COPIED,
)
from virtviz.engine.ops import RETURN, Routine, block, call, goto, op
from virtviz.paths.host_net import softirq_waits
from virtviz.paths.ovs import Question
from virtviz.paths.vswitchd import LOST, OPERATE_MAX_OPS
from virtviz.spec.citation import EPOLL, NETLINK, OVS_DATAPATH, POLL, SOFTIRQ

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.host_net import Backlog
    from virtviz.paths.vswitchd import Handler


class PollWait(Routine):
    """poll() in the kernel: sleeps until a message is in the socket."""

    def __init__(self, name: str, place: Place, handler: Handler) -> None:
        super().__init__(name, place)
        self.h = handler

    @op(
        {"sleep": "O-MISS.10", "ready": "O-MISS.4"},
        "wait for a message",
        "do_sys_poll",
        POLL,
        text={
            "ready": "A message is in the socket: poll() returns 1.",
            "sleep": "No message is in the socket: the thread sleeps in the kernel.",
        },
        to={"ready": RETURN, "sleep": block("wait")},
        cause="return from the system call",
        fence=True,
    )
    def wait(self, me: Context) -> str:
        for socket in self.h.sockets:
            if socket:
                me.packet = self.h.dp.pool.cells.packet[Question.unpacked(socket.first()).slot]
                return "ready"
        return "sleep"


class PollNow(Routine):
    """poll() with a timeout of zero."""

    @op(
        "O-MISS.4",
        "answer at once",
        "do_sys_poll",
        POLL,
        text="poll() with no time to wait returns 0 at once.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def answer(self, me: Context) -> None: ...


class NetlinkReceive(Routine):
    """recvmsg() on the upcall socket."""

    def __init__(self, name: str, place: Place, handler: Handler) -> None:
        super().__init__(name, place)
        self.h = handler

    @op(
        "O-MISS.4",
        {COPIED: "read one message", "EAGAIN": "find no message", "ENOBUFS": "learn that messages were lost"},
        "netlink_recvmsg",
        NETLINK,
        text={
            COPIED: "The message, with the whole packet in it, is copied into the handler's memory.",
            "EAGAIN": "The socket is empty: recvmsg() returns EAGAIN.",
            "ENOBUFS": "recvmsg() returns ENOBUFS: the socket was full, and upcalls were lost.",
        },
        to={COPIED: RETURN, "EAGAIN": RETURN, "ENOBUFS": RETURN},
        size="length",
        cause="return from the system call",
    )
    def receive(self, me: Context) -> str:
        handler, mine = self.h, self.h.cells
        socket = handler.next_socket()
        if socket.book.overrun:
            socket.book.overrun = 0
            mine.got = LOST
            return "ENOBUFS"
        # Of a socket that has been named one message is read, until it is named again.
        if mine.events:
            mine.events &= mine.events - 1
        if not socket:
            mine.got = 0
            return "EAGAIN"
        question = Question.unpacked(socket.take())
        pool = handler.dp.pool
        socket.read(pool.cells.length[question.slot])
        me.packet = pool.cells.packet[question.slot]
        own = handler.buffers.take(me.packet)
        handler.buffers.fill(own, pool.data(question.slot))
        handler.batch.put(question._replace(slot=own).packed())
        pool.release(question.slot)
        mine.got = own
        mine.batch += 1
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes of the packet just read."""
        return self.h.buffers.cells.length[self.h.cells.got]


class EpollNow(Routine):
    """epoll_wait() with a timeout of zero: which of the ports' sockets have messages."""

    def __init__(self, name: str, place: Place, handler: Handler) -> None:
        super().__init__(name, place)
        self.h = handler

    @op(
        "O-MISS.4",
        "say which sockets have messages",
        "do_epoll_wait",
        EPOLL,
        text={
            "some": "There are messages in ports' sockets: epoll_wait() names the ports.",
            "none": "No port's socket has a message: epoll_wait() returns 0. Another handler may have been quicker.",
        },
        to={"some": RETURN, "none": RETURN},
        cause="return from the system call",
    )
    def wait(self, me: Context) -> str:
        self.h.cells.events = found = self.h.ready()
        return "some" if found else "none"


class AskFlowCount(Routine):
    """sendmsg() of a request for the datapath's statistics."""

    @op(
        "O-MISS.6",
        "answer the question",
        "ovs_dp_cmd_get",
        OVS_DATAPATH,
        text="The kernel puts its statistics, the number of flows among them, into the socket.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def ask(self, me: Context) -> None: ...


class ReadFlowCount(Routine):
    """recvmsg() of the statistics."""

    @op(
        "O-MISS.6",
        "read the answer",
        "netlink_recvmsg",
        NETLINK,
        text="The statistics are read.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def read(self, me: Context) -> None: ...


class DrainErrors(Routine):
    """recvmsg() that finds no error message."""

    @op(
        "O-MISS.10",
        "find nothing",
        "netlink_recvmsg",
        NETLINK,
        text="The socket is empty: EAGAIN. Nothing went wrong.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def drain(self, me: Context) -> None: ...


class Operate(Routine):
    """sendmsg() of flow puts and packet executions: the kernel carries them out one by one. Rows 8 and 9 of O-MISS.

    Args:
        execute: carries out actions.
    """

    links: Mapping[str, str] = {"let_softirqs_run": "install_flow"}

    def __init__(self, name: str, place: Place, handler: Handler, execute: Routine) -> None:
        super().__init__(name, place)
        self.h = handler
        self.execute = execute

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the number of flows."""
        return {"flows": self.h.dp.flows.cells.count}

    def _question(self) -> Question:
        """Give the upcall being carried out."""
        return Question.unpacked(self.h.batch.entry(self.h.cells.at))

    @op(
        "O-MISS.8",
        {"message done": "return from sendmsg()", "done": "return from sendmsg()", "": "install the flow"},
        "ovs_flow_cmd_new",
        OVS_DATAPATH,
        text={
            "installed": (
                "The flow is in the kernel's table ({flows} in all): the next packet like this one will not have "
                "to ask."
            ),
            "table full": "The kernel's flow table is full: nothing is installed, and such packets will go on asking.",
            "message done": "The operations of this sendmsg() are carried out; another one has the rest.",
            "done": "All operations are carried out.",
        },
        to={
            "installed": goto("rebuild_packet"),
            "table full": goto("rebuild_packet"),
            "message done": RETURN,
            "done": RETURN,
        },
        cause="return from the system call",
    )
    def install_flow(self, me: Context) -> str:
        mine = self.h.cells
        if mine.at >= mine.batch:
            return "done"
        if mine.carried >= OPERATE_MAX_OPS:
            return "message done"
        slot, port, tunnel = self._question()
        me.packet = self.h.buffers.cells.packet[slot]
        found = self.h.dp.flows.insert(self.h.buffers.data(slot), port, mine.outputs[mine.at], tunnel)
        return "installed" if found >= 0 else "table full"

    @op(
        "O-MISS.9",
        "rebuild the packet",
        "ovs_packet_cmd_execute",
        OVS_DATAPATH,
        text=(
            "The packet comes back with the message and is copied into a new socket buffer: the third copy of "
            "this upcall."
        ),
        to={COPIED: call("execute", "let_softirqs_run")},
        size="length",
    )
    def rebuild_packet(self, me: Context) -> str:
        mine, pool = self.h.cells, self.h.dp.pool
        slot, port, _ = self._question()
        me.skb = pool.take(me.packet)
        pool.fill(me.skb, self.h.buffers.data(slot))
        me.port = port
        self.h.dp.begin_actions(me, mine.outputs[mine.at])
        mine.at += 1
        mine.carried += 2
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand."""
        return self.h.dp.pool.cells.length[me.skb]


class OperateWithSoftirqs(Operate):
    """The same where an executed packet may raise a softirq: it runs before the next operation.

    Args:
        softirq: works off what the thread has raised a softirq for.
        backlogs: for each thread, what that is.
    """

    links: Mapping[str, str] = {}

    def __init__(
        self,
        name: str,
        place: Place,
        handler: Handler,
        execute: Routine,
        softirq: Routine,
        backlogs: Sequence[Backlog | None],
    ) -> None:
        super().__init__(name, place, handler, execute)
        self.softirq = softirq
        self.backlogs = backlogs

    @op(
        "O-MISS.9",
        "let softirqs run",
        "__local_bh_enable_ip",
        SOFTIRQ,
        text={
            "softirq": "The packet has raised a softirq, which runs now, in this thread, inside this sendmsg().",
            "none": "Softirqs were held off while the packet was executed; none is waiting.",
        },
        to={"softirq": call("softirq", "install_flow"), "none": goto("install_flow")},
        private=True,
    )
    def let_softirqs_run(self, me: Context) -> str:
        return "softirq" if softirq_waits(self.backlogs, me) else "none"
