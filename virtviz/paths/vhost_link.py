"""QEMU stops vhost-net with the link, and starts it again: row 6 of CONFIG.

Stopping takes the back-end away from each queue (VHOST_NET_SET_BACKEND with -1), asks where it stopped
(VHOST_GET_VRING_BASE), and lets QEMU's main loop wait for the TAP and for the kicks itself. Starting is the other way
round. The many calls that only set up memory, features and eventfds once more are not shown.

Source: QEMU 10.0 hw/net/vhost_net.c (vhost_net_stop_one, vhost_net_start_one), hw/virtio/vhost.c
(vhost_virtqueue_stop, vhost_virtqueue_start), hw/virtio/virtio.c (virtio_device_start_ioeventfd_impl); Linux
drivers/vhost/net.c (vhost_net_set_backend), drivers/vhost/vhost.c (vhost_vring_ioctl).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import SIGNALLED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.tap import TapXmit
from virtviz.spec.citation import (
    CORE_SOCK,
    EVENTFD,
    QEMU_TAP,
    QEMU_VHOST,
    QEMU_VHOST_NET,
    QEMU_VIRTIO,
    QEMU_VIRTIO_BUS,
    VHOST,
    VHOST_NET,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import EventfdCells
    from virtviz.paths.qemu import Qemu
    from virtviz.paths.tap import Tap
    from virtviz.paths.vhost import VhostQueue, Worker
    from virtviz.ring.qemu_device import QemuDevice


class VhostQueueCall(Routine):
    """A call of QEMU's into the kernel that is about one queue of vhost-net.

    Args:
        queue: that queue.
        bit: its number, as a bit of what is detached.
        mine: QEMU's own device side of it.
    """

    def __init__(self, name: str, place: Place, queue: VhostQueue, bit: int, mine: QemuDevice) -> None:
        super().__init__(name, place, queue.ring_name)
        self.q = queue
        self.bit = 1 << bit
        self.mine = mine
        self.worker: Worker = queue.worker

    def words(self, me: Context) -> Mapping[str, object]:
        """Name queue and worker."""
        return {
            "name": self.q.ring_name,
            "worker": self.worker.name,
            "next": self.q.ring.cells.last_avail_idx,
            "used": self.q.ring.cells.last_used_idx,
        }


class Detach(VhostQueueCall):
    """VHOST_NET_SET_BACKEND with -1: the worker finds nothing to serve any more."""

    def worker_rests(self) -> bool:
        """Say whether the worker is in no queue's handler and has nothing on its list."""
        return bool(self.worker.thread.me.asleep) and not self.worker.list

    @op(
        "CONFIG.6",
        "take the queue's back-end away",
        "vhost_net_set_backend",
        VHOST_NET,
        text=(
            "With the queue's lock held, and so with {worker} not at it, {name} loses its back-end. What was taken off "
            "the TAP goes back."
        ),
        to=RETURN,
        guard="worker_rests",
        cause="return from the system call",
    )
    def detach(self, me: Context) -> None:
        self.worker.cells.detached |= self.bit
        if self.bit >> 1:
            return
        tap = self.q.tap
        lost = tap.unpeek()
        if lost:
            self.q.cells.discarded += lost
        if tap.cells.watched:
            tap.cells.watched = 0


