"""What QEMU does at its start, and inside the store of DRIVER_OK, where the device is a virtio-mmio one.

KVM is asked to signal each queue's eventfd for a store of four bytes to QueueNotify that brings the queue's number;
there is no port for old drivers. Interrupts are not tied to anything: vhost gets the call's eventfd, and QEMU's main
loop is the one that waits for it.

Source: QEMU 10.0 hw/virtio/virtio-mmio.c (virtio_mmio_ioeventfd_assign, virtio_mmio_set_guest_notifier),
hw/net/vhost_net.c (vhost_net_start).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from virtviz.engine.ops import call, goto, op
from virtviz.paths.setup.kvm_calls import Ioeventfd
from virtviz.paths.setup.qemu_start import QemuStart, QemuStartWithVhost
from virtviz.paths.setup.qemu_userspace import StartInQemu, StopInQemu
from virtviz.paths.setup.qemu_vhost import StartVhost, UntieEventfds
from virtviz.spec.citation import QEMU_VIRTIO, QEMU_VIRTIO_MMIO
from virtviz.spec.setup_sources import QEMU_VHOST_NET

if TYPE_CHECKING:
    from virtviz.paths.context import Context

_FIRST_ROUTES: Final = MappingProxyType(
    {
        "set_first_routes": {
            "text": "The interrupt pins have routes, and one of these pins is the device's. No other will be needed."
        }
    }
)


class MicrovmStart(QemuStart):
    """QEMU's main thread, from main() on."""

    retold = _FIRST_ROUTES


class MicrovmStartWithVhost(QemuStartWithVhost):
    """The same with vhost=on."""

    retold = _FIRST_ROUTES


class QueueNotifyEventfd(Ioeventfd):
    """KVM_IOEVENTFD for a queue's number at QueueNotify."""

    retold = MappingProxyType(
        {
            "kvm_ioeventfd": {
                "title": {"added": "tie a queue's number to an eventfd", "removed": "untie the queue's number"},
                "text": {
                    "added": (
                        "A store of four bytes to QueueNotify that brings {index} signals eventfd {fd}; KVM_RUN will "
                        "not return."
                    ),
                    "removed": "A kick of the {queue} queue is QEMU's affair again.",
                },
            }
        }
    )


class StartVhostOnMmio(StartVhost):
    """Everything that happens inside the guest's store of DRIVER_OK."""

    retold = MappingProxyType(
        {
            "start": {
                "text": {
                    "": "vhost is to serve the queues. First the kicks: an eventfd for each queue's number.",
                },
                "to": {"addresses": goto("make_kick_fd")},
            },
            "make_kick_fd": {"to": {"made": goto("after_kick_fd")}},
            "tie_address": {
                "title": "tie the queue's number to the eventfd",
                "text": (
                    "QEMU asks KVM to signal eventfd {fd} for a store of {index}, four bytes, to QueueNotify, and not "
                    "to ask it."
                ),
            },
            "after_address": {
                "text": {
                    "another": "The next queue: the same address, another number.",
                    "interrupts": "A kick will not reach QEMU any more. Now the way back: interrupts.",
                },
                "to": {"another": goto("tie_address"), "interrupts": goto("make_call_fd")},
            },
            "tie_port": None,
            "after_port": None,
            "make_call_fd": {
                "function": "virtio_mmio_set_guest_notifier",
                "source": QEMU_VIRTIO_MMIO,
                "text": (
                    "Eventfd {fd} will be the {queue} queue's call. No interrupt in KVM is tied to it: QEMU's main "
                    "loop waits for it itself."
                ),
                "to": {"made": goto("unmask")},
            },
            "add_route": None,
            "tie_interrupt": None,
            "after_interrupt": None,
            "update_route": None,
            "unmask": {
                "text": (
                    "Until now vhost would have signalled an eventfd that nobody hears. From now on it is {fd}: QEMU "
                    "hears it, and raises the line."
                )
            },
            "after_unmask": {
                "function": "virtio_mmio_set_guest_notifiers",
                "source": QEMU_VIRTIO_MMIO,
                "text": {
                    "another": "The same for the next queue.",
                    "start": "A call reaches QEMU, and by it the guest. vhost itself can be told.",
                },
                "to": {"another": goto("make_call_fd"), "start": goto("tell_features")},
            },
        }
    )

    def make_kick_fd(self, me: Context) -> str:
        """Make the kick's eventfd."""
        process = self.process
        self.aim(self.setup.new_fd())
        process.kick[process.queue] = self.arguments.value
        self.setup.kicks[process.queue].counter = 1
        return "made"

    @op(
        "CP.6.7",
        "go on to the next queue",
        "vhost_net_enable_notifiers",
        QEMU_VHOST_NET,
        text={"another": "The same for the next queue.", "all made": "Each queue has one. Now KVM is told of them."},
        to={"another": goto("make_kick_fd"), "all made": goto("tie_address")},
        private=True,
    )
    def after_kick_fd(self, me: Context) -> str:
        return "another" if self.next_queue() else "all made"

    def after_address(self, me: Context) -> str:
        """Say whether there is another queue."""
        return "another" if self.next_queue() else "interrupts"

    def make_call_fd(self, me: Context) -> str:
        """Make the call's eventfd."""
        process = self.process
        self.aim(self.setup.new_fd())
        process.call[process.queue] = self.arguments.value
        return "made"

    def after_unmask(self, me: Context) -> str:
        """Say whether there is another queue."""
        return "another" if self.next_queue() else "start"


