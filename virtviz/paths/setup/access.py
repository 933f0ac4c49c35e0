"""How one load or store of a device register travels: out of the guest, to QEMU, and back. Rows CP.0.

Nothing in the kernel knows the registers of the device, so each access is a heavy exit: KVM_RUN returns, QEMU's vCPU
thread does what the register stands for, and calls KVM_RUN again. That is slow, and happens once. The exception is the
port that selects a word of the configuration space: KVM only notes what is stored there, until the next heavy exit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from virtviz.engine.ops import RETURN, Routine, call, call_any, goto, op
from virtviz.paths.setup.registers import region_of
from virtviz.spec.citation import KVM_SVM, KVM_VMX, KVM_X86, QEMU_PHYSMEM
from virtviz.spec.setup_sources import KVM_COALESCED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import Vcpu
    from virtviz.paths.setup.state import SetUp


class HasLock(Protocol):
    """Cells of a process, the Big QEMU Lock among them: 0 when free, else the number of its holder plus one."""

    lock: int


class BigLock:
    """The Big QEMU Lock."""

    def __init__(self, cells: HasLock) -> None:
        self.cells = cells

    def is_free(self) -> bool:
        """Say whether nobody holds the lock."""
        return not self.cells.lock

    def take(self, me: Context) -> None:
        """Take the lock, which is free."""
        self.cells.lock = me.index + 1

    def release(self) -> None:
        """Give the lock up."""
        self.cells.lock = 0


class DeviceAccess(Routine):
    """A load or store that only QEMU can do, from the exit to the entry.

    Args:
        vcpu: KVM's side of the CPU.
        serve: what QEMU does with it, between KVM_RUN's return and the next one.
    """

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, setup: SetUp, serve: Routine) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.setup = setup
        self.serve = serve

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the address."""
        access = self.setup.access
        return {"address": f"{access.address:#x}", "what": "store" if access.is_write else "load"}

    @op(
        "CP.0.2",
        "find nobody for the address",
        "x86_emulate_instruction",
        KVM_X86,
        text=(
            "KVM decodes the instruction, and finds nobody in the kernel for {address}. It notes the {what} in "
            "kvm_run, for QEMU."
        ),
        to=goto("return_to_qemu"),
        cost="emulate",
    )
    def note_access(self, me: Context) -> None:
        self._note()

    @op(
        "CP.0.2",
        "find nobody for the port",
        "kvm_fast_pio",
        KVM_X86,
        text=(
            "Which port it was the processor says itself. Nobody in the kernel has {address}: KVM notes the {what} in "
            "kvm_run, for QEMU."
        ),
        to=goto("return_to_qemu"),
    )
    def note_port(self, me: Context) -> None:
        self._note()

    def _note(self) -> None:
        access, run = self.setup.access, self.setup.run
        run.address, run.length = access.address, access.size
        run.is_write, run.is_port = access.is_write, access.is_port
        run.data = access.value if access.is_write else 0

    @op(
        "CP.0.3",
        "let KVM_RUN return",
        "kvm_arch_vcpu_ioctl_run",
        KVM_X86,
        text="KVM_RUN returns to QEMU: a heavy exit. The guest stands still until QEMU has done the {what}.",
        to=call("serve", "enter_guest"),
        cause="KVM_RUN returns: an access that only QEMU can do",
        private=True,
    )
    def return_to_qemu(self, me: Context) -> None: ...

    @op(
        "CP.0.7",
        "enter the guest",
        "vcpu_enter_guest",
        KVM_X86,
        text="KVM puts what was loaded into the guest's register, if it was a load, and enters the guest again.",
        to=RETURN,
        cause="KVM resumes the guest",
        fence=True,
    )
    def enter_guest(self, me: Context) -> None:
        access = self.setup.access
        if not access.is_write:
            access.value = self.setup.run.data
        self.vcpu.enter()


