"""Putting vhost-net together: a worker, its two queues, the eventfds that join it with KVM, and the TAP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.paths import kvm
from virtviz.paths.features import EVENT_IDX, INDIRECT, MERGEABLE
from virtviz.paths.host_net import LocalSoftirqs
from virtviz.paths.parts import FDS, HOST_STACK, QEMU, VHOST_NET, tap_place
from virtviz.paths.tap import Tap, TapSendmsg, TapXmit
from virtviz.paths.vhost import PollWakeup, ServeTap, VhostQueue, Work, Worker, WorkerLoop
from virtviz.paths.vhost_rx import HandleRx
from virtviz.paths.vhost_tx import FlushTx, HandleTx
from virtviz.paths.vhost_used import ReturnBuffers
from virtviz.paths.wire_guest import CPUS_OF_A_PAIR, FIRST_PID, RX, TX
from virtviz.paths.wire_tap_queues import choose_queue, remembered_flows
from virtviz.paths.wire_transport import pci_transport
from virtviz.ring.index import pending
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver
from virtviz.spec.kernels import what_a_worker_is

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.tap_queues import TapFlows
    from virtviz.paths.vhost_busy import BusyPoll
    from virtviz.paths.wire_guest import Guest
    from virtviz.paths.wire_qemu import QemuBackend
    from virtviz.paths.wire_switch import TapPort
    from virtviz.ring.rings import DeviceRing
    from virtviz.ring.verdicts import BackEnd

TX_ROWS = {"write": "V-TX.12", "publish": "V-TX.13", "decide": "V-TX.14", "signal": "V-TX.15"}
RX_ROWS = {"write": "V-RX.11", "publish": "V-RX.12", "decide": "V-RX.13", "signal": "V-RX.14"}


def _device_that_checks(checks: str) -> tuple[Callable[..., SplitDevice], BackEnd]:
    """Give the device's side of a ring that makes the checks of the knob `device_checks`, and whose they are."""
    if checks == "vhost":
        return SplitDevice, "vhost"
    from functools import partial  # noqa: PLC0415 - as all below: what most worlds do without is imported where it is

    from virtviz.ring.checked_device import CheckedSplitDevice  # noqa: PLC0415

    back_end: BackEnd = "qemu" if checks == "qemu" else "strict"
    return partial(CheckedSplitDevice, back_end=back_end), back_end


class VhostBackend:
    """vhost-net for one virtual machine: /dev/vhost-net opened, and so a worker, for each of its queue pairs.

    Args:
        parts: the world in the making.
        machine: the virtual machine it serves, pair by pair.
        number: the machine's number, from 0.

    Attributes:
        threads: the workers'.
        tap: the first queue of the TAP they read and write.
    """

    def __init__(self, parts: Parts, machine: Sequence[Guest], number: int) -> None:
        self.parts = parts
        self.pairs: list[VhostPair] = []
        for guest in machine:
            self.pairs.append(VhostPair(parts, guest, number))
        self.threads = [pair.thread for pair in self.pairs]
        self.tap = self.pairs[0].tap
        self.flows = remembered_flows(parts, self.tap, len(machine))

    def devices(self) -> list[tuple[DeviceRing, DeviceRing]]:
        """Give the device's side of each pair's receive and transmit queue."""
        return [(pair.rx_device, pair.tx_device) for pair in self.pairs]

    def kick_exits(self) -> list[list[Routine]]:
        """Make, for each pair, what a store to each queue's notify address leads to."""
        return [pair.kick_exits() for pair in self.pairs]

    def config_load(self) -> Routine | None:
        """Make what a load from the device's configuration leads to; None where nothing ever changes in it."""
        qemu = self.pairs[0].qemu
        return None if qemu is None else qemu.config_load()

    def tap_transmit(self) -> Routine:
        """Make what transmitting on the TAP is, for the host: the way into the guest."""
        xmits = [pair.tap_transmit() for pair in self.pairs]
        return choose_queue(self.tap, self.flows, xmits)

    def wire(self, port: TapPort) -> None:
        """Make everything the workers do.

        Args:
            port: the switch's port that the TAP is.
        """
        for pair in self.pairs:
            pair.wire(port, self.flows)


