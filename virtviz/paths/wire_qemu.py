"""Putting QEMU's own back-end together: its main loop, its virtio-net device, and the descriptors it waits for.

With `ioeventfd=off` its vCPU thread has a part of its own in user space.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, TypeVar

from virtviz.engine.ops import Routine
from virtviz.paths import (
    kvm,
    qemu,
    qemu_checks,
    qemu_deliver,
    qemu_fds,
    qemu_link,
    qemu_nic,
    qemu_rx,
    qemu_tx,
    qemu_vcpu,
)
from virtviz.paths.features import MERGEABLE
from virtviz.paths.guest_config import ConfigWork
from virtviz.paths.outside import ChangeWorld
from virtviz.paths.packets import PacketPool
from virtviz.paths.parts import FDS, HOST_SLOT_BYTES, QEMU, QEMU_VCPU, tap_place
from virtviz.paths.tap import Tap, TapXmit
from virtviz.paths.tap_chr import TapRead, TapWrite, TapWriteWithSoftirqs
from virtviz.paths.tap_offloads import TapWriteMixed, TapWriteMixedWithSoftirqs
from virtviz.paths.tap_queues import (
    FlowUpdate,
    TapFlows,
    TapWriteOnQueue,
    TapWriteOnQueueWithSoftirqs,
)
from virtviz.paths.traffic import vm_endpoint
from virtviz.paths.vhost_link import EitherWaits, SharedTapXmit
from virtviz.paths.wire_guest import FIRST_PID, RX, TX
from virtviz.paths.wire_rings import make_qemu_ring, routine_kind
from virtviz.paths.wire_tap_queues import choose_queue, remembered_flows
from virtviz.paths.wire_transport import pci_transport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.memory import Port
    from virtviz.engine.places import Place
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_guest import Guest
    from virtviz.paths.wire_switch import TapPort
    from virtviz.ring.rings import DeviceRing

R = TypeVar("R", bound=Routine)

FRAMES = 2
"""Frames that can be in QEMU's memory: one that waits for buffers, and one just read."""


