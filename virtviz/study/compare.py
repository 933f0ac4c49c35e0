"""The same frames in several worlds, laid beside each other milestone by milestone, crossing by crossing.

A world's ledger is the list of what its run crossed and did. Each entry of it belongs to a packet and to the part of
that packet's way that begins with the milestone which its thread knew of last: the one that the thread reached itself,
or the one that whoever woke or interrupted it had reached. So what runs at the same time on two CPUs is sorted by
cause, not by the order in which a scheduler happened to run it.

In each part the entries of the worlds are paired in their order by kind, side, and, for a wake-up, whether it is a
vCPU's. What one world has and another has not is the difference; its cause is the entry's own.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from virtviz.engine.counters import COUNTERS, count, of_crossing, of_effect
from virtviz.engine.effects import EffectKind
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.trace import Trace
from virtviz.errors import LearnerError
from virtviz.paths.describe import NAMED_PACKETS_MAX
from virtviz.paths.wiring import simulate
from virtviz.study.subjects import world_and_traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from virtviz.engine.places import CrossingKind
    from virtviz.engine.trace import Step
    from virtviz.paths.knobs import World
    from virtviz.study.subjects import Frames, Subject

WORLDS_MAX: Final = 4
STEPS_MAX: Final = 100_000
"""Steps of one world; a comparison is read by people."""
OUT: Final = (
    "sent",
    "in-ring",
    "notified",
    "backend-awake",
    "fetched",
    "at-tap",
    "at-switch",
    "on-wire",
    "used",
    "completed",
)
IN: Final = (
    "from-wire",
    "at-switch",
    "at-tap",
    "backend-awake",
    "in-guest-buffer",
    "used",
    "interrupted",
    "polled",
    "received",
)
"""Milestones of a packet's way out and in, in the order in which they are shown; a world may reach them in another."""

Key = tuple[str, int]
"""A milestone, and the how-manieth time a packet comes by it: on the way to another virtual machine some come twice."""


class Entry(Struct, frozen=True):
    """One line of a ledger.

    Attributes:
        step: number of the step, from 1.
        thread, place, row: who, whose code, and the row of the table of steps.
        kind: of the crossing or effect.
        side: guest or host.
        cause: why.
        how: in which of several ways an effect was done; empty where there is one.
        target: the thread it reached; empty if none.
        bytes: how many a copy moved.
        counts: what it adds to which counters.
    """

    step: int
    thread: str
    place: str
    row: str
    kind: CrossingKind | EffectKind
    side: str
    cause: str
    how: str
    target: str
    bytes: int
    counts: Mapping[str, int]

    @property
    def sort(self) -> tuple[str, ...]:
        """What it is paired by."""
        return (str(self.kind), self.side, *sorted(self.counts))


class Part(Struct):
    """What one world did from a milestone of a packet on.

    Attributes:
        reached: the step that was the milestone; 0 if this world never comes by it.
        entries: in the order of their steps.
    """

    reached: int = 0
    entries: list[Entry] = field(default_factory=list)


class Account(Struct):
    """One world's run.

    Attributes:
        name: as the person called it.
        world: its settings.
        steps: how many.
        counters: over the whole run.
        parts: for each packet (0: belonging to none), by milestone, in the order in which they were reached.
        packets: packets there are, with their names.
    """

    name: str
    world: World
    steps: int
    counters: dict[str, int]
    parts: dict[int, dict[Key, Part]]
    packets: dict[int, str]


class Section(Struct, frozen=True):
    """A part of a packet's way in all worlds.

    Attributes:
        milestone: its name; empty for what belongs to no milestone.
        nth: the how-manieth time the packet comes by it.
        reached: for each world, the step; 0 if it never does.
        rows: entries that correspond, one for each world, None where a world has none.
    """

    milestone: str
    nth: int
    reached: tuple[int, ...]
    rows: tuple[tuple[Entry | None, ...], ...]


