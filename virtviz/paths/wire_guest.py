"""Putting a virtual machine together: its memory, what its kernel and KVM keep, and the routines its vCPU runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from virtviz.engine.places import Domain, Place, Role
from virtviz.engine.threads import ThreadKind
from virtviz.paths import (
    kvm,
    kvm_msi,
    virtio_add,
    virtio_done,
    virtio_net,
    virtio_receive,
    virtio_refill,
    virtio_xmit,
)
from virtviz.paths.device_status import DeviceStatus
from virtviz.paths.features import CSUM, INDIRECT, MERGEABLE, TSO
from virtviz.paths.guest_cpu import GuestCpu, HaltingIdle, PollingIdle, RunSoftirqs
from virtviz.paths.guest_program import Program
from virtviz.paths.guest_receive import Deliver, DeliverOwn, OtherHostCells, OwnFramesOnly, Recvmsg
from virtviz.paths.guest_send import Sendmsg
from virtviz.paths.guest_stack import RunQueue, Socket, TxQueue
from virtviz.paths.guest_timer import GuestTimer
from virtviz.paths.offloads import SEGMENTS_MAX, OffloadPool, slot_bytes_for
from virtviz.paths.packets import PacketPool
from virtviz.paths.parts import KVM
from virtviz.paths.queues import Fifo
from virtviz.paths.traffic import vm_endpoint
from virtviz.paths.wire_rings import make_driver, routine_kind
from virtviz.ring.rings import layout_at
from virtviz.spec.virtio import VIRTIO_NET_HDR_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.memory import Region
    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.guest_config import ConfigWork, LookAtLink
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_transport import Transport
    from virtviz.ring.rings import DriverRing, Layout

PAGE = 4096
TX_SLOT_BYTES = 2048
SPARE_SLOTS = 256 + 64 + 8
"""Packets that can be outside every queue at once: on the socket, in a poll, in hands."""
CONTROL_SIZE = 64
"""Descriptors of the control queue, in QEMU."""
COMMAND_BYTES = 64
"""Room behind the control queue for a command and its answer."""
RX, TX = 0, 1
"""Numbers of the queues of a pair, as virtio-net numbers them."""
CONFIG_NAME, CONFIG = "config", 3
"""The vector of a changed configuration: its name and its bit, behind the queues' and the rescheduling one."""
LINE = "virtio-mmio"
"""What the only vector of a virtio-mmio device is called: that of its line."""
FIRST_PID = 4002
CPUS_OF_A_PAIR = 4
"""CPUs of the host that a further pair is away: for two machines, a vCPU's and a worker's each."""


class GuestMemory(Struct):
    """Where things lie in a guest's memory: rings, the program's two pages, packets, receive buffers."""

    region: Region
    rx_layout: Layout
    tx_layout: Layout
    control_layout: Layout
    send_page: int
    receive_page: int
    skbs: PacketPool
    buffers: PacketPool


class AnyGuest(Struct):
    """A vCPU of a virtual machine, with whatever network card, seen from inside and from KVM.

    Attributes:
        name: the virtual machine's.
        number: the vCPU's and the pair's, from 0.
        tag: what names of its own begin with: the machine's name for the first one, with the vCPU's for the others.
        thread: its thread.
        vcpu, cpu: what KVM and what the guest's kernel keep for that vCPU.
    """

    name: str
    number: int
    tag: str
    thread: Thread
    vcpu: kvm.Vcpu
    cpu: GuestCpu
    socket: Socket
    tx_queue: TxQueue
    collected: Fifo
    program: Program

    def place(self, part: str, domain: Domain, title: str, role: Role = Role.PLAIN) -> Place:
        """Name a place of this virtual machine."""
        return Place(f"{self.name}.{part}", domain, title, role)


