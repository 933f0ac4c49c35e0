"""The frame says which of two virtual machines to draw, and the stage has one plan for each."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from live_source import Live

from virtviz.paths.traffic import Item
from virtviz.view import make_frame
from virtviz.view.machines import machine_of, machines_of, thread_machines
from virtviz.view.stage import BOX, CHIP
from virtviz.view.stage_plan import GRAND_HEIGHT, SMALL_HEIGHT, TALL_HEIGHT, make_stage

ACROSS = (
    Item("ask", to_vm=1),
    Item("answer", vm=1, to_vm=0, answers=0),
    Item("out", vm=1),
    Item("in", vm=1, outgoing=False),
)
WORLDS = ({}, {"flows": "unknown"}, {"profile": "recorded"}, {"switch": "bridge"}, {"vcpu": "halted"})


@pytest.fixture(scope="module", params=WORLDS, ids=["nic", "upcall", "veth", "bridge", "halted"])
def live(request):
    return Live(ACROSS, vms=2, **request.param)


def stages(live, width=80, height=SMALL_HEIGHT):
    return {name: make_stage(live.header, width, height, name) for name in machines_of(live.header)}


def test_threads_belong_to_their_machines(live):
    found = thread_machines(live.header)
    assert found["vm1.vcpu0"] == found["vhost-4002"] == "vm1"
    assert found["vm2.vcpu0"] == found["vhost-4012"] == "vm2"
    assert not [name for name in found if name.startswith(("handler", "softirq", "eth0", "peer"))]
    assert machine_of("vm2.transmitq1", ("vm1", "vm2")) == "vm2"
    assert machine_of("vhost_net", ("vm1", "vm2")) == ""


def test_the_machine_drawn_is_the_one_that_has_done_something(live):
    found = thread_machines(live.header)
    machine = "vm1"
    for position in range(1, live.length + 1):
        frame = make_frame(live, position)
        machine = found.get(frame.step.thread, machine)
        assert frame.machine == machine


def test_everything_stays_where_it_is_when_the_other_machine_is_drawn(live):
    first, second = stages(live).values()
    boxes = [{s.name: (s.x, s.y, s.width) for s in stage.spots.values() if s.shape == BOX} for stage in (first, second)]
    assert boxes[0] == boxes[1]
    assert (first.spots["tap"].title, second.spots["tap"].title) == ("tap0", "tap1")
    assert (first.spots["other"].title, second.spots["other"].title) == ("vm2", "vm1")
    assert (first.spots["other-tap"].title, second.spots["other-tap"].title) == ("tap1", "tap0")


@pytest.mark.parametrize("width", [80, 81, 97, 120, 163, 200])
@pytest.mark.parametrize("height", [SMALL_HEIGHT, TALL_HEIGHT, GRAND_HEIGHT])
def test_boxes_and_chips_lie_inside_the_stage_and_apart(live, width, height):
    for stage in stages(live, width, height).values():
        shapes = [spot for spot in stage.spots.values() if spot.shape in (BOX, CHIP)]
        for spot in shapes:
            assert spot.x >= 0
            assert spot.x + spot.width <= stage.width
            assert spot.y + spot.height <= stage.height
        for a, b in combinations(shapes, 2):
            apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
            assert apart, (a.name, b.name)


def test_every_place_and_queue_has_its_spot_on_both_plans(live):
    plans = stages(live)
    for position in range(live.length + 1):
        frame = make_frame(live, position)
        for stage in plans.values():
            assert all(stage.spot(thread.place) for thread in frame.threads)
            assert all(stage.packet_spot(packet.where) for packet in frame.packets if packet.where)


def test_the_thread_that_runs_is_never_in_the_chip(live):
    plans = stages(live)
    for position in range(1, live.length + 1):
        frame = make_frame(live, position)
        assert plans[frame.machine].spot(frame.step.place).name != "other"


def test_a_packet_can_go_everywhere_it_goes_cell_by_cell(live):
    plans = stages(live, 120)
    for position in range(live.length + 1):
        frame = make_frame(live, position)
        stage = plans[frame.machine]
        for packet in frame.packets:
            if packet.came_from in ("", "nowhere"):
                continue
            source, target = stage.packet_spot(packet.came_from), stage.packet_spot(packet.where)
            if source != target:
                route = stage.route(source.name, target.name)
                assert (route[0], route[-1]) == (source.at, target.at)
                assert all(abs(x2 - x1) + abs(y2 - y1) == 1 for (x1, y1), (x2, y2) in pairwise(route))


def test_a_packet_across_passes_every_place_of_its_way_once():
    live = Live(ACROSS[:1], vms=2)
    way = []
    for position in range(1, live.length + 1):
        (packet,) = make_frame(live, position).packets
        if packet.moved:
            way.append(packet.where)
    assert way == [
        *("vm1.app", "vm1.stack", "vm1.virtio_net", "vm1.transmitq1", "vhost_net", "tap0", "ovs"),
        *("tap1", "tap1.queue", "vhost_net", "vm2.receiveq1", "vm2.virtio_net", "vm2.stack", "vm2.socket", "vm2.app"),
    ]
    assert make_frame(live, live.length).packets[0].done == "received"


def test_with_one_machine_there_is_no_chip_for_another():
    live = Live()
    assert machines_of(live.header) == ("vm1",)
    stage = make_stage(live.header, 80, SMALL_HEIGHT)
    assert "other" not in stage.spots
    assert stage.homes == {}