class Cause(Struct, frozen=True):
    """What adds to a difference.

    Attributes:
        milestone: of the part it is in; empty if in none.
        world: number of the world that has the entry: 0, or the one that is compared with it.
        entry: what the other of the two has not.
        by: what it adds to the difference.
    """

    milestone: str
    world: int
    entry: Entry
    by: int


class Difference(Struct, frozen=True):
    """By how much a counter differs in a world from the first world, and why.

    Attributes:
        world: number of the world, from 1 (0 is what it is compared with).
        counter: the counter's name.
        by: how much more, negative for less.
        causes: what only one of the two has.
    """

    world: int
    counter: str
    by: int
    causes: tuple[Cause, ...]


class Way(Struct, frozen=True):
    """One packet in all worlds; number 0 is what belongs to no packet."""

    packet: int
    name: str
    sections: tuple[Section, ...]
    differences: tuple[Difference, ...]


class Comparison(Struct, frozen=True):
    """Several worlds, packet by packet."""

    accounts: tuple[Account, ...]
    ways: tuple[Way, ...]


def compare(subjects: Sequence[Subject], frames: Frames, common: Sequence[Mapping[str, object]]) -> Comparison:
    """Run the same frames in several worlds and lay the ledgers beside each other.

    Args:
        subjects: the worlds, two to `WORLDS_MAX`; differences are from the first.
        frames: what is sent in each of them.
        common: settings of all of them.

    Raises:
        KnobError: a setting is unknown, out of range, or not allowed together with another.
        LearnerError: a run is too long to be read.
    """
    accounts = tuple(_account(subject, frames, common) for subject in subjects)
    numbers = sorted({number for account in accounts for number in account.parts}, key=lambda n: (n == 0, n))
    return Comparison(accounts, tuple(_way(number, accounts) for number in numbers))


# One world


def _account(subject: Subject, frames: Frames, common: Sequence[Mapping[str, object]]) -> Account:
    world, traffic = world_and_traffic(frames, common, subject.settings)
    if traffic.packets > NAMED_PACKETS_MAX:
        raise LearnerError(
            f"{traffic.packets} packets are too many to be laid beside each other; at most {NAMED_PACKETS_MAX} are, "
            "and --sweep sums up any number"
        )
    simulation = simulate(world, traffic)
    machine = simulation.machine
    assert isinstance(machine, RecordingMachine)
    if machine.run(STEPS_MAX) == STEPS_MAX:
        raise LearnerError(f"{subject.name}: more than {STEPS_MAX} steps; send fewer packets")
    trace = Trace(machine)
    parts = sort_by_cause(map(trace.step, range(1, len(trace) + 1)))
    machine.seek(len(trace))
    return Account(
        subject.name,
        world,
        len(trace),
        count(machine.program.arcs, machine.hits),
        parts,
        {number: traffic.name_of(number) for number in parts if number},
    )


def sort_by_cause(steps: Iterable[Step]) -> dict[int, dict[Key, Part]]:
    """Sort what steps crossed and did by the packets and milestones that it belongs to; see the module's text."""
    parts: dict[int, dict[Key, Part]] = {}
    about: dict[str, int] = {}
    knows: dict[tuple[str, int], Key] = {}
    for step in steps:
        packet = step.packet or about.get(step.thread, 0)
        about[step.thread] = packet
        way = parts.setdefault(packet, {})
        # A crossing leads away from the step's place, so the milestone has been reached by then.
        if step.milestone and packet:
            key = _next_time(way, step)
            way[key] = Part(step.n)
            knows[step.thread, packet] = key
        # A device's engine reads rings and is not told by anybody: it goes on from what was last reached.
        key = knows.get((step.thread, packet)) or next(reversed(way), ("", 1))
        entries = list(_entries(step))
        if entries:
            way.setdefault(key, Part()).entries += entries
        for effect in step.effects:
            if effect.target and effect.target != step.thread:
                about[effect.target] = packet
                knows[effect.target, packet] = key
    return {number: way for number, way in parts.items() if way}


