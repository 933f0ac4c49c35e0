"""QEMU's side of the device's registers: what each load and store does, on the vCPU's thread. Rows CP.0.5.

Source: QEMU 10.0 hw/virtio/virtio-pci.c (virtio_pci_common_read, virtio_pci_common_write, virtio_pci_device_read),
hw/virtio/virtio.c (virtio_set_status, virtio_validate_features, virtio_reset), hw/pci/msix.c, hw/pci/pci_host.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.setup import registers as reg
from virtviz.paths.setup.state import NO_VECTOR
from virtviz.ring.rings import restart
from virtviz.spec.citation import QEMU_VIRTIO, QEMU_VIRTIO_NET, QEMU_VIRTIO_PCI
from virtviz.spec.setup_sources import QEMU_MSIX, QEMU_PCI_HOST
from virtviz.spec.virtio import (
    VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK,
    Feature,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.state import SetUp
    from virtviz.paths.virtio_device.device import NetDevice

_ADDRESSES: Final = {
    reg.QUEUE_DESC: "desc",
    reg.QUEUE_DRIVER: "avail",
    reg.QUEUE_DEVICE: "used",
}
_HALF: Final = 0xFFFFFFFF


class _Registers(Routine):
    """A routine of QEMU's about registers."""

    def __init__(self, name: str, place: Place, setup: SetUp) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.pci = setup.pci

    @property
    def offset(self) -> int:
        """Where in the common configuration the access is."""
        return self.setup.run.address - reg.BAR4

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the register and its value."""
        run, queue = self.setup.run, self.pci.queue_select
        return {
            "register": reg.COMMON_NAMES.get(self.offset, "register"),
            "value": f"{run.data:#x}",
            "queue": queue,
            "which": f"the {self.setup.queue_name(queue)} queue",
        }


class CommonLoad(_Registers):
    """A load from the common configuration."""

    @op(
        "CP.0.5",
        "answer what the register holds",
        "virtio_pci_common_read",
        QEMU_VIRTIO_PCI,
        spec="4.1.4.3",
        text="The guest reads {register}: QEMU answers {value}.",
        to=RETURN,
    )
    def load_register(self, me: Context) -> None:
        self.setup.run.data = self._value()

    def _value(self) -> int:
        pci, offset = self.pci, self.offset
        queue = pci.queue_select
        if offset == reg.DEVICE_FEATURE:
            return self.setup.process.offered >> 32 * pci.device_feature_select & _HALF
        if offset == reg.QUEUE_SIZE:
            return pci.size[queue] if queue < self.setup.queues else 0
        if offset == reg.QUEUE_MSIX_VECTOR:
            return pci.vector[queue]
        if offset == reg.QUEUE_NOTIFY_OFF:
            return queue
        return {
            reg.NUM_QUEUES: self.setup.queues,
            reg.DEVICE_STATUS: pci.device_status,
            reg.CONFIG_GENERATION: pci.generation,
            reg.QUEUE_ENABLE: pci.enabled[queue],
            reg.CONFIG_MSIX_VECTOR: pci.config_msix_vector,
        }[offset]


class CommonStore(_Registers):
    """A store to the common configuration.

    Args:
        follow_guest: adjusts the TAP to accepted features.
        start: starts the back-end.
        reset: brings the device back to how it was made.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        follow_guest: Routine,
        start: Routine,
        reset: Routine,
    ) -> None:
        super().__init__(name, place, setup)
        self.follow_guest = follow_guest
        self.start = start
        self.reset = reset

    @op(
        {
            "reset": "CP.1.1",
            "status": "CP.1.2",
            "accepted": "CP.1.5",
            "refused": "CP.1.5",
            "live": "CP.1.7",
            "": "CP.0.5",
        },
        {
            "reset": "reset the device",
            "accepted": "agree to the features",
            "refused": "refuse the features",
            "live": "start the device",
            "": "store the register",
        },
        "virtio_pci_common_write",
        QEMU_VIRTIO_PCI,
        spec="4.1.4.3",
        text={
            "reset": (
                "0 in device_status: the device goes back to how it was made. Whoever serves its queues has to stop."
            ),
            "status": "device_status is {value} now. The guest only ever adds bits; to clear them it has to reset.",
            "accepted": "FEATURES_OK: the device can work with what the guest accepted. The bit stays.",
            "refused": "The device insists on a feature that the guest did not accept: it leaves FEATURES_OK clear.",
            "live": (
                "DRIVER_OK: the device is live. Only now does QEMU start the back-end, in here, while the guest waits."
            ),
            "features": (
                "Of this window the guest accepts {value}. What these features mean outside the device is done at once."
            ),
            "queue": "{register} of queue {queue}, {which}: {value}.",
            "select": "{register} is {value}: it says what the registers behind it mean.",
            "vector": "{register} is {value}: the MSI-X entry by which a change of the configuration interrupts.",
        },
        to={
            "reset": call("reset", None),
            "status": RETURN,
            "accepted": RETURN,
            "refused": RETURN,
            "live": call("start", None),
            "features": call("follow_guest", None),
            "queue": RETURN,
            "select": RETURN,
            "vector": RETURN,
        },
    )
    def store_register(self, me: Context) -> str:
        pci, value, offset = self.pci, self.setup.run.data, self.offset
        if offset == reg.DEVICE_STATUS:
            return self._status(value)
        if offset == reg.DRIVER_FEATURE:
            pci.driver_feature[pci.driver_feature_select] = value
            return "features"
        if offset in (
            reg.DEVICE_FEATURE_SELECT,
            reg.DRIVER_FEATURE_SELECT,
            reg.QUEUE_SELECT,
            reg.CONFIG_MSIX_VECTOR,
        ):
            setattr(pci, reg.COMMON_NAMES[offset], value)
            return "vector" if offset == reg.CONFIG_MSIX_VECTOR else "select"
        self._queue(offset, value, pci.queue_select)
        return "queue"

    def _status(self, value: int) -> str:
        pci = self.pci
        if not value:
            return "reset"
        added = value & ~pci.device_status
        if added & VIRTIO_CONFIG_S_FEATURES_OK:
            demanded = self.setup.process.offered >> Feature.F_ACCESS_PLATFORM & 1
            if demanded and not self.setup.driver_features >> Feature.F_ACCESS_PLATFORM & 1:
                pci.device_status = value & ~VIRTIO_CONFIG_S_FEATURES_OK
                return "refused"
        pci.device_status = value
        if added & VIRTIO_CONFIG_S_DRIVER_OK:
            return "live"
        return "accepted" if added & VIRTIO_CONFIG_S_FEATURES_OK else "status"

    def _queue(self, offset: int, value: int, queue: int) -> None:
        pci = self.pci
        if offset == reg.QUEUE_SIZE:
            pci.size[queue] = value
        elif offset == reg.QUEUE_MSIX_VECTOR:
            pci.vector[queue] = value
        elif offset == reg.QUEUE_ENABLE:
            pci.enabled[queue] = value
        else:
            half = offset % 8 // 4
            addresses = getattr(pci, _ADDRESSES[offset - 4 * half])
            kept = addresses[queue] & (_HALF if half else _HALF << 32)
            addresses[queue] = kept | value << 32 * half


