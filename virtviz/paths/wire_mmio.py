"""Putting virtio-mmio together: its one register for kicks, its one interrupt line, and the registers behind that.

The machine is QEMU's `microvm` with the interrupt controllers in the kernel and one IOAPIC
(`-machine microvm,kernel_irqchip=on,ioapic2=off`), and with `-global virtio-mmio.force-legacy=false`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from virtviz.engine.ops import Routine
from virtviz.paths import (
    kvm,
    kvm_device,
    kvm_ioapic,
    kvm_queue_notify,
    qemu_calls,
    qemu_fds,
    qemu_line,
    qemu_virtio_mmio,
    virtio_mmio,
)
from virtviz.paths.guest_level import TakeLevelInterrupt, TakeLevelInterruptByExits
from virtviz.paths.parts import CALLFD, KVM, KVM_VM, QEMU, QEMU_VCPU
from virtviz.paths.wire_guest import LINE, RX, TX, enter_guest, msi_delivery
from virtviz.paths.wire_transport import config_load, open_all_gates
from virtviz.spec.virtio_mmio import ADDRESSES, GSI, LINK_STATUS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.paths import qemu, qemu_checks
    from virtviz.paths.device_status import DeviceStatus
    from virtviz.paths.guest_config import LookAtLink
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_guest import Guest

R = TypeVar("R", bound=Routine)

ROWS: Final[Mapping[str, str]] = MappingProxyType({"end": "MMIO.8"})
_FAST_BUS: Final = MappingProxyType(
    {"try_fast_bus": {"text": "{address} is not on KVM's fast MMIO bus: no kick is expected there, so no shortcut."}}
)


class LeaveForRegisterIntel(kvm_device.LeaveForDeviceIntel):
    """An access to a register of virtio-mmio, on Intel."""

    addresses = ADDRESSES
    retold = _FAST_BUS


class LeaveForRegisterAmd(kvm_device.LeaveForDeviceAmd):
    """The same on AMD."""

    addresses = ADDRESSES


class LoadRegister(kvm_device.LoadInQemu):
    """A load whose value only QEMU knows."""

    addresses = ADDRESSES


class StoreRegister(kvm_device.StoreInQemu):
    """A store that only QEMU can carry out."""

    addresses = ADDRESSES


class MmioTransport:
    """virtio-mmio for one queue pair, which is all that its device has.

    Attributes:
        access: the register access under way.
        ioapic: the pin of KVM's IOAPIC that the device's line is connected with.
        process: the QEMU process whose vCPU thread serves the registers; set by whoever makes it.
        light: what a kick leads to where KVM signals an eventfd.
    """

    process: qemu.Qemu
    light: kvm_queue_notify.LightQueueNotify

    def __init__(self, parts: Parts, guest: Guest) -> None:
        self.parts, self.guest = parts, guest
        self.on_intel = parts.world["cpu"] == "intel"
        self.access = parts.state.add(kvm_device.AccessCells, f"{guest.name}.vcpu0.access")
        self.ioapic = kvm_ioapic.Ioapic(parts.state, f"{guest.name}.ioapic", GSI)

    # Kicks

    def kick(self, queue: int, exit_to_kvm: Routine, row: str) -> Routine:
        """Make the driver's kick: a store of the queue's number to QueueNotify."""
        guest = self.guest
        name = (guest.rx_name, guest.tx_name)[queue]
        enabled = self.parts.world.on("guest_if")
        kind = virtio_mmio.NotifyMmio if enabled else virtio_mmio.NotifyMmioInterruptsOff
        made = kind(f"{name}.notify", guest.driver_place, name, guest.cpu, exit_to_kvm, row)
        made.index, made.access = guest.index_of(queue), self.access
        return made

    def light_exits(self, kicks: Sequence[kvm.EventfdCells], wakeups: Sequence[Routine]) -> list[Routine]:
        """Make one exit for both queues: KVM tells them apart by the value stored."""
        guest = self.guest
        ioeventfds: dict[str, Routine] = {
            queue: kvm_queue_notify.SignalIoeventfd(f"{name}.ioeventfd", KVM, name, kick, wakeup)
            for queue, name, kick, wakeup in zip(
                guest.queues, (guest.rx_name, guest.tx_name), kicks, wakeups, strict=True
            )
        }
        light = kvm_queue_notify.LightQueueNotifyIntel if self.on_intel else kvm_queue_notify.LightQueueNotifyAmd
        enter = enter_guest(guest, "KICK.5", "kick", "The store has been emulated.")
        name = f"{guest.name}.queue_notify"
        self.light = light(name, KVM, guest.vcpu, self.access, ioeventfds, enter)
        return [self.light] * len(guest.queues)

    def add_kick(self, queue: str, signal: Routine) -> Routine:
        """Let the number behind those of the queues so far signal an eventfd; answers what a kick leads to.

        Args:
            queue: the queue's name.
            signal: the signalling of its eventfd.
        """
        self.light.ioeventfds[queue] = signal
        return self.light

    def heavy_exits(self, process: qemu.Qemu, serve: Sequence[Routine]) -> list[Routine]:
        """Make one exit for both queues: QEMU tells them apart by the value stored."""
        guest = self.guest
        name = f"{guest.name}.queue_notify"
        in_qemu = qemu_virtio_mmio.HandleQueueNotify(
            f"{name}.mmio", QEMU_VCPU, process, self.access, dict(zip(guest.queues, serve, strict=True))
        )
        heavy = kvm_queue_notify.HeavyQueueNotifyIntel if self.on_intel else kvm_queue_notify.HeavyQueueNotifyAmd
        enter = enter_guest(guest, "KICK.5", "kick", "KVM_RUN is called again.")
        return [heavy(name, KVM, guest.vcpu, self.access, in_qemu, enter)] * len(guest.queues)

    # Interrupts, from QEMU's side

    def kind(self, kind: type[R]) -> type[R]:
        """Give the class that tells the guest by the device's line."""
        by_line = qemu_virtio_mmio.BY_LINE
        if self.parts.world["queue.format"] == "packed":
            from virtviz.paths.qemu_packed_by_line import BY_LINE  # noqa: PLC0415 - where rings are packed only

            by_line = BY_LINE
        return by_line.get(kind, kind)  # type: ignore[return-value]

    def interrupt(self, queue: str, bit: int, who: str) -> Routine:
        """Make what sets InterruptStatus and raises the line."""
        return self.interrupt_from(QEMU, queue, who)

    def interrupt_from(self, place: Place, queue: str, who: str) -> Routine:
        """The same at a place of QEMU's."""
        name = f"{queue}.line_by_{who}"
        return qemu_virtio_mmio.SetStatus(name, place, queue, self.guest.device, self.line_at(place, name, "MMIO.4"))

    def config_interrupt(self, name: str, place: Place, device: DeviceStatus) -> qemu_checks.NotifyConfig:
        """Make what raises the line because the configuration changed."""
        line = self.line_at(place, f"{name}.line", "CONFIG.5")
        return qemu_virtio_mmio.NotifyConfigByLine(f"{name}.notify_config", place, device, line)

    def config_load(self, process: qemu.Qemu) -> Routine:
        """Make what a load from the device's configuration leads to."""
        made = config_load(self.parts, self.guest, process)
        made.address = LINK_STATUS
        return made

    def called(self, queue: str, bit: int, call: kvm.EventfdCells) -> Routine:
        """Make the callback of QEMU's ppoll(): no eventfd is tied to an interrupt."""
        who = ("the receive queue's call eventfd", "the transmit queue's call eventfd")[bit]
        return qemu_fds.WakePoller(f"{queue}.call_wakeup", CALLFD, self.process, "MMIO.1", who)

    def serve_calls(self, name: str, cpu: int, calls: Sequence[kvm.EventfdCells]) -> None:
        """Make QEMU's main loop, which hears of vhost's calls."""
        parts, guest = self.parts, self.guest
        thread = parts.thread(name, cpu=cpu)
        own = parts.state.add(kvm.EventfdCells, f"{name}.eventfd")
        self.process = process = qemu_calls.CallingQemu(parts.state, name, own, calls)
        process.thread = thread
        work: dict[str, Routine] = {
            handler: qemu_calls.ReadCall(
                f"{queue}.read_call",
                QEMU,
                queue,
                qemu_fds.ReadEventfd(f"{queue}.read_call_eventfd", CALLFD, calls[bit], "MMIO.2"),
                self.interrupt(queue, bit, "main_loop"),
            )
            for handler, queue, bit in (
                ("transmit call", guest.tx_name, TX),
                ("receive call", guest.rx_name, RX),
            )
        }
        thread.start = qemu_calls.CallLoop(
            f"{name}.loop",
            QEMU,
            process,
            poll_wait=qemu_calls.WaitForCalls(f"{name}.poll_wait", CALLFD, process),
            poll_now=qemu_fds.PpollNow(f"{name}.poll_now", CALLFD, process),
            work=work,
            next_out=lambda: 0,
            next_in=lambda: 0,
        )

    def line_at(self, place: Place, name: str, row: str) -> Routine:
        """Make what computes the line's level and tells KVM.

        Args:
            place: QEMU's code that does it.
            name: what the routines' names begin with.
            row: which row it is.
        """
        deliver = msi_delivery(self.parts, self.guest, f"{name}.vector", "", 0)
        own = kvm_ioapic.IrqLine(f"{name}.irq_line", KVM_VM, self.ioapic, deliver, row)
        tell = qemu_line.TellKvm(f"{name}.tell_kvm", place, own, row)
        return qemu_virtio_mmio.UpdateLine(f"{name}.update", place, self.guest.device, self.ioapic, tell, row)

    # Interrupts, from the guest's side

    def open_gates(self, handlers: Sequence[Routine], kernel: Place, softirq: Routine, work: LookAtLink | None) -> None:
        """Set what may interrupt the vCPU: the device's line."""
        guest, vcpu, device = self.guest, self.guest.vcpu, self.guest.device
        name, place = f"{guest.name}.virtio_mmio", guest.driver_place
        rx, tx = handlers
        read = qemu_virtio_mmio.ReadStatus(f"{name}.status", QEMU_VCPU, device, self.access)
        clear = qemu_virtio_mmio.Acknowledge(
            f"{name}.ack", QEMU_VCPU, device, self.access, self.line_at(QEMU_VCPU, f"{name}.ack", "MMIO.6")
        )
        kind = virtio_mmio.LineInterrupt if work is None else virtio_mmio.LineInterruptWithConfig
        handler = kind(
            self.parts.state,
            f"{name}.interrupt",
            place,
            access=self.access,
            load=self._access("InterruptStatus", read, "MMIO.5"),
            acknowledge=self._access("InterruptACK", clear, "MMIO.6"),
            transmit=tx,
            receive=rx,
        )
        if isinstance(handler, virtio_mmio.LineInterruptWithConfig) and work is not None:
            handler.config = virtio_mmio.ConfigChangedOnLine(f"{name}.config_interrupt", place, work.work)
        eoi_class = kvm_ioapic.LevelEoiByMark if vcpu.apicv else kvm_ioapic.LevelEoiByMsr
        again = msi_delivery(self.parts, guest, f"{name}.vector_again", "", 0)
        enter = enter_guest(guest, "MMIO.8", "eoi", "The interrupt is ended.")
        eoi = eoi_class(f"{name}.eoi", KVM, vcpu, self.ioapic, again, enter)
        eoi.rows = ROWS
        take_class = {
            (True, False): TakeLevelInterrupt,
            (True, True): virtio_mmio.TakeLineThenWork,
            (False, False): TakeLevelInterruptByExits,
            (False, True): virtio_mmio.TakeLineByExitsThenWork,
        }[vcpu.apicv, work is not None]
        takes = open_all_gates(guest, kernel, take_class, {LINE: handler}, softirq, eoi, work)
        read_tmr = kvm_ioapic.ReadTmr(
            f"{name}.tmr", KVM, vcpu, enter_guest(guest, "MMIO.8", "tmr", "The register has been read.")
        )
        read_tmr.rows = ROWS
        for take in takes:
            take.rows = ROWS
            if isinstance(take, TakeLevelInterruptByExits):
                take.read_tmr = read_tmr

    def _access(self, register: str, serve: Routine, row: str) -> Routine:
        """Make an exit that goes to QEMU."""
        guest, is_load, rows = self.guest, register == "InterruptStatus", (row, row)
        called = f"{guest.name}.virtio_mmio.{register}"
        serve_class = qemu_virtio_mmio.ServeRegisterLoad if is_load else qemu_virtio_mmio.ServeRegister
        in_qemu = serve_class(f"{called}.serve", QEMU_VCPU, self.process, register, serve, row)
        kind = LoadRegister if is_load else StoreRegister
        enter = enter_guest(guest, row, register, "KVM_RUN is called again.")
        made = kind(f"{called}.in_qemu", KVM, register, "", rows, in_qemu, enter)
        leave = LeaveForRegisterIntel if self.on_intel else LeaveForRegisterAmd
        return leave(f"{called}.exit", KVM, guest.vcpu, register, "", rows, made)
