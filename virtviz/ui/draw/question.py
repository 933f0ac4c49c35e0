"""The question: asked before the answer can be seen, and afterwards what was said beside what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from virtviz.ui.grid import Grid, wrap

if TYPE_CHECKING:
    from virtviz.session.grading import Question, Verdict
    from virtviz.ui.canvas import Zone

NOT_SURE: Final = "not sure yet: show me"


@dataclass(frozen=True, slots=True)
class Asking:
    """What the panel shows.

    Attributes:
        question: what is asked, or was.
        number, total: the how manieth of how many.
        hints: how many hints have been shown.
        verdict: the answer that was given; None while it is open.
        said: what the lesson says just before it asks; empty if nothing.
    """

    question: Question
    number: int
    total: int
    hints: int
    verdict: Verdict | None
    said: str = ""


def draw_question(asking: Asking, width: int, rows: int) -> tuple[Grid, list[Zone], int]:
    """Draw the panel; answers the grid, what can be clicked, and how many rows it took."""
    grid = Grid(width, rows, "ask")
    zones: list[Zone] = []
    question, verdict = asking.question, asking.verdict
    inner = width - 6
    title = f" ? question {asking.number} of {asking.total} "
    grid.line(0, 0, width, "━", "mark on say-ground")
    grid.put(2, 0, title, "hot")
    y = 1
    if verdict is None:
        # What was said belongs to the question; it is left out only if the options would not fit.
        said = wrap(asking.said, inner) if asking.said else []
        if len(said) + len(wrap(question.text, inner)) + len(question.options) + 3 <= rows:
            for line in said:
                grid.put(3, y, line, "ask")
                y += 1
    for line in wrap(question.text, inner):
        grid.put(3, y, line, "ask bold")
        y += 1
    for i, option in enumerate(question.options):
        sign, style, note = _mark(i, verdict)
        for j, line in enumerate(wrap(option, inner - 14)):
            if j == 0:
                at = grid.put(3, y, f"{sign} ", style)
                grid.put(at, y, f"[{i + 1}]", "mark on say-ground" if verdict is None else style)
            at = grid.put(9, y, line, style)
            if j == 0 and note:
                grid.put(at + 2, y, f"← {note}", style)
            if verdict is None:
                zones.append((3, y, width - 6, f"answer({i})"))
            y += 1
    if verdict is None:
        grid.put(5, y, "[0]", "mark on say-ground")
        grid.put(9, y, NOT_SURE, "dim on say-ground")
        zones.append((3, y, width - 6, "answer(-1)"))
        y += 1
        for hint in question.hints[: asking.hints]:
            for j, line in enumerate(wrap(hint, inner - 6)):
                grid.put(3, y, "hint" if j == 0 else "", "mark on say-ground")
                grid.put(9, y, line, "ask")
                y += 1
    else:
        for line in wrap(verdict.why, inner):
            grid.put(3, y, line, "ask")
            y += 1
        grid.put(3, y, "→ go on and watch it happen", "mark on say-ground")
        zones.append((3, y, width - 6, "next"))
        y += 1
    return grid, zones, y


def _mark(number: int, verdict: Verdict | None) -> tuple[str, str, str]:
    """Give sign, style and note of an option."""
    if verdict is None:
        return " ", "ask", ""
    right, said = number == verdict.right, number == verdict.said
    if right and said:
        return "✓", "good bold on say-ground", "you said so, and so it is"
    if right:
        return "✓", "good bold on say-ground", "the machine says"
    if said:
        return "✗", "mark on say-ground", "you said"
    return " ", "dim on say-ground", ""