class ResetDevice(_Registers):
    """The device goes back to how it was made, after its back-end was stopped.

    Args:
        stop: stops the back-end, if it runs.
        after_reset: adjusts the TAP to a device without features.
        device: what commands have changed.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        stop: Routine,
        after_reset: Routine,
        device: NetDevice,
    ) -> None:
        super().__init__(name, place, setup)
        self.device = device
        self.stop = stop
        self.after_reset = after_reset

    @op(
        "CP.1.1",
        "stop the back-end",
        "virtio_net_set_status",
        QEMU_VIRTIO_NET,
        spec="2.4.1",
        text={
            "stop": "The back-end serves the queues: it has to stop before the guest may touch their memory.",
            "idle": "No back-end serves the queues: nothing to stop.",
        },
        to={"stop": call("stop", "adjust_tap"), "idle": goto("adjust_tap")},
    )
    def stop_backend(self, me: Context) -> str:
        # The features are gone first: what follows adjusts the TAP to a device without any.
        for window, value in enumerate(self.pci.driver_feature):
            if value:
                self.pci.driver_feature[window] = 0
        return "stop" if self.setup.process.started else "idle"

    @op(
        "CP.1.1",
        "adjust the TAP to no features",
        "virtio_net_reset",
        QEMU_VIRTIO_NET,
        text="A device without accepted features has the short header and no offload, and the TAP has to know.",
        to=call("after_reset", "clear_registers"),
        private=True,
    )
    def adjust_tap(self, me: Context) -> None: ...

    @op(
        "CP.1.1",
        "clear the registers",
        "virtio_reset",
        QEMU_VIRTIO,
        spec="2.4.1",
        text=(
            "Status, features, queues and vectors are as they were at power-on. The next load of device_status gives 0."
        ),
        to=RETURN,
    )
    def clear_registers(self, me: Context) -> None:
        pci = self.pci
        pci.device_status = 0
        pci.config_msix_vector = NO_VECTOR
        pci.device_feature_select = pci.driver_feature_select = pci.queue_select = 0
        pci.isr = 0
        for queue in range(self.setup.queues):
            pci.size[queue] = self.setup.layouts[queue].size
            pci.enabled[queue] = 0
            pci.vector[queue] = NO_VECTOR
            pci.desc[queue] = pci.avail[queue] = pci.used[queue] = 0
            self.setup.process.base[queue] = self.setup.first_base
        self.device.reset()
        if self.setup.process.failed or not self.setup.vhosts[0].owner:
            # Whoever vhost belongs to, the rings were QEMU's own to serve.
            for ring in self.setup.device_rings:
                restart(ring)


class DeviceConfigLoad(_Registers):
    """A load from the device's own configuration: its address, its link.

    Args:
        content: gives the configuration's bytes.
    """

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the field."""
        at = self.setup.run.address - reg.BAR4 - reg.DEVICE
        field = f"byte {at} of the MAC address" if at < 6 else "the link's status" if at < 8 else "max_virtqueue_pairs"
        return {"field": field, "value": f"{self.setup.run.data:#x}"}

    @op(
        "CP.0.5",
        "answer from the device's configuration",
        "virtio_pci_device_read",
        QEMU_VIRTIO_PCI,
        spec="5.1.4",
        text="The guest reads {field}: QEMU answers {value}.",
        to=RETURN,
    )
    def load_config(self, me: Context) -> None:
        run = self.setup.run
        at = run.address - reg.BAR4 - reg.DEVICE
        run.data = int.from_bytes(self.setup.net_config()[at : at + run.length], "little")


