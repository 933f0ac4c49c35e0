"""The guest's kernel finds the device on the PCI bus and learns where its registers are. Rows CP.2.

A PC's configuration space is reached through two ports: which word is stored to 0xcf8, the word itself is at 0xcfc. The
driver walks a list of capabilities; each one of vendor-specific kind says what it is about, and in which BAR and where.
Linux walks the list once for each structure that it looks for. Here it walks once, and notes all it passes.

Source: virtio 1.4, 4.1.2 to 4.1.4; Linux 6.12 drivers/virtio/virtio_pci_modern_dev.c (vp_modern_probe,
virtio_pci_find_capability), drivers/pci/probe.c, arch/x86/pci/direct.c (pci_conf1_read).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.setup import registers as reg
from virtviz.spec.citation import VIRTIO_PCI
from virtviz.spec.setup_sources import PCI, PCI_DIRECT, PCI_PROBE, VIRTIO_CORE, VIRTIO_PCI_MODERN_DEV

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.state import SetUp

ENABLE = 0x80000000
SLOT = 3
"""Device number of the network card on bus 0."""
MEMORY, BUS_MASTER = 2, 4
_KINDS = {
    reg.CFG_COMMON: "the common configuration",
    reg.CFG_NOTIFY: "the notify addresses",
    reg.CFG_ISR: "the interrupt status",
    reg.CFG_DEVICE: "the device's configuration",
    reg.CFG_PCI: "another way to all of them",
}


class ReadConfig(Routine):
    """Read one word of the configuration space: two port accesses, of which one reaches QEMU.

    Args:
        select: what the store to 0xcf8 leads to.
        access: what the load from 0xcfc leads to.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, select: Routine, access: Routine) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.select = select
        self.access = access

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the offset."""
        return {"offset": f"{self.setup.probe.offset:#04x}"}

    @op(
        "CP.2.1",
        "select a word",
        "pci_conf1_read",
        PCI_DIRECT,
        text="The guest stores to port 0xcf8 which word it wants: bus 0, device 3, offset {offset}.",
        to=call("select", "read_word"),
        cause="store to port 0xcf8",
    )
    def select_word(self, me: Context) -> None:
        setup = self.setup
        reg.store_port(setup, reg.CONFIG_ADDRESS, ENABLE | SLOT << 11 | setup.probe.offset & 0xFC, 4)

    @op(
        "CP.2.1",
        "read the word",
        "pci_conf1_read",
        PCI_DIRECT,
        text="Then it reads the word from port 0xcfc. Only QEMU knows what is there.",
        to=call("access", None),
        cause="load from port 0xcfc",
    )
    def read_word(self, me: Context) -> None:
        reg.load_port(self.setup, reg.CONFIG_DATA, 4)


class WriteCommand(Routine):
    """Write the function's command register."""

    def __init__(self, name: str, place: Place, setup: SetUp, select: Routine, access: Routine) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.select = select
        self.access = access

    @op(
        "CP.2.1",
        "select the command register",
        "pci_conf1_write",
        PCI_DIRECT,
        text="The guest selects the word at 0x04, command and status.",
        to=call("select", "write_command"),
        cause="store to port 0xcf8",
    )
    def select_command(self, me: Context) -> None:
        reg.store_port(self.setup, reg.CONFIG_ADDRESS, ENABLE | SLOT << 11 | 4, 4)

    @op(
        "CP.2.7",
        "switch memory and bus mastering on",
        "pci_conf1_write",
        PCI_DIRECT,
        text="The device may now be reached by its BARs, and may itself reach the guest's memory, its rings among it.",
        to=call("access", None),
        cause="store to port 0xcfc",
    )
    def write_command(self, me: Context) -> None:
        reg.store_port(self.setup, reg.CONFIG_DATA, MEMORY | BUS_MASTER, 2)


