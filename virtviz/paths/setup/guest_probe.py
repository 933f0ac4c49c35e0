"""The guest's virtio drivers set the device up: reset, status, features, queues and DRIVER_OK. Rows CP.1.

What is done to one queue, and to the MSI-X table, is in `guest_queues.py`.

Source: virtio 1.4, 3.1.1; Linux 6.12 drivers/virtio/virtio.c (register_virtio_device, virtio_dev_probe,
virtio_features_ok), drivers/virtio/virtio_pci_modern.c (vp_reset, vp_get_features, vp_finalize_features),
drivers/net/virtio_net.c (virtnet_probe); the order of the stores is that of the recording setup-vhost.txt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, block, call, goto, op
from virtviz.paths.setup import features
from virtviz.paths.setup import registers as reg
from virtviz.spec.citation import VIRTIO_NET
from virtviz.spec.setup_sources import VIRTIO_CORE, VIRTIO_PCI_MODERN, VIRTIO_PCI_MODERN_DEV
from virtviz.spec.virtio import (
    VIRTIO_CONFIG_S_ACKNOWLEDGE,
    VIRTIO_CONFIG_S_DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.state import SetUp

_HALF = 0xFFFFFFFF


class ProbeRoutine(Routine):
    """A part of the guest's drivers that loads and stores registers.

    Args:
        access: what a load or store leads to.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, access: Routine) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.mine = setup.probe
        self.cpus = setup.cpus
        self.access = access

    def store(self, field: int, value: int, size: int) -> None:
        """Store to a field of the common configuration."""
        reg.store(self.setup, self.mine.common + field, value, size)

    def load(self, field: int, size: int) -> None:
        """Load a field of the common configuration."""
        reg.load(self.setup, self.mine.common + field, size)

    @property
    def queues_in_all(self) -> int:
        """How many queues driver and device have: two for each pair, and the control queue."""
        return 2 * self.cpus.pairs + 1

    @property
    def control(self) -> int:
        """The control queue's number."""
        return 2 * self.cpus.pairs

    @property
    def loaded(self) -> int:
        """What the last load brought."""
        return self.setup.access.value


