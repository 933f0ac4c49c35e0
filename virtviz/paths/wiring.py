"""Putting a simulated world together: from settings and traffic to a machine that stands just before its first step.

A virtual machine, what serves its network card, and a switch with its far port are each made by a module of their own
(`wire_*.py`); a data path is the choice of which are joined. What happens before the first packet (filling the receive
queue, putting workers to sleep) is run like everything else, and then forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct, field

from virtviz.engine.counting import CountingMachine
from virtviz.engine.program import link
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.schedule import BySimulatedTime
from virtviz.paths.costs import load_costs
from virtviz.paths.describe import e1000_queue, virtqueue
from virtviz.paths.parts import Parts
from virtviz.paths.wire_guest import in_receive_buffers, make_guests, wire_guest
from virtviz.paths.wire_switch import SwitchBuilder
from virtviz.paths.wire_transport import make_transport
from virtviz.spec.kernels import RENAMED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtviz.engine.machine import Machine
    from virtviz.engine.memory import Region
    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.describe import QueueInfo
    from virtviz.paths.guest_program import Program
    from virtviz.paths.host_net import Wire
    from virtviz.paths.knobs import World
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.qemu_e1000 import E1000
    from virtviz.paths.tap import Tap
    from virtviz.paths.traffic import Traffic
    from virtviz.paths.wire_backend import VhostBackend
    from virtviz.paths.wire_guest import Guest
    from virtviz.paths.wire_qemu import QemuBackend
    from virtviz.paths.wire_setup import PowerOn
    from virtviz.paths.wire_switch import TapPort
    from virtviz.paths.wire_vhost_user import PmdPort, VhostUserBackend
    from virtviz.paths.wire_vhost_user_fallback import VhostUserFallback
    from virtviz.ring.e1000 import E1000Ring
    from virtviz.ring.rings import DeviceRing, DriverRing, Layout


class Backend(Protocol):
    """What serves the queues of a virtual machine's virtio-net device: the device's side of a data path."""

    def devices(self) -> list[tuple[DeviceRing, DeviceRing]]:
        """Give the device's side of each queue pair: of the receive queue, and of the transmit queue."""

    def kick_exits(self) -> list[list[Routine]]:
        """Make, for each queue pair, what a store to each queue's notify address leads to, receive queue first."""

    def config_load(self) -> Routine | None:
        """Make what a load from the device's configuration leads to; None where nothing ever changes in it."""


class TapBackend(Protocol):
    """What serves a virtual machine's network card, whichever it is, where frames go through a TAP.

    Attributes:
        threads: the threads that carry the guest's frames to its TAP.
        tap: that TAP, or the first queue of it.
    """

    threads: list[Thread]
    tap: Tap

    def tap_transmit(self) -> Routine:
        """Make what transmitting on the TAP is, for the host: the way into the guest."""

    def wire(self, port: TapPort) -> None:
        """Make everything that its threads do."""


# Most worlds need little of what there is, and a lesson is to be open at once: what is joined is imported when it is.


def _dpdk_guest(parts: Parts, guest: Guest, kick_exits: Sequence[Routine], *_: object) -> None:
    from virtviz.paths.wire_dpdk_guest import wire_dpdk_guest  # noqa: PLC0415

    wire_dpdk_guest(parts, guest, kick_exits)


GUESTS: Final[Mapping[str, Callable[[Parts, Guest, Sequence[Routine], Sequence[Guest], Routine | None], None]]] = {
    "kernel": wire_guest,
    "dpdk": _dpdk_guest,
}
"""Values of the knob `guest`, for a virtio-net device."""


def join_by_taps(parts: Parts, backends: Sequence[TapBackend]) -> Wire:
    """Join back-ends by a switch in the host's kernel, whose ports their TAPs are."""
    switch = SwitchBuilder(parts, backends)
    for backend, port in zip(backends, switch.ports, strict=True):
        backend.wire(port)
    return switch.wire


