"""Putting a virtual machine with an e1000 together: its memory, its driver, and what its vCPU runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from virtviz.engine.places import Domain, Place, Role
from virtviz.engine.threads import ThreadKind
from virtviz.paths import e1000, e1000_poll, e1000_refill, e1000_xmit, kvm, kvm_ioapic
from virtviz.paths.guest_cpu import GuestCpu, RunSoftirqs
from virtviz.paths.guest_level import TakeLevelInterrupt, TakeLevelInterruptByExits
from virtviz.paths.guest_program import Program
from virtviz.paths.guest_receive import Deliver
from virtviz.paths.guest_stack import RunQueue, Socket, TxQueue
from virtviz.paths.kvm_device import AccessCells, CoalescedRing
from virtviz.paths.packets import PacketPool
from virtviz.paths.parts import KVM
from virtviz.paths.queues import Fifo
from virtviz.paths.wire_guest import (
    PAGE,
    SPARE_SLOTS,
    TX_SLOT_BYTES,
    AnyGuest,
    enter_guest,
    msi_delivery,
    open_gates,
    wire_program,
)
from virtviz.ring.e1000 import RX_FIELDS, TX_FIELDS, E1000Layout, E1000Ring
from virtviz.spec.e1000 import ETH_FCS_LEN, RX_BUFFER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.memory import Port, Region
    from virtviz.engine.ops import Routine
    from virtviz.paths.parts import Parts

LINE = "e1000"
"""What the only vector is called: that of the card's interrupt line."""


class E1000Memory(Struct):
    """Where things lie in a guest's memory: rings, the program's two pages, packets, receive buffers."""

    region: Region
    rx_layout: E1000Layout
    tx_layout: E1000Layout
    send_page: int
    receive_page: int
    skbs: PacketPool
    buffers: PacketPool


class E1000Guest(AnyGuest):
    """A virtual machine with an e1000.

    Attributes:
        port: how its CPU reaches its memory.
        tx_name, rx_name: names of the rings.
        access: the register access under way.
        parked: the page in which KVM notes stores that may wait.
        ioapic: the pin of KVM's IOAPIC that the card's line is connected with.
    """

    memory: E1000Memory
    port: Port
    tx_name: str
    rx_name: str
    adapter: e1000.Adapter
    access: AccessCells
    parked: CoalescedRing
    ioapic: kvm_ioapic.Ioapic

    @property
    def driver_place(self) -> Place:
        """The e1000 driver."""
        return self.place("e1000", Domain.GUEST_KERNEL, "e1000")


def make_e1000_guest(parts: Parts, number: int) -> E1000Guest:
    """Make a virtual machine with an e1000, without what it does.

    Args:
        parts: the world in the making.
        number: its number, from 0.
    """
    world, state, name = parts.world, parts.state, f"vm{number + 1}"
    rx_name, tx_name = f"{name}.rx_ring", f"{name}.tx_ring"
    memory = _lay_out(parts, name, rx_name, tx_name)
    thread = parts.thread(f"{name}.vcpu0", cpu=1 + 2 * number, kind=ThreadKind.VCPU)
    vcpu = kvm.Vcpu(state, f"{name}.vcpu0.kvm", (LINE,), apicv=world.on("apicv"), pv_eoi=False)
    vcpu.thread = thread
    cpu = vcpu.guest = GuestCpu(state, f"{name}.cpu0", vcpu)
    socket = Socket(state, f"{name}.socket", cpu, world.number("socket_sndbuf"))
    tx_queue = TxQueue(state, f"{name}.txq", cpu, bql=True, limit_min=world.number("bql_limit_min"))
    port = parts.port(thread, memory.region)
    collected = Fifo(state, f"{name}.gro", 8)
    access = state.add(AccessCells, f"{name}.vcpu0.access")
    adapter = e1000.Adapter(
        state,
        f"{name}.e1000",
        tx=E1000Ring(state, tx_name, port, memory.tx_layout),
        rx=E1000Ring(state, rx_name, port, memory.rx_layout),
        skbs=memory.skbs,
        buffers=memory.buffers,
        collected=collected,
        queue=tx_queue,
        socket=socket,
        cpu=cpu,
        access=access,
    )
    app = Place(f"{name}.app", Domain.GUEST_USER, "app")
    program = Program(
        state, f"{name}.program", app, parts.traffic, number, 0, memory.region, memory.send_page, memory.receive_page
    )
    parts.drops |= {
        f"{name}.qdisc": lambda: tx_queue.cells.dropped,
        f"{name}.e1000.rx_errors": lambda: adapter.cells.errors,
        f"{name}.socket": lambda: socket.cells.dropped,
    }
    return E1000Guest(
        name=name,
        number=0,
        tag=name,
        thread=thread,
        vcpu=vcpu,
        cpu=cpu,
        socket=socket,
        tx_queue=tx_queue,
        collected=collected,
        program=program,
        memory=memory,
        port=port,
        tx_name=tx_name,
        rx_name=rx_name,
        adapter=adapter,
        access=access,
        parked=CoalescedRing(state, f"{name}.coalesced"),
        ioapic=kvm_ioapic.Ioapic(state, f"{name}.ioapic"),
    )


