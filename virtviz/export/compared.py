"""A comparison as JSON: the types it is written from, which are also its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from virtviz.engine.counters import COUNTERS
from virtviz.engine.effects import EffectKind
from virtviz.engine.places import CrossingKind, Side
from virtviz.export.all_paths import AllPathsLine
from virtviz.export.schema import schema_of
from virtviz.export.swept import SweepLine
from virtviz.export.timing import TimingLine

if TYPE_CHECKING:
    from virtviz.study.compare import Account, Comparison, Entry, Section, Way

FORMAT: Final = "virtviz-compare"
FORMAT_VERSION: Final = 1
Count = Annotated[int, Meta(ge=0)]
Kind = Annotated[str, Meta(extra_json_schema={"enum": [*map(str, CrossingKind), *map(str, EffectKind)]})]
Counters = Annotated[dict[str, int], Meta(description="Counters by their flat names; in a difference, those not 0.")]


class Line(Struct):
    """Base of everything in a comparison. Unknown keys are ignored: later versions may add some."""


class WorldLine(Line):
    """A world: what it was called, its settings, and what its run came to."""

    name: str
    world: dict[str, int | str | list[str]]
    steps: Count
    counters: Counters
    difference: Counters


class EntryLine(Line):
    """One crossing or effect of one world: which step of which thread, and why."""

    step: Annotated[int, Meta(ge=1)]
    thread: str
    place: str
    row: str
    kind: Kind
    side: Side
    cause: str
    how: str
    target: str
    bytes: Count
    counts: Counters


class SectionLine(Line):
    """The part of a packet's way that begins with a milestone; `rows` hold an entry, or null, for each world."""

    milestone: Annotated[str | None, Meta(description="null for what comes before any milestone.")]
    nth: Annotated[int, Meta(ge=1, description="The how-manieth time the packet comes by this milestone.")]
    reached: Annotated[list[int | None], Meta(description="For each world, the step; null if it never does.")]
    rows: list[list[EntryLine | None]]


class CauseLine(Line):
    """What adds to a difference: an entry that only one of the two worlds has."""

    milestone: str | None
    by: int
    world: Annotated[int, Meta(ge=0, description="Number of the world that has the entry.")]
    entry: EntryLine


class DifferenceLine(Line):
    """By how much a counter differs between a world and world 0, for this packet, and the causes."""

    world: Annotated[int, Meta(ge=1)]
    counter: str
    by: int
    causes: list[CauseLine]


class PacketLine(Line):
    """One packet in all worlds; number null is what belongs to no packet."""

    packet: Annotated[int, Meta(ge=1)] | None
    name: str
    sections: list[SectionLine]
    differences: list[DifferenceLine]


class ComparisonLine(Line):
    """The whole comparison. World 0 is what the others are compared with."""

    format: Literal["virtviz-compare"]
    format_version: Literal[1]
    worlds: list[WorldLine]
    packets: list[PacketLine]


def comparison_json(comparison: Comparison) -> str:
    """Give a comparison as one JSON object, indented."""
    first = comparison.accounts[0]
    line = ComparisonLine(
        FORMAT,
        FORMAT_VERSION,
        [_world(account, first) for account in comparison.accounts],
        [_packet(way) for way in comparison.ways],
    )
    return msgspec.json.format(msgspec.json.encode(line), indent=1).decode()


def comparison_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) that `compare --format json` fits."""
    return schema_of(
        (ComparisonLine, AllPathsLine, TimingLine, SweepLine),
        f"virtviz comparison, version {FORMAT_VERSION}",
        "What `compare --format json` writes: the same packets in several simulated worlds, milestone by milestone and "
        "crossing by crossing; with `--all-paths`, what one packet costs on every path; with `--time`, rates and "
        "delays; with `--sweep`, figures over settings.",
    )


def _world(account: Account, first: Account) -> WorldLine:
    difference = {name: account.counters[name] - first.counters[name] for name in COUNTERS}
    return WorldLine(
        account.name,
        account.world.plain(),
        account.steps,
        account.counters,
        {name: by for name, by in difference.items() if by},
    )


def _packet(way: Way) -> PacketLine:
    differences = [
        DifferenceLine(
            difference.world,
            difference.counter,
            difference.by,
            [
                CauseLine(cause.milestone or None, cause.by, cause.world, _entry(cause.entry))
                for cause in difference.causes
            ],
        )
        for difference in way.differences
    ]
    return PacketLine(way.packet or None, way.name, [_section(section) for section in way.sections], differences)


def _section(section: Section) -> SectionLine:
    return SectionLine(
        section.milestone or None,
        section.nth,
        [step or None for step in section.reached],
        [[None if entry is None else _entry(entry) for entry in row] for row in section.rows],
    )


def _entry(entry: Entry) -> EntryLine:
    return EntryLine(
        entry.step,
        entry.thread,
        entry.place,
        entry.row,
        entry.kind,
        Side(entry.side),
        entry.cause,
        entry.how,
        entry.target,
        entry.bytes,
        dict(entry.counts),
    )
