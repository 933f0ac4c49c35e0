"""QEMU starts vhost when the guest has written DRIVER_OK, and stops it. Rows CP.6, on the vCPU's thread.

Two versions differ in the order: QEMU 10.0 ties the notify addresses to eventfds first, all of them in one go, then the
interrupts; QEMU 7.2, which was recorded, ties the interrupts first, then the addresses, queue by queue.

Source: QEMU 10.0 hw/net/vhost_net.c (vhost_net_start, vhost_net_start_one, vhost_net_stop), hw/virtio/vhost.c
(vhost_dev_start, vhost_virtqueue_start, vhost_dev_stop), hw/virtio/virtio-pci.c (virtio_pci_set_guest_notifiers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.setup.features import VHOST_ASKED
from virtviz.paths.setup.state import HVA_BASE
from virtviz.spec.citation import QEMU_KVM, QEMU_MEMORY, QEMU_VIRTIO, QEMU_VIRTIO_NET, QEMU_VIRTIO_PCI
from virtviz.spec.setup_sources import QEMU_EVENT_NOTIFIER, QEMU_MSIX, QEMU_VHOST, QEMU_VHOST_BACKEND, QEMU_VHOST_NET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.calls import Calls, VhostCalls
    from virtviz.paths.setup.state import SetUp


class VhostSequence(Routine):
    """A sequence of calls about vhost, queue by queue.

    To KVM all queues of the device are one row. Of vhost there is a device for each pair, which numbers its two rings 0
    and 1; so what is said to it is said pair by pair.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, calls: Calls, vhost: VhostCalls | None) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.process = setup.process
        self.arguments = setup.arguments
        self.set_routing, self.irqfd = calls.set_routing, calls.irqfd
        self.ioeventfd, self.port_eventfd = calls.ioeventfd, calls.port_eventfd
        if vhost is None:
            # The back-end is no part of the kernel: it is told by messages.
            return
        self.set_call, self.set_features = vhost.set_call, vhost.set_features
        self.get_backend_features = vhost.get_backend_features
        self.set_backend_features = vhost.set_backend_features
        self.set_mem_table, self.set_num, self.set_base = vhost.set_mem_table, vhost.set_num, vhost.set_base
        self.set_addr, self.set_kick, self.set_backend = vhost.set_addr, vhost.set_kick, vhost.set_backend
        self.get_base = vhost.get_base

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the texts speak of."""
        process, queue = self.process, self.process.queue
        pci = self.setup.pci
        return {
            "queue": self.setup.queue_name(queue),
            "made": self.setup.queue_name(self.arguments.index),
            "index": queue,
            "ring": queue % 2,
            "fd": self.arguments.value,
            "gsi": process.gsi[queue],
            "vector": pci.vector[queue],
            "acked": f"{process.acked:#x}",
            "desc": f"{pci.desc[queue]:#x}",
            "hva": f"{HVA_BASE + pci.desc[queue]:#x}",
            "size": pci.size[queue],
            "base": self.setup.stopped_at[queue],
            "tap": self.setup.port_name,
        }

    def aim(self, value: int) -> None:
        """Lay out the arguments of a call about the present queue."""
        self.arguments.index, self.arguments.value = self.process.queue, value

    def aim_at_ring(self, value: int) -> None:
        """Lay out the arguments of a call about the present queue, on the vhost device of its pair."""
        queue = self.process.queue
        self.setup.aim_at(queue // 2)
        self.arguments.index, self.arguments.value = queue % 2, value

    def next_queue(self) -> bool:
        """Go on to the next data queue; answers whether there is one, and begins with the first again if not."""
        process = self.process
        process.queue = following = (process.queue + 1) % (2 * self.setup.served_pairs)
        return bool(following)

    def next_ring(self) -> bool:
        """Go on to the pair's next ring; answers whether there is one, and begins with its first again if not."""
        process = self.process
        first = process.queue // 2 * 2
        process.queue = following = first + (process.queue + 1) % 2
        return following > first

    def next_pair(self) -> bool:
        """Go on to the first ring of the next pair; answers whether there is one, and begins anew if not."""
        setup, process = self.setup, self.process
        is_another = setup.next_pair(setup.served_pairs)
        if process.queue != 2 * setup.sequence.pair:
            process.queue = 2 * setup.sequence.pair
        return is_another


