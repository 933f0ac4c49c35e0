"""Worlds in simulated time: packets a second, how long a packet takes, and who was busy.

Every thread has a CPU of its own and a clock; wake-ups and interrupts carry time from one to the other. All of it rests
on a cost profile, and so is an assumption: to be read as proportions between paths, not as the speed of a machine.
Beside it stand published rates, with their sources, for whoever wants to know how far off it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.engine.counters import count
from virtviz.engine.timed import TimedMachine
from virtviz.paths.wiring import simulate
from virtviz.resources import data_folder
from virtviz.study.subjects import world_and_traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from virtviz.paths.knobs import World
    from virtviz.paths.traffic import Traffic
    from virtviz.paths.wiring import Simulation
    from virtviz.study.subjects import Frames, Subject

BY_TIME: Final = {"schedule": "time"}
BEGINS: Final = ("sent", "from-wire")
ENDS: Final = {"out": "on-wire", "in": "received", "across": "received"}
"""The milestone at which a packet of each way has arrived."""


class Arrivals(Struct, frozen=True):
    """How the packets of one way fared.

    Attributes:
        way: `out`, `in`, or `across` to another virtual machine.
        packets: how many were sent.
        arrived: how many came to the end of their way.
        first_ns: what the first one took, from being sent or coming from the wire.
        p50_ns, p95_ns: what half, and nineteen of twenty, took at most.
        pps: arrivals a second, between the first and the last; 0 for a single one.
    """

    way: str
    packets: int
    arrived: int
    first_ns: int
    p50_ns: int
    p95_ns: int
    pps: int


class Busy(Struct, frozen=True):
    """A thread: for how many nanoseconds it was at work."""

    thread: str
    kind: str
    ns: int


class Timing(Struct, frozen=True):
    """One world's run in simulated time.

    Attributes:
        name: what the world was called.
        world: its settings.
        steps: how many.
        duration_ns: until the last thread stopped.
        arrivals: by way.
        busy: every thread that did something, in the threads' order.
        counters: over the whole run.
        drops: what was dropped, by the name of the drop counter.
    """

    name: str
    world: World
    steps: int
    duration_ns: int
    arrivals: tuple[Arrivals, ...]
    busy: tuple[Busy, ...]
    counters: Mapping[str, int]
    drops: Mapping[str, int]


class Published(Struct, frozen=True):
    """A published rate: of which path and way, in millions of packets a second (None where none was found)."""

    path: str
    way: str
    what: str
    source: str
    confidence: str
    low: float | None = None
    high: float | None = None


def measure(subject: Subject, frames: Frames, common: Sequence[Mapping[str, object]]) -> Timing:
    """Run one world in simulated time.

    Raises:
        KnobError: a setting is unknown, out of range, or not allowed together with another.
    """
    world, traffic = world_and_traffic(frames, common, {**subject.settings, **BY_TIME})
    simulation = simulate(world, traffic, recording=False)
    simulation.machine.run()
    return timing_of(subject.name, simulation)


def timing_of(name: str, simulation: Simulation) -> Timing:
    """Sum up a world that has run to its end, and whose `schedule` is `time`."""
    machine = simulation.machine
    assert isinstance(machine, TimedMachine)
    return Timing(
        name,
        simulation.world,
        machine.position,
        max(thread.me.clock for thread in machine.threads),
        arrivals_of(machine.milestones(), simulation.traffic),
        tuple(
            Busy(thread.name, thread.kind, ns) for thread, ns in zip(machine.threads, machine.busy, strict=True) if ns
        ),
        count(machine.program.arcs, machine.hits),
        simulation.dropped(),
    )


def arrivals_of(passed: Iterable[tuple[str, int, int]], traffic: Traffic) -> tuple[Arrivals, ...]:
    """Sum up when packets began and ended their ways.

    Args:
        passed: milestone, packet and nanoseconds of every milestone.
        traffic: what the packets are.
    """
    ways = [_way(number, traffic) for number in range(1, len(traffic.items) + 1)]
    begun: dict[int, int] = {}
    took: dict[str, list[int]] = {way: [] for way in ENDS}
    ended: dict[str, list[int]] = {way: [] for way in ENDS}
    for milestone, packet, clock in passed:
        if not packet:
            continue
        way = ways[(packet - 1) % len(ways)]
        if milestone in BEGINS:
            begun.setdefault(packet, clock)
        elif milestone == ENDS[way] and packet in begun:
            took[way].append(clock - begun.pop(packet))
            ended[way].append(clock)
    return tuple(_sum_up(way, ways.count(way) * traffic.rounds, took[way], ended[way]) for way in ENDS if way in ways)


def _way(packet: int, traffic: Traffic) -> str:
    _, item = traffic.item_of(packet)
    if not item.outgoing:
        return "in"
    return "across" if item.to_vm >= 0 else "out"


def _sum_up(way: str, packets: int, took: list[int], ended: list[int]) -> Arrivals:
    if not took:
        return Arrivals(way, packets, 0, 0, 0, 0, 0)
    span = max(ended) - min(ended)
    pps = (len(ended) - 1) * 1_000_000_000 // span if span else 0
    in_order = sorted(took)
    return Arrivals(way, packets, len(took), took[0], _share(in_order, 50), _share(in_order, 95), pps)


def _share(in_order: Sequence[int], percent: int) -> int:
    """Give the least value that so many percent are not above (nearest rank)."""
    return in_order[max(0, -(-len(in_order) * percent // 100) - 1)]


def published(path: str, way: str) -> list[Published]:
    """Give the published rates that a path's may be held beside; the general ones last."""
    import tomllib  # noqa: PLC0415 - only where rates are shown

    import msgspec  # noqa: PLC0415

    text = (data_folder("assets") / "published" / "rates.toml").read_text(encoding="utf-8")
    rates = msgspec.convert(tomllib.loads(text)["rate"], list[Published])
    fits = [rate for rate in rates if rate.path in (path, "any") and rate.way == way]
    return sorted(fits, key=lambda rate: rate.path == "any")
