"""What can be read from every frame of a run with two queue pairs: the same as with one, and which pair it is."""

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
from virtviz.ui.board import Board
from virtviz.view.stage import short_thread

LESSON = """
format_version: 1
id: 9-pairs
title: Two queue pairs
level: advanced
minutes: 5
objectives: [Say which worker serves which queue.]
world: {flows: known, queues: 2, vcpu: %s}
scenario:
  - send: {id: ask, vcpu: 1}
  - send: {id: also}
  - reply: {to: ask}
  - reply: {to: also}
sources: [linux 6.12 drivers/vhost/net.c]
"""


@pytest.fixture(scope="module", params=["running", "halted"])
def session(request):
    return after_questions(Session.open(load_text(LESSON % request.param)))


@pytest.mark.parametrize("size", [(80, 24), (132, 43)])
def test_the_lane_and_the_ring_have_the_name_of_the_queue_that_is_worked_on(session, size):
    board = Board(session)
    board.lay_out(*size)
    seen = set()
    for position in range(1, session.length + 1):
        session.go_to(position)
        board.draw()
        queue = board.frame.step.queue.rpartition(".")[2]
        if queue:
            seen.add(queue)
            lines = [board.grid.text(y) for y in range(size[1])]
            assert sum(queue in line for line in lines) >= 2, (position, queue)
    assert {"transmitq1", "transmitq2"} < seen


def test_a_packet_of_either_pair_lies_in_the_one_lane_of_its_direction(session):
    board = Board(session)
    board.lay_out(80, 24)
    for nth, queue in ((1, "vm1.transmitq1"), (2, "vm1.transmitq2")):
        position = position_of(session, "publish_avail_idx", nth=nth)
        session.go_to(position)
        board.draw()
        assert session.step(position).queue == queue
        assert board.stage.packet_spot(queue).name == "vm1.transmitq1"


def test_workers_keep_the_numbers_of_their_pairs_where_there_is_little_room():
    assert short_thread("vhost-4002.q2", 10) == "vhost.q2"
    assert short_thread("vhost-4002.q2", 13) == "vhost-4002.q2"
    assert short_thread("vhost-4002", 9) == "vhost"
    assert short_thread("vm1.vcpu1", 6) == "vcpu1"
