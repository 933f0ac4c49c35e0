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
        self.device = FAR_PORTS[parts.world.word("far_port")]
        self.name = self.device
        self.wire = self.make_wire()

    def make_wire(self) -> host_net.Wire:
        """Make what comes in from outside."""
        return host_net.Wire(self.parts.state, "wire", self.parts.traffic)

    def stations(self, taps: Sequence[str]) -> Stations:
        """Say what is behind which port: TAPs first, this one last."""
        return Stations(taps, self.name)

    def make(self, receive: Routine, threads: Sequence[Thread]) -> tuple[Routine, Routine | None]:
        """Make it; answers transmission on the port, and the softirq that this raises in the thread itself, if any.

        Args:
            receive: what takes frames that enter the switch by this port.
            threads: the threads that carry frames to it.
        """
        make: Mapping[str, Callable[[Routine, Sequence[Thread]], tuple[Routine, Routine | None]]]
        make = {"eth0": self._nic, "veth0": self._veth, "dummy0": self._dummy}
        return make[self.device](receive, threads)

    def _nic(self, receive: Routine, _: Sequence[Thread]) -> tuple[Routine, None]:
        """Make a network card, with the softirq that serves its interrupts."""
        parts, world = self.parts, self.parts.world
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
                parts.state, "eth0", pool, self.wire, parts.traffic, ring, tx_frames, tso=world.on("nic_tso")
            )
        else:
            nic = Nic(parts.state, "eth0", pool, self.wire, parts.traffic, ring, tx_frames)
        driver = Place("eth0", Domain.HOST_KERNEL, "NIC driver")
        engine = parts.thread("eth0", cpu=2, kind=ThreadKind.HARDWARE)
        nic.softirq = parts.thread("softirq/cpu1", cpu=1)
        engine.start = engine_class("eth0.engine", Place("eth0.hw", Domain.HARDWARE, "NIC"), nic)
        xmit = xmit_class("eth0.xmit", driver, nic)
        run_queue = run_class("eth0.qdisc_run", driver, nic, xmit)
        nic.softirq.start = self.nic_poll(nic, driver, receive, run_queue)
        parts.drops |= {
            "eth0.qdisc": lambda: nic.cells.qdisc_dropped,
            "eth0.rx_missed": lambda: nic.cells.rx_missed,
        }
        return xmit, None

    def nic_poll(self, nic: Nic, driver: Place, receive: Routine, run_queue: Routine) -> NicPoll:
        """Make what the CPU does that serves the card."""
        return NicPoll("eth0.poll", driver, nic, receive, self.number, run_queue)

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
