"""Putting a set-up together: who makes what, from power-on to the moment at which the guest's program begins.

The world is the same as one that begins later, with the same threads and the same routines. What differs is where its
threads start: QEMU at main(), the vCPU's before its vCPU exists, vhost's worker before anybody has asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.places import Domain
from virtviz.paths.parts import KVM, VHOST_NET, tap_place
from virtviz.paths.setup import access, features, guest_pci, guest_probe, guest_queues, qemu_registers, qemu_tap, registers
from virtviz.paths.setup.calls import Calls, make_calls, make_vhost_calls
from virtviz.paths.setup.guest_open import OpenDevice
from virtviz.paths.setup.qemu_start import IdleMainLoop, QemuStart, QemuStartWithVhost
from virtviz.paths.setup.qemu_vhost import StartVhost, StopVhost
from virtviz.paths.setup.state import MSIX_ENTRIES, SetUp
from virtviz.paths.setup.vcpu_start import Boot, FirstEntry, VcpuThread
from virtviz.paths.setup.vhost_birth import AskBackend, WorkerBirth
from virtviz.paths.traffic import vm_endpoint
from virtviz.paths.vhost import PollWakeup, Work, WorkerLoop
from virtviz.paths.virtio_net import OpenDevice as RunningOpenDevice
from virtviz.paths.wire_backend import FIRST_PID, VhostBackend
from virtviz.paths.wire_qemu import KVM_VM, QEMU, QEMU_VCPU, QemuBackend

if TYPE_CHECKING:
    from virtviz.engine.machine import Machine
    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.host_net import Wire
    from virtviz.paths.parts import Parts
    from virtviz.paths.setup.calls import VhostCalls
    from virtviz.paths.wire_guest import Guest

CONFIG_BYTES = 256


class PowerOn:
    """The beginning of one virtual machine.

    Args:
        parts: the world in the making, whose threads are wired for a run that begins later.
        guest: the virtual machine.
        backend: what serves it.
    """

    def __init__(self, parts: Parts, guest: Guest, backend: VhostBackend | QemuBackend) -> None:
        self.parts, self.guest, self.backend = parts, guest, backend
        world, state, memory = parts.world, parts.state, guest.memory
        process = f"qemu-{FIRST_PID}"
        config = state.region(f"{guest.name}.pci_config", CONFIG_BYTES)
        registers.fill_config_space(config, MSIX_ENTRIES)
        self.setup = SetUp(
            state,
            guest.name,
            process,
            config=config,
            tap=backend.tap,
            kicks=backend.kicks,
            layouts=(memory.rx_layout, memory.tx_layout, memory.control_layout),
            device_rings=(backend.rx_device, backend.tx_device),
            mac=vm_endpoint(0).mac,
            worker_name=backend.thread.name,
            host_kernel=world.word("host_kernel"),
            vhost_missing=False,
        )
        self.is_7_2 = world["qemu_version"] == "7.2"
        vhost = self._vhost_calls()
        self.calls = make_calls(self.setup, tap_place(backend.tap.name), KVM_VM, vhost)
        self.main = backend.thread if isinstance(backend, QemuBackend) else parts.thread(process, cpu=0)
        self._start_vcpu(vhost)
        self._start_qemu(vhost)
        self.setup.process.launched = 1
        guest.vcpu.cells.in_guest = 0

    # vhost

    def _vhost_calls(self) -> VhostCalls | None:
        """Make vhost's part, and have its worker begin before it exists."""
        backend = self.backend
        if not isinstance(backend, VhostBackend):
            return None
        loop = backend.thread.start
        assert isinstance(loop, WorkerLoop)
        loop.work = {
            name: AskBackend(f"{self.setup.process_name}.{name}", VHOST_NET, self.setup, is_tx="tx" in name, serve=work)
            for name, work in loop.work.items()
        }
        backend.thread.start = WorkerBirth(f"{backend.thread.name}.birth", VHOST_NET, self.setup, loop)
        wakeups = [
            PollWakeup(f"{name}.first_wakeup", VHOST_NET, backend.worker, work, "CP.6.15", who)
            for name, work, who in (
                (self.guest.rx_name, Work.RX_KICK, "receive queue kicked"),
                (self.guest.tx_name, Work.TX_KICK, "transmit queue kicked"),
            )
        ]
        return make_vhost_calls(self.setup, VHOST_NET, *wakeups)

    # The guest and its CPU

    def _start_vcpu(self, vhost: VhostCalls | None) -> None:
        """Have the vCPU's thread begin before its vCPU exists."""
        guest, setup, name = self.guest, self.setup, self.guest.name
        kernel, driver = guest.place("kernel", Domain.GUEST_KERNEL, "guest kernel"), guest.driver_place
        pci = guest.place("virtio_pci", Domain.GUEST_KERNEL, "virtio-pci")
        reach, select = self._device_access(vhost), access.SelectConfig(f"{name}.select_config", KVM, guest.vcpu, setup)
        opened = guest.thread.start
        assert isinstance(opened, RunningOpenDevice)
        onward = OpenDevice(f"{name}.open_device", driver, setup, opened.refill, opened.program)
        write = guest_queues.WriteMessage(f"{name}.write_message", pci, setup, reach)
        request = guest_queues.RequestInterrupt(f"{name}.request_irq", pci, setup, reach, write)
        queues = guest_queues.SetQueuesUp(f"{name}.find_vqs", pci, setup, reach, write, request)
        probe = guest_probe.Probe(
            f"{name}.probe",
            pci,
            setup,
            reach,
            knows=features.known_to_driver(self.parts.world),
            queues=queues,
            onward=onward,
        )
        read = guest_pci.ReadConfig(f"{name}.read_config", pci, setup, select, reach)
        enable = guest_pci.WriteCommand(f"{name}.write_command", pci, setup, select, reach)
        find = guest_pci.FindDevice(f"{name}.find_device", pci, setup, read, enable, probe)
        boot = Boot(f"{name}.boot", kernel, find)
        enter = FirstEntry(f"{name}.first_entry", KVM, guest.vcpu, boot)
        guest.thread.start = VcpuThread(f"{name}.vcpu_thread", QEMU_VCPU, setup, self.calls, enter)

    def _device_access(self, vhost: VhostCalls | None) -> Routine:
        """Make what a load or store of a device register leads to."""
        guest, setup, name = self.guest, self.setup, self.guest.name

        def accepted() -> int:
            return setup.driver_features

        def follow(what: str) -> Routine:
            header = qemu_tap.HeaderLength(
                f"{name}.{what}_header",
                QEMU_VCPU,
                setup,
                self.calls,
                lambda: qemu_tap.header_bytes(accepted()),
                tries=self.is_7_2,
            )
            offload = qemu_tap.Offload(f"{name}.{what}_offload", QEMU_VCPU, setup, self.calls, accepted)
            return qemu_tap.FollowGuest(f"{name}.{what}", QEMU_VCPU, setup, header, offload)

        assert vhost is not None
        start: Routine = StartVhost(
            f"{name}.start_vhost", QEMU_VCPU, setup, self.calls, vhost, interrupts_first=self.is_7_2
        )
        stop: Routine = StopVhost(f"{name}.stop_vhost", QEMU_VCPU, setup, self.calls, vhost)
        reset = qemu_registers.ResetDevice(f"{name}.reset", QEMU_VCPU, setup, stop, follow("after_reset"))
        regions = {
            "common load": qemu_registers.CommonLoad(f"{name}.common_load", QEMU_VCPU, setup),
            "common store": qemu_registers.CommonStore(
                f"{name}.common_store", QEMU_VCPU, setup, follow("after_answer"), start, reset
            ),
            "device configuration": qemu_registers.DeviceConfigLoad(f"{name}.config_load", QEMU_VCPU, setup),
            "MSI-X table": qemu_registers.MsixStore(f"{name}.msix_store", QEMU_VCPU, setup),
            "configuration space": qemu_registers.ConfigSpace(f"{name}.config_space", QEMU_VCPU, setup),
        }
        lock = access.BigLock(setup.process if isinstance(self.backend, VhostBackend) else self.backend.qemu.cells)
        serve = access.ServeAccess(f"{name}.serve_access", QEMU_VCPU, setup, lock, regions)
        on_intel = self.parts.world["cpu"] == "intel"
        access_class = access.DeviceAccessIntel if on_intel else access.DeviceAccessAmd
        return access_class(f"{name}.device_access", KVM, guest.vcpu, setup, serve)

    # QEMU

    def _start_qemu(self, vhost: VhostCalls | None) -> None:
        """Have QEMU's main thread begin at main()."""
        world, setup, name = self.parts.world, self.setup, self.setup.process_name
        without_backend = features.tap_features(world, features.model_features(world), vnet_hdr=True)
        if vhost is None:
            start: QemuStart = QemuStart(
                f"{name}.start",
                QEMU,
                setup,
                self.calls,
                opens_tap=True,
                is_7_2=self.is_7_2,
                offered_without_backend=without_backend,
            )
            start.main_loop = self.main.start
        else:
            start = QemuStartWithVhost(
                f"{name}.start",
                QEMU,
                setup,
                self.calls,
                vhost,
                opens_tap=True,
                is_7_2=self.is_7_2,
                offered_without_backend=without_backend,
            )
            start.main_loop = IdleMainLoop(f"{name}.main_loop", QEMU)
        self.main.start = start

    # Where a run begins

    def rest(self, machine: Machine, wire: Wire) -> None:
        """Let the host, which is up already, come to rest; nobody who belongs to the set-up has begun."""
        wire.phase = lambda _: (-1, 0)
        held = {self.main.me.index, self.guest.thread.me.index}
        machine.run(held=held)
        program, probe = self.guest.program, self.setup.probe
        # Nothing arrives for a machine that is not there.
        wire.phase = lambda _: program.phase() if probe.up else (-1, 0)
        machine.begin_here()


