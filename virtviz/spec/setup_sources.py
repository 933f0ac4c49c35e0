"""Where the code that sets a network device up is: sources cited by `paths/setup` alone."""

from __future__ import annotations

from virtviz.spec.citation import Source, linux, ovs, qemu

# The guest: PCI, virtio over PCI, MSI-X
VIRTIO_CORE = linux("drivers/virtio/virtio.c")
VIRTIO_PCI_MODERN = linux("drivers/virtio/virtio_pci_modern.c")
VIRTIO_PCI_MODERN_DEV = linux("drivers/virtio/virtio_pci_modern_dev.c")
DRIVER_BUS = linux("drivers/base/bus.c")
PCI = linux("drivers/pci/pci.c")
PCI_PROBE = linux("drivers/pci/probe.c")
PCI_DIRECT = linux("arch/x86/pci/direct.c")
PCI_MSI = linux("drivers/pci/msi/msi.c")
PCI_MSI_H = linux("drivers/pci/msi/msi.h")
PCI_MSI_API = linux("drivers/pci/msi/api.c")
X86_MSI = linux("arch/x86/kernel/apic/msi.c")
READ_WRITE = linux("fs/read_write.c")
ACPI_PLATFORM = linux("drivers/acpi/acpi_platform.c")
CORE_DEV_IOCTL = linux("net/core/dev.c")
X86_SMPBOOT = linux("arch/x86/kernel/smpboot.c")
CPU_HOTPLUG = linux("kernel/cpu.c")

# KVM
KVM_COALESCED = linux("virt/kvm/coalesced_mmio.c")
KVM_I8259 = linux("arch/x86/kvm/i8259.c")

# The switch
BR_IF = linux("net/bridge/br_if.c")
AF_UNIX = linux("net/unix/af_unix.c")
OVS_VSCTL = ovs("utilities/ovs-vsctl.c")
OVSDB_SERVER = ovs("ovsdb/ovsdb-server.c")
OVSDB_TRANSACTION = ovs("ovsdb/transaction.c")
OVS_BRIDGE = ovs("vswitchd/bridge.c")
OVS_DPIF_NETLINK = ovs("lib/dpif-netlink.c")

# QEMU
QEMU_TAP_LINUX = qemu("net/tap-linux.c")
QEMU_VHOST_NET = qemu("hw/net/vhost_net.c")
QEMU_VHOST = qemu("hw/virtio/vhost.c")
QEMU_VHOST_USER = qemu("hw/virtio/vhost-user.c")
QEMU_NET_VHOST_USER = qemu("net/vhost-user.c")
QEMU_VHOST_BACKEND = qemu("hw/virtio/vhost-backend.c")
QEMU_MSIX = qemu("hw/pci/msix.c")
QEMU_VIRTIO_CONFIG_IO = qemu("hw/virtio/virtio-config-io.c")
QEMU_PCI_HOST = qemu("hw/pci/pci_host.c")
QEMU_KVM_ACCEL_OPS = qemu("accel/kvm/kvm-accel-ops.c")
QEMU_RUNSTATE = qemu("system/cpus.c")
QEMU_EVENT_NOTIFIER = qemu("util/event_notifier-posix.c")
QEMU_KVM_I386 = qemu("target/i386/kvm/kvm.c")


def libvirt(path: str) -> Source:
    """Cite a file of libvirt."""
    return Source("libvirt", path, "11.3")


LIBVIRT_INTERFACE = libvirt("src/qemu/qemu_interface.c")
LIBVIRT_NETDEV = libvirt("src/util/virnetdev.c")
LIBVIRT_BRIDGE = libvirt("src/util/virnetdevbridge.c")
LIBVIRT_TAP = libvirt("src/util/virnetdevtap.c")
LIBVIRT_OVS = libvirt("src/util/virnetdevopenvswitch.c")
LIBVIRT_COMMAND = libvirt("src/qemu/qemu_command.c")
LIBVIRT_PROCESS = libvirt("src/qemu/qemu_process.c")