class Guest(AnyGuest):
    """One with a virtio-net device, and the queue pair of it that is bound to this vCPU.

    Attributes:
        queues: short names of its virtqueues, receive queue first.
        rx_name, tx_name: their whole names.
        outside: the thread of who changes rings and links; None where nobody does.
        device: the status of the machine's network device.
        transport: what carries its kicks and interrupts; set by the wiring.
        config: what looks at a changed configuration of it; None where no back-end changes it.
    """

    memory: GuestMemory
    queues: tuple[str, str]
    rx_name: str
    tx_name: str
    rx_driver: DriverRing
    tx_driver: DriverRing
    rxq: virtio_net.Receiveq
    txq: virtio_net.Transmitq
    outside: Thread | None
    device: DeviceStatus
    transport: Transport
    config: ConfigWork | None = None

    def index_of(self, queue: int) -> int:
        """Give the number of a virtqueue on the device: pair k, from 0, has queues 2k (receive) and 2k+1 (transmit)."""
        return 2 * self.number + queue

    @property
    def driver_place(self) -> Place:
        """The virtio-net driver."""
        return self.place("virtio_net", Domain.GUEST_KERNEL, "virtio-net")


def make_guests(parts: Parts, number: int) -> list[Guest]:
    """Make a virtual machine, without what it does: a vCPU for each queue pair.

    Linux binds the interrupts of pair k to CPU k, and has CPU k send on it, where there are as many of both
    (virtnet_set_affinity); it would use no more pairs than it has CPUs.

    Args:
        parts: the world in the making.
        number: the machine's number, from 0.
    """
    name = f"vm{number + 1}"
    device = DeviceStatus(parts.state, f"{name}.device")
    return [_make_guest(parts, number, pair, memory, device) for pair, memory in enumerate(_lay_out(parts, name))]


