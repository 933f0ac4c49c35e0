"""From steps to what has come of them: where threads and packets are, what was counted, what the ledger holds.

Nothing here is kept by the machine; it is folded over the steps, so that a trace file gives the same as the run it
was written from. One step is folded in constant time. Every `CHECKPOINT_STEPS` steps what has come together is kept,
so that any position that was passed once is a few steps away for ever.

Where a packet is, is told by its own steps, with one reservation: while it lies in a queue, others do things on its
behalf (a kick, a wake-up, an interrupt), and those steps do not move it. It lies there until somebody takes it out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from virtviz.engine.counters import COUNTERS, of_crossing, of_effect
from virtviz.engine.effects import EffectKind
from virtviz.engine.places import Domain
from virtviz.engine.threads import ThreadKind
from virtviz.paths.hosts import without_host
from virtviz.view.frame import LedgerEntry
from virtviz.view.machines import hosts_of, machine_of, machines_of, thread_machines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from virtviz.engine.trace import Crossing, Effect, Step
    from virtviz.paths.describe import Header
    from virtviz.view.frame import Source

CHECKPOINT_STEPS: Final = 64
"""Steps between two states that are kept for good; going back folds at most this many."""
KEPT_STATES: Final = 512
"""States kept beside those, so that stepping back and forth folds nothing twice."""
DONE_PACKETS_KEPT: Final = 6
"""Packets that are remembered once they have arrived, where a scenario has more than it lists."""

_TAKEN_BY_MILESTONE: Final = frozenset({"fetched", "polled"})
"""How a packet leaves a virtqueue: the device has read its descriptors, or the driver has taken its buffer back."""
_TAKEN_BY_EFFECT: Final = frozenset({EffectKind.COPY, EffectKind.DMA})
_WITHOUT_PACKETS: Final = frozenset({"kvm", "callfd", "kickfd"})
"""Places that a thread comes through to interrupt a guest, or to be kicked: what it carries stays where it was."""
DOMAINS: Final = tuple(Domain)
"""The domains, in a fixed order."""
_DOMAIN_AT: Final = {domain: i for i, domain in enumerate(DOMAINS)}
_COUNTER_AT: Final = {name: i for i, name in enumerate(COUNTERS)}


class PacketState(Struct, frozen=True):
    """A packet so far: the fields of `PacketFrame`, and `put_by`, the thread that put it into the queue it lies in."""

    number: int
    where: str = ""
    waiting: bool = False
    milestone: str = ""
    came_from: str = ""
    done: str = ""
    put_by: str = ""


class FoldState(Struct, frozen=True):
    """What has come of the steps up to a position.

    Attributes:
        position: of the last step that is in it.
        packet: number of the packet of the last step that had one; 0 at first.
        queue: the virtqueue worked on last; empty at first.
        machine: the virtual machine whose thread, or whose back-end, took a step last; the first one at first.
        places: thread -> the place of its last step.
        packets: number -> packet, in order of appearance.
        totals: the counters, in the order of `COUNTERS`.
        ledger: entries of the ledger up to here.
        descs, slots: queue -> descriptor and slot that were worked on last.
    """

    position: int
    packet: int
    queue: str
    machine: str
    places: Mapping[str, str]
    packets: Mapping[int, PacketState]
    totals: tuple[int, ...]
    ledger: int
    descs: Mapping[str, int]
    slots: Mapping[str, int]


class Fold:
    """The fold over the steps of one source.

    Args:
        source: where the steps come from. What they are must not change afterwards.

    Attributes:
        ledger: every crossing and effect of the steps folded so far, in order.
        milestones, crossings, notifications: numbers of the steps folded so far that pass a milestone, cross a
            border, or notify somebody.
        took: for each step folded so far the number of the thread that took it, in the header's order.
        domains: for each step folded so far its domain's place in `DOMAINS`.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        header = source.header
        self.queues = frozenset(queue.name for queue in header.queues)
        self.ledger: list[LedgerEntry] = []
        self.milestones: list[int] = []
        self.crossings: list[int] = []
        self.notifications: list[int] = []
        self.took = bytearray()
        self.domains = bytearray()
        self.machines = machines_of(header)
        self._has_other_host = hosts_of(header) > 1
        self._machine_of = thread_machines(header)
        self._thread_at = {thread.name: i for i, thread in enumerate(header.threads)}
        start = FoldState(
            position=0,
            packet=0,
            queue=_first_queue(header),
            machine=self.machines[0],
            places=_first_places(header),
            packets={p.number: PacketState(p.number) for p in header.packets} if header.rounds == 1 else {},
            totals=(0,) * len(COUNTERS),
            ledger=0,
            descs={},
            slots={},
        )
        self._checkpoints: list[FoldState] = [start]
        self._kept: OrderedDict[int, FoldState] = OrderedDict()
        self._last = start
        self._listed = len(header.packets) if header.rounds == 1 else 0

    @property
    def known(self) -> int:
        """The last position that was folded."""
        return self._last.position

    def at(self, position: int) -> FoldState:
        """Give the state at a position, 0..length."""
        if position == self._last.position:
            return self._last
        kept = self._kept.get(position)
        if kept is not None:
            return kept
        state = self._nearest(position)
        while state.position < position:
            state = self._after(state, self.source.step(state.position + 1))
            self._keep(state)
        return state

    def _nearest(self, position: int) -> FoldState:
        at = min(position // CHECKPOINT_STEPS, len(self._checkpoints) - 1)
        best = self._checkpoints[at]
        if best.position < self._last.position <= position:
            best = self._last
        before = self._kept.get(position - 1)
        return before if before is not None else best

    def _keep(self, state: FoldState) -> None:
        position = state.position
        self._kept[position] = state
        if len(self._kept) > KEPT_STATES:
            self._kept.popitem(last=False)
        if position > self._last.position:
            self._last = state
            if position == len(self._checkpoints) * CHECKPOINT_STEPS:
                self._checkpoints.append(state)

    def _after(self, state: FoldState, step: Step) -> FoldState:
        if step.n > self._last.position:
            self._enter(step)
        totals = state.totals
        entries = len(step.crossings) + len(step.effects)
        if entries:
            sums = list(totals)
            for name, more in step_counts(step):
                sums[_COUNTER_AT[name]] += more
            totals = tuple(sums)
        places = state.places
        if places.get(step.thread) != step.place:
            places = {**places, step.thread: step.place}
        queue, descs, slots = state.queue, state.descs, state.slots
        if step.queue in self.queues:
            queue = step.queue
            desc, slot = touched(step)
            descs = {**descs, queue: desc} if desc >= 0 else descs
            slots = {**slots, queue: slot} if slot >= 0 else slots
        return FoldState(
            position=step.n,
            packet=step.packet or state.packet,
            queue=queue,
            machine=self._machine_of.get(step.thread, state.machine),
            places=places,
            packets=self._packets_after(state.packets, step),
            totals=totals,
            ledger=state.ledger + entries,
            descs=descs,
            slots=slots,
        )

    def _enter(self, step: Step) -> None:
        """Note what a step that was never folded before adds to the lists of the whole run."""
        cost: tuple[Crossing | Effect, ...] = (*step.crossings, *step.effects)
        self.ledger += (LedgerEntry(step.n, step.thread, step.packet, what) for what in cost)
        if step.crossings:
            self.crossings.append(step.n)
        if any(effect.kind in NOTIFICATIONS for effect in step.effects):
            self.notifications.append(step.n)
        if step.milestone:
            self.milestones.append(step.n)
        self.took.append(self._thread_at[step.thread])
        self.domains.append(_DOMAIN_AT[step.domain])

    def _packets_after(self, packets: Mapping[int, PacketState], step: Step) -> Mapping[int, PacketState]:
        changed: dict[int, PacketState] = {p.number: replace(p, came_from="") for p in packets.values() if p.came_from}
        if step.packet:
            before = changed.get(step.packet) or packets.get(step.packet) or PacketState(step.packet)
            after = self._moved(before, step)
            if after != before:
                changed[step.packet] = after
        if not changed:
            return packets
        merged = {**packets, **changed}
        if len(merged) > self._listed + DONE_PACKETS_KEPT:
            over = [n for n, p in merged.items() if p.done and n > self._listed]
            for n in over[: len(merged) - self._listed - DONE_PACKETS_KEPT]:
                del merged[n]
        return merged

    def _moved(self, packet: PacketState, step: Step) -> PacketState:
        """Say where a packet is after a step of its own."""
        milestone = step.milestone or packet.milestone
        if packet.done:
            return replace(packet, milestone=milestone)
        where, waiting, put_by, done = packet.where, packet.waiting, packet.put_by, ""
        if (not waiting and without_host(step.place) not in _WITHOUT_PACKETS) or self._is_taken(packet, step):
            where, waiting, put_by = step.place, False, ""
        if step.into:
            where, waiting, put_by = self._full_name(step.into, step), True, step.thread
        if step.milestone == "in-guest-buffer":
            where, waiting, put_by = step.queue, True, step.thread
        elif step.milestone == "on-wire" and not self._has_other_host:
            where, waiting, done = step.into or step.place, False, "on-wire"
        elif step.milestone == "received":
            # A program of the host is a place of its own.
            machine, dot, _ = step.place.partition(".")
            where, waiting, done = f"{machine}.app" if dot else step.place, False, "received"
        if any(effect.kind is EffectKind.DROP for effect in step.effects):
            where, waiting, done = step.place, False, "dropped"
        came_from = (packet.where or "nowhere") if where != packet.where else ""
        return PacketState(packet.number, where, waiting, milestone, came_from, done, put_by)

    def _full_name(self, queue: str, step: Step) -> str:
        """Name a queue that packets wait in; of what every virtual machine has one, with the machine's name."""
        machine = machine_of(step.place, self.machines)
        return f"{machine}.{queue}" if machine and "." not in queue else queue

    def _is_taken(self, packet: PacketState, step: Step) -> bool:
        """Say whether a step takes a packet out of the queue it lies in."""
        if packet.where in self.queues:
            return step.milestone in _TAKEN_BY_MILESTONE
        name = packet.where
        if machine := machine_of(name, self.machines):
            name = name.removeprefix(f"{machine}.")
        if any(w.field.endswith(".taken") and name in w.field for w in step.writes):
            return True
        return step.thread != packet.put_by and any(effect.kind in _TAKEN_BY_EFFECT for effect in step.effects)


NOTIFICATIONS: Final = frozenset(
    {
        EffectKind.WAKEUP,
        EffectKind.ALREADY_AWAKE,
        EffectKind.EVENTFD_SIGNAL,
        EffectKind.IRQ_INJECT,
        EffectKind.HW_IRQ,
        EffectKind.UPCALL,
    }
)
"""Effects by which one party tells another that there is something to do."""


def step_counts(step: Step) -> Iterator[tuple[str, int]]:
    """Give what a step adds to which counter."""
    for crossing in step.crossings:
        yield from of_crossing(crossing.kind, crossing.side).items()
    for effect in step.effects:
        yield from of_effect(effect.kind, effect.side, effect.target_kind).items()


def touched(step: Step) -> tuple[int, int]:
    """Give the descriptor and the slot of its queue that a step read or wrote; -1 for none."""
    desc = slot = -1
    for access in (*step.reads, *step.writes):
        if access.owner != step.queue:
            continue
        name, bracket, rest = access.field.partition("[")
        if not bracket:
            continue
        number = int(rest[: rest.index("]")])
        if name == "desc":
            # Of a chain, its head counts.
            desc = number if desc < 0 else desc
        else:
            slot = number
            if name == "avail.ring" and isinstance(access.new, int):
                desc = access.new
            elif name == "used.ring" and isinstance(access.new, int) and access.size >= 4:
                desc = access.new & 0xFFFFFFFF
    return desc, slot


def _first_places(header: Header) -> dict[str, str]:
    """Say where each thread stands at first: a virtual CPU in its program, the others where they begin."""
    names = {place.name for place in header.places}
    places: dict[str, str] = {}
    for thread in header.threads:
        program = f"{thread.name.partition('.')[0]}.app"
        places[thread.name] = program if thread.kind == ThreadKind.VCPU and program in names else thread.place
    return places


def _first_queue(header: Header) -> str:
    """Give the queue to show before anything has happened: the one the first packet goes through."""
    outgoing = header.packets[0].outgoing if header.packets else True
    wanted = "out" if outgoing else "in"
    return next(
        (q.name for q in header.queues if q.direction == wanted), header.queues[0].name if header.queues else ""
    )
