"""The smaller parts: title, counters, who runs, the sentence, the track, the key hints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.cells import cell_len

from virtviz.ui.grid import Grid, fit, wrap
from virtviz.view.words import cost_name, domain_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.trace import Step
    from virtviz.ui.canvas import Zone
    from virtviz.view.frame import CounterFrame, Frame
    from virtviz.view.track import Track

COUNTERS_WIDTH: Final = 26
COUNTERS_MOST_WIDTH: Final = 42
"""A wider table would only put its numbers further from their names."""
_TABLE: Final = (
    ("user/kernel", "user_kernel.guest", "user_kernel.host"),
    ("copies", "guest_copies", "host_copies"),
    ("wake-ups", "vcpu_wakeups", "wakeups"),
    ("interrupts", "interrupts", "hw_interrupts"),
)
_MORE: Final = (
    ("system calls", "guest_syscalls", "host_syscalls"),
    ("DMA transfers", "", "dma"),
    ("eventfd signals", "", "eventfd_signals"),
    ("upcalls", "", "upcalls"),
    ("drops", "", "drops"),
)
MORE_ROWS: Final = 11
"""With so many rows each of those has one of its own."""
_EXITS: Final = (("exits  light", "xl", "light_exits"), ("heavy", "xh", "heavy_exits"))
_SHORT: Final = (("evfd", "ev", "eventfd_signals"), ("upcall", "up", "upcalls"), ("drop", "dr", "drops"))
"""What shares one row where there are fewer: its name, the name beside large numbers, the counter. A system call needs
none, for it is a step between user and kernel."""


def draw_title(frame: Frame, name: str, title: str, tag: str, width: int) -> Grid:
    """Draw the first line: which lesson, something to know about it, which packet on which way, which step."""
    grid = Grid(width, 1, "title")
    step = f"step {frame.position} of {frame.length} "
    packet = next((p for p in frame.packets if p.number == frame.packet), None)
    way = ""
    if packet is not None:
        way = f"■{fit(packet.name, width // 5)} {'out →' if frame.direction == 'out' else 'in ←'}  "
    start = width - cell_len(way) - len(step)
    at = grid.put(1, 0, fit(name, width // 5), "title bold")
    at = grid.put(at + 2, 0, fit(title, start - at - len(tag) - 4), "title")
    grid.put(at, 0, fit(tag, start - at - 1), "title bold")
    grid.put(start, 0, way, "title")
    grid.put(width - len(step), 0, step, "title bold")
    return grid


def draw_counters(frame: Frame, width: int, rows: int) -> Grid:
    """Draw what the way has cost so far, guest and host apart, and what the last step added."""
    grid = Grid(width, rows)
    left, right = min(width, COUNTERS_MOST_WIDTH) - 14, min(width, COUNTERS_MOST_WIDTH) - 6
    grid.put(1, 0, "so far", "dim")
    grid.put(left - 2, 0, "guest", "guest")
    grid.put(right + 1, 0, "host", "host")
    y = 1
    table = [*_TABLE, *(_MORE if rows >= MORE_ROWS else ())]
    for title, guest, host in table:
        grid.put(1, y, title, "text")
        for name, end in ((guest, left + 3), (host, right + 4)):
            if name:
                _value(grid, frame.counter(name), end, y)
        y += 1
    _together(grid, y, _EXITS, frame)
    if rows < MORE_ROWS:
        _together(grid, y + 1, _SHORT, frame)
    return grid


def _together(grid: Grid, y: int, which: Sequence[tuple[str, str, str]], frame: Frame) -> None:
    """Write some counters into one row, by shorter names if the numbers need the room.

    With three numbers of four digits no digit is cut off; a run of the player has fewer events than that.
    """
    counters = [frame.counter(name) for *_, name in which]
    values = [f"{c.value}{c.delta:+}" if c.delta else str(c.value) for c in counters]
    room = min(grid.width, COUNTERS_MOST_WIDTH) - 1
    long = sum(len(title) + 2 + len(value) for (title, _, _), value in zip(which, values, strict=True)) - 1 <= room
    at = 1
    for (title, short, _), value, counter in zip(which, values, counters, strict=True):
        at = grid.put(at, y, f"{title if long else short} ", "text")
        at = grid.put(at, y, value, "changed" if counter.delta else "text bold" if counter.value else "dim") + 1


def _value(grid: Grid, counter: CounterFrame, end: int, y: int) -> None:
    """Write a counter so that its digits end in one column, and what was added behind them."""
    value = str(counter.value)
    style = "changed" if counter.delta else "text bold" if counter.value else "dim"
    grid.put(end - len(value), y, value, style)
    if counter.delta:
        grid.put(end, y, f"{counter.delta:+}", style)


def draw_who(frame: Frame, width: int) -> Grid:
    """Draw the line that says which thread did what, and what that cost."""
    grid = Grid(width, 1)
    grid.line(0, 0, width, "─", "dim")
    step, runner = frame.step, frame.running
    if step is None or runner is None:
        grid.put(0, 0, " before the first step ", "text bold")
        return grid
    cost = ", ".join(cost_name(entry.what) for entry in frame.cost)
    who = f" ▶ {runner.name} in {domain_name(step.domain)}"
    context = f", {step.context}" if step.context != "process" else ""
    # Thread and domain are always there whole. Title and cost share what is left: the cost has at least half of it if
    # it needs that, and the context is the first to give way.
    room = width - cell_len(who) - 13
    shown = fit(cost or "nothing", max(room - len(step.title), room // 2))
    title = fit(step.title, room - len(shown))
    who += context if len(title) + len(shown) + len(context) <= room else ""
    at = grid.put(0, 0, f"{who} ", f"{step.domain.partition('-')[0]} bold")
    grid.put(at, 0, f"· {title} ", "text bold")
    end = width - len(shown) - 8
    grid.put(end, 0, " cost ", "dim")
    grid.put(end + 6, 0, f" {shown} ", "changed" if cost else "dim")
    return grid


def source_of(step: Step) -> str:
    """Give where a step comes from, in one line: row of the table, function, and file or whatever else is cited."""
    path = step.source.rpartition(" ")[2]
    cited = path.rpartition("/")[2] if "/" in path else step.source
    function = f"{step.function}()" if step.function.isidentifier() else step.function.strip("()")
    return f"{step.row}  {function}  {cited}"


def draw_sentence(frame: Frame, said: str, width: int, rows: int, aside: str = "") -> Grid:
    """Draw what the step did, in words, and under it what the lesson says, apart from each other.

    Args:
        frame: the frame.
        said: what the lesson says.
        width: of the panel.
        rows: of the panel.
        aside: said in place of the step at the beginning, and in place of its source at the end.
    """
    grid = Grid(width, rows)
    step = frame.step
    inner = width - 2
    lines = wrap(said, inner - 3) if said else []
    text = wrap(step.text if step is not None else aside, inner)
    space = rows - len(lines) if len(lines) < rows else 1
    if len(text) > space:
        text = [*text[: space - 1], fit(text[space - 1] + " …", inner)]
    y = 0
    for line in text:
        grid.put(1, y, line, "text")
        y += 1
    if step is not None:
        y = _put_source(
            grid,
            (aside or source_of(step), "text bold" if aside else "dim"),
            len(text[-1]),
            max(y, min(2, rows - len(lines) - 1)),
            len(lines),
        )
        _put_registers(grid, frame, y - 1, len(aside or source_of(step)))
    # What is said has one place wherever there is room, so that it does not move with the length of the step's text.
    start = max(y, min(rows - len(lines), 4))
    for i, line in enumerate(lines[: rows - start]):
        cut = i == rows - start - 1 and len(lines) > rows - start
        grid.put(1, start + i, "▌ " + " " * (inner - 2), "say")
        grid.put(1, start + i, "▌", "mark on say-ground")
        grid.put(3, start + i, fit(line + " …", inner - 3) if cut else line, "say")
    return grid


def sentence_rows(said: str, aside: str, width: int) -> int:
    """Say how many rows what stands in place of a step's text and what the lesson says need."""
    return len(wrap(aside, width - 2)) + (len(wrap(said, width - 5)) if said else 0)