class DeviceAccessIntel(DeviceAccess):
    """The same on an Intel processor."""

    first = "leave_guest"

    @op(
        "CP.0.1",
        {"port": "leave the guest: I/O instruction", "": "leave the guest: EPT misconfiguration"},
        "vmx_handle_exit",
        KVM_VMX,
        text={
            "memory": (
                "The page of {address} is marked as a device, so the {what} leaves the guest. No memory is there."
            ),
            "port": "An access to an I/O port, {address}, always leaves the guest.",
        },
        to={"memory": goto("note_access"), "port": goto("note_port")},
        fence=True,
    )
    def leave_guest(self, me: Context) -> str:
        self.vcpu.leave()
        return "port" if self.setup.access.is_port else "memory"


class DeviceAccessAmd(DeviceAccess):
    """The same on an AMD processor."""

    first = "leave_guest"

    @op(
        "CP.0.1",
        {"port": "leave the guest: I/O instruction", "": "leave the guest: nested page fault"},
        "svm_handle_exit",
        KVM_SVM,
        text={
            "memory": "No memory is behind {address}, so the {what} leaves the guest: a nested page fault.",
            "port": "An access to an I/O port, {address}, always leaves the guest.",
        },
        to={"memory": goto("note_access"), "port": goto("note_port")},
        fence=True,
    )
    def leave_guest(self, me: Context) -> str:
        self.vcpu.leave()
        return "port" if self.setup.access.is_port else "memory"


class SelectConfig(Routine):
    """The store to port 0xcf8: a light exit, because QEMU asked KVM to do no more than note it."""

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, setup: SetUp) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.setup = setup

    @op(
        "CP.2.2",
        "leave the guest: I/O instruction",
        "handle_io",
        KVM_VMX,
        text="The store to port 0xcf8 leaves the guest, but only into KVM.",
        fence=True,
    )
    def leave_guest(self, me: Context) -> None:
        self.vcpu.leave()

    @op(
        "CP.2.2",
        "note the port's value",
        "coalesced_mmio_write",
        KVM_COALESCED,
        text="QEMU asked KVM to note stores to this port in a ring they share. QEMU will look at its next heavy exit.",
    )
    def note(self, me: Context) -> None:
        self.setup.run.config_address = self.setup.access.value

    @op(
        "CP.2.2",
        "enter the guest",
        "vcpu_enter_guest",
        KVM_X86,
        text="A light exit is all that it was. KVM enters the guest again.",
        to=RETURN,
        cause="KVM resumes the guest",
        fence=True,
    )
    def enter_guest(self, me: Context) -> None:
        self.vcpu.enter()


class SelectConfigAmd(SelectConfig):
    """The same on an AMD processor."""

    retold: ClassVar = {"leave_guest": {"function": "io_interception", "source": KVM_SVM}}


class ServeAccess(Routine):
    """QEMU's vCPU thread with an access in its hands: take the lock, do what the register stands for, call KVM_RUN.

    Args:
        lock: the lock of its process.
        regions: by the name of each stretch of addresses, the routine that does it.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        lock: BigLock,
        regions: Mapping[str, Routine],
    ) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.lock = lock
        self.regions = regions

    def lock_is_free(self) -> bool:
        """Say whether the thread can have the Big QEMU Lock."""
        return self.lock.is_free()

    @op(
        "CP.0.4",
        "take the Big QEMU Lock",
        "prepare_mmio_access",
        QEMU_PHYSMEM,
        text="QEMU's vCPU thread looks up whose registers these are, and takes the lock under which devices run.",
        to=call_any("regions", "release_lock"),
        guard="lock_is_free",
    )
    def take_lock(self, me: Context) -> str:
        self.lock.take(me)
        return region_of(self.setup)

    @op(
        "CP.0.6",
        "give the lock up, call KVM_RUN",
        "address_space_rw",
        QEMU_PHYSMEM,
        text="The access is done with. The lock is given up, and the thread calls KVM_RUN again.",
        to=RETURN,
        cause="ioctl(KVM_RUN)",
        fence=True,
    )
    def release_lock(self, me: Context) -> None:
        self.lock.release()
