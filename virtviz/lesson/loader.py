"""Reading a lesson file: from bytes to a `Lesson`, or to all that is wrong with it.

A lesson may come from a stranger, so reading is strict and bounded. Bytes must be UTF-8 text without control
characters. YAML is taken as events, with their lines and columns, and built into plain values here: by the core schema
of YAML 1.2, where `off` is a word and `0o17` a number; anchors, aliases and tags are refused, and size, depth and
number of values have limits. What the values mean is the business of `shape.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import yaml
from msgspec import Struct

from virtviz.errors import LessonError
from virtviz.lesson.build import check_scenario, check_world
from virtviz.lesson.marks import Marks, shown, shown_key
from virtviz.lesson.shape import DIGITS_MAX, as_lesson

if TYPE_CHECKING:
    from collections.abc import Iterator

    from virtviz.lesson.marks import Path as Place
    from virtviz.lesson.model import Lesson

Event: TypeAlias = Any
"""An event of PyYAML, which has no types for them."""
Plain: TypeAlias = Any
"""Whatever YAML can say: a mapping, a list, a text, a number, a truth value, or nothing."""

SIZE_MAX: Final = 256 * 1024
"""Bytes of a lesson file; the longest useful ones have a tenth of it."""
DEPTH_MAX: Final = 16
"""Values inside values; the format itself needs 7."""
VALUES_MAX: Final = 20_000
"""Keys and values in a file."""

_FORBIDDEN: Final = "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
"""What no text of a lesson has: control characters, tabs, line ends but LF, marks that turn the reading direction.
None of it is printable; so most texts are known to be clean before this is compiled, which takes a while.

Source: C0 and C1 of ISO 6429; the explicit directional characters of Unicode Standard Annex 9, section 2.
"""
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_EXPLAINED: Final[tuple[tuple[str, str], ...]] = (
    ("mapping values are not allowed", "a `:` cannot stand here; quote the text, or give the line above its own `:`"),
    ("could not find expected ':'", "a key without `:`; write `key: value`, or indent a text that goes on here"),
    ("found unexpected end of stream", "the quotation mark that opens here is never closed"),
    ("found unexpected document separator", "the quotation mark that opens here is not closed before `---` or `...`"),
    ("found unknown escape character", "an unknown escape after `\\`; write `\\\\`, or use single quotes"),
    ("expected escape sequence of", "an incomplete escape after `\\`; write `\\\\`, or use single quotes"),
    ("that cannot start any token", "a text cannot begin with this character; put it in quotes"),
    ("but found ']'", "a bracket that was never opened; take it out, or put the text in quotes"),
    ("but found '}'", "a bracket that was never opened; take it out, or put the text in quotes"),
    ("expected <block end>, but found '<scalar>'", "nothing can follow a closed quotation mark; quote the whole text"),
    ("expected <block end>", "this line does not line up with the ones it belongs to; indent it like them"),
    ("expected ',' or ']'", "the list that opens with `[` is not closed; write `]`, or `,` between its items"),
    ("expected ',' or '}'", "the mapping that opens with `{` is not closed; write `}`, or `,` between its keys"),
    ("expected the node content", "a value is missing here, or a bracket is too many"),
    ("expected chomping or indentation indicators", "after `|` or `>` the text begins in the next line"),
    ("expected a comment or a line break", "after `|` or `>` the text begins in the next line"),
    ("sequence entries are not allowed", "a list's `-` cannot stand here; begin it in a line of its own"),
    ("mapping keys are not allowed", "a `?` followed by a space cannot stand here; put the text in quotes"),
)
"""Words of the parser's messages, and what to say instead."""
_AT_OPENING: Final = ("found unexpected end of stream", "found unexpected document separator", "expected ',' or")
"""Problems that are seen at the end of something, but put right where it begins."""


class Reading(Struct, frozen=True):
    """A lesson and where everything stands in its file."""

    lesson: Lesson
    marks: Marks


def load(path: Path | str) -> Lesson:
    """Read a lesson file.

    Raises:
        LessonError: it is not a lesson; holds every problem found, in file order.
    """
    return read(path).lesson


def load_text(text: str, path: str = "") -> Lesson:
    """Read a lesson from text; `path` is what messages call it.

    Raises:
        LessonError: as for `load`.
    """
    return read_text(text, path).lesson


