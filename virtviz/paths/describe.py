"""What a world is made of, for readers of its trace: threads, places, queues, packets, and the initial state.

A `Header`, the initial state and the steps are all that a reader needs to rebuild every cell and every byte at any
position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from virtviz.ring.e1000 import RX_FIELDS, TX_FIELDS, E1000Layout
from virtviz.ring.packed import PackedLayout
from virtviz.ring.rings import layout_of
from virtviz.spec.frames import summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.machine import Machine
    from virtviz.engine.memory import Region
    from virtviz.paths.wiring import Simulation
    from virtviz.ring.e1000 import E1000Ring
    from virtviz.ring.rings import DriverRing, Layout

NAMED_PACKETS_MAX = 1000
"""Packets that a header lists; a scenario of more repeats what it lists."""


class ThreadInfo(Struct, frozen=True):
    """A thread: its name, its kind (`vcpu`, `host` or `hardware`) and the place it begins in."""

    name: str
    kind: str
    place: str


class PlaceInfo(Struct, frozen=True):
    """A place: its name, its domain, and how people call it."""

    name: str
    domain: str
    title: str


class QueueInfo(Struct, frozen=True):
    """A queue between driver and device, and where it lies.

    Attributes:
        name: such as `vm1.transmitq1`.
        direction: `out` or `in`, from the guest's point of view.
        region: the memory region it lies in.
        size: descriptors.
        desc, avail, used: addresses of its three parts; of a packed queue, of its descriptor ring and of the driver's
            and the device's event suppression structure; an e1000's has only descriptors.
        event_idx: VIRTIO_RING_F_EVENT_IDX was negotiated.
        driver, device: names of the cells that the two sides keep, as prefixes: `<driver>.last_used_idx`,
            `<device>.last_avail_idx`; of an e1000 `<driver>.next_to_use`, `<device>.tdh`.
        format: `split` or `packed` for a virtqueue, `e1000` for a descriptor ring of an e1000.
    """

    name: str
    direction: str
    region: str
    size: int
    desc: int
    avail: int
    used: int
    event_idx: bool
    driver: str
    device: str
    format: str = "split"

    @property
    def layout(self) -> Layout | E1000Layout:
        """Where its parts lie."""
        if self.format == "e1000":
            return E1000Layout(self.desc, self.size, TX_FIELDS if self.direction == "out" else RX_FIELDS)
        return layout_of(self.size, self.desc, self.avail, self.used, packed=self.format == "packed")


class PacketInfo(Struct, frozen=True):
    """A packet: its number, the name the lesson gave it, whether the guest sends it, its length, and what it is."""

    number: int
    name: str
    outgoing: bool
    length: int
    what: str


class InitialState(Struct, frozen=True):
    """Every cell by name, and every memory region's bytes, before the first step."""

    cells: Mapping[str, int]
    memory: Mapping[str, bytes]


class Header(Struct, frozen=True):
    """What a world is made of; see the module's text.

    Attributes:
        lesson: id of the lesson; empty if it is none.
        title: the lesson's title.
        seed: as given.
        world: the knobs, with `profile`.
        departures: settings that no real Linux has, in words.
        threads, places, queues, packets: in their fixed order.
        rounds: how often the listed packets are repeated.
    """

    lesson: str
    title: str
    seed: int
    world: Mapping[str, int | str | list[str]]
    departures: tuple[str, ...]
    threads: tuple[ThreadInfo, ...]
    places: tuple[PlaceInfo, ...]
    queues: tuple[QueueInfo, ...]
    packets: tuple[PacketInfo, ...]
    rounds: int


def describe(simulation: Simulation, *, lesson: str = "", title: str = "", seed: int = 0) -> Header:
    """Describe a world."""
    machine, traffic = simulation.machine, simulation.traffic
    program = machine.program
    places: dict[str, PlaceInfo] = {}
    for op in program.ops:
        places.setdefault(op.place.name, PlaceInfo(op.place.name, op.place.domain, op.place.title))
    return Header(
        lesson=lesson,
        title=title,
        seed=seed,
        world=simulation.world.plain(),
        departures=tuple(simulation.world.departures()),
        threads=tuple(ThreadInfo(t.name, t.kind, t.start.place.name) for t in machine.threads),
        places=tuple(places[name] for name in sorted(places)),
        queues=tuple(queue for vm in simulation.vms for pair in vm.pairs for queue in pair.queues),
        packets=tuple(
            PacketInfo(n, item.id, item.outgoing, traffic.length(n), summary(traffic.frame(n)))
            for n, item in enumerate(traffic.items[:NAMED_PACKETS_MAX], 1)
        ),
        rounds=traffic.rounds,
    )


def virtqueue(direction: str, region: Region, layout: Layout, driver: DriverRing, device: str) -> QueueInfo:
    """Describe a virtqueue; `device` is the name of the cells that the device's side keeps."""
    return QueueInfo(
        name=driver.name,
        direction=direction,
        region=region.name,
        size=layout.size,
        desc=layout.areas[0],
        avail=layout.areas[1],
        used=layout.areas[2],
        event_idx=driver.event_idx,
        driver=driver.name,
        device=device,
        format="packed" if isinstance(layout, PackedLayout) else "split",
    )


def e1000_queue(direction: str, region: Region, ring: E1000Ring, device: str) -> QueueInfo:
    """Describe a descriptor ring of an e1000; `device` is the name of the device's registers."""
    return QueueInfo(
        name=ring.name,
        direction=direction,
        region=region.name,
        size=ring.size,
        desc=ring.layout.desc,
        avail=0,
        used=0,
        event_idx=False,
        driver=ring.name,
        device=device,
        format="e1000",
    )


def initial_state(machine: Machine) -> InitialState:
    """Copy the values of all cells and the bytes of all regions."""
    state = machine.state
    cells = {name: int(state.value(number)) for number, name in enumerate(state.names)}
    return InitialState(cells, {region.name: bytes(region.bytes) for region in state.regions})