def join_by_pmd(parts: Parts, backends: Sequence[PmdPort]) -> Wire:
    """Join vhost-user ports by the thread that polls them."""
    from virtviz.paths.wire_vhost_user import PmdSwitch  # noqa: PLC0415

    return PmdSwitch(parts, backends).wire


JOINS: Final[Mapping[str, Callable[[Parts, Sequence[Any]], Wire]]] = {
    "ovs": join_by_taps,
    "bridge": join_by_taps,
    "ovs-dpdk": join_by_pmd,
}
"""Values of the knob `switch`; which goes with which `path`, the knobs have seen to. A TUN is no port of one."""


class Pair(Struct):
    """A vCPU of a virtual machine with the queue pair that is bound to it and the program that runs there.

    Attributes:
        skbs, buffers: where that vCPU keeps packets, and the receive queue's buffers.
        queues: for readers.
        empty_buffers: counts the receive buffers that the driver has not offered yet; it takes more steps than that
            until the interface is up.
        received_bytes: gives a received packet's bytes where they lie in receive buffers, by its number.
    """

    program: Program
    vcpu: Thread
    skbs: PacketPool
    buffers: PacketPool
    queues: tuple[QueueInfo, ...]
    empty_buffers: Callable[[], int]
    received_bytes: Callable[[int], bytes]


class VirtioPair(Pair):
    """One of a virtio-net device: its rings, from both sides."""

    tx_layout: Layout
    rx_layout: Layout
    tx_driver: DriverRing
    rx_driver: DriverRing
    tx_device: DeviceRing
    rx_device: DeviceRing


class Vm(Struct):
    """One virtual machine: its memory, and its queue pairs and vCPUs.

    What it says of one pair alone is about the first.
    """

    name: str
    memory: Region
    pairs: Sequence[Pair]

    @property
    def program(self) -> Program:
        """The program on the first vCPU."""
        return self.pairs[0].program

    @property
    def vcpu(self) -> Thread:
        """The first vCPU."""
        return self.pairs[0].vcpu


class VirtioVm(Vm):
    """One with a virtio-net device."""

    pairs: list[VirtioPair]

    @property
    def tx_layout(self) -> Layout:
        """Where the first transmit queue lies."""
        return self.pairs[0].tx_layout

    @property
    def rx_layout(self) -> Layout:
        """Where the first receive queue lies."""
        return self.pairs[0].rx_layout

    @property
    def tx_driver(self) -> DriverRing:
        """The driver's side of the first transmit queue."""
        return self.pairs[0].tx_driver

    @property
    def rx_driver(self) -> DriverRing:
        """The driver's side of the first receive queue."""
        return self.pairs[0].rx_driver

    @property
    def tx_device(self) -> DeviceRing:
        """The device's side of the first transmit queue."""
        return self.pairs[0].tx_device

    @property
    def rx_device(self) -> DeviceRing:
        """The device's side of the first receive queue."""
        return self.pairs[0].rx_device


class E1000Vm(Vm):
    """One with an e1000: the driver's side of its rings, and the device."""

    tx: E1000Ring
    rx: E1000Ring
    device: E1000


def _with_virtio(
    make_backend: Callable[[Parts, Sequence[Guest], int], Backend],
) -> Callable[[Parts, int], tuple[VirtioVm, Backend]]:
    """Give what makes a virtual machine with a virtio-net device, by what serves its queues."""

    def make(parts: Parts, number: int) -> tuple[VirtioVm, Backend]:
        guests = make_guests(parts, number)
        for guest in guests:
            guest.transport = make_transport(parts, guest)
        backend = make_backend(parts, guests, number)
        config_load = backend.config_load()
        for guest, exits in zip(guests, backend.kick_exits(), strict=True):
            GUESTS[parts.world.word("guest")](parts, guest, exits, guests, config_load)
        pairs = [_virtio_pair(guest, *devices) for guest, devices in zip(guests, backend.devices(), strict=True)]
        return VirtioVm(name=guests[0].name, memory=guests[0].memory.region, pairs=pairs), backend

    return make