class QemuBackend:
    """QEMU's user-space back-end: one thread for all queue pairs of a virtual machine.

    Args:
        parts: the world in the making.
        machine: the virtual machine it serves, pair by pair.
        number: the machine's number, from 0.
        vhost_taps, vhost_kicks: what vhost has as well, which serves the queues until it is stopped; none without it.

    Attributes:
        threads: the main loop's thread, which is the only one.
        tap: the first queue of the TAP it reads and writes, if it has one.
        flows: what that TAP remembers of flows; None if that is nothing.
    """

    tap: Tap
    flows: TapFlows | None = None

    def __init__(
        self,
        parts: Parts,
        machine: Sequence[Guest],
        number: int,
        vhost_taps: Sequence[Tap] = (),
        vhost_kicks: Sequence[kvm.EventfdCells] = (),
    ) -> None:
        self.parts, self.machine = parts, machine
        state = parts.state
        name = f"qemu-{FIRST_PID + 10 * number}"
        self.thread: Thread = parts.thread(name, cpu=2 * number)
        self.threads = [self.thread]
        taps = list(vhost_taps) or self._make_taps(number)
        if taps:
            self.tap = taps[0]
        kicks = list(vhost_kicks) or [
            state.add(kvm.EventfdCells, f"{guest.name}.{queue}.kick") for guest in machine for queue in guest.queues
        ]
        own = state.add(kvm.EventfdCells, f"{name}.eventfd")
        self.qemu = qemu.Qemu(state, name, kicks, own, taps, shares_tap=bool(vhost_taps))
        self.qemu.thread = self.thread
        if vhost_taps:
            self.qemu.cells.read_poll = self.qemu.cells.kick_poll = 0
        first = machine[0]
        first.transport.process = self.qemu
        first.config = config = ConfigWork(
            state, f"{first.name}.config", first.cpu, first.tx_queue, first.socket, first.memory.skbs
        )
        parts.drops[f"{first.name}.no_carrier"] = lambda: config.cells.dropped
        if first.outside is not None and isinstance(first.outside.start, ChangeWorld):
            first.outside.start.qemu, first.outside.start.main_loop = self.qemu, self.thread
        port = parts.port(self.thread, machine[0].memory.region)
        make = self.pair_class()
        self.pairs = [make(parts, guest, first, self.qemu, port, vm_endpoint(number).mac) for guest in machine]
        for pair in self.pairs:
            pair.nic.device = [each.nic for each in self.pairs]
        if taps:
            self.flows = remembered_flows(parts, self.tap, len(machine))

    def _make_taps(self, number: int) -> list[Tap]:
        """Make the queues of a TAP of its own."""
        parts = self.parts
        slots = parts.world.number("txqueuelen")
        return [Tap(parts.state, f"tap{number}", parts.host_pool, slots, guest.number) for guest in self.machine]

    def pair_class(self) -> type[QemuPair]:
        """Say what it has of each queue pair."""
        return QemuPair

    # What others do with it

    def devices(self) -> list[tuple[DeviceRing, DeviceRing]]:
        """Give the device's side of each pair's receive and transmit queue."""
        return [(pair.rx_device, pair.tx_device) for pair in self.pairs]

    def kick_exits(self) -> list[list[Routine]]:
        """Make, for each pair, what a store to each queue's notify address leads to."""
        is_light = self.parts.world.on("ioeventfd")
        return [pair.light_exits() if is_light else pair.heavy_exits() for pair in self.pairs]

    def config_load(self) -> Routine:
        """Make what a load from the device's configuration leads to."""
        return self.machine[0].transport.config_load(self.qemu)

    def shared_transmit(self, serve: Routine) -> Routine:
        """Make what transmitting on the TAP is where vhost has it as well; `serve` is vhost's callback."""
        name, place = self.tap.name, tap_place(self.tap.name)
        wakeup = qemu_fds.WakePoller(f"{name}.wake_qemu", place, self.qemu, "N-IN.10", "the TAP")
        return SharedTapXmit(f"{name}.xmit", place, self.tap, serve, self.qemu, wakeup)

    def or_qemu(self, queue: str, vhost: Routine) -> Routine:
        """Make what a kick's eventfd does where vhost or QEMU may wait for it; `vhost` is vhost's callback."""
        woken = qemu_fds.WakeForKick(f"{queue}.kick_wakes_qemu", FDS, self.qemu, "KICK.4", "a queue's eventfd")
        return EitherWaits(f"{queue}.kick_waiters", FDS, self.qemu, vhost, woken)

    def tap_transmit(self) -> Routine:
        """Make what transmitting on the TAP is, for the host: the way into the guest."""
        xmits = [pair.tap_transmit() for pair in self.pairs]
        return choose_queue(self.tap, self.flows, xmits)

    def wire(self, port: TapPort | None, backends: Mapping[str, Routine] = MappingProxyType({})) -> None:
        """Make everything the main loop does.

        Args:
            port: the switch's port that the TAP is; None without one.
            backends: what stops and starts vhost with the link; none without vhost.
        """
        name = self.qemu.name
        read_own = qemu_fds.ReadEventfd(f"{name}.read_own", FDS, self.qemu.own, "Q-TX.12")
        work: dict[str, Routine] = {"own eventfd": qemu.ReadOwnEventfd(f"{name}.serve_own", QEMU, read_own)}
        for pair in self.pairs:
            work |= pair.handlers(port, self.flows)
        if self.parts.traffic.has_links:
            work[qemu.REQUEST] = self.pairs[0].set_link(backends)
        self.thread.start = qemu.MainLoop(
            f"{name}.loop",
            QEMU,
            self.qemu,
            poll_wait=qemu_fds.PpollWait(f"{name}.poll_wait", FDS, self.qemu),
            poll_now=qemu_fds.PpollNow(f"{name}.poll_now", FDS, self.qemu),
            work={handler: work[handler] for handler in self.qemu.handlers.values() if handler in work},
            next_out=lambda: next(filter(None, (pair.nic.next_out() for pair in self.pairs)), 0),
            next_in=lambda: next(filter(None, (pair.nic.next_in() for pair in self.pairs)), 0),
        )


