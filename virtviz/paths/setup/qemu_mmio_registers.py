"""QEMU's side of virtio-mmio's registers while a device is set up. Rows CP.0.5 and CP.1.

They are the same registers as on PCI, told apart by their offset alone, and each is 32 bits wide. One thing comes at
another moment: what the driver accepts is only kept until FEATURES_OK, and taken over then, all 64 bits together.

Source: QEMU 10.0 hw/virtio/virtio-mmio.c (virtio_mmio_read, virtio_mmio_write), hw/virtio/virtio-config-io.c.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from virtviz.engine.ops import RETURN, call, call_any, goto, op
from virtviz.paths.setup import mmio_registers as mmio
from virtviz.paths.setup.access import ServeAccess
from virtviz.paths.setup.qemu_control import ServeControl
from virtviz.paths.setup.qemu_registers import CommonLoad, CommonStore, DeviceConfigLoad, ResetDevice
from virtviz.spec.citation import QEMU_VIRTIO, QEMU_VIRTIO_MMIO
from virtviz.spec.setup_sources import QEMU_VIRTIO_CONFIG_IO
from virtviz.spec.virtio_mmio import MAGIC, VENDOR, VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.device_status import DeviceStatus
    from virtviz.paths.virtio_device.device import NetDevice
    from virtviz.ring.rings import QemuRing

NETWORK_CARD: Final = 1
"""What DeviceID says (5.1.1)."""
QUEUE_MAX: Final = 1024
"""What QueueNumMax says of every queue that there is, whatever the device was made with (VIRTQUEUE_MAX_SIZE)."""
MAC_BYTES: Final = 6
_HALF: Final = 0xFFFFFFFF
_SELECTORS: Final = {
    "DeviceFeaturesSel": "device_feature_select",
    "DriverFeaturesSel": "driver_feature_select",
    "QueueSel": "queue_select",
}
"""Register -> what QEMU keeps of it."""
_ADDRESSES: Final = {"QueueDesc": "desc", "QueueDriver": "avail", "QueueDevice": "used"}
"""First part of a register's name -> the address that it is half of."""


class ServeMmioAccess(ServeAccess):
    """QEMU's vCPU thread with an access in its hands."""

    retold = MappingProxyType({"take_lock": {"to": call_any("regions", "release_lock")}})

    def take_lock(self, me: Context) -> str:
        """Take the lock; answers whose registers these are."""
        self.lock.take(me)
        return mmio.region_of(self.setup)


class MmioLoad(CommonLoad):
    """A load from a register."""

    retold = MappingProxyType(
        {"load_register": {"function": "virtio_mmio_read", "source": QEMU_VIRTIO_MMIO, "spec": "4.2.2"}}
    )

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the register and its value."""
        return {**super().words(me), "register": mmio.NAMES[mmio.offset_of(self.setup)]}

    @property
    def offset(self) -> int:
        """Where in the device's registers the access is."""
        return mmio.offset_of(self.setup)

    def _value(self) -> int:
        pci, queue = self.pci, self.pci.queue_select
        name = mmio.NAMES[self.offset]
        if name == "DeviceFeatures":
            return self.setup.process.offered >> 32 * pci.device_feature_select & _HALF
        return {
            "MagicValue": MAGIC,
            "Version": VERSION,
            "DeviceID": NETWORK_CARD,
            "VendorID": VENDOR,
            "Status": pci.device_status,
            "ConfigGeneration": pci.generation,
            "QueueNumMax": QUEUE_MAX if queue < self.setup.queues else 0,
            "QueueReady": pci.enabled[queue % self.setup.queues],
        }[name]