class VhostPair:
    """vhost-net for one queue pair: one open /dev/vhost-net.

    Args:
        parts: the world in the making.
        guest: the vCPU whose queues it serves.
        number: the machine's number, from 0.

    Attributes:
        thread: the worker's thread. All workers of a process have one name on Linux; here the pair's number stands
            behind it where there are several.
        tap: the queue of the TAP that it reads and writes.
        rx_device, tx_device: the device's side of the rings.
        busy: its polling, with `busy_poll_us`.
        qemu: what takes the queues over while the link is down; None where no link changes.
    """

    def __init__(self, parts: Parts, guest: Guest, number: int) -> None:
        self.parts, self.guest = parts, guest
        world, state = parts.world, parts.state
        pair = guest.number
        name = f"vhost-{FIRST_PID + 10 * number}" + (f".q{pair + 1}" if world.number("queues") > 1 else "")
        self.thread: Thread = parts.thread(name, cpu=2 * number + CPUS_OF_A_PAIR * pair)
        self.worker = Worker(state, name, what_a_worker_is(world.word("host_kernel")))
        self.worker.thread = self.thread
        self.tap = tap = Tap(state, f"tap{number}", parts.host_pool, world.number("txqueuelen"), pair)
        memory = guest.memory
        port = parts.port(self.thread, memory.region)
        status = guest.device
        device_class, back_end = _device_that_checks(world.word("device_checks"))
        self.tx_device, self.rx_device = (
            device_class(
                state,
                f"{name}.{queue}.ring",
                port,
                layout,
                event_idx=world.has(EVENT_IDX),
                indirect=world.has(INDIRECT),
                start=world.number("queue.start"),
            )
            for queue, layout in zip(guest.queues[::-1], (memory.tx_layout, memory.rx_layout), strict=True)
        )
        weight, batch, mergeable = world.number("weight"), world.number("tx_batch"), world.has(MERGEABLE)
        self.tx, self.rx = tx, rx = tuple(
            VhostQueue(
                state,
                f"{name}.{direction}",
                queue_name,
                device,
                self.worker,
                tap,
                pool,
                status,
                back_end=back_end,
                weight=weight,
                batch=batch,
                mergeable=mergeable,
            )
            for direction, queue_name, device, pool in (
                ("tx", guest.tx_name, self.tx_device, memory.skbs),
                ("rx", guest.rx_name, self.rx_device, memory.buffers),
            )
        )
        parts.drops |= {
            f"{name}.discarded": lambda: rx.cells.discarded,
            f"{name}.errors": lambda: tx.cells.errors + rx.cells.errors,
            f"{name}.unserved": lambda: self._unserved() if status.needs_reset else 0,
            f"{tap.label}.rx_errors": lambda: tap.cells.rx_errors,
            f"{tap.label}.tx_dropped": lambda: tap.cells.tx_dropped,
        }
        self.busy: BusyPoll | None = None
        if world.number("busy_poll_us"):
            from virtviz.paths.vhost_busy import BusyPoll  # noqa: PLC0415

            self.busy = BusyPoll(state, f"{name}.busy_poll", rx, tx, world.number("busy_poll_us"))
            parts.restless.append(self.busy.is_spinning)
        self.qemu: QemuBackend | None = None
        self.kicks, self.calls = (
            [state.add(kvm.EventfdCells, f"{guest.name}.{queue}.{use}") for queue in guest.queues]
            for use in ("kick", "call")
        )
        if parts.traffic.has_links:
            from virtviz.paths.wire_qemu import QemuBackend  # noqa: PLC0415

            self.qemu = QemuBackend(parts, [guest], number, [tap], self.kicks)
        guest.transport.serve_calls(f"qemu-{FIRST_PID + 10 * number}", 2 * number, self.calls)

    def _unserved(self) -> int:
        """Count the frames nobody will fetch any more: in the TAP, and in the transmit queue by the driver's count."""
        driver = self.guest.tx_driver
        assert isinstance(driver, SplitDriver), "vhost-net has no packed queues"
        waiting = pending(driver.cells.avail_idx_shadow, self.tx_device.cells.last_avail_idx)
        return len(self.tap.queue) + len(self.tap.taken) + waiting

    def kick_exits(self) -> list[Routine]:
        """Make what a store to each queue's notify address leads to."""
        return self.guest.transport.light_exits(self.kicks, [self._wakeup(queue) for queue in (RX, TX)])

    def kick_exit_from(self, vcpu: Guest) -> Routine:
        """Make what a store to the receive queue's notify address leads to, on a vCPU that the pair is not bound to."""
        wakeup = self._wakeup(RX, f".from_vcpu{vcpu.number}")
        return pci_transport(self.guest).light_exit_from(vcpu, RX, self.kicks[RX], wakeup)

    def _wakeup(self, queue: int, by: str = "") -> Routine:
        """Make what signalling a queue's kick leads to."""
        queue_name, work, who = (
            (self.guest.rx_name, Work.RX_KICK, "receive queue kicked"),
            (self.guest.tx_name, Work.TX_KICK, "transmit queue kicked"),
        )[queue]
        name = f"{queue_name}{by}"
        wakeup: Routine = PollWakeup(f"{name}.kick_wakeup", VHOST_NET, self.worker, work, "KICK.4", who)
        return wakeup if self.qemu is None else self.qemu.or_qemu(name, wakeup)

    def tap_transmit(self) -> Routine:
        """Make what transmitting on its queue of the TAP is, for the host."""
        name = self.tap.label
        serve = ServeTap(f"{name}.wakeup", VHOST_NET, self.worker, Work.RX_NET, "N-IN.10", "a frame on the TAP")
        if self.qemu is not None:
            return self.qemu.shared_transmit(serve)
        return TapXmit(f"{name}.xmit", tap_place(self.tap.name), self.tap, serve)

    def wire(self, port: TapPort, flows: TapFlows | None) -> None:
        """Make everything the worker does.

        Args:
            port: the switch's port that the TAP is.
            flows: what the TAP remembers of flows; None if it has one queue.
        """
        parts, guest, tap = self.parts, self.guest, self.tap.label
        softirq = port.poll and LocalSoftirqs(f"{tap}.bh_enable", HOST_STACK, parts.backlogs, port.poll)
        return_buffers = guest.transport.kind(ReturnBuffers)
        give_back = {
            bit: return_buffers(
                f"{name}.return",
                VHOST_NET,
                queue,
                self.calls[bit],
                guest.transport.called(name, bit, self.calls[bit]),
                rows,
            )
            for bit, name, queue, rows in (
                (RX, guest.rx_name, self.rx, RX_ROWS),
                (TX, guest.tx_name, self.tx, TX_ROWS),
            )
        }
        rewatch = ServeTap(f"{tap}.rewatch", VHOST_NET, self.worker, Work.RX_NET, "V-RX.10", "a frame on the TAP")
        handle_tx = self._handle_tx(port, softirq, flows, give_back[TX])
        handle_rx: HandleRx = HandleRx(
            f"{guest.rx_name}.handle", VHOST_NET, self.rx, parts.host_pool, give_back[RX], rewatch
        )
        if self.busy is not None:
            from virtviz.paths.vhost_busy import BusyHandleRx  # noqa: PLC0415

            handle_rx = BusyHandleRx(
                handle_rx.name, VHOST_NET, self.rx, parts.host_pool, give_back[RX], rewatch, self.busy
            )
        if self.qemu is not None:
            self.qemu.wire(port, self._stop_and_start(self.qemu, rewatch))
        self.thread.start = WorkerLoop(
            f"{self.worker.name}.loop",
            VHOST_NET,
            self.worker,
            self.tx,
            self.rx,
            {"handle_tx_kick": handle_tx, "handle_rx_kick": handle_rx, "handle_rx_net": handle_rx},
        )

    def _handle_tx(
        self, port: TapPort, softirq: Routine | None, flows: TapFlows | None, give_back: Routine
    ) -> HandleTx:
        """Make what serves the transmit queue: in batches or one by one, and with polling before it goes to sleep."""
        pool, queue, name = self.parts.host_pool, self.tx, self.guest.tx_name
        if self.parts.world["sndbuf"] == "limited":
            from virtviz.paths.vhost_single import FlushSingly, HandleTxSingly, SendOne  # noqa: PLC0415

            place, tap = tap_place(self.tap.name), self.tap
            send_one = SendOne(f"{tap.label}.sendmsg", place, tap, queue, port.number, port.receive, softirq)
            end = FlushSingly(f"{name}.flush", VHOST_NET, queue, send_one, give_back)
            return HandleTxSingly(f"{name}.handle", VHOST_NET, queue, pool, end, send_one)
        if self.parts.traffic.longest_tcp:
            from virtviz.paths.tap_offloads import (  # noqa: PLC0415
                FlushMixed,
                HandleTxMixed,
                SendAlone,
                TapSendmsgMixed,
            )

            place, tap = tap_place(self.tap.name), self.tap
            send_batch = TapSendmsgMixed(f"{tap.label}.sendmsg", place, tap, queue, port.number, port.receive, softirq)
            alone = SendAlone(f"{tap.label}.sendmsg_alone", place, tap, queue, port.number, port.receive, softirq)
            mixed = FlushMixed(f"{name}.flush", VHOST_NET, queue, send_batch, give_back)
            return HandleTxMixed(f"{name}.handle", VHOST_NET, queue, pool, mixed, alone)
        flush = FlushTx(f"{name}.flush", VHOST_NET, queue, self._sendmsg(port, softirq, flows), give_back)
        if self.busy is not None:
            from virtviz.paths.vhost_busy import BusyHandleTx  # noqa: PLC0415

            return BusyHandleTx(f"{name}.handle", VHOST_NET, queue, pool, flush, self.busy)
        return HandleTx(f"{name}.handle", VHOST_NET, queue, pool, flush)

    def _stop_and_start(self, qemu: QemuBackend, watch: Routine) -> Mapping[str, Routine]:
        """Make what stops vhost-net and starts it again, with QEMU in its place meanwhile."""
        from virtviz.paths import vhost_link  # noqa: PLC0415
        from virtviz.ring.qemu_device import QemuDevice  # noqa: PLC0415

        calls: dict[str, Routine] = {}
        guest = self.guest
        writable = PollWakeup(
            f"{guest.tx_name}.writable", VHOST_NET, self.worker, Work.TX_KICK, "CONFIG.6", "the TAP can be written to"
        )
        for bit, which, name, queue, mine, wake in (
            (RX, "rx", guest.rx_name, self.rx, qemu.pairs[0].rx_device, watch),
            (TX, "tx", guest.tx_name, self.tx, qemu.pairs[0].tx_device, writable),
        ):
            assert isinstance(mine, QemuDevice), "vhost-net has no packed queues, and so QEMU in its place has none"
            calls |= {
                f"detach_{which}": vhost_link.Detach(f"{name}.detach", VHOST_NET, queue, bit, mine),
                f"base_{which}": vhost_link.GetBase(f"{name}.get_base", VHOST_NET, queue, bit, mine),
                f"set_base_{which}": vhost_link.SetBase(f"{name}.set_base", VHOST_NET, queue, bit, mine),
                f"attach_{which}": vhost_link.Attach(f"{name}.attach", VHOST_NET, queue, bit, mine, wake),
                f"kick_{which}": vhost_link.SetKick(f"{name}.set_kick", FDS, self.kicks[bit]),
            }
        name = qemu.qemu.name
        return {
            "stop": vhost_link.StopVhost(f"{name}.stop_vhost", QEMU, qemu.qemu, calls),
            "start": vhost_link.StartVhost(f"{name}.start_vhost", QEMU, qemu.qemu, calls),
        }

    def _sendmsg(self, port: TapPort, softirq: Routine | None, flows: TapFlows | None) -> Routine:
        """Make what handing a batch to the TAP is."""
        tap, place = self.tap, tap_place(self.tap.name)
        name, number, receive = f"{tap.label}.sendmsg", port.number, port.receive
        if flows is None:
            return TapSendmsg(name, place, tap, self.tx, number, receive, softirq)
        from virtviz.paths.tap_queues import FlowUpdate, TapSendmsgOnQueue  # noqa: PLC0415

        update = FlowUpdate(self.parts.state, flows, tap, self.guest.number)
        return TapSendmsgOnQueue(name, place, tap, self.tx, number, receive, softirq, update)
