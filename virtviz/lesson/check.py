"""Checking a lesson: does everything it names exist, does every question have what it needs, is it kind to its readers?

Reading a file (`loader.py`) finds what is no lesson at all. This finds what would go wrong, or would never happen, in a
lesson that can be read; each at its place in the file. Whether every moment comes, and every question has exactly one
right answer, shows only when the lesson is run; who runs it can turn findings into problems with `Checked.at`.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from msgspec import UNSET, Struct, field

from virtviz.engine.counters import COUNTERS
from virtviz.engine.effects import EffectKind
from virtviz.engine.places import CrossingKind, Domain
from virtviz.errors import LessonError, Problem
from virtviz.lesson.build import build
from virtviz.lesson.conditions import begins_with, comparison, is_called, is_packet
from virtviz.lesson.loader import read, read_text
from virtviz.lesson.marks import Marks, did_you_mean, shown
from virtviz.lesson.model import When
from virtviz.lesson.names import Names
from virtviz.paths.describe import describe
from virtviz.paths.wiring import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from virtviz.lesson.loader import Reading
    from virtviz.lesson.marks import Path as Place
    from virtviz.lesson.model import Entry, Lesson, Predict

    Fits = Callable[[str, str], bool]

COLUMNS, LINES_MAX = 76, 3
"""What a text of a lesson may fill: what an 80x24 screen has room for."""
QUESTION_COLUMNS, OPTION_COLUMNS, QUESTION_ROWS = 74, 70, 11
"""What a question and its options may fill together there, beside the title and "not sure yet"."""
_KEYS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "next-thread": ((), ("options",)),
    "next-op": ((), ("options",)),
    "cell": ((), ("options",)),
    "value": (("field", "until"), ("options",)),
    "count": (("counter", "until"), ("options",)),
    "order": (("of",), ()),
    "choice": (("options", "answer"), ()),
}
"""For each kind of question: the keys it needs, and the ones it may have besides `text` and `why`."""
WORDS_LISTED_MAX: Final = 12
"""So many words that are possible are listed where none of them is near."""
_COLOUR: Final = re.compile(r"\b(red|green|blue|yellow|orange|purple|magenta|cyan)\b", re.IGNORECASE)


class Checked(Struct, frozen=True):
    """What a check found.

    Attributes:
        problems: what has to be put right, in file order.
        warnings: what should be.
        reading: the lesson and its places; None if the file is no lesson.
    """

    problems: list[Problem]
    warnings: list[Problem] = field(default_factory=list)
    reading: Reading | None = None

    def at(self, where: str, what: str) -> Problem:
        """Make a problem of what was found at a dotted path, such as `script.slow-worker.when`, when it was run."""
        marks = self.reading.marks.like() if self.reading else Marks()
        marks.add(marks.find(where), what)
        (problem,) = marks.problems()
        return problem


def check(path: Path | str) -> list[Problem]:
    """Check a lesson file; answers its problems in file order, none if there are none."""
    return examine(path).problems


def examine(path: Path | str) -> Checked:
    """Check a lesson file for problems and for what could be better."""
    try:
        reading = read(path)
    except LessonError as error:
        return Checked(error.problems)
    return _examined(reading, Path(path).stem)


def examine_text(text: str, path: str = "") -> Checked:
    """Check a lesson given as text; `path` is what messages call it."""
    try:
        return _examined(read_text(text, path))
    except LessonError as error:
        return Checked(error.problems)


def _examined(reading: Reading, stem: str = "") -> Checked:
    lesson, found, advice = reading.lesson, reading.marks.like(), reading.marks.like()
    if stem and stem != lesson.id:
        found.add(("id",), f"the file is called {shown(stem)}; call it `{lesson.id}.yaml`, or change the id")
    simulation = simulate(*build(lesson))
    names = Names.of(simulation, describe(simulation))
    _Checker(names, found).check_script(lesson)
    _advise(lesson, advice)
    return Checked(found.problems(), advice.problems(), reading)


class _Checker:
    """Notes what is wrong with a script.

    Args:
        names: what there is.
        marks: takes the problems.
    """

    def __init__(self, names: Names, marks: Marks) -> None:
        self.names = names
        self.marks = marks

    def check_script(self, lesson: Lesson) -> None:
        """Check every entry, and that what is held is released."""
        ids: set[str] = set()
        for number, entry in enumerate(lesson.script):
            at: Place = ("script", number)
            if entry.id in ids:
                self.marks.add(
                    (*at, "id"), f"another entry is called {shown(entry.id)} already; give this one its own id"
                )
            ids.add(entry.id)
            if isinstance(entry.when, When):
                self._condition(entry.when, (*at, "when"))
            self._entry(entry, at)
            if not isinstance(entry.predict, type(UNSET)):
                self._question(entry.predict, (*at, "predict"))
        self._holds(lesson)

    def _entry(self, entry: Entry, at: Place) -> None:
        if entry.say is UNSET and entry.predict is UNSET and entry.hold is UNSET and entry.release is UNSET:
            self.marks.add(at, "nothing happens here; add `say`, `predict`, `hold` or `release`")
        if entry.hints and entry.predict is UNSET:
            self.marks.add((*at, "hints"), "hints without a question; add `predict`, or take them out", key=True)
        for key in ("hold", "release"):
            called = getattr(entry, key)
            if called is not UNSET:
                self._one((*at, key), "thread", called, self.names.threads, begins_with)

    def _holds(self, lesson: Lesson) -> None:
        held = {entry.hold for entry in lesson.script if isinstance(entry.hold, str)}
        released = {entry.release for entry in lesson.script if isinstance(entry.release, str)}
        for number, entry in enumerate(lesson.script):
            if isinstance(entry.release, str) and entry.release not in held:
                hint = did_you_mean(entry.release, held, "; take it out, or add the `hold`")
                self.marks.add(("script", number, "release"), f"nothing holds {shown(entry.release)}{hint}")
            if isinstance(entry.hold, str) and entry.hold not in released:
                self.marks.add(
                    ("script", number, "hold"), f"nothing releases {shown(entry.hold)}; add an entry with `release`"
                )

    # Conditions

    def _condition(self, when: When, at: Place, *, inside: bool = False) -> None:
        before = len(self.marks.found)
        given = [key for key in When.__struct_fields__ if key != "nth" and getattr(when, key) is not UNSET]
        if not given and when.nth == 1:
            self.marks.add(at, "an empty condition fits every step; give at least one key, such as `op` or `milestone`")
        if inside and when.nth != 1:
            self.marks.add((*at, "nth"), "`nth` cannot be used inside `any`; put it beside `any`", key=True)
        self._words(when, at)
        self._outcome(when, at)
        self._packet(when, at)
        for name, wanted in (when.counter if isinstance(when.counter, dict) else {}).items():
            self._counter(name, (*at, "counter", name), key=True)
            if comparison(wanted) is None:
                what = f'{shown(wanted)} is no comparison; write a number, or such as ">= 2" in quotes'
                self.marks.add((*at, "counter", name), what)
        for number, one in enumerate(when.any if isinstance(when.any, list) else []):
            self._condition(one, (*at, "any", number), inside=True)
        if len(self.marks.found) == before:
            self._possible(when, at)

    def _words(self, when: When, at: Place) -> None:
        """Check the keys that name one of a set of things."""
        names = self.names
        for key, words in (("domain", Domain), ("crossing", CrossingKind), ("effect", EffectKind)):
            self._one((*at, key), key, getattr(when, key), [*map(str, words)])
        for key in ("op", "milestone"):
            self._one((*at, key), key, getattr(when, key), names.every(key))
        for key in ("place", "queue"):
            self._one((*at, key), key, getattr(when, key), names.every(key), is_called)
        self._one((*at, "thread"), "thread", when.thread, names.threads, begins_with)
        if isinstance(when.field, str) and not names.is_written(when.field):
            self._nothing((*at, "field"), "field", when.field, _short(names.written_fields()))

    def _outcome(self, when: When, at: Place) -> None:
        if not isinstance(when.outcome, str):
            return
        of_op = sorted({arrow.outcome for arrow in self.names.arrows if when.op in (UNSET, arrow.op)})
        if of_op and when.outcome not in of_op:
            listed = f"; {when.op} ends with {', '.join(of_op)}" if isinstance(when.op, str) else ""
            hint = did_you_mean(when.outcome, of_op, listed)
            self.marks.add((*at, "outcome"), f"no step ends with {shown(when.outcome)}{hint}")

    def _packet(self, when: When, at: Place) -> None:
        packets = self.names.packets
        if isinstance(when.packet, int):
            if not 1 <= when.packet <= len(packets):
                what = f"there is no packet {when.packet}; the scenario has {len(packets)}, from 1 on"
                self.marks.add((*at, "packet"), what)
        elif isinstance(when.packet, str):
            self._one((*at, "packet"), "packet", when.packet, packets, is_packet)

    def _possible(self, when: When, at: Place) -> None:
        """Find out whether any step can be all that a condition asks for."""
        keys = [
            key
            for key in ("op", "outcome", "milestone", "domain", "crossing", "effect")
            if getattr(when, key) is not UNSET
        ]
        fits = [arrow for arrow in self.names.arrows if all(getattr(arrow, key) == getattr(when, key) for key in keys)]
        for key in ("place", "queue"):
            wanted = getattr(when, key)
            if wanted is not UNSET:
                keys.append(key)
                fits = [arrow for arrow in fits if is_called(getattr(arrow, key), wanted)]
        if not fits and keys:
            asked = ", ".join(f"{key} {getattr(when, key)}" for key in keys)
            self.marks.add(at, f"no step can be all of this: {asked}; take one of them out")

    # Questions

    def _question(self, predict: Predict, at: Place) -> None:
        needed, allowed = _KEYS[predict.ask]
        for key in ("options", "answer", "field", "counter", "until", "of"):
            given = getattr(predict, key) is not UNSET
            if given and key not in (*needed, *allowed):
                self.marks.add((*at, key), f"`{key}` has no meaning for `ask: {predict.ask}`; take it out", key=True)
            elif not given and key in needed:
                self.marks.add((*at, "ask"), f"`ask: {predict.ask}` needs `{key}` as well")
        self._options(predict, at)
        if isinstance(predict.field, str) and not self.names.can_be_read(predict.field):
            self._nothing((*at, "field"), "field with one value", predict.field, _short(self.names.written_fields()))
        if isinstance(predict.counter, str):
            self._counter(predict.counter, (*at, "counter"))
        if isinstance(predict.until, When):
            self._condition(predict.until, (*at, "until"))
        for text, when in (predict.of if isinstance(predict.of, dict) else {}).items():
            self._condition(when, (*at, "of", text))

    def _options(self, predict: Predict, at: Place) -> None:
        if not isinstance(predict.options, list):
            return
        for number, option in enumerate(predict.options):
            if option in predict.options[:number]:
                self.marks.add((*at, "options", number), f"{shown(option)} is among the options twice")
        if isinstance(predict.answer, str) and predict.answer not in predict.options:
            hint = did_you_mean(predict.answer, predict.options, "; write one of them word for word")
            self.marks.add((*at, "answer"), f"{shown(predict.answer)} is not among the options{hint}")

    # Words

    def _one(self, at: Place, kind: str, wanted: object, words: Iterable[str], fits: Fits | None = None) -> None:
        """Note a problem unless a word is one of those there are."""
        if not isinstance(wanted, str):
            return
        known = list(words)
        if not (any(fits(word, wanted) for word in known) if fits else wanted in known):
            self._nothing(at, kind, wanted, known)

    def _nothing(self, at: Place, kind: str, wanted: str, words: list[str]) -> None:
        few = f"; there are {', '.join(words)}" if len(words) <= WORDS_LISTED_MAX else ""
        short = [*words, *(word.partition(".")[2] for word in words if "." in word)]
        self.marks.add(at, f"there is no {kind} {shown(wanted)}{did_you_mean(wanted, short, few)}")

    def _counter(self, name: str, at: Place, *, key: bool = False) -> None:
        if name not in COUNTERS:
            self.marks.add(at, f"there is no counter {shown(name)}{did_you_mean(name, COUNTERS)}", key=key)


# What could be better


def _advise(lesson: Lesson, marks: Marks) -> None:
    """Note what makes a lesson weaker than it could be."""
    if all(entry.predict is UNSET for entry in lesson.script):
        marks.add(("script",), "nothing is asked; who only watches learns little, so add a `predict`", key=True)
    if not lesson.sources:
        marks.add(("id",), "no `sources`; say where the lesson's facts are from")
    for number, entry in enumerate(lesson.script):
        at: Place = ("script", number)
        predict = entry.predict if not isinstance(entry.predict, type(UNSET)) else None
        texts: list[tuple[Place, object]] = [((*at, "say"), entry.say)]
        texts += [((*at, "hints", i), hint) for i, hint in enumerate(entry.hints)]
        if predict is not None:
            texts += [((*at, "predict", key), getattr(predict, key)) for key in ("text", "why")]
            rows = _rows(predict)
            if rows > QUESTION_ROWS:
                marks.add(
                    (*at, "predict", "options"),
                    f"question and options take {rows} lines; on a small screen there is room for {QUESTION_ROWS}",
                )
        for place, text in texts:
            if not isinstance(text, str):
                continue
            lines = sum(len(wrap(line, COLUMNS)) or 1 for line in text.splitlines())
            if lines > LINES_MAX:
                marks.add(place, f"{lines} lines of {COLUMNS} columns; people read at most {LINES_MAX} at a step")
            colour = _COLOUR.search(text)
            if colour:
                marks.add(
                    place, f"the colour {shown(colour[0])}; not everybody sees it, so name the thing by its words too"
                )


def _rows(predict: Predict) -> int:
    """Count the lines that a question and the options written for it take on the smallest screen."""
    options = predict.options if isinstance(predict.options, list) else []
    texts = [(predict.text, QUESTION_COLUMNS), *((option, OPTION_COLUMNS) for option in options)]
    return sum(max(len(wrap(text, columns)), 1) for text, columns in texts)


def _short(fields: list[str]) -> list[str]:
    """Spell fields as people do: without the virtual machine."""
    return list(dict.fromkeys(name.partition(".")[2] or name for name in fields))
