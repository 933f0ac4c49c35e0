"""A store to virtio-mmio's QueueNotify: block KICK where all queues share one address.

The address alone does not say which queue is meant: KVM has to decode the instruction to learn what was stored, on
Intel as well. QEMU has registered an eventfd for each queue, all for the same four bytes, each for one value
(datamatch). KVM's fast MMIO bus has only eventfds for any length and any value, so none of these.

Source: QEMU 10.0 hw/virtio/virtio-mmio.c (virtio_mmio_ioeventfd_assign); Linux 6.12 virt/kvm/eventfd.c
(ioeventfd_in_range, kvm_assign_ioeventfd).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.effects import SIGNALLED
from virtviz.engine.ops import Routine, call, call_any, goto, op
from virtviz.paths.kvm_notify import LeaveOnAmd, LeaveOnIntel, NotifyStore
from virtviz.spec.citation import KVM_EVENTFD, KVM_MAIN, KVM_X86
from virtviz.spec.virtio_mmio import ADDRESSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import EventfdCells, Vcpu
    from virtviz.paths.kvm_device import AccessCells


class QueueNotify(NotifyStore):
    """A store to QueueNotify, as far as all of them have in common.

    Args:
        access: what is stored.
        enter: how the guest is entered again.
    """

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, access: AccessCells, enter: Routine) -> None:
        super().__init__(name, kvm, vcpu, "", 0, enter)
        self.address = ADDRESSES["QueueNotify"]
        self.access = access

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the address, and what was stored."""
        return {**super().words(me), "value": self.access.value}

    @op(
        "KICK.2",
        "emulate the store",
        "x86_emulate_instruction",
        KVM_X86,
        text="KVM fetches and decodes the guest's instruction to learn what it stored: the address is every queue's.",
        to=goto("find"),
        cost="emulate",
        private=True,
    )
    def emulate(self, me: Context) -> None: ...


class LightQueueNotify(QueueNotify):
    """One that becomes an eventfd's signal.

    Args:
        ioeventfds: a queue's name -> the signalling of its eventfd, in the order of the queues' numbers.
    """

    far: ClassVar[str] = ", into KVM and no further"

    def __init__(
        self,
        name: str,
        kvm: Place,
        vcpu: Vcpu,
        access: AccessCells,
        ioeventfds: dict[str, Routine],
        enter: Routine,
    ) -> None:
        super().__init__(name, kvm, vcpu, access, enter)
        self.ioeventfds = ioeventfds

    @op(
        "KICK.2",
        "look address, length and value up",
        "kvm_io_bus_write",
        KVM_MAIN,
        text=(
            "Several ioeventfds are for the four bytes at {address}, each for one value. {value} was stored: KVM takes "
            "that one's."
        ),
        to=call_any("ioeventfds", "enter"),
        private=True,
    )
    def find(self, me: Context) -> str:
        return list(self.ioeventfds)[self.access.value]


class HeavyQueueNotify(QueueNotify):
    """One that nobody in the kernel listens to, with `ioeventfd=off`.

    Args:
        qemu: what QEMU does between KVM_RUN's return and the next one.
    """

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, access: AccessCells, qemu: Routine, enter: Routine) -> None:
        super().__init__(name, kvm, vcpu, access, enter)
        self.qemu = qemu

    @op(
        "KICK.2",
        "look the address up",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="Nobody in the kernel listens at {address}: no ioeventfd was set up. Only QEMU can know what to do.",
        to=goto("return_to_qemu"),
        private=True,
    )
    def find(self, me: Context) -> None: ...

    @op(
        "KICK.3",
        "let KVM_RUN return",
        "kvm_arch_vcpu_ioctl_run",
        KVM_X86,
        text="KVM_RUN returns with KVM_EXIT_MMIO: the exit becomes a heavy one, and the guest waits for QEMU.",
        to=call("qemu", "enter"),
        cause="KVM_RUN returns: KVM_EXIT_MMIO",
        private=True,
    )
    def return_to_qemu(self, me: Context) -> None: ...


class _OnIntel(LeaveOnIntel, QueueNotify):
    """How it begins on Intel: the shortcut is tried first, and in vain."""

    links: Mapping[str, str] = {"left": "try_fast_bus"}

    @op(
        "KICK.2",
        "look at the fast bus",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="{address} is not on KVM's fast MMIO bus, whose entries are known by their address alone.",
        to=goto("emulate"),
        private=True,
    )
    def try_fast_bus(self, me: Context) -> None: ...


class _OnAmd(LeaveOnAmd, QueueNotify):
    """How it begins on AMD."""

    links: Mapping[str, str] = {"left": "emulate"}


class LightQueueNotifyIntel(_OnIntel, LightQueueNotify):
    """One that becomes an eventfd's signal, on Intel."""


class LightQueueNotifyAmd(_OnAmd, LightQueueNotify):
    """The same on AMD."""


class HeavyQueueNotifyIntel(_OnIntel, HeavyQueueNotify):
    """One that goes to QEMU, on Intel."""


class HeavyQueueNotifyAmd(_OnAmd, HeavyQueueNotify):
    """The same on AMD."""


class SignalIoeventfd(Routine):
    """The signalling of a queue's eventfd.

    Args:
        eventfd: what KVM signals.
        waiter: what runs when it is signalled.
    """

    def __init__(self, name: str, kvm: Place, queue: str, eventfd: EventfdCells, waiter: Routine) -> None:
        super().__init__(name, kvm, queue)
        self.eventfd = eventfd
        self.waiter = waiter

    @op(
        "KICK.3",
        "signal the eventfd",
        "ioeventfd_write",
        KVM_EVENTFD,
        text="Address, length and value are this queue's ioeventfd's: KVM adds 1 to its counter. QEMU is not involved.",
        to={SIGNALLED: call("waiter", None)},
        cost="eventfd",
    )
    def signal_eventfd(self, me: Context) -> str:
        self.eventfd.counter += 1
        return SIGNALLED
