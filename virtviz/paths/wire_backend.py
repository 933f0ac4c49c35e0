"""Putting vhost-net together: a worker, its two queues, the eventfds that join it with KVM, and the TAP."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.paths import kvm, kvm_eventfd
from virtviz.paths.device_status import DeviceStatus
from virtviz.paths.knobs import EVENT_IDX, INDIRECT, MERGEABLE
from virtviz.paths.parts import KVM, TAP, VHOST_NET
from virtviz.paths.tap import Tap, TapXmit
from virtviz.paths.vhost import PollWakeup, ServeTap, VhostQueue, Work, Worker, WorkerLoop
from virtviz.paths.vhost_rx import HandleRx
from virtviz.paths.vhost_tx import FlushTx, HandleTx
from virtviz.paths.vhost_used import ReturnBuffers
from virtviz.paths.wire_guest import RX, TX, enter_guest
from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.index import pending
from virtviz.ring.split_device import SplitDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_guest import Guest
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


class Backend(Struct):
    """vhost-net for one queue pair.

    Attributes:
        thread: the worker's thread.
        rx_device, tx_device: the device's side of the rings.
        rx, tx: what vhost-net keeps for each queue.
        kicks, calls: the eventfds of each queue, by its number.
    """

    worker: Worker
    thread: Thread
    tap: Tap
    rx_device: SplitDevice
    tx_device: SplitDevice
    rx: VhostQueue
    tx: VhostQueue
    kicks: Sequence[kvm.EventfdCells]
    calls: Sequence[kvm.EventfdCells]


def make_backend(parts: Parts, guest: Guest, number: int) -> Backend:
    """Make the back-end of a virtual machine, without what it does."""
    world, state = parts.world, parts.state
    name = f"vhost-{FIRST_PID + 10 * number}"
    thread = parts.thread(name, cpu=0)
    worker = Worker(state, name)
    worker.thread = thread
    tap = Tap(state, "tap0", parts.host_pool, world.number("txqueuelen"))
    memory = guest.memory
    port = parts.port(thread, memory.region)
    status = DeviceStatus(state, f"{name}.device")
    device_class, back_end = DEVICES[world.word("device_checks")]
    tx_device, rx_device = (
        device_class(
            state,
            f"{name}.{queue}.ring",
            port,
            layout,
            event_idx=world.has(EVENT_IDX),
            indirect=world.has(INDIRECT),
            start=world.number("queue.start"),
        )
        for queue, layout in (("transmitq1", memory.tx_layout), ("receiveq1", memory.rx_layout))
    )
    weight, batch, mergeable = world.number("weight"), world.number("tx_batch"), world.has(MERGEABLE)
    tx, rx = (
        VhostQueue(
            state,
            f"{name}.{direction}",
            queue_name,
            device,
            worker,
            tap,
            pool,
            status,
            back_end=back_end,
            weight=weight,
            batch=batch,
            mergeable=mergeable,
        )
        for direction, queue_name, device, pool in (
            ("tx", guest.tx_name, tx_device, memory.skbs),
            ("rx", guest.rx_name, rx_device, memory.buffers),
        )
    )
    parts.drops |= {
        "vhost_net.discarded": lambda: rx.cells.discarded,
        "vhost_net.errors": lambda: tx.cells.errors + rx.cells.errors,
        "vhost_net.unserved": lambda: _unserved(guest, tap, tx_device) if status.needs_reset else 0,
        "tap0.rx_errors": lambda: tap.cells.rx_errors,
        "tap0.tx_dropped": lambda: tap.cells.tx_dropped,
    }
    kicks, calls = (
        [state.add(kvm.EventfdCells, f"{guest.name}.{queue}.{use}") for queue in guest.vcpu.queues]
        for use in ("kick", "call")
    )
    return Backend(worker, thread, tap, rx_device, tx_device, rx, tx, kicks, calls)


def _unserved(guest: Guest, tap: Tap, tx_device: SplitDevice) -> int:
    """Count the frames that nobody will fetch any more: in the TAP, and in the transmit queue by the driver's count."""
    waiting = pending(guest.tx_driver.cells.avail_idx_shadow, tx_device.cells.last_avail_idx)
    return len(tap.queue) + len(tap.taken) + waiting


