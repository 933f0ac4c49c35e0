"""How a guest's further CPUs begin: rows CP.8.13 to 15.

A machine begins with one CPU. The others exist, and their threads have called KVM_RUN; but in there they sleep until
the first CPU, whose kernel knows of them from the firmware's tables, starts them with two messages of its APIC.

Source: Linux 6.12 arch/x86/kernel/smpboot.c (wakeup_secondary_cpu_via_init, start_secondary), kernel/cpu.c;
arch/x86/kvm/x86.c (kvm_arch_vcpu_ioctl_run), arch/x86/kvm/lapic.c (__apic_accept_irq, kvm_apic_accept_events).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.ops import Routine, call_any, goto, op
from virtviz.paths.setup.vcpu_start import Boot, FirstEntry
from virtviz.spec.citation import KVM_LAPIC, KVM_X86, SCENARIO
from virtviz.spec.setup_sources import CPU_HOTPLUG, X86_SMPBOOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import Vcpu
    from virtviz.paths.setup.pairs import ApicCells
    from virtviz.paths.setup.state import SetUp

INIT, STARTUP = 1, 2
"""Bits of `ApicCells.events`."""


class BootAll(Boot):
    """The same with several CPUs: the first one starts the others, one after the other.

    Args:
        send: by name of a vCPU, what a store to the command register of this one's APIC leads to.
    """

    retold: ClassVar = {"boot": {"to": goto("send_init")}}

    def __init__(self, name: str, place: Place, scan: Routine, setup: SetUp, send: Mapping[str, Routine]) -> None:
        super().__init__(name, place, scan)
        self.cpus = setup.cpus
        self.send = send
        self._names = list(send)

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the number of the CPU that is started."""
        return {"cpu": self.cpus.online, "last": self.cpus.online - 1}

    def next_cpu(self) -> str:
        """Name the vCPU that is started next."""
        return self._names[self.cpus.online - 1]

    @op(
        "CP.8.13",
        "reset another CPU",
        "wakeup_secondary_cpu_via_init",
        X86_SMPBOOT,
        text=(
            "Firmware's tables speak of another CPU, number {cpu}. The kernel stores INIT for it to the command "
            "register of its own APIC."
        ),
        to=call_any("send", "send_startup"),
        cause="store to the APIC's command register",
    )
    def send_init(self, me: Context) -> str:
        return self.next_cpu()

    @op(
        "CP.8.13",
        "start that CPU",
        "wakeup_secondary_cpu_via_init",
        X86_SMPBOOT,
        text="Then STARTUP, with the page of the first instruction that CPU {cpu} is to run.",
        to=call_any("send", "await_cpu"),
        cause="store to the APIC's command register",
    )
    def send_startup(self, me: Context) -> str:
        return self.next_cpu()

    def is_online(self) -> bool:
        """Say whether the CPU that was started has said so."""
        return self.cpus.said > self.cpus.online

    @op(
        "CP.8.13",
        "find that CPU online",
        "cpuhp_bringup_ap",
        CPU_HOTPLUG,
        text={
            "next": "CPU {last} is online. The next one is started in the same way.",
            "all": "CPU {last} is online, and it was the last one. The kernel goes on, and looks for devices.",
        },
        to={"next": goto("send_init"), "all": goto("scan")},
        guard="is_online",
    )
    def await_cpu(self, me: Context) -> str:
        self.cpus.online += 1
        return "next" if self.cpus.online <= len(self._names) else "all"


