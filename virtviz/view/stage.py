"""The stage: where places, queues and borders are drawn, and along which ways packets go.

The stage is a plan in character cells, without colours: two rooms side by side (guest and host), each with a user and a kernel floor, memory
that both share under the border between them, and hardware in the corner. Every place of the world has its spot on it; a place that the plan
does not know stands at the name of its domain. Spots never move while the size stays the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtviz.paths.describe import Header

SMALL_HEIGHT: Final = 8
"""Rows of the stage on a screen of 24: user places are chips of one row, kernel places boxes of three."""
TALL_HEIGHT: Final = 12
"""Rows of the stage from 36 on: everything is a box, and packets have a row of their own inside."""
MIN_WIDTH: Final = 80

BOX, CHIP, LABEL, LANE, WIRE = "box", "chip", "label", "lane", "wire"
"""Shapes of spots: a box with a border, a word in brackets, the name of a region, a queue, the way out of the stage."""

Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Spot:
    """Somewhere a thread or a packet can be.

    Attributes:
        name: unique on the stage.
        title: what is written there.
        shape: one of the shapes.
        domain: its domain; empty for queues.
        x, y, width, height: its rectangle.
        at: where a packet that is here is drawn: the cell in the middle of it.
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

    @property
    def middle(self) -> int:
        """The column in its middle."""
        return self.x + self.width // 2


@dataclass(frozen=True, slots=True)
class Way:
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


@dataclass(frozen=True, slots=True)
class Gate:
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


@dataclass(frozen=True, slots=True)
class Border:
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


@dataclass(frozen=True, slots=True)
class Stage:
    """The plan of a world at one size.

    Attributes:
        width, height: in cells.
        spots: name -> spot.
        ways: between them.
        borders: the lines.
        gates: domain pair -> where that border is crossed, by the spot it is crossed from or to.
        notes: words that stand somewhere and mean a region: point -> text.
    """

    width: int
    height: int
    spots: Mapping[str, Spot]
    ways: tuple[Way, ...]
    borders: tuple[Border, ...]
    gates: Mapping[str, Gate]
    notes: Mapping[Point, str]
    places: Mapping[str, str]
    _routes: dict[tuple[str, str], tuple[Point, ...]] = field(default_factory=dict, compare=False, repr=False)

    def spot(self, where: str) -> Spot | None:
        """Give the spot of a place or queue by its name in the trace; None for nowhere."""
        return self.spots.get(self.places.get(where, where))

    def gate(self, source: str, target: str, place: str) -> Gate | None:
        """Give the gate through which a thread goes from one domain to another.

        Args:
            source, target: the domains.
            place: the place it comes from, which tells apart gates in the same border.
        """
        if source.startswith("guest") != target.startswith("guest"):
            return self.gates.get("guest-host")
        if source.startswith("guest"):
            return self.gates.get("guest")
        spot = self.places.get(place, "")
        return self.gates.get("kvm" if spot in ("kvm", "qemu") else "switch")

    def route(self, source: str, target: str) -> tuple[Point, ...]:
        """Give the cells a packet passes from one spot to another, both ends included; empty if there is no way."""
        key = (source, target)
        if key not in self._routes:
            self._routes[key] = self._find_route(source, target)
        return self._routes[key]

    def _find_route(self, source: str, target: str) -> tuple[Point, ...]:
        """Look for the shortest way in spots."""
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


_KNOWN: Final = {
    "app": "app",
    "stack": "stack",
    "virtio_net": "virtio-net",
    "kvm": "kvm",
    "vhost_net": "vhost-net",
    "ovs": "switch",
    "vswitchd": "vswitchd",
    "netlink": "netlink",
    "qemu": "qemu",
}
"""Place, without its machine's name -> spot. TAP and far port are known by their titles."""
_TITLES: Final = {"TAP": "tap", "NIC driver": "far", "veth": "far", "NIC": "nic", "far namespace": "nic"}
_QUEUE_TITLES: Final = {"out": "tx", "in": "rx"}


def make_stage(header: Header, width: int, height: int) -> Stage:
    """Plan the stage of a world.

    Args:
        header: what the world is made of.
        width: at least `MIN_WIDTH`.
        height: at least `SMALL_HEIGHT`; from `TALL_HEIGHT` on the tall plan is drawn.
    """
    return _Planner(header, width, tall=height >= TALL_HEIGHT).plan()