def kick_exits(parts: Parts, guest: Guest, backend: Backend) -> list[Routine]:
    """Make what a store to each queue's notify address leads to."""
    on_intel = parts.world["cpu"] == "intel"
    exit_class = kvm_eventfd.HandleKickIntel if on_intel else kvm_eventfd.HandleKickAmd
    after = "The kick is done with." if on_intel else "The store has been emulated."
    made: list[Routine] = []
    for queue, name, work, who in (
        (RX, guest.rx_name, Work.RX_KICK, "receive queue kicked"),
        (TX, guest.tx_name, Work.TX_KICK, "transmit queue kicked"),
    ):
        wakeup = PollWakeup(f"{name}.kick_wakeup", VHOST_NET, backend.worker, work, "KICK.4", who)
        enter = enter_guest(guest, "KICK.5", f"{guest.vcpu.queues[queue]}_kick", after)
        made.append(exit_class(f"{name}.kick_exit", KVM, guest.vcpu, name, queue, backend.kicks[queue], wakeup, enter))
    return made


def tap_transmit(backend: Backend) -> Routine:
    """Make what transmitting on the TAP is, for the host: the way into the guest."""
    serve = ServeTap("tap0.wakeup", VHOST_NET, backend.worker, Work.RX_NET, "N-IN.10", "a frame on the TAP")
    return TapXmit("tap0.xmit", TAP, backend.tap, serve)


def wire_backend(parts: Parts, guest: Guest, backend: Backend, sendmsg: Routine) -> None:
    """Make everything the worker does.

    Args:
        parts: the world in the making.
        guest: the virtual machine it serves.
        backend: itself.
        sendmsg: what handing frames to the TAP leads to.
    """
    give_back = {
        bit: ReturnBuffers(
            f"{name}.return",
            VHOST_NET,
            queue,
            backend.calls[bit],
            _irqfd(parts, guest, name, bit, backend.calls[bit]),
            rows,
        )
        for bit, name, queue, rows in (
            (RX, guest.rx_name, backend.rx, RX_ROWS),
            (TX, guest.tx_name, backend.tx, TX_ROWS),
        )
    }
    rewatch = ServeTap("tap0.rewatch", VHOST_NET, backend.worker, Work.RX_NET, "V-RX.10", "a frame on the TAP")
    flush = FlushTx(f"{guest.tx_name}.flush", VHOST_NET, backend.tx, sendmsg, give_back[TX])
    handle_rx = HandleRx(f"{guest.rx_name}.handle", VHOST_NET, backend.rx, parts.host_pool, give_back[RX], rewatch)
    handle_tx = HandleTx(f"{guest.tx_name}.handle", VHOST_NET, backend.tx, parts.host_pool, flush)
    backend.thread.start = WorkerLoop(
        f"{backend.worker.name}.loop",
        VHOST_NET,
        backend.worker,
        backend.tx,
        backend.rx,
        {"handle_tx_kick": handle_tx, "handle_rx_kick": handle_rx, "handle_rx_net": handle_rx},
    )


def _irqfd(parts: Parts, guest: Guest, queue_name: str, bit: int, call: kvm.EventfdCells) -> Routine:
    """Make what signalling a queue's call eventfd leads to."""
    name = f"{queue_name}.irqfd"
    if guest.vcpu.apicv:
        return kvm_eventfd.IrqfdPosted(name, KVM, guest.vcpu, queue_name, bit, call)
    kicked = kvm_eventfd.IrqfdKicked(name, KVM, guest.vcpu, queue_name, bit, call)
    return kicked.on_intel() if parts.world["cpu"] == "intel" else kicked
