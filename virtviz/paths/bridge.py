"""A Linux bridge, in place of Open vSwitch: block O-FWD without a flow table, and without any question to user space.

Like OVS's datapath it has no thread and runs inside whoever hands it a frame. What it knows it has learned: the source
address of each frame tells it behind which port that address is. A frame for an address that it has not learned goes
out of every other port. Entries do not age here; a real bridge forgets them after 300 seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, call_any, goto, op
from virtviz.paths.switch_ports import MAC_BYTES, SendOut, SwitchPorts
from virtviz.spec.citation import BR_FDB, BR_FORWARD, BR_INPUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool

ADDRESSES = 256
"""Addresses the bridge can learn here; the kernel has no limit unless one is set (fdb_max_learned)."""
LINK_LOCAL = bytes.fromhex("0180c20000")
"""01:80:c2:00:00:00 to 0f are for the two ends of one link. The first, for the spanning tree, is forwarded like any
other while the bridge takes no part in one."""


@cells
class FdbCells(Cells):
    """The forwarding database, by slot: an address as a number, and the number of its port; 0 for an empty slot."""

    count: int = 0
    address: list[int]
    port: list[int]


@cells
class BridgeCells(Cells):
    """What the bridge keeps beside: frames that ended here."""

    dropped: int = 0


class Bridge(SwitchPorts):
    """A bridge.

    Attributes:
        fdb: its forwarding database.
    """

    def __init__(self, state: State, name: str, pool: PacketPool, ports: Sequence[str]) -> None:
        super().__init__(name, pool, ports)
        empty = [0] * ADDRESSES
        self.fdb = state.add(FdbCells, f"{name}.fdb", address=empty, port=empty)
        self.cells = state.add(BridgeCells, name)

    def addresses(self, slot: int) -> tuple[bytes, bytes]:
        """Give a frame's target and source address."""
        at = self.pool.at[slot]
        both = bytes(self.pool.memory.bytes[at : at + 2 * MAC_BYTES])
        return both[:MAC_BYTES], both[MAC_BYTES:]

    def port_of(self, address: bytes) -> int:
        """Give the port an address is behind; 0 if that is not known."""
        slot = self._slot(int.from_bytes(address))
        return int(self.fdb.port[slot]) if slot >= 0 else 0

    def learn(self, address: bytes, port: int) -> str:
        """Note where an address is; answers `new`, `known`, `moved`, `full`, or `group` for no single one."""
        if not is_station(address):
            return "group"
        fdb, number = self.fdb, int.from_bytes(address)
        slot = self._slot(number)
        if slot < 0:
            return "full"
        known = fdb.port[slot]
        if known == port:
            return "known"
        fdb.port[slot] = port
        if known:
            return "moved"
        fdb.address[slot] = number
        fdb.count += 1
        return "new"

    def _slot(self, address: int) -> int:
        """Find the slot of an address, or the empty one it would go to; -1 if there is neither."""
        fdb = self.fdb
        home = at = address % ADDRESSES
        while fdb.port[at] and fdb.address[at] != address:
            at = (at + 1) % ADDRESSES
            if at == home:
                return -1
        return at


def is_station(address: bytes) -> bool:
    """Say whether an Ethernet address is a single station's: neither a group's nor all zeros."""
    return any(address) and not address[0] & 1


class BridgeFrame(SendOut):
    """A frame enters the bridge by a port, and leaves it by others: O-FWD rows 1 to 4."""

    def __init__(self, name: str, place: Place, bridge: Bridge, outputs: Mapping[str, Routine]) -> None:
        super().__init__(name, place, outputs)
        self.bridge = bridge

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the port, and count what the bridge knows."""
        ports = self.bridge.ports
        return {"port": ports[me.port - 1] if me.port else "?", "known": self.bridge.fdb.count}

    def _drop(self, me: Context) -> str:
        self.bridge.cells.dropped += 1
        self.bridge.pool.release(me.skb)
        return DROPPED

    @op(
        "O-FWD.1",
        "enter the bridge",
        "br_handle_frame",
        BR_INPUT,
        text={
            "frame": "{port} is a port of the bridge: its handler takes the frame before the host's own stack sees it.",
            DROPPED: "No bridge forwards this frame: its source is no single station, or its target this link.",
        },
        to={"frame": goto("learn"), DROPPED: RETURN},
        milestone={"frame": "at-switch"},
    )
    def enter(self, me: Context) -> str:
        target, source = self.bridge.addresses(me.skb)
        is_for_link = target.startswith(LINK_LOCAL) and 0 < target[-1] < 0x10
        return "frame" if is_station(source) and not is_for_link else self._drop(me)

    @op(
        "O-FWD.2",
        "learn the source address",
        "br_fdb_update",
        BR_FDB,
        text={
            "new": "The frame's source is behind {port}: the bridge learns that. Addresses it knows now: {known}.",
            "known": "The bridge knows already that the frame's source is behind {port}; it notes that it was seen.",
            "moved": "The frame's source used to be behind another port: from now on it is behind {port}.",
            "full": "No room for another address: this one is not learned, and frames for it will go everywhere.",
        },
        to=dict.fromkeys(("new", "known", "moved", "full"), goto("look_up")),
        cost="fdb",
    )
    def learn(self, me: Context) -> str:
        return self.bridge.learn(self.bridge.addresses(me.skb)[1], me.port)

    @op(
        "O-FWD.3",
        "look the target up",
        "br_fdb_find_rcu",
        BR_FDB,
        text={
            "known": "The bridge has seen the frame's target before: it knows the port, and need not ask anybody.",
            "unknown": "The bridge has not seen the target yet. It asks nobody: the frame goes to every other port.",
            "group": "The target is a group of stations: the frame goes to every other port.",
        },
        to={"known": goto("forward"), "unknown": goto("flood"), "group": goto("flood")},
        cost="fdb",
    )
    def look_up(self, me: Context) -> str:
        target = self.bridge.addresses(me.skb)[0]
        if target[0] & 1:
            return "group"
        return "known" if self.bridge.port_of(target) else "unknown"

    @op(
        "O-FWD.4",
        "choose the one port",
        "br_forward",
        BR_FORWARD,
        text={
            "out": "The frame leaves by that port alone.",
            DROPPED: "The target is behind {port}, where the frame came from: it has it already. Dropped here.",
        },
        to={"out": goto("push_xmit"), DROPPED: RETURN},
    )
    def forward(self, me: Context) -> str:
        port = self.bridge.port_of(self.bridge.addresses(me.skb)[0])
        if port == me.port:
            return self._drop(me)
        self.bridge.begin_actions(me, 1 << port - 1)
        return "out"

    @op(
        "O-FWD.4",
        "choose every other port",
        "br_flood",
        BR_FORWARD,
        text="Every port but {port} gets the frame; all but the last one get a clone of it.",
        to=goto("push_xmit"),
    )
    def flood(self, me: Context) -> None:
        self.bridge.begin_actions(me, (1 << len(self.bridge.ports)) - 1 & ~(1 << me.port - 1))

    @op(
        "O-FWD.4",
        "send out of the port",
        "br_dev_queue_push_xmit",
        BR_FORWARD,
        text="An ordinary transmission on that port's device, in this thread.",
        to={"output": call_any("outputs", "push_xmit"), "last output": call_any("last_outputs", None)},
    )
    def push_xmit(self, me: Context) -> str:
        port, is_last = self.bridge.next_output(me)
        return port if is_last else f"copy to {port}"
