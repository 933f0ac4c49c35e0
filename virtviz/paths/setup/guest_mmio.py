"""The guest's drivers set a virtio-mmio device up. Rows CP.10 for finding it, and CP.1 as on every transport.

The driver is told where the registers are, and looks whether a virtio device is there. From the reset on the steps are
those of PCI, with these differences: the reset is not waited for; the upper half of the features comes first; all that
concerns interrupts is one handler for one line; and a queue is in use (QueueReady) as soon as it has been described.

Source: virtio 1.4, 4.2.3.1 and 4.2.3.2; Linux 6.12 drivers/virtio/virtio_mmio.c (virtio_mmio_probe, vm_reset,
vm_get_features, vm_finalize_features, vm_find_vqs, vm_setup_vq, vm_del_vq), drivers/acpi/acpi_platform.c.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from virtviz.engine.ops import RETURN, call, goto, op
from virtviz.paths.setup import features
from virtviz.paths.setup import mmio_registers as mmio
from virtviz.paths.setup import registers as reg
from virtviz.paths.setup.guest_control import SendCommands
from virtviz.paths.setup.guest_probe import Probe, ProbeRoutine
from virtviz.paths.setup.guest_remove import RemoveDriver, begin_anew
from virtviz.paths.setup.vcpu_start import Boot
from virtviz.spec.citation import VIRTIO_MMIO, VIRTIO_NET, VIRTIO_RING, Source
from virtviz.spec.setup_sources import ACPI_PLATFORM, VIRTIO_CORE
from virtviz.spec.virtio_mmio import MAGIC, REGISTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm_device import AccessCells
    from virtviz.paths.setup.state import SetUp
    from virtviz.ring.rings import DriverRing

_HALF: Final = 0xFFFFFFFF
_SAME: Final[Mapping[str, tuple[str, Source]]] = MappingProxyType(
    {
        "vp_reset": ("vm_reset", VIRTIO_MMIO),
        "vp_modern_get_features": ("vm_get_features", VIRTIO_MMIO),
        "vp_modern_set_features": ("vm_finalize_features", VIRTIO_MMIO),
        "vp_finalize_features": ("vm_finalize_features", VIRTIO_MMIO),
        "vp_notify": ("vm_notify", VIRTIO_MMIO),
    }
)
"""Function of virtio-pci -> what does the same here."""


class MmioRoutine(ProbeRoutine):
    """A part of the guest's drivers that loads and stores registers of virtio-mmio: 32 bits, always."""

    functions = _SAME

    def store_to(self, register: str, value: int) -> None:
        """Store to a register."""
        reg.store(self.setup, self.mine.common + REGISTERS[register], value, 4)

    def load_from(self, register: str) -> None:
        """Load a register."""
        reg.load(self.setup, self.mine.common + REGISTERS[register], 4)

    def store(self, field: int, value: int, size: int) -> None:
        """Store to what is the same as a field of PCI's common configuration."""
        self.store_to(mmio.COUNTERPARTS[field], value)

    def load(self, field: int, size: int) -> None:
        """Load what is the same as a field of PCI's common configuration."""
        self.load_from(mmio.COUNTERPARTS[field])


class BootMicrovm(Boot):
    """Firmware and kernel, up to the point where the kernel looks for devices."""

    retold = MappingProxyType(
        {"boot": {"text": "Firmware loads the kernel, which comes up and reads the machine's tables. Many exits."}}
    )