class MmioStore(CommonStore):
    """A store to a register."""

    retold = MappingProxyType(
        {
            "store_register": {
                "function": "virtio_mmio_write",
                "source": QEMU_VIRTIO_MMIO,
                "spec": "4.2.2",
                "text": {
                    "reset": (
                        "0 in Status: the device goes back to how it was made. Whoever serves its queues has to stop."
                    ),
                    "status": "Status is {value} now. The guest only ever adds bits; to clear them it has to reset.",
                    "accepted": (
                        "FEATURES_OK: only now QEMU takes over what the guest accepted, both halves together. The bit "
                        "stays."
                    ),
                    "refused": (
                        "The device insists on a feature that the guest did not accept: it leaves FEATURES_OK clear."
                    ),
                    "live": (
                        "DRIVER_OK: the device is live. Only now does QEMU start the back-end, in here, while the "
                        "guest waits."
                    ),
                    "features": "QEMU keeps these features, {value}, until the guest says FEATURES_OK.",
                    "queue": "{register} of queue {queue}, {which}: {value}.",
                    "select": "{register} is {value}: it says what the registers behind it mean.",
                },
                "to": {
                    "reset": call("reset", None),
                    "status": RETURN,
                    "accepted": call("follow_guest", None),
                    "refused": call("follow_guest", None),
                    "live": call("start", None),
                    "features": RETURN,
                    "queue": RETURN,
                    "select": RETURN,
                },
            }
        }
    )

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the register and its value."""
        return {**super().words(me), "register": mmio.NAMES[mmio.offset_of(self.setup)]}

    def store_register(self, me: Context) -> str:
        """Store it; answers what kind of register it was."""
        pci, value = self.pci, self.setup.run.data
        name = mmio.NAMES[mmio.offset_of(self.setup)]
        if name == "Status":
            return self._status(value)
        if name == "DriverFeatures":
            pci.driver_feature[pci.driver_feature_select] = value
            return "features"
        if name in _SELECTORS:
            setattr(pci, _SELECTORS[name], value)
            return "select"
        self._queue_register(name, value, pci.queue_select)
        return "queue"

    def _queue_register(self, name: str, value: int, queue: int) -> None:
        pci = self.pci
        if name == "QueueNum":
            pci.size[queue] = value
        elif name == "QueueReady":
            pci.enabled[queue] = value
        else:
            half = int(name.endswith("High"))
            addresses = getattr(pci, _ADDRESSES[name.removesuffix("High").removesuffix("Low")])
            kept = addresses[queue] & (_HALF if half else _HALF << 32)
            addresses[queue] = kept | value << 32 * half


class ResetMmioDevice(ResetDevice):
    """The device goes back to how it was made, after its back-end was stopped.

    Attributes:
        status: the device's InterruptStatus; set by the wiring.
        line: what computes the line anew; set by the wiring.
    """

    status: DeviceStatus
    line: Routine

    retold = MappingProxyType(
        {
            "clear_registers": {
                "function": "virtio_mmio_soft_reset",
                "source": QEMU_VIRTIO_MMIO,
                "text": (
                    "Status, features and queues are as they were at power-on, and InterruptStatus is 0, whatever was "
                    "in it. So the line is to be low."
                ),
                "to": call("line", None),
            }
        }
    )

    def clear_registers(self, me: Context) -> None:
        """Clear them, and what the device wanted to interrupt for."""
        super().clear_registers(me)
        if self.status.cells.isr:
            self.status.cells.isr = 0


class MmioConfigLoad(DeviceConfigLoad):
    """A load from the device's own configuration: its address, its link."""

    retold = MappingProxyType(
        {"load_config": {"function": "virtio_config_modern_readb", "source": QEMU_VIRTIO_CONFIG_IO}}
    )

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the field."""
        at = mmio.offset_of(self.setup) - mmio.CONFIG
        field = f"byte {at} of the MAC address" if at < MAC_BYTES else "the link's status"
        return {"field": field, "value": f"{self.setup.run.data:#x}"}

    def load_config(self, me: Context) -> None:
        """Answer from it."""
        run = self.setup.run
        at = mmio.offset_of(self.setup) - mmio.CONFIG
        run.data = int.from_bytes(self.setup.net_config()[at : at + run.length], "little")


class ServeControlByLine(ServeControl):
    """Commands of the control queue, of which the driver may be told by the device's line.

    On PCI the control queue has no vector, and so nothing to interrupt with. Here the line is every queue's: the
    driver wants no interrupt of this one, but with event indices it has no way to say never, and the first command
    comes just where `used_event` points.

    Args:
        interrupt: sets InterruptStatus, and raises the line.
    """

    interrupt: Routine
    retold = MappingProxyType(
        {
            "find_queue": {"function": "virtio_mmio_write", "source": QEMU_VIRTIO_MMIO, "spec": "4.2.3.3"},
            "publish_used": {"text": "From now on the driver can see that it is done.", "to": goto("ask_interrupt")},
        }
    )

    def __init__(
        self,
        state: State,
        name: str,
        place: Place,
        device: NetDevice,
        ring: QemuRing,
        interrupt: Routine,
        who: str = "the vCPU's thread",
    ) -> None:
        super().__init__(state, name, place, device, ring, who)
        self.asked = ring
        self.interrupt = interrupt

    @op(
        "CP.4.4",
        "ask whether an interrupt is wanted",
        "virtio_split_should_notify",
        QEMU_VIRTIO,
        spec="2.7.7.2",
        text={
            "interrupt": (
                "used_event points at this very entry: it is 0 from the beginning. So the line is raised, although "
                "nobody waits for it."
            ),
            "no interrupt": "The driver wants no interrupt: it polls.",
        },
        to={"interrupt": call("interrupt", "pop"), "no interrupt": goto("pop")},
    )
    def ask_interrupt(self, me: Context) -> str:
        return "interrupt" if self.asked.interrupt_wanted() else "no interrupt"
