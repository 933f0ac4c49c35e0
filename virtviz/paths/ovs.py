"""Open vSwitch's kernel datapath: blocks O-FWD and O-MISS rows 1 to 3, 8 and 9.

It has no thread. It runs inside whoever hands it a frame: the vhost worker, a softirq, or an upcall handler that tells
the kernel to execute a packet. A flow is a match on input port, Ethernet addresses and type, and the ports to send to.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import ALREADY_AWAKE, COPIED, DROPPED, UPCALLED, WOKE
from virtviz.engine.ops import RETURN, Routine, call, call_any, goto, op
from virtviz.paths.queues import Fifo
from virtviz.paths.switch_ports import SendOut, SwitchPorts
from virtviz.spec.citation import (
    GENETLINK_H,
    NETLINK,
    OVS_ACTIONS,
    OVS_DATAPATH,
    OVS_FLOW,
    OVS_FLOW_TABLE,
    OVS_VPORT_NETDEV,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool

FLOWS = 256
"""Slots of the flow table; a power of two."""
UPCALLS_MAX = 2048
"""Messages that all sockets together hold here, whatever room they have; 4 MiB are enough for more."""
MESSAGE_BYTES, SHARED_INFO_BYTES, SKB_BYTES = 700, 320, 256
"""Of an upcall message: the attributes beside the packet at their largest (upcall_msg_size), roughly; what the kernel
keeps at the end of a buffer (skb_shared_info), and for it (sk_buff)."""
_HEADER = struct.Struct("!QIH")
_MIX, _PRIME = 31, 65537
"""For spreading matches over the slots."""


@cells
class FlowCells(Cells):
    """The flow table, by slot: the match in two words, and the actions (as in `SwitchPorts`) plus one; 0 if empty."""

    count: int = 0
    first: list[int]
    second: list[int]
    outputs: list[int]


@cells
class DatapathCells(Cells):
    """What the datapath keeps: packets lost because a handler's socket was full, packets no action wanted."""

    lost: int = 0
    dropped: int = 0


@cells
class SocketCells(Cells):
    """What a netlink socket keeps beside its queue.

    Attributes:
        charged: bytes that its messages are charged with (sk_rmem_alloc).
        congested: 1 from when a message did not fit until the queue is empty: none is taken meanwhile.
        overrun: 1 if its reader is still to be told that messages were lost (ENOBUFS).
    """

    charged: int = 0
    congested: int = 0
    overrun: int = 0


def charge(length: int) -> int:
    """Give what a message with a packet of that length is charged with: the buffer that it lies in, and its sk_buff."""
    return (1 << (length + MESSAGE_BYTES + SHARED_INFO_BYTES - 1).bit_length()) + SKB_BYTES


class UpcallSocket(Fifo):
    """A netlink socket of ovs-vswitchd that the kernel puts upcalls into.

    Args:
        state: where its cells are made.
        name: such as `ovs.upcalls1`.
        capacity: messages for which there is a place here.
        room: bytes of its receive buffer as it was asked for (SO_RCVBUF); the kernel doubles them.
    """

    def __init__(self, state: State, name: str, capacity: int, room: int) -> None:
        super().__init__(state, name, capacity)
        self.room = 2 * room
        self.book = state.add(SocketCells, f"{name}.socket")

    def offer(self, message: int, length: int) -> bool:
        """Put a message with a packet of that length in; answers False if it is lost (netlink_attachskb)."""
        book = self.book
        if book.charged > self.room or book.congested or not self.put(message):
            book.congested = book.overrun = 1
            return False
        book.charged += charge(length)
        return True

    def read(self, length: int) -> None:
        """Note that the first message, with a packet of that length, has been taken out."""
        self.book.charged -= charge(length)
        if self.book.congested and not self:
            self.book.congested = 0


