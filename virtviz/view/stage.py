"""The stage: where places, queues and borders are drawn, and along which ways packets go.

The stage is a plan in character cells, without colours: two rooms side by side (guest and host), each with a user and
a kernel floor, memory that both share under the border between them, and hardware in the corner. Every place of the
world has its spot on it; a place that the plan does not know stands at the name of its domain. Spots never move while
the size stays the same.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

BOX, CHIP, LABEL, LANE, WIRE = "box", "chip", "label", "lane", "wire"
"""Shapes of spots: a box with a border, a word in brackets, the name of a region, a queue, the way out of the stage."""

Point = tuple[int, int]

_PACKETS_OF_LABELS = {
    "netlink": "switch",
    "guest-user": "app",
    "guest-kernel": "stack",
    "host-user": "vswitchd",
    "host-kernel": "far",
    "hardware": "nic",
}


class Spot(Struct, frozen=True):
    """Somewhere a thread or a packet can be.

    Attributes:
        name: unique on the stage.
        title: what is written there.
        shape: one of the shapes.
        domain: its domain; empty for queues.
        x, y, width, height: its rectangle.
        at: where a packet that is here is drawn: the cell in its middle.
        note: what it is, where there is room for that.
        word_row: the row in which a box says what its thread does.
    """

    name: str
    title: str
    shape: str
    domain: str
    x: int
    y: int
    width: int
    height: int
    at: Point
    note: str = ""
    word_row: int = 0

    @property
    def middle(self) -> int:
        """The column in its middle."""
        return self.x + self.width // 2


class Way(Struct, frozen=True):
    """A connection between two spots.

    Attributes:
        a, b: names of the spots.
        points: corners of the line from `a` to `b`, both ends included.
        carries: packets go along it; otherwise only threads do.
    """

    a: str
    b: str
    points: tuple[Point, ...]
    carries: bool = True


class Gate(Struct, frozen=True):
    """Where a border can be crossed.

    Attributes:
        at: the cell in the border.
        label: where the name of a crossing begins.
        room: cells there are for that name.
        upright: the border is a vertical line.
    """

    at: Point
    label: Point
    room: int
    upright: bool = False


class Border(Struct, frozen=True):
    """A line between domains: from a point, so many cells to the right or down.

    Attributes:
        kind: `user-kernel`, `guest-host`, `hardware` or `top`.
        side: `guest` or `host`; empty for the line between them.
    """

    kind: str
    side: str
    x: int
    y: int
    length: int
    upright: bool = False


class Stage(Struct, frozen=True):
    """The plan of a world at one size.

    Attributes:
        width, height: in cells.
        spots: name -> spot.
        ways: between them.
        borders: the lines.
        gates: where borders are crossed: `guest`, `guest-host`, `kvm`, `switch`, and `qemu` where it serves queues.
        notes: words that stand somewhere and mean a region: point -> text.
        places: place or queue, as in the trace -> spot.
        homes: threads of machines that are not drawn whole -> the spot that stands for all of their machine.
    """

    width: int
    height: int
    spots: Mapping[str, Spot]
    ways: tuple[Way, ...]
    borders: tuple[Border, ...]
    gates: Mapping[str, Gate]
    notes: Mapping[Point, str]
    places: Mapping[str, str]
    homes: Mapping[str, str]

    def spot(self, where: str) -> Spot | None:
        """Give the spot of a place or queue by its name in the trace; None for nowhere."""
        return self.spots.get(self.places.get(where, where))

    def packet_spot(self, where: str) -> Spot | None:
        """Give the spot at which a packet is drawn; a region's name has no room for one, so a box in it has it."""
        spot = self.spot(where)
        return self.spots[_PACKETS_OF_LABELS.get(spot.name, spot.name)] if spot is not None else None

    def gate(self, source: str, target: str, place: str) -> Gate | None:
        """Give the gate through which a thread goes from one domain to another.

        Args:
            source: the domain it comes from.
            target: the domain it goes to.
            place: the place it comes from, which tells apart gates in the same border.
        """
        if source.startswith("guest") != target.startswith("guest"):
            return self.gates.get("guest-host")
        if source.startswith("guest"):
            return self.gates.get("guest")
        spot = self.places.get(place, "")
        if spot in ("qemu", "device", "fds", "tap") and "qemu" in self.gates:
            return self.gates["qemu"]
        return self.gates.get("kvm" if spot in ("kvm", "qemu") else "switch")

    def route(self, source: str, target: str) -> tuple[Point, ...]:
        """Give the cells a packet passes from one spot to another, both ends included; empty if there is no way.

        Of several ways, the one past the fewest spots is taken.
        """
        joined: dict[str, list[tuple[str, tuple[Point, ...]]]] = {}
        for way in self.ways:
            if way.carries:
                joined.setdefault(way.a, []).append((way.b, way.points))
                joined.setdefault(way.b, []).append((way.a, way.points[::-1]))
        came: dict[str, tuple[str, tuple[Point, ...]]] = {source: ("", ())}
        waiting = deque([source])
        while waiting and target not in came:
            here = waiting.popleft()
            for there, points in joined.get(here, ()):
                if there not in came:
                    came[there] = (here, points)
                    waiting.append(there)
        if target not in came or source == target:
            return ()
        corners: list[Point] = []
        here = target
        while here != source:
            here, points = came[here]
            corners = [*points, *corners]
        return _cells_along(corners)


def _cells_along(corners: list[Point]) -> tuple[Point, ...]:
    """Give every cell on a line through corners that lie above, below or beside each other."""
    cells: list[Point] = [corners[0]]
    for x, y in corners[1:]:
        while cells[-1] != (x, y):
            here_x, here_y = cells[-1]
            if here_x != x:
                cells.append((here_x + (1 if x > here_x else -1), here_y))
            else:
                cells.append((here_x, here_y + (1 if y > here_y else -1)))
    return tuple(cells)


def short_thread(name: str, room: int) -> str:
    """Give a thread's name in so many cells: without its machine, without its number if need be."""
    process, dot, pair = name.partition(".")
    without_number = f"{process.partition('-')[0]}{dot}{pair}"
    for candidate in (name, without_number, name.rpartition(".")[2], name.partition("/")[0], name.partition("-")[0]):
        if len(candidate) <= room:
            return candidate
    squeezed = "".join(c for c in name.rpartition(".")[2] if c not in "aeiou")
    return squeezed[:room]
