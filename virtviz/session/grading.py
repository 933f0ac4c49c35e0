"""What was asked, what was answered, and the score of one sitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from virtviz.session.run import Finding


class Question(Struct, frozen=True):
    """A question as the learner sees it.

    Attributes:
        id: of the entry that asks.
        ask: its kind, as in the lesson format.
        text: the question.
        options: what can be chosen; exactly one is right.
        hints: from vague to plain.
        position: where it is asked; without an answer there is no way forward from here.
    """

    id: str
    ask: str
    text: str
    options: tuple[str, ...]
    hints: tuple[str, ...]
    position: int


class Asked(Struct, frozen=True):
    """A question with what the learner does not see before answering.

    Attributes:
        question: the question.
        right: index of the right option.
        why: the author's reason and the machine's fact, for after the answer.
        findings: what is wrong with the question in this run, for whoever checks the lesson.
    """

    question: Question
    right: int
    why: str
    findings: tuple[Finding, ...] = ()


class Verdict(Struct, frozen=True):
    """An answer and what the machine did.

    Attributes:
        question: what was asked.
        said: index of the chosen option; None for "not sure yet".
        right: index of the right one.
        is_right: None for "not sure yet".
        why: the author's reason and the machine's fact.
    """

    question: Question
    said: int | None
    right: int
    is_right: bool | None
    why: str

    @property
    def answer(self) -> str:
        """The right option's text."""
        return self.question.options[self.right]


class Score(Struct, frozen=True):
    """How a sitting went.

    Attributes:
        asked: questions the lesson has.
        right, wrong, unsure: how the answered ones were answered.
    """

    asked: int
    right: int
    wrong: int
    unsure: int

    @property
    def open(self) -> int:
        """Questions that nobody has answered yet."""
        return self.asked - self.right - self.wrong - self.unsure

    def __str__(self) -> str:
        parts = [f"{self.right} of {self.asked} right"]
        parts += [f"{number} {word}" for number, word in ((self.wrong, "wrong"), (self.unsure, "not sure")) if number]
        return ", ".join([*parts, f"{self.open} not answered"] if self.open else parts)


class Results(Struct):
    """The verdicts of one sitting, in the order in which they were given; a question is answered once."""

    asked: int
    verdicts: list[Verdict] = field(default_factory=list)

    def grade(self, asked: Asked, said: int | None) -> Verdict:
        """Grade an answer and keep the verdict."""
        verdict = Verdict(asked.question, said, asked.right, None if said is None else said == asked.right, asked.why)
        self.verdicts.append(verdict)
        return verdict

    def has_answer(self, question_id: str) -> bool:
        """Say whether a question has been answered, be it with "not sure yet"."""
        return any(verdict.question.id == question_id for verdict in self.verdicts)

    def score(self) -> Score:
        """Give the score so far."""
        kinds = [verdict.is_right for verdict in self.verdicts]
        return Score(self.asked, kinds.count(True), kinds.count(False), kinds.count(None))
