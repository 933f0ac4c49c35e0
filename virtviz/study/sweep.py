"""Sweeps: the same frames in many worlds that differ in a few settings, run on all cores or on a cluster.

A sweep is a grid: every combination of the values of its axes, for every world. Each point is a run of its own, and
what it comes to depends on nothing but its settings; so where and in which order the points run changes nothing, and
the results are in the order of the grid.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.engine.counters import count
from virtviz.errors import KnobError, LearnerError, VirtvizError
from virtviz.paths.knobs import find_knob
from virtviz.paths.wiring import simulate
from virtviz.study.metrics import Number, figures, kicks_of, timed_figures
from virtviz.study.subjects import BURST_MAX, Frames, Subject, world_and_traffic
from virtviz.study.timing import BY_TIME, timing_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BURST: Final = "burst"
"""An axis that is no knob: how many packets are sent one right after the other."""
POINTS_MAX: Final = 100_000


class Axis(Struct, frozen=True):
    """A setting and the values that it takes."""

    name: str
    values: tuple[str, ...]


class Point(Struct, frozen=True):
    """One run of a sweep: everything that it depends on.

    Attributes:
        world: what its world was called; empty where there is one only.
        at: the values on the axes, in their order.
        settings: knobs in layers, later ones over earlier ones.
        frames: what is sent.
        timed: keep time.
    """

    world: str
    at: tuple[tuple[str, str], ...]
    settings: tuple[dict[str, str], ...]
    frames: Frames
    timed: bool

    def named(self) -> str:
        """Name the point by its settings."""
        return ", ".join([*([self.world] if self.world else []), *(f"{name}={value}" for name, value in self.at)])


class Result(Struct, frozen=True):
    """What a point came to: figures by name, or what went wrong."""

    found: dict[str, Number]
    wrong: str = ""


def read_axis(text: str) -> Axis:
    """Read `knob=v1,v2,...`; a value of several words (features) joins them with `+`.

    Raises:
        KnobError: it is not of that form, or there is no such knob.
    """
    name, equals, rest = (part.strip() for part in text.partition("="))
    values = tuple(value.strip() for value in rest.split(",") if value.strip())
    if not (equals and name and values):
        raise KnobError(name, f"write --sweep knob=v1,v2,..., such as --sweep queue.size=64,128,256, not {text[:60]!r}")
    if name == BURST:
        if not all(value.isdecimal() and 1 <= int(value) <= BURST_MAX for value in values):
            raise KnobError(BURST, f"burst is a whole number from 1 to {BURST_MAX}, not {rest[:60]!r}")
        return Axis(BURST, tuple(str(int(value)) for value in values))
    if name != "profile" and find_knob(name).members:
        values = tuple(value.replace("+", ",") for value in values)
    if len(set(values)) != len(values):
        raise KnobError(name, f"--sweep {text[:60]} has a value twice")
    return Axis(name, values)


def grid(
    subjects: Sequence[Subject],
    axes: Sequence[Axis],
    frames: Frames,
    common: Sequence[Mapping[str, str]],
    *,
    timed: bool,
) -> list[Point]:
    """Make every point of a sweep, and see that each is a world.

    Args:
        subjects: the worlds; none for one that the settings alone make.
        axes: what is varied; the last one fastest.
        frames: what is sent, where `burst` is no axis.
        common: settings of all worlds.
        timed: keep time.

    Raises:
        KnobError: a combination does not exist; the message names its settings.
        LearnerError: there are too many points, or one axis twice.
    """
    names = [axis.name for axis in axes]
    if len(set(names)) != len(names):
        raise LearnerError(f"--sweep {max(names, key=names.count)} is there twice; write all its values after one")
    size = max(len(subjects), 1)
    for axis in axes:
        size *= len(axis.values)
    if size > POINTS_MAX:
        raise LearnerError(f"{size} runs are more than {POINTS_MAX}; sweep over fewer values")
    points = []
    for subject in subjects or [Subject("", {})]:
        for values in product(*(axis.values for axis in axes)):
            at = dict(zip(names, values, strict=True))
            varied = {name: value for name, value in at.items() if name != BURST}
            sent = frames if BURST not in at else Frames(frames.lesson, frames.packets, int(at[BURST]))
            settings = (*map(dict, common), subject.settings, varied, dict(BY_TIME) if timed else {})
            points.append(Point(subject.name, tuple(at.items()), settings, sent, timed))
    for point in points:
        _check(point)
    return points


def _check(point: Point) -> None:
    """Say which point it is that is no world, before anything runs."""
    try:
        # Its packets are not needed to see that.
        world_and_traffic(Frames(point.frames.lesson), point.settings, {})
    except KnobError as error:
        raise KnobError(error.knob, f"{point.named()}: {error}") from error


def run_point(point: Point) -> Result:
    """Run one point; what goes wrong is a result too, so that it can say which point it was."""
    try:
        world, traffic = world_and_traffic(point.frames, point.settings, {})
        simulation = simulate(world, traffic, recording=False)
        machine = simulation.machine
        machine.run()
        timing = timing_of(point.world, simulation) if point.timed else None
    except (VirtvizError, ArithmeticError, LookupError, ValueError, AssertionError, MemoryError) as error:
        return Result({}, f"{type(error).__name__}: {error}")
    counters = count(machine.program.arcs, machine.hits)
    found = figures(counters, traffic.packets, machine.position, kicks_of(machine))
    return Result(found | timed_figures(timing) if timing is not None else found)