class Attach(VhostQueueCall):
    """VHOST_NET_SET_BACKEND with the TAP: the queue is served again, from what stands in memory.

    Args:
        wake: the callback on the TAP's wait queue.
    """

    def __init__(self, name: str, place: Place, queue: VhostQueue, bit: int, mine: QemuDevice, wake: Routine) -> None:
        super().__init__(name, place, queue, bit, mine)
        self.wake = wake

    @op(
        "CONFIG.6",
        "give the queue its back-end",
        "vhost_net_set_backend",
        VHOST_NET,
        text="{name} has the TAP as its back-end again. vhost reads used.idx, {used}, and forgets what it signalled.",
    )
    def attach(self, me: Context) -> None:
        self.worker.cells.detached &= ~self.bit
        ring = self.q.ring
        ring.cells.last_used_idx = ring.cells.signalled_used = ring.used_idx_in_memory()
        ring.cells.signalled_used_valid = 0

    @op(
        "CONFIG.6",
        "look at the TAP",
        "vhost_net_enable_vq",
        VHOST_NET,
        text={
            "ready": "vhost puts its callback on the TAP's wait queue, and as the TAP is ready, it runs at once.",
            "not ready": "vhost puts its callback on the TAP's wait queue. No frame waits there.",
        },
        to={"ready": call("wake", "finish"), "not ready": goto("finish")},
    )
    def enable_vq(self, me: Context) -> str:
        tap = self.q.tap
        if self.bit >> 1:
            # A TAP that can be written to: whatever came into the ring meanwhile is found so.
            return "ready"
        if not tap.cells.watched:
            tap.cells.watched = 1
        return "ready" if tap.queue else "not ready"

    @op(
        "CONFIG.6",
        "return from the ioctl",
        "vhost_net_ioctl",
        VHOST_NET,
        text="The queue is live: ioctl() returns.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def finish(self, me: Context) -> None: ...


class GetBase(VhostQueueCall):
    """VHOST_GET_VRING_BASE: QEMU learns where vhost has stopped."""

    @op(
        "CONFIG.6",
        "say where the queue stopped",
        "vhost_vring_ioctl",
        VHOST,
        text="vhost would go on at entry {next}: from there QEMU's own device goes on. What was used stands in memory.",
        to=RETURN,
        cause="return from the system call",
    )
    def get_base(self, me: Context) -> None:
        self.mine.take_over(self.q.ring.cells.last_avail_idx)


class SetBase(VhostQueueCall):
    """VHOST_SET_VRING_BASE: vhost learns where QEMU's own device has stopped."""

    @op(
        "CONFIG.6",
        "set where the queue goes on",
        "vhost_vring_ioctl",
        VHOST,
        text="vhost is to go on at entry {next}, where QEMU's own device has stopped.",
        to=RETURN,
        cause="return from the system call",
    )
    def set_base(self, me: Context) -> None:
        ring = self.q.ring.cells
        ring.last_avail_idx = ring.avail_idx = self.mine.cells.last_avail_idx


class SetKick(Routine):
    """write() to a kick's eventfd: QEMU kicks itself, in case something lies in the ring already."""

    def __init__(self, name: str, place: Place, eventfd: EventfdCells) -> None:
        super().__init__(name, place)
        self.eventfd = eventfd

    @op(
        "CONFIG.6",
        "add 1 to the eventfd",
        "eventfd_write",
        EVENTFD,
        text="The kick's eventfd is ready now, as if the guest had kicked.",
        to={SIGNALLED: RETURN},
        cause="return from the system call",
        cost="eventfd",
    )
    def write(self, me: Context) -> str:
        self.eventfd.counter += 1
        return SIGNALLED


class StopVhost(Routine):
    """Stop vhost-net, and serve its queues in its place: vhost_net_stop.

    Args:
        calls: the calls into the kernel: `detach`, `base` and `kick`, each for the receive and the transmit queue.
    """

    def __init__(self, name: str, place: Place, qemu: Qemu, calls: Mapping[str, Routine]) -> None:
        super().__init__(name, place)
        self.qemu = qemu
        self.detach_rx, self.detach_tx = calls["detach_rx"], calls["detach_tx"]
        self.base_rx, self.base_tx = calls["base_rx"], calls["base_tx"]
        self.kick_rx, self.kick_tx = calls["kick_rx"], calls["kick_tx"]

    @op(
        "CONFIG.6",
        "stop the receive queue",
        "vhost_net_stop_one",
        QEMU_VHOST_NET,
        text="ioctl(VHOST_NET_SET_BACKEND, -1) for the receive queue. It waits until the worker is not at it.",
        to=call("detach_rx", "stop_tx"),
    )
    def stop_rx(self, me: Context) -> None: ...

    @op(
        "CONFIG.6",
        "stop the transmit queue",
        "vhost_net_stop_one",
        QEMU_VHOST_NET,
        text="The same for the transmit queue. From now on kicks reach a worker that has nothing to serve.",
        to=call("detach_tx", "watch_tap"),
    )
    def stop_tx(self, me: Context) -> None: ...

    @op(
        "CONFIG.6",
        "wait for the TAP",
        "tap_read_poll",
        QEMU_TAP,
        text="The TAP is among what QEMU's ppoll() waits for again.",
        to=goto("get_rx"),
    )
    def watch_tap(self, me: Context) -> None:
        self.qemu.cells.read_poll = 1

    @op(
        "CONFIG.6",
        "ask where the receive queue stopped",
        "vhost_virtqueue_stop",
        QEMU_VHOST,
        text="ioctl(VHOST_GET_VRING_BASE) for the receive queue.",
        to=call("base_rx", "get_tx"),
    )
    def get_rx(self, me: Context) -> None: ...

    @op(
        "CONFIG.6",
        "ask where the transmit queue stopped",
        "vhost_virtqueue_stop",
        QEMU_VHOST,
        text="ioctl(VHOST_GET_VRING_BASE) for the transmit queue.",
        to=call("base_tx", "take_kicks"),
    )
    def get_tx(self, me: Context) -> None: ...

    @op(
        "CONFIG.6",
        "wait for the kicks",
        "virtio_device_start_ioeventfd_impl",
        QEMU_VIRTIO,
        text="The kicks' eventfds are among what ppoll() waits for, and QEMU kicks itself once for each queue.",
        to=call("kick_rx", "kick_tx_too"),
    )
    def take_kicks(self, me: Context) -> None:
        self.qemu.cells.kick_poll = 1

    @op(
        "CONFIG.6",
        "kick the transmit queue too",
        "virtio_device_start_ioeventfd_impl",
        QEMU_VIRTIO,
        text="What the guest has sent since the worker stopped lies in the ring, and nobody else will kick for it.",
        to=call("kick_tx", None),
    )
    def kick_tx_too(self, me: Context) -> None: ...


class StartVhost(Routine):
    """Give the queues to vhost-net: vhost_net_start.

    Args:
        calls: the calls into the kernel: `set_base` and `attach`, each for the receive and the transmit queue.
    """

    def __init__(self, name: str, place: Place, qemu: Qemu, calls: Mapping[str, Routine]) -> None:
        super().__init__(name, place)
        self.qemu = qemu
        self.base_rx, self.base_tx = calls["set_base_rx"], calls["set_base_tx"]
        self.attach_rx, self.attach_tx = calls["attach_rx"], calls["attach_tx"]

    @op(
        "CONFIG.6",
        "leave the kicks to vhost",
        "virtio_bus_grab_ioeventfd",
        QEMU_VIRTIO_BUS,
        text="QEMU waits for the kicks no more, and forgets those that it has not served: vhost will look itself.",
    )
    def leave_kicks(self, me: Context) -> None:
        self.qemu.cells.kick_poll = 0

    @op(
        "CONFIG.6",
        "set where the receive queue goes on",
        "vhost_virtqueue_start",
        QEMU_VHOST,
        text="ioctl(VHOST_SET_VRING_BASE) for the receive queue.",
        to=call("base_rx", "set_tx"),
    )
    def set_rx(self, me: Context) -> None: ...

    @op(
        "CONFIG.6",
        "set where the transmit queue goes on",
        "vhost_virtqueue_start",
        QEMU_VHOST,
        text="ioctl(VHOST_SET_VRING_BASE) for the transmit queue.",
        to=call("base_tx", "leave_tap"),
    )
    def set_tx(self, me: Context) -> None: ...

    @op(
        "CONFIG.6",
        "leave the TAP to vhost",
        "tap_read_poll",
        QEMU_TAP,
        text="The TAP is taken off what QEMU's ppoll() waits for.",
        to=goto("start_rx"),
    )
    def leave_tap(self, me: Context) -> None:
        self.qemu.cells.read_poll = 0

    @op(
        "CONFIG.6",
        "start the receive queue",
        "vhost_net_start_one",
        QEMU_VHOST_NET,
        text="ioctl(VHOST_NET_SET_BACKEND) with the TAP, for the receive queue.",
        to=call("attach_rx", "start_tx"),
    )
    def start_rx(self, me: Context) -> None: ...

    @op(
        "CONFIG.6",
        "start the transmit queue",
        "vhost_net_start_one",
        QEMU_VHOST_NET,
        text="ioctl(VHOST_NET_SET_BACKEND) with the TAP, for the transmit queue. QEMU has no part in packets now.",
        to=call("attach_tx", None),
    )
    def start_tx(self, me: Context) -> None: ...


class EitherWaits(Routine):
    """A kick's eventfd is signalled: whoever waits on it is told, vhost or QEMU. Row 4 of KICK.

    Args:
        vhost, qemu: the callbacks of the two.
    """

    def __init__(self, name: str, place: Place, process: Qemu, vhost: Routine, qemu: Routine) -> None:
        super().__init__(name, place)
        self.process = process
        self.vhost = vhost
        self.qemu = qemu

    @op(
        "KICK.4",
        "see who waits on the eventfd",
        "eventfd_signal_mask",
        EVENTFD,
        text={
            "vhost": "vhost has put its callback on the eventfd's wait queue.",
            "qemu": "vhost is stopped, and QEMU's main loop waits for this eventfd in ppoll().",
        },
        to={"vhost": goto("vhost"), "qemu": goto("qemu")},
    )
    def see_who_waits(self, me: Context) -> str:
        return "qemu" if self.process.cells.kick_poll else "vhost"


class SharedTapXmit(TapXmit):
    """A frame for the guest, where vhost or QEMU may be waiting for it.

    Args:
        process: the process whose main loop may wait.
        wake_qemu: its callback.
    """

    def __init__(self, name: str, place: Place, tap: Tap, wakeup: Routine, process: Qemu, wake_qemu: Routine) -> None:
        super().__init__(name, place, tap, wakeup)
        self.process = process
        self.wake_qemu = wake_qemu

    @op(
        "N-IN.10",
        "tell the reader",
        "sock_def_readable",
        CORE_SOCK,
        text={
            "watched": "vhost waits for frames on {tap}: the callback runs.",
            "qemu": "vhost is stopped, and QEMU's main loop waits for frames on {tap}: the callback runs.",
            "unwatched": "The reader is busy emptying the queue and has taken its callback off: nobody is told.",
        },
        to={"watched": call("wakeup", None), "qemu": call("wake_qemu", None), "unwatched": RETURN},
        fence=True,
    )
    def data_ready(self, me: Context) -> str:
        if self.tap.cells.watched:
            return "watched"
        return "qemu" if self.process.cells.watching else "unwatched"
