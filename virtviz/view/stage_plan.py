"""Making the plan of a stage: from what a world is made of, and a size, to spots, ways, borders and gates.

There are three plans. On a screen of 24 rows user places are chips of one row and kernel places boxes of three; from
34 rows on everything is a box, and packets have a row of their own inside; on the largest screens the boxes say what
they are.

Of two virtual machines one is drawn, and the other is a chip behind its TAP. There is a plan for each, with everything
in the same places, so that a screen can show the machine that has just done something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.engine.threads import ThreadKind
from virtviz.paths.hosts import SCOPE, SECOND, host_of, without_host
from virtviz.view.machines import hosts_of, machine_of, machines_of, thread_machines
from virtviz.view.stage import BOX, CHIP, LABEL, LANE, WIRE, Border, Gate, Spot, Stage, Way

if TYPE_CHECKING:
    from virtviz.paths.describe import Header
    from virtviz.view.stage import Point

MIN_WIDTH: Final = 80
_TUNNEL_WIDTH: Final = 9
"""Columns that the box of a tunnel takes where no other has to be narrower for it."""


class _Rows(Struct, frozen=True):
    """A plan's rows, from the top, and heights.

    Attributes:
        border: the border between user and kernel.
        floor: first row of the kernel places.
        lanes: the rows of the two virtqueues.
        user_height, box_height: of user and kernel places.
        packet, word: in which row of a kernel place packets and states are drawn.
        user_packet: the same for a user place.
        total: height of the stage.
    """

    border: int
    floor: int
    lanes: tuple[int, int]
    user_height: int
    box_height: int
    packet: int
    word: int
    user_packet: int
    total: int


_SMALL: Final = _Rows(2, 3, (6, 7), 1, 3, packet=2, word=2, user_packet=0, total=8)
_TALL: Final = _Rows(4, 5, (9, 10), 3, 4, packet=2, word=2, user_packet=2, total=12)
_GRAND: Final = _Rows(5, 6, (12, 14), 4, 6, packet=3, word=4, user_packet=2, total=16)
SMALL_HEIGHT: Final = _SMALL.total
TALL_HEIGHT: Final = _TALL.total
GRAND_HEIGHT: Final = _GRAND.total
_USER_ROW: Final = 1
_HOST_WIDTHS: Final = (10, 16)
"""Columns that the chip of another host takes: its name alone, and with a packet beside it."""
_CABLE_WIDTHS: Final = (4, 12)
"""Columns that the cable to it takes, at least and at most."""
SOCKETS_MAX: Final = 4
"""Sockets that the switch asks by, at most."""
_OTHER, _OTHER_TAP = "other", "other-tap"
"""Spots of the virtual machine that is not drawn whole."""

_KNOWN: Final = {
    "app": "app",
    "stack": "stack",
    "virtio_net": "virtio-net",
    "virtio_pci": "virtio-net",
    "virtio_mmio": "virtio-net",
    "virtio_pmd": "virtio-net",
    "e1000": "virtio-net",
    "kvm": "kvm",
    "vhost_net": "vhost-net",
    "ovs": "switch",
    "bridge": "switch",
    "vswitchd": "vswitchd",
    "netlink": "netlink",
    "libvirtd": "qemu",
    "ovs_vsctl": "vswitchd",
    "ovsdb_server": "vswitchd",
    "unix": "netlink",
    "qemu": "qemu",
    "vcpu": "qemu",
    "vm": "kvm",
    "device": "device",
    "eventfd": "fds",
    "callfd": "callfd",
    "kickfd": "callfd",
    "ovs_dpdk": "switch",
    "outside": "outside",
    "program": "program",
}
"""Place, without its machine's name -> spot. TAP and far port are known by their titles."""
_DRIVERS: Final = ("virtio_net", "virtio_pmd", "e1000")
"""Places whose titles the driver's box may have; its transport's code is drawn there as well."""
_TITLES: Final = {
    "TAP": "tap",
    "vhost-user port": "vhost-user",
    "NIC driver": "far",
    "DPDK driver": "far",
    "veth": "far",
    "NIC": "nic",
    "far namespace": "nic",
    "tunnel": "tunnel",
    "host IP": "tunnel",
    "TUN": "tap",
}
_NOTES: Final = {
    "app": "program",
    "qemu": "set things up",
    "vswitchd": "decides on flows",
    "stack": "sockets, IP",
    "virtio-net": "guest driver",
    "kvm": "hypervisor",
    "vhost-net": "device side",
    "vhost-user": "device side",
    "callfd": "irqfd",
    "fds": "ppoll()",
    "tap": "network port",
    "switch": "datapath",
    "tunnel": "and host IP",
    "far": "NIC driver",
}
"""What each box is, for those who see it for the first time."""