def _lay_out(parts: Parts, name: str, rx_name: str, tx_name: str) -> E1000Memory:
    """Lay out a guest's memory."""
    world, state = parts.world, parts.state
    size = world.number("queue.size")
    rx_layout = E1000Layout(PAGE, size, RX_FIELDS)
    tx_layout = E1000Layout(_next_page(rx_layout.end), size, TX_FIELDS)
    send_page = _next_page(tx_layout.end)
    receive_page = send_page + PAGE
    skb_base = receive_page + PAGE
    skb_slots = world.number("socket_sndbuf") // 768 + 2 + SPARE_SLOTS
    buffer_base = skb_base + skb_slots * TX_SLOT_BYTES
    buffer_slots = size + SPARE_SLOTS
    region = state.region(f"{name}.ram", buffer_base + buffer_slots * RX_BUFFER_BYTES)
    rx_layout.name_fields(region, rx_name)
    tx_layout.name_fields(region, tx_name)
    skbs = PacketPool(state, f"{name}.skb", region, skb_base, skb_slots, TX_SLOT_BYTES)
    buffers = PacketPool(state, f"{name}.rx_buffers", region, buffer_base, buffer_slots, RX_BUFFER_BYTES, headroom=0)
    parts.pools |= {f"{name}.skb": skbs, f"{name}.rx_buffers": buffers}
    return E1000Memory(region, rx_layout, tx_layout, send_page, receive_page, skbs, buffers)


def _next_page(address: int) -> int:
    return -(-address // PAGE) * PAGE


def wire_e1000_guest(parts: Parts, guest: E1000Guest, exits: Mapping[str, Routine]) -> None:
    """Make everything the vCPU of a virtual machine with an e1000 does.

    Args:
        parts: the world in the making.
        guest: the virtual machine.
        exits: what an access to a register leads to, by the register's name; STATUS is loaded in two places, of which
            that in the poll is called `STATUS again`.
    """
    world, name, cpu, place, adapter = parts.world, guest.name, guest.cpu, guest.driver_place, guest.adapter
    stack = guest.place("stack", Domain.GUEST_KERNEL, "stack")
    kernel = guest.place("kernel", Domain.GUEST_KERNEL, "guest kernel")
    skbs, buffers = guest.memory.skbs, guest.memory.buffers
    xmit_class = e1000_xmit.XmitFrame if world.on("guest_if") else e1000_xmit.XmitFrameInterruptsOff
    xmit = xmit_class(f"{guest.tx_name}.xmit_frame", place, adapter, exits["TDT"])
    refill = e1000_refill.RefillRing(f"{guest.rx_name}.refill", place, adapter, exits["RDT"])
    enable = e1000.EnableInterrupts(
        f"{name}.e1000.enable", place, adapter, adapter.rx, exits["IMS"], exits["STATUS again"]
    )
    deliver = Deliver(f"{name}.deliver", stack, guest.collected, guest.socket, skbs, buffers, cpu)
    poll = e1000_poll.Poll(f"{name}.e1000.poll", place, adapter, refill, deliver, enable)
    run_queue = RunQueue(f"{guest.tx_name}.qdisc_run", stack, guest.tx_queue, skbs, xmit)
    softirq = RunSoftirqs(f"{name}.softirqs", kernel, cpu, {LINE: poll}, run_queue)
    handler = e1000_poll.Interrupt(
        f"{name}.e1000.interrupt", place, adapter, exits["ICR"], exits["IMC"], exits["STATUS"]
    )
    _line_gates(parts, guest, kernel, softirq, handler)
    wire_program(parts, guest, skbs, (skbs, buffers), xmit, run_queue, softirq)
    guest.thread.start = e1000.OpenAdapter(f"{name}.open", place, adapter, adapter.rx, refill, enable, guest.program)


def _line_gates(parts: Parts, guest: E1000Guest, kernel: Place, softirq: Routine, handler: Routine) -> None:
    """Make what may interrupt the vCPU: the card's line."""
    name, vcpu = guest.name, guest.vcpu
    eoi_class = kvm_ioapic.LevelEoiByMark if vcpu.apicv else kvm_ioapic.LevelEoiByMsr
    eoi = eoi_class(
        f"{name}.eoi",
        KVM,
        vcpu,
        guest.ioapic,
        msi_delivery(parts, guest, f"{name}.vector_again", guest.rx_name, 0),
        enter_guest(guest, "E1000-TX.17", "eoi", "The interrupt is ended."),
    )
    in_kernel = guest.place("cpu", Domain.GUEST_KERNEL, "CPU", Role.CPU)
    modes = (("user", guest.place("cpu.user", Domain.GUEST_USER, "CPU", Role.CPU)), ("kernel", in_kernel))
    take_class = TakeLevelInterrupt if vcpu.apicv else TakeLevelInterruptByExits
    takes = [
        take_class(f"{name}.interrupt_in_{mode}", guest.cpu, place, in_kernel, kernel, {LINE: handler}, softirq, eoi)
        for mode, place in modes
    ]
    if not vcpu.apicv:
        enter = enter_guest(guest, "E1000-TX.17", "tmr", "The register has been read.")
        read_tmr = kvm_ioapic.ReadTmr(f"{name}.tmr", KVM, vcpu, enter)
        for take in takes:
            assert isinstance(take, TakeLevelInterruptByExits)
            take.read_tmr = read_tmr
    open_gates(guest, modes, takes)


def received_bytes(guest: E1000Guest, packet: int) -> bytes:
    """Give a received packet's bytes where it lies in a receive buffer; empty if it does not."""
    buffers, ring = guest.memory.buffers, guest.adapter.rx
    found = [slot for slot, number in enumerate(buffers.cells.packet) if number == packet]
    for buffer in found:
        if buffer in ring.cells.tokens:
            at = ring.layout.at(ring.cells.tokens.index(buffer))
            length = int.from_bytes(buffers.memory.bytes[at + 8 : at + 10], "little") - ETH_FCS_LEN
        else:
            length = buffers.cells.length[buffer]
        if length > 0:
            return bytes(buffers.memory.bytes[buffers.at[buffer] : buffers.at[buffer] + length])
    return b""
