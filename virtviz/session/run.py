"""Running a lesson: the machine goes on by itself to the end, while the script watches every step.

What the script does (holding a thread, letting it go) is decided by the steps alone, never by what the learner answers
or how they step about. So a lesson is run once, when it is opened; afterwards every move is a look at what happened.

A thread that is held cannot move until it is let go. When nothing else can move either, the entries with `when: end`
that let a held thread go have their turn, one after the other, and the lesson goes on; the other `end` entries belong
to the very end.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from msgspec import UNSET, Struct

from virtviz.engine.counters import COUNTERS, count, of_arc
from virtviz.engine.ops import pick
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.trace import Trace
from virtviz.lesson.conditions import Matcher, begins_with
from virtviz.paths.describe import Header, describe

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from virtviz.engine.program import Arc
    from virtviz.engine.trace import Step
    from virtviz.lesson.model import Entry, Lesson, Predict, When
    from virtviz.paths.wiring import Simulation

STEPS_MAX: Final = 100_000
"""A lesson's run is ended after so many steps. Lessons have some hundreds; this keeps a scenario of a million packets
from filling memory, and takes seconds."""


class Moment(Struct, frozen=True):
    """An entry of the script that fired.

    Attributes:
        id: the entry's.
        position: where it fired: after this step.
        say: what is said; empty if nothing.
        hints: for its question, from vague to plain.
        held, released: names of the threads it stopped, and let go.
        predict: what it asks; None if nothing.
    """

    id: str
    position: int
    say: str
    hints: tuple[str, ...]
    held: tuple[str, ...]
    released: tuple[str, ...]
    predict: Predict | None


class Finding(Struct, frozen=True):
    """Something in a lesson's script that does not work out when it is run.

    Attributes:
        where: dotted path of the key, such as `script.slow-worker.release`.
        what: what is wrong.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Run:
    """A lesson that has been run, and what its script did.

    Attributes:
        lesson, simulation, header: what was run.
        machine: the simulation's; it stands wherever somebody looked last.
        trace: the steps.
        moments: entries that fired, in the order of their positions.
        findings: what did not work out.
        truncated: the run was ended at `STEPS_MAX`.
    """

    def __init__(self, lesson: Lesson, simulation: Simulation, header: Header, machine: RecordingMachine) -> None:
        self.lesson = lesson
        self.simulation = simulation
        self.header = header
        self.machine = machine
        self.trace = Trace(machine, self.held_after)
        self.moments: list[Moment] = []
        self.findings: list[Finding] = []
        self.truncated = False
        # From which positions on which threads are held.
        self._holds_from: list[int] = []
        self._held_names: list[tuple[str, ...]] = []

    @property
    def length(self) -> int:
        """Steps there are."""
        return self.machine.length

    def step(self, n: int) -> Step:
        """Give step `n`, 1..length."""
        return self.trace.step(n)

    def arc(self, n: int) -> Arc:
        """Give the arc that step `n` took; quicker than the whole step."""
        return self.machine.arc_at(n - 1)

    def thread(self, n: int) -> str:
        """Name the thread that took step `n`."""
        return self.machine.threads[self.machine.timeline.threads[n - 1]].name

    def held_after(self, n: int) -> tuple[str, ...]:
        """Name the threads that were held after step `n`."""
        at = bisect_right(self._holds_from, n)
        return self._held_names[at - 1] if at else ()

    def counters(self, position: int) -> dict[str, int]:
        """Give every counter at a position, in the fixed order."""
        self.machine.seek(position)
        return count(self.machine.program.arcs, self.machine.hits)

    def first_match(self, when: When, after: int, until: int | None = None) -> int:
        """Find the first step after a position at which a condition comes true; 0 if there is none.

        The `nth` of the condition counts from that position on.
        """
        matcher, counters = Matcher(when, self.header), self.counters(after)
        for n in range(after + 1, (self.length if until is None else until) + 1):
            arc = self.arc(n)
            add_arc(counters, arc)
            if may_match(when, arc) and matcher.feed(self.step(n), counters):
                return n
        return 0

    def note_held(self, position: int, held: Collection[str]) -> None:
        """Note which threads are held from a position on."""
        self._holds_from.append(position)
        self._held_names.append(tuple(held))
        # The step that led here may have been built before.
        self.trace.forget_after(position - 1)


def run_lesson(lesson: Lesson, simulation: Simulation, seed: int = 0) -> Run:
    """Run a lesson to its end, or for `STEPS_MAX` steps; the machine then stands at position 0."""
    machine = simulation.machine
    assert isinstance(machine, RecordingMachine)
    run = Run(lesson, simulation, describe(simulation, lesson=lesson.id, title=lesson.title, seed=seed), machine)
    _Director(run).direct()
    machine.seek(0)
    return run


