"""What can be read from every frame of a run over virtio-mmio: the same as over PCI, and the line's way."""

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
from virtviz.ui.board import Board

LESSON = """
format_version: 1
id: 9-mmio
title: Without a bus
level: beginner
minutes: 5
objectives: [Say what an interrupt costs without MSI-X.]
world: {transport: mmio, %s}
scenario:
  - send: {id: ask, from: vm1, kind: icmp-echo}
  - reply: {id: got, to: ask}
sources: [qemu 10.0 hw/virtio/virtio-mmio.c]
"""
WORLDS = {
    "vhost-net": "flows: known",
    "tunnel": "flows: known, tunnel: vxlan",
    "two machines": "flows: known, vms: 2",
    "virtio-qemu": "flows: known, path: virtio-qemu",
    "no ioeventfd": "flows: known, path: virtio-qemu, ioeventfd: 'off'",
}


@pytest.fixture(scope="module", params=WORLDS)
def session(request):
    return after_questions(Session.open(load_text(LESSON % WORLDS[request.param])))


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)], ids=str)
def test_vhosts_call_is_seen_to_go_to_qemu(size):
    session = after_questions(Session.open(load_text(LESSON % "flows: known")))
    board = Board(session)
    board.lay_out(*size)
    for op, place in (("wake_main_loop", "callfd"), ("read_call", "QEMU"), ("set_pin", "KVM")):
        session.go_to(position_of(session, op))
        board.draw()
        lines = [board.grid.text(y) for y in range(size[1])]
        assert any(f"▶{place}" in line for line in lines), op


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)], ids=str)
def test_the_registers_that_tell_of_an_interrupt_are_seen_to_change(size):
    session = after_questions(Session.open(load_text(LESSON % "flows: known")))
    board = Board(session)
    board.lay_out(*size)
    for op, shown in (
        ("kick", "QueueNotify 1*  InterruptStatus 0"),
        ("find", "QueueNotify 1  InterruptStatus 0"),
        ("write_used", "InterruptStatus 0  line low"),
        ("set_status", "InterruptStatus 1*  line low"),
        ("set_pin", "InterruptStatus 1  line high*"),
        ("store_ack", "InterruptStatus 1  line high"),
        ("clear", "InterruptStatus 0*  line high"),
    ):
        session.go_to(position_of(session, op))
        board.draw()
        assert any(shown in board.grid.text(y) for y in range(size[1])), op


def test_on_pci_no_registers_are_shown():
    session = after_questions(Session.open(load_text(LESSON.replace("transport: mmio, ", "") % "flows: known")))
    board = Board(session)
    board.lay_out(80, 24)
    session.go_to(position_of(session, "kick"))
    board.draw()
    assert not board.frame.registers
