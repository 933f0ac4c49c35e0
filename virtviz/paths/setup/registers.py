"""Where the registers of a virtio device on the PCI bus lie, and how a driver stores to and loads from them.

Source: virtio 1.4, 4.1.4 (capabilities, common configuration); QEMU 10.0 hw/virtio/virtio-pci.c, which puts the four
structures into BAR 4 at 0, 0x1000, 0x2000 and 0x3000, and the MSI-X table into BAR 1.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtviz.engine.memory import Region
    from virtviz.paths.setup.state import SetUp

BAR0, BAR1, BAR4 = 0xC040, 0xFEBFB000, 0xFEBFC000
"""Where firmware put the legacy registers (ports), the MSI-X table and the four structures; BAR 4 as recorded."""
ISR, DEVICE, NOTIFY = 0x1000, 0x2000, 0x3000
"""Offsets of the structures behind the common configuration."""
MULTIPLIER: Final = 4
CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC
"""Ports through which a PC's configuration space is reached."""

DEVICE_FEATURE_SELECT, DEVICE_FEATURE, DRIVER_FEATURE_SELECT, DRIVER_FEATURE = 0, 4, 8, 12
CONFIG_MSIX_VECTOR, NUM_QUEUES, DEVICE_STATUS, CONFIG_GENERATION, QUEUE_SELECT = 16, 18, 20, 21, 22
QUEUE_SIZE, QUEUE_MSIX_VECTOR, QUEUE_ENABLE, QUEUE_NOTIFY_OFF = 24, 26, 28, 30
QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE = 32, 40, 48

COMMON_NAMES: Final = {
    DEVICE_FEATURE_SELECT: "device_feature_select",
    DEVICE_FEATURE: "device_feature",
    DRIVER_FEATURE_SELECT: "driver_feature_select",
    DRIVER_FEATURE: "driver_feature",
    CONFIG_MSIX_VECTOR: "config_msix_vector",
    NUM_QUEUES: "num_queues",
    DEVICE_STATUS: "device_status",
    CONFIG_GENERATION: "config_generation",
    QUEUE_SELECT: "queue_select",
    QUEUE_SIZE: "queue_size",
    QUEUE_MSIX_VECTOR: "queue_msix_vector",
    QUEUE_ENABLE: "queue_enable",
    QUEUE_NOTIFY_OFF: "queue_notify_off",
    QUEUE_DESC: "queue_desc_lo",
    QUEUE_DESC + 4: "queue_desc_hi",
    QUEUE_DRIVER: "queue_driver(avail)_lo",
    QUEUE_DRIVER + 4: "queue_driver(avail)_hi",
    QUEUE_DEVICE: "queue_device(used)_lo",
    QUEUE_DEVICE + 4: "queue_device(used)_hi",
}
"""Offset in the common configuration -> the field (4.1.4.3); the 64-bit ones are stored in two halves."""

VENDOR, DEVICE_ID, CAP_VENDOR, CAP_MSIX = 0x1AF4, 0x1000, 0x09, 0x11
CFG_COMMON, CFG_NOTIFY, CFG_ISR, CFG_DEVICE, CFG_PCI = 1, 2, 3, 4, 5
_CAPABILITY: Final = struct.Struct("<BBBBBBHII")
"""cap_vndr, cap_next, cap_len, cfg_type, bar, id, padding, offset, length (4.1.4)."""
FIRST_CAPABILITY: Final = 0x98


def fill_config_space(config: Region, entries: int) -> None:
    """Write what QEMU's device says of itself into a PCI function's configuration space of 256 bytes.

    Capabilities are put at the head of the list, so the one made first comes last.

    Args:
        config: the configuration space.
        entries: entries of the MSI-X table.
    """

    def write(offset: int, data: bytes) -> None:
        for at in range(0, len(data), 2):
            config.plain_u16[(offset + at) // 2] = int.from_bytes(data[at : at + 2], "little")

    write(0, struct.pack("<HHHH", VENDOR, DEVICE_ID, 0, 0x0010))
    for number, bar in ((0, BAR0 | 1), (1, BAR1), (4, BAR4 | 0xC)):
        write(0x10 + 4 * number, struct.pack("<I", bar))
    write(0x34, struct.pack("<H", FIRST_CAPABILITY))
    write(0x98, struct.pack("<BBHII", CAP_MSIX, 0x84, entries - 1, 1, 0x800 | 1))
    for at, following, cfg_type, offset, length in (
        (0x84, 0x70, CFG_PCI, 0, 0),
        (0x70, 0x60, CFG_NOTIFY, NOTIFY, 0x1000),
        (0x60, 0x50, CFG_DEVICE, DEVICE, 0x1000),
        (0x50, 0x40, CFG_ISR, ISR, 0x1000),
        (0x40, 0, CFG_COMMON, 0, 0x1000),
    ):
        cap_bytes = 20 if cfg_type in (CFG_NOTIFY, CFG_PCI) else 16
        bar = 0 if cfg_type == CFG_PCI else 4
        write(at, _CAPABILITY.pack(CAP_VENDOR, following, cap_bytes, cfg_type, bar, 0, 0, offset, length))
    write(0x70 + 16, struct.pack("<I", MULTIPLIER))


def store(setup: SetUp, address: int, value: int, size: int) -> None:
    """Be the guest's CPU at a store to a device register."""
    access = setup.access
    access.address, access.value, access.size = address, value, size
    access.is_write, access.is_port = 1, 0


def load(setup: SetUp, address: int, size: int) -> None:
    """Be the guest's CPU at a load from a device register; what it brings is in `access.value` afterwards."""
    access = setup.access
    access.address, access.size = address, size
    access.is_write = access.is_port = 0


def store_port(setup: SetUp, port: int, value: int, size: int) -> None:
    """Be the guest's CPU at an `out` instruction."""
    store(setup, port, value, size)
    setup.access.is_port = 1


def load_port(setup: SetUp, port: int, size: int) -> None:
    """Be the guest's CPU at an `in` instruction."""
    load(setup, port, size)
    setup.access.is_port = 1


def region_of(setup: SetUp) -> str:
    """Name the registers that the access in `kvm_run` is about."""
    run = setup.run
    if run.is_port:
        return "configuration store" if run.is_write else "configuration load"
    at = run.address
    if at < BAR4:
        return "MSI-X table"
    if at >= BAR4 + NOTIFY:
        return "notify"
    if at >= BAR4 + DEVICE:
        return "device configuration"
    return "common store" if run.is_write else "common load"
