"""Frames from a source: `make_frame`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from virtviz.engine.counters import COUNTERS
from virtviz.engine.effects import EffectKind
from virtviz.view.fold import Fold, FoldState, step_counts
from virtviz.view.frame import CounterFrame, Frame, PacketFrame, ThreadFrame
from virtviz.view.registers import registers_of
from virtviz.view.ring import ring_frame

if TYPE_CHECKING:
    from virtviz.engine.trace import Step
    from virtviz.paths.describe import QueueInfo
    from virtviz.view.frame import AnyRing, Source

_WAKING: Final = frozenset({EffectKind.WAKEUP, EffectKind.IRQ_INJECT, EffectKind.HW_IRQ})
_folds: WeakKeyDictionary[Source, Fold] = WeakKeyDictionary()


def fold_of(source: Source) -> Fold:
    """Give the fold over a source's steps; there is one for each source, for as long as the source lives."""
    fold = _folds.get(source)
    if fold is None:
        fold = _folds[source] = Fold(source)
    return fold


def make_frame(source: Source, position: int, queue: str | None = None, slots: int | None = None) -> Frame:
    """Build the frame of a position.

    Args:
        source: a session or a trace file. What its steps are must not change.
        position: 0..length.
        queue: the virtqueue to show; None for the one that was worked on last.
        slots: how many of its slots to show; None for as many as the world's setting `queue.show` says.

    Raises:
        IndexError: there is no such position.
        KeyError: there is no such queue.
    """
    if not 0 <= position <= source.length:
        raise IndexError(f"position {position} is not within 0..{source.length}")
    state = fold_of(source).at(position)
    header = source.header
    step = source.step(position) if position else None
    shown = queue or state.queue
    infos = {q.name: q for q in header.queues}
    if slots is None:
        slots = int(str(header.world["queue.show"]))
    return Frame(
        position=position,
        length=source.length,
        direction=_direction(source, state.packet),
        packet=state.packet,
        step=step,
        threads=_threads(source, state, step),
        packets=_packets(source, state),
        counters=_counters(state, step),
        ring=_ring(source, position, infos[shown], slots, state) if shown else None,
        rings=tuple(
            (q.name, tuple(p.number for p in state.packets.values() if p.where == q.name and p.waiting))
            for q in header.queues
        ),
        cost=tuple(fold_of(source).ledger[state.ledger - _entries(step) : state.ledger]),
        machine=state.machine,
        where_next=str(step.crossings[-1].target) if step and step.crossings else "",
        registers=registers_of(source, position, state.machine, step),
    )


def _ring(source: Source, position: int, queue: QueueInfo, slots: int, state: FoldState) -> AnyRing:
    desc, slot = state.descs.get(queue.name, -1), state.slots.get(queue.name, -1)
    if queue.format == "packed":
        from virtviz.view.packed_ring import packed_ring_frame  # noqa: PLC0415 - where a world has it

        return packed_ring_frame(source, position, queue, slots, desc)
    if queue.format == "e1000":
        from virtviz.view.e1000_ring import e1000_ring_frame  # noqa: PLC0415 - where a world has it

        return e1000_ring_frame(source, position, queue, slots, desc)
    return ring_frame(source, position, queue, slots, desc, slot)


def _entries(step: Step | None) -> int:
    return len(step.crossings) + len(step.effects) if step else 0


def _named(source: Source, number: int) -> tuple[str, bool]:
    """Give a packet's name and whether the guest sends it; a scenario that repeats itself repeats those."""
    listed = source.header.packets
    if not listed:
        return f"#{number}", True
    info = listed[(number - 1) % len(listed)]
    name = info.name or f"#{number}"
    return (name if number <= len(listed) or not info.name else f"{info.name}#{number}"), info.outgoing


def _direction(source: Source, packet: int) -> str:
    if not packet:
        return ""
    return "out" if _named(source, packet)[1] else "in"


def _threads(source: Source, state: FoldState, step: Step | None) -> tuple[ThreadFrame, ...]:
    domains = {p.name: p.domain for p in source.header.places}
    woken = {e.target for e in step.effects if e.kind in _WAKING and e.target} if step else set()
    made = []
    for info in source.header.threads:
        place = state.places[info.name]
        if step and step.thread == info.name:
            thread_state = "runs"
        elif step and info.name in step.held:
            thread_state = "held"
        elif source.cell(state.position, f"{info.name}.asleep"):
            thread_state = "sleeps"
        elif source.cell(state.position, f"{info.name}.parked"):
            thread_state = "waits"
        else:
            thread_state = "ready"
        made.append(
            ThreadFrame(info.name, info.kind, thread_state, place, str(domains.get(place, "")), info.name in woken)
        )
    return tuple(made)


def _packets(source: Source, state: FoldState) -> tuple[PacketFrame, ...]:
    return tuple(
        PacketFrame(p.number, *_named(source, p.number), p.where, p.waiting, p.milestone, p.came_from, p.done)
        for p in state.packets.values()
    )


def _counters(state: FoldState, step: Step | None) -> tuple[CounterFrame, ...]:
    added = dict.fromkeys(COUNTERS, 0)
    for name, more in step_counts(step) if step else ():
        added[name] += more
    return tuple(
        CounterFrame(name, title, value, added[name])
        for (name, title), value in zip(COUNTERS.items(), state.totals, strict=True)
    )
