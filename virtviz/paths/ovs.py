"""Open vSwitch's kernel datapath: blocks O-FWD and O-MISS rows 1 to 3, 8 and 9.

It has no thread. It runs inside whoever hands it a frame: the vhost worker, a softirq, or an upcall handler that tells
the kernel to execute a packet. A flow is a match on input port, Ethernet addresses and type, and the ports to send to.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import ALREADY_AWAKE, COPIED, DROPPED, UPCALLED, WOKE
from virtviz.engine.ops import RETURN, Routine, call, call_any, goto, op
from virtviz.paths.queues import Fifo
from virtviz.paths.switch_ports import SwitchPorts
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
UPCALLS = 64
"""Upcalls a handler's socket holds here; the real limit is its receive buffer in bytes."""
_HEADER = struct.Struct("!QIH")
_MIX, _PRIME = 31, 65537
"""For spreading matches over the slots."""


@cells
class FlowCells(Cells):
    """The flow table, by slot: the match in two words, and the output ports as bits, plus one; 0 for an empty slot."""

    count: int = 0
    first: list[int]
    second: list[int]
    outputs: list[int]


@cells
class DatapathCells(Cells):
    """What the datapath keeps: packets lost because a handler's socket was full, packets no action wanted."""

    lost: int = 0
    dropped: int = 0


class FlowTable:
    """Megaflows: exact matches on what the switch looked at."""

    def __init__(self, state: State, name: str) -> None:
        # One slot more, always empty: where a search ends that finds nothing.
        slots = [0] * (FLOWS + 1)
        self.cells = state.add(FlowCells, name, first=slots, second=slots, outputs=slots)

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

    def _slot(self, first: int, second: int) -> int:
        """Find the slot of a match, or the empty one it would go to; the one behind the last if the table is full."""
        mine = self.cells
        home = at = (first ^ second * _MIX) % _PRIME % FLOWS
        while mine.outputs[at] and (mine.first[at] != first or mine.second[at] != second):
            at = (at + 1) % FLOWS
            if at == home:
                return FLOWS
        return at

    def slot_of(self, frame: bytes | bytearray, port: int, at: int = 0) -> int:
        """Give the slot of a frame's flow, -1 if its flow is unknown; see `find`."""
        first, rest, ethertype = _HEADER.unpack_from(frame, at)
        slot = self._slot(first, port << 48 | rest << 16 | ethertype)
        return slot if self.cells.outputs[slot] else -1

    def outputs_of(self, slot: int) -> int:
        """Give the output ports of the flow in a slot, as bits."""
        return self.cells.outputs[slot] - 1

    def insert(self, frame: bytes | bytearray, port: int, outputs: int) -> bool:
        """Add the flow of a frame; answers False if the table is full."""
        mine = self.cells
        first, rest, ethertype = _HEADER.unpack_from(frame)
        second = port << 48 | rest << 16 | ethertype
        slot = self._slot(first, second)
        if slot == FLOWS:
            return False
        if not mine.outputs[slot]:
            mine.count += 1
        mine.first[slot], mine.second[slot], mine.outputs[slot] = first, second, outputs + 1
        return True


class Datapath(SwitchPorts):
    """An OVS kernel datapath.

    Attributes:
        flows: its flow table.
        upcalls: for each handler, the packets waiting in its socket.
    """

    def __init__(self, state: State, name: str, pool: PacketPool, handlers: int, ports: Sequence[str]) -> None:
        super().__init__(name, pool, ports)
        self.flows = FlowTable(state, f"{name}.flows")
        self.cells = state.add(DatapathCells, name)
        self.upcalls = [Fifo(state, f"{name}.upcalls{i + 1}", UPCALLS) for i in range(handlers)]


class Receive(Routine):
    """A frame enters the switch by a port: O-FWD rows 1 to 3.

    Args:
        execute: carries out a flow's actions.
        upcalls: for each handler, name -> what queues the packet for it.
        cpus: CPU number of each thread, which decides the handler.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        datapath: Datapath,
        execute: Routine,
        upcalls: Mapping[str, Routine],
        cpus: Sequence[int],
    ) -> None:
        super().__init__(name, place)
        self.dp = datapath
        self.execute = execute
        self.upcalls = upcalls
        self.cpus = cpus
        self._names = list(upcalls)

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the port."""
        return {"port": self.dp.ports[me.port - 1] if me.port else "?", "flows": self.dp.flows.cells.count}

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
            "": (
                "The kernel does not know this flow: it has to ask ovs-vswitchd, by the socket of the handler for "
                "this CPU."
            ),
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
        return self._names[self.cpus[me.index] % len(self._names)]


class Execute(Routine):
    """Carry out actions: O-FWD row 4.

    Args:
        outputs: port name -> what sending to it is.
    """

    def __init__(self, name: str, place: Place, datapath: Datapath, outputs: Mapping[str, Routine]) -> None:
        super().__init__(name, place)
        self.dp = datapath
        self.last_outputs = outputs
        self.outputs: Mapping[str, Routine] = {}

    def outputs_are_known(self) -> None:
        """Take note that every output has been put into the mapping; some of them lead back here."""
        self.outputs = {f"copy to {port}": routine for port, routine in self.last_outputs.items()}

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
    """Ask one handler of ovs-vswitchd: O-MISS rows 2 and 3.

    Args:
        number: the handler's number, from 0.
        handler: its thread.
    """

    def __init__(self, name: str, place: Place, datapath: Datapath, number: int, handler: Thread) -> None:
        super().__init__(name, place)
        self.dp = datapath
        self.waiting = datapath.upcalls[number]
        self.handler = handler

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the handler."""
        return {"handler": self.handler.name, "socket": self.waiting.name}

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
        copy = pool.take(me.packet)
        pool.fill(copy, pool.data(me.skb))
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
                "The message waits in {handler}'s socket. The thread that sent the frame goes on, as if it had "
                "been sent."
            ),
            DROPPED: "{handler}'s socket is full: the packet is lost here, and counted as lost.",
        },
        to={"queued": goto("wake_handler"), DROPPED: RETURN},
        into={"queued": "{socket}"},
    )
    def send_message(self, me: Context) -> str:
        if self.waiting.put(upcall(me.skb, me.port)):
            return "queued"
        self.dp.cells.lost += 1
        self.dp.pool.release(me.skb)
        return DROPPED

    @op(
        "O-MISS.3",
        "wake the handler",
        "netlink_unicast",
        NETLINK,
        text={
            WOKE: "{handler} of ovs-vswitchd was asleep in poll() and is made runnable.",
            ALREADY_AWAKE: "{handler} is awake and will find the message.",
        },
        to={WOKE: RETURN, ALREADY_AWAKE: RETURN},
        target="handler",
    )
    def wake_handler(self, me: Context) -> str:
        return self.handler.me.wake()


def upcall(slot: int, port: int) -> int:
    """Pack what an upcall message carries: the packet's slot and the port it came in by."""
    return slot << 8 | port


def unpack_upcall(message: int) -> tuple[int, int]:
    """Give slot and port of an upcall message."""
    return message >> 8, message & 0xFF