def _virtio_pair(guest: Guest, rx_device: DeviceRing, tx_device: DeviceRing) -> VirtioPair:
    memory = guest.memory
    return VirtioPair(
        program=guest.program,
        vcpu=guest.thread,
        skbs=memory.skbs,
        buffers=memory.buffers,
        queues=(
            virtqueue("out", memory.region, memory.tx_layout, guest.tx_driver, tx_device.name),
            virtqueue("in", memory.region, memory.rx_layout, guest.rx_driver, rx_device.name),
        ),
        empty_buffers=lambda: guest.rx_driver.cells.num_free,
        received_bytes=lambda packet: in_receive_buffers(guest, packet),
        tx_layout=memory.tx_layout,
        rx_layout=memory.rx_layout,
        tx_driver=guest.tx_driver,
        rx_driver=guest.rx_driver,
        tx_device=tx_device,
        rx_device=rx_device,
    )


def _vhost_user_fallback(parts: Parts, guests: Sequence[Guest], number: int) -> VhostUserFallback:
    from virtviz.paths.wire_vhost_user_fallback import VhostUserFallback  # noqa: PLC0415

    return VhostUserFallback(parts, guests, number)


def _with_e1000(parts: Parts, number: int) -> tuple[E1000Vm, TapBackend]:
    """Make a virtual machine with an e1000 that QEMU emulates."""
    from virtviz.paths.wire_e1000 import E1000Backend  # noqa: PLC0415
    from virtviz.paths.wire_e1000_guest import make_e1000_guest, received_bytes, wire_e1000_guest  # noqa: PLC0415

    guest = make_e1000_guest(parts, number)
    backend = E1000Backend(parts, guest, number)
    wire_e1000_guest(parts, guest, backend.exits())
    adapter, memory, device = guest.adapter, guest.memory, backend.device
    pair = Pair(
        program=guest.program,
        vcpu=guest.thread,
        skbs=memory.skbs,
        buffers=memory.buffers,
        queues=(
            e1000_queue("out", memory.region, adapter.tx, device.name),
            e1000_queue("in", memory.region, adapter.rx, device.name),
        ),
        empty_buffers=adapter.rx.unused,
        received_bytes=lambda packet: received_bytes(guest, packet),
    )
    vm = E1000Vm(name=guest.name, memory=memory.region, pairs=[pair], tx=adapter.tx, rx=adapter.rx, device=device)
    return vm, backend


def _vhost(parts: Parts, guests: Sequence[Guest], number: int) -> VhostBackend:
    from virtviz.paths.wire_backend import VhostBackend  # noqa: PLC0415

    return VhostBackend(parts, guests, number)


def _qemu(parts: Parts, guests: Sequence[Guest], number: int) -> QemuBackend:
    from virtviz.paths.wire_qemu import QemuBackend  # noqa: PLC0415

    return QemuBackend(parts, guests, number)


def _vhost_user(parts: Parts, guests: Sequence[Guest], number: int) -> VhostUserBackend:
    from virtviz.paths.wire_vhost_user import VhostUserBackend  # noqa: PLC0415

    return VhostUserBackend(parts, guests, number)


FALLBACK: Final = "vhost-user, in vain"
MACHINES: Final[Mapping[str, Callable[[Parts, int], tuple[Vm, Any]]]] = {
    "vhost-net": _with_virtio(_vhost),
    "virtio-qemu": _with_virtio(_qemu),
    "vhost-user": _with_virtio(_vhost_user),
    FALLBACK: _with_virtio(_vhost_user_fallback),
    "e1000": _with_e1000,
}
"""What `_served_by` answers -> makes a virtual machine, by its number from 0, and what serves its network card."""


