"""What can be read from every frame of a run with an emulated card: the same as with virtio, and the card's ring."""

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
)

from virtviz.lesson.loader import load_text
from virtviz.session.session import Session
from virtviz.ui.app import make_player
from virtviz.ui.draw.ring import draw_ring
from virtviz.view.build import make_frame

LESSON = """
format_version: 1
id: 9-card
title: A card that QEMU emulates
level: beginner
minutes: 5
objectives: [Say how often one packet goes to QEMU and back.]
world: {flows: known, path: e1000, vms: %d}
scenario:
  - send: {id: ask, from: vm1, %s}
  - reply: {to: ask}
sources: [qemu 10.0 hw/net/e1000.c]
"""


def one_card(vms=1):
    return Session.open(load_text(LESSON % (vms, "to: vm2, kind: udp, bytes: 18" if vms == 2 else "kind: icmp-echo")))


@pytest.fixture(scope="module", params=[1, 2])
def session(request):
    return after_questions(one_card(request.param))


def test_what_the_step_wrote_in_the_descriptor_ring_has_a_sign(screens):  # noqa: F811 - the fixture above
    for shown, lines in screens:
        ring = shown.frame.ring
        registers = (ring.head, ring.tail, ring.next_to_use, ring.next_to_clean)
        if any(c.written for c in registers) or any(c.written for slot in ring.slots for c in slot.cells):
            assert any("*" in line for line in lines[8:-2]), shown.frame.step


MOMENTS = {
    "descriptor-filled": lambda s: position_of(s, "fill_desc", packet=1),
    "tail-stored": lambda s: position_of(s, "set_tail", packet=1),
    "copied-into-qemu": lambda s: position_of(s, "copy_packet", packet=1, place="qemu.device"),
    "reported-done": lambda s: position_of(s, "write_back", packet=1),
    "line-raised": lambda s: position_of(s, "set_pin"),
    "received": lambda s: position_of(s, "set_done", packet=2),
    "tail-noted": lambda s: position_of(s, "park"),
}


def ring_at(moment, queue=None, width=90, rows=12):
    session = one_card()
    session.go_to(MOMENTS[moment](session))
    grid = draw_ring(make_frame(session, session.position, queue), width, rows)
    return [grid.text(y).rstrip() for y in range(rows)]


def test_a_filled_descriptor_is_the_drivers_until_the_tail_has_passed_it():
    before, after = ring_at("descriptor-filled"), ring_at("tail-stored")
    assert "drv*" in before[5]
    assert "dev" in after[5]
    assert after[6].startswith("TDH 0 TDT 1*")


def test_a_descriptor_that_is_done_says_so():
    lines = ring_at("reported-done")
    assert "DD*" in lines[4]
    assert "↑head" in lines[6]


def test_a_received_frame_is_shown_with_its_length_and_the_checksum_that_never_was():
    lines = ring_at("received")
    assert lines[0].startswith("rx_ring ←")
    assert str(98 + 4) in lines[2]
    assert "DD*" in lines[4]


def test_the_small_drawing_spells_out_the_descriptor():
    lines = ring_at("reported-done", width=53, rows=7)
    assert lines[2].startswith(" desc 0  addr ")
    assert "status DD*" in lines[2]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
def test_pictures_of_an_emulated_card(snap_compare, moment, size):
    session = one_card()
    session.go_to(MOMENTS[moment](session))
    assert snap_compare(make_player(session, motion="none"), terminal_size=size)
