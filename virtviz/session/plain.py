"""Plain mode: a lesson as lines of text, one for each step, for pipes, screen readers and the plainest terminals.

Nothing is drawn, coloured or overwritten. The driver prints nothing itself: it is given a function that says a line and
one that asks for one, so that it works the same on a terminal, in a pipe and in a test.

Without somebody to ask (`auto`) the lesson runs straight through; a question is then followed by its answer, and
nothing is graded.
"""

from __future__ import annotations

import contextlib
import re
import textwrap
import unicodedata
from typing import TYPE_CHECKING, Final

from virtviz.engine.counters import COUNTERS
from virtviz.engine.effects import EffectKind
from virtviz.engine.trace import MEM
from virtviz.spec.virtio import in_parts, is_used_element

if TYPE_CHECKING:
    from collections.abc import Callable

    from virtviz.engine.trace import Access, Effect, Step
    from virtviz.session.grading import Question, Verdict
    from virtviz.session.run import Moment
    from virtviz.session.session import Session

HELP: Final = """\
enter, n   next step                    b      step back
home       to the beginning             end    to the end
g N        go to step N
m, M       next, previous milestone     c, C   next, previous crossing
k, K       next, previous notification  t      totals so far
h          this help                    q      quit"""
LOOK_BACK: Final = ("b", "home", "C", "M", "K")
"""Commands that a question does not stop, besides `g`."""
INDENT: Final = "      "
_ASCII: Final = str.maketrans(
    {
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{LEFTWARDS ARROW}": "<-",
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{NON-BREAKING HYPHEN}": "-",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{MIDDLE DOT}": "*",
        "\N{FRACTION SLASH}": "/",
        "\N{GREATER-THAN OR EQUAL TO}": ">=",
        "\N{LESS-THAN OR EQUAL TO}": "<=",
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    }
)
"""How signs that have no ASCII form of their own are spelled; most others come apart by themselves (NFKD)."""
_GO_TO: Final = re.compile(r"g\s*(\d{1,9})")


def to_ascii(text: str) -> str:
    """Say the same in ASCII: arrows and dashes are spelled, accents dropped, what is left becomes `?`."""
    plain = unicodedata.normalize("NFKD", text.translate(_ASCII)).translate(_ASCII)
    return "".join(c for c in plain if not unicodedata.combining(c)).encode("ascii", "replace").decode()


def play(
    session: Session,
    ask: Callable[[str], str],
    say: Callable[[str], None],
    width: int | None = None,
    *,
    auto: bool = False,
    ascii_only: bool = False,
) -> None:
    """Take somebody through a lesson, from where the session stands.

    Args:
        session: an opened lesson.
        ask: shows a prompt and gives the line that was typed; `EOFError` means that nobody is there any more. Not
            called with `auto`.
        say: shows one line.
        width: columns to wrap lines at, with what follows indented; None for never, so that a step is one line.
        auto: run straight through and give every answer.
        ascii_only: say everything with ASCII characters.
    """
    _Player(session, ask, say, width, ascii_only=ascii_only).play(auto=auto)


def step_line(session: Session, n: int) -> str:
    """Give step `n` as one line: number, thread, domain, what is done, the sentence, and what it changed and cost."""
    step = session.step(n)
    threads = max(len(thread.name) for thread in session.header.threads)
    packet = next((f" ({p.name or p.number})" for p in session.header.packets if p.number == step.packet), "")
    parts = [f"{n:>4}  {step.thread:<{threads}}  {step.domain:<12}  {step.title}{packet}:", step.text, *_marks(step)]
    return " ".join(parts)


def _marks(step: Step) -> list[str]:
    """Give what a step changed in a ring, reached and cost, each in brackets."""
    changed = [
        _change(access) for access in step.writes if access.space == MEM and step.queue and access.owner == step.queue
    ]
    marks = [*changed, *([f"milestone {step.milestone}"] if step.milestone else [])]
    marks += [f"+{crossing.kind}" for crossing in step.crossings] + [_effect_mark(effect) for effect in step.effects]
    return [f"[{mark}]" for mark in marks]


