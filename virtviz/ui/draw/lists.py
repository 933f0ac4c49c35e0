"""Ledger, thread lanes and sources: the panels for those who want to look closer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.trace import MEM, Access, Crossing
from virtviz.paths.hosts import without_host
from virtviz.spec.virtio import in_parts, is_used_element
from virtviz.ui.draw.stage import tone
from virtviz.ui.grid import Grid, fit, wrap
from virtviz.view.words import cost_name, domain_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.places import Domain
    from virtviz.ui.canvas import Zone
    from virtviz.view.frame import Frame, LedgerEntry
    from virtviz.view.lanes import Lane, Lanes

LANE_NAME: Final = 16


def draw_ledger(
    entries: Sequence[LedgerEntry], total: int, position: int, width: int, rows: int
) -> tuple[Grid, list[Zone]]:
    """Draw the last entries of the ledger; a click on one goes to its step.

    Args:
        entries: the last ones, oldest first; as many as there are rows for, or fewer.
        total: how many there are.
        position: the present one; entries of this step are marked.
        width: of the panel.
        rows: of the panel.
    """
    grid = Grid(width, rows)
    zones: list[Zone] = []
    grid.line(0, 0, width, "─", "faint")
    grid.put(1, 0, f" ledger · {total} {'entry' if total == 1 else 'entries'} ", "dim")
    shown = entries[-(rows - 1) :] if rows > 1 else ()
    for y, entry in enumerate(shown, 1):
        now = entry.n == position
        grid.put(0, y, "▶" if now else " ", "mark")
        grid.put(1, y, f"{entry.n:>4}", "text bold" if now else "dim")
        at = grid.put(6, y, cost_name(entry.what), "changed" if now else "text")
        what = entry.what
        detail = (
            f"{domain_name(what.source)} → {domain_name(what.target)}" if isinstance(what, Crossing) else entry.thread
        )
        if at + len(detail) + 2 < width:
            grid.put(width - len(detail) - 1, y, detail, "dim")
        zones.append((0, y, width, f"seek({entry.n})"))
    if not shown and rows > 1:
        grid.put(2, 1, "nothing crossed, woken or copied yet", "dim", width - 3)
    return grid, zones


def draw_lanes(lanes: Lanes, position: int, width: int, rows: int) -> tuple[Grid, list[Zone]]:
    """Draw one row for each thread: u where it ran user code, k kernel code, h hardware; a caret under crossings."""
    grid = Grid(width, rows)
    zones: list[Zone] = []
    columns = lane_columns(width)
    grid.line(0, 0, width, "─", "faint")
    shown = list(lanes.lanes)
    if len(shown) > rows - 1:
        # Who has not run for longest is left out first, and of the idle ones handlers before the others.
        backwards = [*reversed(shown)]
        longest = sorted(backwards, key=lambda lane: (_last_ran(lane), not _is_handler(lane.thread)))
        left_out = {lane.thread for lane in longest[: len(shown) - rows + 1]}
        shown = [lane for lane in shown if lane.thread not in left_out]
    more = len(lanes.lanes) - len(shown)
    title = f" threads · from step {lanes.first} " + (f"· +{more} more " if more else "")
    legend = " u user  k kernel  h hardware "
    grid.put(1, 0, title, "dim")
    if len(title) + len(legend) + 3 < width:
        grid.put(width - len(legend) - 1, 0, legend, "dim")
    for y, lane in enumerate(shown, 1):
        now = bool(lane.ran) and lane.ran[-1] is not None
        grid.put(1, y, ("▶" if now else " ") + _lane_name(lane.thread), "text bold" if now else "dim")
        grid.line(LANE_NAME, y, columns, "·", "faint")
        for column, domain in enumerate(lane.ran):
            if domain is not None:
                here = lanes.first + column == position
                side = tone(domain)
                style = "cursor" if here else f"{side} bold on {side}-ground"
                grid.put(LANE_NAME + column, y, _letter(domain, crossed=column in lanes.crossings), style)
        zones.append((LANE_NAME, y, len(lane.ran), f"seek_from({lanes.first}, {{x}})"))
    return grid, zones


def _last_ran(lane: Lane) -> int:
    """Give the last column in which a thread ran; -1 if in none."""
    return max((column for column, domain in enumerate(lane.ran) if domain is not None), default=-1)


def _is_handler(thread: str) -> bool:
    """Say whether a thread is one of ovs-vswitchd's, on whatever host."""
    return without_host(thread).startswith("handler")


def _lane_name(thread: str) -> str:
    """Give a thread's name before its lane; the CPU of a softirq, each host's only one, is what can be left out."""
    room = LANE_NAME - 2
    return thread if len(thread) <= room else fit(thread.partition("/")[0], room)


def lane_columns(width: int) -> int:
    """Say how many steps the lanes have room for."""
    return width - LANE_NAME - 1


def _letter(domain: Domain, *, crossed: bool) -> str:
    """Give a step's letter; a capital where it crossed a border."""
    letter = "h" if domain == "hardware" else "u" if domain.endswith("user") else "k"
    return letter.upper() if crossed else letter


def draw_sources(frame: Frame, width: int, rows: int) -> Grid:
    """Draw where the step comes from, and everything it read and wrote."""
    grid = Grid(width, rows)
    grid.line(0, 0, width, "─", "faint")
    grid.put(1, 0, " sources ", "dim")
    step = frame.step
    if step is None:
        grid.put(1, 1, "No step has been taken yet.", "dim")
        return grid
    lines: list[tuple[str, str, str]] = [
        ("code", f"{step.function.strip('()')}  {step.source}", "text"),
        ("table", f"{step.row}, operation {step.op}, ended with “{step.outcome}”", "text"),
    ]
    if step.spec:
        lines.append(("rule", step.spec, "text"))
    lines += (("wrote", _access(access), "changed") for access in step.writes if access.space == MEM)
    lines += (("read", _access(access), "read") for access in step.reads if access.space == MEM)
    lines += (("kept", _access(access), "text") for access in step.writes if access.space != MEM)
    y = 1
    for name, text, style in lines:
        for i, line in enumerate(wrap(text, width - 9)):
            grid.put(1, y, name if i == 0 else "", "dim")
            grid.put(7, y, line, style)
            y += 1
    if y > rows:
        grid.put(width - 4, rows - 1, " … ", "dim")
    return grid


def _access(access: Access) -> str:
    """Say what was read or written; of contents that are no number, only how much."""
    name = f"{access.owner.rpartition('.')[2]} {access.field}".strip() or f"{access.region} at {access.addr:#x}"
    if isinstance(access.new, str) or isinstance(access.old, str) or access.new is None:
        return f"{name}, {access.size} bytes"
    new = in_parts(access.field, access.size, access.new)
    if access.old is None or is_used_element(access.field, access.size):
        return f"{name} = {new}"
    if access.old == access.new:
        return f"{name} = {new}, as before"
    return f"{name} {in_parts(access.field, access.size, access.old)} → {new}"