class FindDevice(Routine):
    """Find the device, and in its capabilities the addresses of its registers.

    Args:
        read: reads the word at `probe.offset`.
        enable: writes the command register.
        probe: the virtio driver, which goes on.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, read: Routine, enable: Routine, probe: Routine) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.mine = setup.probe
        self.read = read
        self.enable = enable
        self.probe = probe

    def words(self, me: Context) -> Mapping[str, object]:
        """Say what was found."""
        mine = self.mine
        return {
            "at": f"{mine.capability:#04x}",
            "kind": _KINDS.get(mine.kind, "something else"),
            "common": f"{mine.common:#x}",
            "notify": f"{mine.notify:#x}",
            "multiplier": mine.multiplier,
        }

    def look_at(self, offset: int) -> None:
        """Choose the word to read next."""
        self.mine.offset = offset

    @property
    def word(self) -> int:
        """The word last read."""
        return self.setup.access.value

    @op(
        "CP.2.1",
        "read who made the device",
        "pci_scan_device",
        PCI_PROBE,
        spec="4.1.2",
        text="The kernel asks every possible place on the bus who is there. Here it comes to the network card's.",
        to=call("read", "know_the_device"),
    )
    def read_ids(self, me: Context) -> None:
        self.look_at(0)

    @op(
        "CP.2.1",
        "know the device",
        "virtio_pci_probe",
        VIRTIO_PCI,
        spec="4.1.2",
        text="Vendor 0x1af4, device 0x1000: a virtio network card, one that an old driver could use as well.",
        to=call("read", "find_list"),
    )
    def know_the_device(self, me: Context) -> None:
        self.look_at(0x34)

    @op(
        "CP.2.4",
        "begin the list of capabilities",
        "virtio_pci_find_capability",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4",
        text="Where the device's registers are is not fixed. A list says so, and its first entry is at {at}.",
        to=goto("read_capability"),
    )
    def find_list(self, me: Context) -> None:
        self.mine.capability = self.word & 0xFC

    @op(
        "CP.2.4",
        {"end": "reach the end of the list", "": "read the next capability"},
        "virtio_pci_find_capability",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4",
        text={
            "read": "The capability at {at}: its kind and where the next one is, in one word.",
            "end": "That was the last one. Registers at {common}, notify addresses from {notify} on.",
        },
        to={"read": call("read", "what_kind"), "end": goto("enable_device")},
    )
    def read_capability(self, me: Context) -> str:
        if not self.mine.capability:
            return "end"
        self.look_at(self.mine.capability)
        return "read"

    @op(
        "CP.2.5",
        {"virtio": "look which structure it is", "MSI-X": "note the MSI-X table", "other": "pass it over"},
        "virtio_pci_find_capability",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4",
        text={
            "virtio": "Vendor-specific (0x09), so virtio's own: {kind}. In which BAR?",
            "passed": "{kind}: not needed here.",
            "MSI-X": "MSI-X (0x11): the device can interrupt by writing messages, one kind for each queue.",
            "other": "Nothing that this driver needs.",
        },
        to={
            "virtio": call("read", "read_offset"),
            "passed": goto("read_capability"),
            "MSI-X": goto("read_capability"),
            "other": goto("read_capability"),
        },
    )
    def what_kind(self, me: Context) -> str:
        mine, word = self.mine, self.word
        mine.kind = word >> 24 if word & 0xFF == reg.CAP_VENDOR else 0
        here, mine.capability = mine.capability, word >> 8 & 0xFC
        if word & 0xFF == reg.CAP_VENDOR and mine.kind != reg.CFG_PCI:
            mine.here = here
            self.look_at(here + 4)
            return "virtio"
        if word & 0xFF == reg.CAP_VENDOR:
            return "passed"
        return "MSI-X" if word & 0xFF == reg.CAP_MSIX else "other"

    @op(
        "CP.2.5",
        "read where in the BAR",
        "vp_modern_map_capability",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4",
        text="It is in BAR 4. And at which offset there?",
        to=call("read", "note_address"),
    )
    def read_offset(self, me: Context) -> None:
        self.look_at(self.mine.here + 8)

    @op(
        "CP.2.5",
        "note the address",
        "vp_modern_map_capability",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4",
        text={
            "structure": "BAR 4's address and this offset: that is where {kind} will be.",
            "notify": "BAR 4's address and this offset. For the notify addresses there is one more word.",
        },
        to={"structure": goto("read_capability"), "notify": call("read", "note_multiplier")},
    )
    def note_address(self, me: Context) -> str:
        mine = self.mine
        address = reg.BAR4 + self.word
        setattr(mine, {1: "common", 2: "notify", 3: "isr", 4: "device"}[mine.kind], address)
        if mine.kind == reg.CFG_NOTIFY:
            self.look_at(mine.here + 16)
            return "notify"
        return "structure"

    @op(
        "CP.2.6",
        "note the distance of notify addresses",
        "vp_modern_probe",
        VIRTIO_PCI_MODERN_DEV,
        spec="4.1.4.4",
        text=(
            "The notify addresses of two queues lie {multiplier} bytes apart: each queue has its own, so KVM can tell "
            "them."
        ),
        to=goto("read_capability"),
    )
    def note_multiplier(self, me: Context) -> None:
        self.mine.multiplier = self.word

    @op(
        "CP.2.7",
        "switch the device on",
        "pci_enable_device",
        PCI,
        text=(
            "All four structures are found. The function is switched on, and the virtio driver has registers to work "
            "with."
        ),
        to=call("enable", "go_on"),
    )
    def enable_device(self, me: Context) -> None: ...

    @op(
        "CP.1.1",
        "begin with the device",
        "register_virtio_device",
        VIRTIO_CORE,
        spec="3.1.1",
        text="From here on it does not matter that it is a PCI device: the same steps follow on every transport.",
        to=goto("probe"),
        private=True,
    )
    def go_on(self, me: Context) -> None: ...
