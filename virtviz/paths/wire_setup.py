"""Putting a set-up together: who makes what, from power-on to the moment at which the guest's program begins.

The world is the same as one that begins later, with the same threads and the same routines. What differs is where its
threads start: QEMU at main(), the vCPU's before its vCPU exists, vhost's worker before anybody has asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.engine.places import Domain, Place
from virtviz.paths import kvm_eventfd, qemu_fds
from virtviz.paths.features import EVENT_IDX, INDIRECT
from virtviz.paths.kvm import EventfdCells
from virtviz.paths.parts import BRIDGE, FDS, KVM, KVM_VM, OVS, QEMU, QEMU_VCPU, VHOST_NET, VSWITCHD, tap_place
from virtviz.paths.qemu import MainLoop
from virtviz.paths.qemu_tx import ReadKick
from virtviz.paths.setup import (
    access,
    features,
    guest_control,
    guest_pci,
    guest_probe,
    guest_queues,
    guest_remove,
    libvirtd,
    ovsdb,
    qemu_control,
    qemu_registers,
    qemu_tap,
    registers,
    switch_port,
)
from virtviz.paths.setup.calls import make_calls, make_vhost_calls
from virtviz.paths.setup.guest_open import OpenDevice
from virtviz.paths.setup.guest_rebind import RebindingProgram
from virtviz.paths.setup.qemu_start import IdleMainLoop, QemuStart, QemuStartWithVhost
from virtviz.paths.setup.qemu_userspace import StartInQemu, StartVhostInVain, StopInQemu, WriteKick
from virtviz.paths.setup.qemu_vhost import StartVhost, StopVhost, UntieEventfds
from virtviz.paths.setup.state import CONTROL, MSIX_ENTRIES, SetUp
from virtviz.paths.setup.switch_port import TAP_PORT
from virtviz.paths.setup.vcpu_start import Boot, FirstEntry, VcpuThread
from virtviz.paths.setup.vhost_birth import AskBackend, IdleWorker, WorkerBirth
from virtviz.paths.traffic import vm_endpoint
from virtviz.paths.vhost import PollWakeup, Work, Worker, WorkerLoop
from virtviz.paths.virtio_device.device import NetDevice
from virtviz.paths.virtio_net import OpenDevice as RunningOpenDevice
from virtviz.paths.wire_backend import VhostPair
from virtviz.paths.wire_guest import FIRST_PID, enter_guest
from virtviz.paths.wire_qemu import QemuPair
from virtviz.ring.qemu_device import QemuDevice
from virtviz.ring.split import SplitLayout
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver

if TYPE_CHECKING:
    from virtviz.engine.machine import Machine
    from virtviz.engine.memory import Region
    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.host_net import Wire
    from virtviz.paths.parts import Parts
    from virtviz.paths.setup.calls import VhostCalls
    from virtviz.paths.tap import Tap
    from virtviz.paths.wire_guest import Guest
    from virtviz.paths.wire_vhost_user import VhostUserBackend
    from virtviz.ring.rings import Layout

LIBVIRTD = Place("libvirtd", Domain.HOST_USER, "libvirtd")
OVS_VSCTL = Place("ovs_vsctl", Domain.HOST_USER, "ovs-vsctl")
OVSDB_SERVER = Place("ovsdb_server", Domain.HOST_USER, "ovsdb-server")
UNIX = Place("unix", Domain.HOST_KERNEL, "UNIX sockets")
CONFIG_BYTES = 256


def _split(layout: Layout) -> SplitLayout:
    """Give a layout as what it is here; the knobs have seen to it."""
    assert isinstance(layout, SplitLayout)
    return layout


def _device(ring: object) -> SplitDevice:
    """The same for the device's side of a ring."""
    assert isinstance(ring, SplitDevice)
    return ring


def _driver(ring: object) -> SplitDriver:
    """The same for the driver's side."""
    assert isinstance(ring, SplitDriver)
    return ring