class FindInTables(MmioRoutine):
    """Find the device in the machine's tables, and see whether it is a virtio device.

    Args:
        probe: the virtio driver, which goes on.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, access: Routine, probe: Routine) -> None:
        super().__init__(name, place, setup, access)
        self.probe = probe

    def words(self, me: Context) -> Mapping[str, object]:
        """Say what was found."""
        return {
            "base": f"{self.mine.common:#x}",
            "line": self.mine.entry,
            "value": f"{self.loaded:#x}",
        }

    @op(
        "CP.10.1",
        "read where the device is",
        "acpi_create_platform_device",
        ACPI_PLATFORM,
        spec="4.2.1",
        text=(
            "No bus is walked. An entry of the ACPI tables, LNRO0005, says: 512 bytes of registers at {base}, and "
            "interrupt line {line}."
        ),
    )
    def read_tables(self, me: Context) -> None:
        mine = self.mine
        mine.common, mine.entry = mmio.read_entry(self.setup.config)
        mine.notify = mine.common + mmio.NOTIFY
        mine.device = mine.common + mmio.CONFIG

    @op(
        "CP.10.2",
        "load MagicValue",
        "virtio_mmio_probe",
        VIRTIO_MMIO,
        spec="4.2.3.1",
        text="Is there a virtio device at all? The first register has to say so.",
        to=call("access", "see_magic"),
        cause="load of MagicValue",
    )
    def load_magic(self, me: Context) -> None:
        self.load_from("MagicValue")

    @op(
        "CP.10.2",
        {"virt": "see that it is virtio", "other": "see that it is something else"},
        "virtio_mmio_probe",
        VIRTIO_MMIO,
        spec="4.2.3.1.1",
        text={
            "virt": "{value}: the letters “virt”, in little-endian.",
            "other": "{value} is not “virt”: the driver leaves it alone.",
        },
        to={"virt": goto("load_version"), "other": goto("load_magic")},
        private=True,
    )
    def see_magic(self, me: Context) -> str:
        return "virt" if self.loaded == MAGIC else "other"

    @op(
        "CP.10.2",
        "load Version",
        "virtio_mmio_probe",
        VIRTIO_MMIO,
        spec="4.2.3.1",
        text="1 would be a legacy device, with other registers for its queues; 2 is one as the specification has it.",
        to=call("access", "load_device_id"),
        cause="load of Version",
    )
    def load_version(self, me: Context) -> None:
        self.load_from("Version")

    @op(
        "CP.10.2",
        "load DeviceID",
        "virtio_mmio_probe",
        VIRTIO_MMIO,
        spec="4.2.3.1",
        text="What kind of device? 0 would be a place in which there is none; 1 is a network card.",
        to=call("access", "load_vendor_id"),
        cause="load of DeviceID",
    )
    def load_device_id(self, me: Context) -> None:
        self.load_from("DeviceID")

    @op(
        "CP.10.2",
        "load VendorID",
        "virtio_mmio_probe",
        VIRTIO_MMIO,
        spec="4.2.2",
        text="And who made it? QEMU says “QEMU”. Nothing depends on that.",
        to=call("access", "go_on"),
        cause="load of VendorID",
    )
    def load_vendor_id(self, me: Context) -> None:
        self.load_from("VendorID")

    @op(
        "CP.1.1",
        "begin with the device",
        "register_virtio_device",
        VIRTIO_CORE,
        spec="3.1.1",
        text="From here on it does not matter that the device is on no bus: the same steps follow on every transport.",
        to=goto("probe"),
        private=True,
    )
    def go_on(self, me: Context) -> None: ...


_STATUS_STORED: Final = MappingProxyType({"cause": "store to Status"})
_STATUS_LOADED: Final = MappingProxyType({"cause": "load of Status"})


class MmioProbe(MmioRoutine, Probe):
    """From the reset to DRIVER_OK."""

    retold = MappingProxyType(
        {
            "reset_device": {
                **_STATUS_STORED,
                "text": (
                    "Nobody knows in which state firmware left the device: the driver begins with 0 in Status, a reset."
                ),
                "to": call("access", "read_status_to_acknowledge"),
            },
            "wait_for_reset": None,
            "look_at_reset": None,
            "acknowledge": _STATUS_STORED,
            "read_status_for_driver": {
                **_STATUS_LOADED,
                "text": "A driver may only add bits to Status, so it reads what is there first.",
            },
            "say_driver": _STATUS_STORED,
            "select_offer": {
                "spec": "4.2.2",
                "text": "64 feature bits are read through a window of 32. Here the upper half comes first.",
                "cause": "store to DeviceFeaturesSel",
            },
            "read_offer": {"cause": "load of DeviceFeatures"},
            "note_offer": {
                "text": {
                    "more": "The upper 32 bits are known; the lower ones are next.",
                    "all": (
                        "Offered: {offered}. The driver accepts what it knows of that: {wanted}. Bits left out: {left}."
                    ),
                }
            },
            "select_answer": {
                "spec": "4.2.2",
                "text": "The answer goes through a window as well, and here too the upper half comes first.",
                "cause": "store to DriverFeaturesSel",
            },
            "write_answer": {"cause": "store to DriverFeatures"},
            "is_answer_complete": {
                "text": {
                    "more": "The lower 32 bits are next.",
                    "all": "The answer is complete. Is the device content with it?",
                }
            },
            "read_status_for_features": _STATUS_LOADED,
            "say_features_ok": _STATUS_STORED,
            "read_answer_of_device": _STATUS_LOADED,
            "say_failed": _STATUS_STORED,
            "read_generation": {"cause": "load of ConfigGeneration"},
            "read_generation_again": {"cause": "load of ConfigGeneration"},
            "set_queues_up": {
                "text": "Now the queues: receive, transmit and control, each with memory. One interrupt is for all."
            },
            "read_status_to_start": _STATUS_LOADED,
            "say_driver_ok": {
                **_STATUS_STORED,
                "text": (
                    "DRIVER_OK (4): one store. The whole start of the back-end happens inside it, while this CPU waits."
                ),
            },
        }
    )

    @op(
        "CP.1.2",
        "read the status",
        "virtio_add_status",
        VIRTIO_CORE,
        spec="2.1",
        text="Linux does not wait for the reset here: QEMU has done it before the store was over. What is there now?",
        to=call("access", "acknowledge"),
        cause="load of Status",
    )
    def read_status_to_acknowledge(self, me: Context) -> None:
        self.load_from("Status")

    def select_offer(self, me: Context) -> None:
        """Choose a window: the upper half first."""
        self.store_to("DeviceFeaturesSel", 1 - self.mine.entry)

    def note_offer(self, me: Context) -> str:
        """Note a window."""
        mine = self.mine
        if not mine.entry:
            mine.offered = self.loaded << 32
            mine.entry = 1
            return "more"
        mine.offered |= self.loaded
        mine.wanted = features.without_unmet(mine.offered & self.knows)
        mine.entry = 0
        return "all"

    def select_answer(self, me: Context) -> None:
        """Choose a window of the answer: the upper half first."""
        self.store_to("DriverFeaturesSel", 1 - self.mine.entry)

    def write_answer(self, me: Context) -> None:
        """Write a window of the answer."""
        mine = self.mine
        self.store_to("DriverFeatures", mine.wanted >> 32 * (1 - mine.entry) & _HALF)
        mine.entry += 1


class SetMmioQueuesUp(MmioRoutine):
    """The line's handler, then queue after queue: vm_find_vqs.

    Args:
        control: the driver's side of the control queue, whose interrupts nobody wants.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, access: Routine, control: DriverRing) -> None:
        super().__init__(name, place, setup, access)
        self.control_ring = control

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the queue."""
        mine = self.mine
        layout = self.setup.layouts[mine.queue % self.setup.queues]
        return {
            "queue": self.setup.queue_name(mine.queue),
            "index": mine.queue,
            "loaded": self.loaded,
            "size": layout.size,
            **{part: f"{at:#x}" for part, at in zip(("desc", "avail", "used"), layout.areas, strict=True)},
        }

    @op(
        "CP.1.6",
        "give the line a handler",
        "vm_find_vqs",
        VIRTIO_MMIO,
        spec="4.2.3.4",
        text=(
            "One interrupt for all queues and the configuration: the line that the tables named gets its handler, and "
            "its pin of the IOAPIC is unmasked."
        ),
        to=goto("select"),
    )
    def request_irq(self, me: Context) -> None:
        self.mine.queue = 0

    @op(
        "CP.1.6",
        "choose the queue",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="All queues share one set of registers. Queue {index}, the {queue} queue, is chosen, once and for all.",
        to=call("access", "load_ready"),
        cause="store to QueueSel",
    )
    def select(self, me: Context) -> None:
        self.store_to("QueueSel", self.mine.queue)

    @op(
        "CP.1.6",
        "see whether it is in use",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="A queue that is ready already could not be set up.",
        to=call("access", "load_max"),
        cause="load of QueueReady",
    )
    def load_ready(self, me: Context) -> None:
        self.load_from("QueueReady")

    @op(
        "CP.1.6",
        "load QueueNumMax",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="How many descriptors can it have at most? 0 would mean that there is no such queue.",
        to=call("access", "take_memory"),
        cause="load of QueueNumMax",
    )
    def load_max(self, me: Context) -> None:
        self.load_from("QueueNumMax")

    @op(
        "CP.1.6",
        {"control": "take memory, and want no interrupts", "": "take memory"},
        "vring_create_virtqueue",
        VIRTIO_RING,
        spec="4.2.3.2",
        text={
            "data": "{loaded} at most. The driver takes memory for the {queue} queue: {size} descriptors.",
            "control": (
                "{loaded} at most. The driver takes memory for the control queue, {size} descriptors. It has no "
                "handler, so its interrupts are unwanted."
            ),
        },
        to={"data": goto("store_num"), "control": goto("store_num")},
    )
    def take_memory(self, me: Context) -> str:
        if self.mine.queue != self.setup.control:
            return "data"
        self.control_ring.begin_silenced()
        return "control"

    @op(
        "CP.1.6",
        "say the queue's size",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="{size} descriptors: a driver may take fewer than the device allows, and says how many.",
        to=call("access", "store_desc"),
        cause="store to QueueNum",
    )
    def store_num(self, me: Context) -> None:
        self.store_to("QueueNum", self.setup.layouts[self.mine.queue].size)

    @op(
        "CP.1.6",
        "say where the descriptors lie",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="The descriptor table is at {desc}, an address of the guest's.",
        to=call("access", "store_desc_high"),
        cause="store to QueueDescLow",
    )
    def store_desc(self, me: Context) -> None:
        self.store_to("QueueDescLow", self.setup.layouts[self.mine.queue].areas[0] & _HALF)

    @op(
        "CP.1.6",
        "its upper half",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="The upper 32 bits of the same address.",
        to=call("access", "store_avail"),
        cause="store to QueueDescHigh",
    )
    def store_desc_high(self, me: Context) -> None:
        self.store_to("QueueDescHigh", self.setup.layouts[self.mine.queue].areas[0] >> 32)

    @op(
        "CP.1.6",
        "say where the available ring lies",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="The available ring is at {avail}. Only the driver will write it.",
        to=call("access", "store_avail_high"),
        cause="store to QueueDriverLow",
    )
    def store_avail(self, me: Context) -> None:
        self.store_to("QueueDriverLow", self.setup.layouts[self.mine.queue].areas[1] & _HALF)

    @op(
        "CP.1.6",
        "its upper half",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="The upper 32 bits of the same address.",
        to=call("access", "store_used"),
        cause="store to QueueDriverHigh",
    )
    def store_avail_high(self, me: Context) -> None:
        self.store_to("QueueDriverHigh", self.setup.layouts[self.mine.queue].areas[1] >> 32)

    @op(
        "CP.1.6",
        "say where the used ring lies",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="The used ring is at {used}. Only the device will write it.",
        to=call("access", "store_used_high"),
        cause="store to QueueDeviceLow",
    )
    def store_used(self, me: Context) -> None:
        self.store_to("QueueDeviceLow", self.setup.layouts[self.mine.queue].areas[2] & _HALF)

    @op(
        "CP.1.6",
        "its upper half",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="The upper 32 bits of the same address.",
        to=call("access", "store_ready"),
        cause="store to QueueDeviceHigh",
    )
    def store_used_high(self, me: Context) -> None:
        self.store_to("QueueDeviceHigh", self.setup.layouts[self.mine.queue].areas[2] >> 32)

    @op(
        "CP.1.6",
        "say that the queue is ready",
        "vm_setup_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="The {queue} queue is described, and ready. The device may still not use it, before DRIVER_OK.",
        to=call("access", "next_queue"),
        cause="store to QueueReady",
    )
    def store_ready(self, me: Context) -> None:
        self.store_to("QueueReady", 1)

    @op(
        "CP.1.6",
        "go on to the next queue",
        "vm_find_vqs",
        VIRTIO_MMIO,
        text={"next": "The next one.", "all": "All queues are ready. Where to kick them needs no question."},
        to={"next": goto("select"), "all": RETURN},
        private=True,
    )
    def next_queue(self, me: Context) -> str:
        mine = self.mine
        mine.queue = following = (mine.queue + 1) % self.setup.queues
        return "next" if following else "all"


class SendMmioCommands(SendCommands):
    """Send some commands, one after the other.

    Attributes:
        kicked: the value that the store to QueueNotify brings, where KVM knows the address; set by the wiring.
    """

    functions = _SAME
    kicked: AccessCells
    retold = MappingProxyType(
        {
            "kick": {
                "spec": "4.2.3.3",
                "text": "A kick like that of any other queue: its number is stored to QueueNotify.",
                "cause": "store to QueueNotify",
            }
        }
    )

    def kick(self, me: Context) -> None:
        """Store the queue's number."""
        self.kicked.value = self.setup.control
        reg.store(self.setup, self.mine.notify, self.setup.control, 4)