def _next_time(way: Mapping[Key, Part], step: Step) -> Key:
    """Say which milestone a step is, for a packet that has been at some already."""
    nth = 1 + sum(name == step.milestone for name, _ in way)
    if step.milestone == "used" and ("sent", 1) in way and "receive" in step.queue:
        # The buffer that the packet came into, whichever of the two back-ends is quicker.
        nth = max(nth, 2)
    return step.milestone, nth


def _entries(step: Step) -> Iterable[Entry]:
    for crossing in step.crossings:
        counts = of_crossing(crossing.kind, crossing.side)
        if counts:
            where = (step.n, step.thread, step.place, step.row)
            yield Entry(*where, crossing.kind, crossing.side, crossing.cause, "", "", 0, counts)
    for effect in step.effects:
        counts = of_effect(effect.kind, effect.side, effect.target_kind)
        if counts or effect.kind is EffectKind.ALREADY_AWAKE:
            where = (step.n, step.thread, step.place, step.row)
            yield Entry(*where, effect.kind, effect.side, step.title, effect.how, effect.target, effect.bytes, counts)


# Several worlds


def _way(number: int, accounts: Sequence[Account]) -> Way:
    ways = [account.parts.get(number, {}) for account in accounts]
    sections = []
    for key in _order(ways):
        parts = [way.get(key, Part()) for way in ways]
        rows = _pair([part.entries for part in parts])
        sections.append(Section(*key, tuple(part.reached for part in parts), rows))
    name = next((account.packets[number] for account in accounts if number in account.packets), "")
    return Way(number, name, tuple(sections), tuple(_differences(sections, len(accounts))))


def _order(ways: Sequence[Mapping[Key, Part]]) -> list[Key]:
    """Give the milestones of all worlds in the order of the packet's way, whatever order a world reaches them in."""
    found = {key for way in ways for key in way}
    if ("sent", 1) not in found:
        planned = [(name, 1) for name in IN]
    else:
        # On the way to another virtual machine it is used and completed by the sender first.
        planned = [(name, 1) for name in OUT]
        planned += [(name, 1 + (name in OUT)) for name in IN]
    known = [key for key in (("", 1), *planned) if key in found]
    return known + sorted(found - {*known})


def _pair(worlds: Sequence[Sequence[Entry]]) -> tuple[tuple[Entry | None, ...], ...]:
    """Lay lists of entries beside each other: what is of the same sort, in order, stands in one row."""
    rows: list[list[Entry | None]] = []
    sorts: list[tuple[str, ...]] = []
    for number, entries in enumerate(worlds):
        mine = [entry.sort for entry in entries]
        matcher = SequenceMatcher(None, sorts, mine, autojunk=False)
        new_rows: list[list[Entry | None]] = []
        for tag, first, last, begin, end in matcher.get_opcodes():
            if tag == "equal":
                new_rows += [[*row, entry] for row, entry in zip(rows[first:last], entries[begin:end], strict=True)]
            else:
                new_rows += [[*row, None] for row in rows[first:last]]
                new_rows += [[*[None] * number, entry] for entry in entries[begin:end]]
        rows = new_rows
        sorts = [next(entry.sort for entry in row if entry is not None) for row in rows]
    return tuple(tuple(row) for row in rows)


def _differences(sections: Sequence[Section], worlds: int) -> Iterable[Difference]:
    for world in range(1, worlds):
        for counter in COUNTERS:
            causes = [
                cause
                for section in sections
                for row in section.rows
                if (cause := _cause(section.milestone, row, world, counter)) is not None
            ]
            by = sum(cause.by for cause in causes)
            if by:
                yield Difference(world, counter, by, tuple(causes))


def _cause(milestone: str, row: tuple[Entry | None, ...], world: int, counter: str) -> Cause | None:
    """Give what a row adds to the difference between a world and the first one; None if nothing."""
    base, other = row[0], row[world]
    if other is not None and base is None and other.counts.get(counter):
        return Cause(milestone, world, other, other.counts[counter])
    if base is not None and other is None and base.counts.get(counter):
        return Cause(milestone, 0, base, -base.counts[counter])
    return None
