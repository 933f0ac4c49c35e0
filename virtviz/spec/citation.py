"""Where a statement comes from: source files of a named version, sections of a specification."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
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


def linux(path: str) -> Source:
    """Cite a file of the Linux kernel."""
    return Source("linux", path, "6.12")


def ovs(path: str) -> Source:
    """Cite a file of Open vSwitch's user space."""
    return Source("ovs", path, "3.1")


VIRTIO_NET = linux("drivers/net/virtio_net.c")
VIRTIO_RING = linux("drivers/virtio/virtio_ring.c")
VIRTIO_PCI = linux("drivers/virtio/virtio_pci_common.c")
VHOST = linux("drivers/vhost/vhost.c")
VHOST_NET = linux("drivers/vhost/net.c")
TUN = linux("drivers/net/tun.c")
VETH = linux("drivers/net/veth.c")
KVM_VMX = linux("arch/x86/kvm/vmx/vmx.c")
KVM_SVM = linux("arch/x86/kvm/svm/svm.c")
KVM_X86 = linux("arch/x86/kvm/x86.c")
KVM_LAPIC = linux("arch/x86/kvm/lapic.c")
KVM_IRQ = linux("arch/x86/kvm/irq_comm.c")
KVM_EVENTFD = linux("virt/kvm/eventfd.c")
KVM_MAIN = linux("virt/kvm/kvm_main.c")
EVENTFD = linux("fs/eventfd.c")
CORE_DEV = linux("net/core/dev.c")
CORE_SOCK = linux("net/core/sock.c")
CORE_DATAGRAM = linux("net/core/datagram.c")
CORE_GRO = linux("net/core/gro.c")
SCH_GENERIC = linux("net/sched/sch_generic.c")
SOFTIRQ = linux("kernel/softirq.c")
X86_IRQ = linux("arch/x86/kernel/apic/vector.c")
X86_ENTRY = linux("arch/x86/entry/entry_64.S")
X86_IDLE = linux("arch/x86/kernel/process.c")
IXGBE = linux("drivers/net/ethernet/intel/ixgbe/ixgbe_main.c")
NETLINK = linux("net/netlink/af_netlink.c")
OVS_DATAPATH = linux("net/openvswitch/datapath.c")
OVS_VPORT = linux("net/openvswitch/vport.c")
OVS_VPORT_NETDEV = linux("net/openvswitch/vport-netdev.c")
OVS_FLOW_TABLE = linux("net/openvswitch/flow_table.c")
OVS_ACTIONS = linux("net/openvswitch/actions.c")
IP_OUTPUT = linux("net/ipv4/ip_output.c")
IP_ICMP = linux("net/ipv4/icmp.c")
SYSCALL = linux("arch/x86/entry/entry_64.S")
UPCALL = ovs("ofproto/ofproto-dpif-upcall.c")
DPIF_NETLINK = ovs("lib/dpif-netlink.c")
NETLINK_SOCKET = ovs("lib/netlink-socket.c")
POLL_LOOP = ovs("lib/poll-loop.c")
