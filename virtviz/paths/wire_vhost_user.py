"""Putting vhost-user and OVS-DPDK together: one polling thread that is both the device's side and the switch.

Each virtual machine is behind a vhost-user port, the wire behind a network card that the same thread drives. Messages
on the vhost-user socket set all this up (`wire_setup_vhost_user.py`); none is sent afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.places import Domain, Place
from virtviz.engine.threads import ThreadKind
from virtviz.paths import callfd, dpdk_nic, dpif_netdev, host_net, kvm, kvm_eventfd
from virtviz.paths.features import EVENT_IDX, INDIRECT, MERGEABLE
from virtviz.paths.parts import CALLFD, KVM, VSWITCHD
from virtviz.paths.pmd import Pmd, PmdLoop
from virtviz.paths.switch_ports import Stations
from virtviz.paths.vhost_user import DequeueBurst, VhostUserQueue
from virtviz.paths.vhost_user_send import SendBatch
from virtviz.paths.wire_guest import RX, TX, enter_guest, msi_delivery
from virtviz.ring.dpdk_device import DpdkDevice
from virtviz.ring.split import SplitLayout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_guest import Guest
    from virtviz.ring.rings import DeviceRing

PMD: Final = "pmd0"
NIC: Final = "dpdk0"
OVS_DPDK: Final = Place("ovs_dpdk", Domain.HOST_USER, "OVS-DPDK")
KICKFD: Final = Place("kickfd", Domain.HOST_KERNEL, "kick eventfds")
FROM_GUEST: Final = {"look up": "U-TX.9", "act": "U-TX.10"}
FROM_WIRE: Final = {"look up": "U-RX.3", "act": "U-RX.3"}
"""Rows of looking up and acting, where the burst came from a guest, and where it came from the wire."""


def pmd_thread(parts: Parts) -> Thread:
    """Give the polling thread; it is made when the first virtual machine asks for it."""
    return next((thread for thread in parts.threads if thread.name == PMD), None) or parts.thread(PMD, cpu=0)


class VhostUserBackend:
    """A vhost-user port of OVS-DPDK for one queue pair.

    Attributes:
        name: the port's.
        rx_device, tx_device: the device's side of the rings.
    """

    def __init__(self, parts: Parts, machine: Sequence[Guest], number: int) -> None:
        (guest,) = machine
        self.parts, self.guest = parts, guest
        self.name = f"vhost-user{number}"
        self.place = Place(self.name, Domain.HOST_USER, "vhost-user port")
        world, state, memory = parts.world, parts.state, guest.memory
        port = parts.port(pmd_thread(parts), memory.region)
        tx_layout, rx_layout = memory.tx_layout, memory.rx_layout
        assert isinstance(tx_layout, SplitLayout), "packed queues are under QEMU's own back-end only"
        assert isinstance(rx_layout, SplitLayout), "as the other queue"
        self.tx_device, self.rx_device = (
            DpdkDevice(
                state,
                f"{self.name}.{queue}.ring",
                port,
                layout,
                region=memory.region,
                event_idx=world.has(EVENT_IDX),
                indirect=world.has(INDIRECT),
                start=world.number("queue.start"),
            )
            for queue, layout in (("transmitq1", tx_layout), ("receiveq1", rx_layout))
        )
        if world["begin"] == "running":
            for device in (self.tx_device, self.rx_device):
                device.never_ask_for_kicks()
        self.kicks, self.calls = (
            [state.add(kvm.EventfdCells, f"{guest.name}.{queue}.{use}") for queue in guest.vcpu.queues]
            for use in ("kick", "call")
        )

    def devices(self) -> list[tuple[DeviceRing, DeviceRing]]:
        """Give the device's side of the receive and of the transmit queue."""
        return [(self.rx_device, self.tx_device)]

    def kick_exits(self) -> list[list[Routine]]:
        """Make what a store to each queue's notify address leads to: an exit for nobody."""
        guest, on_intel = self.guest, self.parts.world["cpu"] == "intel"
        fast = self.parts.world.on("fast_mmio")
        exit_class = kvm_eventfd.kick_class(on_intel=on_intel, fast=fast)
        after = "The kick is done with." if on_intel and fast else "The store has been emulated."
        made: list[Routine] = []
        for queue, name in ((RX, guest.rx_name), (TX, guest.tx_name)):
            nobody = callfd.NobodyWaits(f"{name}.nobody_waits", KICKFD, name, self.kicks[queue])
            enter = enter_guest(guest, "KICK.5", f"{guest.vcpu.queues[queue]}_kick", after)
            made.append(exit_class(f"{name}.kick_exit", KVM, guest.vcpu, name, queue, self.kicks[queue], nobody, enter))
        return [made]

    def config_load(self) -> None:
        """Say that nothing ever changes in the device's configuration."""

    def queues(self, pmd: Pmd) -> tuple[VhostUserQueue, VhostUserQueue]:
        """Make what the library keeps for the guest's transmit and for its receive queue."""
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

    def call_guest(self, queue_name: str, bit: int, row: str) -> Routine:
        """Make what write() to a queue's call eventfd leads to."""
        deliver = msi_delivery(self.parts, self.guest, f"{queue_name}.msi", queue_name, bit)
        irqfd = kvm_eventfd.Irqfd(f"{queue_name}.irqfd", KVM, self.calls[bit], deliver)
        return callfd.WriteCallfd(f"{queue_name}.call", CALLFD, queue_name, row, self.calls[bit], irqfd)


