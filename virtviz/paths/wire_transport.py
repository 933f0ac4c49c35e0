"""What carries a virtio device's kicks and interrupts: PCI, or virtio-mmio. A world has one; wiring asks it for parts.

The rings, and who serves them, are the same whatever the transport is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from virtviz.engine.ops import Routine
from virtviz.engine.places import Domain, Role
from virtviz.paths import kvm, kvm_eventfd, kvm_msi, virtio_net
from virtviz.paths.guest_cpu import TakeInterrupt
from virtviz.paths.parts import KVM, KVM_VM, QEMU_VCPU
from virtviz.paths.wire_guest import CONFIG, CONFIG_NAME, RX, TX, enter_guest, msi_delivery, open_gates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.paths import kvm_config, qemu, qemu_checks
    from virtviz.paths.device_status import DeviceStatus
    from virtviz.paths.guest_config import LookAtLink
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_guest import Guest

R = TypeVar("R", bound=Routine)


class Transport(Protocol):
    """What carries the kicks and interrupts of one queue pair.

    Attributes:
        process: the QEMU process that has the device; set by whoever makes one.
    """

    process: qemu.Qemu

    def kick(self, queue: int, exit_to_kvm: Routine, row: str) -> Routine:
        """Make the driver's kick of a queue, which leads to an exit.

        Args:
            queue: RX or TX.
            exit_to_kvm: what the store leads to.
            row: which row it is.
        """

    def light_exits(self, kicks: Sequence[kvm.EventfdCells], wakeups: Sequence[Routine]) -> list[Routine]:
        """Make what a kick of each queue leads to, where KVM signals an eventfd.

        Args:
            kicks: each queue's eventfd, receive queue first.
            wakeups: what signalling it leads to.
        """

    def heavy_exits(self, process: qemu.Qemu, serve: Sequence[Routine]) -> list[Routine]:
        """Make what a kick of each queue leads to, where only QEMU knows the address.

        Args:
            process: the QEMU process.
            serve: what a kick of each queue leads to in it, receive queue first.
        """

    def kind(self, kind: type[R]) -> type[R]:
        """Give the class of a routine that tells the guest of buffers, for this transport."""

    def interrupt(self, queue: str, bit: int, who: str) -> Routine:
        """Make how QEMU interrupts the guest for a queue.

        Args:
            queue: the queue's name.
            bit: RX or TX.
            who: by whom, for the routines' names.
        """

    def config_interrupt(self, name: str, place: Place, device: DeviceStatus) -> qemu_checks.NotifyConfig:
        """Make how QEMU tells the guest of a changed configuration."""

    def config_load(self, process: qemu.Qemu) -> Routine:
        """Make what a load from the device's configuration leads to."""

    def called(self, queue: str, bit: int, call: kvm.EventfdCells) -> Routine:
        """Make what a signal of vhost's on a queue's call eventfd leads to."""

    def serve_calls(self, name: str, cpu: int, calls: Sequence[kvm.EventfdCells]) -> None:
        """Make a thread that hears of vhost's calls, if this transport needs one.

        Args:
            name: QEMU's main loop.
            cpu: the host's CPU it runs on.
            calls: the receive queue's and the transmit queue's call eventfd.
        """

    def open_gates(self, handlers: Sequence[Routine], kernel: Place, softirq: Routine, work: LookAtLink | None) -> None:
        """Set what may interrupt the vCPU.

        Args:
            handlers: what looks at each queue, receive queue first.
            kernel: where handlers run.
            softirq: runs softirqs.
            work: what looks at a changed configuration; None where nothing ever changes in it.
        """