class Simulation(Struct):
    """A world ready to run.

    Attributes:
        world, traffic: what it was made from.
        machine: the machine, before its first step.
        vms: the virtual machines; none where a program of the host takes their place.
        pools: packet memories by the name of their owner, for looking at packets.
        drops: name of each drop counter -> reads it.
    """

    world: World
    traffic: Traffic
    machine: Machine
    vms: list[Vm]
    pools: dict[str, PacketPool]
    drops: dict[str, Callable[[], int]] = field(default_factory=dict)

    def dropped(self) -> dict[str, int]:
        """Give the drop counters that are not 0."""
        return {name: read() for name, read in self.drops.items() if read()}


def simulate(world: World, traffic: Traffic, *, recording: bool = True, omit: Sequence[str] = ()) -> Simulation:
    """Build a world, bring it up, and stop before its first step.

    Args:
        world: checked settings.
        traffic: what is sent.
        recording: keep a timeline; without it the machine only counts.
        omit: ops to leave out, by name, such as a barrier whose absence is to be shown.
    """
    observed = recording or world["schedule"] == "time"
    return _build(world, traffic, recording=recording, observed=observed, omit=omit)


def _served_by(world: World) -> str:
    """Name the data path that serves the queues in the end: where vhost cannot be started, QEMU's own."""
    path = world.word("path")
    if world["vhost_start"] == "ok":
        return path
    return FALLBACK if path == "vhost-user" else "virtio-qemu"


def _programs(parts: Parts) -> list[Any]:
    """Make the program that holds a device where no virtual machine does."""
    from virtviz.paths.wire_program import ProgramHolder  # noqa: PLC0415

    return [ProgramHolder(parts)]


def _join_by_routing(parts: Parts, holders: Sequence[Any]) -> Wire:
    """Join them by the host's IP."""
    from virtviz.paths.wire_program import join_by_routing  # noqa: PLC0415

    return join_by_routing(parts, holders)


def _power_on(parts: Parts, backend: Any) -> PowerOn:  # noqa: ANN401 - one of three, of which two are not imported here
    """Let threads begin where nothing has been made yet."""
    several, by_socket = len(backend.pairs) > 1, parts.world["path"] == "vhost-user"
    if by_socket and parts.world["vhost_start"] != "ok":
        from virtviz.paths.wire_setup_vhost_user_fallback import PowerOnWithVhostUserInVain  # noqa: PLC0415

        return PowerOnWithVhostUserInVain(parts, backend)
    if by_socket and several:
        from virtviz.paths.wire_setup_vhost_user_pairs import PowerOnWithVhostUserInPairs  # noqa: PLC0415

        return PowerOnWithVhostUserInPairs(parts, backend)
    if by_socket:
        from virtviz.paths.wire_setup_vhost_user import PowerOnWithVhostUser  # noqa: PLC0415

        return PowerOnWithVhostUser(parts, backend)
    guests = [pair.guest for pair in backend.pairs]
    if parts.world["transport"] == "mmio":
        from virtviz.paths.wire_setup_mmio import PowerOnMmio  # noqa: PLC0415

        return PowerOnMmio(parts, guests, backend.pairs)
    if several:
        from virtviz.paths.wire_setup_pairs import PowerOnInPairs  # noqa: PLC0415

        return PowerOnInPairs(parts, guests, backend.pairs, backend.flows)
    from virtviz.paths.wire_setup import PowerOn  # noqa: PLC0415

    return PowerOn(parts, guests, backend.pairs, backend.flows)


