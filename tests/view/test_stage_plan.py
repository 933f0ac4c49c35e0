from itertools import combinations, pairwise

import pytest
from live_source import PING, Live

from virtviz.paths.describe import describe
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, Poke, make_traffic
from virtviz.paths.wiring import simulate
from virtviz.view import make_frame
from virtviz.view.machines import machines_of
from virtviz.view.stage import BOX, CHIP, short_thread
from virtviz.view.stage_plan import GRAND_HEIGHT, SMALL_HEIGHT, TALL_HEIGHT, make_stage

HEIGHTS = (SMALL_HEIGHT, TALL_HEIGHT, GRAND_HEIGHT)
WIDTHS = (80, 81, 97, 120, 163, 200, 240)
QEMU = {"path": "virtio-qemu"}
HEAVY = QEMU | {"ioeventfd": "off", "flows": "unknown"}
BEGIN = {"begin": "power-on", "queue__size": 32}
POLLED = {"path": "vhost-user", "flows": "unknown"}
TUNNEL = {"tunnel": "vxlan", "flows": "unknown"}
TWO_HOSTS = {"hosts": 2}
PING_ACROSS = [Item(to_vm=1), Item(vm=1, to_vm=0, answers=0)]
WORLDS = {
    "nic": {},
    "upcall": {"flows": "unknown"},
    "veth": {"profile": "recorded"},
    "dummy": {"far_port": "dummy"},
    "bridge": {"switch": "bridge"},
    "qemu": QEMU,
    "no ioeventfd": HEAVY,
    "power-on": BEGIN,
    "power-on by hand": BEGIN | {"launcher": "hand"},
    "power-on, QEMU": BEGIN | QEMU,
    "power-on, vhost fails": BEGIN | {"vhost_start": "fails"},
    "tunnel": TUNNEL,
    "tunnel under QEMU": TUNNEL | QEMU,
    "two hosts": TWO_HOSTS,
    "two hosts, tunnel": TWO_HOSTS | TUNNEL,
    "two hosts, tunnel under QEMU": TWO_HOSTS | TUNNEL | QEMU,
    "two hosts, vhost-user": TWO_HOSTS | POLLED,
    "two hosts, e1000": TWO_HOSTS | {"path": "e1000", "flows": "unknown"},
    "tunnel over veth": TUNNEL | {"far_port": "veth"},
    "vhost-user": POLLED,
    "power-on, vhost-user": BEGIN | {"path": "vhost-user"},
    "power-on, vhost-user fails": BEGIN | {"path": "vhost-user", "vhost_start": "fails"},
    "dpdk": POLLED | {"guest": "dpdk"},
    "dpdk kicks": {"guest": "dpdk"},
    "e1000": {"path": "e1000", "flows": "unknown"},
    "e1000 and tunnel": {"path": "e1000"} | TUNNEL,
    "virtio-mmio": {"transport": "mmio", "flows": "unknown"},
    "virtio-mmio and tunnel": {"transport": "mmio"} | TUNNEL,
    "virtio-mmio at a bridge": {"transport": "mmio", "switch": "bridge"},
    "virtio-mmio under QEMU": {"transport": "mmio"} | HEAVY,
    "power-on, virtio-mmio": BEGIN | {"transport": "mmio"},
    "power-on, virtio-mmio, QEMU": BEGIN | QEMU | {"transport": "mmio"},
    "TUN": {"path": "program", "device": "tun"},
    "TAP of a program": {"path": "program", "flows": "unknown"},
    "TAP at a bridge": {"path": "program", "switch": "bridge"},
}


FROM_THE_OTHER = ", from the other"
DRAWN = [*WORLDS, *(name + FROM_THE_OTHER for name, settings in WORLDS.items() if settings.get("hosts"))]


@pytest.fixture(scope="module", params=DRAWN)
def live(request):
    settings = WORLDS[request.param.removesuffix(FROM_THE_OTHER)]
    items = PING_ACROSS if settings.get("hosts") else PING[:1] if settings.get("far_port") == "dummy" else PING
    made = Live(items, **settings)
    made.drawn = machines_of(made.header)[request.param.endswith(FROM_THE_OTHER)]
    return made