class PciTransport:
    """virtio-pci: a notify address for each queue, and with MSI-X a vector for each queue and for the configuration."""

    process: qemu.Qemu

    def __init__(self, parts: Parts, guest: Guest) -> None:
        self.parts, self.guest = parts, guest
        self.on_intel = parts.world["cpu"] == "intel"

    def kick(self, queue: int, exit_to_kvm: Routine, row: str) -> Routine:
        """Make the driver's kick: a store to the queue's own address."""
        guest = self.guest
        name = (guest.rx_name, guest.tx_name)[queue]
        notify = virtio_net.Notify if self.parts.world.on("guest_if") else virtio_net.NotifyInterruptsOff
        return notify(f"{name}.notify", guest.driver_place, name, guest.cpu, exit_to_kvm, row)

    def light_exits(self, kicks: Sequence[kvm.EventfdCells], wakeups: Sequence[Routine]) -> list[Routine]:
        """Make a light exit for each queue's address."""
        guest = self.guest
        names = (guest.rx_name, guest.tx_name)
        return [self._light_exit(guest, queue, names[queue], kicks[queue], wakeups[queue]) for queue in (RX, TX)]

    def light_exit_from(self, vcpu: Guest, queue: int, kick: kvm.EventfdCells, wakeup: Routine) -> Routine:
        """Make a light exit on a vCPU that the queue is not bound to: only on PCI there are several.

        Args:
            vcpu: that one.
            queue: RX or TX.
            kick: the queue's eventfd.
            wakeup: what signalling it leads to.
        """
        name = f"{(self.guest.rx_name, self.guest.tx_name)[queue]}.from_vcpu{vcpu.number}"
        return self._light_exit(vcpu, queue, name, kick, wakeup)

    def _light_exit(self, by: Guest, queue: int, name: str, kick: kvm.EventfdCells, wakeup: Routine) -> Routine:
        guest, fast = self.guest, self.parts.world.on("fast_mmio")
        exit_class = kvm_eventfd.kick_class(on_intel=self.on_intel, fast=fast)
        after = "The kick is done with." if self.on_intel and fast else "The store has been emulated."
        enter = enter_guest(by, "KICK.5", f"{guest.queues[queue]}_kick", after)
        queue_name = (guest.rx_name, guest.tx_name)[queue]
        index = guest.index_of(queue)
        return exit_class(f"{name}.kick_exit", KVM, by.vcpu, queue_name, index, kick, wakeup, enter)

    def heavy_exits(self, process: qemu.Qemu, serve: Sequence[Routine]) -> list[Routine]:
        """Make a heavy exit for each queue's address."""
        from virtviz.paths import kvm_mmio, qemu_vcpu  # noqa: PLC0415 - as all below: imported where a world has it

        guest = self.guest
        exit_class = kvm_mmio.HeavyKickIntel if self.on_intel else kvm_mmio.HeavyKickAmd
        made: list[Routine] = []
        for queue, name in ((RX, guest.rx_name), (TX, guest.tx_name)):
            mmio = qemu_vcpu.HandleMmio(f"{name}.mmio", QEMU_VCPU, process, name, serve[queue])
            enter = enter_guest(guest, "KICK.5", f"{guest.queues[queue]}_kick", "KVM_RUN is called again.")
            made.append(exit_class(f"{name}.kick_exit", KVM, guest.vcpu, name, guest.index_of(queue), mmio, enter))
        return made

    def kind(self, kind: type[R]) -> type[R]:
        """Give the class itself: each queue has a message of its own."""
        return kind

    def interrupt(self, queue: str, bit: int, who: str) -> Routine:
        """Make ioctl(KVM_SIGNAL_MSI) for the queue's vector."""
        deliver = msi_delivery(self.parts, self.guest, f"{queue}.msi_by_{who}", queue, bit)
        return kvm_msi.SignalMsi(f"{queue}.signal_msi_by_{who}", KVM_VM, deliver)

    def config_interrupt(self, name: str, place: Place, device: DeviceStatus) -> qemu_checks.NotifyConfig:
        """Make ioctl(KVM_SIGNAL_MSI) for the configuration's vector."""
        from virtviz.paths import qemu_checks  # noqa: PLC0415

        deliver = msi_delivery(self.parts, self.guest, f"{name}.msi", "", CONFIG)
        signal = kvm_msi.SignalMsi(f"{name}.signal_msi", KVM_VM, deliver)
        return qemu_checks.NotifyConfig(f"{name}.notify_config", place, device, signal)

    def config_load(self, process: qemu.Qemu) -> Routine:
        """Make what a load from the device's configuration leads to."""
        return config_load(self.parts, self.guest, process)

    def called(self, queue: str, bit: int, call: kvm.EventfdCells) -> Routine:
        """Make the irqfd of the queue's vector."""
        deliver = msi_delivery(self.parts, self.guest, f"{queue}.msi", queue, bit)
        return kvm_eventfd.Irqfd(f"{queue}.irqfd", KVM, call, deliver)

    def serve_calls(self, name: str, cpu: int, calls: Sequence[kvm.EventfdCells]) -> None:
        """Make nothing: KVM hears of calls."""

    def open_gates(self, handlers: Sequence[Routine], kernel: Place, softirq: Routine, work: LookAtLink | None) -> None:
        """Set what may interrupt the vCPU: a vector for each queue, and for the configuration."""
        guest = self.guest
        name, vcpu = guest.tag, guest.vcpu
        by_vector: dict[str, Routine] = dict(zip(guest.queues, handlers, strict=True))
        take_class = TakeInterrupt
        if work is not None:
            from virtviz.paths.guest_config import ConfigChanged, TakeInterruptThenWork  # noqa: PLC0415

            take_class = TakeInterruptThenWork
            by_vector[CONFIG_NAME] = ConfigChanged(f"{name}.config_interrupt", guest.driver_place, work.work)
        if self.parts.world.number("queues") > 1:
            from virtviz.paths.guest_smp import RescheduleInterrupt  # noqa: PLC0415

            by_vector[kvm.RESCHEDULE] = RescheduleInterrupt(f"{name}.reschedule", kernel)
        eoi_exit = kvm.EoiExit(f"{name}.eoi", KVM, vcpu, enter_guest(guest, "IRQ.5", "eoi", "The interrupt is ended."))
        open_all_gates(guest, kernel, take_class, by_vector, softirq, eoi_exit, work)