class MsixStore(_Registers):
    """A store to the MSI-X table."""

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the word."""
        word, run = (self.setup.run.address - reg.BAR1) // 4, self.setup.run
        return {
            "entry": word // 4,
            "word": ("address", "upper address", "data", "control")[word % 4],
            "value": f"{run.data:#x}",
        }

    @op(
        "CP.0.5",
        "store into the MSI-X table",
        "msix_table_mmio_write",
        QEMU_MSIX,
        text=(
            "Entry {entry} of the MSI-X table gets its {word}: {value}. QEMU emulates the table; KVM has not seen it "
            "yet."
        ),
        to=RETURN,
    )
    def store_msix(self, me: Context) -> None:
        self.pci.table[(self.setup.run.address - reg.BAR1) // 4] = self.setup.run.data


class ConfigLoad(_Registers):
    """A load from the configuration space."""

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the offset."""
        run = self.setup.run
        return {"offset": f"{run.config_address & 0xFC:#04x}", "value": f"{run.data:#x}"}

    def _at(self) -> int:
        """Say where it is; which bytes of the word is said by the port that was used."""
        run = self.setup.run
        return (run.config_address & 0xFC) + run.address - reg.CONFIG_DATA

    @op(
        "CP.2.3",
        "answer from the configuration space",
        "pci_data_read",
        QEMU_PCI_HOST,
        spec="4.1.4",
        text="The word at {offset} of the function's configuration space is {value}.",
        to=RETURN,
    )
    def access_config(self, me: Context) -> None:
        run = self.setup.run
        run.data = int.from_bytes(self.setup.config.read(self._at(), run.length), "little")


class ConfigStore(ConfigLoad):
    """A store to the configuration space."""

    retold: ClassVar = {
        "access_config": {
            "title": "store into the configuration space",
            "function": "pci_data_write",
            "text": "The word at {offset} of the function's configuration space is set to {value}.",
        }
    }

    def access_config(self, me: Context) -> None:
        """Store what the guest stores."""
        run = self.setup.run
        self.setup.config.write(self._at(), run.data.to_bytes(run.length, "little"))