class UntieNumbers(UntieEventfds):
    """Take the queues' numbers away from the eventfds again."""

    first = "untie_address"
    retold = MappingProxyType(
        {
            "untie_interrupt": None,
            "after_interrupt": None,
            "untie_address": {
                "title": "untie the queue's number",
                "text": "A kick of the {queue} queue is to reach QEMU again.",
                "to": call("ioeventfd", "after_port"),
            },
            "untie_port": None,
        }
    )


class StartInQemuOnMmio(StartInQemu):
    """Tie every queue's number to an eventfd that the main loop waits for."""

    retold = MappingProxyType(
        {
            "make_kick_fd": {"to": {"made": goto("after_kick_fd")}},
            "tie_address": {
                "title": "tie the queue's number to the eventfd",
                "text": (
                    "KVM is to signal eventfd {fd} for a store of {index} to QueueNotify: kicks stay light exits."
                ),
            },
            "after_address": {
                "title": "look whether all numbers are tied",
                "text": {
                    "another": "The next queue: the same address, another number.",
                    "kick": (
                        "All are tied. What lies in a ring already must not be missed: QEMU kicks its own queues once."
                    ),
                },
                "to": {"another": goto("tie_address"), "kick": goto("kick_receive")},
            },
            "tie_port": None,
            "after_port": None,
        }
    )

    def make_kick_fd(self, me: Context) -> str:
        """Make the kick's eventfd."""
        self.process.kick[self.process.queue] = self.setup.new_fd()
        return "made"

    @op(
        "CP.6.20",
        "go on to the next queue",
        "virtio_device_start_ioeventfd_impl",
        QEMU_VIRTIO,
        text={"another": "The same for the next queue.", "all made": "Each queue has one. Now KVM is told of them."},
        to={"another": goto("make_kick_fd"), "all made": goto("tie_address")},
        private=True,
    )
    def after_kick_fd(self, me: Context) -> str:
        return "another" if self.next_queue() else "all made"

    def after_address(self, me: Context) -> str:
        """Say whether there is another queue."""
        return "another" if self.next_queue() else "kick"


class StopInQemuOnMmio(StopInQemu):
    """The reverse: a kick is to reach nobody."""

    retold = MappingProxyType(
        {
            "untie_address": {
                "title": "untie the queue's number",
                "text": "The {queue} queue's number loses its eventfd.",
                "to": call("ioeventfd", "after_port"),
            },
            "untie_port": None,
        }
    )