class StartVhost(VhostSequence):
    """Everything that happens inside the guest's store of DRIVER_OK.

    Args:
        interrupts_first: the order of QEMU 7.2.
    """

    def __init__(
        self, name: str, place: Place, setup: SetUp, calls: Calls, vhost: VhostCalls | None, *, interrupts_first: bool
    ) -> None:
        super().__init__(name, place, setup, calls, vhost)
        self.interrupts_first = interrupts_first

    @op(
        "CP.1.7",
        "start the back-end",
        "virtio_net_vhost_status",
        QEMU_VIRTIO_NET,
        spec="3.1.1",
        text={
            "addresses": "vhost is to serve the queues. First the kicks: an eventfd for each notify address.",
            "interrupts": (
                "vhost is to serve the queues. This QEMU (7.2) begins with the interrupts; newer ones with the kicks."
            ),
        },
        to={"addresses": goto("make_kick_fd"), "interrupts": goto("make_call_fd")},
    )
    def start(self, me: Context) -> str:
        process = self.process
        process.acked = self.setup.driver_features & VHOST_ASKED
        process.queue = 0
        self.setup.count_pairs()
        return "interrupts" if self.interrupts_first else "addresses"

    # The way out of the guest

    @op(
        "CP.6.7",
        "make the kick's eventfd",
        "event_notifier_init",
        QEMU_EVENT_NOTIFIER,
        text={
            "": (
                "Eventfd {fd} will be the {made} queue's kick. It is made already signalled: who waits for it first "
                "looks at once."
            ),
        },
        to={"and tie it": goto("tie_address"), "another": goto("make_kick_fd"), "all made": goto("tie_address")},
    )
    def make_kick_fd(self, me: Context) -> str:
        process = self.process
        self.aim(self.setup.new_fd())
        process.kick[process.queue] = self.arguments.value
        self.setup.kicks[process.queue].counter = 1
        if self.interrupts_first:
            return "and tie it"
        return "another" if self.next_queue() else "all made"

    @op(
        "CP.6.7",
        "tie the notify address to the eventfd",
        "kvm_set_ioeventfd_mmio",
        QEMU_KVM,
        text=(
            "QEMU asks KVM to signal eventfd {fd} for any store to the {queue} queue's notify address, and not to ask "
            "it."
        ),
        to=call("ioeventfd", "after_address"),
        cause="ioctl(KVM_IOEVENTFD)",
    )
    def tie_address(self, me: Context) -> None:
        self.aim(self.process.kick[self.process.queue])

    @op(
        "CP.6.7",
        "look what is left of the addresses",
        "memory_region_transaction_commit",
        QEMU_MEMORY,
        text={
            "port": "This device also has the port of old drivers; it is tied as well.",
            "another": "The next queue's address is next: this QEMU changes all of them in one go.",
        },
        to={"port": goto("tie_port"), "another": goto("tie_address")},
        private=True,
    )
    def after_address(self, me: Context) -> str:
        if self.interrupts_first or not self.next_queue():
            return "port"
        return "another"

    @op(
        "CP.6.7",
        "tie the legacy port to the eventfd",
        "kvm_set_ioeventfd_pio",
        QEMU_KVM,
        text=(
            "An old driver would store the queue's number, {index}, to one port for all: the number has to match as "
            "well."
        ),
        to=call("port_eventfd", "after_port"),
        cause="ioctl(KVM_IOEVENTFD)",
    )
    def tie_port(self, me: Context) -> None:
        self.aim(self.process.kick[self.process.queue])

    @op(
        "CP.6.7",
        "look whether all kicks are tied",
        "vhost_net_enable_notifiers",
        QEMU_VHOST_NET,
        text={
            "new": "The same for the next queue.",
            "another": "The same for the next queue.",
            "interrupts": "A kick will not reach QEMU any more. Now the way back: interrupts.",
            "start": "A kick will not reach QEMU any more. vhost itself can be told.",
        },
        to={
            "new": goto("make_kick_fd"),
            "another": goto("tie_port"),
            "interrupts": goto("make_call_fd"),
            "start": goto("tell_features"),
        },
        private=True,
    )
    def after_port(self, me: Context) -> str:
        if self.interrupts_first:
            return "new" if self.next_ring() else "start"
        return "another" if self.next_queue() else "interrupts"

    # The way into the guest

    @op(
        "CP.6.8",
        "make the call's eventfd",
        "virtio_pci_set_guest_notifier",
        QEMU_VIRTIO_PCI,
        text={"": "Eventfd {fd} will be the {made} queue's call: what vhost signals to interrupt the guest."},
        to={"another": goto("make_call_fd"), "all made": goto("add_route")},
    )
    def make_call_fd(self, me: Context) -> str:
        process = self.process
        self.aim(self.setup.new_fd())
        process.call[process.queue] = self.arguments.value
        return "another" if self.next_queue() else "all made"

    @op(
        "CP.6.8",
        "add an interrupt route",
        "kvm_irqchip_add_msi_route",
        QEMU_KVM,
        text="Interrupt number {gsi} is to mean MSI-X entry {vector} of this device, the one that the guest chose.",
        to=call("set_routing", "tie_interrupt"),
        cause="ioctl(KVM_SET_GSI_ROUTING)",
    )
    def add_route(self, me: Context) -> None:
        self.take_route()

    def take_route(self) -> None:
        """Take the lowest free interrupt number for the present queue, and lay out the arguments."""
        kvm, process = self.setup.kvm, self.process
        gsi = (~kvm.gsis & kvm.gsis + 1).bit_length() - 1
        kvm.gsis |= 1 << gsi
        process.gsi[process.queue] = gsi
        self.aim(process.call[process.queue])

    @op(
        "CP.6.8",
        "tie the eventfd to the route",
        "kvm_irqchip_assign_irqfd",
        QEMU_KVM,
        text="QEMU asks KVM to interrupt the guest by number {gsi} whenever eventfd {fd} is signalled.",
        to=call("irqfd", "after_interrupt"),
        cause="ioctl(KVM_IRQFD)",
    )
    def tie_interrupt(self, me: Context) -> None:
        self.aim(self.process.call[self.process.queue])

    @op(
        "CP.6.8",
        "look whether all calls are tied",
        "virtio_pci_set_guest_notifiers",
        QEMU_VIRTIO_PCI,
        text={
            "another": "The same for the next queue.",
            "unmask": "Each entry of the table that the guest has unmasked already is looked at again.",
        },
        to={"another": goto("add_route"), "unmask": goto("update_route")},
        private=True,
    )
    def after_interrupt(self, me: Context) -> str:
        return "another" if self.next_queue() else "unmask"

    @op(
        "CP.6.9",
        "update the route",
        "virtio_pci_one_vector_unmask",
        QEMU_VIRTIO_PCI,
        text="Entry {vector} is not masked: its address and data are taken over once more, for they may have changed.",
        to=call("set_routing", "unmask"),
        cause="ioctl(KVM_SET_GSI_ROUTING)",
    )
    def update_route(self, me: Context) -> None:
        self.aim(self.process.call[self.process.queue])

    @op(
        "CP.6.9",
        "give vhost the call's eventfd",
        "vhost_virtqueue_mask",
        QEMU_VHOST,
        text=(
            "Until now vhost would have signalled an eventfd that nobody hears. From now on it is {fd}: the interrupt."
        ),
        to=call("set_call", "after_unmask"),
        cause="ioctl(VHOST_SET_VRING_CALL)",
    )
    def unmask(self, me: Context) -> None:
        self.aim_at_ring(self.process.call[self.process.queue])

    @op(
        "CP.6.9",
        "look whether all are unmasked",
        "msix_set_vector_notifiers",
        QEMU_MSIX,
        text={
            "another": "The same for the next queue.",
            "addresses": "A call reaches the guest without QEMU. Now the way out: kicks.",
            "start": "A call reaches the guest without QEMU. vhost itself can be told.",
        },
        to={"another": goto("update_route"), "addresses": goto("make_kick_fd"), "start": goto("tell_features")},
        private=True,
    )
    def after_unmask(self, me: Context) -> str:
        if self.next_queue():
            return "another"
        return "addresses" if self.interrupts_first else "start"

    # vhost itself

    @op(
        "CP.6.10",
        "tell vhost the accepted features",
        "vhost_dev_set_features",
        QEMU_VHOST,
        text="Of what the guest accepted vhost hears only what concerns it: {acked}.",
        to=call("set_features", "ask_backend_features"),
        cause="ioctl(VHOST_SET_FEATURES)",
    )
    def tell_features(self, me: Context) -> None:
        self.aim_at_ring(self.process.acked)

    @op(
        "CP.6.10",
        "ask how vhost can talk",
        "vhost_kernel_set_backend_cap",
        QEMU_VHOST_BACKEND,
        text="QEMU asks in which form messages may be exchanged with vhost.",
        to=call("get_backend_features", "tell_backend_features"),
        cause="ioctl(VHOST_GET_BACKEND_FEATURES)",
    )
    def ask_backend_features(self, me: Context) -> None: ...

    @op(
        "CP.6.10",
        "say how to talk",
        "vhost_kernel_set_backend_cap",
        QEMU_VHOST_BACKEND,
        text="QEMU says which of these forms it will use.",
        to=call("set_backend_features", "tell_memory"),
        cause="ioctl(VHOST_SET_BACKEND_FEATURES)",
    )
    def tell_backend_features(self, me: Context) -> None:
        self.aim_at_ring(self.arguments.result)

    @op(
        "CP.6.11",
        "tell vhost where guest memory lies",
        "vhost_dev_start",
        QEMU_VHOST,
        text="One region: guest addresses from 0 on lie in QEMU's memory from 0x7f9eebe00000 on.",
        to=call("set_mem_table", "see_map"),
        cause="ioctl(VHOST_SET_MEM_TABLE)",
    )
    def tell_memory(self, me: Context) -> None:
        self.aim_at_ring(1)

    @op(
        "CP.6.11",
        "see that vhost has the map",
        "vhost_dev_start",
        QEMU_VHOST,
        text="vhost has taken it. Now its rings, one after the other.",
        to=goto("tell_size"),
        private=True,
    )
    def see_map(self, me: Context) -> str | None: ...

    @op(
        "CP.6.12",
        "tell vhost the ring's size",
        "vhost_virtqueue_start",
        QEMU_VHOST,
        text="Now ring {ring}, the {queue} queue. Its size is the one that the guest stored: {size}.",
        to=call("set_num", "tell_base"),
        cause="ioctl(VHOST_SET_VRING_NUM)",
    )
    def tell_size(self, me: Context) -> None:
        self.aim_at_ring(self.setup.pci.size[self.process.queue])

    @op(
        "CP.6.13",
        "tell vhost where to begin",
        "vhost_virtqueue_start",
        QEMU_VHOST,
        text="A ring that was never used begins at index 0; after a migration it would be another number.",
        to=call("set_base", "tell_addresses"),
        cause="ioctl(VHOST_SET_VRING_BASE)",
    )
    def tell_base(self, me: Context) -> None:
        self.aim_at_ring(self.setup.stopped_at[self.process.queue])

    @op(
        "CP.6.14",
        "tell vhost where the ring lies",
        "vhost_virtqueue_set_addr",
        QEMU_VHOST,
        text="The guest stored {desc}. In QEMU's memory that is {hva}, and that is what vhost is told.",
        to=call("set_addr", "tell_kick"),
        cause="ioctl(VHOST_SET_VRING_ADDR)",
    )
    def tell_addresses(self, me: Context) -> None:
        pci, queue, arguments = self.setup.pci, self.process.queue, self.arguments
        arguments.index = queue % 2
        arguments.desc = HVA_BASE + pci.desc[queue]
        arguments.avail = HVA_BASE + pci.avail[queue]
        arguments.used = HVA_BASE + pci.used[queue]

    @op(
        "CP.6.15",
        "give vhost the kick's eventfd",
        "vhost_virtqueue_start",
        QEMU_VHOST,
        text=(
            "The eventfd that KVM signals for a kick is the one that vhost is to wait for: from here on QEMU is out of "
            "it."
        ),
        to=call("set_kick", "after_ring"),
        cause="ioctl(VHOST_SET_VRING_KICK)",
    )
    def tell_kick(self, me: Context) -> None:
        self.aim_at_ring(self.process.kick[self.process.queue])

    @op(
        "CP.6.16",
        "look whether all rings are told",
        "vhost_net_start_one",
        QEMU_VHOST_NET,
        text={
            "another": "The same for the next ring.",
            "poll": (
                "Both rings are known. QEMU stops reading {tap} itself: the descriptor stays open, but vhost has it "
                "now."
            ),
        },
        to={"another": goto("tell_size"), "poll": goto("set_backends")},
        private=True,
    )
    def after_ring(self, me: Context) -> str:
        return "another" if self.next_ring() else "poll"

    @op(
        "CP.6.17",
        "tie the ring to the TAP",
        "vhost_net_start_one",
        QEMU_VHOST_NET,
        text="Last, the ring's other end: {tap}'s descriptor, {fd}. With this the {queue} queue is live.",
        to=call("set_backend", "after_backend"),
        cause="ioctl(VHOST_NET_SET_BACKEND)",
    )
    def set_backends(self, me: Context) -> None:
        self.aim_at_ring(self.setup.of_pair[self.process.queue // 2].tap_fd)

    @op(
        "CP.6.17",
        "look whether both are live",
        "vhost_net_start",
        QEMU_VHOST_NET,
        text={
            "another": "The same for the next ring.",
            "next pair": "vhost serves this pair of queues. The next one has a vhost device of its own.",
            "next pair, kicks first": "vhost serves this pair. This QEMU (7.2) ties the kicks of the next one now.",
            "started": (
                "vhost serves both queues. QEMU will hear neither kicks nor frames; the control queue stays with it."
            ),
            "all started": (
                "vhost serves all data queues. QEMU hears neither kicks nor frames; the control queue stays with it."
            ),
        },
        to={
            "another": goto("set_backends"),
            "next pair": goto("tell_features"),
            "next pair, kicks first": goto("make_kick_fd"),
            "started": RETURN,
            "all started": RETURN,
        },
    )
    def after_backend(self, me: Context) -> str:
        if self.next_ring():
            return "another"
        if self.next_pair():
            return "next pair, kicks first" if self.interrupts_first else "next pair"
        self.process.started = 1
        return "started" if self.setup.served_pairs == 1 else "all started"


class StopVhost(VhostSequence):
    """Everything that happens when a device that vhost serves is reset.

    Args:
        untie: unties the eventfds, last.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, calls: Calls, vhost: VhostCalls, untie: Routine) -> None:
        super().__init__(name, place, setup, calls, vhost)
        self.untie = untie

    @op(
        "CP.6.17",
        "untie the ring from the TAP",
        "vhost_net_stop_one",
        QEMU_VHOST_NET,
        text=(
            "Stopping goes backwards. The {queue} queue's back-end is set to none (-1): the worker may not touch the "
            "ring."
        ),
        to=call("set_backend", "after_backend"),
        cause="ioctl(VHOST_NET_SET_BACKEND)",
    )
    def clear_backend(self, me: Context) -> None:
        self.aim_at_ring(0)

    @op(
        "CP.6.17",
        "look whether both are stopped",
        "vhost_net_stop_one",
        QEMU_VHOST_NET,
        text={
            "another": "The same for the next ring.",
            "ask": "Neither ring is served any more. QEMU reads {tap} itself again, should anything come.",
        },
        to={"another": goto("clear_backend"), "ask": goto("ask_base")},
        private=True,
    )
    def after_backend(self, me: Context) -> str:
        return "another" if self.next_ring() else "ask"

    @op(
        "CP.6.18",
        "ask how far vhost came",
        "vhost_virtqueue_stop",
        QEMU_VHOST,
        text=(
            "QEMU takes back what only vhost knew: how far it came in the {queue} queue. A migration would take it "
            "along."
        ),
        to=call("get_base", "note_base"),
        cause="ioctl(VHOST_GET_VRING_BASE)",
    )
    def ask_base(self, me: Context) -> None:
        self.aim_at_ring(0)

    @op(
        "CP.6.18",
        "note how far vhost came",
        "virtio_queue_set_last_avail_idx",
        QEMU_VIRTIO,
        text={
            "another": "The same for the next ring.",
            "next pair": "Both numbers are QEMU's again. The next pair of queues is stopped in the same way.",
            "untie": "Both numbers are QEMU's again. The eventfds can go.",
        },
        to={"another": goto("ask_base"), "next pair": goto("clear_backend"), "untie": goto("untie")},
        private=True,
    )
    def note_base(self, me: Context) -> str:
        self.process.base[self.process.queue] = self.arguments.result
        if self.next_ring():
            return "another"
        return "next pair" if self.next_pair() else "untie"


class UntieEventfds(VhostSequence):
    """Take interrupts and notify addresses away from the eventfds again."""

    @op(
        "CP.6.8",
        "untie the interrupt",
        "kvm_irqchip_remove_irqfd_notifier_gsi",
        QEMU_KVM,
        text="The {queue} queue's eventfd is not to interrupt the guest any more.",
        to=call("irqfd", "after_interrupt"),
        cause="ioctl(KVM_IRQFD)",
    )
    def untie_interrupt(self, me: Context) -> None:
        process, kvm = self.process, self.setup.kvm
        self.aim(0)
        kvm.gsis &= ~(1 << process.gsi[process.queue])

    @op(
        "CP.6.8",
        "look whether all are untied",
        "virtio_pci_set_guest_notifiers",
        QEMU_VIRTIO_PCI,
        text={
            "another": "The same for the next queue.",
            "addresses": "Now the notify addresses.",
            "no addresses": "The start had not come as far as the notify addresses: that was all.",
        },
        to={"another": goto("untie_interrupt"), "addresses": goto("untie_address"), "no addresses": RETURN},
        private=True,
    )
    def after_interrupt(self, me: Context) -> str:
        if self.next_queue():
            return "another"
        return "addresses" if self.setup.kvm.ioeventfds[0] else "no addresses"

    @op(
        "CP.6.7",
        "untie the notify address",
        "kvm_set_ioeventfd_mmio",
        QEMU_KVM,
        text="A store to the {queue} queue's notify address is to reach QEMU again.",
        to=call("ioeventfd", "untie_port"),
        cause="ioctl(KVM_IOEVENTFD)",
    )
    def untie_address(self, me: Context) -> None:
        self.aim(0)

    @op(
        "CP.6.7",
        "untie the legacy port",
        "kvm_set_ioeventfd_pio",
        QEMU_KVM,
        text="And the same for the port of old drivers.",
        to=call("port_eventfd", "after_port"),
        cause="ioctl(KVM_IOEVENTFD)",
    )
    def untie_port(self, me: Context) -> None:
        self.aim(0)

    @op(
        "CP.6.7",
        "look whether vhost is stopped",
        "vhost_net_stop",
        QEMU_VHOST_NET,
        text={
            "another": "The same for the next queue.",
            "stopped": "vhost is stopped; its worker and its owner stay. It can be started again by the same calls.",
        },
        to={"another": goto("untie_address"), "stopped": RETURN},
    )
    def after_port(self, me: Context) -> str:
        ioeventfds = self.setup.kvm.ioeventfds
        while self.next_queue():
            # A start that failed may not have come as far as this queue's address.
            if ioeventfds[self.process.queue]:
                return "another"
        self.process.started = 0
        return "stopped"
