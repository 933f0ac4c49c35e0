"""Putting vhost-user and OVS-DPDK together: one polling thread that is both the device's side and the switch.

Each virtual machine is behind a vhost-user port, the wire behind a network card that the same thread drives. Of a port
with several queue pairs the thread polls every transmit queue, but it fills only one receive queue, its own. Messages
on the vhost-user socket set all this up (`wire_setup_vhost_user.py`); none is sent afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from virtviz.engine.places import Domain, Place
from virtviz.engine.threads import ThreadKind
from virtviz.paths import callfd, dpdk_nic, dpif_netdev, host_net, kvm
from virtviz.paths.features import EVENT_IDX, INDIRECT, MERGEABLE
from virtviz.paths.parts import CALLFD, VSWITCHD
from virtviz.paths.pmd import Pmd, PmdLoop
from virtviz.paths.switch_ports import Stations
from virtviz.paths.vhost_user import DequeueBurst, VhostUserQueue
from virtviz.paths.vhost_user_send import ChooseQueue, SendBatch
from virtviz.paths.wire_guest import RX, TX
from virtviz.paths.wire_rings import routine_kind
from virtviz.paths.wire_transport import pci_transport
from virtviz.ring.dpdk_device import DpdkDevice
from virtviz.ring.packed import PackedLayout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.memory import Port, Region
    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.pmd import RxQueue
    from virtviz.paths.wire_guest import Guest
    from virtviz.ring.dpdk_packed_device import DpdkPackedDevice
    from virtviz.ring.rings import DeviceRing, DpdkRing, Layout

PMD: Final = "pmd0"
NIC: Final = "dpdk0"
OVS_DPDK: Final = Place("ovs_dpdk", Domain.HOST_USER, "OVS-DPDK")
KICKFD: Final = Place("kickfd", Domain.HOST_KERNEL, "kick eventfds")
FROM_GUEST: Final = {"look up": "U-TX.9", "act": "U-TX.10"}
FROM_WIRE: Final = {"look up": "U-RX.3", "act": "U-RX.3"}
"""Rows of looking up and acting, where the burst came from a guest, and where it came from the wire."""
Joined = tuple["list[RxQueue]", "dict[str, Routine]", "Routine"]
"""Of a port: the queues that are polled, by their names what receives from each, and what sends into the guest."""


def pmd_thread(parts: Parts) -> Thread:
    """Give the polling thread; it is made when the first virtual machine asks for it."""
    name = parts.called(PMD)
    return next((thread for thread in parts.threads if thread.name == name), None) or parts.thread(name, cpu=0)


class VhostUserPair:
    """The vhost library's part of a port: one queue pair.

    Args:
        parts: the world in the making.
        guest: the vCPU whose queues they are.
        port_name: the port's name.
        port: guest memory, as the CPU of the polling thread reaches it.

    Attributes:
        name: the port's name, and behind it the pair's number where there are several.
        rx_device, tx_device: the device's side of the rings.
        kicks, calls: eventfds of the receive and of the transmit queue.
    """

    def __init__(self, parts: Parts, guest: Guest, port_name: str, port: Port) -> None:
        self.parts, self.guest = parts, guest
        world, state, memory = parts.world, parts.state, guest.memory
        several = world.number("queues") > 1
        self.name = f"{port_name}.q{guest.number + 1}" if several else port_name
        self.place = Place(port_name, Domain.HOST_USER, "vhost-user port")
        self.tx_device, self.rx_device = (
            self._make_ring(port, memory.region, layout, f"{port_name}.{queue}.ring")
            for queue, layout in zip(guest.queues[::-1], (memory.tx_layout, memory.rx_layout), strict=True)
        )
        if world["begin"] == "running":
            for device in (self.tx_device, self.rx_device):
                device.never_ask_for_kicks()
        self.kicks, self.calls = (
            [state.add(kvm.EventfdCells, f"{guest.name}.{queue}.{use}") for queue in guest.queues]
            for use in ("kick", "call")
        )

    def _make_ring(self, port: Port, region: Region, layout: Layout, name: str) -> DpdkRing:
        """Make the library's side of a queue."""
        world = self.parts.world
        kind: type[DpdkDevice | DpdkPackedDevice] = DpdkDevice
        if isinstance(layout, PackedLayout):
            from virtviz.ring.dpdk_packed_device import DpdkPackedDevice  # noqa: PLC0415 - where rings are packed only

            kind = DpdkPackedDevice
        return kind(
            self.parts.state,
            name,
            port,
            layout,  # type: ignore[arg-type]
            region=region,
            event_idx=world.has(EVENT_IDX),
            indirect=world.has(INDIRECT),
            start=world.number("queue.start"),
        )

    def kick_exits(self) -> list[Routine]:
        """Make what a store to each queue's notify address leads to: an exit for nobody."""
        return self.guest.transport.light_exits(self.kicks, [self._nobody(queue) for queue in (RX, TX)])

    def kick_exit_from(self, vcpu: Guest) -> Routine:
        """Make what a store to the receive queue's notify address leads to, on a vCPU that the pair is not bound to."""
        nobody = self._nobody(RX, f".from_vcpu{vcpu.number}")
        return pci_transport(self.guest).light_exit_from(vcpu, RX, self.kicks[RX], nobody)

    def _nobody(self, queue: int, by: str = "") -> Routine:
        """Make what signalling a queue's kick leads to."""
        name = (self.guest.rx_name, self.guest.tx_name)[queue]
        return callfd.NobodyWaits(f"{name}{by}.nobody_waits", KICKFD, name, self.kicks[queue])

    def queues(self, pmd: Pmd) -> tuple[VhostUserQueue, VhostUserQueue]:
        """Make what the library keeps for the transmit and for the receive queue."""
        parts, guest = self.parts, self.guest
        made = tuple(
            VhostUserQueue(
                parts.state,
                self.name,
                direction,
                queue_name,
                device,
                pool,
                parts.host_pool,
                pmd,
                mergeable=parts.world.has(MERGEABLE),
            )
            for direction, queue_name, device, pool in (
                ("tx", guest.tx_name, self.tx_device, guest.memory.skbs),
                ("rx", guest.rx_name, self.rx_device, guest.memory.buffers),
            )
        )
        tx, rx = made
        parts.drops |= {
            f"{self.name}.tx_failure_drops": lambda: rx.cells.dropped,
            f"{self.name}.oversized": lambda: tx.cells.oversized,
            f"{self.name}.errors": lambda: tx.cells.errors + rx.cells.errors,
        }
        return tx, rx

    def dequeue(self, queue: VhostUserQueue, process: Routine) -> Routine:
        """Make what takes bursts out of the guest's transmit queue; `process` is what is done with them."""
        kind = routine_kind(self.parts.world, DequeueBurst)
        call = self.call_guest(queue.ring_name, TX, "U-TX.8")
        return kind(f"{self.name}.dequeue", self.place, queue, call, process)

    def send(self, queue: VhostUserQueue, port: int) -> Routine:
        """Make what puts batches into the guest's receive queue; `port` is the switch's, from 0."""
        kind = routine_kind(self.parts.world, SendBatch)
        call = self.call_guest(queue.ring_name, RX, "U-RX.10")
        return kind(f"{self.name}.send", self.place, queue, call, port)

    def call_guest(self, queue_name: str, bit: int, row: str) -> Routine:
        """Make what write() to a queue's call eventfd leads to."""
        irqfd = self.guest.transport.called(queue_name, bit, self.calls[bit])
        return callfd.WriteCallfd(f"{queue_name}.call", CALLFD, queue_name, row, self.calls[bit], irqfd)


