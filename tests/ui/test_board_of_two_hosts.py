"""Two hosts on the screen: whoever runs is named, and where the other host's packets are can be read."""

from __future__ import annotations

import pytest
from opened import after_questions, opened

from virtviz.ui.board import Board

SIZES = [(120, 40), (200, 60)]


@pytest.fixture(scope="module")
def session():
    return after_questions(opened(hosts=2, flows="unknown"))


def lines(session, position, size):
    session.go_to(position)
    board = Board(session)
    board.lay_out(*size)
    board.draw()
    return [board.grid.text(y) for y in range(size[1])]


@pytest.mark.parametrize("size", SIZES)
def test_whoever_runs_has_a_lane(session, size):
    for position in range(1, session.length, 13):
        name = session.step(position).thread.removesuffix("/cpu1")
        assert any(line.startswith(f" ▶{name}") for line in lines(session, position, size)), (position, name)


@pytest.mark.parametrize("size", [(80, 24), *SIZES])
def test_a_packet_on_the_other_host_leaves_its_name_to_be_read(session, size):
    arrived = next(n for n in range(1, session.length) if session.step(n).milestone == "from-wire")
    back = next(n for n in range(arrived, session.length) if session.step(n).thread.startswith("vm1."))
    assert any("[ host 2  □echo]" in line for line in lines(session, back, size))