def _make_guest(parts: Parts, vm: int, number: int, memory: GuestMemory, device: DeviceStatus) -> Guest:
    world, state, name = parts.world, parts.state, f"vm{vm + 1}"
    tag, host_cpu = tag_of(name, number), 1 + 2 * vm + CPUS_OF_A_PAIR * number
    queues = (f"receiveq{number + 1}", f"transmitq{number + 1}")
    rx_name, tx_name = (f"{name}.{queue}" for queue in queues)
    thread = parts.thread(f"{name}.vcpu{number}", cpu=host_cpu, kind=ThreadKind.VCPU)
    # Right behind the vCPU: in the readable order its turn comes before anybody reads the rings.
    outside = (
        parts.thread(f"{name}.outside", cpu=host_cpu, kind=ThreadKind.HARDWARE)
        if parts.traffic.pokes and not number
        else None
    )
    by_line = world["transport"] == "mmio"
    vectors = (LINE,) if by_line else (*queues, kvm.RESCHEDULE, CONFIG_NAME)
    # The end of an interrupt that came by a line has always to be told.
    pv_eoi = world.on("pv_eoi") and not by_line
    vcpu = kvm.Vcpu(state, f"{name}.vcpu{number}.kvm", vectors, apicv=world.on("apicv"), pv_eoi=pv_eoi)
    vcpu.thread = thread
    cpu = vcpu.guest = GuestCpu(state, f"{name}.cpu{number}", vcpu)
    socket_class = Socket
    if parts.traffic.longest_tcp:
        from virtviz.paths.guest_tcp import StreamSocket as socket_class  # noqa: N813, PLC0415 - as all below: imported where a world has it
    socket = socket_class(state, f"{tag}.socket", cpu, world.number("socket_sndbuf"))
    bql = world.on("guest_bql") and world.on("napi_tx")
    tx_queue = TxQueue(state, f"{tag}.txq", cpu, bql=bql, limit_min=world.number("bql_limit_min") if bql else 0)
    port = parts.port(thread, memory.region)
    rx_driver = make_driver(parts, rx_name, port, memory.rx_layout, indirect=False)
    tx_driver = make_driver(parts, tx_name, port, memory.tx_layout, indirect=world.has(INDIRECT))
    program_class = Program
    if world["guest"] == "dpdk":
        from virtviz.paths.dpdk_program import DpdkProgram as program_class  # noqa: N813, PLC0415
    if parts.traffic.has_resets:
        from virtviz.paths.setup.guest_rebind import RebindingProgram, WaitingProgram  # noqa: PLC0415

        program_class = WaitingProgram if number else RebindingProgram
    collected = Fifo(state, f"{tag}.gro", 8)
    rxq = virtio_net.Receiveq(
        state,
        rx_name,
        rx_driver,
        memory.buffers,
        memory.skbs,
        collected,
        cpu,
        napi=RX,
        mergeable=world.has(MERGEABLE),
        disables_in_poll=world["guest_kernel"] != "6.1",
    )
    txq = virtio_net.Transmitq(
        state,
        tx_name,
        tx_driver,
        memory.skbs,
        tx_queue,
        socket,
        cpu,
        world.number("tx_stop_threshold"),
        napi=TX,
        gives_up=not world.on("napi_tx"),
    )
    app = Place(f"{name}.app", Domain.GUEST_USER, "app")
    program = program_class(
        state, f"{tag}.program", app, parts.traffic, vm, number, memory.region, memory.send_page, memory.receive_page
    )
    program.restless = parts.restless
    parts.drops |= {
        f"{tag}.qdisc": lambda: tx_queue.cells.dropped,
        f"{tag}.virtio_net.tx_dropped": lambda: txq.cells.dropped,
        f"{tag}.virtio_net.rx_errors": lambda: rxq.cells.errors,
        f"{tag}.socket": lambda: socket.cells.dropped,
    }
    if outside is not None:
        from virtviz.paths.outside import ChangeRing, ChangeWorld  # noqa: PLC0415

        layouts = dict(zip(queues, (memory.rx_layout, memory.tx_layout), strict=True))
        change_class = ChangeWorld if parts.traffic.has_links else ChangeRing
        outside.start = change_class(state, outside.name, program, memory.region, layouts)
    if world["begin"] == "running":
        rx_driver.begin_awaiting()
    if not world.on("napi_tx"):
        tx_driver.begin_silenced()
    return Guest(
        name=name,
        number=number,
        tag=tag,
        thread=thread,
        vcpu=vcpu,
        cpu=cpu,
        socket=socket,
        tx_queue=tx_queue,
        collected=collected,
        program=program,
        memory=memory,
        queues=queues,
        rx_name=rx_name,
        tx_name=tx_name,
        rx_driver=rx_driver,
        tx_driver=tx_driver,
        rxq=rxq,
        txq=txq,
        outside=outside,
        device=device,
        transport=None,  # type: ignore[arg-type]  # it is made for a guest, so after it
    )


def tag_of(machine: str, pair: int) -> str:
    """Give what the names of things begin with that each vCPU of a machine, or each of its queue pairs, has one of."""
    return f"{machine}.vcpu{pair}" if pair else machine


