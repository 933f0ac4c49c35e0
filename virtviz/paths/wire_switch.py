"""Putting Open vSwitch together: the kernel datapath, the upcall handlers, and one of three far ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.places import Domain, Place
from virtviz.engine.threads import ThreadKind
from virtviz.paths import host_net, ovs, upcall_calls, vswitchd
from virtviz.paths.nic import DummyXmit, Nic, NicEngine, NicXmit, RunNicQueue
from virtviz.paths.nic_poll import NicPoll
from virtviz.paths.packets import PacketPool
from virtviz.paths.parts import HOST_SLOT_BYTES, HOST_STACK, NETLINK, OVS, TAP, VSWITCHD
from virtviz.paths.tap import TapSendmsg
from virtviz.paths.traffic import vm_endpoint

if TYPE_CHECKING:
    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_backend import Backend

FAR_PORTS = {"nic": "eth0", "veth": "veth0", "dummy": "dummy0"}
TAP_PORT, FAR_PORT = 1, 2
"""Numbers of the switch's ports."""


class SwitchBuilder:
    """Makes the switch and what is behind it.

    Args:
        parts: the world in the making.
        backend: whose TAP is the switch's first port.
        tap_xmit: transmission on that TAP.

    Attributes:
        wire: what comes in from outside, and when.
        sendmsg: what handing frames to the TAP leads to.
    """

    def __init__(self, parts: Parts, backend: Backend, tap_xmit: Routine) -> None:
        self.parts = parts
        world, state = parts.world, parts.state
        far = FAR_PORTS[world.word("far_port")]
        count = world.number("handlers")
        self.datapath = ovs.Datapath(state, "ovs", parts.host_pool, count, ["tap0", far])
        self.switch = state.add(vswitchd.SwitchCells, "vswitchd", count_stale=int(world["ovs_flow_count"] == "stale"))
        self.wire = host_net.Wire(state, "wire", parts.traffic)
        self.handlers = [parts.thread(f"handler{i + 1}", cpu=i) for i in range(count)]
        upcalls: dict[str, Routine] = {
            thread.name: ovs.Upcall(f"ovs.upcall_to_{thread.name}", OVS, self.datapath, i, thread)
            for i, thread in enumerate(self.handlers)
        }
        outputs: dict[str, Routine] = {"tap0": tap_xmit}
        execute = ovs.Execute("ovs.execute", OVS, self.datapath, outputs)
        receive = ovs.Receive("ovs.receive", OVS, self.datapath, execute, upcalls, parts.cpus)
        poll: Routine | None = None
        if far == "eth0":
            outputs[far] = self._nic(receive)
        elif far == "veth0":
            outputs[far], poll = self._veth(receive, backend.thread)
        else:
            outputs[far] = DummyXmit("dummy0.xmit", HOST_STACK, parts.host_pool)
        execute.outputs_are_known()
        for i, thread in enumerate(self.handlers):
            thread.start = self._handler(i, thread, execute, poll)
        datapath = self.datapath
        parts.drops |= {
            "ovs.lost": lambda: datapath.cells.lost,
            "ovs.no_action": lambda: datapath.cells.dropped,
        }
        if world["flows"] == "known":
            self._learn_flows()
        softirq = poll and host_net.LocalSoftirqs("host.bh_enable", HOST_STACK, parts.backlogs, poll)
        self.sendmsg = TapSendmsg("tap0.sendmsg", TAP, backend.tap, backend.tx, TAP_PORT, receive, softirq)

    # Far ports

    def _nic(self, receive: Routine) -> Routine:
        """Make a network card; answers transmission on it."""
        parts, world = self.parts, self.parts.world
        nic = Nic(
            parts.state,
            "eth0",
            parts.host_pool,
            self.wire,
            parts.traffic,
            world.number("nic_ring"),
            world.number("nic_tx_frames"),
        )
        driver = Place("eth0", Domain.HOST_KERNEL, "NIC driver")
        engine = parts.thread("eth0", cpu=2, kind=ThreadKind.HARDWARE)
        nic.softirq = parts.thread("softirq/cpu1", cpu=1)
        engine.start = NicEngine("eth0.engine", Place("eth0.hw", Domain.HARDWARE, "NIC"), nic)
        xmit = NicXmit("eth0.xmit", driver, nic)
        run_queue = RunNicQueue("eth0.qdisc_run", driver, nic, xmit)
        nic.softirq.start = NicPoll("eth0.poll", driver, nic, receive, FAR_PORT, run_queue)
        parts.drops |= {
            "eth0.qdisc": lambda: nic.cells.qdisc_dropped,
            "eth0.rx_missed": lambda: nic.cells.rx_missed,
        }
        return xmit

    def _veth(self, receive: Routine, worker: Thread) -> tuple[Routine, Routine]:
        """Make a veth pair into another network namespace; answers transmission on it, and the softirq it raises."""
        parts, pool, backlogs = self.parts, self.parts.host_pool, self.parts.backlogs
        peer_place = Place("peer", Domain.HOST_KERNEL, "far namespace")
        veth_place = Place("veth0", Domain.HOST_KERNEL, "veth")
        sender = parts.thread("peer", cpu=0)
        for thread in (worker, sender, *self.handlers):
            backlog = backlogs[thread.me.index] = host_net.Backlog(parts.state, f"{thread.name}.backlog")
            parts.drops[f"backlog.{thread.name}"] = lambda cells=backlog.cells: cells.dropped  # type: ignore[misc]
        xmit = host_net.VethXmit("veth0.xmit", veth_place, backlogs, host_net.FROM_SWITCH, pool, "veth0")
        back = host_net.VethXmitBack("veth1.xmit", veth_place, backlogs, host_net.TO_SWITCH, pool, "veth1")
        peer = host_net.PeerReceive("peer.receive", peer_place, pool, parts.traffic, back)
        poll = host_net.ProcessBacklog("host.process_backlog", HOST_STACK, backlogs, pool, receive, peer, FAR_PORT)
        sender.start = host_net.Arrivals("peer.send", peer_place, pool, parts.traffic, self.wire, back, poll)
        return xmit, poll

    # ovs-vswitchd

    def _handler(self, number: int, thread: Thread, execute: Routine, poll: Routine | None) -> Routine:
        """Make one upcall handler of ovs-vswitchd; `poll` works off the softirqs its packets raise, if any."""
        state, name = self.parts.state, thread.name
        memory = state.region(f"{name}.memory", vswitchd.UPCALL_MAX_BATCH * HOST_SLOT_BYTES)
        buffers = PacketPool(
            state, f"{name}.buffers", memory, 0, vswitchd.UPCALL_MAX_BATCH, HOST_SLOT_BYTES, headroom=0
        )
        mine = vswitchd.Handler(state, f"vswitchd.{name}", self.datapath, number, buffers)
        operate: Routine
        if poll is None:
            operate = upcall_calls.Operate(f"{name}.operate", OVS, mine, execute)
        else:
            operate = upcall_calls.OperateWithSoftirqs(f"{name}.operate", OVS, mine, execute, poll, self.parts.backlogs)
        return vswitchd.HandlerLoop(
            f"{name}.loop",
            VSWITCHD,
            mine,
            self.switch,
            self._decide,
            poll_wait=upcall_calls.PollWait(f"{name}.poll_wait", NETLINK, mine),
            poll_now=upcall_calls.PollNow(f"{name}.poll_now", NETLINK),
            receive=upcall_calls.NetlinkReceive(f"{name}.recvmsg", NETLINK, mine),
            ask=upcall_calls.AskFlowCount(f"{name}.ask", NETLINK),
            answer=upcall_calls.ReadFlowCount(f"{name}.answer", NETLINK),
            operate=operate,
            drain=upcall_calls.DrainErrors(f"{name}.drain", NETLINK),
        )

    @staticmethod
    def _decide(frame: bytes | bytearray, port: int) -> int:
        """Decide where a frame goes, as a learning switch that has learned every address; answers ports as bits.

        A virtual machine's address is behind its TAP, every other one behind the far port; group addresses go
        everywhere.
        """
        tap, far = 1 << TAP_PORT - 1, 1 << FAR_PORT - 1
        target = frame[:6]
        wanted = tap | far if target[0] & 1 else tap if target == vm_endpoint(0).mac else far
        return wanted & ~(1 << port - 1)

    def _learn_flows(self) -> None:
        """Install the flows of the scenario's frames, as if they had been seen before."""
        for number, item in enumerate(self.parts.traffic.items, 1):
            frame = self.parts.traffic.frame(number)
            port = TAP_PORT if item.outgoing else FAR_PORT
            self.datapath.flows.insert(frame, port, self._decide(frame, port))
