"""The stage: borders, places, the thread that runs, and packets where they are.

The place whose code runs has a heavy frame with the thread's name in it; a border that the step crosses is drawn
heavy from end to end, with an arrow and the crossing's name. Packets are the only things that move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.ui.grid import Grid, fit
from virtviz.view.stage import BOX, CHIP, LABEL, LANE, WIRE, short_thread
from virtviz.view.words import CROSSINGS, STATES

if TYPE_CHECKING:
    from virtviz.view.frame import Frame, PacketFrame, ThreadFrame
    from virtviz.view.stage import Gate, Point, Spot, Stage

LIGHT: Final = "┌─┐│└┘"
HEAVY: Final = "┏━┓┃┗┛"
NAME_ROOM: Final = 7
"""Cells that a packet has in a chip at least; the chip's own name yields to it."""
MOVING, WAITING = "■", "□"


class Glide(Struct, frozen=True):
    """A packet on its way between two spots."""

    packet: int
    at: Point


def draw_stage(stage: Stage, frame: Frame, glide: Glide | None = None) -> Grid:
    """Draw the stage of a frame."""
    return _StageDrawing(stage, frame, glide).draw()


def tone(domain: str) -> str:
    """Give the style of a domain: guest, host or hardware."""
    return domain.partition("-")[0] if domain else "dim"