def _lay_out(parts: Parts, name: str) -> list[GuestMemory]:
    """Lay out a guest's memory pair after pair, with all rings at the place they begin at."""
    world, state = parts.world, parts.state
    size, start, buffer_bytes = world.number("queue.size"), world.number("queue.start"), world.number("rx_buffer")
    packed = world["queue.format"] == "packed"
    # What is sent waits in the socket's buffer, or, where there is no socket, in the ring.
    skb_slots = (size if world["guest"] == "dpdk" else world.number("socket_sndbuf") // 768 + 2) + SPARE_SLOTS
    slot_bytes, send_bytes, pool_class = TX_SLOT_BYTES, PAGE, PacketPool
    if parts.traffic.longest_tcp:
        # Frames that a packet is cut into have slots of their own, and what the program sends may be long.
        skb_slots += size + SEGMENTS_MAX
        slot_bytes, send_bytes, pool_class = (
            slot_bytes_for(parts.traffic),
            _next_page(parts.traffic.longest_tcp),
            OffloadPool,
        )
    buffer_slots = size + SPARE_SLOTS
    plans: list[tuple[Layout, Layout, int, int]] = []
    end = PAGE
    for _ in range(world.number("queues")):
        rx_layout = layout_at(_next_page(end), size, packed=packed)
        tx_layout = layout_at(_next_page(rx_layout.end), size, packed=packed)
        send_page = _next_page(tx_layout.end)
        buffer_base = send_page + send_bytes + PAGE + skb_slots * slot_bytes
        end = buffer_base + buffer_slots * buffer_bytes
        plans.append((rx_layout, tx_layout, send_page, buffer_base))
    # The control queue is used while a device is set up, and has no memory where a run begins later.
    # On virtio-mmio QEMU says of every queue that it may be as large as the largest.
    as_large = world["transport"] == "mmio" and not packed
    control = layout_at(_next_page(end), size if as_large else CONTROL_SIZE, packed=packed)
    ram_end = control.end + COMMAND_BYTES if world["begin"] == "power-on" else end
    region = state.region(f"{name}.ram", ram_end)
    made: list[GuestMemory] = []
    for pair, (rx_layout, tx_layout, send_page, buffer_base) in enumerate(plans):
        queues = (f"{name}.receiveq{pair + 1}", f"{name}.transmitq{pair + 1}")
        for layout, queue in zip((rx_layout, tx_layout), queues, strict=True):
            layout.name_fields(region, queue)
            layout.begin_at(region, start)
        receive_page = send_page + send_bytes
        tag, skb_base = tag_of(name, pair), receive_page + PAGE
        skbs = pool_class(state, f"{tag}.skb", region, skb_base, skb_slots, slot_bytes)
        buffers = PacketPool(state, f"{tag}.rx_buffers", region, buffer_base, buffer_slots, buffer_bytes, headroom=0)
        parts.pools |= {f"{tag}.skb": skbs, f"{tag}.rx_buffers": buffers}
        made.append(GuestMemory(region, rx_layout, tx_layout, control, send_page, receive_page, skbs, buffers))
    return made


def _next_page(address: int) -> int:
    return -(-address // PAGE) * PAGE


def wire_guest(
    parts: Parts,
    guest: Guest,
    kick_exits: Sequence[Routine],
    machine: Sequence[Guest],
    config_load: Routine | None = None,
) -> None:
    """Make everything that a vCPU of a virtual machine does.

    Args:
        parts: the world in the making.
        guest: the vCPU.
        kick_exits: for each of its queues, what a store to its notify address leads to.
        machine: all vCPUs of the machine.
        config_load: what a load from the device's configuration leads to; None where nothing ever changes in it.
    """
    world, name, cpu = parts.world, guest.tag, guest.cpu
    stack = guest.place("stack", Domain.GUEST_KERNEL, "stack")
    kernel = guest.place("kernel", Domain.GUEST_KERNEL, "guest kernel")
    notify = {
        queue: guest.transport.kick(queue, kick_exits[queue], row) for queue, row in ((RX, "G-RX.7"), (TX, "G-TX.13"))
    }
    deliver = _deliver(parts, guest, stack, machine)
    start_xmit, poll_tx, clean = _transmit_routines(parts, guest, notify[TX])
    refill = routine_kind(world, virtio_refill.Refill)(
        f"{guest.rx_name}.refill", guest.driver_place, guest.rxq, notify[RX]
    )
    poll_rx_class = virtio_receive.PollReceive if world.on("napi_tx") else virtio_receive.PollReceiveAlone
    poll_rx = routine_kind(world, poll_rx_class)(
        f"{guest.rx_name}.poll", guest.driver_place, guest.rxq, clean, refill, deliver
    )
    skbs, run_class = guest.memory.skbs, RunQueue
    if isinstance(skbs, OffloadPool):
        from virtviz.paths.guest_tcp import RunQueueOfFrames, ValidateXmit  # noqa: PLC0415

        run_class = RunQueueOfFrames
        start_xmit = ValidateXmit(
            parts.state,
            f"{guest.tx_name}.validate",
            stack,
            guest.tx_queue,
            guest.socket,
            skbs,
            start_xmit,
            csum=world.has(CSUM),
            tso=world.has(TSO),
        )
    run_queue = run_class(f"{guest.tx_name}.qdisc_run", stack, guest.tx_queue, skbs, start_xmit)
    polls = dict(zip(guest.queues, (poll_rx, poll_tx), strict=True))
    softirq = RunSoftirqs(f"{name}.softirqs", kernel, cpu, polls, run_queue)
    work = None
    if guest.config is not None and config_load is not None:
        from virtviz.paths.guest_config import LookAtLink  # noqa: PLC0415

        work = LookAtLink(f"{name}.config_work", guest.driver_place, kernel, guest.config, config_load)
    guest.transport.open_gates(_queue_handlers(parts, guest), kernel, softirq, work)
    pools = [pool for each in machine for pool in (each.memory.skbs, each.memory.buffers)]
    wire_program(parts, guest, skbs, pools, start_xmit, run_queue, softirq, alone=len(machine) == 1, work=work)
    guest.thread.start = virtio_net.OpenDevice(f"{name}.open", guest.driver_place, refill, guest.program)


def wire_program(
    parts: Parts,
    guest: AnyGuest,
    skbs: PacketPool,
    pools: Sequence[PacketPool],
    start_xmit: Routine,
    run_queue: Routine,
    softirq: Routine,
    *,
    alone: bool = True,
    work: LookAtLink | None = None,
) -> None:
    """Make the two system calls of the program on a vCPU.

    Args:
        parts: the world in the making.
        guest: the vCPU.
        skbs: where packets lie that it sends.
        pools: where packets can lie that it receives.
        start_xmit: sends a packet.
        run_queue: sends those that wait.
        softirq: runs softirqs that were held off.
        alone: whether the machine has no other vCPU.
        work: what a system call may have to do before it ends; None for nothing.
    """
    name, cpu, program = guest.tag, guest.cpu, guest.program
    stack = guest.place("stack", Domain.GUEST_KERNEL, "stack")
    idle = _idle(parts, guest, guest.place("kernel", Domain.GUEST_KERNEL, "guest kernel"))
    sendmsg_class = Sendmsg
    if parts.traffic.longest_tcp:
        from virtviz.paths.guest_tcp import SendmsgOrTcp as sendmsg_class  # noqa: N813, PLC0415
    elif not alone:
        from virtviz.paths.guest_smp import SendmsgOnPair as sendmsg_class  # noqa: N813, PLC0415
    elif work is not None:
        from virtviz.paths.guest_config import SendmsgThenWork as sendmsg_class  # noqa: N813, PLC0415
    program.sendmsg = sendmsg = sendmsg_class(
        f"{name}.sendmsg",
        stack,
        program,
        guest.socket,
        skbs,
        guest.tx_queue,
        cpu,
        start_xmit,
        run_queue,
        softirq,
        idle,
    )
    if work is not None:
        from virtviz.paths.guest_config import SendmsgThenWork  # noqa: PLC0415

        if isinstance(sendmsg, SendmsgThenWork):
            sendmsg.config, sendmsg.work = work.work, work
    received = guest.socket.queue
    program.something_waits = lambda: bool(received)
    program.recvmsg = Recvmsg(f"{name}.recvmsg", stack, program, guest.socket, pools, cpu, idle)


def _deliver(parts: Parts, guest: Guest, stack: Place, machine: Sequence[Guest]) -> Routine:
    """Make what hands received packets up: to the program of this vCPU, or to that of whichever vCPU they are for."""
    deliver = _deliver_all(parts, guest, stack, machine)
    if isinstance(deliver, OwnFramesOnly):
        deliver.mac = vm_endpoint(int(guest.name.removeprefix("vm")) - 1).mac
        deliver.others = others = parts.state.add(OtherHostCells, f"{guest.tag}.otherhost")
        parts.drops[f"{guest.tag}.otherhost"] = lambda: others.dropped
    return deliver


def _deliver_all(parts: Parts, guest: Guest, stack: Place, machine: Sequence[Guest]) -> Deliver:
    name, memory = f"{guest.tag}.deliver", guest.memory
    # A bridge that knows nobody yet floods to the other machine, too.
    floods = parts.world["switch"] == "bridge" and parts.world.number("vms") > 1
    if len(machine) == 1:
        one_class = DeliverOwn if floods else Deliver
        return one_class(name, stack, guest.collected, guest.socket, memory.skbs, memory.buffers, guest.cpu)
    from virtviz.paths import guest_smp, kvm_ipi  # noqa: PLC0415

    interrupts: dict[str, Routine] = {}
    if parts.world["vcpu"] == "halted":
        for other in machine:
            if other is not guest:
                ipi = f"{guest.tag}.ipi_to_vcpu{other.number}"
                msi = msi_delivery(parts, other, f"{ipi}.delivery", "", kvm.RESCHEDULE_BIT)
                enter = enter_guest(guest, "IRQ.4", f"ipi_to_vcpu{other.number}", "The message is sent.")
                interrupts[f"vcpu{other.number}"] = kvm_ipi.SendIpi(ipi, KVM, guest.vcpu, msi, enter)
    sockets = [each.socket for each in machine]
    any_class = guest_smp.DeliverOwnToAny if floods else guest_smp.DeliverToAny
    return any_class(
        parts.state, name, stack, guest.collected, sockets, guest.number, memory.skbs, memory.buffers, interrupts
    )


def _transmit_routines(parts: Parts, guest: Guest, notify: Routine) -> tuple[Routine, Routine, Routine]:
    """Make what works on the transmit queue: start_xmit, its NAPI poll, and what the receive poll tidies it with."""
    place, queue, name = guest.driver_place, guest.txq, guest.tx_name
    world = parts.world
    reclaim = {
        row: routine_kind(world, virtio_done.Reclaim)(f"{name}.reclaim_{what}", place, queue, {"reclaim": row})
        for row, what in (("G-TX.5", "in_xmit"), ("G-TXC.2", "in_tx_poll"), ("G-RX.2", "in_rx_poll"))
    }
    has_tcp, napi_tx = parts.traffic.longest_tcp > 0, world.on("napi_tx")
    add_class = routine_kind(world, virtio_add.AddBuffer)
    xmit_class = virtio_xmit.StartXmit if napi_tx else virtio_xmit.StartXmitWithoutNapi
    if has_tcp:
        from virtviz.paths.guest_tcp import AddPieces, StartXmitAsking, StartXmitAskingWithoutNapi  # noqa: PLC0415

        add_class = AddPieces
        xmit_class = StartXmitAsking if napi_tx else StartXmitAskingWithoutNapi
    add = add_class(f"{name}.add", place, queue, notify)
    return (
        routine_kind(world, xmit_class)(f"{name}.start_xmit", place, queue, reclaim["G-TX.5"], add, notify),
        routine_kind(world, virtio_done.PollTransmit)(f"{name}.poll", place, queue, reclaim["G-TXC.2"]),
        routine_kind(world, virtio_done.CleanTransmit)(f"{name}.clean", place, queue, reclaim["G-RX.2"]),
    )


def enter_guest(guest: AnyGuest, row: str, what: str, after: str) -> Routine:
    """Make the last step of an exit: how the guest is entered again."""
    return kvm.EnterGuest(f"{guest.tag}.enter_after_{what}", KVM, guest.vcpu, row, after)


def _idle(parts: Parts, guest: AnyGuest, kernel: Place) -> Routine:
    """Make what the guest does when it has nothing to run."""
    gives_up = guest.program.gives_up
    enter, nanoseconds = enter_guest(guest, "IRQ.4", "halt", "The halt is over."), parts.world.number("halt_poll_ns")
    halt = kvm.HaltVcpu(f"{guest.tag}.halt", KVM, guest.vcpu, enter)
    if nanoseconds:
        halt = kvm.PollAndHaltVcpu(halt.name, KVM, guest.vcpu, enter, nanoseconds)
    if parts.world["vcpu"] == "running":
        return PollingIdle(f"{guest.tag}.idle", kernel, guest.cpu, halt, gives_up)
    timer = parts.thread(f"{guest.tag}.timer", cpu=parts.cpus[guest.thread.me.index])
    timer.start = GuestTimer(f"{guest.tag}.timer", KVM, guest.cpu, guest.thread, gives_up)
    return HaltingIdle(f"{guest.tag}.idle", kernel, guest.cpu, halt, gives_up)


def _queue_handlers(parts: Parts, guest: Guest) -> tuple[Routine, Routine]:
    """Make what an interrupt has to look at: the receive and the transmit queue."""
    world = parts.world
    done_class = virtio_done.TransmitDone if world.on("napi_tx") else virtio_done.TransmitDoneWithoutNapi
    receive_done, transmit_done = routine_kind(world, virtio_receive.ReceiveDone), routine_kind(world, done_class)
    return (
        receive_done(f"{guest.rx_name}.interrupt", guest.driver_place, guest.rxq),
        transmit_done(f"{guest.tx_name}.interrupt", guest.driver_place, guest.txq),
    )


def open_gates(guest: AnyGuest, modes: Sequence[tuple[str, Place]], takes: Sequence[Routine]) -> None:
    """Set what may interrupt the vCPU.

    Args:
        guest: the virtual machine.
        modes: name of each mode and the CPU in it: user mode first, then kernel mode.
        takes: for each mode, how an interrupt is taken in it.
    """
    vcpu = guest.vcpu
    exits = [
        kvm.LeaveForInterrupt(
            f"{guest.tag}.exit_from_{mode}",
            place,
            vcpu,
            enter_guest(guest, "IRQ.4", f"exit_from_{mode}", "There was nothing to emulate."),
        )
        for mode, place in modes
    ]
    vcpu.take_gates = (takes[0], takes[1])
    vcpu.exit_gates = (exits[0], exits[1])
    guest.thread.gates = vcpu.take_gates if vcpu.apicv else (*vcpu.take_gates, *vcpu.exit_gates)
    guest.thread.intercept = vcpu.intercept


def in_receive_buffers(guest: Guest, packet: int) -> bytes:
    """Give a received packet's bytes: what the driver has joined or just taken, and what lies behind the used ring."""
    buffers, driver = guest.memory.buffers, guest.rx_driver.cells
    slots = buffers.cells
    found = bytearray()
    parts: list[tuple[int, int]] = []
    chain: set[int] = set()
    for first in (slot for slot, number in enumerate(slots.packet) if number == packet and slots.skip[slot]):
        found += buffers.data(first)
        slot = first
        while slot:
            chain.add(slot)
            slot = slots.link[slot]
    if driver.token not in chain:
        parts.append((driver.token, driver.written))
    parts += guest.rx_driver.peek_used()
    for slot, written in parts:
        if slots.packet[slot] == packet:
            skip = 0 if found else VIRTIO_NET_HDR_BYTES
            found += buffers.memory.bytes[buffers.at[slot] + skip : buffers.at[slot] + written]
    return bytes(found)


def msi_delivery(parts: Parts, guest: AnyGuest, name: str, queue_name: str, bit: int) -> kvm_msi.MsiDelivery:
    """Make what delivers an interrupt to a vCPU, such as a queue's, as the processor can."""
    if guest.vcpu.apicv:
        return kvm_msi.PostedMsi(name, KVM, guest.vcpu, queue_name, bit)
    kicked = kvm_msi.KickedMsi(name, KVM, guest.vcpu, queue_name, bit)
    return kicked.on_intel() if parts.world["cpu"] == "intel" else kicked
