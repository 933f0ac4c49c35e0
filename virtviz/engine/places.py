"""Places, their domains, and what is crossed when a thread goes from one to another.

A crossing is never written by hand. An op names the place whose code it is, a place has one domain, and the table
`BORDERS` says what a thread crosses when it passes from one domain to another. Two domains that the table does not
join cannot be passed between, and linking such an op table is an error.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from virtviz.errors import NoBorderError


class Domain(StrEnum):
    """Whose address space and privilege a piece of code has."""

    GUEST_USER = "guest-user"
    GUEST_KERNEL = "guest-kernel"
    HOST_KERNEL = "host-kernel"
    HOST_USER = "host-user"
    HARDWARE = "hardware"

    @property
    def is_guest(self) -> bool:
        """Say whether a CPU in this domain is in guest mode (VMX non-root, SVM guest)."""
        return self in (Domain.GUEST_USER, Domain.GUEST_KERNEL)


class Role(StrEnum):
    """What makes a place a gate between domains; most places are none."""

    PLAIN = "plain"
    CPU = "cpu"
    """The processor itself taking or ending an interrupt; the only way into the guest kernel without a system call."""
    HYPERVISOR = "hypervisor"
    """KVM's vCPU run loop: the only place a guest exits to, and the only one that enters it."""
    VCPU_USER = "vcpu-user"
    """QEMU's vCPU thread outside KVM_RUN: what a heavy exit returns to."""


class CrossingKind(StrEnum):
    """The kinds of crossing that are counted (the last two are shown, but in no counter)."""

    SYSCALL_ENTER = "syscall-enter"
    SYSCALL_RETURN = "syscall-return"
    KVM_RUN_RETURN = "kvm-run-return"
    KVM_RUN_ENTER = "kvm-run-enter"
    VM_EXIT = "vm-exit"
    VM_ENTRY = "vm-entry"
    IRQ_ENTER = "irq-enter"
    IRQ_RETURN = "irq-return"


class Side(StrEnum):
    """On which side of the virtual machine a crossing, a copy or a wake-up happens."""

    GUEST = "guest"
    HOST = "host"


class Place(Struct, frozen=True):
    """A component whose code runs: `vm1.virtio_net`, `kvm`, `tap0`.

    Attributes:
        name: unique in its world; a component of one VM starts with the VM's name and a dot.
        domain: where its code runs.
        role: what makes it a gate, if it is one.
        title: how people call it.
    """

    name: str
    domain: Domain
    title: str
    role: Role = Role.PLAIN

    @property
    def side(self) -> Side:
        """Say on which side of the virtual machine this place is; hardware counts as host."""
        return Side.GUEST if self.domain.is_guest else Side.HOST


_GU, _GK, _HK, _HU = Domain.GUEST_USER, Domain.GUEST_KERNEL, Domain.HOST_KERNEL, Domain.HOST_USER

BORDERS: dict[tuple[Domain, Domain], tuple[tuple[Role | None, Role | None, CrossingKind], ...]] = {
    (_GU, _GK): ((Role.CPU, None, CrossingKind.IRQ_ENTER), (None, None, CrossingKind.SYSCALL_ENTER)),
    (_GK, _GU): ((Role.CPU, None, CrossingKind.IRQ_RETURN), (None, None, CrossingKind.SYSCALL_RETURN)),
    (_GU, _HK): ((None, Role.HYPERVISOR, CrossingKind.VM_EXIT),),
    (_GK, _HK): ((None, Role.HYPERVISOR, CrossingKind.VM_EXIT),),
    (_HK, _GU): ((Role.HYPERVISOR, None, CrossingKind.VM_ENTRY),),
    (_HK, _GK): ((Role.HYPERVISOR, None, CrossingKind.VM_ENTRY),),
    (_HK, _HU): (
        (Role.HYPERVISOR, Role.VCPU_USER, CrossingKind.KVM_RUN_RETURN),
        (None, None, CrossingKind.SYSCALL_RETURN),
    ),
    (_HU, _HK): (
        (Role.VCPU_USER, Role.HYPERVISOR, CrossingKind.KVM_RUN_ENTER),
        (None, None, CrossingKind.SYSCALL_ENTER),
    ),
}
"""From and to domain, then what the roles of the two places must be (None: any), then what is crossed.

The first line that fits counts. Hardware is in no line: a device's engine is a thread of its own and reaches software
only through memory and interrupts.
"""


def crossing_between(source: Place, target: Place) -> CrossingKind | None:
    """Say what a thread crosses when it goes from one place to another, None if nothing.

    Raises:
        NoBorderError: the two domains have no border, or these two places are not a gate in it.
    """
    if source.domain is target.domain:
        return None
    for source_role, target_role, kind in BORDERS.get((source.domain, target.domain), ()):
        if source_role in (None, source.role) and target_role in (None, target.role):
            return kind
    message = f"no border from {source.name} ({source.domain}) to {target.name} ({target.domain})"
    raise NoBorderError(message)


def crossing_side(kind: CrossingKind, source: Domain, target: Domain) -> Side:
    """Say whether a crossing belongs to the guest or to the host.

    A VM exit and entry are the guest's: its CPU is what stops and goes on. A return from KVM_RUN is the host's.
    """
    if kind in (CrossingKind.VM_EXIT, CrossingKind.VM_ENTRY):
        return Side.GUEST
    return Side.GUEST if source.is_guest and target.is_guest else Side.HOST
