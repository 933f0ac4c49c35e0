"""A run as aligned text: a line a step, for reading in a terminal or a pager."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from virtviz.engine.counters import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from virtviz.engine.trace import Effect, Step
    from virtviz.export.jsonl import TimedStep
    from virtviz.paths.describe import Header

TITLE_WIDTH = 44
"""What is longer pushes the rest of its line to the right."""


def write_table(out: TextIO, header: Header, steps: Iterable[TimedStep]) -> None:
    """Write a heading and a line for each step; columns are as wide as the world needs, whatever happens in it."""
    names = {packet.number: packet.name or f"#{packet.number}" for packet in header.packets}
    thread = max(len(info.name) for info in header.threads)
    place = max(len(info.name) for info in header.places)
    packet = max((len(name) for name in names.values()), default=0)
    form = f"{{:>6}}  {{:>9}}  {{:{thread}}}  {{:{place}}}  {{:9}}  {{:{max(packet, 6)}}}  {{:{TITLE_WIDTH}}}  {{}}"
    out.write(
        form.format("step", "ns", "thread", "place", "row", "packet", "what it does", "what it costs").rstrip() + "\n"
    )
    for timed in steps:
        step = timed.step
        name = names.get(step.packet, f"#{step.packet}") if step.packet else ""
        line = form.format(step.n, step.t_ns, step.thread, step.place, step.row, name, step.title, _costs(step))
        out.write(line.rstrip() + "\n")


def write_counters(out: TextIO, counters: Mapping[str, int], drops: Mapping[str, int]) -> None:
    """Write every counter with its title, and where packets were dropped."""
    width = max(len(title) for title in COUNTERS.values())
    out.writelines(f"{title:{width}}  {counters[name]:>9}\n" for name, title in COUNTERS.items())
    out.writelines(f"{'  dropped at ' + name:{width}}  {value:>9}\n" for name, value in drops.items())


def _costs(step: Step) -> str:
    """Say what a step crossed and did beside its own work, and which milestone it is."""
    said = [f"{crossing.kind} ({crossing.side})" for crossing in step.crossings]
    said += [_effect(effect) for effect in step.effects]
    if step.milestone:
        said.append(f"[{step.milestone}]")
    return ", ".join(said)


def _effect(effect: Effect) -> str:
    words = [str(effect.kind)]
    if effect.bytes:
        words.append(f"{effect.bytes} bytes")
    if effect.target:
        words.append(effect.target)
    if effect.how:
        words.append(f"({effect.how})")
    return " ".join(words)
