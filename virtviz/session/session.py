"""A session: one learner's way through one lesson, and the only thing a front end talks to.

Opening a session runs the whole lesson at once. After that a position is a place to look from: going anywhere changes
nothing, and what a question asks has already happened, so its answer is computed and not written down by anybody. The
one thing that stops a learner is a question without an answer: forward moves end there, backward moves are always free.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from virtviz.engine.effects import EffectKind
from virtviz.engine.ops import pick
from virtviz.errors import LearnerError
from virtviz.lesson.build import build, flat
from virtviz.paths.knobs import make_world
from virtviz.paths.wiring import simulate
from virtviz.session.grading import Results
from virtviz.session.run import run_lesson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtviz.engine.memory import Region
    from virtviz.engine.program import Arc
    from virtviz.engine.recording import RecordingMachine
    from virtviz.engine.trace import Step, Trace
    from virtviz.lesson.model import Lesson, When
    from virtviz.paths.describe import Header
    from virtviz.paths.knobs import World
    from virtviz.paths.wiring import Simulation
    from virtviz.session.grading import Asked, Question, Score, Verdict
    from virtviz.session.run import Finding, Moment, Run

SAID_FOR_STEPS: Final = 12
"""Steps after which something said is gone, unless something newer replaced it. Long enough to step on while reading,
short enough that nothing stays beside a step it does not belong to."""

NOTIFICATIONS: Final = frozenset(
    {EffectKind.EVENTFD_SIGNAL, EffectKind.IRQ_INJECT, EffectKind.HW_IRQ, EffectKind.WAKEUP, EffectKind.GUEST_WAKEUP}
)
"""Effects by which somebody is told something: a kick or call arriving at its eventfd, interrupts, wake-ups.
`already-awake` is none, because nobody learns anything by it."""


class Session:
    """A lesson that has been opened. It is a `view.frame.Source`.

    Attributes:
        run: the lesson's run; it never changes.
        lesson, simulation, header, trace: of the run.
        changed: settings that are not those of the lesson, as `name=value`. What happens and what is right follows
            them; what the lesson says was written without them.
        position: 0 before the first step, up to `length`.
    """

    def __init__(self, run: Run, changed: tuple[str, ...] = ()) -> None:
        self.run = run
        self.changed = changed
        self.lesson: Lesson = run.lesson
        self.simulation: Simulation = run.simulation
        self.header: Header = run.header
        self.trace: Trace = run.trace
        self.position = 0
        self._moments: dict[int, list[Moment]] = {}
        for moment in run.moments:
            self._moments.setdefault(moment.position, []).append(moment)
        self._asking = [moment for moment in run.moments if moment.predict is not None]
        self._asked: dict[str, Asked] = {}
        self._cell_numbers: dict[str, int] = {}
        self._results = Results(len(self._asking))

    @classmethod
    def open(
        cls,
        lesson: Lesson,
        *,
        settings: Sequence[Mapping[str, object]] = (),
        seed: int = 0,
        input_frames: Sequence[bytes] | None = None,
    ) -> Session:
        """Run a lesson and stand before its first step.

        Args:
            lesson: a checked lesson.
            settings: further settings by dotted names, over those of the lesson; later ones over earlier ones.
            seed: written into the header.
            input_frames: frames of a capture, instead of the lesson's scenario.

        Raises:
            KnobError: the lesson's world with these settings is not possible.
            CaptureError: there is no frame, or one that no network card would take.
        """
        world, traffic = build(lesson, settings, frames=input_frames)
        return cls(run_lesson(lesson, simulate(world, traffic), seed), _changed(lesson, world, settings))

    # What there is

    @property
    def length(self) -> int:
        """Steps there are."""
        return self.run.length

    @property
    def truncated(self) -> bool:
        """Whether the run was ended before the lesson's end, because it has too many steps."""
        return self.run.truncated

    @cached_property
    def problems(self) -> tuple[Finding, ...]:
        """Everything in the script that does not work out in this run, questions without a right answer included."""
        found = list(self.run.findings)
        for moment in self._asking:
            found += self._pose(moment).findings
        return tuple(found)

    def step(self, n: int) -> Step:
        """Give step `n`, 1..length."""
        return self.trace.step(n)

    def cell(self, position: int, name: str) -> int:
        """Give a cell's value at a position."""
        self._look_from(position)
        number = self._cell_numbers.get(name)
        state = self._machine.state
        if number is None:
            number = self._cell_numbers[name] = state.names.index(name)
        return int(state.value(number))

    def memory(self, position: int, region: str, addr: int, size: int) -> bytes:
        """Give bytes of memory at a position."""
        self._look_from(position)
        return bytes(self._regions[region].bytes[addr : addr + size])

    def counters(self, position: int | None = None) -> dict[str, int]:
        """Give every counter at a position, or at the present one, in the fixed order."""
        return self.run.counters(self.position if position is None else position)

    # Going

    def next(self) -> bool:
        """Go one step forward; answers False at the end, or if a question here is not answered."""
        return self._go_forward(self.position + 1)

    def back(self) -> bool:
        """Go one step back; answers False at the beginning."""
        return self._go_back(self.position - 1)

    def go_to(self, n: int) -> int:
        """Go to a position, or to the first unanswered question on the way there; answers where it stopped."""
        if n > self.position:
            self._go_forward(min(n, self.length))
        else:
            self._go_back(max(n, 0))
        return self.position

    def home(self) -> None:
        """Go to the beginning."""
        self.go_to(0)

    def end(self) -> None:
        """Go to the end, or to the first unanswered question on the way there."""
        self.go_to(self.length)

    def next_crossing(self) -> bool:
        """Go to the next step that crosses a border; False if there is none, or a question comes first."""
        return self._go_to_next(_crosses)

    def previous_crossing(self) -> bool:
        """Go back to the last step before this one that crosses a border; False if there is none."""
        return self._go_to_previous(_crosses)

    def next_milestone(self) -> bool:
        """Go to the next step that is a milestone of a packet; False if there is none, or a question comes first."""
        return self._go_to_next(_is_milestone)

    def previous_milestone(self) -> bool:
        """Go back to the last step before this one that is a milestone; False if there is none."""
        return self._go_to_previous(_is_milestone)

    def next_notification(self) -> bool:
        """Go to the next step by which somebody is notified; False if there is none, or a question comes first."""
        return self._go_to_next(_notifies)

    def previous_notification(self) -> bool:
        """Go back to the last step before this one by which somebody is notified; False if there is none."""
        return self._go_to_previous(_notifies)

    def run_until(self, when: When) -> bool:
        """Go forward to the first step that meets a condition; False if none does, or a question comes first.

        The `nth` of the condition counts from here. Where nothing meets it, the position stays.
        """
        gate = self._gate()
        found = self.run.first_match(when, self.position, gate)
        if found:
            return self._go_forward(found)
        if gate is not None:
            self._go_forward(gate)
        return False

    # What is said and asked

    def moments(self, position: int) -> tuple[Moment, ...]:
        """Give the entries of the script that fired exactly at a position."""
        return tuple(self._moments.get(position, ()))

    @property
    def said(self) -> str:
        """The last thing said at or before this position, for `SAID_FOR_STEPS` steps; empty if there is none.

        What several entries say at one position is one thing, a paragraph each.
        """
        for position in range(self.position, max(self.position - SAID_FOR_STEPS, 0) - 1, -1):
            texts = [moment.say for moment in self.moments(position) if moment.say]
            if texts:
                return "\n\n".join(texts)
        return ""

    @property
    def question(self) -> Question | None:
        """The first unanswered question at this position, None if there is none."""
        moment = self._open_at(self.position)
        return None if moment is None else self._pose(moment).question

    def answer(self, choice: int | None) -> Verdict:
        """Answer the question at this position; an answer is final.

        Args:
            choice: index of an option; None for "not sure yet", which tells the answer and opens the way.

        Raises:
            LearnerError: nothing is asked here, or there is no such option. Nothing changes then.
        """
        moment = self._open_at(self.position)
        if moment is None:
            raise LearnerError(f"nothing is asked at step {self.position}")
        asked = self._pose(moment)
        options = len(asked.question.options)
        if choice is not None and not 0 <= choice < options:
            raise LearnerError(f"there is no answer {choice + 1}; there are 1 to {options}")
        return self._results.grade(asked, choice)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """All verdicts so far, in the order in which the answers were given."""
        return tuple(self._results.verdicts)

    @property
    def questions(self) -> int:
        """How many questions the lesson asks in this run."""
        return len(self._asking)

    @property
    def score(self) -> Score:
        """The score so far."""
        return self._results.score()

    # Inside

    @property
    def _machine(self) -> RecordingMachine:
        return self.run.machine

    @cached_property
    def _regions(self) -> dict[str, Region]:
        return {region.name: region for region in self._machine.state.regions}

    def _look_from(self, position: int) -> None:
        if self._machine.position != position:
            self._machine.seek(position)

    def _pose(self, moment: Moment) -> Asked:
        """Work out a question; done when it is first needed, since it may look at much of the run."""
        made = self._asked.get(moment.id)
        if made is None:
            from virtviz.session.questions import pose  # noqa: PLC0415 - the first screen does not need it

            made = self._asked[moment.id] = pose(self.run, moment)
        return made

    def _open_at(self, position: int) -> Moment | None:
        """Give the first unanswered question at a position."""
        for moment in self._moments.get(position, ()):
            if moment.predict is not None and not self._results.has_answer(moment.id):
                return moment
        return None

    def _gate(self) -> int | None:
        """Give the position of the first unanswered question from here on."""
        here = self.position
        return next(
            (m.position for m in self._asking if m.position >= here and not self._results.has_answer(m.id)), None
        )

    def _go_forward(self, n: int) -> bool:
        """Go to a position ahead, or to the first unanswered question before it; answers whether it got there."""
        gate = self._gate()
        reached = n if gate is None else min(n, gate)
        if not self.position < reached <= self.length:
            return False
        self.position = reached
        return reached == n

    def _go_back(self, n: int) -> bool:
        if not 0 <= n < self.position:
            return False
        self.position = n
        return True

    def _go_to_next(self, wanted: Callable[[Arc], bool]) -> bool:
        steps = range(self.position + 1, self.length + 1)
        found = next((n for n in steps if wanted(self.run.arc(n))), None)
        return found is not None and self._go_forward(found)

    def _go_to_previous(self, wanted: Callable[[Arc], bool]) -> bool:
        found = next((n for n in range(self.position - 1, 0, -1) if wanted(self.run.arc(n))), None)
        return found is not None and self._go_back(found)


def _changed(lesson: Lesson, world: World, settings: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """Name the settings that make the world another one than the lesson's own."""
    given = {name: value for more in settings for name, value in more.items()}
    if not given:
        return ()
    own = make_world(dict(flat(lesson.world)))
    before, after = ({"profile": made.profile, **made} for made in (own, world))
    return tuple(f"{name}={value}" for name, value in given.items() if before[name] != after[name])


def _crosses(arc: Arc) -> bool:
    return arc.crossing is not None


def _is_milestone(arc: Arc) -> bool:
    return bool(pick(arc.op.spec.milestone, arc.outcome))


def _notifies(arc: Arc) -> bool:
    return arc.effect in NOTIFICATIONS
