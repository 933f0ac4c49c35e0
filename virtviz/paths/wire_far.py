"""Putting together what is behind the switch's last port: a network card, a veth pair, or a dummy that drops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.places import Domain, Place
from virtviz.engine.threads import ThreadKind
from virtviz.paths import host_net
from virtviz.paths.nic import DummyXmit, Nic, NicEngine, NicXmit, RunNicQueue
from virtviz.paths.nic_poll import NicPoll
from virtviz.paths.offloads import OffloadPool
from virtviz.paths.parts import HOST_STACK
from virtviz.paths.switch_ports import Stations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts

FAR_PORTS: Final = {"nic": "eth0", "veth": "veth0", "dummy": "dummy0"}


class FarEnd:
    """What the switch's last port leads to.

    Args:
        parts: the world in the making.
        number: the port's number.

    Attributes:
        device: the device that frames leave the host by.
        name: the port's name.
        wire: what comes in from outside, and when.
        engine: what a network card itself does.
    """

    engine: type[NicEngine] = NicEngine

    def __init__(self, parts: Parts, number: int) -> None:
        self.parts = parts
        self.number = number
        self.device = parts.called(FAR_PORTS[parts.world.word("far_port")])
        self.name = self.device
        self.wire = parts.cable or self.make_wire()

    def make_wire(self) -> host_net.Wire:
        """Make what comes in from outside."""
        return host_net.Wire(self.parts.state, "wire", self.parts.traffic)

    def stations(self, taps: Sequence[str]) -> Stations:
        """Say what is behind which port: TAPs first, this one last."""
        return Stations(taps, self.name, self.parts.first_vm)

    def make(self, receive: Routine, threads: Sequence[Thread]) -> tuple[Routine, Routine | None]:
        """Make it; answers transmission on the port, and the softirq that this raises in the thread itself, if any.

        Args:
            receive: what takes frames that enter the switch by this port.
            threads: the threads that carry frames to it.
        """
        make: Mapping[str, Callable[[Routine, Sequence[Thread]], tuple[Routine, Routine | None]]]
        make = {"nic": self._nic, "veth": self._veth, "dummy": self._dummy}
        return make[self.parts.world.word("far_port")](receive, threads)

    def _nic(self, receive: Routine, _: Sequence[Thread]) -> tuple[Routine, None]:
        """Make a network card, with the softirq that serves its interrupts."""
        parts, world, name = self.parts, self.parts.world, self.device
        ring, tx_frames, pool = world.number("nic_ring"), world.number("nic_tx_frames"), parts.host_pool
        engine_class, xmit_class, run_class = self.engine, NicXmit, RunNicQueue
        if isinstance(pool, OffloadPool):
            from virtviz.paths.nic_offloads import (  # noqa: PLC0415 - where there are segments to cut only
                OffloadNic,
                OffloadNicEngine,
                OffloadNicXmit,
                RunOffloadNicQueue,
            )

            engine_class, xmit_class, run_class = OffloadNicEngine, OffloadNicXmit, RunOffloadNicQueue
            nic: Nic = OffloadNic(
                parts.state, name, pool, self.wire, parts.traffic, ring, tx_frames, tso=world.on("nic_tso")
            )
        else:
            nic = self._plain_nic()(parts.state, name, pool, self.wire, parts.traffic, ring, tx_frames)
        driver = Place(name, Domain.HOST_KERNEL, "NIC driver")
        engine = parts.thread(name, cpu=2, kind=ThreadKind.HARDWARE)
        nic.softirq = parts.thread(parts.called("softirq/cpu1"), cpu=1)
        engine.start = engine_class(f"{name}.engine", Place(f"{name}.hw", Domain.HARDWARE, "NIC"), nic)
        xmit = xmit_class(f"{name}.xmit", driver, nic)
        run_queue = run_class(f"{name}.qdisc_run", driver, nic, xmit)
        nic.softirq.start = self.nic_poll(nic, driver, receive, run_queue)
        parts.drops |= {
            f"{name}.qdisc": lambda: nic.cells.qdisc_dropped,
            f"{name}.rx_missed": lambda: nic.cells.rx_missed,
        }
        return xmit, None

    def _plain_nic(self) -> type[Nic]:
        """Say what the card is, where nothing is left to it to cut."""
        if self.parts.cable is None:
            return Nic
        from virtviz.paths.cable import CabledNic  # noqa: PLC0415 - where there are two hosts only

        return CabledNic

    def nic_poll(self, nic: Nic, driver: Place, receive: Routine, run_queue: Routine) -> NicPoll:
        """Make what the CPU does that serves the card."""
        return NicPoll(f"{nic.name}.poll", driver, nic, receive, self.number, run_queue)

    def _veth(self, receive: Routine, threads: Sequence[Thread]) -> tuple[Routine, Routine]:
        """Make a veth pair into another network namespace."""
        parts, pool, backlogs = self.parts, self.parts.host_pool, self.parts.backlogs
        peer_place = Place("peer", Domain.HOST_KERNEL, "far namespace")
        veth_place = Place("veth0", Domain.HOST_KERNEL, "veth")
        sender = parts.thread("peer", cpu=0)
        for thread in (*threads, sender):
            backlog = backlogs[thread.me.index] = host_net.Backlog(parts.state, f"{thread.name}.backlog")
            parts.drops[f"backlog.{thread.name}"] = lambda cells=backlog.cells: cells.dropped  # type: ignore[misc]
        xmit = host_net.VethXmit("veth0.xmit", veth_place, backlogs, host_net.FROM_SWITCH, pool, "veth0")
        back = host_net.VethXmitBack("veth1.xmit", veth_place, backlogs, host_net.TO_SWITCH, pool, "veth1")
        peer = host_net.PeerReceive("peer.receive", peer_place, pool, self.wire, back)
        poll = self.backlog_poll(receive, peer)
        sender.start = host_net.Arrivals("peer.send", peer_place, pool, self.wire, back, poll)
        return xmit, poll

    def backlog_poll(self, receive: Routine, peer: Routine) -> host_net.ProcessBacklog:
        """Make the softirq that takes frames out of the veth pair's ends."""
        parts = self.parts
        return host_net.ProcessBacklog(
            "host.process_backlog", HOST_STACK, parts.backlogs, parts.host_pool, receive, peer, self.number
        )

    def _dummy(self, _: Routine, __: Sequence[Thread]) -> tuple[Routine, None]:
        """Make a dummy device."""
        return DummyXmit("dummy0.xmit", HOST_STACK, self.parts.host_pool), None
