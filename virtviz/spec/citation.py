"""Where a statement comes from: source files of a named version, sections of a specification."""

from __future__ import annotations

from msgspec import Struct


class Source(Struct, frozen=True):
    """One file of a real system, or one section of a document.

    Attributes:
        project: `linux`, `qemu`, `ovs`, `dpdk`, `virtio`, `intel sdm`, ...
        path: file in that project's tree, or section.
        version: the version it was read in; empty: the version the world is set to.
    """

    project: str
    path: str
    version: str = ""

    def __str__(self) -> str:
        """Give `linux 6.12 drivers/vhost/net.c`."""
        return " ".join(part for part in (self.project, self.version, self.path) if part)


def linux(path: str, version: str = "6.12") -> Source:
    """Cite a file of the Linux kernel."""
    return Source("linux", path, version)


def ovs(path: str) -> Source:
    """Cite a file of Open vSwitch's user space."""
    return Source("ovs", path, "3.1")


def ovs_pmd(path: str) -> Source:
    """Cite a file of Open vSwitch's user-space datapath, as it was on the main branch in July 2026."""
    return Source("ovs", path, "d6a632a")


def dpdk(path: str) -> Source:
    """Cite a file of DPDK."""
    return Source("dpdk", path, "26.11-rc0")


def qemu(path: str) -> Source:
    """Cite a file of QEMU."""
    return Source("qemu", path, "10.0")


# The guest's driver and the rings
VIRTIO_NET = linux("drivers/net/virtio_net.c")
VIRTIO_RING = linux("drivers/virtio/virtio_ring.c")
VIRTIO_RING_H = linux("include/linux/virtio_ring.h")
VIRTIO_PCI = linux("drivers/virtio/virtio_pci_common.c")
E1000 = linux("drivers/net/ethernet/intel/e1000/e1000_main.c")
VIRTIO_PCI_MODERN = linux("drivers/virtio/virtio_pci_modern.c")
VIRTIO_MMIO = linux("drivers/virtio/virtio_mmio.c")
VIRTIO_CORE = linux("drivers/virtio/virtio.c")

QEMU_VIRTIO = Source("qemu", "hw/virtio/virtio.c", "10.0")

# vhost and the TAP
VHOST = linux("drivers/vhost/vhost.c")
VHOST_NET = linux("drivers/vhost/net.c")
VHOST_TASK = linux("kernel/vhost_task.c")
TUN = linux("drivers/net/tun.c")
PTR_RING = linux("include/linux/ptr_ring.h")
EVENTFD = linux("fs/eventfd.c")

# KVM
KVM_VMX = linux("arch/x86/kvm/vmx/vmx.c")
KVM_SVM = linux("arch/x86/kvm/svm/svm.c")
KVM_X86 = linux("arch/x86/kvm/x86.c")
KVM_LAPIC = linux("arch/x86/kvm/lapic.c")
KVM_IRQ = linux("arch/x86/kvm/irq_comm.c")
KVM_IRQCHIP = linux("virt/kvm/irqchip.c")
KVM_EVENTFD = linux("virt/kvm/eventfd.c")
KVM_MAIN = linux("virt/kvm/kvm_main.c")
KVM_IOAPIC = linux("arch/x86/kvm/ioapic.c")
KVM_COALESCED = linux("virt/kvm/coalesced_mmio.c")

# Interrupts, softirqs, system calls
X86_ENTRY = linux("arch/x86/entry/entry_64.S")
X86_APIC = linux("arch/x86/kernel/apic/vector.c")
X86_IOAPIC = linux("arch/x86/kernel/apic/io_apic.c")
X86_IDLE = linux("arch/x86/kernel/process.c")
ENTRY = linux("kernel/entry/common.c")
IRQ = linux("kernel/irq/handle.c")
IRQ_CHIP = linux("kernel/irq/chip.c")
SOFTIRQ = linux("kernel/softirq.c")
WORKQUEUE = linux("kernel/workqueue.c")
IDLE = linux("kernel/sched/idle.c")
SCHED = linux("kernel/sched/core.c")
X86_SMP = linux("arch/x86/kernel/smp.c")
POLL = linux("fs/select.c")
EPOLL = linux("fs/eventpoll.c")

