"""QEMU starts to serve the queues itself: with vhost=off, or when vhost could not be started. Rows CP.6.19 and CP.6.20.

The eventfds of the kicks are the same kind as for vhost; only the one who waits for them is QEMU's main loop. The
control queue has one as well here.

Source: QEMU 10.0 hw/virtio/virtio.c (virtio_device_start_ioeventfd_impl), hw/virtio/virtio-bus.c
(virtio_bus_set_host_notifier), hw/net/virtio-net.c (virtio_net_vhost_status).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.effects import SIGNALLED
from virtviz.engine.ops import DONE, RETURN, Routine, call, call_any, goto, op
from virtviz.paths.setup.pairs import ORDINALS
from virtviz.paths.setup.qemu_vhost import StartVhost
from virtviz.paths.setup.vhost_calls import ENOMEM
from virtviz.spec.citation import EVENTFD, QEMU_KVM, QEMU_MEMORY, QEMU_VIRTIO, QEMU_VIRTIO_NET
from virtviz.spec.setup_sources import QEMU_EVENT_NOTIFIER, QEMU_VHOST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import EventfdCells
    from virtviz.paths.setup.calls import Calls, VhostCalls
    from virtviz.paths.setup.state import ProcessCells, SetUp


class StartInQemu(Routine):
    """Tie every queue's notify address to an eventfd that the main loop waits for.

    Args:
        writes: write() to the eventfd of each queue's kick, the control queue's last.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        calls: Calls,
        writes: Sequence[Routine],
    ) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.process = setup.process
        self.ioeventfd, self.port_eventfd = calls.ioeventfd, calls.port_eventfd
        *pairs, self.write_control = writes
        last = setup.pairs - 1
        self.write_rx = {self._of(pair): pairs[2 * pair] for pair in range(setup.pairs)}
        self.write_tx = {self._of(pair): pairs[2 * pair + 1] for pair in range(last)}
        self.write_last_tx = {self._of(last): pairs[2 * last + 1]}

    def _of(self, pair: int) -> str:
        """Name the outcome of kicking a pair's queue: what is there once needs no name."""
        return DONE if self.setup.pairs == 1 else f"{ORDINALS[pair]} pair"

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the queue."""
        setup, queue = self.setup, self.process.queue
        return {
            "queue": setup.queue_name(queue),
            "made": setup.queue_name(queue - 1),
            "index": queue,
            "fd": self.process.kick[queue],
            "kicked": setup.queue_name(2 * setup.sequence.pair),
        }

    def aim(self, value: int) -> None:
        """Lay out the arguments of a call about the present queue."""
        arguments = self.setup.arguments
        arguments.index, arguments.value = self.process.queue, value

    def next_queue(self) -> bool:
        """Go on to the next queue; answers whether there is one, and begins with the first again if not."""
        process = self.process
        process.queue = following = (process.queue + 1) % self.setup.queues
        return bool(following)

    @op(
        "CP.6.20",
        "start to serve the queues",
        "virtio_device_start_ioeventfd_impl",
        QEMU_VIRTIO,
        spec="3.1.1",
        text=(
            "QEMU itself is to serve the queues. It needs eventfds for their kicks, and its main loop to wait for them."
        ),
        to=goto("make_kick_fd"),
    )
    def start(self, me: Context) -> None:
        self.process.queue = 0

    @op(
        "CP.6.20",
        "make the kick's eventfd",
        "event_notifier_init",
        QEMU_EVENT_NOTIFIER,
        text="An eventfd for the {made} queue, which the main loop will have among its descriptors.",
        to={"another": goto("make_kick_fd"), "all made": goto("tie_address")},
    )
    def make_kick_fd(self, me: Context) -> str:
        self.process.kick[self.process.queue] = self.setup.new_fd()
        return "another" if self.next_queue() else "all made"

    @op(
        "CP.6.20",
        "tie the notify address to the eventfd",
        "kvm_set_ioeventfd_mmio",
        QEMU_KVM,
        text="KVM is to signal eventfd {fd} for a store to the {queue} queue's notify address: kicks stay light exits.",
        to=call("ioeventfd", "after_address"),
        cause="ioctl(KVM_IOEVENTFD)",
    )
    def tie_address(self, me: Context) -> None:
        self.aim(self.process.kick[self.process.queue])

    @op(
        "CP.6.20",
        "look whether all addresses are tied",
        "memory_region_transaction_commit",
        QEMU_MEMORY,
        text={"another": "The next queue's address.", "ports": "Now the port that old drivers use."},
        to={"another": goto("tie_address"), "ports": goto("tie_port")},
        private=True,
    )
    def after_address(self, me: Context) -> str:
        return "another" if self.next_queue() else "ports"

    @op(
        "CP.6.20",
        "tie the legacy port to the eventfd",
        "kvm_set_ioeventfd_pio",
        QEMU_KVM,
        text="The same for that port, if {index} is stored there.",
        to=call("port_eventfd", "after_port"),
        cause="ioctl(KVM_IOEVENTFD)",
    )
    def tie_port(self, me: Context) -> None:
        self.aim(self.process.kick[self.process.queue])

    @op(
        "CP.6.20",
        "look whether all ports are tied",
        "memory_region_transaction_commit",
        QEMU_MEMORY,
        text={
            "another": "The next queue's.",
            "kick": "All are tied. What lies in a ring already must not be missed: QEMU kicks its own queues once.",
        },
        to={"another": goto("tie_port"), "kick": goto("kick_receive")},
        private=True,
    )
    def after_port(self, me: Context) -> str:
        return "another" if self.next_queue() else "kick"

    @op(
        "CP.6.20",
        "kick the receive queue",
        "event_notifier_set",
        QEMU_EVENT_NOTIFIER,
        text="A write to the {kicked} queue's eventfd, as if the guest had kicked. The main loop will look.",
        to={"receive": call_any("write_rx", "kick_transmit")},
        cause="write() to the eventfd",
    )
    def kick_receive(self, me: Context) -> str:
        return self._of(self.setup.sequence.pair)

    @op(
        "CP.6.20",
        "kick the transmit queue",
        "event_notifier_set",
        QEMU_EVENT_NOTIFIER,
        text="And the same for the transmit queue.",
        to={"transmit": call_any("write_tx", "kick_receive"), "last": call_any("write_last_tx", "kick_control")},
        cause="write() to the eventfd",
    )
    def kick_transmit(self, me: Context) -> str:
        kicked = self._of(self.setup.sequence.pair)
        self.setup.next_pair(self.setup.pairs)
        return kicked

    @op(
        "CP.6.20",
        "kick the control queue",
        "event_notifier_set",
        QEMU_EVENT_NOTIFIER,
        text="And for the control queue: QEMU serves that in the same way here.",
        to=call("write_control", None),
        cause="write() to the eventfd",
    )
    def kick_control(self, me: Context) -> None:
        self.process.started = 1


class FallsBack(Routine):
    """A start of vhost that comes to nothing: QEMU serves the queues itself.

    Attributes:
        process: what QEMU keeps.
        userspace: QEMU's own start.
    """

    process: ProcessCells
    userspace: Routine

    @op(
        "CP.6.19",
        "fall back on user space",
        "virtio_net_vhost_status",
        QEMU_VIRTIO_NET,
        text=(
            "QEMU prints: “unable to start vhost net: {errno}: falling back on userspace virtio”. The guest is told "
            "nothing."
        ),
        to=call("userspace", None),
    )
    def fall_back(self, me: Context) -> None:
        self.process.failed = 1


class StartVhostInVain(StartVhost, FallsBack):
    """The start of vhost where one of its calls fails, and what QEMU does then.

    Args:
        undo: unties what was tied.
        userspace: QEMU's own start.
    """

    first = "start"

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        calls: Calls,
        vhost: VhostCalls,
        *,
        interrupts_first: bool,
        undo: Routine,
        userspace: Routine,
    ) -> None:
        super().__init__(name, place, setup, calls, vhost, interrupts_first=interrupts_first)
        self.undo = undo
        self.userspace = userspace

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the error too."""
        return {**super().words(me), "errno": ENOMEM}

    @op(
        "CP.6.19",
        {"taken": "see that vhost has the map", "refused": "see that vhost cannot"},
        "vhost_dev_start",
        QEMU_VHOST,
        text={
            "taken": "vhost has taken it. Now its rings, one after the other.",
            "refused": "The call failed: vhost will not serve this guest. What was tied so far is untied again.",
        },
        to={"taken": goto("tell_size"), "refused": call("undo", "fall_back")},
    )
    def see_map(self, me: Context) -> str:
        return "refused" if self.arguments.result else "taken"