def _put_source(grid: Grid, shown: tuple[str, str], last: int, y: int, lines: int) -> int:
    """Write a text of a style in a row of its own, or behind the last line, which is so long; answers the next row."""
    source, style = shown
    inner = grid.width - 2
    if y + lines < grid.height:
        grid.put(1, y, fit(source, inner), style)
        return y + 1
    if last + len(source) + 4 < inner:
        grid.put(grid.width - len(source) - 1, y - 1, source, "dim")
    return y


def _put_registers(grid: Grid, frame: Frame, y: int, used: int) -> None:
    """Write what registers say at the end of a row of which so many columns are used, where there is room."""
    shown = [(name, f"{cell.text}{'*' if cell.written else ''}", cell.written) for name, cell in frame.registers]
    width = sum(len(name) + len(text) + 3 for name, text, _ in shown)
    if not shown or used + width + 2 > grid.width:
        return
    x = grid.width - width
    for name, text, is_new in shown:
        x = grid.put(x, y, f"{name} ", "dim")
        x = grid.put(x, y, text, "changed" if is_new else "text") + 2


def draw_track(track: Track, position: int, length: int, width: int, playing: str) -> tuple[Grid, list[Zone]]:
    """Draw the way through the lesson: milestones, crossings, questions, and where we are."""
    grid = Grid(width, 1)
    left = grid.put(0, 0, f" {playing} ", "key")
    room = width - left - 2
    grid.line(left, 0, room, "─", "faint")

    def column(n: int) -> int:
        return left + (n * (room - 1) // length if length else 0)

    grid.line(left, 0, column(position) - left, "━", "dim")
    for n in track.crossings:
        grid.put(column(n), 0, "┷" if n <= position else "┴", "dim")
    for n in track.milestones:
        grid.put(column(n), 0, "◆", "guest")
    for n, answered in track.questions:
        grid.put(column(n), 0, "✓" if answered else "?", "good" if answered else "changed")
    here = column(position)
    for n in track.milestones:
        if n <= position:
            grid.paint(column(n), 0, 1, "guest bold")
    grid.put(here, 0, "●", "cursor")
    return grid, [(left, 0, room, f"part({{x}}, {max(room - 1, 1)})")]


def draw_hints(hints: Sequence[tuple[str, str, str]], width: int, message: str = "") -> tuple[Grid, list[Zone]]:
    """Draw key hints, each of which is also a button, behind something that has to be said."""
    grid = Grid(width, 1)
    zones: list[Zone] = []
    x = 1
    if message:
        x = grid.put(x, 0, f" {message} ", "hot") + 2
    for key, name, action in hints:
        if x + len(key) + len(name) + 1 > width:
            break
        start = x
        x = grid.put(x, 0, key, "key")
        x = grid.put(x + 1, 0, name, "dim")
        zones.append((start, 0, x - start, action))
        x += 2
    return grid, zones
