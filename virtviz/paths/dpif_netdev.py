"""Open vSwitch's datapath in user space, inside a PMD thread: rows 9 and 10 of U-TX, row 3 of U-RX.

A burst is looked up packet by packet: first in the exact match cache (EMC), then among the megaflows (dpcls); the
signature match cache between them is off by default. Then each packet's actions are carried out, which for an output
means: put it into that port's batch. At last every port's batch is sent.

A miss costs no message to another process. The thread itself belongs to ovs-vswitchd, and calls the translation of the
OpenFlow tables like any other function; it first carries out what comes back, and then installs the flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import COPIED, DROPPED, UPCALLED
from virtviz.engine.ops import RETURN, OpSpec, Routine, call, call_any, goto, op
from virtviz.paths.emc import ExactMatchCache
from virtviz.paths.ovs import FlowTable
from virtviz.paths.switch_ports import SwitchPorts
from virtviz.spec.citation import OVS_DPIF_DFC, OVS_DPIF_NETDEV, OVS_XLATE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.pmd import Pmd


@cells
class PmdDatapathCells(Cells):
    """What the datapath counts: packets that no action wanted, found in the EMC, found in dpcls, asked for."""

    dropped: int = 0
    exact_hits: int = 0
    masked_hits: int = 0
    misses: int = 0


class PmdDatapath(SwitchPorts):
    """The datapath of one PMD thread, which has flow table and caches of its own.

    Attributes:
        flows: the megaflows.
        emc: the exact match cache in front of them.
        pmd: the thread: the burst in hand, the output batches.
    """

    def __init__(self, state: State, name: str, pool: PacketPool, pmd: Pmd, ports: Sequence[str]) -> None:
        super().__init__(name, pool, ports)
        self.pmd = pmd
        self.flows = FlowTable(state, f"{name}.flows")
        self.emc = ExactMatchCache(state, f"{name}.emc")
        self.cells = state.add(PmdDatapathCells, name)

    def key(self, me: Context) -> int:
        """Give the key of the packet in hand, as the EMC has it."""
        at = self.pool.at[me.skb]
        return self.emc.key(self.pool.memory.bytes[at : at + self.pool.cells.length[me.skb]], me.port)

    def flow(self, me: Context) -> int:
        """Give the megaflow of the packet in hand, as its slot plus one; 0 if there is none."""
        return self.flows.slot_of(self.pool.memory.bytes, me.port, self.pool.at[me.skb]) + 1

    def output(self, me: Context) -> str:
        """Carry out the next output of the packet in hand; every output but the last gets a copy."""
        outputs = me.outputs
        if not outputs:
            self.cells.dropped += 1
            self.pool.release(me.skb)
            return DROPPED
        bit = outputs & -outputs
        port = bit.bit_length() - 1
        if bit == outputs:
            self.pmd.queue_output(port, me.skb)
            return "batched"
        copy = self.pool.take(me.packet)
        self.pool.fill(copy, self.pool.data(me.skb))
        self.pmd.queue_output(port, copy)
        me.outputs = outputs ^ bit
        return COPIED


class PmdRoutine(Routine):
    """A routine of the datapath, with what its texts speak of.

    Args:
        rows: names of rows in the table below -> the rows they are.
    """

    def __init__(self, name: str, place: Place, datapath: PmdDatapath, rows: Mapping[str, str]) -> None:
        super().__init__(name, place)
        self.dp = datapath
        self.pmd = datapath.pmd
        self.rows = rows

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the port, and how far the burst is."""
        mine, ports = self.pmd.cells, self.dp.ports
        names = [name for i, name in enumerate(ports) if me.outputs >> i & 1]
        return {
            "pmd": self.pmd.name,
            "port": ports[me.port - 1] if me.port else "?",
            "count": mine.count,
            "number": mine.at + 1,
            "before": mine.at,
            "flows": self.dp.flows.cells.count,
            "outputs": ", ".join(names) or "no port",
            "cached": self.dp.emc.cells.used,
        }

    def length(self, me: Context) -> int:
        """Give the bytes of the packet in hand."""
        return self.dp.pool.cells.length[me.skb]


