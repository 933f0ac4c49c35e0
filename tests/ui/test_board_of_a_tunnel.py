"""What can be read from every frame of a run through a tunnel: the same as without, with one box more on the stage."""

import pytest
from opened import after_questions, position_of
from test_board import (  # noqa: F401 - they are run here again, on the sessions of this module
    screens,
    test_a_border_that_is_not_crossed_is_not_lit,
    test_every_crossing_is_seen_to_cross_its_border,
    test_every_frame_names_thread_and_title_and_cost,
    test_every_frame_shows_the_running_thread_at_its_place,
    test_every_region_is_named,
    test_everything_drawn_has_a_likeness_in_ascii,
    test_places_never_move,
    test_the_text_of_every_step_is_there_whole_unless_the_lesson_speaks,
)

from virtviz.lesson.loader import load_text
from virtviz.session.session import Session
from virtviz.ui.app import make_player

LESSON = """
format_version: 1
id: 9-tunnel
title: To another host, in a tunnel
level: beginner
minutes: 5
objectives: [Say what goes in front of a frame.]
world: {flows: %s, tunnel: %s}
scenario:
  - send: {id: echo, from: vm1, kind: icmp-echo, bytes: 56}
  - reply: {to: echo}
sources: [linux 6.12 drivers/net/vxlan/vxlan_core.c]
"""


def tunnelled(flows="known", tunnel="vxlan"):
    return Session.open(load_text(LESSON % (flows, tunnel)))


@pytest.fixture(scope="module", params=[("known", "vxlan"), ("known", "geneve")], ids=["vxlan", "geneve"])
def session(request):
    return after_questions(tunnelled(*request.param))


def test_every_packet_under_way_is_on_the_stage(screens):  # noqa: F811 - it is its fixture that is imported
    for shown, lines in screens:
        under_way = [p for p in shown.frame.packets if p.where and not p.done]
        for packet in under_way:
            spot = shown.stage.packet_spot(packet.where)
            row = lines[1 + spot.at[1]]
            # On the smallest screen the boxes are narrower for the one more, and names are cut after three letters.
            letters = 3 if shown.stage.width < 89 else 5
            sign = "□" if packet.waiting else "■"
            assert f"{sign}{packet.name[:letters]}" in row[max(spot.x - 4, 0) : spot.x + spot.width + 8], packet


MOMENTS = {
    "outer-headers": lambda s: position_of(s, "leave_host", packet=1),
    "second-poll": lambda s: position_of(s, "queue_frame", packet=2),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
def test_pictures_of_a_tunnel(snap_compare, moment, size):
    session = tunnelled()
    session.go_to(MOMENTS[moment](session))
    assert snap_compare(make_player(session, motion="none"), terminal_size=size)
