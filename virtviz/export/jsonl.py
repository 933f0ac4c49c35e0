"""A run as text: the trace file, and the same as one JSON document.

JSON is a projection of what the machine keeps, made a step at a time while it is written, so a long run does not have
to fit into memory as text. The same run gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import msgspec
from msgspec import Struct

from virtviz.engine.counters import COUNTERS, nested
from virtviz.export.compact import pack
from virtviz.export.lines import (
    FORMAT,
    FORMAT_VERSION,
    CountersLine,
    CrossingLine,
    EffectLine,
    FooterLine,
    HeaderLine,
    PacketLine,
    PlaceLine,
    QueueLine,
    ReadLine,
    StepLine,
    ThreadLine,
    WriteLine,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from virtviz.engine.trace import Access, Step, Trace
    from virtviz.paths.describe import Header, InitialState

_encoder = msgspec.json.Encoder()


class TimedStep(Struct, frozen=True):
    """A step, and its thread's simulated time after it, which is that thread's `clock` cell from then on."""

    step: Step
    end_ns: int


def timed_steps(trace: Trace) -> Iterator[TimedStep]:
    """Go through a recorded run from its first step to its last."""
    registers = {thread.name: thread.me for thread in trace.machine.threads}
    for n in range(1, len(trace) + 1):
        step = trace.step(n)
        yield TimedStep(step, registers[step.thread].clock)


# Projections


def header_json(header: Header, state: InitialState) -> str:
    """Give the first line of a trace file, without the line's end."""
    line = HeaderLine(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        lesson=header.lesson,
        title=header.title,
        seed=header.seed,
        world=dict(header.world),
        departures=list(header.departures),
        threads=[ThreadLine(t.name, t.kind, t.place) for t in header.threads],  # type: ignore[arg-type]
        places=[PlaceLine(p.name, p.domain, p.title) for p in header.places],  # type: ignore[arg-type]
        queues=[
            QueueLine(
                name=q.name,
                direction=q.direction,  # type: ignore[arg-type]
                region=q.region,
                size=q.size,
                desc=q.desc,
                avail=q.avail,
                used=q.used,
                event_idx=q.event_idx,
                driver=q.driver,
                device=q.device,
                format=q.format,  # type: ignore[arg-type]
            )
            for q in header.queues
        ],
        packets=[PacketLine(p.number, p.name, p.outgoing, p.length, p.what) for p in header.packets],
        rounds=header.rounds,
        state=pack(state),
    )
    return _encoder.encode(line).decode()


def step_json(step: Step, end_ns: int) -> str:
    """Give a step's line, without the line's end.

    Args:
        step: the step.
        end_ns: its thread's simulated time after it, in nanoseconds.
    """
    line = StepLine(
        n=step.n,
        t_ns=step.t_ns,
        thread=step.thread,
        context=step.context,  # type: ignore[arg-type]
        place=step.place,
        domain=step.domain,
        op=step.op,
        title=step.title,
        row=step.row,
        function=step.function,
        source=step.source,
        spec=step.spec or None,
        text=step.text,
        packet=step.packet or None,
        queue=step.queue or None,
        reads=[_read(access) for access in step.reads],
        writes=[_write(access) for access in step.writes],
        crossings=[CrossingLine(c.kind, c.side, c.source, c.target, c.cause) for c in step.crossings],
        effects=[EffectLine(e.kind, e.side, e.cause, e.target, e.target_kind, e.how, e.bytes) for e in step.effects],
        milestone=step.milestone or None,
        routine=step.routine,
        outcome=step.outcome,
        into=step.into or None,
        held=list(step.held),
        end_ns=end_ns,
    )
    return _encoder.encode(line).decode()


def footer_json(
    *, steps: int, packets: int, counters: Mapping[str, int], drops: Mapping[str, int], truncated: bool = False
) -> str:
    """Give the last line of a trace file, without the line's end.

    Args:
        steps: how many there were.
        packets: how many packets the scenario has, all rounds together.
        counters: every counter by its flat name, such as `user_kernel.guest`.
        drops: what was dropped, by the name of the drop counter.
        truncated: the run went on after the last step that is recorded.
    """
    line = FooterLine(
        steps=steps,
        packets=packets,
        counters=msgspec.convert(nested({name: counters[name] for name in COUNTERS}), CountersLine),
        drops=dict(drops),
        truncated=truncated,
    )
    return _encoder.encode(line).decode()


def _read(access: Access) -> ReadLine:
    return ReadLine(
        space=access.space,  # type: ignore[arg-type]
        field=access.field,
        addr=access.addr,
        size=access.size,
        value=access.new,
        region=access.region,
        owner=access.owner,
    )


def _write(access: Access) -> WriteLine:
    assert access.old is not None
    assert access.new is not None
    return WriteLine(
        space=access.space,  # type: ignore[arg-type]
        field=access.field,
        addr=access.addr,
        size=access.size,
        old=access.old,
        new=access.new,
        region=access.region,
        owner=access.owner,
    )


# Writers


def write_jsonl(out: TextIO, header: str, steps: Iterable[TimedStep], footer: Callable[[], str]) -> None:
    """Write a trace file: a line each for the header, every step, and the footer.

    The footer is asked for when the last step is written, because it counts the run that has then been gone through.
    """
    out.write(header + "\n")
    out.writelines(step_json(timed.step, timed.end_ns) + "\n" for timed in steps)
    out.write(footer() + "\n")


def write_document(out: TextIO, header: str, steps: Iterable[TimedStep], footer: Callable[[], str]) -> None:
    """Write the same as one JSON document with the keys `header`, `steps` and `footer`."""
    out.write(f'{{"header":{header},\n"steps":[')
    separator = "\n"
    for timed in steps:
        out.write(separator + step_json(timed.step, timed.end_ns))
        separator = ",\n"
    out.write(f'\n],\n"footer":{footer()}}}\n')