def _build(world: World, traffic: Traffic, *, recording: bool, observed: bool, omit: Sequence[str]) -> Simulation:
    """Build a world; `observed` without `recording` does exactly what a recorded one does."""
    parts = Parts(world, traffic, recording=recording, observed=observed)
    holders: Sequence[Any] = _programs(parts) if world["path"] == "program" else []
    join = JOINS[world.word("switch")] if world["device"] == "tap" else _join_by_routing
    machines: list[tuple[Vm, Any]] = []
    make = MACHINES.get(_served_by(world))
    if make is not None and world.number("hosts") > 1:
        from virtviz.paths.wire_hosts import make_hosts  # noqa: PLC0415

        machines, wire = make_hosts(parts, make, join)
    else:
        if make is not None:
            machines = [make(parts, number) for number in range(world.number("vms"))]
        wire = join(parts, holders or [backend for _, backend in machines])
    setup = _power_on(parts, machines[0][1]) if world["begin"] == "power-on" else None
    if world["eventfd_programs"] != "off":
        from virtviz.paths.wire_eventfd import add_eventfd_programs  # noqa: PLC0415

        add_eventfd_programs(parts)
    machine = _machine(parts, omit)
    vms = [vm for vm, _ in machines]
    programs = {(number, vcpu): pair.program for number, vm in enumerate(vms) for vcpu, pair in enumerate(vm.pairs)}
    programs |= {(number, 0): holder.program for number, holder in enumerate(holders)}
    for program in programs.values():
        program.programs = programs
    if setup is None:
        _boot(machine, vms, wire, programs, {holder.thread.me.index for holder in holders})
    else:
        setup.rest(machine, wire)
    return Simulation(world, traffic, machine, vms, parts.pools, parts.drops)


def _machine(parts: Parts, omit: Sequence[str]) -> Machine:
    """Link what the threads do, and make the machine that runs it."""
    world, traffic = parts.world, parts.traffic
    costs = load_costs(world.word("costs")).nanoseconds
    program = link(parts.threads, costs, omit)
    for op in program.ops:
        kernel = world.word("guest_kernel" if op.place.domain.is_guest else "host_kernel")
        op.routine.functions = {**RENAMED[kernel], **op.routine.functions}
    by_time = world["schedule"] == "time"
    if parts.state.journal is None:
        if by_time:
            from virtviz.engine.timed import TimedMachine  # noqa: PLC0415

            return TimedMachine(program, parts.state, parts.threads, costs)
        return CountingMachine(program, parts.state, parts.threads, costs)

    def make_scout() -> CountingMachine:
        made = _build(world, traffic, recording=False, observed=True, omit=omit).machine
        assert isinstance(made, CountingMachine)
        return made

    machine = RecordingMachine(program, parts.state, parts.threads, costs)
    machine.make_scout = make_scout
    if by_time:
        machine.scheduler = BySimulatedTime()
    return machine


def _boot(
    machine: Machine, vms: Sequence[Vm], wire: Wire, programs: Mapping[tuple[int, int], Program], held: set[int]
) -> None:
    """Bring everything up to the point where the programs are about to begin, and forget how it got there.

    Every vCPU fills its own receive queue; on Linux whichever opens the interface fills all of them. Threads of
    programs on the host, `held`, have nothing to bring up.
    """
    pairs = [pair for vm in vms for pair in vm.pairs]
    vcpus = {pair.vcpu.me.index for pair in pairs} | held
    # Nothing arrives meanwhile.
    wire.phase = lambda _: (-1, 0)
    for pair in pairs:
        others = set(range(len(machine.threads))) - {pair.vcpu.me.index}
        while pair.vcpu.pc != pair.program.entry:
            # An empty buffer takes more than one step, so this never goes too far.
            if not machine.run(max(1, pair.empty_buffers()), held=others):
                # At a fence its stores have to drain.
                machine.run(held=vcpus)
    machine.run(held=vcpus)
    for pair in (pair for vm in vms if len(vm.pairs) > 1 for pair in vm.pairs if not pair.program.acts_in_all):
        # Of several vCPUs, one whose program has no part in the scenario is at work of its own from the beginning.
        machine.run(1, held=set(range(len(machine.threads))) - {pair.vcpu.me.index})
    wire.phase = lambda item: programs[item.vm, item.vcpu].phase()
    machine.begin_here()