class ProcessBurst(PmdRoutine):
    """Look a burst up, carry out its actions, send the output batches: dp_netdev_input and what follows it.

    Args:
        port: number of the port that the bursts come from, from 1.
        miss: what happens to a packet whose flow is unknown.
        outputs: port name -> what sending that port's batch is.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        datapath: PmdDatapath,
        rows: Mapping[str, str],
        port: int,
        miss: Routine,
        outputs: Mapping[str, Routine],
    ) -> None:
        super().__init__(name, place, datapath, rows)
        self.port = port
        self.miss = miss
        self.outputs = outputs

    def _take(self, me: Context, at: int) -> None:
        """Take a packet of the burst in hand."""
        me.skb = slot = self.pmd.cells.mbufs[at]
        me.packet = self.dp.pool.cells.packet[slot]
        if me.outputs:
            me.outputs = 0

    @op(
        "look up",
        "begin with the burst",
        "dp_netdev_input",
        OVS_DPIF_NETDEV,
        text={
            "burst": "Packets in this burst: {count}. They came in by {port}, and are looked up one after the other.",
            "nothing": "The burst has no packet in it.",
        },
        to={"burst": goto("look_in_emc"), "nothing": RETURN},
        private=True,
    )
    def begin(self, me: Context) -> str:
        mine = self.pmd.cells
        if not mine.count:
            return "nothing"
        me.port = self.port
        if mine.at:
            mine.at = 0
        self._take(me, 0)
        return "burst"

    @op(
        "look up",
        "look into the exact match cache",
        "emc_lookup",
        OVS_DPIF_DFC,
        text={
            "hit": "The exact match cache (EMC) has this very flow key: nothing else needs to be looked up.",
            "miss": (
                "The exact match cache (8192 entries, {cached} in use) does not have this flow key. The signature "
                "match cache is off by default: on to the classifier."
            ),
        },
        to={"hit": goto("queue_to_flow"), "miss": goto("look_in_dpcls")},
        milestone="at-switch",
        cost="emc lookup",
        private=True,
    )
    def look_in_emc(self, me: Context) -> str:
        datapath = self.dp
        flow = datapath.emc.find(datapath.key(me))
        if not flow:
            return "miss"
        datapath.cells.exact_hits += 1
        self.pmd.cells.flows[self.pmd.cells.at] = flow
        return "hit"

    @op(
        "look up",
        "look into the classifier",
        "dpcls_lookup",
        OVS_DPIF_NETDEV,
        text={
            "hit": (
                "The classifier (dpcls) knows a megaflow for it, {flows} in all. Only 1 packet in 100 that comes this "
                "far is put into the exact match cache; this one is not."
            ),
            "hit and cached": (
                "The classifier (dpcls) knows a megaflow for it, {flows} in all. This is the 1 packet in 100 that is "
                "put into the exact match cache."
            ),
            "miss": "No megaflow matches: the thread asks ovs-vswitchd's translation, by a function call.",
        },
        to={"hit": goto("queue_to_flow"), "hit and cached": goto("queue_to_flow"), "miss": call("miss", "next_packet")},
        cost="dpcls lookup",
        private=True,
    )
    def look_in_dpcls(self, me: Context) -> str:
        datapath = self.dp
        flow = datapath.flow(me)
        if not flow:
            return "miss"
        datapath.cells.masked_hits += 1
        self.pmd.cells.flows[self.pmd.cells.at] = flow
        if not datapath.emc.throw():
            return "hit"
        datapath.emc.insert(datapath.key(me), flow)
        return "hit and cached"

    @op(
        "look up",
        "put the packet with its flow",
        "dp_netdev_queue_batches",
        OVS_DPIF_NETDEV,
        text={
            "more": "Packet {before} of {count} waits with the others of its flow. On to the next.",
            "all": "Packet {number} of {count} waits with the others of its flow: now the actions of each flow.",
        },
        to={"more": goto("look_in_emc"), "all": goto("carry_out")},
        private=True,
    )
    def queue_to_flow(self, me: Context) -> str:
        return self._next(me)

    @op(
        "look up",
        "go on after the slow path",
        "fast_path_processing",
        OVS_DPIF_NETDEV,
        text={
            "more": "Packet {before} of {count} has been dealt with already. On to the next.",
            "all": "Packet {number} of {count} has been dealt with already: now the actions of the others.",
        },
        to={"more": goto("look_in_emc"), "all": goto("carry_out")},
        private=True,
    )
    def next_packet(self, me: Context) -> str:
        mine = self.pmd.cells
        mine.mbufs[mine.at] = mine.flows[mine.at] = 0
        return self._next(me)

    def _next(self, me: Context) -> str:
        mine = self.pmd.cells
        at = mine.at + 1
        if at < mine.count:
            mine.at = at
            self._take(me, at)
            return "more"
        return "all"

    @op(
        "act",
        {"done": "all actions are carried out", COPIED: "copy the packet for a port", "": "carry out the action"},
        "packet_batch_per_flow_execute",
        OVS_DPIF_NETDEV,
        text={
            "batched": "The action is to send it out of {outputs}: it waits in that port's batch; nothing leaves yet.",
            COPIED: "The flow's action has several outputs: each but the last gets a copy. Still to come: {outputs}.",
            DROPPED: "The flow has no action: the packet is dropped here.",
            "done": "Every packet of the burst is in some output batch, or gone.",
        },
        to={
            "batched": goto("carry_out"),
            COPIED: goto("carry_out"),
            DROPPED: goto("carry_out"),
            "done": goto("flush"),
        },
        size="length",
        cost="ovs actions",
        private=True,
    )
    def carry_out(self, me: Context) -> str:
        mine = self.pmd.cells
        if not self._take_next_of_flow(me):
            return "done"
        answer = self.dp.output(me)
        if answer != COPIED:
            mine.mbufs[mine.at] = 0
        return answer

    def _take_next_of_flow(self, me: Context) -> bool:
        """Take in hand what is to be dealt with next: the packet in hand, else the next of its flow, else the first."""
        mine = self.pmd.cells
        if me.outputs and mine.mbufs[mine.at]:
            return True
        waiting = [i for i in range(mine.count) if mine.mbufs[i]]
        if not waiting:
            return False
        at = waiting[0]
        if not mine.mbufs[mine.at]:
            at = next((i for i in waiting if mine.flows[i] == mine.flows[mine.at]), at)
        mine.at = at
        self._take(me, at)
        me.outputs = self.dp.flows.outputs_of(mine.flows[at] - 1)
        return True

    @op(
        "act",
        {"done": "end the turn", "": "send the batch of a port"},
        "dp_netdev_pmd_flush_output_packets",
        OVS_DPIF_NETDEV,
        text={
            "done": "No output batch is left: back to the loop, and to the next receive queue.",
            "": "All that this burst brought for one port is sent at once.",
        },
        to={"batch": call_any("outputs", "flush"), "done": RETURN},
        private=True,
    )
    def flush(self, me: Context) -> str:
        waiting = self.pmd.cells.waiting
        for port, name in enumerate(self.dp.ports):
            if waiting[port]:
                return name
        if me.packet:
            me.packet = 0
        return "done"


class PmdMiss(PmdRoutine):
    """A packet whose flow is unknown: handle_packet_upcall.

    Args:
        vswitchd: the place of ovs-vswitchd's translation, which runs in this same thread.
        decide: gives the output ports of a frame, as bits.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        datapath: PmdDatapath,
        rows: Mapping[str, str],
        vswitchd: Place,
        decide: Callable[[bytearray, int], int],
    ) -> None:
        super().__init__(name, place, datapath, rows)
        self.vswitchd = vswitchd
        self.decide = decide

    def place_of(self, spec: OpSpec) -> Place:
        """Say whose code an op is: the translation is ovs-vswitchd's."""
        return self.vswitchd if spec.name == "translate" else self.place

    @op(
        "act",
        "call the slow path",
        "dp_netdev_upcall",
        OVS_DPIF_NETDEV,
        text={
            UPCALLED: (
                "The upcall is a function call in this thread: no message, no copy, no wake-up. Meanwhile this thread "
                "polls nothing."
            )
        },
        to={UPCALLED: goto("translate")},
        private=True,
    )
    def begin(self, me: Context) -> str:
        self.dp.cells.misses += 1
        return UPCALLED

    @op(
        "act",
        "translate the OpenFlow tables",
        "process_upcall",
        OVS_XLATE,
        text="The packet is taken through the OpenFlow tables: it is to go to {outputs}.",
        cost="ovs translate",
        private=True,
    )
    def translate(self, me: Context) -> None:
        me.outputs = self.decide(self.dp.pool.data(me.skb), me.port)
        self.pmd.cells.outputs[self.pmd.cells.at] = me.outputs

    @op(
        "act",
        {COPIED: "copy the packet for a port", "": "carry out the action"},
        "dp_netdev_execute_actions",
        OVS_DPIF_NETDEV,
        text={
            "batched": "First the packet: it goes into the output batch of {outputs}. Only then is the flow installed.",
            COPIED: "Several outputs: each but the last gets a copy. Still to come: {outputs}.",
            DROPPED: "Nobody is to have this packet: it is dropped here.",
        },
        to={"batched": goto("install"), COPIED: goto("execute"), DROPPED: goto("install")},
        size="length",
        cost="ovs actions",
        private=True,
    )
    def execute(self, me: Context) -> str:
        # A packet that goes nowhere is kept until its flow is installed.
        return self.dp.output(me) if me.outputs else DROPPED

    @op(
        "act",
        "install the flow",
        "dp_netdev_flow_add",
        OVS_DPIF_NETDEV,
        text={
            "installed": "The megaflow is installed, {flows} in all: the next packet of this flow will be found.",
            "installed and cached": "The megaflow is installed, and by chance, 1 in 100, its key goes into the EMC.",
            "full": "The flow table is full: the next packet of this flow will be asked for again.",
        },
        to={"installed": RETURN, "installed and cached": RETURN, "full": RETURN},
        private=True,
    )
    def install(self, me: Context) -> str:
        datapath, outputs = self.dp, self.pmd.cells.outputs[self.pmd.cells.at]
        answer = "full"
        if datapath.flows.insert(datapath.pool.data(me.skb), me.port, outputs) >= 0:
            answer = "installed"
            if datapath.emc.throw():
                datapath.emc.insert(datapath.key(me), datapath.flow(me))
                answer = "installed and cached"
        if not outputs:
            datapath.cells.dropped += 1
            datapath.pool.release(me.skb)
        return answer