def _change(access: Access) -> str:
    """Say what was written: a number as it was and is, a used element by its parts, and of more bytes only where."""
    if not isinstance(access.new, int):
        return access.field
    old = in_parts(access.field, access.size, access.old) if isinstance(access.old, int) else ""
    new = in_parts(access.field, access.size, access.new)
    # What was in the slot before belongs to another buffer.
    return (
        f"{access.field} -> {new}" if is_used_element(access.field, access.size) else f"{access.field} {old} -> {new}"
    )


def _effect_mark(effect: Effect) -> str:
    if effect.kind in (EffectKind.COPY, EffectKind.DMA):
        return f"+{effect.kind} {effect.bytes} bytes"
    return f"+{effect.kind} {effect.target}".rstrip()


class _Player:
    """One run of plain mode."""

    def __init__(
        self,
        session: Session,
        ask: Callable[[str], str],
        say: Callable[[str], None],
        width: int | None,
        *,
        ascii_only: bool,
    ) -> None:
        self.session = session
        self._ask = ask
        self._say = say
        self.width = width
        self.ascii_only = ascii_only
        self.moves: dict[str, Callable[[], object]] = {
            "": session.next,
            "n": session.next,
            "b": session.back,
            "home": session.home,
            "end": session.end,
            "c": session.next_crossing,
            "C": session.previous_crossing,
            "m": session.next_milestone,
            "M": session.previous_milestone,
            "k": session.next_notification,
            "K": session.previous_notification,
        }

    def play(self, *, auto: bool) -> None:
        """Open the lesson, go through it, and say in the end what it cost."""
        self.open()
        if auto:
            self.run_through()
        else:
            with contextlib.suppress(EOFError):
                self.converse()
        self.totals()
        self.score(auto=auto)

    def open(self) -> None:
        """Say what this lesson is."""
        lesson, header = self.session.lesson, self.session.header
        self.say(f"{lesson.id}: {lesson.title}")
        self.say(f"{lesson.level}, about {lesson.minutes} minutes, {self.session.length} steps")
        for objective in lesson.objectives:
            self.say(f"  - {objective}", "    ")
        for departure in header.departures:
            self.say(f"  Not as in Linux: {departure}", "    ")
        if self.session.changed:
            changed = ", ".join(self.session.changed)
            self.say(f"  Not as in this lesson: {changed}. What the lesson says was written without that.", "    ")
        if self.session.truncated:
            self.say("  This run is longer than a lesson may be; it was ended early.", "    ")
        self.say("")
        self.show_position()

    # Straight through

    def run_through(self) -> None:
        """Say every step, and each question with its answer."""
        session = self.session
        while True:
            while session.question is not None:
                self.show_question(session.question)
                self.show_verdict(session.answer(None))
            if not session.next():
                return
            self.show_position()

    # In conversation

    def converse(self) -> None:
        """Ask for commands until somebody has had enough."""
        session = self.session
        self.say("enter for the next step, h for help", "")
        while True:
            while session.question is not None:
                if not self.put(session.question):
                    return
            if session.position == session.length:
                self.say("This is the end of the lesson; enter or q leaves it, b goes back.")
            line = self.ask(f"step {session.position} of {session.length} > ")
            if line == "q" or (line in ("", "n") and session.position == session.length):
                return
            self.obey(line)

    def obey(self, line: str) -> None:
        """Carry out a command."""
        session, before = self.session, self.session.position
        go_to = _GO_TO.fullmatch(line)
        if go_to is not None:
            session.go_to(int(go_to[1]))
        elif line in self.moves:
            self.moves[line]()
        elif line == "t":
            self.totals()
            return
        else:
            self.help(line)
            return
        if session.position == before:
            self.say("There is no such step in that direction.")
            return
        # What the author wanted to be seen is shown even when it is passed over.
        for n in range(before + 1, session.position):
            if session.moments(n):
                self.show(n)
        self.show_position()

    def help(self, line: str) -> None:
        """Say what can be typed, after something that cannot."""
        if line != "h":
            self.say(f"{line!r} is no command.")
        for row in HELP.splitlines():
            self.say(row)

    def put(self, question: Question) -> bool:
        """Ask a question until it is answered; False if somebody wants to leave."""
        self.show_question(question)
        hints = list(question.hints)
        choices = f"1-{len(question.options)}"
        while True:
            line = self.ask(f"{choices}, ? for a hint, s for not sure, b to look back, q to quit > ")
            if line == "q":
                return False
            if line == "?":
                self.say(f"Hint: {hints.pop(0)}" if hints else "There are no more hints.", INDENT)
            elif line == "s":
                self.show_verdict(self.session.answer(None))
                return True
            elif line.isdecimal() and 1 <= int(line) <= len(question.options):
                self.show_verdict(self.session.answer(int(line) - 1))
                return True
            elif line in LOOK_BACK or _GO_TO.fullmatch(line):
                # Whoever comes forward again is asked again.
                self.obey(line)
                return True
            else:
                self.say(f"Type {choices}, ?, s, b or q.")

    # Saying

    def show_position(self) -> None:
        """Say the step that led here, and what the author says here."""
        self.show(self.session.position)

    def show(self, n: int) -> None:
        """Say step `n` and what the author says there."""
        if n:
            self.say(step_line(self.session, n), INDENT)
        for moment in self.session.moments(n):
            self.show_moment(moment)

    def show_moment(self, moment: Moment) -> None:
        """Say what the author says, and which threads are held or go on."""
        if moment.say:
            self.say(f"  >>  {' '.join(moment.say.split())}", INDENT)
        if moment.held:
            self.say(f"  >>  Held from here on: {', '.join(moment.held)} cannot move until released.", INDENT)
        if moment.released:
            self.say(f"  >>  Released: {', '.join(moment.released)} can move again.", INDENT)

    def show_question(self, question: Question) -> None:
        """Say a question and its options."""
        self.say(f"  ??  {' '.join(question.text.split())}", INDENT)
        for number, option in enumerate(question.options, 1):
            self.say(f"{INDENT}{number}  {option}", INDENT + "   ")

    def show_verdict(self, verdict: Verdict) -> None:
        """Say whether an answer was right, what the machine did, and why."""
        right = f"{verdict.answer.rstrip('.')} (option {verdict.right + 1})"
        word = {True: "Right", False: "No", None: "Answer"}[verdict.is_right]
        self.say(f"  !!  {word}: {right}. {' '.join(verdict.why.split())}".rstrip(), INDENT)

    def totals(self) -> None:
        """Say the counters up to here."""
        session = self.session
        self.say("")
        self.say(f"Counted up to step {session.position} of {session.length}:")
        counters = session.counters()
        wide = max(len(str(value)) for value in counters.values())
        for name, value in counters.items():
            self.say(f"  {value:>{wide}}  {COUNTERS[name]}")

    def score(self, *, auto: bool) -> None:
        """Say how the questions went."""
        if not self.session.questions:
            return
        self.say("")
        self.say(f"Questions: {self.session.questions}" if auto else f"Questions: {self.session.score}")

    def say(self, text: str, indent: str = "") -> None:
        """Say a line, wrapped if there is a width to keep to."""
        if self.ascii_only:
            text = to_ascii(text)
        if self.width is None or len(text) <= self.width:
            self._say(text)
            return
        lead = text[: len(text) - len(text.lstrip())]
        for line in textwrap.wrap(text.lstrip(), self.width, initial_indent=lead, subsequent_indent=indent):
            self._say(line)

    def ask(self, prompt: str) -> str:
        """Ask for a line; blanks around it do not count."""
        return self._ask(to_ascii(prompt) if self.ascii_only else prompt).strip()