class PmdSwitch:
    """OVS-DPDK: the polling thread with its datapath, the vhost-user ports, and the network card.

    Args:
        parts: the world in the making.
        backends: the vhost-user ports, the switch's first.

    Attributes:
        wire: what comes in from outside, and when.
    """

    def __init__(self, parts: Parts, backends: Sequence[VhostUserBackend]) -> None:
        self.parts = parts
        self.thread = pmd_thread(parts)
        self.stations = Stations([backend.name for backend in backends], NIC)
        self.pmd = Pmd(parts.state, PMD, self.stations.far)
        self.datapath = dpif_netdev.PmdDatapath(parts.state, "ovs_dpdk", parts.host_pool, self.pmd, self.stations.ports)
        self.wire = host_net.Wire(parts.state, "wire", parts.traffic)
        self.outputs: dict[str, Routine] = {}
        if parts.world["flows"] == "known":
            self._learn_flows()
        parts.drops["ovs_dpdk.no_action"] = lambda: self.datapath.cells.dropped
        self._wire(backends)

    def _learn_flows(self) -> None:
        """Install the flows of the scenario's frames, as if they had been seen before."""
        traffic = self.parts.traffic
        for number, item in enumerate(traffic.items, 1):
            frame, port = traffic.frame(number), self.stations.entry(item)
            self.datapath.flows.insert(frame, port, self.stations.outputs(frame, port))

    def _wire(self, backends: Sequence[VhostUserBackend]) -> None:
        """Make everything the polling thread does."""
        nic, driver = self._card()
        queues = [backend.queues(self.pmd) for backend in backends]
        receive: dict[str, Routine] = {}
        for port, (backend, (tx, rx)) in enumerate(zip(backends, queues, strict=True)):
            guest = backend.guest
            receive[backend.name] = DequeueBurst(
                f"{backend.name}.dequeue",
                backend.place,
                tx,
                backend.call_guest(guest.tx_name, TX, "U-TX.8"),
                self._process(backend.name, FROM_GUEST, port + 1),
            )
            self.outputs[backend.name] = SendBatch(
                f"{backend.name}.send", backend.place, rx, backend.call_guest(guest.rx_name, RX, "U-RX.10"), port
            )
        far = self.stations.far
        receive[NIC] = dpdk_nic.PollNic(f"{NIC}.receive", driver, nic, self.pmd, self._process(NIC, FROM_WIRE, far))
        self.outputs[NIC] = dpdk_nic.SendToNic(f"{NIC}.send", driver, nic, self.pmd, far - 1)
        self.thread.start = PmdLoop(f"{PMD}.loop", OVS_DPDK, self.pmd, [*(tx for tx, _ in queues), nic], receive)

    def _process(self, source: str, rows: Mapping[str, str], port: int) -> Routine:
        """Make what is done with the bursts that come from one port."""
        miss = dpif_netdev.PmdMiss(f"{source}.miss", OVS_DPDK, self.datapath, rows, VSWITCHD, self.stations.outputs)
        return dpif_netdev.ProcessBurst(f"{source}.process", OVS_DPDK, self.datapath, rows, port, miss, self.outputs)

    def _card(self) -> tuple[dpdk_nic.PolledNic, Place]:
        """Make the network card, and name the place of its driver."""
        parts, world = self.parts, self.parts.world
        nic = dpdk_nic.PolledNic(
            parts.state,
            NIC,
            parts.host_pool,
            self.wire,
            parts.traffic,
            world.number("nic_ring"),
            world.number("nic_tx_frames"),
        )
        engine = parts.thread(NIC, cpu=2, kind=ThreadKind.HARDWARE)
        engine.start = dpdk_nic.PolledNicEngine(f"{NIC}.engine", Place(f"{NIC}.hw", Domain.HARDWARE, "NIC"), nic)
        parts.drops |= {
            f"{NIC}.tx_failure_drops": lambda: nic.cells.qdisc_dropped,
            f"{NIC}.rx_missed": lambda: nic.cells.rx_missed,
        }
        return nic, Place(NIC, Domain.HOST_USER, "DPDK driver")
