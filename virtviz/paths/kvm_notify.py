"""A store to a queue's notify address leaves the guest: the beginning of block KICK, whoever deals with it then."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.ops import Routine, goto, op
from virtviz.spec.citation import KVM_SVM, KVM_VMX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import Vcpu

NOTIFY_BASE = 0xFEBFF000
"""Where the recorded machine put the notification area (BAR 4 + 0x3000); queue q's address is 4q further."""


class NotifyStore(Routine):
    """A store to a queue's notify address.

    Args:
        queue: index of the virtqueue, which decides the address.
        enter: how the guest is entered again.

    Attributes:
        far: how far the exit goes, if there is something to say about that.
    """

    far: ClassVar[str] = ""

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, queue_name: str, queue: int, enter: Routine) -> None:
        super().__init__(name, kvm, queue_name)
        self.vcpu = vcpu
        self.enter = enter
        self.address = NOTIFY_BASE + 4 * queue

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the address."""
        return {"address": f"{self.address:#x}", "far": self.far}


class LeaveOnIntel(NotifyStore):
    """How the store leaves the guest on Intel; what comes then is called `left` in links."""

    first = "exit_ept_misconfig"

    @op(
        "KICK.1",
        "leave the guest: EPT misconfiguration",
        "handle_ept_misconfig",
        KVM_VMX,
        text="The page of {address} is marked as a device, so the store leaves the guest: a VM exit{far}.",
        to=goto("left"),
        fence=True,
    )
    def exit_ept_misconfig(self, me: Context) -> None:
        self.vcpu.leave()


class LeaveOnAmd(NotifyStore):
    """The same on AMD: a nested page fault."""

    first = "exit_npf"

    @op(
        "KICK.1",
        "leave the guest: nested page fault",
        "npf_interception",
        KVM_SVM,
        text="No memory is behind {address}, so the store leaves the guest: a VM exit{far}.",
        to=goto("left"),
        fence=True,
    )
    def exit_npf(self, me: Context) -> None:
        self.vcpu.leave()
