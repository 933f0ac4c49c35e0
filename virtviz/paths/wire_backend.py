"""Putting vhost-net together: a worker, its two queues, the eventfds that join it with KVM, and the TAP."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from virtviz.paths import kvm, kvm_eventfd
from virtviz.paths.device_status import DeviceStatus
from virtviz.paths.host_net import LocalSoftirqs
from virtviz.paths.knobs import EVENT_IDX, INDIRECT, MERGEABLE
from virtviz.paths.parts import HOST_STACK, KVM, VHOST_NET, tap_place
from virtviz.paths.tap import Tap, TapSendmsg, TapXmit
from virtviz.paths.tap_queues import FlowUpdate, TapFlows, TapSelectQueue, TapSendmsgOnQueue
from virtviz.paths.vhost import PollWakeup, ServeTap, VhostQueue, Work, Worker, WorkerLoop
from virtviz.paths.vhost_rx import HandleRx
from virtviz.paths.vhost_tx import FlushTx, HandleTx
from virtviz.paths.vhost_used import ReturnBuffers
from virtviz.paths.wire_guest import CPUS_OF_A_PAIR, RX, TX, enter_guest, msi_delivery
from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.index import pending
from virtviz.ring.split_device import SplitDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_guest import Guest
    from virtviz.paths.wire_switch import TapPort
    from virtviz.ring.verdicts import BackEnd

FIRST_PID = 4002
TX_ROWS = {"write": "V-TX.12", "publish": "V-TX.13", "decide": "V-TX.14", "signal": "V-TX.15"}
RX_ROWS = {"write": "V-RX.11", "publish": "V-RX.12", "decide": "V-RX.13", "signal": "V-RX.14"}

DEVICES: Final[dict[str, tuple[Callable[..., SplitDevice], BackEnd]]] = {
    "vhost": (SplitDevice, "vhost"),
    "qemu": (partial(CheckedSplitDevice, back_end="qemu"), "qemu"),
    "strict": (partial(CheckedSplitDevice, back_end="strict"), "strict"),
}
"""Value of the knob `device_checks` -> the device's side of a ring that makes those checks, and whose they are."""


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
            self.pairs.append(VhostPair(parts, guest, number, self.pairs[0] if self.pairs else None))
        self.threads = [pair.thread for pair in self.pairs]
        self.tap = self.pairs[0].tap
        self.flows = TapFlows(parts.state, self.tap.name, len(machine)) if len(machine) > 1 else None

    def devices(self) -> list[tuple[SplitDevice, SplitDevice]]:
        """Give the device's side of each pair's receive and transmit queue."""
        return [(pair.rx_device, pair.tx_device) for pair in self.pairs]

    def kick_exits(self) -> list[list[Routine]]:
        """Make, for each pair, what a store to each queue's notify address leads to."""
        return [pair.kick_exits() for pair in self.pairs]

    def tap_transmit(self) -> Routine:
        """Make what transmitting on the TAP is, for the host: the way into the guest."""
        xmits = [pair.tap_transmit() for pair in self.pairs]
        if self.flows is None:
            return xmits[0]
        name, queues = self.tap.name, {f"queue {number}": xmit for number, xmit in enumerate(xmits, 1)}
        return TapSelectQueue(f"{name}.select_queue", tap_place(name), name, self.tap.pool, self.flows, queues)

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
        first: the machine's first pair, if this is another one; they are queues of one device.

    Attributes:
        thread: the worker's thread. All workers of a process have one name on Linux; here the pair's number stands
            behind it where there are several.
        tap: the queue of the TAP that it reads and writes.
        rx_device, tx_device: the device's side of the rings.
        status: the device's.
    """

    status: DeviceStatus

    def __init__(self, parts: Parts, guest: Guest, number: int, first: VhostPair | None) -> None:
        self.parts, self.guest = parts, guest
        world, state = parts.world, parts.state
        pair = guest.number
        name = f"vhost-{FIRST_PID + 10 * number}" + (f".q{pair + 1}" if world.number("queues") > 1 else "")
        self.thread: Thread = parts.thread(name, cpu=2 * number + CPUS_OF_A_PAIR * pair)
        self.worker = Worker(state, name)
        self.worker.thread = self.thread
        self.tap = tap = Tap(state, f"tap{number}", parts.host_pool, world.number("txqueuelen"), pair)
        memory = guest.memory
        port = parts.port(self.thread, memory.region)
        self.status = status = first.status if first else DeviceStatus(state, f"{name}.device")
        device_class, back_end = DEVICES[world.word("device_checks")]
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
        self.kicks, self.calls = (
            [state.add(kvm.EventfdCells, f"{guest.name}.{queue}.{use}") for queue in guest.queues]
            for use in ("kick", "call")
        )

    def _unserved(self) -> int:
        """Count the frames nobody will fetch any more: in the TAP, and in the transmit queue by the driver's count."""
        waiting = pending(self.guest.tx_driver.cells.avail_idx_shadow, self.tx_device.cells.last_avail_idx)
        return len(self.tap.queue) + len(self.tap.taken) + waiting

    def kick_exits(self) -> list[Routine]:
        """Make what a store to each queue's notify address leads to."""
        guest, on_intel = self.guest, self.parts.world["cpu"] == "intel"
        exit_class = kvm_eventfd.HandleKickIntel if on_intel else kvm_eventfd.HandleKickAmd
        after = "The kick is done with." if on_intel else "The store has been emulated."
        made: list[Routine] = []
        for queue, name, work, who in (
            (RX, guest.rx_name, Work.RX_KICK, "receive queue kicked"),
            (TX, guest.tx_name, Work.TX_KICK, "transmit queue kicked"),
        ):
            wakeup = PollWakeup(f"{name}.kick_wakeup", VHOST_NET, self.worker, work, "KICK.4", who)
            enter = enter_guest(guest, "KICK.5", f"{guest.queues[queue]}_kick", after)
            index, kick = guest.index_of(queue), self.kicks[queue]
            made.append(exit_class(f"{name}.kick_exit", KVM, guest.vcpu, name, index, kick, wakeup, enter))
        return made

    def tap_transmit(self) -> Routine:
        """Make what transmitting on its queue of the TAP is, for the host."""
        name = self.tap.label
        serve = ServeTap(f"{name}.wakeup", VHOST_NET, self.worker, Work.RX_NET, "N-IN.10", "a frame on the TAP")
        return TapXmit(f"{name}.xmit", tap_place(self.tap.name), self.tap, serve)

    def wire(self, port: TapPort, flows: TapFlows | None) -> None:
        """Make everything the worker does.

        Args:
            port: the switch's port that the TAP is.
            flows: what the TAP remembers of flows; None if it has one queue.
        """
        parts, guest, tap = self.parts, self.guest, self.tap.label
        softirq = port.poll and LocalSoftirqs(f"{tap}.bh_enable", HOST_STACK, parts.backlogs, port.poll)
        sendmsg = self._sendmsg(port, softirq, flows)
        give_back = {
            bit: ReturnBuffers(
                f"{name}.return",
                VHOST_NET,
                queue,
                self.calls[bit],
                _irqfd(parts, guest, name, bit, self.calls[bit]),
                rows,
            )
            for bit, name, queue, rows in (
                (RX, guest.rx_name, self.rx, RX_ROWS),
                (TX, guest.tx_name, self.tx, TX_ROWS),
            )
        }
        rewatch = ServeTap(f"{tap}.rewatch", VHOST_NET, self.worker, Work.RX_NET, "V-RX.10", "a frame on the TAP")
        flush = FlushTx(f"{guest.tx_name}.flush", VHOST_NET, self.tx, sendmsg, give_back[TX])
        handle_rx = HandleRx(f"{guest.rx_name}.handle", VHOST_NET, self.rx, parts.host_pool, give_back[RX], rewatch)
        handle_tx = HandleTx(f"{guest.tx_name}.handle", VHOST_NET, self.tx, parts.host_pool, flush)
        self.thread.start = WorkerLoop(
            f"{self.worker.name}.loop",
            VHOST_NET,
            self.worker,
            self.tx,
            self.rx,
            {"handle_tx_kick": handle_tx, "handle_rx_kick": handle_rx, "handle_rx_net": handle_rx},
        )

    def _sendmsg(self, port: TapPort, softirq: Routine | None, flows: TapFlows | None) -> Routine:
        """Make what handing a batch to the TAP is."""
        tap, place = self.tap, tap_place(self.tap.name)
        name, number, receive = f"{tap.label}.sendmsg", port.number, port.receive
        if flows is None:
            return TapSendmsg(name, place, tap, self.tx, number, receive, softirq)
        update = FlowUpdate(self.parts.state, flows, tap, self.guest.number)
        return TapSendmsgOnQueue(name, place, tap, self.tx, number, receive, softirq, update)


def _irqfd(parts: Parts, guest: Guest, queue_name: str, bit: int, call: kvm.EventfdCells) -> Routine:
    """Make what signalling a queue's call eventfd leads to."""
    return kvm_eventfd.Irqfd(
        f"{queue_name}.irqfd", KVM, call, msi_delivery(parts, guest, f"{queue_name}.msi", queue_name, bit)
    )
