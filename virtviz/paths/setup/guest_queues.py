"""The guest's drivers set interrupts and queues up: vp_find_vqs. Rows CP.1.6.

Everything up to a queue's vector is done for queue 0, 1, 2, and only then all queues are enabled, one after the other.
A table entry of MSI-X is written several times: once when the kernel makes the interrupt, masked, and twice when it
gives it a vector of the CPU; the order is that of the recording.

Source: Linux 6.12 drivers/virtio/virtio_pci_common.c (vp_find_vqs_msix, vp_request_msix_vectors),
drivers/virtio/virtio_pci_modern.c (setup_vq, vp_active_vq, vp_modern_find_vqs), drivers/pci/msi/msi.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, call, goto, op
from virtviz.paths.setup import registers as reg
from virtviz.paths.setup.guest_probe import ProbeRoutine
from virtviz.paths.setup.kvm_calls import message_of
from virtviz.spec.citation import VIRTIO_PCI
from virtviz.spec.setup_sources import (
    PCI_MSI,
    PCI_MSI_API,
    PCI_MSI_H,
    VIRTIO_PCI_MODERN,
    VIRTIO_PCI_MODERN_DEV,
    X86_MSI,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.state import SetUp

MSI_ADDRESS = 0xFEE00000
UNUSED_VECTOR = 0xEF
"""What stands in an entry while the kernel has not chosen a vector (MANAGED_IRQ_SHUTDOWN_VECTOR)."""
_HALF = 0xFFFFFFFF
_COUNTS = ("three", "five", "seven", "nine")
"""By pairs, from one on, how many queues there are, for people."""


class WriteMessage(ProbeRoutine):
    """Write the message of a table entry: address, upper address, data."""

    def words(self, me: Context) -> Mapping[str, object]:
        """Name entry and vector."""
        mine = self.mine
        of_a_cpu = "the vector of this CPU" if self.setup.pairs == 1 else f"a vector of CPU {self.cpus.target}"
        what = "no vector yet" if mine.vector == UNUSED_VECTOR else of_a_cpu
        return {"entry": mine.entry, "vector": f"{mine.vector:#x}", "what": what}

    def word(self, number: int, value: int) -> None:
        """Store a word of the entry."""
        reg.store(self.setup, reg.BAR1 + 16 * self.mine.entry + 4 * number, value, 4)

    @op(
        "CP.1.6",
        "write the message's address",
        "pci_write_msg_msix",
        PCI_MSI,
        spec="4.1.5.1.2",
        text="Entry {entry}: an interrupt is a store to this address, where the CPUs' interrupt controllers are.",
        to=call("access", "write_upper_address"),
        cause="store to the MSI-X table",
    )
    def write_address(self, me: Context) -> None:
        self.word(0, MSI_ADDRESS | self.cpus.target << 12)

    @op(
        "CP.1.6",
        "write its upper half",
        "pci_write_msg_msix",
        PCI_MSI,
        text="Entry {entry}: the address has 64 bits; the upper 32 are 0.",
        to=call("access", "write_data"),
        cause="store to the MSI-X table",
    )
    def write_upper_address(self, me: Context) -> None:
        self.word(1, 0)

    @op(
        "CP.1.6",
        "write the message's data",
        "pci_write_msg_msix",
        PCI_MSI,
        spec="4.1.5.1.2",
        text="Entry {entry}: the data is the vector, {vector}: {what}.",
        to=call("access", None),
        cause="store to the MSI-X table",
    )
    def write_data(self, me: Context) -> None:
        self.word(2, self.mine.vector)


class RequestInterrupt(ProbeRoutine):
    """Give a table entry a vector of the CPU and unmask it: request_irq.

    Args:
        write: writes the entry's message.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, access: Routine, write: Routine) -> None:
        super().__init__(name, place, setup, access)
        self.write = write

    def words(self, me: Context) -> Mapping[str, object]:
        """Name entry and vector."""
        cpu = "this CPU" if self.setup.pairs == 1 else f"CPU {self.cpus.target}"
        return {"entry": self.mine.entry, "vector": f"{self.mine.vector:#x}", "cpu": cpu}

    @op(
        "CP.1.6",
        "choose a vector",
        "request_irq",
        VIRTIO_PCI,
        spec="4.1.5.1.2",
        text="The kernel gives the interrupt of entry {entry} a handler, and vector {vector} of {cpu}.",
        to=call("write", "write_again"),
    )
    def choose_vector(self, me: Context) -> None:
        cpus = self.cpus
        target, self.mine.vector = message_of(self.mine.entry, cpus.online)
        if target != cpus.target:
            cpus.target = target

    @op(
        "CP.1.6",
        "write the message again",
        "msi_set_affinity",
        X86_MSI,
        text="The kernel writes the same message once more, for it also settles which CPU is to be interrupted.",
        to=call("write", "unmask"),
        private=True,
    )
    def write_again(self, me: Context) -> None: ...

    @op(
        "CP.1.6",
        "unmask the entry",
        "pci_msix_unmask",
        PCI_MSI_H,
        text="Entry {entry} is unmasked: from here on it may interrupt.",
        to=call("access", None),
        cause="store to the MSI-X table",
    )
    def unmask(self, me: Context) -> None:
        reg.store(self.setup, reg.BAR1 + 16 * self.mine.entry + 12, 0, 4)


