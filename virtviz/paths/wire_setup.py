"""Putting a set-up together: who makes what, from power-on to the moment at which the guest's program begins.

The world is the same as one that begins later, with the same threads and the same routines. What differs is where its
threads start: QEMU at main(), the vCPU's before its vCPU exists, vhost's worker before anybody has asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from virtviz.engine.ops import Routine
from virtviz.engine.places import Domain, Place
from virtviz.paths import kvm_eventfd, qemu_fds
from virtviz.paths.features import INDIRECT
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
from virtviz.paths.setup.pairs import of_pair
from virtviz.paths.setup.qemu_start import IdleMainLoop, QemuStart, QemuStartWithVhost
from virtviz.paths.setup.qemu_userspace import StartInQemu, StartVhostInVain, StopInQemu, WriteKick
from virtviz.paths.setup.qemu_vhost import StartVhost, StopVhost, UntieEventfds
from virtviz.paths.setup.state import SetUp
from virtviz.paths.setup.switch_port import TAP_PORT
from virtviz.paths.setup.vcpu_start import Boot, FirstEntry, VcpuThread
from virtviz.paths.setup.vhost_birth import AskBackend, IdleWorker, WorkerBirth
from virtviz.paths.traffic import vm_endpoint
from virtviz.paths.vhost import PollWakeup, Work, Worker, WorkerLoop
from virtviz.paths.virtio_device.device import NetDevice
from virtviz.paths.virtio_net import OpenDevice as RunningOpenDevice
from virtviz.paths.wire_backend import VhostPair
from virtviz.paths.wire_guest import FIRST_PID, RX, TX, enter_guest
from virtviz.paths.wire_qemu import QemuPair
from virtviz.paths.wire_rings import make_driver, make_qemu_ring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.machine import Machine
    from virtviz.engine.memory import Region
    from virtviz.engine.threads import Thread
    from virtviz.paths.host_net import Wire
    from virtviz.paths.parts import Parts
    from virtviz.paths.setup.calls import VhostCalls
    from virtviz.paths.tap import Tap
    from virtviz.paths.tap_queues import TapFlows
    from virtviz.paths.wire_guest import Guest
    from virtviz.paths.wire_vhost_user import VhostUserPair
    from virtviz.ring.rings import DriverRing, QemuRing

LIBVIRTD = Place("libvirtd", Domain.HOST_USER, "libvirtd")
OVS_VSCTL = Place("ovs_vsctl", Domain.HOST_USER, "ovs-vsctl")
OVSDB_SERVER = Place("ovsdb_server", Domain.HOST_USER, "ovsdb-server")
UNIX = Place("unix", Domain.HOST_KERNEL, "UNIX sockets")
CONFIG_BYTES = 256


R = TypeVar("R", bound=Routine)


class PowerOn:
    """The beginning of one virtual machine.

    Args:
        parts: the world in the making, whose threads are wired for a run that begins later.
        guests: the virtual machine's vCPUs, each with its queue pair. The first one sets the device up.
        backends: by pair, what serves it.
        flows: what the TAP remembers of flows; None if it has one queue.
    """

    reset_class: ClassVar[type[qemu_registers.ResetDevice]] = qemu_registers.ResetDevice
    start_class: ClassVar[type[QemuStart]] = QemuStart
    start_with_vhost_class: ClassVar[type[QemuStartWithVhost]] = QemuStartWithVhost
    open_class: ClassVar[type[OpenDevice]] = OpenDevice
    open_again_class: ClassVar[type[guest_remove.OpenAgain]] = guest_remove.OpenAgain
    start_in_qemu: ClassVar[type[StartInQemu]] = StartInQemu
    stop_in_qemu: ClassVar[type[StopInQemu]] = StopInQemu
    described_in: ClassVar[str] = "pci_config"
    registers_name: ClassVar[str] = "virtio_pci"

    def __init__(
        self,
        parts: Parts,
        guests: Sequence[Guest],
        backends: Sequence[VhostPair | QemuPair | VhostUserPair],
        flows: TapFlows | None = None,
    ) -> None:
        self.parts, self.guests, self.backends = parts, guests, backends
        # What there is once for the machine, the first vCPU and its pair's back-end have.
        self.guest, self.backend = guest, backend = guests[0], backends[0]
        world, state, memory = parts.world, parts.state, guest.memory
        process = f"qemu-{FIRST_PID}"
        self.port_name = self._name_port()
        config = state.region(f"{guest.name}.{self.described_in}", CONFIG_BYTES)
        pairs = len(guests)
        self._describe(config)
        self.control_ring = make_qemu_ring(
            parts, f"{process}.controlq.ring", guest.tx_driver.memory, memory.control_layout
        )
        self.device = NetDevice(
            state,
            f"{process}.net0",
            {2 * pairs: self.control_ring},
            features=self._negotiated(),
            back_end="qemu",
            mac=vm_endpoint(0).mac,
            max_pairs=pairs,
        )
        self.setup = SetUp(
            state,
            guest.name,
            process,
            config=config,
            port_name=self.port_name,
            taps=self._taps(),
            flows=flows,
            kicks=[kick for each in backends for kick in each.kicks],
            layouts=[
                *(layout for each in guests for layout in (each.memory.rx_layout, each.memory.tx_layout)),
                memory.control_layout,
            ],
            device_rings=[ring for each in backends for ring in (each.rx_device, each.tx_device)],
            device=self.device,
            worker_names=self._worker_names(),
            host_kernel=world.word("host_kernel"),
            vhost_missing=world["vhost_start"] == "missing",
            vhost_fails=world["vhost_start"] == "fails",
            registers_name=self.registers_name,
        )
        self.control_driver: list[DriverRing] = []
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
        for each in guests:
            each.vcpu.cells.in_guest = 0

    def _kind(self, kind: type[R]) -> type[R]:
        """Give the class of a routine for the layout of this world's queues."""
        if self.parts.world["queue.format"] != "packed":
            return kind
        from virtviz.paths.setup import packed  # noqa: PLC0415 - where rings are packed only

        return packed.OVER_PACKED[kind]  # type: ignore[return-value]

    def _describe(self, config: Region) -> None:
        """Write what the machine says of the device."""
        registers.fill_config_space(config, 2 * len(self.guests) + 2)

    def _main_thread(self, process: str) -> Thread:
        """Make QEMU's main thread, where it has nothing to do with packets."""
        return self.parts.thread(process, cpu=0)

    # The port

    def _name_port(self) -> str:
        """Name the port of the switch that the machine is behind."""
        return self._taps()[0].name

    def _taps(self) -> list[Tap]:
        """Give the queues of the TAP, if that is what the machine is behind."""
        taps = []
        for backend in self.backends:
            assert isinstance(backend, VhostPair | QemuPair)
            taps.append(backend.tap)
        return taps

    # vhost

    def _worker_names(self) -> list[str]:
        """Name the workers that vhost would make."""
        return [f"vhost-{FIRST_PID}"]

    def _vhost_calls(self) -> VhostCalls | None:
        """Make vhost's part, and have its workers begin before they exist."""
        if self.parts.world["path"] != "vhost-net":
            return None
        setup = self.setup
        wakeups: list[Routine] = []
        for guest, backend, name in zip(self.guests, self.backends, setup.worker_names, strict=True):
            if isinstance(backend, VhostPair):
                worker, thread = backend.worker, backend.thread
                loop: Routine = self._with_backend_asked(thread.start, guest)
            else:
                # It has an owner, but the start comes to nothing: it never gets work.
                thread = self.parts.thread(name, cpu=0)
                worker = Worker(self.parts.state, name)
                worker.thread = thread
                loop = IdleWorker(f"{name}.loop", VHOST_NET, name)
            thread.start = WorkerBirth(f"{name}.birth", VHOST_NET, setup, loop, guest.number)
            wakeups += [
                PollWakeup(f"{queue}.first_wakeup", VHOST_NET, worker, work, "CP.6.15", who)
                for queue, work, who in (
                    (guest.rx_name, Work.RX_KICK, "receive queue kicked"),
                    (guest.tx_name, Work.TX_KICK, "transmit queue kicked"),
                )
            ]
        return make_vhost_calls(setup, VHOST_NET, wakeups)

    def _with_backend_asked(self, loop: Routine, guest: Guest) -> Routine:
        """Have a worker look whether a ring has a back-end before it serves the ring."""
        assert isinstance(loop, WorkerLoop)
        process = of_pair(self.setup.process_name, guest.number)
        loop.work = {
            name: AskBackend(
                f"{process}.{name}",
                VHOST_NET,
                self.setup,
                queue=guest.index_of(TX if "tx" in name else RX),
                serve=work,
            )
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
        """Have the thread of the first vCPU, which sets the device up, begin before its vCPU exists."""
        guest, setup, name = self.guest, self.setup, self.guest.name
        kernel, driver = guest.place("kernel", Domain.GUEST_KERNEL, "guest kernel"), guest.driver_place
        pci = guest.place("virtio_pci", Domain.GUEST_KERNEL, "virtio-pci")
        reach = self._device_access(vhost)
        on_intel = self.parts.world["cpu"] == "intel"
        select_class = access.SelectConfig if on_intel else access.SelectConfigAmd
        select = select_class(f"{name}.select_config", KVM, guest.vcpu, setup)
        opened = guest.thread.start
        assert isinstance(opened, RunningOpenDevice)
        refill, commands = self._refill(opened.refill), self._commands(driver, reach)
        fill = guest_control.FillAndCommand(f"{name}.fill_queues", driver, setup, reach, refill, commands)
        onward = self.open_class(f"{name}.open_device", driver, setup, fill, opened.program)
        write = guest_queues.WriteMessage(f"{name}.write_message", pci, setup, reach)
        request = guest_queues.RequestInterrupt(f"{name}.request_irq", pci, setup, reach, write)
        queues = self._kind(guest_queues.SetQueuesUp)(f"{name}.find_vqs", pci, setup, reach, write, request)
        probe = self._probe("probe", pci, reach, queues, onward)
        if self.parts.traffic.has_resets:
            self._rebind(pci, reach, queues, fill)
        read = guest_pci.ReadConfig(f"{name}.read_config", pci, setup, select, reach)
        enable = guest_pci.WriteCommand(f"{name}.write_command", pci, setup, select, reach)
        find = guest_pci.FindDevice(f"{name}.find_device", pci, setup, read, enable, probe)
        enter = FirstEntry(f"{name}.first_entry", KVM, guest.vcpu, self._boot(kernel, find))
        guest.thread.start = VcpuThread(f"{name}.vcpu_thread", QEMU_VCPU, setup, self.calls, enter, 0)

    def _boot(self, kernel: Place, find: Routine) -> Routine:
        """Make what the kernel does before it looks for devices."""
        return Boot(f"{self.guest.name}.boot", kernel, find)

    def _probe(self, what: str, pci: Place, reach: Routine, queues: Routine, onward: Routine) -> Routine:
        """Make the driver's way from the reset to DRIVER_OK."""
        return guest_probe.Probe(
            f"{self.guest.name}.{what}", pci, self.setup, reach, knows=self._known(), queues=queues, onward=onward
        )

    def _refill(self, first: Routine) -> Routine:
        """Make what fills the receive queues; `first` fills the first."""
        return first

    def _commands(self, driver: Place, reach: Routine) -> Routine:
        """Make what sends commands: what to receive."""
        guest, setup, layout, world = self.guest, self.setup, self.guest.memory.control_layout, self.parts.world
        name = f"{guest.name}.controlq"
        layout.name_fields(guest.memory.region, name)
        ring = make_driver(self.parts, name, guest.tx_driver.memory, layout, indirect=world.has(INDIRECT))
        self.control_driver.append(ring)
        self.control_kick = self._control_kick(name, reach)
        send = self._kind(guest_control.SendCommands)
        return send(f"{name}.send", driver, setup, reach, self.control_kick, ring, layout.end)

    def _control_kick(self, name: str, reach: Routine) -> Routine:
        """Make what a store to the control queue's notify address leads to, and who serves it."""
        guest, backend, setup = self.guest, self.backend, self.setup
        if not isinstance(backend, QemuPair):
            return reach
        eventfd = backend.qemu.control
        assert eventfd is not None
        ring = self.control_ring.through(backend.tx_device.memory)
        serve = self._serve_control(f"{name}.serve", QEMU, ring, f"the main loop of {setup.process_name}")
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
        return exit_class(f"{name}.kick_exit", KVM, guest.vcpu, "", setup.control, eventfd, woken, enter)

    def _serve_control(self, name: str, place: Place, ring: QemuRing, who: str = "the vCPU's thread") -> Routine:
        """Make what carries out the commands of the control queue."""
        return self._kind(qemu_control.ServeControl)(self.parts.state, name, place, self.device, ring, who)

    def _rebind(self, pci: Place, reach: Routine, queues: Routine, refill: Routine) -> None:
        """Let the program take the driver off the device and put it back."""
        guest, setup, name = self.guest, self.setup, self.guest.name
        assert isinstance(guest.program, RebindingProgram)
        open_again = self.open_again_class(f"{name}.open_again", guest.driver_place, setup, refill)
        guest.program.rebind = guest_remove.RemoveDriver(
            f"{name}.remove",
            pci,
            setup,
            reach,
            drivers=(*self._drivers_of_the_data_queues(), *self.control_driver),
            pools=[pool for each in self.guests for pool in (each.memory.buffers, each.memory.skbs)],
            again=self._probe("probe_again", pci, reach, queues, open_again),
        )

    def _drivers_of_the_data_queues(self) -> list[DriverRing]:
        """Give the driver's side of each data queue, as the first vCPU reaches it."""
        memory = self.guest.rx_driver.memory
        rings = [ring for each in self.guests for ring in (each.rx_driver, each.tx_driver)]
        return [ring if ring.memory is memory else ring.through(memory) for ring in rings]

    def _device_access(self, vhost: VhostCalls | None) -> Routine:
        """Make what a load or store of a device register leads to."""
        guest, setup, name = self.guest, self.setup, self.guest.name

        start, stop = self._start_and_stop(vhost)
        reset = self.reset_class(f"{name}.reset", QEMU_VCPU, setup, stop, self._follow("after_reset"), self.device)
        regions: dict[str, Routine] = {
            "notify": self._serve_control(f"{name}.control", QEMU_VCPU, self.control_ring),
            "common load": qemu_registers.CommonLoad(f"{name}.common_load", QEMU_VCPU, setup),
            "common store": qemu_registers.CommonStore(
                f"{name}.common_store", QEMU_VCPU, setup, self._follow("after_answer"), start, reset
            ),
            "device configuration": qemu_registers.DeviceConfigLoad(f"{name}.net_config_load", QEMU_VCPU, setup),
            "MSI-X table": qemu_registers.MsixStore(f"{name}.msix_store", QEMU_VCPU, setup),
            "configuration load": qemu_registers.ConfigLoad(f"{name}.config_space_load", QEMU_VCPU, setup),
            "configuration store": qemu_registers.ConfigStore(f"{name}.config_space_store", QEMU_VCPU, setup),
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
            pairs=setup.pairs,
        )
        offload = qemu_tap.Offload(f"{name}.{what}_offload", QEMU_VCPU, setup, self.calls, accepted)
        return self._followed(f"{name}.{what}", header, offload)

    def _followed(self, name: str, header: Routine, offload: Routine) -> Routine:
        """Put what follows together."""
        return qemu_tap.FollowGuest(name, QEMU_VCPU, self.setup, header, offload)

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
        start = self.start_in_qemu(f"{name}.start_in_qemu", QEMU_VCPU, setup, calls, self._self_kicks())
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

    def _self_kicks(self) -> list[Routine]:
        """Make the writes by which QEMU kicks its own queues, the control queue last."""
        assert isinstance(self.backend, QemuPair)
        assert self.backend.qemu.control is not None
        process, name = self.backend.qemu, self.guest.name
        names = [*(queue for each in self.guests for queue in (each.rx_name, each.tx_name)), f"{name}.controlq"]
        made: list[Routine] = []
        for queue, eventfd in zip(names, (*self.setup.kicks, self.backend.qemu.control), strict=True):
            woken = qemu_fds.WakePoller(f"{queue}.self_kick_wakeup", FDS, process, "CP.6.20", "this eventfd")
            made.append(WriteKick(f"{queue}.self_kick", FDS, eventfd, woken))
        return made

    # QEMU

    def _start_qemu(self, vhost: VhostCalls | None) -> None:
        """Have QEMU's main thread begin at main()."""
        setup, name = self.setup, self.setup.process_name
        offer = self._offer()
        start: QemuStart
        if vhost is None:
            start = self.start_class(
                f"{name}.start", QEMU, setup, self.calls, opens_tap=not self.by_libvirt, is_7_2=self.is_7_2, offer=offer
            )
        else:
            start = self.start_with_vhost_class(
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
        vcpus = [guest.thread for guest in self.guests]
        held = {thread.me.index for thread in (self.main, *vcpus, *self.launchers)}
        machine.run(held=held)
        programs, probe = [guest.program for guest in self.guests], self.setup.probe
        # Nothing arrives for a machine that is not there.
        wire.phase = lambda item: programs[item.vcpu].phase() if probe.up else (-1, 0)
        machine.begin_here()