def read(path: Path | str) -> Reading:
    """Read a lesson file, and keep where everything stands.

    Raises:
        LessonError: as for `load`.
    """
    marks = Marks(str(path))
    text = _text_of(Path(path), marks)
    if marks.found:
        raise LessonError(marks.problems())
    return read_text(text, str(path))


def read_text(text: str, path: str = "") -> Reading:
    """Read a lesson from text, and keep where everything stands.

    Raises:
        LessonError: as for `load`.
    """
    marks = Marks(path, lines=text.count("\n") + 1)
    lesson = None
    if len(text.encode("utf-8", "surrogatepass")) > SIZE_MAX:
        marks.add_at(1, 1, f"the file is larger than {SIZE_MAX // 1024} KiB; a lesson is shorter")
    elif _is_clean(text, marks):
        value = _values_of(text, marks)
        if value is not _NOTHING:
            lesson = as_lesson(value, marks)
            check_world(value, marks)
    if lesson is not None:
        check_scenario(lesson, marks)
    if lesson is None or marks.found:
        raise LessonError(marks.problems())
    return Reading(lesson, marks)


# Bytes and characters


def _text_of(path: Path, marks: Marks) -> str:
    try:
        if not path.is_file():
            if path.is_dir():
                what = "this is a folder; name the lesson file in it"
            elif path.exists():
                what = "this is not an ordinary file; a lesson is a YAML file"
            else:
                what = "there is no such file; `virtviz list` shows the lessons"
            marks.add_at(1, 1, what)
            return ""
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        marks.add_at(1, 1, f"the file cannot be read: {reason}")
        return ""
    if len(data) > SIZE_MAX:
        marks.add_at(1, 1, f"the file is larger than {SIZE_MAX // 1024} KiB; a lesson is shorter")
        return ""
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, begin = before.count(b"\n") + 1, before.rfind(b"\n") + 1
        column = len(before[begin:].decode("utf-8", "replace")) + 1
        marks.add_at(line, column, f"byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8")
        return ""


def _is_clean(text: str, marks: Marks) -> bool:
    """Look for characters that no lesson may contain; if there are any, nothing else is looked for."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    for number, line in enumerate(text.split("\n"), 1):
        for found in re.finditer(_FORBIDDEN, line) if not line.isprintable() else ():
            what = "a tab; write spaces" if found[0] == "\t" else f"control character U+{ord(found[0]):04X}; delete it"
            marks.add_at(number, found.start() + 1, what)
    if not marks.found and not text.strip():
        marks.add_at(1, 1, "the file is empty; a lesson begins with `format_version: 1`")
    return not marks.found


def _find_forbidden(text: str) -> re.Match[str] | None:
    return None if text.replace("\n", "").isprintable() else re.search(_FORBIDDEN, text)


# YAML

_NOTHING: Final = object()
"""Stands for a file of which no value could be made."""
_PARSERS: Final[tuple[Any, ...]] = (getattr(yaml, "CSafeLoader", yaml.SafeLoader), yaml.SafeLoader)
"""The quick parser, and the one with the better messages."""


def _values_of(text: str, marks: Marks) -> Plain:
    """Build plain values from YAML, noting where everything stands; `_NOTHING` if that is impossible."""
    quick, careful = _PARSERS
    noted = Marks(marks.path, lines=marks.lines)
    try:
        value = _Builder(noted).build(yaml.parse(text, Loader=quick))
    except yaml.YAMLError as error:
        # Both parsers refuse the same texts, nearly; the slower one says better why and where.
        noted = Marks(marks.path, lines=marks.lines)
        try:
            _Builder(noted).build(yaml.parse(text, Loader=careful))
            if not noted.found:
                _explain(error, noted)
        except yaml.YAMLError as better:
            _explain(better, noted)
        value = _NOTHING
    marks.values, marks.keys, marks.ids = noted.values, noted.keys, noted.ids
    marks.found += noted.found
    return value


def _explain(error: yaml.YAMLError, marks: Marks) -> None:
    """Say what the parser's complaint means, and where."""
    problem = str(getattr(error, "problem", None) or error)
    mark = getattr(error, "problem_mark", None)
    what = next((ours for theirs, ours in _EXPLAINED if theirs in problem), f"this is not YAML: {shown(problem)}")
    begin = getattr(error, "context_mark", None)
    if begin is not None and problem.startswith(_AT_OPENING):
        mark = begin
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    marks.add_at(line, column, what)