def config_load(parts: Parts, guest: Guest, process: qemu.Qemu) -> kvm_config.HeavyLoad:
    """Make what a load from the device's configuration leads to."""
    from virtviz.paths import kvm_config  # noqa: PLC0415

    assert guest.config is not None
    give = kvm_config.GiveConfig(f"{guest.name}.give_config", QEMU_VCPU, process, guest.device, guest.config.cells)
    load_class = kvm_config.HeavyLoadIntel if parts.world["cpu"] == "intel" else kvm_config.HeavyLoadAmd
    enter = enter_guest(guest, "CONFIG.9", "config_load", "KVM_RUN is called again.")
    return load_class(f"{guest.name}.config_load", KVM, guest.vcpu, give, enter)


def open_all_gates(
    guest: Guest,
    kernel: Place,
    take_class: type[TakeInterrupt],
    handlers: Mapping[str, Routine],
    softirq: Routine,
    eoi_exit: Routine,
    work: LookAtLink | None,
) -> list[TakeInterrupt]:
    """Set what may interrupt the vCPU, in both modes; answers how an interrupt is taken in each.

    Args:
        guest: the vCPU.
        kernel: where handlers run.
        take_class: how an interrupt is taken.
        handlers: a vector's name -> its handler.
        softirq: runs softirqs.
        eoi_exit: what happens when ending the interrupt leaves the guest.
        work: what looks at a changed configuration; None where nothing ever changes in it.
    """
    name = guest.tag
    in_kernel = guest.place("cpu", Domain.GUEST_KERNEL, "CPU", Role.CPU)
    modes = (("user", guest.place("cpu.user", Domain.GUEST_USER, "CPU", Role.CPU)), ("kernel", in_kernel))
    takes = [
        take_class(f"{name}.interrupt_in_{mode}", guest.cpu, place, in_kernel, kernel, handlers, softirq, eoi_exit)
        for mode, place in modes
    ]
    if work is not None:
        from virtviz.paths.guest_config import TakeInterruptThenWork  # noqa: PLC0415

        for take in takes:
            if isinstance(take, TakeInterruptThenWork):
                take.config, take.work = work.work, work
    open_gates(guest, modes, takes)
    return takes


def make_transport(parts: Parts, guest: Guest) -> Transport:
    """Make what carries a queue pair's kicks and interrupts."""
    if parts.world["transport"] == "mmio":
        from virtviz.paths.wire_mmio import MmioTransport  # noqa: PLC0415 - where it is chosen only

        return MmioTransport(parts, guest)
    return PciTransport(parts, guest)


def pci_transport(guest: Guest) -> PciTransport:
    """Give what carries a queue pair's kicks, where there are several: by the knobs that is PCI."""
    assert isinstance(guest.transport, PciTransport)
    return guest.transport