class VhostUserBackend:
    """A vhost-user port of OVS-DPDK.

    Args:
        parts: the world in the making.
        machine: the virtual machine's vCPUs, each with a queue pair.
        number: the machine's number, from 0.

    Attributes:
        name: the port's.
        pairs: its queue pairs.
        choice: what chooses among several of them, once the switch is there.
    """

    choice: ChooseQueue | None = None

    def __init__(self, parts: Parts, machine: Sequence[Guest], number: int) -> None:
        self.name = f"vhost-user{number}"
        port = parts.port(pmd_thread(parts), machine[0].memory.region)
        self.pairs = [VhostUserPair(parts, guest, self.name, port) for guest in machine]

    def devices(self) -> list[tuple[DeviceRing, DeviceRing]]:
        """Give the device's side of the receive and of the transmit queue, pair by pair."""
        return [(pair.rx_device, pair.tx_device) for pair in self.pairs]

    def kick_exits(self) -> list[list[Routine]]:
        """Make, for each pair, what a store to each queue's notify address leads to."""
        return [pair.kick_exits() for pair in self.pairs]

    def config_load(self) -> None:
        """Say that nothing ever changes in the device's configuration."""

    def join(self, pmd: Pmd, process: Routine, port: int) -> Joined:
        """Make what the polling thread does for the port; see `PmdPort`."""
        queues: list[RxQueue] = []
        receive, sends = {}, {}
        for pair in self.pairs:
            tx, rx = pair.queues(pmd)
            queues.append(tx)
            receive[pair.name] = pair.dequeue(tx, process)
            sends[pair.name] = pair.send(rx, port)
        if len(sends) > 1:
            self.choice = ChooseQueue(f"{self.name}.choose", pair.place, sends)
        return queues, receive, self.choice or sends[pair.name]


