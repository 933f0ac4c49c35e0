"""Putting Open vSwitch together: the kernel datapath, and the upcall handlers of ovs-vswitchd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.paths import ovs, upcall_calls, vswitchd
from virtviz.paths.packets import PacketPool
from virtviz.paths.parts import HOST_SLOT_BYTES, NETLINK, OVS, VSWITCHD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.switch_ports import Stations


class OvsSwitch:
    """Open vSwitch.

    Args:
        parts: the world in the making.
        stations: its ports, and what is behind each.

    Attributes:
        receive: what takes a frame that enters by a port.
        threads: the upcall handlers.
    """

    datapath_class: type[ovs.Datapath] = ovs.Datapath
    receive_class: type[ovs.Receive] = ovs.Receive
    execute_class: type[ovs.Execute] = ovs.Execute

    def __init__(self, parts: Parts, stations: Stations) -> None:
        self.parts = parts
        self.stations = stations
        world, state, name = parts.world, parts.state, parts.called("ovs")
        count = world.number("handlers")
        self.by_port = by_port = world["ovs_dispatch"] == "per-vport"
        self.datapath = datapath = self.datapath_class(
            state,
            name,
            parts.host_pool,
            len(stations.ports) if by_port else count,
            stations.ports,
            room=world.number("upcall_rcvbuf"),
            packets=parts.host_pool.slots,
        )
        is_stale = int(world["ovs_flow_count"] == "stale")
        self.switch = state.add(vswitchd.SwitchCells, parts.called("vswitchd"), count_stale=is_stale)
        self.threads = [parts.thread(parts.called(f"handler{i + 1}"), cpu=i) for i in range(count)]
        upcalls = self._upcalls_by_port() if by_port else self._upcalls_by_cpu()
        self.outputs: dict[str, Routine] = {}
        self.execute = self.execute_class(f"{name}.execute", OVS, datapath, self.outputs)
        self.receive: Routine = self.receive_class(
            f"{name}.receive", OVS, datapath, self.execute, upcalls, None if by_port else parts.cpus
        )
        if world["flows"] == "known":
            self._learn_flows()
        parts.drops |= {
            f"{name}.lost": lambda: datapath.cells.lost,
            f"{name}.no_action": lambda: datapath.cells.dropped,
        }

    def _upcalls_by_cpu(self) -> dict[str, Routine]:
        """Make the ways to ask where each handler has a socket of its own."""
        return {
            thread.name: ovs.Upcall(
                f"{self.datapath.name}.upcall_to_{thread.name}",
                OVS,
                self.datapath,
                number,
                thread.name,
                ovs.WakeHandler(f"{self.datapath.name}.wake_{thread.name}", OVS, thread),
            )
            for number, thread in enumerate(self.threads)
        }

    def _upcalls_by_port(self) -> dict[str, Routine]:
        """Make them where each port has one, and every handler waits for all of them."""
        wake: Routine | None = None
        for thread in reversed(self.threads):
            wake = ovs.WakeHandler(f"{self.datapath.name}.wake_{thread.name}", OVS, thread, wake)
        assert wake is not None
        return {
            port: ovs.Upcall(f"{self.datapath.name}.upcall_by_{port}", OVS, self.datapath, number, port, wake)
            for number, port in enumerate(self.stations.ports)
        }

    def connect(self, outputs: Mapping[str, Routine], poll: Routine | None) -> None:
        """Join it with its ports.

        Args:
            outputs: port name -> what transmitting on it is.
            poll: works off the softirqs that its frames raise, if any.
        """
        self.outputs |= outputs
        self.execute.outputs_are_known()
        for i, thread in enumerate(self.threads):
            thread.start = self._handler(i, thread, poll)

    def _learn_flows(self) -> None:
        """Install the flows of the scenario's frames, as if they had been seen before."""
        traffic = self.parts.traffic
        for number, item in enumerate(traffic.items, 1):
            frame, port = traffic.frame(number), self.stations.entry(item)
            outputs = self.stations.outputs(frame, port)
            self.datapath.flows.insert(frame, port, outputs, self.stations.tunnel_key(port))

    def _handler(self, number: int, thread: Thread, poll: Routine | None) -> Routine:
        """Make one upcall handler of ovs-vswitchd; `poll` works off the softirqs its packets raise, if any."""
        state, name = self.parts.state, thread.name
        memory = state.region(f"{name}.memory", vswitchd.UPCALL_MAX_BATCH * HOST_SLOT_BYTES)
        buffers = PacketPool(
            state, f"{name}.buffers", memory, 0, vswitchd.UPCALL_MAX_BATCH, HOST_SLOT_BYTES, headroom=0
        )
        mine = vswitchd.Handler(state, f"vswitchd.{name}", self.datapath, number, buffers, by_port=self.by_port)
        receive: Routine = upcall_calls.NetlinkReceive(f"{name}.recvmsg", NETLINK, mine)
        if self.by_port:
            epoll = upcall_calls.EpollNow(f"{name}.epoll_wait", NETLINK, mine)
            receive = vswitchd.ReceiveByPort(f"{name}.receive", VSWITCHD, mine, epoll, receive)
        operate: Routine
        if poll is None:
            operate = upcall_calls.Operate(f"{name}.operate", OVS, mine, self.execute)
        else:
            operate = upcall_calls.OperateWithSoftirqs(
                f"{name}.operate", OVS, mine, self.execute, poll, self.parts.backlogs
            )
        return vswitchd.HandlerLoop(
            f"{name}.loop",
            VSWITCHD,
            mine,
            self.switch,
            self.stations.outputs,
            poll_wait=upcall_calls.PollWait(f"{name}.poll_wait", NETLINK, mine),
            poll_now=upcall_calls.PollNow(f"{name}.poll_now", NETLINK),
            receive=receive,
            ask=upcall_calls.AskFlowCount(f"{name}.ask", NETLINK),
            answer=upcall_calls.ReadFlowCount(f"{name}.answer", NETLINK),
            operate=operate,
            drain=upcall_calls.DrainErrors(f"{name}.drain", NETLINK),
        )
