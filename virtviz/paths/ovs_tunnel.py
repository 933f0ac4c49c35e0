"""Open vSwitch's kernel datapath with a tunnel among its ports: tunnel keys in matches and in actions.

One tunnel device serves all tunnels of its kind. Which virtual network a frame came in by, or is to go out by, is not
in the frame but beside it: the tunnel key. A flow can match on it, and the action before the output sets it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.cells import cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, call_any, goto, op
from virtviz.paths.ovs import Datapath, Execute, FlowCells, FlowTable, Receive
from virtviz.paths.switch_ports import Stations
from virtviz.spec.citation import OVS_ACTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import HeadroomPool

KEY_SHIFT = 16
"""Actions are one number: ports as bits below this, above it the tunnel key to set before the output to a tunnel."""


class TunnelStations(Stations):
    """What is behind which port, where the last port is a tunnel.

    Args:
        taps, far, first: as in `Stations`.
        vni: the virtual network that the tunnel's port stands for (options:key of its interface).
    """

    def __init__(self, taps: Sequence[str], far: str, vni: int, first: int = 0) -> None:
        super().__init__(taps, far, first)
        self.vni = vni

    def tunnel_key(self, port: int) -> int:
        """Give the tunnel key that frames of this network come in with by a port; 0 for none."""
        return self.vni + 1 if port == self.far else 0

    def outputs(self, frame: bytes | bytearray, port: int) -> int:
        """Decide about a frame: ports as bits, and the tunnel key to set if the tunnel is among them."""
        ports = super().outputs(frame, port)
        return ports | self.vni + 1 << KEY_SHIFT if ports >> self.far - 1 else ports


@cells
class TunnelFlowCells(FlowCells):
    """A flow table whose matches have a tunnel key, by slot; 0 for frames that came by no tunnel."""

    tunnel: list[int]


class TunnelFlowTable(FlowTable):
    """Megaflows that match on the tunnel key as well."""

    cells: TunnelFlowCells

    def _cells(self, state: State, name: str, slots: list[int]) -> FlowCells:
        return state.add(TunnelFlowCells, name, first=slots, second=slots, outputs=slots, tunnel=slots)

    def tunnel_of(self, slot: int) -> int:
        """Give the tunnel key that the flow in a slot is for."""
        return self.cells.tunnel[slot]

    def find_keyed(self, frame: bytes | bytearray, port: int, at: int, tunnel: int) -> int:
        """Give the actions for a frame that came with a tunnel key; -1 if its flow is unknown."""
        return int(self.cells.outputs[self._slot(*self.words_of(frame, port, at), tunnel)]) - 1

    def insert(self, frame: bytes | bytearray, port: int, outputs: int, tunnel: int = 0) -> int:
        """Add the flow of a frame; answers its slot, or -1 if there is no room."""
        slot = super().insert(frame, port, outputs, tunnel)
        if slot >= 0:
            self.cells.tunnel[slot] = tunnel
        return slot


class TunnelDatapath(Datapath):
    """A datapath with such a table; what goes up to a handler has the tunnel key with it."""

    flow_table: ClassVar[type[FlowTable]] = TunnelFlowTable
    flows: TunnelFlowTable
    pool: HeadroomPool

    def tunnel_key(self, slot: int) -> int:
        """Give the tunnel key that goes with a packet; 0 for none."""
        return self.pool.metadata.tunnel[slot]


class TunnelReceive(Receive):
    """A frame enters by a port, with a tunnel key if the port is a tunnel."""

    dp: TunnelDatapath
    retold = MappingProxyType(
        {
            "extract_key": {
                "text": (
                    "The headers are parsed into a flow key: input port, addresses, type, and the tunnel key: {from}."
                )
            }
        }
    )

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the port, and the virtual network."""
        key = self.dp.pool.metadata.tunnel[me.skb]
        return {**super().words(me), "from": f"VNI {key - 1}" if key else "none"}

    def look_up(self, me: Context) -> str:
        """Look the flow up with the tunnel key that came with the frame."""
        pool, slot = self.dp.pool, me.skb
        actions = self.dp.flows.find_keyed(pool.memory.bytes, me.port, pool.at[slot], pool.metadata.tunnel[slot])
        if actions < 0:
            return self.socket_for(me)
        me.outputs = actions
        return "hit"


class TunnelExecute(Execute):
    """Carry out actions, of which one can set the tunnel key for the output that follows it."""

    dp: TunnelDatapath

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the virtual network."""
        key = self.dp.pool.metadata.tunnel[me.held or me.skb] if me.held or me.skb else 0
        return {"vni": key - 1 if key else me.outputs >> KEY_SHIFT}

    @op(
        "O-FWD.4",
        "carry out the next action",
        "ovs_execute_actions",
        OVS_ACTIONS,
        text={
            DROPPED: "No action wants this packet: it is dropped here.",
            "set": "Two actions, not one: before the output to the tunnel comes the action that says where to.",
            "": (
                "The action is to send the frame out of a port: an ordinary transmission on that port's device, "
                "in this thread."
            ),
        },
        to={
            "output": call_any("outputs", "next_action"),
            "last output": call_any("last_outputs", None),
            "set": goto("set_tunnel_key"),
            DROPPED: RETURN,
        },
        cost="ovs actions",
    )
    def next_action(self, me: Context) -> str:
        ports = me.outputs & (1 << KEY_SHIFT) - 1
        if me.outputs != ports and not ports & ports - 1:
            # The tunnel is the last port.
            return "set"
        return super().next_action(me) or ""

    @op(
        "O-FWD.4",
        "set the tunnel key",
        "execute_set_action",
        OVS_ACTIONS,
        text="The tunnel key is put beside the frame: VNI {vni}, and the far host's address. The frame is not touched.",
        to=goto("next_action"),
        cost="ovs actions",
    )
    def set_tunnel_key(self, me: Context) -> None:
        self.dp.pool.metadata.tunnel[me.held or me.skb] = me.outputs >> KEY_SHIFT
        me.outputs &= (1 << KEY_SHIFT) - 1
