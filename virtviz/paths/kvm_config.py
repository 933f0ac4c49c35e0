"""A load from the device's configuration: it leaves the guest, and only QEMU can answer. Rows 8 and 9 of CONFIG.

Unlike a kick, nothing can shorten this way: KVM_RUN returns, QEMU's vCPU thread looks the value up, and KVM puts it
into the guest's register when it is run again. That is a heavy exit for every load.

Source: Linux arch/x86/kvm/x86.c (emulator_read_write, complete_emulated_mmio); QEMU hw/virtio/virtio-pci.c
(virtio_pci_device_read), hw/net/virtio-net.c (virtio_net_get_config).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.kvm_notify import NOTIFY_BASE
from virtviz.paths.qemu_threads import UnderLock
from virtviz.spec.citation import KVM_MAIN, KVM_SVM, KVM_VMX, KVM_X86, QEMU_VIRTIO_NET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.device_status import DeviceStatus
    from virtviz.paths.guest_config import ConfigCells
    from virtviz.paths.kvm import Vcpu
    from virtviz.paths.qemu import Qemu

STATUS_ADDRESS: Final = NOTIFY_BASE - 0x1000 + 6
"""`status` of the network device's configuration: BAR 4 + 0x2000, behind the six bytes of the address (5.1.4)."""


class HeavyLoad(Routine):
    """A load that ends in QEMU.

    Args:
        qemu: what QEMU does between KVM_RUN's return and the next one.
        enter: how the guest is entered again.

    Attributes:
        address: of the two bytes that are loaded.
    """

    address: int = STATUS_ADDRESS

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, qemu: Routine, enter: Routine) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.qemu = qemu
        self.enter = enter

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the address."""
        return {"address": f"{self.address:#x}"}

    @op(
        "CONFIG.8",
        "emulate the load",
        "x86_emulate_instruction",
        KVM_X86,
        text="KVM fetches and decodes the guest's instruction to learn what is to be loaded, and into which register.",
        cost="emulate",
        private=True,
    )
    def emulate(self, me: Context) -> None: ...

    @op(
        "CONFIG.8",
        "look the address up",
        "kvm_io_bus_read",
        KVM_MAIN,
        text="Nobody in the kernel answers at {address}: a configuration is only ever kept by QEMU.",
        private=True,
    )
    def find_nobody(self, me: Context) -> None: ...

    @op(
        "CONFIG.8",
        "let KVM_RUN return",
        "kvm_arch_vcpu_ioctl_run",
        KVM_X86,
        text="KVM_RUN returns with KVM_EXIT_MMIO, a load: the exit becomes a heavy one, and the guest waits for QEMU.",
        to=call("qemu", "complete"),
        cause="KVM_RUN returns: KVM_EXIT_MMIO",
        private=True,
    )
    def return_to_qemu(self, me: Context) -> None: ...

    @op(
        "CONFIG.9",
        "complete the load",
        "complete_emulated_mmio",
        KVM_X86,
        text="QEMU has left the value in the page that it shares with KVM, which puts it into the guest's register.",
        to=goto("enter"),
        private=True,
    )
    def complete(self, me: Context) -> None: ...


class HeavyLoadIntel(HeavyLoad):
    """The same on Intel: the shortcut for kicks is tried first, and in vain."""

    first = "exit_ept_misconfig"

    @op(
        "CONFIG.8",
        "leave the guest: EPT misconfiguration",
        "handle_ept_misconfig",
        KVM_VMX,
        text="The page of {address} is marked as a device, so the load leaves the guest: a VM exit.",
        to=goto("try_fast_bus"),
        fence=True,
    )
    def exit_ept_misconfig(self, me: Context) -> None:
        self.vcpu.leave()

    @op(
        "CONFIG.8",
        "look at the fast bus",
        "kvm_io_bus_write",
        KVM_MAIN,
        text="KVM does not know yet that it is a load. {address} is not on its fast MMIO bus anyway.",
        to=goto("emulate"),
        private=True,
    )
    def try_fast_bus(self, me: Context) -> None: ...


class HeavyLoadAmd(HeavyLoad):
    """The same on AMD: a nested page fault."""

    first = "exit_npf"

    @op(
        "CONFIG.8",
        "leave the guest: nested page fault",
        "npf_interception",
        KVM_SVM,
        text="No memory is behind {address}, so the load leaves the guest: a VM exit.",
        to=goto("emulate"),
        fence=True,
    )
    def exit_npf(self, me: Context) -> None:
        self.vcpu.leave()


class GiveConfig(UnderLock):
    """QEMU's vCPU thread answers a load from the configuration. Row 9 of CONFIG.

    Args:
        qemu: its process.
        device: the device whose configuration it is.
        result: where the value goes.
    """

    rows = MappingProxyType({"take lock": "CONFIG.9", "give lock up": "CONFIG.9"})
    links = MappingProxyType({"work": "get_config"})
    retold = MappingProxyType(
        {
            "release_lock": {
                "text": "The load is answered: the lock is given up, and the thread calls KVM_RUN again at once."
            }
        }
    )

    def __init__(self, name: str, place: Place, qemu: Qemu, device: DeviceStatus, result: ConfigCells) -> None:
        super().__init__(name, place)
        self.qemu = qemu
        self.device = device
        self.result = result

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the value."""
        return {"value": self.result.value}

    @op(
        "CONFIG.9",
        "look the value up",
        "virtio_net_get_config",
        QEMU_VIRTIO_NET,
        spec="5.1.4",
        text="QEMU fills in the device's configuration and takes from it what was asked for: status = {value}.",
        to=goto("release_lock"),
    )
    def get_config(self, me: Context) -> None:
        self.result.value = self.device.cells.config_status