class Probe(ProbeRoutine):
    """From the reset to DRIVER_OK.

    Args:
        knows: features that the driver knows.
        queues: sets up interrupts and queues.
        open_device: brings the interface up.
    """

    first = "reset_device"

    def __init__(
        self, name: str, place: Place, setup: SetUp, access: Routine, *, knows: int, queues: Routine, onward: Routine
    ) -> None:
        super().__init__(name, place, setup, access)
        self.knows = knows
        self.queues = queues
        self.onward = onward

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what the texts speak of."""
        mine = self.mine
        return {
            "status": f"{self.loaded:#x}",
            "offered": f"{mine.offered:#x}",
            "wanted": f"{mine.wanted:#x}",
            "left": features.names_of(mine.offered & ~mine.wanted) or "none",
            "window": self.setup.pci.device_feature_select,
            "byte": mine.byte,
            "mac": ":".join(f"{mine.mac >> 8 * (5 - at) & 0xFF:02x}" for at in range(6)),
        }

    # Reset and the first two bits

    @op(
        "CP.1.1",
        "reset the device",
        "vp_reset",
        VIRTIO_PCI_MODERN,
        spec="2.4.2",
        text=(
            "Nobody knows in which state firmware left the device: the driver begins with 0 in device_status, a reset."
        ),
        to=call("access", "wait_for_reset"),
        cause="store to device_status",
    )
    def reset_device(self, me: Context) -> None:
        self.store(reg.DEVICE_STATUS, 0, 1)

    @op(
        "CP.1.1",
        "wait for the reset",
        "vp_reset",
        VIRTIO_PCI_MODERN,
        spec="2.4.2",
        text="The reset is done once device_status reads 0, and not before.",
        to=call("access", "look_at_reset"),
        cause="load of device_status",
    )
    def wait_for_reset(self, me: Context) -> None:
        self.load(reg.DEVICE_STATUS, 1)

    @op(
        "CP.1.1",
        "see whether it is reset",
        "vp_reset",
        VIRTIO_PCI_MODERN,
        spec="2.4.2",
        text={"reset": "It reads 0: the device is as it was made.", "not yet": "Not yet: the driver asks again."},
        to={"reset": goto("acknowledge"), "not yet": goto("wait_for_reset")},
        private=True,
    )
    def look_at_reset(self, me: Context) -> str:
        return "not yet" if self.loaded else "reset"

    @op(
        "CP.1.2",
        "acknowledge the device",
        "register_virtio_device",
        VIRTIO_CORE,
        spec="2.1",
        text="ACKNOWLEDGE (1): the guest has noticed the device.",
        to=call("access", "read_status_for_driver"),
        cause="store to device_status",
    )
    def acknowledge(self, me: Context) -> None:
        self.store(reg.DEVICE_STATUS, self.loaded | VIRTIO_CONFIG_S_ACKNOWLEDGE, 1)

    @op(
        "CP.1.3",
        "read the status",
        "virtio_add_status",
        VIRTIO_CORE,
        spec="2.1",
        text="A driver may only add bits to device_status, so it reads what is there first.",
        to=call("access", "say_driver"),
        cause="load of device_status",
    )
    def read_status_for_driver(self, me: Context) -> None:
        self.load(reg.DEVICE_STATUS, 1)

    @op(
        "CP.1.3",
        "say that there is a driver",
        "virtio_dev_probe",
        VIRTIO_CORE,
        spec="2.1",
        text="DRIVER (2): virtio_net knows how to drive it.",
        to=call("access", "select_offer"),
        cause="store to device_status",
    )
    def say_driver(self, me: Context) -> None:
        self.mine.entry = 0
        self.store(reg.DEVICE_STATUS, self.loaded | VIRTIO_CONFIG_S_DRIVER, 1)

    # Features

    @op(
        "CP.1.4",
        "choose a window of the offer",
        "vp_modern_get_features",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4.3",
        text="64 feature bits and more are read through a window of 32: first choose which.",
        to=call("access", "read_offer"),
        cause="store to device_feature_select",
    )
    def select_offer(self, me: Context) -> None:
        self.store(reg.DEVICE_FEATURE_SELECT, self.mine.entry, 4)

    @op(
        "CP.1.4",
        "read what the device offers",
        "vp_modern_get_features",
        VIRTIO_PCI_MODERN_DEV,
        spec="2.2",
        text="What does the device offer in this window?",
        to=call("access", "note_offer"),
        cause="load of device_feature",
    )
    def read_offer(self, me: Context) -> None:
        self.load(reg.DEVICE_FEATURE, 4)

    @op(
        "CP.1.4",
        {"more": "note the window", "": "accept what the driver knows"},
        "virtio_dev_probe",
        VIRTIO_CORE,
        spec="2.2",
        text={
            "more": "The lower 32 bits are known; the upper ones are next.",
            "all": "Offered: {offered}. The driver accepts what it knows of that: {wanted}. Bits left out: {left}.",
        },
        to={"more": goto("select_offer"), "all": goto("select_answer")},
    )
    def note_offer(self, me: Context) -> str:
        mine = self.mine
        if not mine.entry:
            mine.offered = self.loaded
            mine.entry = 1
            return "more"
        mine.offered |= self.loaded << 32
        mine.wanted = features.without_unmet(mine.offered & self.knows)
        mine.entry = 0
        return "all"

    @op(
        "CP.1.4",
        "choose a window of the answer",
        "vp_modern_set_features",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4.3",
        text="The answer goes through a window as well.",
        to=call("access", "write_answer"),
        cause="store to driver_feature_select",
    )
    def select_answer(self, me: Context) -> None:
        self.store(reg.DRIVER_FEATURE_SELECT, self.mine.entry, 4)

    @op(
        "CP.1.4",
        "write what the driver accepts",
        "vp_modern_set_features",
        VIRTIO_PCI_MODERN_DEV,
        spec="2.2.1",
        text="What the driver accepts of this window: never a bit that was not offered.",
        to=call("access", "is_answer_complete"),
        cause="store to driver_feature",
    )
    def write_answer(self, me: Context) -> None:
        mine = self.mine
        self.store(reg.DRIVER_FEATURE, mine.wanted >> 32 * mine.entry & _HALF, 4)
        mine.entry += 1

    @op(
        "CP.1.4",
        "see whether the answer is complete",
        "vp_finalize_features",
        VIRTIO_PCI_MODERN,
        spec="2.2",
        text={"more": "The upper 32 bits are next.", "all": "The answer is complete. Is the device content with it?"},
        to={"more": goto("select_answer"), "all": goto("read_status_for_features")},
        private=True,
    )
    def is_answer_complete(self, me: Context) -> str:
        return "more" if self.mine.entry == 1 else "all"

    @op(
        "CP.1.5",
        "read the status",
        "virtio_add_status",
        VIRTIO_CORE,
        spec="2.1",
        text="Again the present bits are read first.",
        to=call("access", "say_features_ok"),
        cause="load of device_status",
    )
    def read_status_for_features(self, me: Context) -> None:
        self.load(reg.DEVICE_STATUS, 1)

    @op(
        "CP.1.5",
        "say that the features are chosen",
        "virtio_features_ok",
        VIRTIO_CORE,
        spec="3.1.1",
        text="FEATURES_OK (8): the driver will accept no other features from now on.",
        to=call("access", "read_answer_of_device"),
        cause="store to device_status",
    )
    def say_features_ok(self, me: Context) -> None:
        self.store(reg.DEVICE_STATUS, self.loaded | VIRTIO_CONFIG_S_FEATURES_OK, 1)

    @op(
        "CP.1.5",
        "read the status again",
        "virtio_features_ok",
        VIRTIO_CORE,
        spec="3.1.1",
        text="If the device cannot work with this choice it has left the bit clear: only another look can tell.",
        to=call("access", "look_at_answer"),
        cause="load of device_status",
    )
    def read_answer_of_device(self, me: Context) -> None:
        self.load(reg.DEVICE_STATUS, 1)

    @op(
        "CP.1.5",
        {"agreed": "see that the device agrees", "refused": "see that the device refuses"},
        "virtio_features_ok",
        VIRTIO_CORE,
        spec="3.1.1",
        text={
            "agreed": "FEATURES_OK is still set: driver and device agree on {wanted}, whatever they will be used for.",
            "refused": (
                "FEATURES_OK is clear again: the device refuses what the driver chose. Linux: “device refuses "
                "features”."
            ),
        },
        to={"agreed": goto("read_generation"), "refused": goto("say_failed")},
    )
    def look_at_answer(self, me: Context) -> str:
        return "agreed" if self.loaded & VIRTIO_CONFIG_S_FEATURES_OK else "refused"

    @op(
        "CP.1.9",
        "give the device up",
        "virtio_add_status",
        VIRTIO_CORE,
        spec="2.1",
        text="FAILED (128): the driver has given up. It could only begin again, with a reset.",
        to=call("access", "go_without"),
        cause="store to device_status",
    )
    def say_failed(self, me: Context) -> None:
        self.mine.failed = 1
        self.store(reg.DEVICE_STATUS, self.loaded | VIRTIO_CONFIG_S_FAILED, 1)

    @op(
        "CP.1.9",
        "go on without a network",
        "virtio_dev_probe",
        VIRTIO_CORE,
        text={
            "sleep": "The guest has no network card. Nothing else is wrong with it, and nobody on the host is told.",
        },
        to={"sleep": block("go_without")},
    )
    def go_without(self, me: Context) -> str:
        return "sleep"

    # virtio-net's own part

    @op(
        "CP.1.6",
        "read the configuration's version",
        "virtio_cread_bytes",
        VIRTIO_NET,
        spec="2.5.3",
        text="The address is read byte by byte. Should the device change it meanwhile, its version number will tell.",
        to=call("access", "read_mac"),
        cause="load of config_generation",
    )
    def read_generation(self, me: Context) -> None:
        self.mine.byte = self.mine.mac = 0
        self.load(reg.CONFIG_GENERATION, 1)

    @op(
        "CP.1.6",
        "read a byte of the address",
        "virtio_cread_bytes",
        VIRTIO_NET,
        spec="5.1.4",
        text="Byte {byte} of the MAC address.",
        to=call("access", "note_mac"),
        cause="load of the device's configuration",
    )
    def read_mac(self, me: Context) -> None:
        reg.load(self.setup, self.mine.device + self.mine.byte, 1)

    @op(
        "CP.1.6",
        "note the byte",
        "virtio_cread_bytes",
        VIRTIO_NET,
        spec="5.1.4",
        text={"more": "The next byte.", "all": "The card's address is {mac}."},
        to={"more": goto("read_mac"), "all": goto("read_generation_again")},
        private=True,
    )
    def note_mac(self, me: Context) -> str:
        mine = self.mine
        mine.mac = mine.mac << 8 | self.loaded
        mine.byte += 1
        return "more" if mine.byte < 6 else "all"

    @op(
        "CP.1.6",
        "read the version once more",
        "virtio_cread_bytes",
        VIRTIO_NET,
        spec="2.5.3",
        text="Is it still the same version? Then what was read belongs together.",
        to=call("access", "set_queues_up"),
        cause="load of config_generation",
    )
    def read_generation_again(self, me: Context) -> None:
        self.load(reg.CONFIG_GENERATION, 1)

    @op(
        "CP.1.6",
        "set the queues up",
        "init_vqs",
        VIRTIO_NET,
        spec="3.1.1",
        text="Now the queues: receive, transmit and control, each with memory, an interrupt and a notify address.",
        to=call("queues", "read_status_to_start"),
        private=True,
    )
    def set_queues_up(self, me: Context) -> None: ...

    @op(
        "CP.1.7",
        "read the status",
        "virtio_device_ready",
        VIRTIO_NET,
        spec="2.1",
        text="Queues and interface are ready. Once more the present bits are read first.",
        to=call("access", "say_driver_ok"),
        cause="load of device_status",
    )
    def read_status_to_start(self, me: Context) -> None:
        self.load(reg.DEVICE_STATUS, 1)

    @op(
        "CP.1.7",
        "say that the driver is ready",
        "virtio_device_ready",
        VIRTIO_NET,
        spec="3.1.1",
        text=(
            "DRIVER_OK (4): one store of one byte. The whole start of the back-end happens inside it, while this CPU "
            "waits."
        ),
        to=call("access", "read_link"),
        cause="store to device_status",
        fence=True,
    )
    def say_driver_ok(self, me: Context) -> None:
        self.store(reg.DEVICE_STATUS, self.loaded | VIRTIO_CONFIG_S_DRIVER_OK, 1)

    @op(
        "CP.1.8",
        "read the link's status",
        "virtnet_config_changed_work",
        VIRTIO_NET,
        spec="5.1.4",
        text="Is the cable plugged in? The device's configuration says so, if STATUS was accepted.",
        to=call("access", "link_is_up"),
        cause="load of the device's configuration",
    )
    def read_link(self, me: Context) -> None:
        reg.load(self.setup, self.mine.device + 6, 2)

    @op(
        "CP.1.8",
        "note the link",
        "virtnet_config_changed_work",
        VIRTIO_NET,
        spec="5.1.5",
        text="The link is up. The network card is there for the guest; ndo_open comes when somebody brings it up.",
        to=goto("onward"),
    )
    def link_is_up(self, me: Context) -> None: ...