class FlowTable:
    """Megaflows: exact matches on what the switch looked at."""

    def __init__(self, state: State, name: str) -> None:
        # One slot more, always empty: where a search ends that finds nothing.
        slots = [0] * (FLOWS + 1)
        self.cells = self._cells(state, name, slots)

    def _cells(self, state: State, name: str, slots: list[int]) -> FlowCells:
        return state.add(FlowCells, name, first=slots, second=slots, outputs=slots)

    def find(self, frame: bytes | bytearray, port: int, at: int = 0) -> int:
        """Give the output ports for a frame, as bits; -1 if its flow is unknown.

        The match is two words: the frame's first 8 bytes; then the next 6 (rest of the source, type) and the input
        port.

        Args:
            frame: bytes that contain it.
            port: the port it came in by.
            at: where in them it begins.
        """
        mine = self.cells
        first, rest, ethertype = _HEADER.unpack_from(frame, at)
        second = port << 48 | rest << 16 | ethertype
        slot = (first ^ second * _MIX) % _PRIME % FLOWS
        if mine.first[slot] != first or mine.second[slot] != second:
            slot = self._slot(first, second)
        return int(mine.outputs[slot]) - 1

    def _slot(self, first: int, second: int, tunnel: int = 0) -> int:
        """Find the slot of a match, or the empty one it would go to; the one behind the last if the table is full."""
        mine = self.cells
        home = at = (first ^ second * _MIX) % _PRIME % FLOWS
        while mine.outputs[at] and (
            mine.first[at] != first or mine.second[at] != second or self.tunnel_of(at) != tunnel
        ):
            at = (at + 1) % FLOWS
            if at == home:
                return FLOWS
        return at

    def slot_of(self, frame: bytes | bytearray, port: int, at: int = 0) -> int:
        """Give the slot of a frame's flow, -1 if its flow is unknown; see `find`."""
        slot = self._slot(*self.words_of(frame, port, at))
        return slot if self.cells.outputs[slot] else -1

    def outputs_of(self, slot: int) -> int:
        """Give the output ports of the flow in a slot, as bits."""
        return self.cells.outputs[slot] - 1

    @staticmethod
    def words_of(frame: bytes | bytearray, port: int, at: int = 0) -> tuple[int, int]:
        """Give the two words of the match for a frame; arguments as in `find`."""
        first, rest, ethertype = _HEADER.unpack_from(frame, at)
        return first, port << 48 | rest << 16 | ethertype

    def tunnel_of(self, slot: int) -> int:
        """Give the tunnel key that the flow in a slot is for; 0 for none."""
        return 0

    def insert(self, frame: bytes | bytearray, port: int, outputs: int, tunnel: int = 0) -> int:
        """Add the flow of a frame that came in by a port, with a tunnel key; answers its slot, or -1 if it is full."""
        mine = self.cells
        first, second = self.words_of(frame, port)
        slot = self._slot(first, second, tunnel)
        if slot == FLOWS:
            return -1
        if not mine.outputs[slot]:
            mine.count += 1
        mine.first[slot], mine.second[slot], mine.outputs[slot] = first, second, outputs + 1
        return slot


