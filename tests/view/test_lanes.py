import pytest
from live_source import Live

from virtviz.view.lanes import make_lanes


@pytest.fixture(scope="module")
def ping():
    return Live()


def test_lanes_show_the_past_and_nothing_of_what_comes(ping):
    lanes = make_lanes(ping, 30, 64)
    assert lanes.first == 1
    assert {len(lane.ran) for lane in lanes.lanes} == {30}


def test_every_step_is_in_one_lane_with_its_domain(ping):
    lanes = make_lanes(ping, ping.length, 1000)
    for n in range(1, ping.length + 1):
        step = ping.trace.step(n)
        ran = {lane.thread: lane.ran[n - 1] for lane in lanes.lanes if lane.ran[n - 1] is not None}
        assert ran == {step.thread: step.domain}


def test_crossings_are_marked_in_their_columns(ping):
    lanes = make_lanes(ping, ping.position_of("kick"), 64)
    assert ping.position_of("kick") - 1 in lanes.crossings
    assert ping.position_of("publish_avail_idx") - 1 not in lanes.crossings


def test_the_window_goes_on_by_half_of_its_width(ping):
    assert make_lanes(ping, 0, 64).first == 1
    assert make_lanes(ping, 64, 64).first == 1
    assert make_lanes(ping, 65, 64).first == 33
    assert make_lanes(ping, 96, 64).first == 33
    assert make_lanes(ping, 97, 64).first == 65


@pytest.mark.parametrize("columns", [1, 2, 36, 37])
def test_half_of_the_window_is_history_once_there_is_as_much(ping, columns):
    for position in range(1, ping.length + 1):
        lanes = make_lanes(ping, position, columns)
        seen = position - lanes.first + 1
        assert min(position, columns // 2 + 1) <= seen <= columns
