"""The vCPU's thread from its first step to the guest's drivers: rows CP.8.9 to 12."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine, call, goto, op
from virtviz.spec.citation import KVM_X86, QEMU_KVM, SCENARIO
from virtviz.spec.setup_sources import QEMU_KVM_ACCEL_OPS

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import Vcpu
    from virtviz.paths.setup.calls import Calls
    from virtviz.paths.setup.state import SetUp


class VcpuThread(Routine):
    """The thread of a vCPU: makes its vCPU, waits for the machine to run, calls KVM_RUN.

    Args:
        enter: KVM's part of the first entry.
        number: the vCPU's, from 0.
    """

    first = "make_vcpu"

    def __init__(self, name: str, place: Place, setup: SetUp, calls: Calls, enter: Routine, number: int) -> None:
        super().__init__(name, place)
        self.process = setup.process
        self.mine = setup.of_pair[number]
        self.create_vcpu = calls.create_vcpu
        self.enter = enter

    def exists(self) -> bool:
        """Say whether the main thread has made this one."""
        return bool(self.mine.vcpu_thread)

    @op(
        "CP.8.9",
        "ask KVM for a vCPU",
        "kvm_init_vcpu",
        QEMU_KVM,
        text=(
            "The new thread asks KVM for a vCPU. It is the thread that will be the guest's CPU, whenever it is in "
            "KVM_RUN."
        ),
        to=call("create_vcpu", "say_that_it_is_made"),
        guard="exists",
        cause="ioctl(KVM_CREATE_VCPU)",
    )
    def make_vcpu(self, me: Context) -> None: ...

    @op(
        "CP.8.9",
        "say that the vCPU exists",
        "kvm_vcpu_thread_fn",
        QEMU_KVM_ACCEL_OPS,
        text="The thread tells the main thread, which has waited for this, that its vCPU exists.",
    )
    def say_that_it_is_made(self, me: Context) -> None:
        self.mine.vcpu_made = 1

    def may_run(self) -> bool:
        """Say whether the machine runs."""
        return bool(self.process.running)

    @op(
        "CP.8.12",
        "call KVM_RUN for the first time",
        "kvm_cpu_exec",
        QEMU_KVM,
        text="The machine runs: the thread calls KVM_RUN, and is the guest's CPU from here on.",
        to=goto("enter"),
        guard="may_run",
        cause="ioctl(KVM_RUN)",
    )
    def call_kvm_run(self, me: Context) -> None: ...


class FirstEntry(Routine):
    """KVM enters the guest for the first time.

    Args:
        boot: what the guest does.
    """

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, boot: Routine) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.boot = boot

    @op(
        "CP.8.12",
        "enter the guest",
        "vcpu_enter_guest",
        KVM_X86,
        text="KVM loads the vCPU's registers and enters the guest, at the first instruction of its firmware.",
        to=goto("boot"),
        cause="KVM enters the guest",
        fence=True,
    )
    def enter_guest(self, me: Context) -> None:
        self.vcpu.enter()


class Boot(Routine):
    """Firmware and kernel, up to the point where the kernel looks for devices.

    Args:
        scan: the search for PCI devices.
    """

    def __init__(self, name: str, place: Place, scan: Routine) -> None:
        super().__init__(name, place)
        self.scan = scan

    @op(
        "CP.8.12",
        "boot",
        "start_kernel",
        SCENARIO,
        text=(
            "Firmware gives addresses to the devices and loads the kernel, which comes up. Thousands of exits, not "
            "shown."
        ),
        to=goto("scan"),
    )
    def boot(self, me: Context) -> None: ...