class PmdPort(Protocol):
    """A port of OVS-DPDK, as its switch sees it."""

    name: str

    def join(self, pmd: Pmd, process: Routine, port: int) -> Joined:
        """Make what the polling thread does for the port.

        Args:
            pmd: that thread.
            process: what is done with bursts that come from the port.
            port: its number, from 0.
        """


class PmdSwitch:
    """OVS-DPDK: the polling thread with its datapath, the vhost-user ports, and the network card.

    Args:
        parts: the world in the making.
        backends: the vhost-user ports, the switch's first.

    Attributes:
        wire: what comes in from outside, and when.
    """

    def __init__(self, parts: Parts, backends: Sequence[PmdPort]) -> None:
        self.parts = parts
        self.thread = pmd_thread(parts)
        self.card = parts.called(NIC)
        self.stations = Stations([backend.name for backend in backends], self.card, parts.first_vm)
        self.pmd = Pmd(parts.state, self.thread.name, self.stations.far)
        self.name = parts.called("ovs_dpdk")
        self.datapath = dpif_netdev.PmdDatapath(parts.state, self.name, parts.host_pool, self.pmd, self.stations.ports)
        self.wire = parts.cable or host_net.Wire(parts.state, "wire", parts.traffic)
        self.outputs: dict[str, Routine] = {}
        if parts.world["flows"] == "known":
            self._learn_flows()
        parts.drops[f"{self.name}.no_action"] = lambda: self.datapath.cells.dropped
        self._wire(backends)

    def _learn_flows(self) -> None:
        """Install the flows of the scenario's frames, as if they had been seen before."""
        traffic = self.parts.traffic
        for number, item in enumerate(traffic.items, 1):
            frame, port = traffic.frame(number), self.stations.entry(item)
            self.datapath.flows.insert(frame, port, self.stations.outputs(frame, port))

    def _wire(self, backends: Sequence[PmdPort]) -> None:
        """Make everything the polling thread does."""
        nic, driver = self._card()
        receive: dict[str, Routine] = {}
        polled: list[RxQueue] = []
        for port, backend in enumerate(backends):
            process = self._process(backend.name, FROM_GUEST, port + 1)
            queues, received, send = backend.join(self.pmd, process, port)
            polled += queues
            receive |= received
            self.outputs[backend.name] = send
        far = self.stations.far
        card = self.card
        receive[NIC] = dpdk_nic.PollNic(f"{card}.receive", driver, nic, self.pmd, self._process(card, FROM_WIRE, far))
        self.outputs[card] = dpdk_nic.SendToNic(f"{card}.send", driver, nic, self.pmd, far - 1)
        self.thread.start = PmdLoop(f"{self.thread.name}.loop", OVS_DPDK, self.pmd, [*polled, nic], receive)

    def _process(self, source: str, rows: Mapping[str, str], port: int) -> Routine:
        """Make what is done with the bursts that come from one port."""
        miss = dpif_netdev.PmdMiss(f"{source}.miss", OVS_DPDK, self.datapath, rows, VSWITCHD, self.stations.outputs)
        return dpif_netdev.ProcessBurst(f"{source}.process", OVS_DPDK, self.datapath, rows, port, miss, self.outputs)

    def _card(self) -> tuple[dpdk_nic.PolledNic, Place]:
        """Make the network card, and name the place of its driver."""
        parts, world = self.parts, self.parts.world
        name, kind = self.card, dpdk_nic.PolledNic
        if parts.cable is not None:
            from virtviz.paths.cable import CabledPolledNic  # noqa: PLC0415 - where there are two hosts only

            kind = CabledPolledNic
        nic = kind(
            parts.state,
            name,
            parts.host_pool,
            self.wire,
            parts.traffic,
            world.number("nic_ring"),
            world.number("nic_tx_frames"),
        )
        engine = parts.thread(name, cpu=2, kind=ThreadKind.HARDWARE)
        engine.start = dpdk_nic.PolledNicEngine(f"{name}.engine", Place(f"{name}.hw", Domain.HARDWARE, "NIC"), nic)
        parts.drops |= {
            f"{name}.tx_failure_drops": lambda: nic.cells.qdisc_dropped,
            f"{name}.rx_missed": lambda: nic.cells.rx_missed,
        }
        return nic, Place(name, Domain.HOST_USER, "DPDK driver")
