"""One table of every data path: what one packet costs in each, each cell counted by running the machine.

A row is a world, a direction, and the moment at which the packet comes: a packet of the same kind has gone before it,
so that flows and addresses are known and every interrupt has been asked for once, everything has come to rest, and then
the packet is sent. What is counted is everything from its first step until nothing moves any more.

A moment is more than settings: whether an idle guest's CPU sleeps, whether its interrupts are off just then, and who
moves first. In the profile `default` the guest's CPU runs and everybody moves in the readable order. In the profile
`recorded` the rows are at the moments that the recordings show, which `At` describes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.engine.counters import count
from virtviz.engine.recording import RecordingMachine
from virtviz.errors import KnobError
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, Pause, Poke, make_traffic
from virtviz.paths.wiring import simulate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COLUMNS: Final[Mapping[str, str]] = {
    "heavy_exits": "heavy",
    "light_exits": "light",
    "wakeups": "wake",
    "vcpu_wakeups": "vCPU",
    "host_syscalls": "calls",
    "interrupts": "irq",
    "hw_interrupts": "hw",
    "host_copies": "copy",
}
"""The counters that are columns, and how they are headed."""

UDP: Final = {"kind": "udp", "length": 18}
PACKETS: Final[Mapping[str, Item]] = {
    "out": Item("packet", **UDP),  # type: ignore[arg-type]
    "in": Item("packet", outgoing=False, **UDP),  # type: ignore[arg-type]
    "across": Item("packet", to_vm=1, **UDP),  # type: ignore[arg-type]
}
"""What is sent, by direction: to a far host, from one, or to another virtual machine."""


class At(Struct, frozen=True):
    """The moment at which a recording shows its packet.

    Attributes:
        settings: the guest's state, as knobs.
        rested: threads that come to rest first: they are still on their way to waiting for the packet.
        order: after the packet's first step, who moves until it has done which op (an empty one: until it cannot go
            on); then everybody in the readable order.

    A thread is named by a part of its name.
    """

    settings: Mapping[str, object] = {}
    rested: Sequence[str] = ()
    order: Sequence[tuple[str, str]] = ()


SLEEPING: Final = At({"vcpu": "halted"})
"""The guest's CPU has halted and its thread sleeps; the packet's interrupt wakes it."""
RUNNING: Final = At({}, (), (("vm1.vcpu", "vm_entry"), ("-4002", "")))
"""The guest runs on while the back-end works, with interrupts enabled."""
INTERRUPTS_OFF: Final = At({"guest_if": "off"}, (), RUNNING.order)
"""The same, with interrupts off: the one that comes has to wait for a window."""
OTHER_SLEEPING: Final = At({"vcpu": "halted"}, ("vm2.vcpu",), RUNNING.order)
"""The sender runs on, and the receiver has halted."""

ONE_LINE: Final = {"machine": "direct"}
"""A change of the interrupt line counts once; the recorded q35 tells KVM of it by three system calls."""
LINE_RUNNING: Final = At(ONE_LINE, (), (("vm1.vcpu", ""),))
"""The guest's CPU, which does QEMU's work too, runs until it waits; then the main loop has its turn."""
LINE_SLEEPING: Final = At({**ONE_LINE, **SLEEPING.settings})


class Row(Struct, frozen=True):
    """A row of the table.

    Attributes:
        name: how the path is called.
        way: `out`, `in` or `across`, to another virtual machine.
        settings: its world, over the profile.
        recorded: the moment in the profile `recorded`.
        new_flow: the packet is the first one of its flow, and what is given is what that adds.
        answers: before it a packet of the same flow went out, so that a TAP with several queues knows whose it is.
    """

    name: str
    way: str
    settings: Mapping[str, object] = {}
    recorded: At = At()
    new_flow: bool = False
    answers: bool = False


QEMU: Final[Mapping[str, object]] = {"path": "virtio-qemu"}
HEAVY: Final = {"path": "virtio-qemu", "ioeventfd": "off"}
NO_NAPI: Final = {"napi_tx": "off"}
PAIRS: Final = {"queues": 2}
BRIDGE: Final = {"switch": "bridge"}
PROGRAM: Final = {"path": "program", "far_port": "nic"}
E1000: Final = {"path": "e1000"}
USER: Final[Mapping[str, object]] = {"path": "vhost-user", "switch": "ovs-dpdk", "far_port": "nic"}
USER_DPDK: Final[Mapping[str, object]] = {**USER, "guest": "dpdk"}
VXLAN: Final = {"tunnel": "vxlan"}
GENEVE: Final = {"tunnel": "geneve"}
TWO: Final = {"vms": 2}
HOSTS: Final = {"hosts": 2, "far_port": "nic"}

ROWS: Final = (
    Row("vhost-net", "out", {}, INTERRUPTS_OFF),
    Row("vhost-net", "in", {}, SLEEPING),
    Row("vhost-net, napi_tx=off", "out", NO_NAPI, RUNNING),
    Row("vhost-net, Linux bridge", "out", BRIDGE, RUNNING),
    Row("vhost-net, Linux bridge", "in", BRIDGE, SLEEPING),
    Row("vhost-net, 2 queue pairs", "out", PAIRS, INTERRUPTS_OFF),
    Row("vhost-net, 2 queue pairs", "in", PAIRS, SLEEPING, answers=True),
    Row("virtio-qemu", "out", QEMU, INTERRUPTS_OFF),
    Row("virtio-qemu", "in", QEMU, SLEEPING),
    Row("virtio-qemu, ioeventfd=off", "out", HEAVY, RUNNING),
    Row("virtio-qemu, ioeventfd=off", "in", HEAVY, SLEEPING),
    Row("e1000", "out", E1000, LINE_RUNNING),
    Row("e1000", "in", E1000, LINE_SLEEPING),
    Row("vhost-user", "out", USER),
    Row("vhost-user", "in", USER),
    Row("vhost-user, DPDK guest", "out", USER_DPDK),
    Row("vhost-user, DPDK guest", "in", USER_DPDK),
    Row("vhost-net, VXLAN", "out", VXLAN, INTERRUPTS_OFF),
    Row("vhost-net, VXLAN", "in", VXLAN, SLEEPING),
    Row("vhost-net, Geneve", "out", GENEVE, INTERRUPTS_OFF),
    Row("vhost-net, Geneve", "in", GENEVE, SLEEPING),
    Row("program at a TAP, no VM", "out", PROGRAM),
    Row("program at a TAP, no VM", "in", PROGRAM),
    Row("VM to VM, vhost-net", "across", TWO, OTHER_SLEEPING),
    Row("VM to VM, virtio-qemu", "across", {**TWO, **QEMU}, OTHER_SLEEPING),
    Row("VM to VM, vhost-user", "across", {**TWO, **USER}),
    Row("VM to VM, vhost-user, DPDK", "across", {**TWO, **USER_DPDK}),
    Row("2 hosts, vhost-net", "across", HOSTS, OTHER_SLEEPING),
    Row("2 hosts, vhost-net, VXLAN", "across", {**HOSTS, **VXLAN}, OTHER_SLEEPING),
    Row("2 hosts, virtio-qemu", "across", {**HOSTS, **QEMU}, OTHER_SLEEPING),
    Row("2 hosts, vhost-user", "across", {**HOSTS, **USER}),
    Row("+ flow miss, vhost-net", "out", {}, INTERRUPTS_OFF, new_flow=True),
    Row("+ flow miss, vhost-net", "in", {}, SLEEPING, new_flow=True),
    Row("+ flow miss, virtio-qemu", "out", QEMU, INTERRUPTS_OFF, new_flow=True),
    Row("+ flow miss, virtio-qemu", "in", QEMU, SLEEPING, new_flow=True),
)
"""Every row, in the order of the table; a new data path is a line here."""


class Costs(Struct, frozen=True):
    """A row and its cells, by counter."""

    row: Row
    cells: Mapping[str, int]


def all_paths(settings: Sequence[Mapping[str, object]] = (), rows: Sequence[Row] = ROWS) -> Iterator[Costs]:
    """Run every row's world, one after the other.

    Args:
        settings: further settings, over those of the rows; `profile` among them chooses the moments.
        rows: which rows.

    Raises:
        KnobError: a setting is unknown or out of range, or cannot be combined with a row's; the message names the row.
    """
    for row in rows:
        try:
            cells = _count(row, settings, known=True)
            if row.new_flow:
                first = _count(row, settings, known=False)
                cells = {name: first[name] - cells[name] for name in cells}
        except KnobError as error:
            raise KnobError(error.knob, f"row {row.name!r} ({row.way}): {error}") from error
        yield Costs(row, cells)


def _count(row: Row, settings: Sequence[Mapping[str, object]], *, known: bool) -> dict[str, int]:
    """Count what the packet costs.

    Args:
        row: the row.
        settings: further settings.
        known: whether the switch knows the packet's flow. The first packet of a flow cannot be the second one.
    """
    recorded = make_world(*settings).profile == "recorded"
    at = row.recorded if recorded else At()
    flows = {"flows": "known" if known else "unknown"}
    profile = {"profile": "recorded" if recorded else "default"}
    world = make_world(profile, row.settings, at.settings, flows, *settings)
    packet = PACKETS[row.way]
    before_it = [] if row.new_flow else [PACKETS["out"], packet] if row.answers else [packet]
    events: list[Item | Pause | Poke] = [event for one in before_it for event in (one, Pause())]
    simulation = simulate(world, make_traffic([*events, packet]))
    machine = simulation.machine
    assert isinstance(machine, RecordingMachine)
    before = _begin(machine, len(before_it) + 1, at)
    for name, until in at.order:
        _move(machine, name, until)
    machine.run()
    hits = [after - begin for after, begin in zip(machine.hits, before, strict=True)]
    counters = count(machine.program.arcs, hits)
    return {name: counters[name] for name in COLUMNS}


def _begin(machine: RecordingMachine, packet: int, at: At) -> list[int]:
    """Take a packet's first step; answers how often each arc had been taken without it."""
    while machine.step():
        if machine.threads[machine.current].me.packet == packet:
            break
    first = machine.arc_at(machine.position - 1).number
    for name in at.rested:
        _move(machine, name, "")
    before = list(machine.hits)
    before[first] -= 1
    return before


def _move(machine: RecordingMachine, name: str, until: str) -> None:
    """Let the first thread that is named so move, until it has done an op or cannot go on."""
    index = next(number for number, thread in enumerate(machine.threads) if name in thread.name)
    while machine.move(index) and machine.arc_at(machine.position - 1).op.name != until:
        pass
