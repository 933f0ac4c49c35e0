"""Where the registers of a virtio-mmio device lie, what says so, and whose an access is.

Nothing can be walked and nothing answers unasked: the machine tells the guest's kernel in a table where a device is,
and which interrupt line it has. On `microvm` that is an entry LNRO0005 of the ACPI tables; here its content alone, not
its encoding: the name, the address, the length, and the line.

Source: virtio 1.4, 4.2.1 and 4.2.2; QEMU 10.0 hw/i386/acpi-microvm.c (acpi_dsdt_add_virtio).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from virtviz.paths.setup import registers as reg
from virtviz.spec.virtio_mmio import BASE, GSI, REGISTERS, TRANSPORT_BYTES

if TYPE_CHECKING:
    from virtviz.engine.memory import Region
    from virtviz.paths.setup.state import SetUp

_ENTRY: Final = struct.Struct("<8sQII")
NAME: Final = b"LNRO0005"
CONFIG, NOTIFY = REGISTERS["Config"], REGISTERS["QueueNotify"]
COUNTERPARTS: Final = {
    reg.DEVICE_FEATURE_SELECT: "DeviceFeaturesSel",
    reg.DEVICE_FEATURE: "DeviceFeatures",
    reg.DRIVER_FEATURE_SELECT: "DriverFeaturesSel",
    reg.DRIVER_FEATURE: "DriverFeatures",
    reg.DEVICE_STATUS: "Status",
    reg.CONFIG_GENERATION: "ConfigGeneration",
    reg.QUEUE_SELECT: "QueueSel",
    reg.QUEUE_ENABLE: "QueueReady",
}
"""Field of the common configuration on PCI -> the register that is the same here."""
NAMES: Final = {offset: name for name, offset in REGISTERS.items()}
"""Offset -> register."""


def describe_device(tables: Region) -> None:
    """Write the device's entry into the machine's tables."""
    content = _ENTRY.pack(NAME, BASE, TRANSPORT_BYTES, GSI)
    for at in range(0, len(content), 2):
        tables.plain_u16[at // 2] = int.from_bytes(content[at : at + 2], "little")


def read_entry(tables: Region) -> tuple[int, int]:
    """Read the entry; answers the address of the device's registers, and the number of its line."""
    _, address, _, line = _ENTRY.unpack(bytes(tables.read(0, _ENTRY.size)))
    return address, line


def offset_of(setup: SetUp) -> int:
    """Give where in the device's registers the access in `kvm_run` is."""
    return setup.run.address - BASE


def region_of(setup: SetUp) -> str:
    """Name the registers that the access in `kvm_run` is about."""
    offset = offset_of(setup)
    if offset >= CONFIG:
        return "device configuration"
    if setup.run.is_write:
        return "notify" if offset == NOTIFY else "common store"
    return "common load"
