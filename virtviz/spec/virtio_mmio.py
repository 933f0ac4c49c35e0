"""The registers of virtio-mmio, and where QEMU's machine `microvm` puts them.

Source: virtio 1.4, 4.2.2 (MMIO Device Register Layout), with the names of the specification; Linux 6.12
include/uapi/linux/virtio_mmio.h; QEMU 10.0 hw/i386/microvm.c, include/hw/i386/microvm.h.
"""

from __future__ import annotations

from typing import Final

REGISTERS: Final = {
    "MagicValue": 0x000,
    "Version": 0x004,
    "DeviceID": 0x008,
    "VendorID": 0x00C,
    "DeviceFeatures": 0x010,
    "DeviceFeaturesSel": 0x014,
    "DriverFeatures": 0x020,
    "DriverFeaturesSel": 0x024,
    "QueueSel": 0x030,
    "QueueNumMax": 0x034,
    "QueueNum": 0x038,
    "QueueReady": 0x044,
    "QueueNotify": 0x050,
    "InterruptStatus": 0x060,
    "InterruptACK": 0x064,
    "Status": 0x070,
    "QueueDescLow": 0x080,
    "QueueDescHigh": 0x084,
    "QueueDriverLow": 0x090,
    "QueueDriverHigh": 0x094,
    "QueueDeviceLow": 0x0A0,
    "QueueDeviceHigh": 0x0A4,
    "ConfigGeneration": 0x0FC,
    "Config": 0x100,
}
"""Register -> its offset. Each is 32 bits wide; the device's own configuration begins at Config."""
MAGIC: Final = 0x74726976
"""What MagicValue says: "virt" in little-endian."""
VERSION: Final = 2
"""What Version says of a device that is no legacy one."""
VENDOR: Final = 0x554D4551
"""What QEMU's VendorID says: "QEMU" in little-endian."""
VIRTIO_MMIO_INT_VRING: Final = 1
VIRTIO_MMIO_INT_CONFIG: Final = 2
"""Bits of InterruptStatus: a buffer was used, the configuration changed."""

TRANSPORT_BYTES: Final = 512
"""Bytes of one device's registers in QEMU."""
NUMBER: Final = 7
"""Of eight devices that can be, QEMU gives the last one to the first virtio device that is made."""
BASE: Final = 0xFEB00000 + NUMBER * TRANSPORT_BYTES
"""Where that device's registers are (VIRTIO_MMIO_BASE and 512 bytes for each device before it)."""
GSI: Final = 16 + NUMBER
"""Its interrupt line, with ACPI and one IOAPIC (virtio_irq_base)."""
ADDRESSES: Final = {name: BASE + offset for name, offset in REGISTERS.items()}
"""Register -> its guest-physical address."""
LINK_STATUS: Final = ADDRESSES["Config"] + 6
"""`status` of the network device's configuration, behind the six bytes of the address (5.1.4)."""