class SetQueuesUp(ProbeRoutine):
    """Interrupts, then queue after queue, then all are enabled.

    Args:
        write: writes a table entry's message.
        request: gives an entry a vector.
    """

    def __init__(
        self, name: str, place: Place, setup: SetUp, access: Routine, write: Routine, request: Routine
    ) -> None:
        super().__init__(name, place, setup, access)
        self.write = write
        self.request = request

    def words(self, me: Context) -> Mapping[str, object]:
        """Name queue and entry."""
        mine = self.mine
        queue = mine.queue % self.setup.queues
        layout = self.setup.layouts[queue]
        return {
            "queue": self.setup.queue_name(queue),
            "index": mine.queue,
            "entry": mine.entry,
            "loaded": f"{self.loaded:#x}",
            "many": _COUNTS[self.setup.pairs - 1],
            "size": layout.size,
            **{part: f"{at:#x}" for part, at in zip(("desc", "avail", "used"), layout.areas, strict=True)},
            "notify": f"{mine.notify + mine.notify_off[queue] * mine.multiplier:#x}",
        }

    def _area(self, number: int) -> int:
        """Give the address of an area of the queue at hand: Descriptor, Driver or Device Area."""
        return self.setup.layouts[self.mine.queue].areas[number]

    # MSI-X

    @op(
        "CP.1.6",
        "choose how to be interrupted",
        "vp_find_vqs_msix",
        VIRTIO_PCI,
        spec="4.1.5.1.2",
        text=(
            "One message for the configuration and one for each queue that interrupts: the best of the ways Linux "
            "tries."
        ),
        to=goto("make_entry"),
    )
    def choose_msix(self, me: Context) -> None:
        mine = self.mine
        mine.queue = mine.entry = 0
        mine.vector = UNUSED_VECTOR
        if self.cpus.target:
            self.cpus.target = 0

    @op(
        "CP.1.6",
        {"next": "make an entry", "": "mask the whole table"},
        "pci_alloc_irq_vectors_affinity",
        PCI_MSI_API,
        spec="4.1.5.1.2",
        text={
            "next": "The kernel makes an interrupt of entry {entry}, which no CPU has a vector for yet.",
            "all": "Every entry of the table is masked now, the one that is not used as well.",
        },
        to={"next": call("write", "entry_made"), "all": goto("mask_entry")},
        private=True,
    )
    def make_entry(self, me: Context) -> str:
        # One for the configuration, one for each queue that interrupts; the control queue does not.
        if self.mine.entry < self.queues_in_all:
            return "next"
        self.mine.entry = 0
        return "all"

    @op(
        "CP.1.6",
        "go on to the next entry",
        "msix_setup_interrupts",
        PCI_MSI,
        text="This entry has a message.",
        to=goto("make_entry"),
        private=True,
    )
    def entry_made(self, me: Context) -> None:
        self.mine.entry += 1

    @op(
        "CP.1.6",
        "mask the entry",
        "msix_mask_all",
        PCI_MSI,
        text="Entry {entry} is masked: it cannot interrupt before its handler is there.",
        to=call("access", "entry_masked"),
        cause="store to the MSI-X table",
    )
    def mask_entry(self, me: Context) -> None:
        reg.store(self.setup, reg.BAR1 + 16 * self.mine.entry + 12, 1, 4)

    @op(
        "CP.1.6",
        "go on to the next entry",
        "msix_mask_all",
        PCI_MSI,
        text={
            "next": "The next entry.",
            "all": "All are masked. The first one that gets a handler is that of the configuration.",
        },
        to={"next": goto("mask_entry"), "all": call("request", "set_config_vector")},
        private=True,
    )
    def entry_masked(self, me: Context) -> str:
        mine = self.mine
        mine.entry += 1
        if mine.entry < self.setup.msix_entries:
            return "next"
        mine.entry = 0
        return "all"

    @op(
        "CP.1.6",
        "say which entry the configuration has",
        "vp_config_vector",
        VIRTIO_PCI_MODERN,
        spec="4.1.5.1.2",
        text="A change of the configuration, such as a pulled cable, is to interrupt by entry 0.",
        to=call("access", "check_config_vector"),
        cause="store to config_msix_vector",
    )
    def set_config_vector(self, me: Context) -> None:
        self.store(reg.CONFIG_MSIX_VECTOR, 0, 2)

    @op(
        "CP.1.6",
        "see whether the device took it",
        "vp_config_vector",
        VIRTIO_PCI_MODERN,
        spec="4.1.5.1.2.1",
        text="A device that cannot would answer 0xffff.",
        to=call("access", "select_to_read_size"),
        cause="load of config_msix_vector",
    )
    def check_config_vector(self, me: Context) -> None:
        self.load(reg.CONFIG_MSIX_VECTOR, 2)

    # One queue

    def select(self) -> None:
        """Choose the queue that the registers behind queue_select are about."""
        self.store(reg.QUEUE_SELECT, self.mine.queue, 2)

    @op(
        "CP.1.6",
        "choose the queue",
        "vp_modern_get_queue_size",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="All queues share one set of registers. Queue {index}, the {queue} queue, is chosen.",
        to=call("access", "read_size"),
        cause="store to queue_select",
    )
    def select_to_read_size(self, me: Context) -> None:
        self.select()

    @op(
        "CP.1.6",
        "read the queue's size",
        "vp_modern_get_queue_size",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="How many descriptors can it have at most? 0 would mean that there is no such queue.",
        to=call("access", "select_to_see_whether_enabled"),
        cause="load of queue_size",
    )
    def read_size(self, me: Context) -> None:
        self.load(reg.QUEUE_SIZE, 2)

    @op(
        "CP.1.6",
        "choose the queue again",
        "vp_modern_get_queue_enable",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="There is such a queue. Linux chooses it anew before every register it touches.",
        to=call("access", "read_enabled"),
        cause="store to queue_select",
    )
    def select_to_see_whether_enabled(self, me: Context) -> None:
        self.select()

    @op(
        "CP.1.6",
        "see whether it is in use",
        "vp_modern_get_queue_enable",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="A queue that is enabled already could not be set up.",
        to=call("access", "select_to_set_size"),
        cause="load of queue_enable",
    )
    def read_enabled(self, me: Context) -> None:
        self.load(reg.QUEUE_ENABLE, 2)

    @op(
        "CP.1.6",
        "choose the queue again",
        "vp_active_vq",
        VIRTIO_PCI_MODERN,
        spec="4.1.5.1.3",
        text="The driver takes memory for the {queue} queue's three parts, and tells the device about them.",
        to=call("access", "write_size"),
        cause="store to queue_select",
    )
    def select_to_set_size(self, me: Context) -> None:
        self.select()

    @op(
        "CP.1.6",
        "say the queue's size",
        "vp_modern_set_queue_size",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text=(
            "{size} descriptors. A driver may take fewer than the device allows; Linux does not, and says so all the "
            "same."
        ),
        to=call("access", "select_to_set_addresses"),
        cause="store to queue_size",
    )
    def write_size(self, me: Context) -> None:
        self.store(reg.QUEUE_SIZE, self.setup.layouts[self.mine.queue].size, 2)

    @op(
        "CP.1.6",
        "choose the queue again",
        "vp_modern_queue_address",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="Three addresses follow, each in two halves.",
        to=call("access", "write_desc"),
        cause="store to queue_select",
    )
    def select_to_set_addresses(self, me: Context) -> None:
        self.select()

    @op(
        "CP.1.6",
        "say where the descriptors lie",
        "vp_modern_queue_address",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="The descriptor table is at {desc}, an address of the guest's.",
        to=call("access", "write_desc_high"),
        cause="store to queue_desc",
    )
    def write_desc(self, me: Context) -> None:
        self.store(reg.QUEUE_DESC, self._area(0) & _HALF, 4)

    @op(
        "CP.1.6",
        "its upper half",
        "vp_modern_queue_address",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="The upper 32 bits of the same address.",
        to=call("access", "write_avail"),
        cause="store to queue_desc",
    )
    def write_desc_high(self, me: Context) -> None:
        self.store(reg.QUEUE_DESC + 4, self._area(0) >> 32, 4)

    @op(
        "CP.1.6",
        "say where the available ring lies",
        "vp_modern_queue_address",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="The available ring is at {avail}. Only the driver will write it.",
        to=call("access", "write_avail_high"),
        cause="store to queue_driver",
    )
    def write_avail(self, me: Context) -> None:
        self.store(reg.QUEUE_DRIVER, self._area(1) & _HALF, 4)

    @op(
        "CP.1.6",
        "its upper half",
        "vp_modern_queue_address",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="The upper 32 bits of the same address.",
        to=call("access", "write_used"),
        cause="store to queue_driver",
    )
    def write_avail_high(self, me: Context) -> None:
        self.store(reg.QUEUE_DRIVER + 4, self._area(1) >> 32, 4)

    @op(
        "CP.1.6",
        "say where the used ring lies",
        "vp_modern_queue_address",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="The used ring is at {used}. Only the device will write it.",
        to=call("access", "write_used_high"),
        cause="store to queue_device",
    )
    def write_used(self, me: Context) -> None:
        self.store(reg.QUEUE_DEVICE, self._area(2) & _HALF, 4)

    @op(
        "CP.1.6",
        "its upper half",
        "vp_modern_queue_address",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="The upper 32 bits of the same address.",
        to=call("access", "does_it_interrupt"),
        cause="store to queue_device",
    )
    def write_used_high(self, me: Context) -> None:
        self.store(reg.QUEUE_DEVICE + 4, self._area(2) >> 32, 4)

    @op(
        "CP.1.6",
        "see whether the queue interrupts",
        "vp_find_vqs_msix",
        VIRTIO_PCI,
        text={
            "yes": "The {queue} queue has a handler, so it gets an entry of the MSI-X table.",
            "no": "Nobody waits for the control queue by interrupt: the driver polls its answers.",
        },
        to={"yes": goto("select_to_set_vector"), "no": goto("select_to_read_notify")},
        private=True,
    )
    def does_it_interrupt(self, me: Context) -> str:
        return "no" if self.mine.queue == self.control else "yes"

    @op(
        "CP.1.6",
        "choose the queue again",
        "vp_modern_queue_vector",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.2",
        text="By which entry is the {queue} queue to interrupt?",
        to=call("access", "write_vector"),
        cause="store to queue_select",
    )
    def select_to_set_vector(self, me: Context) -> None:
        self.select()

    @op(
        "CP.1.6",
        "say which entry the queue has",
        "vp_modern_queue_vector",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.2",
        text="By the entry behind that of the configuration and of the queues before it.",
        to=call("access", "check_vector"),
        cause="store to queue_msix_vector",
    )
    def write_vector(self, me: Context) -> None:
        self.mine.entry = self.mine.queue + 1
        self.store(reg.QUEUE_MSIX_VECTOR, self.mine.entry, 2)

    @op(
        "CP.1.6",
        "see whether the device took it",
        "vp_modern_queue_vector",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.2.1",
        text="A device that has no such entry would answer 0xffff.",
        to=call("access", "select_to_read_notify"),
        cause="load of queue_msix_vector",
    )
    def check_vector(self, me: Context) -> None:
        self.load(reg.QUEUE_MSIX_VECTOR, 2)

    @op(
        "CP.1.6",
        "choose the queue again",
        "vp_modern_get_queue_notify_off",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4.4",
        text="Where is the {queue} queue to be kicked?",
        to=call("access", "read_notify_off"),
        cause="store to queue_select",
    )
    def select_to_read_notify(self, me: Context) -> None:
        self.select()

    @op(
        "CP.1.6",
        "read the queue's place among the notify addresses",
        "vp_modern_get_queue_notify_off",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4.4",
        text="Its number, times the distance that the capability gave, is its place behind the first notify address.",
        to=call("access", "note_notify"),
        cause="load of queue_notify_off",
    )
    def read_notify_off(self, me: Context) -> None:
        self.load(reg.QUEUE_NOTIFY_OFF, 2)

    @op(
        "CP.1.6",
        "note the notify address",
        "vp_modern_map_vq_notify",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4.4",
        text={
            "interrupts": "The {queue} queue will be kicked by a store to {notify}. Its interrupt gets a handler next.",
            "quiet": "The {queue} queue will be kicked by a store to {notify}.",
        },
        to={"interrupts": call("request", "next_queue"), "quiet": goto("next_queue")},
    )
    def note_notify(self, me: Context) -> str:
        mine = self.mine
        mine.notify_off[mine.queue] = self.loaded
        return "quiet" if mine.queue == self.control else "interrupts"

    @op(
        "CP.1.6",
        "go on to the next queue",
        "vp_find_vqs_msix",
        VIRTIO_PCI,
        text={
            "next": "This queue is described; it is not enabled yet. The next one.",
            "all": "All {many} are described. Only now are they enabled, all of them.",
        },
        to={"next": goto("select_to_read_size"), "all": goto("select_to_enable")},
        private=True,
    )
    def next_queue(self, me: Context) -> str:
        mine = self.mine
        mine.queue = following = (mine.queue + 1) % self.queues_in_all
        return "next" if following else "all"

    # All of them

    @op(
        "CP.1.6",
        "choose the queue",
        "vp_modern_set_queue_enable",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="The {queue} queue, for the last time.",
        to=call("access", "enable_queue"),
        cause="store to queue_select",
    )
    def select_to_enable(self, me: Context) -> None:
        self.select()

    @op(
        "CP.1.6",
        "enable the queue",
        "vp_modern_set_queue_enable",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.5.1.3",
        text="The {queue} queue is enabled. The device may still not use it, before DRIVER_OK.",
        to=call("access", "queue_enabled"),
        cause="store to queue_enable",
    )
    def enable_queue(self, me: Context) -> None:
        self.store(reg.QUEUE_ENABLE, 1, 2)

    @op(
        "CP.1.6",
        "see whether all are enabled",
        "vp_modern_find_vqs",
        VIRTIO_PCI_MODERN,
        spec="4.1.5.1.3",
        text={"next": "The next one.", "all": "All queues are enabled. Taking that back would need a reset."},
        to={"next": goto("select_to_enable"), "all": RETURN},
        private=True,
    )
    def queue_enabled(self, me: Context) -> str:
        mine = self.mine
        mine.queue = following = (mine.queue + 1) % self.queues_in_all
        return "next" if following else "all"
