"""The question: asked before the answer can be seen, and afterwards what was said beside what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from virtviz.ui.grid import Grid, fit, wrap

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
    """

    question: Question
    number: int
    total: int
    hints: int
    verdict: Verdict | None


def question_rows(asking: Asking, width: int) -> int:
    """Say how many rows the panel needs."""
    return draw_question(asking, width, 40)[2]


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
    for line in wrap(question.text, inner):
        grid.put(3, y, line, "ask bold")
        y += 1
    options = [(str(i + 1), option, f"answer({i})") for i, option in enumerate(question.options)]
    for i, (key, option, action) in enumerate(options):
        lines = wrap(option, inner - 14)
        sign, style, note = _mark(i, verdict)
        for j, line in enumerate(lines):
            if j == 0:
                grid.put(3, y, f"{sign} {key} ", style)
            at = grid.put(8, y, line, style)
            if j == 0 and note:
                grid.put(at + 2, y, f"← {note}", style)
            if verdict is None:
                zones.append((3, y, width - 6, action))
            y += 1
    if verdict is None:
        grid.put(3, y, f"  0 {'':1}{NOT_SURE}", "dim on say-ground")
        zones.append((3, y, width - 6, "answer(-1)"))
        y += 1
        for hint in question.hints[: asking.hints]:
            for j, line in enumerate(wrap(hint, inner - 7)):
                grid.put(3, y, "hint: " if j == 0 else "", "mark on say-ground")
                grid.put(9, y, line, "ask")
                y += 1
        y = _keys(grid, zones, asking, y, width)
    else:
        y = _why(grid, verdict, y, inner)
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


def _keys(grid: Grid, zones: list[Zone], asking: Asking, y: int, width: int) -> int:
    """Write what can be done with the question."""
    x = 3
    hints_left = len(asking.question.hints) - asking.hints
    hints = [("1-" + str(len(asking.question.options)), "answer", "")]
    if hints_left:
        hints.append(("h", f"hint ({hints_left} left)", "hint"))
    hints.append(("p", "look at the screen first", "predict"))
    for key, name, action in hints:
        start = x
        x = grid.put(x, y, key, "mark on say-ground")
        x = grid.put(x + 1, y, fit(name, width), "dim on say-ground")
        if action:
            zones.append((start, y, x - start, action))
        x += 3
    return y + 1


def _why(grid: Grid, verdict: Verdict, y: int, inner: int) -> int:
    for line in wrap(verdict.why, inner):
        grid.put(3, y, line, "ask")
        y += 1
    return y
