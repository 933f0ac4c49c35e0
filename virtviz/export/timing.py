"""Worlds in simulated time, as text and as JSON: rates, delays, who was busy, and what was published elsewhere."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Final, Literal, TextIO

import msgspec
from msgspec import Meta, Struct

from virtviz.errors import printable
from virtviz.paths.costs import CONFIDENCE, load_costs
from virtviz.study.timing import published

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from virtviz.study.timing import Arrivals, Published, Timing

FORMAT: Final = "virtviz-timing"
FORMAT_VERSION: Final = 1
WIDTH: Final = 80
WIDTH_MAX: Final = 120
Count = Annotated[int, Meta(ge=0)]


class ArrivalsLine(Struct):
    """How the packets of one way fared; times in nanoseconds, `pps` between the first and the last arrival."""

    way: Literal["out", "in", "across"]
    packets: Count
    arrived: Count
    first_ns: Count
    p50_ns: Count
    p95_ns: Count
    pps: Count


class BusyLine(Struct):
    """For how many nanoseconds a thread was at work."""

    thread: str
    kind: Literal["vcpu", "host", "hardware"]
    ns: Count


class PublishedLine(Struct):
    """A published rate that this may be held beside, in millions of packets a second; null where none was found."""

    way: str
    low_mpps: float | None
    high_mpps: float | None
    what: str
    source: str
    confidence: str


class TimedWorldLine(Struct):
    """One world."""

    name: str
    world: dict[str, int | str | list[str]]
    steps: Count
    duration_ns: Count
    arrivals: list[ArrivalsLine]
    busy: list[BusyLine]
    counters: dict[str, int]
    drops: dict[str, int]
    published: list[PublishedLine]


class TimingLine(Struct):
    """Several worlds in simulated time, under their cost profiles."""

    format: Literal["virtviz-timing"]
    format_version: Literal[1]
    worlds: list[TimedWorldLine]


def timing_json(timings: Sequence[Timing]) -> str:
    """Give the timings as one JSON object, indented."""
    line = TimingLine(FORMAT, FORMAT_VERSION, [_world(timing) for timing in timings])
    return msgspec.json.format(msgspec.json.encode(line), indent=1).decode()


def _world(timing: Timing) -> TimedWorldLine:
    rates = [rate for found in timing.arrivals for rate in _published(timing, found)]
    return TimedWorldLine(
        timing.name,
        timing.world.plain(),
        timing.steps,
        timing.duration_ns,
        [ArrivalsLine(*msgspec.structs.astuple(found)) for found in timing.arrivals],
        [BusyLine(busy.thread, busy.kind, busy.ns) for busy in timing.busy],  # type: ignore[arg-type]
        dict(timing.counters),
        dict(timing.drops),
        [PublishedLine(rate.way, rate.low, rate.high, rate.what, rate.source, rate.confidence) for rate in rates],
    )


def write_timing_table(out: TextIO, timings: Sequence[Timing], width: int | None = None) -> None:
    """Write the timings for people: a block for each world, then what they are assumptions of."""
    columns = min(width or WIDTH, WIDTH_MAX)
    for timing in timings:
        out.writelines(line.rstrip() + "\n" for line in _block(timing, columns))
        out.write("\n")
    names = dict.fromkeys(timing.world.word("costs") for timing in timings)
    for name in names:
        profile = load_costs(name)
        said = (
            f"All times are assumptions: cost profile {printable(name)}, {profile.title}. {profile.about} "
            f"`virtviz costs {printable(name)}` lists them."
        )
        out.writelines(f"{line}\n" for line in textwrap.wrap(said, columns))


def _block(timing: Timing, columns: int) -> Iterator[str]:
    yield f"{printable(timing.name)}: {_time(timing.duration_ns)} in all, {timing.steps:,} steps"
    for found in timing.arrivals:
        yield from _arrivals(found)
    for name, number in timing.drops.items():
        yield f"  {number:,} dropped at {name}"
    yield "  busy"
    width = max(len(busy.thread) for busy in timing.busy)
    for busy in timing.busy:
        share = busy.ns / timing.duration_ns
        yield f"    {busy.thread:{width}}  {_time(busy.ns):>10}  {share:4.0%}  {'#' * round(share * 20)}"
    rates = [rate for found in timing.arrivals for rate in _published(timing, found)]
    if rates:
        yield "  published, to be held beside it"
    for rate in rates:
        yield from textwrap.wrap(
            _said(rate), columns, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False
        )


def _arrivals(found: Arrivals) -> Iterator[str]:
    where = {"out": "onto the wire", "in": "into a program", "across": "into a program of the other machine"}[found.way]
    yield f"  {found.arrived:,} of {found.packets:,} packets {where}"
    if found.pps:
        yield f"    rate     {found.pps:>10,} packets a second"
    yield f"    delay    {_time(found.first_ns):>10} the first, {_time(found.p50_ns)} p50, {_time(found.p95_ns)} p95"


def _published(timing: Timing, found: Arrivals) -> list[Published]:
    """Give published rates for many packets; a lone packet has no rate."""
    return published(timing.world.word("path"), found.way) if found.pps else []


def _said(rate: Published) -> str:
    if rate.low is None or rate.high is None:
        figure = ""
    elif rate.low == rate.high:
        figure = f"{rate.low:g} Mpps: "
    else:
        figure = f"{rate.low:g} to {rate.high:g} Mpps: "
    trust = f" ({rate.confidence}: {CONFIDENCE[rate.confidence]})" if rate.confidence else ""
    return f"{figure}{rate.what}{'; ' if rate.source else ''}{rate.source}{trust}"


def _time(ns: int) -> str:
    """Give a time with a unit that suits it."""
    if ns < 10_000:
        return f"{ns:,} ns"
    return f"{ns / 1000:,.1f} us" if ns < 10_000_000 else f"{ns / 1_000_000:,.1f} ms"