class PowerOn:
    """The beginning of one virtual machine.

    Args:
        parts: the world in the making, whose threads are wired for a run that begins later.
        guest: the virtual machine.
        backend: what serves it.
    """

    reset_class: ClassVar[type[qemu_registers.ResetDevice]] = qemu_registers.ResetDevice
    start_classes: ClassVar[tuple[type[QemuStart], type[QemuStartWithVhost]]] = (QemuStart, QemuStartWithVhost)
    start_in_qemu: ClassVar[type[StartInQemu]] = StartInQemu
    stop_in_qemu: ClassVar[type[StopInQemu]] = StopInQemu
    described_in: ClassVar[str] = "pci_config"
    registers_name: ClassVar[str] = "virtio_pci"

    def __init__(self, parts: Parts, guest: Guest, backend: VhostPair | QemuPair | VhostUserBackend) -> None:
        self.parts, self.guest, self.backend = parts, guest, backend
        world, state, memory = parts.world, parts.state, guest.memory
        process = f"qemu-{FIRST_PID}"
        self.port_name = self._name_port()
        config = state.region(f"{guest.name}.{self.described_in}", CONFIG_BYTES)
        self._describe(config)
        self.control_ring = QemuDevice(
            state,
            f"{process}.controlq.ring",
            guest.tx_driver.memory,
            memory.control_layout,
            back_end="qemu",
            event_idx=world.has(EVENT_IDX),
            indirect=world.has(INDIRECT),
        )
        self.device = NetDevice(
            state,
            f"{process}.net0",
            {CONTROL: self.control_ring},
            features=self._negotiated(),
            back_end="qemu",
            mac=vm_endpoint(0).mac,
        )
        self.setup = SetUp(
            state,
            guest.name,
            process,
            config=config,
            port_name=self.port_name,
            tap=self._tap(),
            kicks=backend.kicks,
            layouts=(_split(memory.rx_layout), _split(memory.tx_layout), memory.control_layout),
            device_rings=(_device(backend.rx_device), _device(backend.tx_device)),
            device=self.device,
            worker_name=f"vhost-{FIRST_PID}",
            host_kernel=world.word("host_kernel"),
            vhost_missing=world["vhost_start"] == "missing",
            vhost_fails=world["vhost_start"] == "fails",
            registers_name=self.registers_name,
        )
        self.control_driver: list[SplitDriver] = []
        if isinstance(backend, QemuPair):
            backend.qemu.control = state.add(EventfdCells, f"{guest.name}.controlq.kick")
        self.is_7_2 = world["qemu_version"] == "7.2"
        self.by_libvirt = world["launcher"] == "libvirt"
        vhost = self._vhost_calls()
        self.calls = make_calls(self.setup, tap_place(self.port_name), KVM_VM, vhost)
        self.main = backend.qemu.thread if isinstance(backend, QemuPair) else self._main_thread(process)
        self._start_vcpu(vhost)
        self._start_qemu(vhost)
        self.launchers: list[Thread] = []
        if self.by_libvirt:
            self._start_libvirt(vhost)
        else:
            # A TAP that was made to stay, and attached to the switch, before anybody thought of QEMU.
            tun = self.setup.tun
            tun.exists = tun.handled = tun.up = 1
            tun.port = TAP_PORT
            self.setup.process.launched = 1
        guest.vcpu.cells.in_guest = 0

    def _describe(self, config: Region) -> None:
        """Write what the machine says of the device."""
        registers.fill_config_space(config, MSIX_ENTRIES)

    def _main_thread(self, process: str) -> Thread:
        """Make QEMU's main thread, where it has nothing to do with packets."""
        return self.parts.thread(process, cpu=0)

    # The port

    def _name_port(self) -> str:
        """Name the port of the switch that the machine is behind."""
        tap = self._tap()
        assert tap is not None
        return tap.name

    def _tap(self) -> Tap | None:
        """Give the TAP, if that is what the machine is behind."""
        assert isinstance(self.backend, VhostPair | QemuPair)
        return self.backend.tap

    # vhost

    def _vhost_calls(self) -> VhostCalls | None:
        """Make vhost's part, and have its worker begin before it exists."""
        if self.parts.world["path"] != "vhost-net":
            return None
        backend, setup = self.backend, self.setup
        if isinstance(backend, VhostPair):
            worker, thread = backend.worker, backend.thread
            loop: Routine = self._with_backend_asked(thread.start)
        else:
            # It has an owner, but the start comes to nothing: it never gets work.
            thread = self.parts.thread(setup.worker_name, cpu=0)
            worker = Worker(self.parts.state, setup.worker_name)
            worker.thread = thread
            loop = IdleWorker(f"{setup.worker_name}.loop", VHOST_NET, setup)
        thread.start = WorkerBirth(f"{setup.worker_name}.birth", VHOST_NET, setup, loop)
        wakeups = [
            PollWakeup(f"{name}.first_wakeup", VHOST_NET, worker, work, "CP.6.15", who)
            for name, work, who in (
                (self.guest.rx_name, Work.RX_KICK, "receive queue kicked"),
                (self.guest.tx_name, Work.TX_KICK, "transmit queue kicked"),
            )
        ]
        return make_vhost_calls(setup, VHOST_NET, *wakeups)

    def _with_backend_asked(self, loop: Routine) -> Routine:
        """Have a worker look whether a ring has a back-end before it serves the ring."""
        assert isinstance(loop, WorkerLoop)
        loop.work = {
            name: AskBackend(f"{self.setup.process_name}.{name}", VHOST_NET, self.setup, is_tx="tx" in name, serve=work)
            for name, work in loop.work.items()
        }
        return loop

    def _offer(self) -> int:
        """Give what the device model has, as far as what it is joined to can do it."""
        world = self.parts.world
        return features.tap_features(world, features.model_features(world), vnet_hdr=True)

    def _negotiated(self) -> int:
        """Give what driver and device will have agreed on."""
        return features.without_unmet(self._offer() & self._known())

    def _known(self) -> int:
        """Give the features that the guest's drivers know."""
        return features.known_to_driver(self.parts.world)

    # The guest and its CPU

    def _start_vcpu(self, vhost: VhostCalls | None) -> None:
        """Have the vCPU's thread begin before its vCPU exists."""
        guest, setup, name = self.guest, self.setup, self.guest.name
        kernel, driver = guest.place("kernel", Domain.GUEST_KERNEL, "guest kernel"), guest.driver_place
        pci = guest.place("virtio_pci", Domain.GUEST_KERNEL, "virtio-pci")
        reach, select = self._device_access(vhost), access.SelectConfig(f"{name}.select_config", KVM, guest.vcpu, setup)
        opened = guest.thread.start
        assert isinstance(opened, RunningOpenDevice)
        fill = self._fill(driver, reach, opened.refill)
        onward = OpenDevice(f"{name}.open_device", driver, setup, fill, opened.program)
        write = guest_queues.WriteMessage(f"{name}.write_message", pci, setup, reach)
        request = guest_queues.RequestInterrupt(f"{name}.request_irq", pci, setup, reach, write)
        queues = guest_queues.SetQueuesUp(f"{name}.find_vqs", pci, setup, reach, write, request)
        probe = guest_probe.Probe(
            f"{name}.probe",
            pci,
            setup,
            reach,
            knows=self._known(),
            queues=queues,
            onward=onward,
        )
        if self.parts.traffic.has_resets:
            self._rebind(pci, reach, queues, fill)
        read = guest_pci.ReadConfig(f"{name}.read_config", pci, setup, select, reach)
        enable = guest_pci.WriteCommand(f"{name}.write_command", pci, setup, select, reach)
        find = guest_pci.FindDevice(f"{name}.find_device", pci, setup, read, enable, probe)
        boot = Boot(f"{name}.boot", kernel, find)
        enter = FirstEntry(f"{name}.first_entry", KVM, guest.vcpu, boot)
        guest.thread.start = VcpuThread(f"{name}.vcpu_thread", QEMU_VCPU, setup, self.calls, enter)

    def _fill(self, driver: Place, reach: Routine, refill: Routine) -> Routine:
        """Make what bringing the interface up does to the queues."""
        guest, setup, layout, world = self.guest, self.setup, self.guest.memory.control_layout, self.parts.world
        name = f"{guest.name}.controlq"
        layout.name_fields(guest.memory.region, name)
        ring = SplitDriver(
            self.parts.state,
            name,
            guest.tx_driver.memory,
            layout,
            event_idx=world.has(EVENT_IDX),
            indirect=world.has(INDIRECT),
        )
        self.control_driver.append(ring)
        commands = guest_control.SendCommands(
            f"{name}.send", driver, setup, reach, self._control_kick(name, reach), ring, layout.end
        )
        return guest_control.FillAndCommand(f"{guest.name}.fill_queues", driver, setup, reach, refill, commands)

    def _control_kick(self, name: str, reach: Routine) -> Routine:
        """Make what a store to the control queue's notify address leads to, and who serves it."""
        guest, backend, setup = self.guest, self.backend, self.setup
        if not isinstance(backend, QemuPair):
            return reach
        eventfd = backend.qemu.control
        assert eventfd is not None
        ring = self.control_ring.through(backend.tx_device.memory)
        serve = qemu_control.ServeControl(
            self.parts.state, f"{name}.serve", QEMU, self.device, ring, f"the main loop of {setup.process_name}"
        )
        read = qemu_fds.ReadEventfd(f"{setup.process_name}.read_control", FDS, eventfd, "CP.4.4")
        loop = backend.qemu.thread.start
        assert isinstance(loop, MainLoop)
        loop.work = {
            **loop.work,
            "control kick": ReadKick(f"{name}.read_kick", QEMU, "", read, serve, "CP.4.4"),
        }
        on_intel = self.parts.world["cpu"] == "intel"
        exit_class = kvm_eventfd.HandleKickIntel if on_intel else kvm_eventfd.HandleKickAmd
        woken = qemu_fds.WakePoller(f"{name}.kick_wakeup", FDS, backend.qemu, "KICK.4", "the control queue's eventfd")
        enter = enter_guest(guest, "KICK.5", "control_kick", "The kick is done with.")
        return exit_class(f"{name}.kick_exit", KVM, guest.vcpu, "", CONTROL, eventfd, woken, enter)

    def _rebind(self, pci: Place, reach: Routine, queues: Routine, refill: Routine) -> None:
        """Let the program take the driver off the device and put it back."""
        guest, setup, name = self.guest, self.setup, self.guest.name
        assert isinstance(guest.program, RebindingProgram)
        probe = guest_probe.Probe(
            f"{name}.probe_again",
            pci,
            setup,
            reach,
            knows=self._known(),
            queues=queues,
            onward=guest_remove.OpenAgain(f"{name}.open_again", guest.driver_place, setup, refill),
        )
        guest.program.rebind = guest_remove.RemoveDriver(
            f"{name}.remove",
            pci,
            setup,
            reach,
            drivers=(_driver(guest.rx_driver), _driver(guest.tx_driver), *self.control_driver),
            pools=(guest.memory.buffers, guest.memory.skbs),
            again=probe,
        )

    def _device_access(self, vhost: VhostCalls | None) -> Routine:
        """Make what a load or store of a device register leads to."""
        guest, setup, name = self.guest, self.setup, self.guest.name

        start, stop = self._start_and_stop(vhost)
        reset = self.reset_class(f"{name}.reset", QEMU_VCPU, setup, stop, self._follow("after_reset"), self.device)
        regions: dict[str, Routine] = {
            "notify": qemu_control.ServeControl(
                self.parts.state, f"{name}.control", QEMU_VCPU, self.device, self.control_ring
            ),
            "common load": qemu_registers.CommonLoad(f"{name}.common_load", QEMU_VCPU, setup),
            "common store": qemu_registers.CommonStore(
                f"{name}.common_store", QEMU_VCPU, setup, self._follow("after_answer"), start, reset
            ),
            "device configuration": qemu_registers.DeviceConfigLoad(f"{name}.net_config_load", QEMU_VCPU, setup),
            "MSI-X table": qemu_registers.MsixStore(f"{name}.msix_store", QEMU_VCPU, setup),
            "configuration space": qemu_registers.ConfigSpace(f"{name}.config_space", QEMU_VCPU, setup),
        }
        lock = access.BigLock(self.backend.qemu.cells if isinstance(self.backend, QemuPair) else setup.process)
        serve = access.ServeAccess(f"{name}.serve_access", QEMU_VCPU, setup, lock, regions)
        on_intel = self.parts.world["cpu"] == "intel"
        access_class = access.DeviceAccessIntel if on_intel else access.DeviceAccessAmd
        return access_class(f"{name}.device_access", KVM, guest.vcpu, setup, serve)

    def _follow(self, what: str) -> Routine:
        """Make what follows outside the device when the guest has accepted features, or they were taken back."""
        setup, name = self.setup, self.guest.name

        def accepted() -> int:
            return setup.driver_features

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

    def _start_and_stop(self, vhost: VhostCalls | None) -> tuple[Routine, Routine]:
        """Make what DRIVER_OK and a reset do to the back-end."""
        setup, calls, name, world = self.setup, self.calls, self.guest.name, self.parts.world
        if isinstance(self.backend, VhostPair):
            assert vhost is not None
            untie = UntieEventfds(f"{name}.untie", QEMU_VCPU, setup, calls, vhost)
            start: Routine = StartVhost(
                f"{name}.start_vhost", QEMU_VCPU, setup, calls, vhost, interrupts_first=self.is_7_2
            )
            return start, StopVhost(f"{name}.stop_vhost", QEMU_VCPU, setup, calls, vhost, untie)
        writes = []
        assert isinstance(self.backend, QemuPair)
        assert self.backend.qemu.control is not None
        names = (self.guest.rx_name, self.guest.tx_name, f"{self.guest.name}.controlq")
        for queue, eventfd in zip(names, (*self.backend.kicks, self.backend.qemu.control), strict=True):
            woken = qemu_fds.WakePoller(f"{queue}.self_kick_wakeup", FDS, self.backend.qemu, "CP.6.20", "this eventfd")
            writes.append(WriteKick(f"{queue}.self_kick", FDS, eventfd, woken))
        start = self.start_in_qemu(f"{name}.start_in_qemu", QEMU_VCPU, setup, calls, *writes)
        stop = self.stop_in_qemu(f"{name}.stop_in_qemu", QEMU_VCPU, setup, calls)
        if world["vhost_start"] == "fails":
            assert vhost is not None
            undo = UntieEventfds(f"{name}.untie", QEMU_VCPU, setup, calls, vhost)
            start = StartVhostInVain(
                f"{name}.start_vhost",
                QEMU_VCPU,
                setup,
                calls,
                vhost,
                interrupts_first=self.is_7_2,
                undo=undo,
                userspace=start,
            )
        return start, stop

    # QEMU

    def _start_qemu(self, vhost: VhostCalls | None) -> None:
        """Have QEMU's main thread begin at main()."""
        setup, name = self.setup, self.setup.process_name
        offer = self._offer()
        if vhost is None:
            start = self.start_classes[0](
                f"{name}.start", QEMU, setup, self.calls, opens_tap=not self.by_libvirt, is_7_2=self.is_7_2, offer=offer
            )
        else:
            start = self.start_classes[1](
                f"{name}.start",
                QEMU,
                setup,
                self.calls,
                vhost,
                opens_tap=not self.by_libvirt,
                is_7_2=self.is_7_2,
                offer=offer,
            )
        is_served_elsewhere = isinstance(self.backend, VhostPair)
        start.main_loop = IdleMainLoop(f"{name}.main_loop", QEMU) if is_served_elsewhere else self.main.start
        self.main.start = start

    # libvirt and Open vSwitch

    def _start_libvirt(self, vhost: VhostCalls | None) -> None:
        """Have libvirtd make the TAP, attach it to the switch, and start QEMU."""
        parts, setup = self.parts, self.setup
        has_ovs = parts.world["switch"] == "ovs"
        thread = parts.thread("libvirtd", cpu=0)
        self.launchers.append(thread)
        online = switch_port.SetOnline("libvirtd.set_online", tap_place(setup.port_name), setup)
        if has_ovs:
            self._start_ovs()
            attach: Routine = libvirtd.AttachByVsctl("libvirtd.attach", LIBVIRTD, setup)
        else:
            add_port = switch_port.AddToBridge("bridge.add_port", BRIDGE, setup)
            attach = libvirtd.AttachToBridge("libvirtd.attach", LIBVIRTD, setup, add_port)
        common = ("libvirtd.start", LIBVIRTD, setup, self.calls, attach, online)
        if vhost is None:
            thread.start = libvirtd.Libvirtd(*common)
        else:
            thread.start = libvirtd.LibvirtdWithVhost(*common, vhost.open)

    def _start_ovs(self) -> None:
        """Have Open vSwitch's programs wait for a change of their database."""
        parts, mine = self.parts, self.setup.switch
        vsctl, server, switch = (parts.thread(name, cpu=0) for name in ("ovs-vsctl", "ovsdb-server", "ovs-vswitchd"))
        send = {
            who: ovsdb.Send(f"{who}.send", UNIX, mine, field, bit, receiver, row)
            for who, field, bit, receiver, row in (
                ("ovs-vsctl", "to_server", ovsdb.VSCTL, server, "CP.9.1"),
                ("ovs-vswitchd", "to_server", ovsdb.SWITCH, server, "CP.9.4"),
                ("ovsdb-server.to_switch", "to_switch", 1, switch, "CP.9.2"),
                ("ovsdb-server.to_vsctl", "to_vsctl", 1, vsctl, "CP.9.2"),
            )
        }
        poll = {
            who: ovsdb.Poll(f"{who}.poll", UNIX, mine, field, row)
            for who, field, row in (
                ("ovs-vsctl", "to_vsctl", "CP.9.1"),
                ("ovsdb-server", "to_server", "CP.9.2"),
                ("ovs-vswitchd", "to_switch", "CP.9.3"),
            )
        }
        vsctl.start = ovsdb.Vsctl("ovs-vsctl.main", OVS_VSCTL, mine, send["ovs-vsctl"], poll["ovs-vsctl"])
        server.start = ovsdb.OvsdbServer(
            "ovsdb-server.main",
            OVSDB_SERVER,
            mine,
            poll["ovsdb-server"],
            send["ovsdb-server.to_switch"],
            send["ovsdb-server.to_vsctl"],
        )
        new_port = switch_port.NewVport("ovs.new_vport", OVS, self.setup)
        switch.start = ovsdb.Vswitchd(
            "ovs-vswitchd.main", VSWITCHD, mine, poll["ovs-vswitchd"], new_port, send["ovs-vswitchd"]
        )

    # Where a run begins

    def rest(self, machine: Machine, wire: Wire) -> None:
        """Let the host, which is up already, come to rest; nobody who belongs to the set-up has begun."""
        wire.phase = lambda _: (-1, 0)
        held = {thread.me.index for thread in (self.main, self.guest.thread, *self.launchers)}
        machine.run(held=held)
        program, probe = self.guest.program, self.setup.probe
        # Nothing arrives for a machine that is not there.
        wire.phase = lambda _: program.phase() if probe.up else (-1, 0)
        machine.begin_here()