# The network stack
NETDEVICE_H = linux("include/linux/netdevice.h")
SKBUFF_H = linux("include/linux/skbuff.h")
ETHERDEVICE_H = linux("include/linux/etherdevice.h")
CORE_DEV = linux("net/core/dev.c")
CORE_SOCK = linux("net/core/sock.c")
CORE_DATAGRAM = linux("net/core/datagram.c")
CORE_GRO = linux("net/core/gro.c")
SOCKET = linux("net/socket.c")
SCH_GENERIC = linux("net/sched/sch_generic.c")
LINK_WATCH = linux("net/core/link_watch.c")
IP_INPUT = linux("net/ipv4/ip_input.c")
IP_FORWARD = linux("net/ipv4/ip_forward.c")
IP_ROUTE = linux("net/ipv4/route.c")
ETHERNET = linux("net/ethernet/eth.c")
IP_OUTPUT = linux("net/ipv4/ip_output.c")
IP_ICMP = linux("net/ipv4/icmp.c")
IP_TUNNEL_CORE = linux("net/ipv4/ip_tunnel_core.c")
UDP = linux("net/ipv4/udp.c")
AF_INET = linux("net/ipv4/af_inet.c")
TCP = linux("net/ipv4/tcp.c")
TCP_OUTPUT = linux("net/ipv4/tcp_output.c")
TCP_OFFLOAD = linux("net/ipv4/tcp_offload.c")
SOCK_H = linux("include/net/sock.h")
UDP_TUNNEL_CORE = linux("net/ipv4/udp_tunnel_core.c")
GRO_CELLS = linux("net/core/gro_cells.c")
VXLAN_DRIVER = linux("drivers/net/vxlan/vxlan_core.c")
GENEVE_DRIVER = linux("drivers/net/geneve.c")
IXGBE = linux("drivers/net/ethernet/intel/ixgbe/ixgbe_main.c")
VETH = linux("drivers/net/veth.c")
DUMMY = linux("drivers/net/dummy.c")

# The bridge
BR_INPUT = linux("net/bridge/br_input.c")
BR_FDB = linux("net/bridge/br_fdb.c")
BR_FORWARD = linux("net/bridge/br_forward.c")

# Open vSwitch
NETLINK = linux("net/netlink/af_netlink.c")
GENETLINK_H = linux("include/net/genetlink.h")
OVS_DATAPATH = linux("net/openvswitch/datapath.c")
OVS_VPORT_NETDEV = linux("net/openvswitch/vport-netdev.c")
OVS_FLOW = linux("net/openvswitch/flow.c")
OVS_FLOW_TABLE = linux("net/openvswitch/flow_table.c")
OVS_ACTIONS = linux("net/openvswitch/actions.c")
UPCALL = ovs("ofproto/ofproto-dpif-upcall.c")
DPIF_NETLINK = ovs("lib/dpif-netlink.c")
LATCH = ovs("lib/latch-unix.c")
NETLINK_SOCKET = ovs("lib/netlink-socket.c")
POLL_LOOP = ovs("lib/poll-loop.c")

# Open vSwitch with DPDK
OVS_DPIF_NETDEV = ovs_pmd("lib/dpif-netdev.c")
OVS_DPIF_DFC = ovs_pmd("lib/dpif-netdev-dfc.h")
OVS_NETDEV_DPDK = ovs_pmd("lib/netdev-dpdk.c")
OVS_XLATE = ovs_pmd("ofproto/ofproto-dpif-upcall.c")
DPDK_VHOST = dpdk("lib/vhost/virtio_net.c")
DPDK_VHOST_H = dpdk("lib/vhost/vhost.h")
DPDK_VHOST_USER = dpdk("lib/vhost/vhost_user.c")
DPDK_VIRTIO = dpdk("drivers/net/virtio/virtio_rxtx.c")
DPDK_VIRTIO_ETHDEV = dpdk("drivers/net/virtio/virtio_ethdev.c")
DPDK_VIRTQUEUE = dpdk("drivers/net/virtio/virtqueue.h")
DPDK_IXGBE = dpdk("drivers/net/intel/ixgbe/ixgbe_rxtx.c")

# QEMU
QEMU_RCU = qemu("include/qemu/rcu.h")
QEMU_VIRTIO = qemu("hw/virtio/virtio.c")
QEMU_VIRTIO_NET = qemu("hw/net/virtio-net.c")
QEMU_VIRTIO_BUS = qemu("hw/virtio/virtio-bus.c")
QEMU_VIRTIO_PCI = qemu("hw/virtio/virtio-pci.c")
QEMU_VIRTIO_MMIO = qemu("hw/virtio/virtio-mmio.c")
QEMU_E1000 = qemu("hw/net/e1000.c")
QEMU_PCI = qemu("hw/pci/pci.c")
QEMU_GSI = qemu("hw/i386/x86-common.c")
QEMU_ICH9 = qemu("hw/isa/lpc_ich9.c")
QEMU_KVM = qemu("accel/kvm/kvm-all.c")
QEMU_PHYSMEM = qemu("system/physmem.c")
QEMU_MEMORY = qemu("system/memory.c")
QEMU_MAIN_LOOP = qemu("util/main-loop.c")
QEMU_ASYNC = qemu("util/async.c")
QEMU_NET = qemu("net/net.c")
QEMU_TAP = qemu("net/tap.c")
QEMU_VHOST_NET = qemu("hw/net/vhost_net.c")
QEMU_VHOST = qemu("hw/virtio/vhost.c")
QEMU_MONITOR = qemu("monitor/qmp.c")

SCENARIO = Source("virtviz", "the scenario")
"""What no real system decides: what the programs of a scenario do."""
