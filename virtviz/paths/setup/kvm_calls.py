"""KVM's side of a set-up: the VM, its memory and CPU, and the two ways between eventfds and the guest.

Rows CP.8 and CP.6.

Source: Linux 6.12 virt/kvm/kvm_main.c (kvm_dev_ioctl, kvm_vm_ioctl), virt/kvm/eventfd.c (kvm_assign_ioeventfd_idx,
kvm_irqfd_assign), virt/kvm/irqchip.c (kvm_set_irq_routing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, op
from virtviz.paths.setup.kernel_calls import KernelCall
from virtviz.spec.citation import KVM_EVENTFD, KVM_IRQCHIP, KVM_MAIN, KVM_X86

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.paths.context import Context

FREE_VECTORS = (0x26,), (0x24, 0x23, 0x23, 0x23)
"""By CPU, the first vector that was free in the recorded guests: in the one with one CPU, and in one with several."""


def message_of(entry: int, cpus: int) -> tuple[int, int]:
    """Give the CPU and the vector that Linux chooses for an entry of the MSI-X table, after those before it.

    It takes the CPU that has most vectors left, the first of several (kernel/irq/matrix.c, matrix_find_best_cpu), and
    the lowest of these vectors.

    Args:
        entry: the entry's number.
        cpus: how many CPUs the guest has.
    """
    free = list(FREE_VECTORS[cpus > 1][:cpus])
    for _ in range(entry):
        free[free.index(min(free))] += 1
    return free.index(min(free)), min(free)


class VmCall(KernelCall):
    """An ioctl on /dev/kvm or on the VM's descriptor."""

    def words(self, me: Context) -> Mapping[str, object]:
        """Give also what KVM knows of the queue."""
        setup, index = self.setup, self.setup.arguments.index
        gsi = setup.process.gsi[index]
        return {**super().words(me), "gsi": gsi, "vector": f"{setup.kvm.routed[index]:#x}"}


class CreateVm(VmCall):
    """KVM_CREATE_VM."""

    @op(
        "CP.8.6",
        "make a virtual machine",
        "kvm_dev_ioctl_create_vm",
        KVM_MAIN,
        text="The kernel makes an empty virtual machine, and answers with a descriptor that stands for it.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def kvm_create_vm(self, me: Context) -> None:
        self.setup.arguments.result = self.setup.process.vm_fd = self.setup.new_fd()


class CreateIrqchip(VmCall):
    """KVM_CREATE_IRQCHIP."""

    @op(
        "CP.8.7",
        "make the interrupt controllers",
        "kvm_arch_vm_ioctl",
        KVM_X86,
        text="The interrupt controllers are the kernel's own: that is what lets an eventfd become an interrupt.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def kvm_create_irqchip(self, me: Context) -> None:
        self.setup.kvm.irqchip = 1


class SetMemory(VmCall):
    """KVM_SET_USER_MEMORY_REGION."""

    @op(
        "CP.8.8",
        "map the guest's memory",
        "kvm_set_memory_region",
        KVM_MAIN,
        text="Guest memory is a stretch of QEMU's own memory. Who knows both addresses can reach the guest's rings.",
        to=RETURN,
        cause="return from ioctl()",
    )
    def kvm_set_memory(self, me: Context) -> None:
        self.setup.kvm.memory_slots += 1


class CreateVcpu(VmCall):
    """KVM_CREATE_VCPU."""

    @op(
        "CP.8.9",
        "make a vCPU",
        "kvm_vm_ioctl_create_vcpu",
        KVM_MAIN,
        text=(
            "The vCPU exists, with a descriptor of its own. This thread will run it, by calling KVM_RUN again and "
            "again."
        ),
        to=RETURN,
        cause="return from ioctl()",
    )
    def kvm_create_vcpu(self, me: Context) -> None:
        setup, kvm = self.setup, self.setup.kvm
        number = kvm.vcpus
        kvm.vcpus += 1
        setup.of_pair[number].vcpu_fd = setup.new_fd()


class SetRouting(VmCall):
    """KVM_SET_GSI_ROUTING."""

    @op(
        "CP.6.8",
        "set the interrupt routes",
        "kvm_set_irq_routing",
        KVM_IRQCHIP,
        text={
            "first": "KVM gets a table of interrupt routes; so far it has the pins of the interrupt controllers only.",
            "": "KVM's table says now that interrupt number {gsi} is the MSI message with vector {vector}.",
        },
        to={"first": RETURN, "route": RETURN},
        cause="return from ioctl()",
    )
    def kvm_set_routing(self, me: Context) -> str:
        kvm, pci, index = self.setup.kvm, self.setup.pci, self.setup.arguments.index
        if not self.setup.process.gsi[index]:
            return "first"
        kvm.routed[index] = pci.table[4 * pci.vector[index] + 2]
        return "route"


class Irqfd(VmCall):
    """KVM_IRQFD."""

    @op(
        "CP.6.8",
        {"tied": "tie an eventfd to an interrupt", "untied": "untie the eventfd from the interrupt"},
        "kvm_irqfd",
        KVM_EVENTFD,
        text={
            "tied": "Whoever signals eventfd {fd} interrupts the guest by number {gsi}, without asking QEMU (irqfd).",
            "untied": "A signal of this eventfd does not interrupt the guest any more.",
        },
        to={"tied": RETURN, "untied": RETURN},
        cause="return from ioctl()",
    )
    def kvm_irqfd(self, me: Context) -> str:
        kvm, arguments = self.setup.kvm, self.setup.arguments
        kvm.irqfds[arguments.index] = arguments.value
        return "tied" if arguments.value else "untied"


class Ioeventfd(VmCall):
    """KVM_IOEVENTFD for a queue's notify address."""

    @op(
        "CP.6.7",
        {"added": "tie a notify address to an eventfd", "removed": "untie the notify address"},
        "kvm_ioeventfd",
        KVM_EVENTFD,
        text={
            "added": (
                "A store to the {queue} queue's notify address, of any length, signals eventfd {fd}; KVM_RUN will not "
                "return."
            ),
            "removed": "A store to the {queue} queue's notify address is QEMU's affair again.",
        },
        to={"added": RETURN, "removed": RETURN},
        cause="return from ioctl()",
    )
    def kvm_ioeventfd(self, me: Context) -> str:
        kvm, arguments = self.setup.kvm, self.setup.arguments
        kvm.ioeventfds[arguments.index] = arguments.value
        return "added" if arguments.value else "removed"


class PortEventfd(VmCall):
    """KVM_IOEVENTFD for the legacy notify port."""

    @op(
        "CP.6.7",
        {"added": "tie the legacy port to the eventfd", "removed": "untie the legacy port"},
        "kvm_ioeventfd",
        KVM_EVENTFD,
        text={
            "added": (
                "The same for an old driver: there all queues share one port, so the value stored has to be {index}."
            ),
            "removed": "The same for the port that an old driver would use.",
        },
        to={"added": RETURN, "removed": RETURN},
        cause="return from ioctl()",
    )
    def kvm_ioeventfd_port(self, me: Context) -> str:
        kvm, arguments = self.setup.kvm, self.setup.arguments
        kvm.ports[arguments.index] = arguments.value
        return "added" if arguments.value else "removed"
