"""The question: asked before the answer can be seen, and afterwards what was said beside what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.ui.grid import Grid, wrap

if TYPE_CHECKING:
    from virtviz.session.grading import Question, Verdict
    from virtviz.ui.canvas import Zone

NOT_SURE: Final = "not sure yet: show me"
MARGIN: Final = 3
MOST_ROWS: Final = 200
"""What is longer is cut: some ten thousand characters."""


class Asking(Struct, frozen=True):
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


def draw_question(asking: Asking, width: int, rows: int, scroll: int = 0) -> tuple[Grid, list[Zone], int]:
    """Draw the panel; answers the grid, what can be clicked, and how many rows it took.

    What is longer than the room there is can be moved: the last row then says that there is more, and where.

    Args:
        asking: what to show.
        width: of the panel.
        rows: there are at most.
        scroll: rows to begin further down; never more than `rows_beyond`.
    """
    whole, zones, needed = _draw_whole(asking, width, rows)
    if needed <= rows:
        return whole.top(rows), zones, needed
    beyond = needed - rows + 1
    scroll = min(scroll, beyond)
    grid = Grid(width, rows, "ask")
    grid.blit(whole, 0, -scroll)
    grid.blit(whole.top(1), 0, 0)
    grid.line(0, rows - 1, width, " ", "ask")
    x = MARGIN
    for sign, there in (("▼ more below: ↓ or PgDn", scroll < beyond), ("▲ more above: ↑ or PgUp", scroll > 0)):
        if there:
            x = grid.put(x, rows - 1, f" {sign} ", "hot") + 2
    seen = [(x, y - scroll, room, action) for x, y, room, action in zones if 0 < y - scroll < rows - 1]
    return grid, seen, rows


def rows_beyond(asking: Asking, width: int, rows: int) -> int:
    """Say by how many rows the panel can be moved; 0 if all of it can be seen at once."""
    needed = _draw_whole(asking, width, rows)[2]
    return needed - rows + 1 if needed > rows else 0


def _draw_whole(asking: Asking, width: int, rows: int) -> tuple[Grid, list[Zone], int]:
    """Draw the panel with as many rows as it takes."""
    grid = Grid(width, MOST_ROWS, "ask")
    grid.line(0, 0, width, "━", "mark on say-ground")
    grid.put(2, 0, f" ? question {asking.number} of {asking.total} ", "hot")
    if asking.verdict is not None:
        return grid, *_draw_verdict(grid, asking.question, asking.verdict)
    question, inner = asking.question, width - 2 * MARGIN
    text = wrap(question.text, inner)
    hints = [wrap(hint, inner - 6) for hint in question.hints[: asking.hints]]
    # What was said just before belongs to the question; it is left out only if options or hints would not fit.
    said = wrap(asking.said, inner) if asking.said else []
    if len(said) + len(text) + len(question.options) + 3 + sum(map(len, hints)) > rows:
        said = []
    y = _put_lines(grid, 1, said, "ask")
    y = _put_lines(grid, y, text, "ask bold")
    zones: list[Zone] = []
    y = _draw_options(grid, zones, question.options, y)
    for hint in hints:
        grid.put(MARGIN, y, "hint", "mark on say-ground")
        y = _put_lines(grid, y, hint, "ask", MARGIN + 6)
    return grid, zones, y


def _put_lines(grid: Grid, y: int, lines: list[str], style: str, x: int = MARGIN) -> int:
    """Write lines; answers the row behind them."""
    for line in lines:
        grid.put(x, y, line, style)
        y += 1
    return y


def _draw_options(grid: Grid, zones: list[Zone], options: tuple[str, ...], y: int) -> int:
    """Write the options, short ones in two columns; answers the row behind them."""
    inner = grid.width - 2 * MARGIN
    entries = [(f"[{i + 1}]", option, f"answer({i})", "ask") for i, option in enumerate(options)]
    entries.append(("[0]", NOT_SURE, "answer(-1)", "dim on say-ground"))
    half = inner // 2
    columns = 2 if all(len(option) + 5 < half for option in options) and len(options) > 1 else 1
    room = inner // columns
    row = y
    for i, (key, option, action, style) in enumerate(entries):
        x = MARGIN + room * (i % columns)
        grid.put(x, row, key, "mark on say-ground")
        behind = row
        for line in wrap(option, room - 5):
            grid.put(x + 4, behind, line, style)
            zones.append((x, behind, room - 2, action))
            behind += 1
        y = max(y, behind)
        if (i + 1) % columns == 0:
            row = y
    return y


def _draw_verdict(grid: Grid, question: Question, verdict: Verdict) -> tuple[list[Zone], int]:
    """Write what was said beside what happened, and why; answers what can be clicked, and the row behind it."""
    inner = grid.width - 2 * MARGIN
    right = question.options[verdict.right]
    y = 1
    if verdict.is_right:
        told = f"Right: {right}" if _is_sentence(right) else f"You said {right}, and so it is."
        y = _put_marked(grid, y, "✓", told, "good bold on say-ground")
    else:
        if verdict.said is not None:
            told = _told("You said", question.options[verdict.said])
            y = _put_marked(grid, y, "✗", told, "mark on say-ground")
        y = _put_marked(grid, y, "✓", _told("It is", right), "good bold on say-ground")
    y = _put_lines(grid, y, wrap(verdict.why, inner), "ask")
    grid.put(MARGIN, y, "→ go on and watch it happen", "mark on say-ground")
    return [(MARGIN, y, inner, "next")], y + 1


def _is_sentence(option: str) -> bool:
    return option.endswith((".", "!", "?"))


def _told(begin: str, option: str) -> str:
    """Make a sentence of an option, unless it is one already."""
    return f"{begin}: {option}" if _is_sentence(option) else f"{begin} {option}."


def _put_marked(grid: Grid, y: int, sign: str, text: str, style: str) -> int:
    grid.put(MARGIN, y, sign, style)
    return _put_lines(grid, y, wrap(text, grid.width - 2 * MARGIN - 2), style, MARGIN + 2)