class _Planner:
    def __init__(self, header: Header, width: int, *, tall: bool) -> None:
        self.header = header
        self.width = width
        self.tall = tall
        self.spots: dict[str, Spot] = {}
        self.ways: list[Way] = []
        titles = {p.title: p.name for p in header.places}
        self.veth = "veth" in titles
        self.far = titles.get("veth") or titles.get("NIC driver") or ""

    def plan(self) -> Stage:
        extra = max(self.width - MIN_WIDTH, 0)
        grow = min(extra // 20, 5)
        gap, left = divmod(extra - 7 * grow, 7)
        self.grow, self.gap, self.left = grow, gap, left
        user, border, floor = (1, 4, 5) if self.tall else (1, 2, 3)
        box_height = 4 if self.tall else 3
        lane = floor + box_height
        x = self._kernel_boxes(floor, box_height)
        self.wall = x["wall"]
        self._user_places(user, border)
        self._shared_memory(lane)
        self._hardware(lane)
        self._regions(border)
        self._control_ways(floor, box_height, border)
        height = TALL_HEIGHT if self.tall else SMALL_HEIGHT
        return Stage(
            width=self.width,
            height=height,
            spots=self.spots,
            ways=tuple(self.ways),
            borders=self._borders(border, lane),
            gates=self._gates(border, floor, box_height),
            notes={(1, lane): "shared", (1, lane + 1): "memory"},
            places=self._places(),
        )

    def _box(self, name: str, title: str, domain: str, x: int, y: int, width: int, height: int) -> Spot:
        row = y + 2
        made = Spot(name, title, BOX, domain, x, y, width, height, (x + width // 2, row))
        self.spots[name] = made
        return made

    def _kernel_boxes(self, floor: int, height: int) -> dict[str, int]:
        """Place the boxes of both kernels side by side; answers where the wall between guest and host is."""
        grow, gap = self.grow, self.gap
        gaps = [gap + (1 if i < self.left else 0) for i in range(7)]
        x = 1
        stack = self._box("stack", "stack", "guest-kernel", x, floor, 9 + grow, height)
        x += stack.width + 2 + gaps[0]
        driver = self._box("virtio-net", "virtio-net", "guest-kernel", x, floor, 13 + grow, height)
        x += driver.width + 1 + gaps[1] // 2
        wall = x
        x += 2 + (gaps[1] + 1) // 2
        names = (
            ("kvm", "KVM", 8),
            ("vhost-net", "vhost-net", 12),
            ("tap", "tap0", 9),
            ("switch", "OVS", 9),
            ("far", self.far or "port", 9),
        )
        before = driver
        for i, (name, title, width) in enumerate(names):
            box = self._box(name, title, "host-kernel", x, floor, width + grow, height)
            x += box.width + 1 + gaps[i + 2]
            if name not in ("kvm", "vhost-net"):
                self.ways.append(Way(before.name, name, (before.at, box.at)))
            before = box
        self.ways.append(Way("stack", "virtio-net", (stack.at, driver.at)))
        return {"wall": wall}

    def _user_places(self, user: int, border: int) -> None:
        spots = self.spots
        if self.tall:
            app = self._box("app", "app", "guest-user", spots["stack"].x, user, spots["stack"].width, 3)
            width = 10 + self.grow
            kvm, switch = spots["kvm"], spots["switch"]
            self._box("qemu", "QEMU", "host-user", kvm.middle - width // 2, user, width, 3)
            width = 16 + self.grow
            self._box("vswitchd", "ovs-vswitchd", "host-user", switch.middle - width // 2, user, width, 3)
        else:
            app = self._chip("app", "app", "guest-user", spots["stack"].x, user, 16)
            self._chip("qemu", "QEMU", "host-user", spots["kvm"].x, user, 18)
            self._chip("vswitchd", "ovs-vswitchd", "host-user", spots["switch"].middle - 10, user, 26)
        stack, switch, vswitchd = spots["stack"], spots["switch"], spots["vswitchd"]
        self.ways.append(Way("app", "stack", _bent(app.at, stack.at)))
        self.ways.append(Way("switch", "vswitchd", _bent(switch.at, vswitchd.at)))

    def _chip(self, name: str, title: str, domain: str, x: int, y: int, width: int) -> Spot:
        made = Spot(name, title, CHIP, domain, x, y, width, 1, (x + width - 4, y))
        self.spots[name] = made
        return made

    def _shared_memory(self, lane: int) -> None:
        """Place the virtqueues under the wall: memory of the guest that the host sees as well."""
        driver, vhost = self.spots["virtio-net"], self.spots["vhost-net"]
        for row, queue in enumerate(sorted(self.header.queues, key=lambda q: q.direction != "out")[:2]):
            left, right = driver.x + 3 - 2 * row, vhost.x + 8 + 2 * row
            y, title = lane + row, queue.name.rpartition(".")[2]
            at = (driver.x + 3 + (vhost.x + 5 - driver.x) // 2 + 5, y)
            self.spots[queue.name] = Spot(queue.name, title, LANE, "", left, y, right - left + 1, 1, at)
            for box, x in ((driver, left), (vhost, right)):
                self.ways.append(Way(box.name, queue.name, (box.at, (x, box.at[1]), (x, y), at)))

    def _hardware(self, lane: int) -> None:
        far = self.spots["far"]
        title = "peer" if self.veth else "NIC"
        domain = "host-kernel" if self.veth else "hardware"
        if self.tall:
            # Three rows would stick out below; a chip is enough for what happens in hardware.
            nic = self._chip("nic", title, domain, far.x - 6, lane + 1, 11)
        else:
            nic = self._chip("nic", title, domain, far.x - 8, lane + 1, 12)
        end = self.width - 1
        x = nic.x + nic.width
        self.spots["wire"] = Spot("wire", "wire", WIRE, domain, x, nic.y, end - x + 1, 1, (max(x + 3, end - 2), nic.y))
        middle = nic.x + nic.width // 2 + 3
        self.ways.append(Way("far", "nic", (far.at, (middle, far.at[1]), (middle, nic.y), nic.at)))
        self.ways.append(Way("nic", "wire", (nic.at, self.spots["wire"].at)))
        self.down = middle
        for name in ("tx", "rx"):
            queue = f"{self.far}.{name}"
            self.spots[queue] = Spot(queue, "", LABEL, "", middle, lane, 1, 1, (middle, lane))

    def _regions(self, border: int) -> None:
        """Write the names of the domains into the borders above them."""
        wall = self.wall
        vm = self.header.threads[0].name.partition(".")[0] if self.header.threads else "vm1"
        top, under = 0, border
        names = (
            ("guest-user", f"GUEST {vm} · user", 2, top),
            ("guest-kernel", "guest kernel", wall - 12, under),
            ("host-user", "HOST · user", wall + 12, top),
            ("host-kernel", "host kernel", self.spots["vhost-net"].middle - 2, under),
        )
        for name, title, x, y in names:
            self.spots[name] = Spot(name, title, LABEL, name, x, y, len(title), 1, (x, y))
        switch = self.spots["switch"]
        self.spots["netlink"] = Spot(
            "netlink", "netlink", LABEL, "host-kernel", switch.middle - 8, under, 7, 1, (switch.middle, under)
        )

    def _control_ways(self, floor: int, height: int, border: int) -> None:
        """Join what threads pass between, but packets do not."""
        row = floor + 1
        driver, kvm, vhost = self.spots["virtio-net"], self.spots["kvm"], self.spots["vhost-net"]
        self.ways.append(Way("virtio-net", "kvm", ((driver.x + driver.width, row), (kvm.x - 1, row)), carries=False))
        self.ways.append(Way("kvm", "vhost-net", ((kvm.x + kvm.width, row), (vhost.x - 1, row)), carries=False))
        qemu = self.spots["qemu"]
        self.ways.append(
            Way("qemu", "kvm", ((kvm.middle, qemu.y + qemu.height), (kvm.middle, floor - 1)), carries=False)
        )

    def _borders(self, border: int, lane: int) -> tuple[Border, ...]:
        wall, width = self.wall, self.width
        lines = [
            Border("top", "guest", 0, 0, wall),
            Border("top", "host", wall + 1, 0, width - wall - 1),
            Border("user-kernel", "guest", 0, border, wall),
            Border("user-kernel", "host", wall + 1, border, width - wall - 1),
            Border("guest-host", "", wall, 0, lane, upright=True),
        ]
        if not self.veth:
            nic = self.spots["nic"]
            lines.append(Border("hardware", "host", nic.x - 2, lane, width - nic.x + 2))
        return tuple(lines)

    def _gates(self, border: int, floor: int, height: int) -> dict[str, Gate]:
        wall = self.wall
        stack, kvm, switch = self.spots["stack"], self.spots["kvm"], self.spots["switch"]
        guest = stack.middle

        return {
            "guest": Gate((guest, border), (guest + 2, border), wall - 12 - guest - 2),
            "guest-host": Gate((wall, floor + 1), (wall - 5, 0), 12, upright=True),
            "kvm": Gate((kvm.middle, border), (kvm.middle + 2, border), 8),
            "switch": Gate((switch.middle, border), (switch.middle + 2, border), self.width - switch.middle - 3),
        }

    def _places(self) -> dict[str, str]:
        """Say at which spot each place, and each queue that is not a virtqueue, is drawn."""
        places: dict[str, str] = {}
        for place in self.header.places:
            short = place.name.rpartition(".")[2]
            known = _TITLES.get(place.title) or _KNOWN.get(short)
            places[place.name] = known or str(place.domain)
        if self.far:
            places |= {f"{self.far}.qdisc": "far"}
        places |= {"wire": "wire", "tap0.queue": "tap", "socket": "stack", "qdisc": "stack", "backlog": "far"}
        for thread in self.header.threads:
            if thread.name.startswith("handler"):
                places[f"ovs.upcalls{thread.name.removeprefix('handler')}"] = "netlink"
        return places


def _bent(start: Point, end: Point) -> tuple[Point, ...]:
    """Join two points by a line that goes up or down in the column of the lower one."""
    column = end[0] if end[1] > start[1] else start[0]
    return (start, (column, start[1]), (column, end[1]), end)


def short_thread(name: str, room: int) -> str:
    """Give a thread's name in so many cells: without its machine, without its number if need be."""
    for candidate in (name, name.rpartition(".")[2], name.partition("/")[0], name.partition("-")[0]):
        if len(candidate) <= room:
            return candidate
    squeezed = "".join(c for c in name.rpartition(".")[2] if c not in "aeiou")
    return squeezed[:room]