class _TooMuchError(Exception):
    """The file goes beyond a limit; the problem is noted."""


class _Builder:
    """Builds plain values from events. It recurses no deeper than `DEPTH_MAX`."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.count = 0

    def build(self, events: Iterator[Event]) -> Plain:
        """Build the value of the only document; `_NOTHING` where there is none, or too much."""
        documents = 0
        value: Plain = _NOTHING
        try:
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self._stop(event, "a second document; a lesson file holds one, so take the `---` out")
                    if event.tags or event.version not in (None, (1, 2)):
                        self._problem(event, "a `%` directive; lessons are YAML 1.2 without directives, so take it out")
                elif isinstance(event, yaml.NodeEvent):
                    value = self._value(event, events, ())
        except _TooMuchError:
            return _NOTHING
        if value is _NOTHING:
            self.marks.add_at(1, 1, "there is nothing in the file; a lesson begins with `format_version: 1`")
        return value

    def _value(self, event: Event, events: Iterator[Event], at: Place) -> Plain:
        self._admit(event)
        self.marks.values.setdefault(at, _place(event))
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, at)
        if len(at) >= DEPTH_MAX:
            self._stop(event, f"more than {DEPTH_MAX} values inside each other; no lesson needs that")
        return self._mapping(events, at) if isinstance(event, yaml.MappingStartEvent) else self._list(events, at)

    def _list(self, events: Iterator[Event], at: Place) -> list[Plain]:
        made: list[Plain] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            made.append(self._value(event, events, (*at, len(made))))
        return made

    def _mapping(self, events: Iterator[Event], at: Place) -> dict[str, Plain]:
        made: dict[str, Plain] = {}
        first_line: dict[str, int] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            self._admit(event)
            line, column = _place(event)
            if not isinstance(event, yaml.ScalarEvent):
                self._stop(event, "a list or mapping as a key; a key is a word")
            key: str = event.value
            place = (*at, key)
            if key in made:
                what = f"the key {shown(key)} is here a second time, after line {first_line[key]}; keep one of them"
                self.marks.add_at(line, column, what, place)
                self._value(next(events), events, (*at, f"{key} again"))
                continue
            if _find_forbidden(key):
                self.marks.add_at(line, column, "a control character in a key; take it out", at)
            first_line[key] = line
            self.marks.keys[place] = line, column
            made[key] = self._value(next(events), events, place)
        name = made.get("id")
        if isinstance(name, str) and at and isinstance(at[-1], int):
            self.marks.ids[at] = shown_key(name)
        return made

    def _scalar(self, event: Event, at: Place) -> Plain:
        text: str = event.value
        found = _find_forbidden(text)
        if found:
            name = "a tab" if found[0] == "\t" else f"control character U+{ord(found[0]):04X}"
            self.marks.add(at, f"{name} in a text; take it out")
        if not event.implicit[0]:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if len(text) > DIGITS_MAX:
            return text
        if _INT.fullmatch(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return int(text[2:] if base != 10 else text, base)
        return float(text.lower().replace(".i", "i").replace(".n", "n")) if _FLOAT.fullmatch(text) else text

    def _admit(self, event: Event) -> None:
        """Count a key or value, and refuse what lessons do not use."""
        self.count += 1
        if self.count > VALUES_MAX:
            self._stop(event, f"more than {VALUES_MAX} keys and values; no lesson needs that")
        if isinstance(event, yaml.AliasEvent):
            self._stop(event, f"an alias, {shown(f'*{event.anchor}')}; write out what it stands for")
        if event.anchor is not None:
            self._stop(event, f"an anchor, {shown(f'&{event.anchor}')}; write the value out where it is needed")
        if event.tag is not None:
            self._stop(event, f"a tag, {shown(event.tag)}; write the value without it")

    def _problem(self, event: Event, what: str) -> None:
        self.marks.add_at(*_place(event), what)

    def _stop(self, event: Event, what: str) -> NoReturn:
        self._problem(event, what)
        raise _TooMuchError


def _place(event: Event) -> tuple[int, int]:
    """Give line and column of an event, from 1."""
    return event.start_mark.line + 1, event.start_mark.column + 1
