"""KVM's two uses of eventfds: blocks KICK and IRQ.

A guest's store to a notify address becomes a signal (ioeventfd); a signal becomes an interrupt of the guest (irqfd).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.effects import SIGNALLED
from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.kvm import FIRST_VECTOR, EventfdCells, Vcpu
from virtviz.paths.kvm_notify import LeaveOnAmd, LeaveOnIntel, NotifyStore
from virtviz.spec.citation import EVENTFD, KVM_EVENTFD, KVM_IRQ, KVM_MAIN, KVM_X86

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm_msi import MsiDelivery


class HandleKick(NotifyStore):
    """A store to a queue's notify address: block KICK. The vCPU does leave the guest, but only into KVM.

    Args:
        eventfd: what KVM signals.
        waiter: what runs when it is signalled.
    """

    far: ClassVar[str] = ", into KVM and no further"

    def __init__(
        self,
        name: str,
        kvm: Place,
        vcpu: Vcpu,
        queue_name: str,
        queue: int,
        eventfd: EventfdCells,
        waiter: Routine,
        enter: Routine,
    ) -> None:
        super().__init__(name, kvm, vcpu, queue_name, queue, enter)
        self.eventfd = eventfd
        self.waiter = waiter

    @op(
        "KICK.3",
        "signal the eventfd",
        "ioeventfd_write",
        KVM_EVENTFD,
        text="The address belongs to an ioeventfd: KVM adds 1 to its counter. QEMU is not involved.",
        to={SIGNALLED: call("waiter", "done_with")},
        cost="eventfd",
    )
    def signal_eventfd(self, me: Context) -> str:
        self.eventfd.counter += 1
        return SIGNALLED


class HandleKickIntel(LeaveOnIntel, HandleKick):
    """The same on Intel: the exit itself says that a device page was touched, and nothing is decoded."""

    links: Mapping[str, str] = {"left": "find_ioeventfd", "done_with": "skip_instruction"}

    @op(
        "KICK.2",
        "look the address up",
        "kvm_io_bus_write",
        KVM_MAIN,
        text=(
            "KVM looks {address} up on its fast MMIO bus. The instruction is not even decoded: the address "
            "alone says which queue."
        ),
        to=goto("signal_eventfd"),
        private=True,
    )
    def find_ioeventfd(self, me: Context) -> None: ...

    @op(
        "KICK.5",
        "skip the instruction",
        "kvm_skip_emulated_instruction",
        KVM_X86,
        text="The store is done with: KVM moves the guest's instruction pointer past it.",
        to=goto("enter"),
        private=True,
    )
    def skip_instruction(self, me: Context) -> None: ...


class HandleKickIntelSlowly(LeaveOnIntel, HandleKick):
    """The same where QEMU had to register the ioeventfd with a length: it is not on the fast bus.

    Source: QEMU hw/virtio/virtio-pci.c (virtio_pci_ioeventfd_assign); KVM_CAP_IOEVENTFD_ANY_LENGTH, Linux 4.4.
    """

    links: Mapping[str, str] = {"left": "try_fast_bus", "done_with": "enter"}

    @op(
        "KICK.2",
        "look at the fast bus",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="{address} is not on KVM's fast MMIO bus, for its ioeventfd is for stores of two bytes only.",
        to=goto("emulate"),
        private=True,
    )
    def try_fast_bus(self, me: Context) -> None: ...

    @op(
        "KICK.2",
        "emulate the store",
        "x86_emulate_instruction",
        KVM_X86,
        text="KVM fetches and decodes the guest's instruction to learn how many bytes it stored where.",
        to=goto("find_ioeventfd"),
        cost="emulate",
        private=True,
    )
    def emulate(self, me: Context) -> None: ...

    @op(
        "KICK.2",
        "look the address up",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="KVM looks {address} up on its MMIO bus and finds the queue's ioeventfd.",
        to=goto("signal_eventfd"),
        private=True,
    )
    def find_ioeventfd(self, me: Context) -> None: ...


def kick_class(*, on_intel: bool, fast: bool) -> type[HandleKick]:
    """Give what handles a kick on a processor, with KVM's fast MMIO bus or without."""
    if on_intel:
        return HandleKickIntel if fast else HandleKickIntelSlowly
    return HandleKickAmd


class HandleKickAmd(LeaveOnAmd, HandleKick):
    """The same on AMD: a nested page fault, and KVM has to emulate the store before it knows what was written."""

    links: Mapping[str, str] = {"left": "emulate", "done_with": "enter"}

    @op(
        "KICK.2",
        "emulate the store",
        "x86_emulate_instruction",
        KVM_X86,
        text="AMD has no shortcut here: KVM fetches and decodes the guest's instruction to learn what it stored where.",
        to=goto("find_ioeventfd"),
        cost="emulate",
        private=True,
    )
    def emulate(self, me: Context) -> None: ...

    @op(
        "KICK.2",
        "look the address up",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="KVM looks {address} up on its MMIO bus and finds the queue's ioeventfd.",
        to=goto("signal_eventfd"),
        private=True,
    )
    def find_ioeventfd(self, me: Context) -> None: ...


class Irqfd(Routine):
    """Signalling a queue's call eventfd interrupts the vCPU: block IRQ, rows 1 to 3, in the thread that signals.

    Args:
        eventfd: the call eventfd.
        deliver: delivers the queue's vector: row 4.
    """

    def __init__(self, name: str, kvm: Place, eventfd: EventfdCells, deliver: MsiDelivery) -> None:
        super().__init__(name, kvm, deliver.queue)
        self.eventfd = eventfd
        self.deliver = deliver

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the vector."""
        return {"vector": FIRST_VECTOR + self.deliver.bit, "vcpu": self.deliver.vcpu_thread.name}

    @op(
        "IRQ.1",
        "run the irqfd's callback",
        "irqfd_wakeup",
        KVM_EVENTFD,
        text="Nobody reads this eventfd: KVM put a callback on it, and the callback runs in the thread that signalled.",
        private=True,
    )
    def irqfd_wakeup(self, me: Context) -> None: ...

    @op(
        "IRQ.2",
        "take the counter back to 0",
        "eventfd_ctx_do_read",
        EVENTFD,
        text="The signal is taken off the eventfd's counter.",
    )
    def drain_counter(self, me: Context) -> None:
        self.eventfd.counter = 0

    @op(
        "IRQ.3",
        "look up the route",
        "kvm_arch_set_irq_inatomic",
        KVM_IRQ,
        text=(
            "The eventfd stands for an MSI route: vector {vector:#04x} on {vcpu}. It can be delivered right "
            "here, without a work queue."
        ),
        to=goto("deliver"),
        private=True,
    )
    def route_msi(self, me: Context) -> None: ...