class QemuPair:
    """What QEMU has of one queue pair.

    Args:
        parts: the world in the making.
        guest: the vCPU whose queues it serves.
        first: the machine's first vCPU, which a changed configuration interrupts.
        process: the process.
        port: how its main loop reaches guest memory.
        mac: the device's address.

    Attributes:
        nic: the pair as the device's routines see it.
        name: what its state is called by.
        rx_device, tx_device: the device's side of the rings.
    """

    send_class: ClassVar[type[qemu_tx.SendQueued]] = qemu_tx.SendQueued

    def __init__(self, parts: Parts, guest: Guest, first: Guest, process: qemu.Qemu, port: Port, mac: bytes) -> None:
        self.parts, self.guest, self.first, self.qemu = parts, guest, first, process
        world, state, memory, pair = parts.world, parts.state, guest.memory, guest.number
        self.kicks = process.kicks[2 * pair : 2 * pair + 2]
        self.tx_device, self.rx_device = (
            make_qemu_ring(parts, f"{process.name}.{queue}.ring", port, layout)
            for queue, layout in zip(guest.queues[::-1], (memory.tx_layout, memory.rx_layout), strict=True)
        )
        name = f"{process.name}.q{pair + 1}" if pair else process.name
        region = state.region(f"{name}.memory", FRAMES * HOST_SLOT_BYTES)
        frames = PacketPool(state, f"{name}.frames", region, 0, FRAMES, HOST_SLOT_BYTES, headroom=0)
        parts.pools[frames.name] = frames
        self.nic = qemu_nic.Nic(
            state,
            f"{name}.nic",
            process,
            status=guest.device,
            pair=pair,
            mac=mac,
            tx_name=guest.tx_name,
            rx_name=guest.rx_name,
            tx=self.tx_device,
            rx=self.rx_device,
            skbs=memory.skbs,
            buffers=memory.buffers,
            memory=frames,
            mergeable=world.has(MERGEABLE),
        )
        nic = self.nic.cells
        self.name = name
        parts.drops |= {
            f"{name}.discarded": lambda: nic.discarded,
            f"{name}.filtered": lambda: nic.filtered,
            f"{name}.refused": lambda: nic.refused,
            f"{name}.errors": lambda: nic.errors,
            f"{name}.lost": lambda: nic.lost,
            f"{name}.link_down": lambda: nic.unlinked,
        }
        self._join_network()

    def _join_network(self) -> None:
        """Take the queue of the TAP that is this pair's."""
        self.tap = tap = self.qemu.taps[self.guest.number]
        self.parts.drops[f"{tap.label}.tx_dropped"] = lambda: tap.cells.tx_dropped

    def light_exits(self) -> list[Routine]:
        """Make what a store to each queue's notify address leads to, where KVM signals an eventfd."""
        return self.guest.transport.light_exits(self.kicks, [self._wakeup(queue) for queue in (RX, TX)])

    def kick_exit_from(self, vcpu: Guest) -> Routine:
        """Make what a store to the receive queue's notify address leads to, on a vCPU that the pair is not bound to."""
        wakeup = self._wakeup(RX, f".from_vcpu{vcpu.number}")
        return pci_transport(self.guest).light_exit_from(vcpu, RX, self.kicks[RX], wakeup)

    def _wakeup(self, queue: int, by: str = "") -> Routine:
        """Make what signalling a queue's kick leads to."""
        queue_name, who = (
            (self.guest.rx_name, "the receive queue's eventfd"),
            (self.guest.tx_name, "the transmit queue's eventfd"),
        )[queue]
        return qemu_fds.WakeForKick(f"{queue_name}{by}.kick_wakeup", FDS, self.qemu, "KICK.4", who)

    def heavy_exits(self) -> list[Routine]:
        """Make what it leads to where only QEMU knows the address."""
        guest, name = self.guest, qemu.called(self.qemu.name, self.guest.number)
        woken = qemu_fds.WakeForKick(f"{name}.eventfd_wakeup", FDS, self.qemu, "KICK.4", "its own eventfd")
        write = qemu_fds.WriteEventfd(f"{name}.write_eventfd", FDS, self.qemu.own, woken)
        nic = self.nic.through(guest.tx_driver.memory)
        deliver = self._deliver(f"{guest.rx_name}.deliver_from_vcpu", QEMU_VCPU, nic)
        serve_rx = qemu_vcpu.ServeRxKickFromVcpu(f"{guest.rx_name}.kicked", QEMU_VCPU, nic, deliver, write)
        serve_tx = routine_kind(self.parts.world, qemu_vcpu.ServeTxKickFromVcpu)(
            f"{guest.tx_name}.kicked", QEMU_VCPU, nic, self._drop(QEMU_VCPU, nic), write
        )
        return guest.transport.heavy_exits(self.qemu, (serve_rx, serve_tx))

    def tap_transmit(self) -> Routine:
        """Make what transmitting on its queue of the TAP is, for the host."""
        name, place = self.tap.label, tap_place(self.tap.name)
        wakeup = qemu_fds.WakePoller(f"{name}.wakeup", place, self.qemu, "N-IN.10", "the TAP")
        return TapXmit(f"{name}.xmit", place, self.tap, wakeup)

    def handlers(self, port: TapPort | None, flows: TapFlows | None) -> dict[str, Routine]:
        """Make what the main loop does for the pair.

        Args:
            port: the switch's port that the TAP is; None without one.
            flows: what the TAP remembers of flows; None if it has one queue.
        """
        guest, nic, pair = self.guest, self.nic, self.guest.number
        deliver = self._deliver(f"{guest.rx_name}.deliver", QEMU, nic)
        serve_tx_kind = routine_kind(self.parts.world, qemu_tx.ServeTxKick)
        serve_tx = serve_tx_kind(f"{guest.tx_name}.serve_kick", QEMU, nic, self._drop(QEMU, nic))
        serve_rx = qemu_rx.ServeRxKick(f"{guest.rx_name}.serve_kick", QEMU, nic, deliver)
        send = self._kind(self.send_class)(
            f"{guest.tx_name}.send",
            QEMU,
            nic,
            self._send_out(port, flows),
            self.guest.transport.interrupt(guest.tx_name, TX, "main_loop"),
            self._error(QEMU, nic, guest.tx_name, "Q-TX.6"),
        )
        return {
            qemu.called("bottom half", pair): send,
            qemu.called("transmit kick", pair): qemu_tx.ReadKick(
                f"{guest.tx_name}.read_kick",
                QEMU,
                guest.tx_name,
                self._read("tx", self.kicks[TX], "Q-TX.2"),
                serve_tx,
                "Q-TX.2",
            ),
            qemu.called("receive kick", pair): qemu_tx.ReadKick(
                f"{guest.rx_name}.read_kick",
                QEMU,
                guest.rx_name,
                self._read("rx", self.kicks[RX], "Q-RX.3"),
                serve_rx,
                "Q-RX.3",
            ),
            **self._readers(deliver),
        }

    def _readers(self, deliver: Routine) -> dict[str, Routine]:
        """Make what reads frames for the guest."""
        tap, nic = self.tap, self.nic
        read_tap = TapRead(f"{tap.label}.read", tap_place(tap.name), tap, nic)
        return {
            qemu.called("tap", nic.pair): qemu_rx.ReadTap(f"{tap.label}.send", QEMU, nic, read_tap, deliver),
        }

    def set_link(self, backends: Mapping[str, Routine]) -> Routine:
        """Make what the monitor's request to change the link leads to; see `QemuBackend.wire`."""
        guest, nic, name = self.guest, self.nic, f"{self.qemu.name}.set_link"
        error = self._error(QEMU, nic, f"{guest.tx_name}.link", "CONFIG.6")
        return routine_kind(self.parts.world, qemu_link.SetLink)(
            name,
            QEMU,
            nic,
            notify=self._notify_config(QEMU, name),
            drop=self._drop(QEMU, nic, "after_link_went_down"),
            deliver=self._deliver(f"{guest.rx_name}.deliver_with_link", QEMU, nic, "with_link"),
            error=error,
            backends=backends,
        )

    # Parts of it

    def _read(self, which: str, eventfd: kvm.EventfdCells, row: str) -> Routine:
        name = qemu.called(f"{self.qemu.name}.read_{which}", self.guest.number)
        return qemu_fds.ReadEventfd(name, FDS, eventfd, row)

    def _deliver(self, name: str, place: Place, nic: qemu_nic.Nic, why: str = "") -> Routine:
        who, queue = place.name.replace(".", "_") + why, self.guest.rx_name
        error = self._error(place, nic, f"{queue}{why}", "Q-RX.5")
        interrupt = self.guest.transport.interrupt(queue, RX, who)
        return self._kind(qemu_deliver.Deliver)(name, place, nic, interrupt, error)

    def _drop(self, place: Place, nic: qemu_nic.Nic, why: str = "") -> Routine:
        who = f"{place.name.replace('.', '_')}_to_drop{why}"
        queue = self.guest.tx_name
        interrupt = self.guest.transport.interrupt(queue, TX, who)
        error = self._error(place, nic, f"{queue}.drop{why}", "CONFIG.12")
        return self._kind(qemu_link.DropQueued)(f"{queue}.drop{why}_by_{place.name}", place, nic, interrupt, error)

    def _error(self, place: Place, nic: qemu_nic.Nic, queue: str, row: str) -> qemu_checks.VirtioError:
        name = f"{queue}.error_in_{place.name}"
        own = nic.rx_name if queue.startswith(nic.rx_name) else nic.tx_name
        return qemu_checks.VirtioError(name, place, nic, own, self._notify_config(place, name), row)

    def _notify_config(self, place: Place, name: str) -> qemu_checks.NotifyConfig:
        return self.first.transport.config_interrupt(name, place, self.first.device)

    def _kind(self, kind: type[R]) -> type[R]:
        """Give the class of a routine that tells the guest, for this world's rings and transport."""
        return self.guest.transport.kind(routine_kind(self.parts.world, kind))

    def _send_out(self, port: TapPort | None, flows: TapFlows | None) -> Routine:
        """Make what takes a frame that is sent: writev() on the TAP."""
        assert port is not None
        tap, nic, backlogs = self.tap, self.nic, self.parts.backlogs
        name, place = f"{tap.label}.writev", tap_place(tap.name)
        if flows is None:
            alone, with_softirqs = TapWrite, TapWriteWithSoftirqs
            if self.parts.traffic.longest_tcp:
                alone, with_softirqs = TapWriteMixed, TapWriteMixedWithSoftirqs
            if port.poll is None:
                return alone(name, place, tap, nic, port.number, port.receive)
            return with_softirqs(name, place, tap, nic, port.number, port.receive, port.poll, backlogs)
        made: TapWriteOnQueue | TapWriteOnQueueWithSoftirqs
        if port.poll is None:
            made = TapWriteOnQueue(name, place, tap, nic, port.number, port.receive)
        else:
            made = TapWriteOnQueueWithSoftirqs(name, place, tap, nic, port.number, port.receive, port.poll, backlogs)
        made.update = FlowUpdate(self.parts.state, flows, tap, self.guest.number)
        return made
