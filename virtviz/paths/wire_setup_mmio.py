"""Putting a set-up together where the device is a virtio-mmio one: what is found, asked and tied in another way.

The hypervisor's start, the TAP, vhost, and the order of the steps of virtio are those of `wire_setup.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.places import Domain
from virtviz.paths import kvm_queue_notify, qemu_fds
from virtviz.paths.features import INDIRECT
from virtviz.paths.parts import FDS, KVM, KVM_VM, QEMU, QEMU_VCPU
from virtviz.paths.qemu import MainLoop
from virtviz.paths.qemu_tx import ReadKick
from virtviz.paths.setup import access, features, guest_control, guest_mmio, qemu_mmio_registers
from virtviz.paths.setup.guest_open import OpenDevice
from virtviz.paths.setup.guest_rebind import RebindingProgram
from virtviz.paths.setup.guest_remove import OpenAgain
from virtviz.paths.setup.mmio_registers import describe_device
from virtviz.paths.setup.qemu_mmio_start import (
    MicrovmStart,
    MicrovmStartWithVhost,
    QueueNotifyEventfd,
    StartInQemuOnMmio,
    StartVhostOnMmio,
    StopInQemuOnMmio,
    UntieNumbers,
)
from virtviz.paths.setup.qemu_start import QemuStart, QemuStartWithVhost
from virtviz.paths.setup.qemu_vhost import StopVhost
from virtviz.paths.setup.vcpu_start import FirstEntry, VcpuThread
from virtviz.paths.virtio_net import OpenDevice as RunningOpenDevice
from virtviz.paths.wire_mmio import MmioTransport
from virtviz.paths.wire_qemu import QemuPair
from virtviz.paths.wire_rings import make_driver
from virtviz.paths.wire_setup import PowerOn

if TYPE_CHECKING:
    from virtviz.engine.memory import Region
    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.engine.threads import Thread
    from virtviz.paths.setup.calls import VhostCalls
    from virtviz.paths.setup.qemu_userspace import StartInQemu, StopInQemu


class PowerOnMmio(PowerOn):
    """The beginning of one virtual machine with a virtio-mmio device."""

    start_class: ClassVar[type[QemuStart]] = MicrovmStart
    start_with_vhost_class: ClassVar[type[QemuStartWithVhost]] = MicrovmStartWithVhost
    start_in_qemu: ClassVar[type[StartInQemu]] = StartInQemuOnMmio
    stop_in_qemu: ClassVar[type[StopInQemu]] = StopInQemuOnMmio
    described_in: ClassVar[str] = "acpi_tables"
    registers_name: ClassVar[str] = "virtio_mmio"

    @property
    def transport(self) -> MmioTransport:
        """What carries kicks and interrupts."""
        found = self.guest.transport
        assert isinstance(found, MmioTransport)
        return found

    # What the machine is made of

    def _describe(self, config: Region) -> None:
        """Write what the machine's tables say of the device."""
        describe_device(config)

    def _main_thread(self, process: str) -> Thread:
        """Give QEMU's main thread, which hears of calls later."""
        return self.transport.process.thread

    def _start_qemu(self, vhost: VhostCalls | None) -> None:
        """Have QEMU's main thread begin at main(); later it waits for kicks, or for vhost's calls."""
        main_loop = self.main.start
        super()._start_qemu(vhost)
        assert isinstance(self.main.start, QemuStart)
        self.main.start.main_loop = main_loop

    def _known(self) -> int:
        """Give the features that the guest's drivers know: to reset a queue alone is known to virtio-pci only."""
        return super()._known() & ~features.mask((features.RING_RESET,))

    # The guest and its CPU

    def _start_vcpu(self, vhost: VhostCalls | None) -> None:
        """Have the vCPU's thread begin before its vCPU exists."""
        guest, setup, name = self.guest, self.setup, self.guest.name
        kernel, driver = guest.place("kernel", Domain.GUEST_KERNEL, "guest kernel"), guest.driver_place
        mmio = guest.place("virtio_mmio", Domain.GUEST_KERNEL, "virtio-mmio")
        # The device asks KVM by the calls that are made here.
        self.calls.ioeventfd = QueueNotifyEventfd(f"{setup.process_name}.kvm.queue_notify", KVM_VM, setup)
        reach = self._device_access(vhost)
        opened = guest.thread.start
        assert isinstance(opened, RunningOpenDevice)
        commands = self._commands(driver, reach)
        fill = guest_control.FillAndCommand(f"{name}.fill_queues", driver, setup, reach, opened.refill, commands)
        onward = OpenDevice(f"{name}.open_device", driver, setup, fill, opened.program)
        (control,) = self.control_driver
        queues = guest_mmio.SetMmioQueuesUp(f"{name}.find_vqs", mmio, setup, reach, control)
        probe = guest_mmio.MmioProbe(
            f"{name}.probe", mmio, setup, reach, knows=self._known(), queues=queues, onward=onward
        )
        if self.parts.traffic.has_resets:
            self._rebind(mmio, reach, queues, fill)
        find = guest_mmio.FindInTables(f"{name}.find_device", mmio, setup, reach, probe)
        boot = guest_mmio.BootMicrovm(f"{name}.boot", kernel, find)
        enter = FirstEntry(f"{name}.first_entry", KVM, guest.vcpu, boot)
        guest.thread.start = VcpuThread(f"{name}.vcpu_thread", QEMU_VCPU, setup, self.calls, enter, 0)

    def _rebind(self, pci: Place, reach: Routine, queues: Routine, refill: Routine) -> None:
        """Let the program take the driver off the device and put it back."""
        guest, setup, name = self.guest, self.setup, self.guest.name
        assert isinstance(guest.program, RebindingProgram)
        probe = guest_mmio.MmioProbe(
            f"{name}.probe_again",
            pci,
            setup,
            reach,
            knows=self._known(),
            queues=queues,
            onward=OpenAgain(f"{name}.open_again", guest.driver_place, setup, refill),
        )
        guest.program.rebind = guest_mmio.RemoveMmioDriver(
            f"{name}.remove",
            pci,
            setup,
            reach,
            drivers=(guest.rx_driver, guest.tx_driver, *self.control_driver),
            pools=(guest.memory.buffers, guest.memory.skbs),
            again=guest_mmio.ProbeAgain(f"{name}.find_again", pci, setup, reach, probe),
        )

    def _commands(self, driver: Place, reach: Routine) -> Routine:
        """Make what sends commands: what to receive."""
        guest, setup, layout, world = self.guest, self.setup, self.guest.memory.control_layout, self.parts.world
        name = f"{guest.name}.controlq"
        layout.name_fields(guest.memory.region, name)
        ring = make_driver(self.parts, name, guest.tx_driver.memory, layout, indirect=world.has(INDIRECT))
        self.control_driver.append(ring)
        commands = guest_mmio.SendMmioCommands(
            f"{name}.send", driver, setup, reach, self._control_kick(name, reach), ring, layout.end
        )
        commands.kicked = self.transport.access
        return commands

    def _control_kick(self, name: str, reach: Routine) -> Routine:
        """Make what a store of the control queue's number leads to, and who serves it."""
        backend, setup = self.backend, self.setup
        if not isinstance(backend, QemuPair):
            return reach
        eventfd = backend.qemu.control
        assert eventfd is not None
        serve = qemu_mmio_registers.ServeControlByLine(
            self.parts.state,
            f"{name}.serve",
            QEMU,
            self.device,
            self.control_ring.through(backend.tx_device.memory),
            self.transport.interrupt(name, 0, "main_loop"),
            f"the main loop of {setup.process_name}",
        )
        read = qemu_fds.ReadEventfd(f"{setup.process_name}.read_control", FDS, eventfd, "CP.4.4")
        loop = backend.qemu.thread.start
        assert isinstance(loop, MainLoop)
        loop.work = {**loop.work, "control kick": ReadKick(f"{name}.read_kick", QEMU, "", read, serve, "CP.4.4")}
        woken = qemu_fds.WakePoller(f"{name}.kick_wakeup", FDS, backend.qemu, "KICK.4", "the control queue's eventfd")
        signal = kvm_queue_notify.SignalIoeventfd(f"{name}.ioeventfd", KVM, "", eventfd, woken)
        return self.transport.add_kick("controlq", signal)

    def _device_access(self, vhost: VhostCalls | None) -> Routine:
        """Make what a load or store of a device register leads to."""
        guest, setup, name = self.guest, self.setup, self.guest.name
        start, stop = self._start_and_stop(vhost)
        reset = qemu_mmio_registers.ResetMmioDevice(
            f"{name}.reset", QEMU_VCPU, setup, stop, self._follow("after_reset"), self.device
        )
        reset.status, reset.line = guest.device, self.transport.line_at(QEMU_VCPU, f"{name}.reset", "CP.1.1")
        interrupt = self.transport.interrupt_from(QEMU_VCPU, f"{name}.controlq", "vcpu")
        regions: dict[str, Routine] = {
            "notify": qemu_mmio_registers.ServeControlByLine(
                self.parts.state, f"{name}.control", QEMU_VCPU, self.device, self.control_ring, interrupt
            ),
            "common load": qemu_mmio_registers.MmioLoad(f"{name}.register_load", QEMU_VCPU, setup),
            "common store": qemu_mmio_registers.MmioStore(
                f"{name}.register_store", QEMU_VCPU, setup, self._follow("after_answer"), start, reset
            ),
            "device configuration": qemu_mmio_registers.MmioConfigLoad(f"{name}.net_config_load", QEMU_VCPU, setup),
        }
        lock = access.BigLock(self.transport.process.cells)
        serve = qemu_mmio_registers.ServeMmioAccess(f"{name}.serve_access", QEMU_VCPU, setup, lock, regions)
        on_intel = self.parts.world["cpu"] == "intel"
        access_class = access.DeviceAccessIntel if on_intel else access.DeviceAccessAmd
        return access_class(f"{name}.device_access", KVM, guest.vcpu, setup, serve)

    def _start_and_stop(self, vhost: VhostCalls | None) -> tuple[Routine, Routine]:
        """Make what DRIVER_OK and a reset do to the back-end."""
        setup, calls, name = self.setup, self.calls, self.guest.name
        if vhost is not None:
            untie = UntieNumbers(f"{name}.untie", QEMU_VCPU, setup, calls, vhost)
            return (
                StartVhostOnMmio(f"{name}.start_vhost", QEMU_VCPU, setup, calls, vhost, interrupts_first=False),
                StopVhost(f"{name}.stop_vhost", QEMU_VCPU, setup, calls, vhost, untie),
            )
        return super()._start_and_stop(vhost)