def make_stage(header: Header, width: int, height: int, machine: str = "") -> Stage:
    """Plan the stage of a world.

    Args:
        header: what the world is made of.
        machine: the virtual machine to draw; the first one if left out.
        width: at least `MIN_WIDTH`.
        height: at least `SMALL_HEIGHT`; from `TALL_HEIGHT` and from `GRAND_HEIGHT` on larger plans are drawn.
    """
    rows = _GRAND if height >= GRAND_HEIGHT else _TALL if height >= TALL_HEIGHT else _SMALL
    if not header.queues:
        return _ProgramPlanner(header, width, rows, machine).plan()
    return _Planner(header, width, rows, machine).plan()


class _Planner:
    def __init__(self, header: Header, width: int, rows: _Rows, machine: str) -> None:
        self.header = header
        self.machines = machines_of(header)
        self.machine = machine or self.machines[0]
        taps = [place.name for place in header.places if place.title in ("TAP", "vhost-user port")]
        self.taps = dict(zip(self.machines, sorted(taps, key=without_host), strict=False))
        self.others = [name for name in self.machines if name != self.machine]
        # Of two hosts one is drawn, that of the machine; the other is all behind the cable.
        self.several_hosts = hosts_of(header) > 1
        self.host = self.machines.index(self.machine) + 1 if self.several_hosts else 1
        self.scope = SCOPE if self.host == SECOND else ""
        self.width = width
        self.rows = rows
        self.spots: dict[str, Spot] = {}
        self.ways: list[Way] = []
        titles = {
            p.title: p.name for p in header.places if p.domain.startswith("guest") or host_of(p.name) == self.host
        }
        self.has_card = "NIC" in titles
        self.behind = "NIC" if self.has_card else "peer" if "veth" in titles else "nothing"
        self.far = titles.get("veth") or titles.get("NIC driver") or titles.get("DPDK driver") or "dummy0"
        # The tunnel device, of whose name people know the first part.
        self.tunnel = titles.get("tunnel", "")
        self.switch = "bridge" if "Linux bridge" in titles else "OVS"
        # Who has the device's side of the queues: vhost-net, QEMU, which waits for eventfds, or a process that polls.
        self.device = "fds" if "eventfds" in titles else "vhost-net"
        self.polls = "vhost-user port" in titles
        if self.polls and self.device != "fds":
            self.device = "vhost-user"
        # The guest's driver is its kernel's, or part of a program.
        drivers = [p.title for p in header.places if p.name.rpartition(".")[2] in _DRIVERS]
        self.in_program = "virtio PMD" in titles
        self.driver = "DPDK PMD" if self.in_program else next(iter(drivers), "virtio-net")
        # QEMU is a network card to it, if there is one that it emulates.
        self.has_model = "e1000 device" in titles
        self.has_vswitchd = "ovs-vswitchd" in titles
        # QEMU waits for what vhost-net signals: the eventfds are in the border between them.
        self.has_calls = "call eventfds" in titles and not self.polls
        # Where registers are QEMU's, KVM_RUN returns to it for each packet.
        by_line = header.world.get("transport") == "mmio" and self.device == "fds"
        self.kvm_returns = self.has_model or by_line
        # Where a run begins at power-on, who prepares things is drawn where later that runs which was prepared.
        self.qemu = "libvirtd, QEMU" if "libvirtd" in titles else "QEMU"
        self.vswitchd = "Open vSwitch" if "ovsdb-server" in titles else "ovs-vswitchd"
        # Columns beyond the least width go to the boxes first, then to the gaps between them.
        # With a tunnel there is one box more, for which there has to be room before all are as wide as without.
        boxes = 8 if self.tunnel else 7
        self.narrow = bool(self.tunnel) and width < MIN_WIDTH + _TUNNEL_WIDTH
        extra = max(width - MIN_WIDTH - (_TUNNEL_WIDTH if self.tunnel and not self.narrow else 0), 0)
        self.grow = min(extra // (2 * boxes + 4), 6)
        gap, left = divmod(extra - boxes * self.grow, boxes)
        self.gaps = [gap + (1 if i < left else 0) for i in range(boxes)]
        self.wall = 0
        # Where the host's user places begin that are drawn beside its kernel places, not above them.
        self.edge = self.guest_edge = 0

    def plan(self) -> Stage:
        self._kernel_places()
        self._user_places()
        self._shared_memory()
        self._hardware()
        self._other_machine()
        self._regions()
        self._control_ways()
        first, second = self.rows.lanes
        notes = {(1, first): "shared", (1, min(second, first + 1)): "memory"}
        if any(place.name == "outside" for place in self.header.places):
            # Whoever changes the rings stands beside them.
            self._chip("outside", "outside", "hardware", 1, min(second, first + 1), 11)
            notes = {(1, first): "memory"}
        return Stage(
            width=self.width,
            height=self.rows.total,
            spots=self.spots,
            ways=tuple(self.ways),
            borders=self._borders(),
            gates=self._gates(),
            notes=notes,
            places=self._places(),
            homes=self._homes(),
        )

    # Boxes

    def _box(self, name: str, title: str, domain: str, x: int, y: int, width: int) -> Spot:
        rows = self.rows
        is_user = y == _USER_ROW
        height = rows.user_height if is_user else rows.box_height
        packet = rows.user_packet if is_user else rows.packet
        word = rows.user_packet if is_user else rows.word
        note = _NOTES.get(name, "") if rows is _GRAND and not is_user else ""
        at = (x + width // 2, y + packet)
        made = Spot(name, title, BOX, domain, x, y, width, height, at, note, y + word)
        self.spots[name] = made
        return made

    def _chip(self, name: str, title: str, domain: str, x: int, y: int, width: int) -> Spot:
        made = Spot(name, title, CHIP, domain, x, y, width, 1, (x + width - 4, y))
        self.spots[name] = made
        return made

    def _kernel_places(self) -> None:
        """Place the boxes of both kernels side by side, with the wall between guest and host."""
        grow, gaps, floor = self.grow, self.gaps, self.rows.floor
        in_program = self.in_program
        stack = self._box("stack", "kernel" if in_program else "stack", "guest-kernel", 1, floor, 9 + grow)
        x = stack.x + stack.width + (3 if in_program else 2) + gaps[0]
        domain = "guest-user" if in_program else "guest-kernel"
        driver = self._box("virtio-net", self.driver, domain, x, floor, (12 if in_program else 13) + grow)
        if in_program:
            self.guest_edge = driver.x - 2
        else:
            self.ways.append(Way("stack", "virtio-net", (stack.at, driver.at)))
        self.wall = driver.x + driver.width + 1 + gaps[1] // 2
        x = self.wall + 2 + (gaps[1] + 1) // 2
        before = driver
        for (name, title, width, after), gap in zip(self._host_row(), gaps[2:], strict=True):
            if name == "vhost-user":
                self.edge = x - 1
            domain = "host-user" if self.edge else "host-kernel"
            box = self._box(name, title, domain, x, floor, width + grow)
            x += box.width + after + gap
            if before.name not in ("virtio-net", "kvm", "fds", "callfd"):
                self.ways.append(Way(before.name, name, (before.at, box.at)))
            before = box

    def _host_row(self) -> list[tuple[str, str, int, int]]:
        """Give what stands side by side on the host: spot, title, least width, columns between it and the next."""
        if self.polls:
            # The border to the user places is in between, and where QEMU serves the queues, their lines go up there.
            is_fallback = self.device == "fds"
            narrow = 1 if is_fallback else 0
            return [
                ("kvm", "KVM", 6, 1),
                ("fds", "eventfd", 10, 4) if is_fallback else ("callfd", "callfd", 9, 2),
                ("vhost-user", "vhost-user", 13, 1),
                ("switch", "OVS", 9 - 2 * narrow, 1),
                ("far", without_host(self.far), 9 - narrow, 1),
            ]
        narrow = 2 if self.narrow else 0
        # Frames stop at KVM on their way to a card that QEMU emulates: their names need a cell more.
        more = 1 if self.has_model and not self.narrow else 0
        row = [
            ("kvm", "KVM", 8 - narrow + more, 1),
            # The queues' lines go up to QEMU beside its eventfds.
            ("fds", "eventfd", 10, 3) if self.device == "fds" else ("vhost-net", "vhost-net", 12, 1),
            ("tap", without_host(self.taps.get(self.machine, "tap0")), 9 - narrow, 1),
            ("switch", self.switch, 9 - narrow, 1),
            ("far", without_host(self.far), 9 - narrow, 1),
        ]
        if self.tunnel:
            row.insert(-1, ("tunnel", without_host(self.tunnel).partition("_")[0], 8 if self.narrow else 9, 1))
        return row

    def _user_places(self) -> None:
        spots = self.spots
        stack, kvm, switch = spots["stack"], spots["kvm"], spots["switch"]
        if self.rows is _SMALL:
            app = self._chip("app", "app", "guest-user", stack.x, _USER_ROW, 24)
            room = max(16, len(self.qemu) + len(" asleep") + 4)
            qemu = self._chip("qemu", self.qemu, "host-user", kvm.x, _USER_ROW, self._qemu_width(room))
        else:
            app = self._box("app", "app", "guest-user", stack.x, _USER_ROW, stack.width)
            width = 10 + self.grow
            width = max(width, len(self.qemu) + 2)
            x = kvm.x if self.device == "fds" else max(kvm.middle - width // 2, self.wall + 1)
            qemu = self._box("qemu", self.qemu, "host-user", x, _USER_ROW, self._qemu_width(width))
        if self.has_model:
            model = self._model(qemu)
            self.ways.append(Way("qemu", "device", (qemu.at, model.at)))
            self.ways.append(Way("device", "tap", _bent(model.at, spots["tap"].at)))
        elif self.device == "fds" and not self.polls:
            self.ways.append(Way("qemu", "tap", _bent(qemu.at, spots["tap"].at)))
        below = spots["virtio-net"] if self.guest_edge else stack
        self.ways.append(Way("app", below.name, _bent(app.at, below.at)))
        if self.has_vswitchd:
            self._vswitchd(switch)

    def _qemu_width(self, width: int) -> int:
        """Give QEMU's width: where it serves the queues it reaches from KVM to the TAP, both of which it calls.

        The model of a card has the right half of that.
        """
        if self.device != "fds":
            return width
        end = self.edge if self.polls else self.spots["tap"].middle + 1
        whole = end - self.spots["kvm"].x
        return max(whole // 2, 14) if self.has_model else whole

    def _model(self, qemu: Spot) -> Spot:
        """Place the model of a card beside the rest of QEMU."""
        x, tap = qemu.x + qemu.width, self.spots["tap"]
        make = self._chip if self.rows is _SMALL else self._box
        return make("device", "e1000", "host-user", x, _USER_ROW, max(tap.middle - x + 1, 13))

    def _vswitchd(self, switch: Spot) -> None:
        """Place the switch's program above it, and the border in between that it is asked through."""
        left = self.spots.get("device", self.spots["qemu"])
        first = left.x + left.width + 1
        if self.rows is _SMALL:
            x = max(min(switch.middle - 10, self.width - 32), first)
            width = min(32, self.width - x)
            vswitchd = self._chip("vswitchd", self.vswitchd, "host-user", x, _USER_ROW, width)
        else:
            width = 16 + self.grow
            x = max(switch.middle - width // 2, first)
            vswitchd = self._box("vswitchd", self.vswitchd, "host-user", x, _USER_ROW, width)
        self.ways.append(Way("switch", "vswitchd", _bent(switch.at, vswitchd.at)))
        if self.polls:
            return
        x, under = switch.middle - 8, self.rows.border
        self.spots["netlink"] = Spot("netlink", "netlink", LABEL, "host-kernel", x, under, 7, 1, switch.at)

    # Queues and hardware

    def _shared_memory(self) -> None:
        """Place the virtqueues under the wall: memory of the guest that the host sees as well."""
        driver, device = self.spots["virtio-net"], self.spots[self.device]
        # Where the lines of the device's side go up, and to whom.
        side, beside = device, device.x + (6 if self.device == "vhost-user" else 8)
        if self.device == "fds":
            side, beside = self.spots["device" if self.has_model else "qemu"], device.x + device.width
        mine = [queue for queue in self.header.queues if machine_of(queue.name, self.machines) == self.machine]
        # A lane for each direction; the queues of further pairs share it.
        queues = [next(queue for queue in mine if queue.direction == way) for way in ("out", "in")]
        for row, (queue, y) in enumerate(zip(queues, self.rows.lanes, strict=False)):
            left, right = driver.x + 3 - 2 * row, beside + 2 * row
            at = (driver.x + 3 + (device.x + 5 - driver.x) // 2 + 5, y)
            title = queue.name.rpartition(".")[2]
            self.spots[queue.name] = Spot(queue.name, title, LANE, "", left, y, right - left + 1, 1, at)
            for box, x in ((driver, left), (side, right)):
                self.ways.append(Way(box.name, queue.name, (box.at, (x, box.at[1]), (x, y), at)))

    def _hardware(self) -> None:
        """Place what lies behind the far port: a card and its wire, the other end of a veth pair, or nothing."""
        far, lane = self.spots["far"], self.rows.lanes[0]
        domain = "hardware" if self.has_card else "host-kernel"
        x, width = (far.x - 7, 10) if self.others else (far.x - 8, 12)
        if self.several_hosts:
            # The cable ends in the other host, for which there is room on the left only.
            x, width = far.x - 1, min(9, self.width - far.x + 1)
        nic = self._chip("nic", self.behind, domain, x, lane + 1, width)
        x = nic.x + nic.width
        wire = Spot("wire", "wire", WIRE, domain, x, nic.y, self.width - x, 1, (max(x + 3, self.width - 3), nic.y))
        if self.several_hosts:
            wire = self._cable(nic)
        self.spots["wire"] = wire
        down = nic.x + (nic.width - 2 if self.several_hosts else 9)
        self.ways.append(Way("far", "nic", (far.at, (down, far.at[1]), (down, nic.y), nic.at)))
        self.ways.append(Way("nic", "wire", (nic.at, wire.at)))
        for name in ("tx", "rx"):
            queue, at = f"{self.far}.{name}", (down, lane)
            self.spots[queue] = Spot(queue, "", LABEL, "", down, lane, 1, 1, at)
            self.ways.append(Way("far", queue, (far.at, (down, far.at[1]), at)))
            self.ways.append(Way(queue, "nic", (at, (down, nic.y), nic.at)))

    def _cable(self, nic: Spot) -> Spot:
        """Place the other host, as a chip, and give the cable to it: between the rings' lines and the card."""
        room = nic.x - 1 - max(spot.x + spot.width for spot in self.spots.values() if spot.shape == LANE)
        length = _within(_CABLE_WIDTHS, room - _HOST_WIDTHS[1])
        width = _within(_HOST_WIDTHS, room - length)
        x = nic.x - length
        wire = Spot("wire", "wire", WIRE, nic.domain, x, nic.y, length, 1, (x + length // 2, nic.y))
        other = self._chip(_OTHER, f"host {1 + SECOND - self.host}", "guest-user", x - width, nic.y, width)
        self.ways.append(Way(wire.name, other.name, (wire.at, other.at)))
        return wire

    def _other_machine(self) -> None:
        """Place the machine that is not drawn whole: a chip for its TAP, and below that one for all the rest of it."""
        if self.several_hosts:
            return
        nic, switch, lane = self.spots["nic"], self.spots["switch"], self.rows.lanes[0]
        for machine in self.others:
            x, width = nic.x - 15, 13
            tap = self._chip(_OTHER_TAP, self.taps[machine], switch.domain, x, lane, width)
            other = self._chip(_OTHER, machine, "guest-user", x, lane + 1, width)
            self.ways.append(Way("switch", tap.name, _bent(switch.at, tap.at)))
            self.ways.append(Way(tap.name, other.name, (tap.at, other.at)))

    # Borders

    def _regions(self) -> None:
        """Write the names of the domains into the borders above them."""
        wall, under = self.wall, self.rows.border
        kernel = self.spots["vhost-net"].middle - 2 if self.device == "vhost-net" else self.spots["kvm"].x + 1
        title = "host kernel"
        if self.kvm_returns:
            # KVM's gate is in use all the time: its words need a place of their own.
            kernel = self._kvm_gate() + 8
            title = title if self.spots["fds"].middle - kernel > len(title) else "kernel"
        if self.has_calls:
            calls = self._kvm_gate() + 9
            at = self.spots["vhost-net"].at
            self.spots["callfd"] = Spot("callfd", "callfd", LABEL, "host-kernel", calls, under, 6, 1, at)
            kernel = calls + 8
            end = self.spots["netlink"].x if "netlink" in self.spots else self.width
            title = title if end - kernel > len(title) + 1 else "kernel"
            if end - kernel <= len(title):
                # Between the two there is no room: the name stands behind both.
                kernel = self.width - len(title) - 2
        names: tuple[tuple[str, str, Point], ...] = (
            ("guest-user", f"GUEST {self.machine} · user", (2, 0)),
            ("guest-kernel", "kernel", (2, under))
            if self.guest_edge
            else ("guest-kernel", "guest kernel", (wall - 12, under)),
            ("host-user", f"HOST {self.host} · user" if self.several_hosts else "HOST · user", (wall + 12, 0)),
            ("host-kernel", title, (kernel, under)),
        )
        for name, title, (x, y) in names:
            self.spots[name] = Spot(name, title, LABEL, name, x, y, len(title), 1, (x, y))

    def _control_ways(self) -> None:
        """Join what threads pass between, but packets do not."""
        row, spots = self.rows.floor + 1, self.spots
        for left, right in (("virtio-net", "kvm"), ("kvm", "callfd" if "callfd" in spots else self.device)):
            a, b = spots[left], spots[right]
            self.ways.append(Way(left, right, ((a.x + a.width, row), (b.x - 1, row)), carries=False))
        qemu = spots["qemu"]
        for name in ("kvm", "fds"):
            if name in spots:
                x = spots[name].middle
                points = ((x, qemu.y + qemu.height), (x, self.rows.floor - 1))
                self.ways.append(Way("qemu", name, points, carries=False))

    def _borders(self) -> tuple[Border, ...]:
        wall, width, under, lane = self.wall, self.width, self.rows.border, self.rows.lanes[0]
        lines = [
            Border("top", "guest", 0, 0, wall),
            Border("top", "host", wall + 1, 0, width - wall - 1),
            Border("user-kernel", "guest", 0, under, self.guest_edge or wall),
            Border("user-kernel", "host", wall + 1, under, (self.edge or width) - wall - 1),
            Border("guest-host", "", wall, 0, lane, upright=True),
        ]
        for side, edge in (("guest", self.guest_edge), ("host", self.edge)):
            if edge:
                lines.append(Border("user-kernel", side, edge, under, lane - under, upright=True))
        if self.has_card:
            nic = self.spots["nic"]
            before = 12 if self.several_hosts else 2 if self.others else 6
            lines.append(Border("hardware", "host", nic.x - before, lane, width - nic.x + before))
        return tuple(lines)

    def _kvm_gate(self) -> int:
        """Give the column in which KVM_RUN returns to QEMU."""
        return self.spots["kvm"].x if self.kvm_returns else self.spots["kvm"].middle

    def _gates(self) -> dict[str, Gate]:
        wall, under = self.wall, self.rows.border
        guest, kvm = self.spots["stack"].middle, self._kvm_gate()
        switch, device = self.spots["switch"].middle, self.spots[self.device].middle
        mine = {"qemu": Gate((device, under), (device + 1, under), 8)} if self.device == "fds" else {}
        row = self.rows.floor + 1
        # Where a name stands behind the switch's gate, its words end before that.
        end = self.width - 1
        if self.has_calls and self.spots["host-kernel"].x > switch:
            end = self.spots["host-kernel"].x - 2
        aside = {"switch": Gate((self.edge, row), (self.edge + 7, under), 12, upright=True)} if self.edge else {}
        return (
            mine
            | {
                "guest": Gate((guest, under), (guest + 1, under), wall - guest - 14),
                "guest-host": Gate((wall, self.rows.floor + 1), (wall, 0), 12, upright=True),
                "kvm": Gate((kvm, under), (kvm + 1, under), 7 if self.kvm_returns or self.has_calls else 8),
                "switch": Gate((switch, under), (switch + 1, under), end - switch - 1),
            }
            | aside
        )

    def _homes(self) -> dict[str, str]:
        """Say which threads are the other machine's, and so are at home where all of it is."""
        hardware = {thread.name for thread in self.header.threads if thread.kind == ThreadKind.HARDWARE}
        found = thread_machines(self.header)
        return {name: _OTHER for name in found if found[name] in self.others and name not in hardware}

    def _places(self) -> dict[str, str]:
        """Say at which spot each place, and each queue that is not a virtqueue, is drawn."""
        places: dict[str, str] = {}
        for place in self.header.places:
            short = place.name.rpartition(".")[2]
            known = _TITLES.get(place.title) or _KNOWN.get(short)
            places[place.name] = known if known in self.spots else str(place.domain)
            if host_of(place.name) != self.host and not place.domain.startswith("guest"):
                places |= dict.fromkeys(_with_queues(place.name), _OTHER)
        places |= {"wire": "wire", "backlog": "far", f"{self.tunnel}.queue": "tunnel"}
        for machine, tap in self.taps.items():
            is_other = machine in self.others
            if self.several_hosts and is_other:
                names = (tap, f"{without_host(tap)}.queue", f"{machine}.socket", f"{machine}.qdisc")
                places |= dict.fromkeys(names, _OTHER)
                continue
            drawn = "vhost-user" if self.polls else "tap"
            places[tap] = places[f"{without_host(tap)}.queue"] = _OTHER_TAP if is_other else drawn
            places |= {f"{machine}.{queue}": "stack" for queue in ("socket", "qdisc")}
            places |= self._further_pairs(machine, tap)
        for name in (*places, *(queue.name for queue in self.header.queues)):
            if machine_of(name, self.machines) in self.others:
                places[name] = _OTHER
        places[f"{self.far}.qdisc"] = "far"
        # A socket for each handler, or for each port.
        return places | {f"{self.scope}ovs.upcalls{number}": "switch" for number in range(1, SOCKETS_MAX + 1)}

    def _further_pairs(self, machine: str, tap: str) -> dict[str, str]:
        """Say where the queues of a machine's further pairs are drawn: where those of the first one are."""
        mine = [queue for queue in self.header.queues if machine_of(queue.name, self.machines) == machine]
        first = {way: next(queue.name for queue in mine if queue.direction == way) for way in ("out", "in")}
        where = _OTHER_TAP if machine in self.others else "tap"
        taps = {f"{tap}.q{pair}.queue": where for pair in range(2, len(mine) // 2 + 1)}
        return {queue.name: first[queue.direction] for queue in mine if queue.name not in first.values()} | taps


class _ProgramPlanner(_Planner):
    """The plan of a host without a virtual machine: there is one room only, and no memory that is shared."""

    def plan(self) -> Stage:
        titles = {place.title: place.name for place in self.header.places}
        device = titles.get("TUN") or titles["TAP"]
        floor, width, user_row = self.rows.floor, self.width, _USER_ROW
        third = (width - 4) // 3
        box = min(third - 6, 22)
        middle = ("tunnel", "host IP") if "TUN" in titles else ("switch", self.switch)
        row = (("tap", device), middle, ("far", self.far))
        for number, (name, title) in enumerate(row):
            made = self._box(name, title, "host-kernel", 2 + number * third, floor, box)
            if number:
                before = self.spots[row[number - 1][0]]
                self.ways.append(Way(before.name, name, (before.at, made.at)))
        tap, centre = self.spots["tap"], self.spots[middle[0]]
        if self.rows is _SMALL:
            program = self._chip("program", "program", "host-user", tap.x, user_row, 24)
        else:
            program = self._box("program", "program", "host-user", tap.x, user_row, box)
        self.ways.append(Way("program", "tap", _bent(program.at, tap.at)))
        gates = {"switch": Gate((tap.middle, self.rows.border), (tap.middle + 1, self.rows.border), 12)}
        if self.has_vswitchd:
            if self.rows is _SMALL:
                above = self._chip("vswitchd", "ovs-vswitchd", "host-user", centre.x, user_row, 32)
            else:
                above = self._box("vswitchd", "ovs-vswitchd", "host-user", centre.x, user_row, max(box, 16))
            self.ways.append(Way("switch", "vswitchd", _bent(centre.at, above.at)))
            x, under = centre.middle - 8, self.rows.border
            self.spots["netlink"] = Spot("netlink", "netlink", LABEL, "host-kernel", x, under, 7, 1, centre.at)
        self._hardware()
        for name, title, y in (("host-user", "HOST · user", 0), ("host-kernel", "host kernel", self.rows.border)):
            x = width - len(title) - 2
            self.spots[name] = Spot(name, title, LABEL, name, x, y, len(title), 1, (x, y))
        nic, lane = self.spots["nic"], self.rows.lanes[0]
        borders = (
            Border("top", "host", 0, 0, width),
            Border("user-kernel", "host", 0, self.rows.border, width),
            Border("hardware", "host", nic.x - 6, lane, width - nic.x + 6),
        )
        places = {
            place.name: _TITLES.get(place.title) or _KNOWN.get(place.name) or str(place.domain)
            for place in self.header.places
        }
        places |= {"wire": "wire", f"{device}.queue": "tap", f"{self.far}.qdisc": "far"}
        places |= {f"ovs.upcalls{number}": middle[0] for number in range(1, SOCKETS_MAX + 1)}
        return Stage(
            width=width,
            height=self.rows.total,
            spots=self.spots,
            ways=tuple(self.ways),
            borders=borders,
            gates=gates,
            notes={(2, lane): "no guest, no ring:", (2, lane + 1): "write() and read()"},
            places=places,
            homes={},
        )


def _within(bounds: tuple[int, int], wanted: int) -> int:
    """Give what is wanted, or the bound that it lies beyond."""
    least, most = bounds
    return max(least, min(wanted, most))


def _with_queues(place: str) -> list[str]:
    """Give a place's name, and those of the queues that it can have."""
    upcalls = [f"upcalls{number}" for number in range(1, SOCKETS_MAX + 1)]
    return [place, *(f"{place}.{queue}" for queue in ("tx", "rx", "qdisc", "queue", *upcalls))]


def _bent(start: Point, end: Point) -> tuple[Point, ...]:
    """Join two points by a line that goes up or down in the column of the lower one."""
    column = end[0] if end[1] > start[1] else start[0]
    return (start, (column, start[1]), (column, end[1]), end)
