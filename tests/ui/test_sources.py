"""The panel that shows all a step read and wrote."""

from opened import opened, position_of

from virtviz.ui.draw.lists import draw_sources
from virtviz.view import make_frame


def test_a_used_element_is_shown_by_its_parts():
    session = opened()
    frame = make_frame(session, position_of(session, "write_used", packet=2))
    grid = draw_sources(frame, 80, 20)
    text = "\n".join(grid.text(y) for y in range(20))
    assert "receiveq1 used.ring[0] = id 0, len 110" in text