class ProbeAgain(FindInTables):
    """The driver is bound once more: what the tables say is known."""

    first = "load_magic"
    retold = MappingProxyType({"read_tables": None})


class RemoveMmioDriver(MmioRoutine, RemoveDriver):
    """Unbind the driver, and bind it again.

    Queues are taken out of use one by one here, after the reset has done so already.
    """

    retold = MappingProxyType(
        {
            "unbind": {
                "text": (
                    "The device's name is written to the file “unbind” of virtio-mmio: virtio-net loses its device "
                    "first."
                )
            },
            "reset_device": {
                **_STATUS_STORED,
                "text": "Before any memory is freed the device must have stopped using it: 0 in Status.",
                "to": call("access", "free_buffers"),
            },
            "wait_for_reset": None,
            "look_at_reset": None,
            "free_buffers": {"to": goto("buffers_freed")},
            "mask": None,
            "choose_queue": {
                "function": "vm_del_vq",
                "source": VIRTIO_MMIO,
                "spec": "4.2.3.2",
                "to": call("access", "take_ready"),
                "cause": "store to QueueSel",
            },
            "take_vector": None,
            "vector_taken": None,
            "free_queue": {
                "row": "CP.1.13",
                "text": {
                    "more": "The {queue} queue's three parts are freed. Whoever gets that memory next gets it cleared.",
                    "all": "The {queue} queue's three parts are freed. The line's handler goes last.",
                },
                "to": {"more": goto("choose_queue"), "all": goto("free_irq")},
            },
            "bind": {"text": "The name is written to “bind”. What the tables say of the device is known."},
        }
    )

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the queue and what it holds."""
        return {**super().words(me), "loaded": self.loaded}

    @op(
        "CP.1.12",
        "go on to the next queue",
        "free_unused_bufs",
        VIRTIO_NET,
        text={"more": "The next queue.", "all": "No buffer is left in a queue: the queues themselves can go."},
        to={"more": goto("free_buffers"), "all": goto("choose_queue")},
        private=True,
    )
    def buffers_freed(self, me: Context) -> str:
        mine = self.mine
        mine.queue = following = (mine.queue + 1) % self.setup.control
        return "more" if following else "all"

    @op(
        "CP.1.13",
        "say that the queue is not ready",
        "vm_del_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="0 in QueueReady: the {queue} queue is taken out of use.",
        to=call("access", "see_unready"),
        cause="store to QueueReady",
    )
    def take_ready(self, me: Context) -> None:
        self.store_to("QueueReady", 0)

    @op(
        "CP.1.13",
        "see whether the device took it",
        "vm_del_vq",
        VIRTIO_MMIO,
        spec="4.2.3.2",
        text="The queue's memory may be touched again once QueueReady reads 0.",
        to=call("access", "free_queue"),
        cause="load of QueueReady",
    )
    def see_unready(self, me: Context) -> None:
        self.load_from("QueueReady")

    def free_queue(self, me: Context) -> str:
        """Free the queue's memory; answers whether there is another."""
        mine = self.mine
        begin_anew(self.drivers[mine.queue])
        mine.queue = following = (mine.queue + 1) % self.setup.queues
        return "more" if following else "all"

    @op(
        "CP.1.13",
        "take the line's handler away",
        "vm_del_vqs",
        VIRTIO_MMIO,
        text="The line has no handler any more. The device is as it was before any driver came.",
        to=goto("bind"),
        private=True,
    )
    def free_irq(self, me: Context) -> None: ...
