"""What a run comes to in numbers: its counters, those per packet, and, where time was kept, rates and delays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.engine.counters import COUNTERS
from virtviz.engine.places import CrossingKind
from virtviz.errors import LearnerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.machine import Machine
    from virtviz.study.timing import Timing

Number = int | float | None
"""None where a figure does not exist, such as packets a kick where nothing kicks."""

DOORBELL_ROWS: Final = frozenset({"G-TX.13"})
"""Rows in which a driver tells the device of packets that it sends."""


class Metric(Struct, frozen=True):
    """A figure: what it is, and whether it needs time to be kept."""

    what: str
    timed: bool = False


METRICS: Final[Mapping[str, Metric]] = {
    "exits_per_packet": Metric("VM exits a packet"),
    "packets_per_kick": Metric("packets a kick"),
    "kicks": Metric("kicks that leave the guest"),
    **{f"{name}_per_packet": Metric(f"{what}, a packet") for name, what in COUNTERS.items()},
    **{name: Metric(what) for name, what in COUNTERS.items()},
    "steps": Metric("steps"),
    "packets": Metric("packets"),
    "pps": Metric("packets a second of simulated time", timed=True),
    "latency_first_ns": Metric("nanoseconds that the first packet takes", timed=True),
    "latency_p50_ns": Metric("nanoseconds that half of the packets take at most", timed=True),
    "latency_p95_ns": Metric("nanoseconds that nineteen of twenty packets take at most", timed=True),
    "duration_ns": Metric("nanoseconds in all", timed=True),
}
"""Every figure by name."""
SHOWN: Final = ("exits_per_packet", "packets_per_kick", "interrupts_per_packet")
"""What is shown where nothing else is asked for."""


def find_metric(name: str) -> str:
    """Give the name of a figure.

    Raises:
        LearnerError: there is none of that name; the message names the nearest.
    """
    if name in METRICS:
        return name
    from difflib import get_close_matches  # noqa: PLC0415 - only what is misspelled needs it

    near = get_close_matches(name, METRICS, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(METRICS)}"
    raise LearnerError(f"there is no figure {name[:40]!r}; {hint}")


def kicks_of(machine: Machine) -> int:
    """Count how often a driver left the guest to tell the device of packets that it sends."""
    found = 0
    for arc, times in zip(machine.program.arcs, machine.hits, strict=True):
        if times and arc.crossing is CrossingKind.VM_EXIT and isinstance(arc.op.spec.row, str):
            row = arc.op.routine.rows.get(arc.op.spec.row, arc.op.spec.row)
            found += times if row in DOORBELL_ROWS else 0
    return found


def figures(counters: Mapping[str, int], packets: int, steps: int, kicks: int) -> dict[str, Number]:
    """Give every figure that does not need time."""
    exits = counters["heavy_exits"] + counters["light_exits"]
    found: dict[str, Number] = {
        "exits_per_packet": exits / packets,
        "packets_per_kick": packets / kicks if kicks else None,
        "kicks": kicks,
        "steps": steps,
        "packets": packets,
    }
    for name, value in counters.items():
        found[name] = value
        found[f"{name}_per_packet"] = value / packets
    return found


def timed_figures(timing: Timing) -> dict[str, Number]:
    """Give the figures that need time: of the way of the scenario's first packet."""
    first = timing.arrivals[0]
    return {
        "pps": first.pps or None,
        "latency_first_ns": first.first_ns if first.arrived else None,
        "latency_p50_ns": first.p50_ns if first.arrived else None,
        "latency_p95_ns": first.p95_ns if first.arrived else None,
        "duration_ns": timing.duration_ns,
    }


def spelled(value: Number) -> str:
    """Write a figure the same way everywhere: whole numbers as they are, others with six digits, none as nothing."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