class SendStart(Routine):
    """KVM's part of INIT or STARTUP: a note for the other vCPU, whose thread may wake up.

    Args:
        vcpu: the one that sends.
        events: what is kept for the other.
        target: the other's name.
        enter: how the sender's guest is entered again.
    """

    def __init__(self, name: str, kvm: Place, vcpu: Vcpu, events: ApicCells, target: str, enter: Routine) -> None:
        super().__init__(name, kvm)
        self.vcpu = vcpu
        self.events = events
        self.target = target
        self.enter = enter

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the other vCPU."""
        return {"target": self.target}

    @op(
        "CP.8.14",
        "leave the guest: APIC",
        "kvm_apic_send_ipi",
        KVM_LAPIC,
        text="A store to the command register always leaves the guest: KVM has to do what a bus between APICs would.",
        fence=True,
    )
    def leave_guest(self, me: Context) -> None:
        self.vcpu.leave()

    @op(
        "CP.8.14",
        {"INIT": "note INIT", "STARTUP": "note STARTUP"},
        "__apic_accept_irq",
        KVM_LAPIC,
        text={
            "INIT": "KVM notes INIT for {target}, and wakes the thread that sleeps in its KVM_RUN.",
            "STARTUP": "KVM notes STARTUP, and where {target} is to begin; its thread is woken once more.",
        },
        to={"INIT": goto("enter"), "STARTUP": goto("enter")},
    )
    def accept(self, me: Context) -> str:
        is_startup = self.events.events & INIT
        self.events.events |= STARTUP if is_startup else INIT
        return "STARTUP" if is_startup else "INIT"


class AwaitStart(Routine):
    """The KVM_RUN of a vCPU that nobody has started yet.

    Args:
        name_of_vcpu: the vCPU's.
        events: what has come for it.
        enter: the first entry.
    """

    def __init__(self, name: str, kvm: Place, name_of_vcpu: str, events: ApicCells, enter: Routine) -> None:
        super().__init__(name, kvm)
        self.vcpu_name = name_of_vcpu
        self.events = events
        self.enter = enter

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the vCPU."""
        return {"vcpu": self.vcpu_name}

    def has_init(self) -> bool:
        """Say whether INIT has come."""
        return bool(self.events.events & INIT)

    @op(
        "CP.8.14",
        "wake up for INIT",
        "kvm_arch_vcpu_ioctl_run",
        KVM_X86,
        text="{vcpu} had not been started: KVM_RUN slept in the kernel. Now INIT has come, and the vCPU is reset.",
        guard="has_init",
        cost="wake",
    )
    def take_init(self, me: Context) -> None: ...

    def has_startup(self) -> bool:
        """Say whether STARTUP has come."""
        return bool(self.events.events & STARTUP)

    @op(
        "CP.8.14",
        "wake up for STARTUP",
        "kvm_apic_accept_events",
        KVM_LAPIC,
        text="STARTUP has come as well: {vcpu} can be entered, at the page that the first CPU named.",
        to=goto("enter"),
        guard="has_startup",
        cost="wake",
    )
    def take_startup(self, me: Context) -> None: ...


class FurtherEntry(FirstEntry):
    """KVM enters the guest for the first time on such a vCPU."""

    retold: ClassVar = {
        "enter_guest": {
            "row": "CP.8.14",
            "text": "KVM loads the vCPU's registers and enters the guest, at the first instruction that STARTUP named.",
        }
    }


class BeginOnFurtherCpu(Routine):
    """A further CPU from its first instruction to the program on it.

    Args:
        number: the CPU's.
        program: the program.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, number: int, program: Routine) -> None:
        super().__init__(name, place)
        self.cpus = setup.cpus
        self.number = number
        self.program = program

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the CPU's number."""
        return {"cpu": self.number}

    @op(
        "CP.8.15",
        "say that this CPU is online",
        "start_secondary",
        X86_SMPBOOT,
        text="CPU {cpu} sets itself up and says that it is online. It has nothing to run yet, and the first goes on.",
    )
    def begin(self, me: Context) -> None:
        self.cpus.said += 1

    def may_begin(self) -> bool:
        """Say whether programs may use the network."""
        return bool(self.cpus.programs)

    @op(
        "CP.8.15",
        "start a program on this CPU",
        "main",
        SCENARIO,
        text="The interface is up: a program that uses the network begins on CPU {cpu} as well.",
        to=goto("program"),
        guard="may_begin",
    )
    def start_program(self, me: Context) -> None: ...