class Datapath(SwitchPorts):
    """An OVS kernel datapath.

    Args:
        sockets: how many sockets there are for its questions.
        room: bytes of each one's receive buffer.
        packets: packets that there can be at once.

    Attributes:
        flows: its flow table.
        upcalls: the sockets that it puts questions into: one for each handler, or for each port.
    """

    flow_table: ClassVar[type[FlowTable]] = FlowTable

    def __init__(
        self, state: State, name: str, pool: PacketPool, sockets: int, ports: Sequence[str], *, room: int, packets: int
    ) -> None:
        super().__init__(name, pool, ports)
        self.flows = self.flow_table(state, f"{name}.flows")
        self.cells = state.add(DatapathCells, name)
        places = min(packets, UPCALLS_MAX // sockets)
        self.upcalls = [UpcallSocket(state, f"{name}.upcalls{i + 1}", places, room) for i in range(sockets)]

    def tunnel_key(self, slot: int) -> int:
        """Give the tunnel key that goes with a packet; 0 for none."""
        return 0


class Receive(Routine):
    """A frame enters the switch by a port: O-FWD rows 1 to 3.

    Args:
        execute: carries out a flow's actions.
        upcalls: for each socket, name -> what queues the packet in it.
        cpus: CPU number of each thread, which decides the socket; None if the port does.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        datapath: Datapath,
        execute: Routine,
        upcalls: Mapping[str, Routine],
        cpus: Sequence[int] | None,
    ) -> None:
        super().__init__(name, place)
        self.dp = datapath
        self.execute = execute
        self.upcalls = upcalls
        self.cpus = cpus
        self._names = list(upcalls)
        self._whose = "the port's socket" if cpus is None else "the socket of the handler for this CPU"

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the port."""
        port = self.dp.ports[me.port - 1] if me.port else "?"
        return {"port": port, "flows": self.dp.flows.cells.count, "whose": self._whose}

    @op(
        "O-FWD.1",
        "enter the switch",
        "netdev_frame_hook",
        OVS_VPORT_NETDEV,
        text=(
            "{port} is a port of the switch: Open vSwitch's handler takes the frame before the host's own "
            "stack sees it."
        ),
        milestone="at-switch",
    )
    def enter(self, me: Context) -> None: ...

    @op(
        "O-FWD.2",
        "read the headers",
        "ovs_flow_key_extract",
        OVS_FLOW,
        text="The headers are parsed into a flow key: input port, Ethernet addresses, type and more.",
        private=True,
        cost="ovs key",
    )
    def extract_key(self, me: Context) -> None: ...

    @op(
        {"hit": "O-FWD.3", "": "O-MISS.1"},
        "look the flow up",
        "ovs_flow_tbl_lookup_stats",
        OVS_FLOW_TABLE,
        text={
            "hit": "The flow is in the kernel's table ({flows} in all): nobody has to be asked.",
            "": "The kernel does not know this flow: it has to ask ovs-vswitchd, by {whose}.",
        },
        to={"hit": call("execute", None), "miss": call_any("upcalls", None)},
        cost="ovs lookup",
    )
    def look_up(self, me: Context) -> str:
        datapath = self.dp
        pool = datapath.pool
        outputs = datapath.flows.find(pool.memory.bytes, me.port, pool.at[me.skb])
        if outputs >= 0:
            me.outputs = outputs
            return "hit"
        return self.socket_for(me)

    def socket_for(self, me: Context) -> str:
        """Name the socket that is asked by: the one of this CPU's handler, or of the port."""
        names, cpus = self._names, self.cpus
        return names[me.port - 1 if cpus is None else cpus[me.index] % len(names)]


class Execute(SendOut):
    """Carry out actions: O-FWD row 4."""

    def __init__(self, name: str, place: Place, datapath: Datapath, outputs: Mapping[str, Routine]) -> None:
        super().__init__(name, place, outputs)
        self.dp = datapath

    @op(
        "O-FWD.4",
        "carry out the action",
        "ovs_execute_actions",
        OVS_ACTIONS,
        text={
            DROPPED: "No action wants this packet: it is dropped here.",
            "": (
                "The action is to send the frame out of a port: an ordinary transmission on that port's device, "
                "in this thread."
            ),
        },
        to={
            "output": call_any("outputs", "next_action"),
            "last output": call_any("last_outputs", None),
            DROPPED: RETURN,
        },
        cost="ovs actions",
    )
    def next_action(self, me: Context) -> str:
        port, is_last = self.dp.next_output(me)
        if not port:
            self.dp.cells.dropped += 1
            self.dp.pool.release(me.skb)
            return DROPPED
        return port if is_last else f"copy to {port}"


class Upcall(Routine):
    """Ask ovs-vswitchd by one of its sockets: O-MISS rows 2 and 3.

    Args:
        number: the socket's number, from 0.
        whose: who owns it, for people: a handler, or a port.
        wake: tells those that wait for it.
    """

    def __init__(self, name: str, place: Place, datapath: Datapath, number: int, whose: str, wake: Routine) -> None:
        super().__init__(name, place)
        self.dp = datapath
        self.waiting = datapath.upcalls[number]
        self.whose = whose
        self.wake = wake

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the socket."""
        return {"whose": self.whose, "socket": self.waiting.name}

    @op(
        "O-MISS.2",
        "begin the upcall",
        "ovs_dp_upcall",
        OVS_DATAPATH,
        text="A message for ovs-vswitchd is made: the flow key and the whole packet.",
        to={UPCALLED: goto("copy_packet")},
        private=True,
    )
    def begin(self, me: Context) -> str:
        return UPCALLED

    @op(
        "O-MISS.2",
        "copy the packet into the message",
        "queue_userspace_packet",
        OVS_DATAPATH,
        text=(
            "The packet itself travels with the question: it is copied into the message. The kernel will keep "
            "nothing of it."
        ),
        to={COPIED: goto("send_message")},
        size="length",
        private=True,
    )
    def copy_packet(self, me: Context) -> str:
        pool = self.dp.pool
        copy = pool.copy(me.skb, me.packet)
        pool.release(me.skb)
        me.skb = copy
        return COPIED

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand."""
        return self.dp.pool.cells.length[me.skb]

    @op(
        "O-MISS.3",
        "put the message into the handler's socket",
        "genlmsg_unicast",
        GENETLINK_H,
        text={
            "queued": (
                "The message waits in {whose}'s socket. The thread that sent the frame goes on, as if it had been sent."
            ),
            DROPPED: "{whose}'s socket is full: the packet is lost here, and counted as lost.",
        },
        to={"queued": goto("wake"), DROPPED: RETURN},
        into={"queued": "{socket}"},
    )
    def send_message(self, me: Context) -> str:
        question = Question(me.skb, me.port, self.dp.tunnel_key(me.skb))
        if self.waiting.offer(question.packed(), self.dp.pool.cells.length[me.skb]):
            return "queued"
        self.dp.cells.lost += 1
        self.dp.pool.release(me.skb)
        return DROPPED


class WakeHandler(Routine):
    """Tell a handler that waits for a socket, and then the next one that does: the end of O-MISS row 3.

    Args:
        handler: its thread.
        onward: tells the next one; None for the last.
    """

    def __init__(self, name: str, place: Place, handler: Thread, onward: Routine | None = None) -> None:
        super().__init__(name, place)
        self.handler = handler
        if onward is None:
            self.links = {"onward": ""}
        else:
            self.onward = onward

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the handler."""
        return {"handler": self.handler.name}

    @op(
        "O-MISS.3",
        "wake the handler",
        "netlink_unicast",
        NETLINK,
        text={
            WOKE: "{handler} of ovs-vswitchd was asleep in poll() and is made runnable.",
            ALREADY_AWAKE: "{handler} is awake and will find the message.",
        },
        to={WOKE: goto("onward"), ALREADY_AWAKE: goto("onward")},
        target="handler",
    )
    def wake_handler(self, me: Context) -> str:
        return self.handler.me.wake()


class Question(NamedTuple):
    """What an upcall message carries beside the packet's bytes.

    Attributes:
        slot: the packet's slot, below 2**24.
        port: number of the switch port it came in by.
        tunnel: the tunnel key it came in with: the virtual network plus one; 0 for none.
    """

    slot: int
    port: int
    tunnel: int = 0

    def packed(self) -> int:
        """Pack it into one number."""
        return self.tunnel << 32 | self.slot << 8 | self.port

    @classmethod
    def unpacked(cls, message: int) -> Question:
        """Give it back from that number."""
        return cls(message >> 8 & 0xFFFFFF, message & 0xFF, message >> 32)