class _Director:
    """Runs the machine and carries out the script.

    Attributes:
        waiting: entries that have not fired yet, with what watches for them.
        at_end: entries with `when: end` that have not fired yet.
        held: numbers of the threads that must not move.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.machine = run.machine
        script = run.lesson.script
        self.at_start = [entry for entry in script if entry.when == "start"]
        self.at_end = [entry for entry in script if entry.when == "end"]
        self.waiting = [
            (entry, entry.when, Matcher(entry.when, run.header)) for entry in script if not isinstance(entry.when, str)
        ]
        # Of the waiting entries, those that a step which took this arc could concern.
        self._candidates: dict[int, list[tuple[Entry, When, Matcher]]] = {}
        self.held: set[int] = set()
        self.counters = dict.fromkeys(COUNTERS, 0)

    def direct(self) -> None:
        """Run to the end."""
        run, machine = self.run, self.machine
        for entry in self.at_start:
            self._fire(entry)
        while machine.position < STEPS_MAX:
            stretch = 1 if self.waiting else STEPS_MAX - machine.position
            if machine.run(stretch, held=self.held) == stretch:
                self._watch()
            elif not self._let_go_at_rest():
                break
        run.truncated = bool(self._can_go_on())
        for entry in self.at_end:
            self._fire(entry)
        self._report()

    def _watch(self) -> None:
        """Fire the entries whose condition the last step met."""
        n = self.machine.position
        arc = self.run.arc(n)
        add_arc(self.counters, arc)
        candidates = self._candidates.get(arc.number)
        if candidates is None:
            candidates = self._candidates[arc.number] = [w for w in self.waiting if may_match(w[1], arc)]
        if not candidates:
            return
        step = self.run.step(n)
        fired = [w for w in candidates if w[2].feed(step, self.counters)]
        for watcher in fired:
            for watchers in (self.waiting, *self._candidates.values()):
                if watcher in watchers:
                    watchers.remove(watcher)
            self._fire(watcher[0])

    def _let_go_at_rest(self) -> bool:
        """Nothing can move: let the next `end` entry release what it wants to; answers False if none does."""
        for entry in self.at_end:
            if entry.release is not UNSET and self.held.intersection(self._threads_called(entry.release)):
                self.at_end.remove(entry)
                self._fire(entry)
                return True
        return False

    def _fire(self, entry: Entry) -> None:
        """Note that an entry fired at the present position, and hold and release what it wants to."""
        run = self.run
        held = self._change(entry, "hold", entry.hold if entry.hold is not UNSET else "")
        released = self._change(entry, "release", entry.release if entry.release is not UNSET else "")
        run.moments.append(
            Moment(
                id=entry.id,
                position=self.machine.position,
                say=entry.say if entry.say is not UNSET else "",
                hints=tuple(entry.hints),
                held=held,
                released=released,
                predict=entry.predict if entry.predict is not UNSET else None,
            )
        )

    def _change(self, entry: Entry, key: str, called: str) -> tuple[str, ...]:
        """Hold or release the threads of a name; answers the names of those for which that is news."""
        if not called:
            return ()
        meant = self._threads_called(called)
        if key == "hold":
            changed = [index for index in meant if index not in self.held]
            self.held.update(changed)
        else:
            changed = [index for index in meant if index in self.held]
            self.held.difference_update(changed)
        if not meant:
            self._find(entry, key, f"no thread is called {called!r}; there are {', '.join(self._names())}")
        elif not changed:
            self._find(entry, key, f"{called!r} is {'held already' if key == 'hold' else 'not held at that moment'}")
        else:
            self.run.note_held(self.machine.position, self._names(sorted(self.held)))
        return tuple(self._names(changed))

    def _threads_called(self, name: str) -> list[int]:
        """Give the threads a name means: those that begin with it, with or without the virtual machine's name."""
        return [index for index, thread in enumerate(self.machine.threads) if begins_with(thread.name, name)]

    def _names(self, numbers: Sequence[int] | None = None) -> list[str]:
        threads = self.machine.threads
        return [threads[i].name for i in (range(len(threads)) if numbers is None else numbers)]

    def _can_go_on(self) -> list[int]:
        return [index for index in self.machine.movable() if index not in self.held]

    def _report(self) -> None:
        """Note what did not work out."""
        run = self.run
        for entry, _, _ in self.waiting:
            self._find(entry, "when", "this never happens in the run")
        if self.held and not run.truncated:
            names = ", ".join(self._names(sorted(self.held)))
            run.findings.append(Finding("script", f"{names} is held to the end: nothing that happens releases it"))
        if run.truncated:
            run.findings.append(Finding("scenario", f"the run was ended after {STEPS_MAX} steps"))

    def _find(self, entry: Entry, key: str, what: str) -> None:
        self.run.findings.append(Finding(f"script.{entry.id}.{key}", what))


def add_arc(counters: dict[str, int], arc: Arc) -> None:
    """Add what an arc counts to counters."""
    if arc.crossing is not None or arc.effect is not None:
        for name, more in of_arc(arc).items():
            counters[name] += more


def may_match(when: When, arc: Arc) -> bool:
    """Say whether a step that took this arc could meet a condition.

    False only where a key does not fit that depends on the arc alone, so that most steps need not be built to be passed
    over.
    """
    return (
        (when.op is UNSET or when.op == arc.op.name)
        and (when.crossing is UNSET or when.crossing == arc.crossing)
        and (when.effect is UNSET or when.effect == arc.effect)
        and (when.milestone is UNSET or when.milestone == pick(arc.op.spec.milestone, arc.outcome))
        and (when.any is UNSET or any(may_match(one, arc) for one in when.any))
    )
