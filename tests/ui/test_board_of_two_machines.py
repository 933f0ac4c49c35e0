"""What can be read from every frame of a run with two virtual machines: the same as with one."""

import pytest
from opened import after_questions, position_of
from test_board import (  # noqa: F401 - they are run here again, on the sessions of this module
    screens,
    test_a_border_that_is_not_crossed_is_not_lit,
    test_every_cell_that_can_be_clicked_stands_for_an_action,
    test_every_counter_that_grew_says_by_how_much,
    test_every_crossing_is_seen_to_cross_its_border,
    test_every_frame_names_thread_and_title_and_cost,
    test_every_frame_says_which_step_it_is,
    test_every_frame_shows_the_running_thread_at_its_place,
    test_every_packet_under_way_is_on_the_stage,
    test_every_region_is_named,
    test_everything_drawn_has_a_likeness_in_ascii,
    test_places_never_move,
    test_the_text_of_every_step_is_there_whole_unless_the_lesson_speaks,
    test_what_the_step_wrote_in_the_ring_has_a_sign,
)

from virtviz.lesson.loader import load_text
from virtviz.session.session import Session
from virtviz.ui.app import make_player
from virtviz.ui.board import Board

LESSON = """
format_version: 1
id: 9-two
title: From one virtual machine to the other
level: beginner
minutes: 5
objectives: [Say who delivers a packet to the other virtual machine.]
world: {flows: known, vms: 2, switch: %s}
scenario:
  - send: {id: ask, from: vm1, to: vm2, kind: udp, bytes: 18}
  - reply: {to: ask}
  - send: {id: out, from: vm2}
sources: [linux 6.12 drivers/vhost/net.c]
"""


def two_machines(switch="ovs"):
    return Session.open(load_text(LESSON % switch))


POLLED = "ovs-dpdk, path: vhost-user"


@pytest.fixture(scope="module", params=["ovs", "bridge", POLLED, f"{POLLED}, guest: dpdk"])
def session(request):
    return after_questions(two_machines(request.param))


@pytest.mark.parametrize("size", [(80, 24), (132, 43)])
def test_the_machine_whose_turn_it_is_has_its_name_above_it(session, size):
    board = Board(session)
    board.lay_out(*size)
    for position in range(session.length + 1):
        session.go_to(position)
        board.draw()
        lines = [board.grid.text(y) for y in range(size[1])]
        assert f"GUEST {board.frame.machine} " in lines[1]
        other = {"vm1": "vm2", "vm2": "vm1"}[board.frame.machine]
        assert any(f"[ {other}" in line for line in lines)
        step = board.frame.step
        if step is not None and step.place.startswith("vm"):
            assert step.place.startswith(board.frame.machine)


MOMENTS = {
    "across-the-switch": lambda s: position_of(s, "produce", packet=1),
    "the-other-worker": lambda s: position_of(s, "copy_packet", packet=1, nth=2),
    "received-by-vm2": lambda s: position_of(s, "copy_to_user", packet=1),
    "the-answer": lambda s: position_of(s, "produce", packet=2),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
def test_pictures_of_two_machines(snap_compare, moment, size):
    session = two_machines()
    session.go_to(MOMENTS[moment](session))
    assert snap_compare(make_player(session, motion="none"), terminal_size=size)


def test_a_picture_of_a_bridge(snap_compare):
    session = two_machines("bridge")
    session.go_to(position_of(session, "look_up", packet=1))
    assert snap_compare(make_player(session, motion="none"), terminal_size=(80, 24))
