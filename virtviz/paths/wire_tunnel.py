"""Putting together a tunnel to the far host: the switch's last port is the tunnel, and below it are IP and the card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.places import Domain, Place
from virtviz.paths.nic import GRO_BATCH
from virtviz.paths.ovs_tunnel import TunnelDatapath, TunnelExecute, TunnelReceive, TunnelStations
from virtviz.paths.packets import HeadroomPool
from virtviz.paths.parts import HOST_IP, HOST_STACK
from virtviz.paths.tunnel import HERE, THERE, Tunnel, TunnelWire, TunnelXmit
from virtviz.paths.tunnel_rx import GroCell, GroCellPoll, HostReceive, NicPollBelowTunnel, ProcessBacklogBelowTunnel
from virtviz.paths.wire_far import FarEnd
from virtviz.paths.wire_ovs import OvsSwitch
from virtviz.spec.tunnels import TUNNELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.host_net import ProcessBacklog
    from virtviz.paths.nic import Nic
    from virtviz.paths.nic_poll import NicPoll
    from virtviz.paths.parts import Parts


class TunnelEnd(FarEnd):
    """A tunnel as the switch's last port.

    Args:
        parts: the world in the making.
        number: the port's number.

    Attributes:
        name: the tunnel device's name.
        wire: what comes in from outside: frames in the tunnel.
    """

    def __init__(self, parts: Parts, number: int) -> None:
        self.kind = TUNNELS[parts.world.word("tunnel")]
        self.vni = parts.world.number("vni")
        super().__init__(parts, number)
        self.name = parts.called(self.kind.device)
        assert isinstance(parts.host_pool, HeadroomPool)
        self.pool = parts.host_pool
        ends = (THERE, HERE) if parts.first_vm else (HERE, THERE)
        self.tunnel = tunnel = Tunnel(parts.state, self.name, self.kind, self.pool, self.device, ends)
        host_ip = parts.called("host_ip")
        self.place = Place(self.name, Domain.HOST_KERNEL, "tunnel")
        self.cells: list[GroCell | None] = []
        parts.drops |= {
            f"{self.name}.too_big": lambda: tunnel.cells.too_big,
            f"{self.name}.tx_dropped": lambda: tunnel.cells.tx_dropped,
            f"{self.name}.rx_dropped": lambda: tunnel.cells.rx_dropped,
            f"{host_ip}.frag_fails": lambda: tunnel.cells.frag_fails,
            f"{host_ip}.not_for_us": lambda: tunnel.cells.not_for_us,
            f"{host_ip}.no_port": lambda: tunnel.cells.no_port,
        }

    def make_wire(self) -> TunnelWire:
        """Make what comes in from outside."""
        return TunnelWire(self.parts.state, "wire", self.parts.traffic, self.kind, self.vni)

    def stations(self, taps: Sequence[str]) -> TunnelStations:
        """Say what is behind which port: TAPs first, the tunnel last."""
        return TunnelStations(taps, self.name, self.vni, self.parts.first_vm)

    def make(self, receive: Routine, threads: Sequence[Thread]) -> tuple[Routine, Routine | None]:
        """Make it; answers transmission on the tunnel, and the softirq that it raises in the thread itself, if any."""
        self.to_switch = receive
        host = HostReceive(f"{self.name}.receive", self.place, HOST_IP, self.tunnel, self.cells)
        below, poll = super().make(host, threads)
        return TunnelXmit(f"{self.name}.xmit", self.place, HOST_IP, self.tunnel, below), poll

    def nic_poll(self, nic: Nic, driver: Place, receive: Routine, run_queue: Routine) -> NicPoll:
        """Make what the CPU does that serves the card: its poll, then the tunnel's."""
        second = self._cell_poll(nic.softirq)
        cell = self.cells[nic.softirq.me.index]
        assert cell is not None
        return NicPollBelowTunnel(f"{nic.name}.poll", driver, nic, receive, self.number, run_queue, cell, second)

    def backlog_poll(self, receive: Routine, peer: Routine) -> ProcessBacklog:
        """Make the softirq that takes frames out of the veth pair's ends, and polls the tunnel after that."""
        parts = self.parts
        second = {
            thread.name: self._cell_poll(thread)
            for thread, backlog in zip(parts.threads, parts.backlogs, strict=True)
            if backlog is not None
        }
        names = [thread.name for thread in parts.threads]
        return ProcessBacklogBelowTunnel(
            "host.process_backlog",
            HOST_STACK,
            parts.backlogs,
            parts.host_pool,
            receive,
            peer,
            self.number,
            self.cells,
            second,
            names,
        )

    def _cell_poll(self, thread: Thread) -> Routine:
        """Make the tunnel's queue on a thread's CPU, and its poll."""
        index = thread.me.index
        self.cells += [None] * (index + 1 - len(self.cells))
        cell = self.cells[index] = GroCell(self.parts.state, f"{self.name}.cell{index}", GRO_BATCH)
        self.parts.drops[f"{self.name}.backlog.{thread.name}"] = lambda: cell.cells.dropped
        return GroCellPoll(
            f"{self.name}.poll_on_{thread.name}",
            self.place,
            self.tunnel,
            cell,
            self.pool,
            self.to_switch,
            self.number,
        )


class OvsTunnelSwitch(OvsSwitch):
    """Open vSwitch with a tunnel as its last port."""

    datapath_class = TunnelDatapath
    receive_class = TunnelReceive
    execute_class = TunnelExecute