class StopInQemu(Routine):
    """The reverse: a kick is to reach nobody."""

    def __init__(self, name: str, place: Place, setup: SetUp, calls: Calls) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.process = setup.process
        self.ioeventfd, self.port_eventfd = calls.ioeventfd, calls.port_eventfd

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the queue."""
        return {"queue": self.setup.queue_name(self.process.queue)}

    def aim(self) -> None:
        """Lay out the arguments of a call about the present queue: no eventfd."""
        arguments = self.setup.arguments
        arguments.index, arguments.value = self.process.queue, 0

    @op(
        "CP.6.20",
        "untie the notify address",
        "virtio_device_stop_ioeventfd_impl",
        QEMU_VIRTIO,
        text="The {queue} queue's notify address loses its eventfd.",
        to=call("ioeventfd", "untie_port"),
        cause="ioctl(KVM_IOEVENTFD)",
    )
    def untie_address(self, me: Context) -> None:
        self.aim()

    @op(
        "CP.6.20",
        "untie the legacy port",
        "virtio_device_stop_ioeventfd_impl",
        QEMU_VIRTIO,
        text="And the port of old drivers.",
        to=call("port_eventfd", "after_port"),
        cause="ioctl(KVM_IOEVENTFD)",
    )
    def untie_port(self, me: Context) -> None:
        self.aim()

    @op(
        "CP.6.20",
        "look whether all are untied",
        "virtio_device_stop_ioeventfd_impl",
        QEMU_VIRTIO,
        text={"another": "The next queue.", "stopped": "QEMU does not serve the queues any more."},
        to={"another": goto("untie_address"), "stopped": RETURN},
    )
    def after_port(self, me: Context) -> str:
        process = self.process
        process.queue = following = (process.queue + 1) % self.setup.queues
        if following:
            return "another"
        process.started = 0
        return "stopped"


class WriteKick(Routine):
    """write() to the eventfd of a queue's kick, by QEMU itself.

    Args:
        wakeup: the callback of who waits for it.
    """

    def __init__(self, name: str, place: Place, eventfd: EventfdCells, wakeup: Routine) -> None:
        super().__init__(name, place)
        self.eventfd = eventfd
        self.wakeup = wakeup

    @op(
        "CP.6.20",
        "add 1 to the eventfd",
        "eventfd_write",
        EVENTFD,
        text="write() adds 1 to the counter: nobody who waits for it could tell this from a kick of the guest.",
        to={SIGNALLED: call("wakeup", "finish")},
        cost="eventfd",
    )
    def write(self, me: Context) -> str:
        self.eventfd.counter += 1
        return SIGNALLED

    @op(
        "CP.6.20",
        "return from write()",
        "eventfd_write",
        EVENTFD,
        text="write() returns.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def finish(self, me: Context) -> None: ...