@pytest.fixture(scope="module")
def machine(live):
    """The machine that is drawn: the first one, or that of the other host."""
    return live.drawn


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("height", HEIGHTS)
def test_boxes_lie_inside_the_stage_and_apart(live, machine, width, height):
    stage = make_stage(live.header, width, height, machine)
    shapes = [spot for spot in stage.spots.values() if spot.shape in (BOX, CHIP)]
    for spot in shapes:
        assert spot.x >= 0
        assert spot.x + spot.width <= stage.width
        assert spot.y + spot.height <= stage.height
    for a, b in combinations(shapes, 2):
        apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
        assert apart, (a.name, b.name)


def test_every_place_and_queue_of_a_run_has_its_spot(live, machine):
    stage = make_stage(live.header, 80, SMALL_HEIGHT, machine)
    for position in range(live.length + 1):
        frame = make_frame(live, position)
        for thread in frame.threads:
            assert stage.spot(thread.place), thread
        for packet in frame.packets:
            assert not packet.where or stage.packet_spot(packet.where), packet


@pytest.mark.parametrize("height", HEIGHTS)
def test_a_packet_can_go_everywhere_it_goes_cell_by_cell(live, machine, height):
    stage = make_stage(live.header, 120, height, machine)
    for position in range(live.length + 1):
        for packet in make_frame(live, position).packets:
            if packet.came_from in ("", "nowhere"):
                continue
            source, target = stage.packet_spot(packet.came_from), stage.packet_spot(packet.where)
            if source == target:
                continue
            route = stage.route(source.name, target.name)
            assert route, (packet.came_from, packet.where)
            assert (route[0], route[-1]) == (source.at, target.at)
            assert all(abs(x2 - x1) + abs(y2 - y1) == 1 for (x1, y1), (x2, y2) in pairwise(route))


def test_every_crossing_of_a_run_has_a_gate_in_a_border(live, machine):
    stage = make_stage(live.header, 80, SMALL_HEIGHT, machine)
    for n in range(1, live.length + 1):
        step = live.trace.step(n)
        for crossing in step.crossings:
            gate = stage.gate(crossing.source, crossing.target, step.place)
            assert gate is not None
            x, y = gate.at
            assert any(
                b.x == x and b.y <= y < b.y + b.length if b.upright else b.y == y and b.x <= x < b.x + b.length
                for b in stage.borders
            )


def test_packets_never_go_through_kvm_or_qemu():
    stage = make_stage(Live().header, 80, SMALL_HEIGHT)
    assert stage.route("virtio-net", "kvm") == ()
    assert stage.route("kvm", "qemu") == ()


def test_without_a_network_card_there_is_no_hardware_border():
    kinds = {border.kind for border in make_stage(Live(profile="recorded").header, 80, SMALL_HEIGHT).borders}
    assert "hardware" not in kinds
    assert "hardware" in {border.kind for border in make_stage(Live().header, 80, SMALL_HEIGHT).borders}


def test_thread_names_are_shortened_from_the_outside_in():
    assert short_thread("vm1.vcpu0", 11) == "vm1.vcpu0"
    assert short_thread("vm1.vcpu0", 6) == "vcpu0"
    assert short_thread("vhost-4002", 7) == "vhost"
    assert short_thread("softirq/cpu1", 7) == "softirq"
    assert short_thread("handler1", 7) == "hndlr1"


@pytest.mark.parametrize(("width", "height"), [(80, 8), (120, 12), (200, 16)])
def test_who_changes_a_ring_from_outside_has_a_spot_of_its_own(width, height):
    simulation = simulate(make_world(), make_traffic([Item(), Poke("transmitq1", "avail.idx", 3)]))
    stage = make_stage(describe(simulation), width, height)
    spot = stage.spots[stage.places["outside"]]
    assert spot.title == "outside"
    others = [other for other in stage.spots.values() if other is not spot]
    beside = [other for other in others if other.y <= spot.y < other.y + other.height]
    assert not [other for other in beside if other.x < spot.x + spot.width and spot.x < other.x + other.width]