class _StageDrawing:
    def __init__(self, stage: Stage, frame: Frame, glide: Glide | None) -> None:
        self.stage, self.frame, self.glide = stage, frame, glide
        self.grid = Grid(stage.width, stage.height)
        self.runner = frame.running
        self.crossing = frame.step.crossings[-1] if frame.step and frame.step.crossings else None
        self.packets: dict[str, list[PacketFrame]] = {}
        for packet in frame.packets:
            spot = stage.packet_spot(packet.where) if packet.where else None
            if spot is not None and not (glide and glide.packet == packet.number):
                self.packets.setdefault(spot.name, []).append(packet)
        runner_spot = stage.spot(self.runner.place) if self.runner else None
        self.active = runner_spot.name if runner_spot else ""

    def draw(self) -> Grid:
        gate = self._gate()
        self._borders(gate)
        self._ways()
        drawing = {LANE: self._lane, WIRE: self._wire, LABEL: self._label, BOX: self._box, CHIP: self._chip}
        for shapes in ((LANE, WIRE, LABEL), (BOX, CHIP)):
            for spot in self.stage.spots.values():
                if spot.shape in shapes:
                    drawing[spot.shape](spot)
        for point, note in self.stage.notes.items():
            self.grid.put(*point, note, "dim")
        if gate is not None:
            self._cross(gate)
        if self.glide is not None:
            packet = next((p for p in self.frame.packets if p.number == self.glide.packet), None)
            if packet is not None:
                self._packet_chip(MOVING + packet.name, *self.glide.at, len(packet.name) + 1)
        return self.grid

    # Borders

    def _gate(self) -> Gate | None:
        step, crossing = self.frame.step, self.crossing
        if step is None or crossing is None:
            return None
        return self.stage.gate(crossing.source, crossing.target, step.place)

    def _borders(self, gate: Gate | None) -> None:
        grid = self.grid
        for border in self.stage.borders:
            lit = gate is not None and (
                gate.at[0] == border.x
                if border.upright
                else gate.at[1] == border.y and border.x <= gate.at[0] < border.x + border.length
            )
            if border.upright:
                unlit = "║" if border.kind == "guest-host" else "╎"
                grid.upright(border.x, border.y, border.length, "┃" if lit else unlit, "changed" if lit else "dim")
            elif border.kind == "top":
                grid.line(border.x, border.y, border.length, "─", "faint")
            else:
                grid.line(border.x, border.y, border.length, "━" if lit else "╌", "changed" if lit else "dim")
                if border.kind == "hardware":
                    grid.put(border.x + 1, border.y, " hardware ", "hardware")

    def _cross(self, gate: Gate) -> None:
        """Mark the crossing: an arrow in the border, and its name beside it."""
        crossing, grid = self.crossing, self.grid
        assert crossing is not None
        if gate.upright:
            # The host is to the right of the guest, and so are user places that stand beside kernel places.
            inside = crossing.source.is_guest == crossing.target.is_guest
            right = crossing.target.endswith("-user") if inside else not crossing.target.is_guest
            x, y = gate.at
            boxes = [
                spot for spot in self.stage.spots.values() if spot.shape == BOX and spot.y < y < spot.y + spot.height
            ]
            left_end = max(spot.x + spot.width for spot in boxes if spot.x < x)
            right_end = min(spot.x for spot in boxes if spot.x > x)
            grid.line(left_end, y, right_end - left_end, "━", "changed")
            grid.put(x, y, "▶" if right else "◀", "hot")
            name = CROSSINGS[crossing.kind][0]
            text = f" {name} ▶ " if right else f" ◀ {name} "
            grid.put(gate.label[0] - len(text) // 2, gate.label[1], text, "hot")
            return
        up = crossing.target.endswith("-user")
        grid.put(*gate.at, "▲" if up else "▼", "hot")
        long, short = CROSSINGS[crossing.kind]
        name = long if len(long) <= gate.room else short
        grid.put(*gate.label, name, "hot", gate.room)

    # Ways

    def _ways(self) -> None:
        grid, spots = self.grid, self.stage.spots
        for way in self.stage.ways:
            a, b = spots[way.a], spots[way.b]
            if a.shape == BOX and b.shape == BOX and a.y == b.y:
                left, right = (a, b) if a.x < b.x else (b, a)
                start, end = left.x + left.width, right.x
                if way.carries and left.name not in ("virtio-net", "kvm"):
                    grid.line(start, a.y + 1, end - start, "─", "dim")
                continue
            if {LANE, WIRE, LABEL} & {a.shape, b.shape}:
                continue
            upper, lower = (a, b) if a.y < b.y else (b, a)
            column = lower.middle if way.a != "far" and way.b != "nic" else way.points[1][0]
            if way.a == "far":
                upper, lower = a, b
            for y in range(upper.y + upper.height, lower.y):
                crossed = grid.char(column, y) in "╌━"
                grid.put(column, y, "┼" if crossed else "│", "dim")

    def _lane(self, spot: Spot) -> None:
        grid, frame = self.grid, self.frame
        assert frame.ring is not None, "a lane is a ring's"
        lit = frame.ring.changed and self.stage.places.get(frame.ring.queue, frame.ring.queue) == spot.name
        title = frame.ring.title if lit else spot.title
        style = "text" if lit else "dim"
        end = spot.x + spot.width - 1
        for way in self.stage.ways:
            if way.b == spot.name:
                box, column = self.stage.spots[way.a], way.points[1][0]
                for y in range(box.y + box.height, spot.y):
                    grid.put(column, y, "┼" if grid.char(column, y) in "╌━" else "│", "dim")
        grid.line(spot.x, spot.y, spot.width, "━" if lit else "─", style)
        grid.put(spot.x, spot.y, "└", style)
        grid.put(end, spot.y, "┘", style)
        at = spot.at[0] - 5
        first = min(s.x for s in self.stage.spots.values() if s.shape == LANE) + 4
        grid.put(first, spot.y, f" {title} ", "guest bold" if lit else "guest")
        grid.put(at - 1, spot.y, "[" + " " * 9 + "]", style)
        self._packets_at(spot, at, spot.y, 9)

    def _wire(self, spot: Spot) -> None:
        self.grid.line(spot.x, spot.y, spot.width, "═" if spot.domain == "hardware" else "─", "dim")
        self._packets_at(spot, spot.x, spot.y, spot.width, right=True)

    def _label(self, spot: Spot) -> None:
        """Write a region's name; a thread can be there when no box is closer."""
        if not spot.title:
            self._packets_at(spot, spot.x - 2, spot.y, 8)
            return
        if self.active == spot.name and self.runner is not None:
            text = f"▶{spot.title}"
            self.grid.put(spot.x - 1, spot.y, text, f"{tone(spot.domain)} bold on {tone(spot.domain)}-ground")
        else:
            self.grid.put(
                spot.x - 1, spot.y, f" {spot.title} " if spot.name != "netlink" else f" {spot.title}", tone(spot.domain)
            )

    # Places

    def _box(self, spot: Spot) -> None:
        grid, x, y, width = self.grid, spot.x, spot.y, spot.width
        running = self.active == spot.name
        domain = tone(spot.domain)
        frame_style = f"{domain} bold on {domain}-ground" if running else "dim"
        corner = HEAVY if running else LIGHT
        bottom = y + spot.height - 1
        grid.put(x, y, corner[0] + corner[1] * (width - 2) + corner[2], frame_style)
        for row in range(y + 1, bottom):
            grid.put(x, row, corner[3] + " " * (width - 2) + corner[3], frame_style)
        grid.put(x, bottom, corner[4] + corner[1] * (width - 2) + corner[5], frame_style)
        title = f"▶{spot.title}" if running else f" {spot.title}"
        grid.put(x + 1, y + 1, fit(title, width - 2), f"{domain} bold on {domain}-ground" if running else domain)
        if running and self.runner is not None:
            name = short_thread(self.runner.name, width - 2)
            grid.put(x + 1, y, name, f"text bold on {domain}-ground")
        if spot.note:
            grid.put(x + 2, y + 2, fit(spot.note, width - 3), f"dim on {domain}-ground" if running else "dim")
        word, style = self._state_word(spot)
        same_row = spot.word_row == spot.at[1]
        used = self._packets_at(spot, x + 1, spot.at[1], width - 2, keep=len(word) if same_row else 0)
        if word and not (same_row and used and used + len(word) > width - 2):
            inside = spot.word_row < bottom
            grid.put(x + 1 + inside, spot.word_row, word, style)

    def _chip(self, spot: Spot) -> None:
        grid, x, y, width = self.grid, spot.x, spot.y, spot.width
        running = self.active == spot.name
        domain = tone(spot.domain)
        ground = f"{domain}-ground" if running else "raised"
        grid.put(x, y, "[" + " " * (width - 2) + "]", f"{domain} bold on {ground}" if running else f"dim on {ground}")
        title = f"▶{spot.title}" if running else f" {spot.title}"
        at = grid.put(x + 1, y, title, f"{domain} bold on {ground}" if running else f"{domain} on {ground}")
        room = max(width - 2 - len(title), NAME_ROOM)
        used = self._packets_at(spot, x + width - 1 - room, y, room, right=True)
        if running and self.runner is not None:
            here = self.packets.get(spot.name, [])
            room = width - 3 - len(title) - max((len(p.name) + 2 for p in here), default=0)
            if spot.shape == CHIP and room > 3 and spot.domain != "hardware":
                grid.put(at + 1, y, short_thread(self.runner.name, room), f"text bold on {ground}")
        else:
            word, style = self._state_word(spot)
            if word and len(title) + 1 + len(word) + used <= (width - 2 if used else width - 1):
                grid.put(at + 1, y, word, f"{style} on {ground}")

    def _state_word(self, spot: Spot) -> tuple[str, str]:
        """Say what the thread that belongs to a place does while something else runs."""
        at_home = [t for t in self.frame.threads if self._home(t) == spot.name]
        if spot.name == "qemu" and not at_home:
            return "asleep", "dim"
        residents = [t for t in at_home if t.state != "runs"]
        if not residents or (self.active == spot.name and spot.domain.startswith("guest")):
            return "", ""
        for thread in residents:
            if thread.woken:
                return "woken", "changed"
        order = ("held", "ready", "waits", "sleeps")
        state = min((t.state for t in residents), key=order.index)
        if spot.name == "far" and state != "ready":
            return "", ""
        if state == "waits" and all(t.name.startswith("pmd") for t in residents):
            return "polls", "dim"
        return STATES[state], "changed" if state == "held" else "text bold" if state == "ready" else "dim"

    def _home(self, thread: ThreadFrame) -> str:
        if thread.name in self.stage.homes:
            return self.stage.homes[thread.name]
        if thread.kind == "hardware":
            return ""
        if thread.kind == "vcpu":
            spot = self.stage.spot(thread.place)
        elif thread.name.startswith("vhost"):
            spot = self.stage.spot("vhost_net")
        elif thread.name.startswith("qemu"):
            spot = self.stage.spot("qemu")
        elif thread.name.startswith("handler"):
            spot = self.stage.spot("vswitchd")
        elif thread.name.startswith("pmd"):
            spot = self.stage.spot("ovs_dpdk")
        else:
            spot = self.stage.spots.get("far") if "softirq" in thread.name else self.stage.spot(thread.place)
        return spot.name if spot else ""

    # Packets

    def _packets_at(self, spot: Spot, x: int, y: int, room: int, *, keep: int = 0, right: bool = False) -> int:
        """Draw the packets of a spot into a row; answers the cells they take."""
        here = self.packets.get(spot.name, [])
        if not here:
            return 0
        alive = [p for p in here if not p.done] or here
        current = next((p for p in here if p.number == self.frame.packet), None)
        shown = current if len(alive) > 1 and current in alive else alive[-1]
        text = self._sign(shown) + shown.name
        if len(alive) > 1:
            text = f"{self._sign(shown)}\N{MULTIPLICATION SIGN}{len(alive)}"
        text = fit(text, room)
        at = x + room - len(text) if right or keep else x + (room - len(text)) // 2
        style = "packet" if current in alive else "other"
        if shown.done and not shown.came_from:
            style = "dim"
        self.grid.put(at, y, text, style)
        return len(text)

    @staticmethod
    def _sign(packet: PacketFrame) -> str:
        """Give a packet's sign: at work, waiting, arrived, or lost."""
        if packet.done:
            return "✗" if packet.done == "dropped" else "✓"
        return WAITING if packet.waiting else MOVING

    def _packet_chip(self, text: str, x: int, y: int, room: int) -> None:
        at = max(0, min(x - room // 2, self.stage.width - room))
        self.grid.put(at, y, text, "packet")
