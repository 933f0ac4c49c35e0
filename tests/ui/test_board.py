"""What can be read from every single frame of the lesson, at the smallest screen and at larger ones."""

from typing import NamedTuple

import pytest
from msgspec.structs import replace
from opened import after_questions, opened, position_of, reach

from virtviz.session.grading import Question, Verdict
from virtviz.ui.board import Board
from virtviz.ui.draw.panels import draw_counters, draw_title, draw_who, source_of
from virtviz.ui.draw.question import Asking, draw_question, rows_beyond
from virtviz.ui.draw.ring import draw_ring
from virtviz.ui.draw.stage import HEAVY, LIGHT
from virtviz.ui.grid import to_ascii
from virtviz.view.build import make_frame
from virtviz.view.stage import BOX, CHIP, LABEL, short_thread
from virtviz.view.words import CROSSINGS, domain_name

SIZES = [(80, 24), (120, 40), (200, 60)]


@pytest.fixture(scope="module")
def session():
    return after_questions(opened())


class Shown(NamedTuple):
    frame: object
    stage: object
    said: str
    zones: list


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def screens(request, session):
    """What the board shows at every position, and its text."""
    board = Board(session)
    board.lay_out(*request.param)
    shown = []
    for position in range(session.length + 1):
        session.go_to(position)
        board.draw()
        lines = [board.grid.text(y) for y in range(request.param[1])]
        shown.append((Shown(board.frame, board.stage, session.said, board.zones), lines))
    return shown


def test_every_frame_says_which_step_it_is(screens, session):
    for shown, lines in screens:
        assert f"step {shown.frame.position} of {session.length}" in lines[0]


def test_every_frame_shows_the_running_thread_at_its_place(screens):
    for shown, lines in screens:
        frame, stage = shown.frame, shown.stage
        if frame.step is None:
            continue
        spot = stage.spot(frame.step.place)
        rows = [line[max(spot.x - 1, 0) : spot.x + spot.width] for line in lines[1 + spot.y : 1 + spot.y + spot.height]]
        assert any("▶" in row for row in rows), frame.step
        if spot.shape == BOX:
            assert short_thread(frame.step.thread, spot.width - 2) in rows[0]
            assert HEAVY[0] in rows[0]


def test_every_frame_names_thread_and_title_and_cost(screens):
    for shown, lines in screens:
        frame = shown.frame
        if frame.step is None:
            continue
        who = next(line for line in lines if f"▶ {frame.step.thread} " in line and "cost" in line)
        assert frame.step.title in who or frame.step.title[:12] in who.partition("…")[0]
        assert f" in {domain_name(frame.step.domain)}" in who
        assert ("nothing" in who) == (not frame.cost)


def test_every_packet_under_way_is_on_the_stage(screens):
    for shown, lines in screens:
        frame, stage = shown.frame, shown.stage
        under_way = [p for p in frame.packets if p.where and not p.done]
        for packet in under_way:
            spot = stage.packet_spot(packet.where)
            together = [p for p in under_way if stage.packet_spot(p.where) == spot]
            sign = "□" if packet.waiting else "■"
            row = lines[1 + spot.at[1]]
            there = row[max(spot.x - 4, 0) : spot.x + spot.width + 8]
            wanted = f"{sign}{packet.name}"[:6] if len(together) == 1 else f"\N{MULTIPLICATION SIGN}{len(together)}"
            assert wanted in there, (frame.position, packet)


def test_every_crossing_is_seen_to_cross_its_border(screens):
    for shown, lines in screens:
        frame, stage = shown.frame, shown.stage
        if frame.step is None or not frame.step.crossings:
            continue
        crossing = frame.step.crossings[-1]
        gate = stage.gate(crossing.source, crossing.target, frame.step.place)
        x, y = gate.at
        assert lines[1 + y][x] in "▲▼▶◀"
        names = CROSSINGS[crossing.kind]
        row = lines[1 + gate.label[1]]
        assert any(name in row for name in names)
        assert "┃" in [line[x] for line in lines[1 : 1 + stage.height]] if gate.upright else "━" in lines[1 + y]


def test_a_border_that_is_not_crossed_is_not_lit(screens):
    for shown, lines in screens:
        step = shown.frame.step
        if step is None or not step.crossings:
            assert "━" not in lines[1 + next(s.y for s in shown.stage.spots.values() if s.name == "guest-kernel")]


def test_what_the_step_wrote_in_the_ring_has_a_sign(screens):
    for shown, lines in screens:
        ring = shown.frame.ring
        words = (ring.avail_idx, ring.used_idx, *((ring.used_event, ring.avail_event) if ring.event_idx else ()))
        written = [c for slot in ring.slots for c in (slot.avail, slot.used_id, slot.addr) if c.written]
        if written or any(c.written for c in words):
            assert any("*" in line for line in lines[8:-2]), shown.frame.step


def test_every_counter_that_grew_says_by_how_much(screens):
    counted = {"user_kernel.guest", "user_kernel.host", "guest_copies", "host_copies", "wakeups", "interrupts"}
    counted |= {"eventfd_signals", "upcalls", "drops", "light_exits"}
    for shown, lines in screens:
        for counter in shown.frame.counters:
            if counter.name in counted and counter.delta:
                assert any(f"{counter.value}{counter.delta:+}" in line for line in lines), counter


def test_places_never_move(screens):
    corners = None
    for shown, lines in screens:
        found = {
            (spot.name, x, y)
            for spot in shown.stage.spots.values()
            if spot.shape in (BOX, CHIP)
            for x, y in ((spot.x, spot.y), (spot.x + spot.width - 1, spot.y))
            if lines[1 + y][x] in "[]" + HEAVY[0] + HEAVY[2] + LIGHT[0] + LIGHT[2]
        }
        corners = found if corners is None else corners
        assert found == corners


def test_every_region_is_named(screens):
    for shown, lines in screens:
        for spot in shown.stage.spots.values():
            if spot.shape == LABEL and spot.name in ("guest-user", "guest-kernel", "host-user", "host-kernel"):
                assert spot.title in lines[1 + spot.y]


def test_everything_drawn_has_a_likeness_in_ascii(screens):
    for _, lines in screens:
        for line in lines:
            assert line.count("?") == to_ascii(line).count("?")
            assert len(to_ascii(line)) == len(line)


def test_the_text_of_every_step_is_there_whole_unless_the_lesson_speaks(screens):
    for shown, lines in screens:
        step = shown.frame.step
        if step is not None and not shown.said:
            assert step.text.split()[-1] in " ".join(lines)


def test_every_cell_that_can_be_clicked_stands_for_an_action(screens):
    for shown, lines in screens:
        assert all(0 <= y < len(lines) and x >= 0 and width >= 0 for x, y, width, _ in shown.zones)
        assert (1, len(lines) - 1, 6, "next") in shown.zones


@pytest.mark.parametrize("width", [80, 93, 110, 131, 240])
@pytest.mark.parametrize("height", [24, 27, 33, 34, 41, 50, 70])
def test_tiles_cover_every_cell_of_the_screen_once(session, width, height):
    cells = [[0] * width for _ in range(height)]
    for tile in Board(session).lay_out(width, height):
        for y in range(tile.y, tile.y + tile.height):
            for x in range(tile.x, tile.x + tile.width):
                cells[y][x] += 1
    assert {count for row in cells for count in row} == {1}


@pytest.mark.parametrize("size", [(79, 24), (80, 23), (20, 5), (1, 1)])
def test_a_screen_that_is_too_small_says_what_it_needs(session, size):
    board = Board(session)
    board.lay_out(*size)
    board.draw()
    assert board.grid.text(0).startswith("This needs 80x24"[: size[0]])


def test_a_question_shows_its_options_and_hides_the_rest_of_the_sentence():
    session = opened()
    session.end()
    board = Board(session)
    board.lay_out(80, 24)
    board.draw()
    text = "\n".join(board.grid.text(y) for y in range(24))
    for i, option in enumerate(session.question.options):
        assert f"[{i + 1}] {option}" in text
    assert "[0] not sure" in text
    board.hints = 1
    board.draw()
    assert session.question.hints[0].split()[0] in "\n".join(board.grid.text(y) for y in range(24))


def test_after_an_answer_what_was_said_stands_beside_what_it_did():
    session = opened()
    session.end()
    board = Board(session)
    board.lay_out(80, 24)
    question = session.question
    board.answered = question.id
    verdict = session.answer(0)
    board.draw()
    text = "\n".join(board.grid.text(y) for y in range(24))
    assert f"You said {question.options[0]}" in text
    if not verdict.is_right:
        assert f"It is {question.options[verdict.right]}" in text


LONG_QUESTION = Question(
    "q",
    "choice",
    "Something long is asked here. " * 8,
    tuple(
        f"the {name} thing happens, {'and then another, ' * 6}and that was it" for name in ("1st", "2nd", "3rd", "4th")
    ),
    ("Look closely.",),
    0,
)


def test_every_option_of_a_long_question_can_be_brought_into_sight():
    asking = Asking(LONG_QUESTION, 1, 1, 1, None)
    beyond = rows_beyond(asking, 80, 13)
    seen, clicked = "", set()
    for scroll in range(beyond + 1):
        grid, zones, rows = draw_question(asking, 80, 13, scroll)
        lines = [grid.text(y) for y in range(rows)]
        assert "question 1 of 1" in lines[0]
        assert ("more below" in lines[-1]) == (scroll < beyond)
        assert ("more above" in lines[-1]) == (scroll > 0)
        assert all(0 < y < rows - 1 for _, y, _, _ in zones)
        clicked |= {action for *_, action in zones}
        seen += "\n".join(lines)
    assert all(f"the {name} thing" in seen for name in ("1st", "2nd", "3rd", "4th"))
    assert "not sure" in seen
    assert "Look closely." in seen
    assert clicked == {"answer(-1)", "answer(0)", "answer(1)", "answer(2)", "answer(3)"}


def test_a_question_that_fits_has_no_sign_of_more():
    asking = Asking(LONG_QUESTION, 1, 1, 0, None)
    assert rows_beyond(asking, 80, 40) == 0
    grid, _, rows = draw_question(asking, 80, 40)
    assert not any("more" in grid.text(y) for y in range(rows))


def test_what_was_said_makes_room_for_hints():
    question = Question("q", "choice", "What happens?", ("one thing", "another"), ("Look.", "Look again."), 0)
    for hints in range(3):
        asking = Asking(question, 1, 1, hints, None, "Something happened. " * 10)
        grid, _, rows = draw_question(asking, 76, 9)
        text = "\n".join(grid.text(y) for y in range(rows))
        assert ("Something happened." in text) == (hints == 0)
        assert text.count("Look") == hints


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (0, ["You said: It sees the ring.", "It is: Somebody is woken."]),
        (1, ["Right: Somebody is woken."]),
        (2, ["You said nobody.", "It is: Somebody is woken."]),
    ],
)
def test_options_that_are_sentences_are_told_with_one_full_stop(said, told):
    options = ("It sees the ring.", "Somebody is woken.", "nobody")
    question = Question("q", "choice", "What happens?", options, (), 0)
    verdict = Verdict(question, said, 1, said == 1, "Because.")
    grid, _, rows = draw_question(Asking(question, 1, 1, 0, verdict), 76, 8)
    text = "\n".join(grid.text(y) for y in range(rows))
    assert all(line in text for line in told)
    assert ".." not in text


def test_the_end_tells_how_many_answers_were_right(session):
    session.go_to(session.length)
    board = Board(session)
    board.lay_out(80, 24)
    board.draw()
    assert "This is the end. 0 of 10 answers were right." in "\n".join(board.grid.text(y) for y in range(24))


def test_neighbouring_words_of_the_ring_do_not_run_into_each_other(session):
    reach(session, position_of(session, "publish_used_idx", packet=2))
    owners = text_of(session).splitlines()[10]
    assert " usd dev dev " in owners


def test_a_next_field_without_its_flag_is_put_aside(session):
    reach(session, position_of(session, "publish_avail_idx", packet=1))
    assert "flags - (next 1)" in text_of(session)
    ring = draw_ring(make_frame(session, session.position), 90, 12)
    assert any("(1)" in ring.text(y) for y in range(12))


def test_a_descriptor_with_numbers_too_long_for_its_row_says_so(session):
    frame = make_frame(session, position_of(session, "publish_avail_idx", packet=1))
    first, *others = frame.ring.slots
    long = replace(first, addr=replace(first.addr, text="f" * 16), len=replace(first.len, text=str(2**32 - 1)))
    ring = replace(frame.ring, slots=(long, *others))
    assert draw_ring(replace(frame, ring=ring), 53, 7).text(2).endswith("…")
    assert "…" not in draw_ring(frame, 53, 7).text(2)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_long_name_of_a_packet_leaves_the_lesson_its_title(session, width):
    frame = make_frame(session, position_of(session, "kick", packet=1))
    long = tuple(replace(p, name="a-name-of-sixty-letters-" * 3) for p in frame.packets)
    frame = replace(frame, packets=long)
    line = draw_title(frame, "3-vhost", "vhost-net, the kernel takes the ring", "", width).text(0)
    assert "3-vhost  vhost-net, the" in line
    assert "… out →" in line
    assert line.rstrip().endswith(f"of {session.length}")


def test_a_long_title_of_a_step_leaves_the_domain_its_place(session):
    frame = make_frame(session, position_of(session, "kick", packet=1))
    step = replace(frame.step, title="a title of a step that is longer than any that there is, " * 2, context="softirq")
    line = draw_who(replace(frame, step=step), 80).text(0)
    assert f"▶ {step.thread} in guest kernel · a title of" in line
    assert "… ─" in line
    assert "cost  VM exit" in line


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((1, 0, 0), " evfd 1 upcall 0 drop 0"),
        ((12, 1, 0), " evfd 12+1 upcall 1 drop 0"),
        ((123, 10, 10), " ev 123+1 up 10 dr 10"),
        ((9999, 9999, 9999), " ev 9999+1 up 9999 dr 9999"),
    ],
)
def test_no_digit_of_a_counter_is_cut_off(session, values, shown):
    frame = make_frame(session, position_of(session, "kick", packet=1))
    new = dict(zip(("eventfd_signals", "upcalls", "drops"), values, strict=True))
    counters = tuple(
        replace(c, value=new.get(c.name, c.value), delta=int(c.name == "eventfd_signals" and values[0] > 1))
        for c in frame.counters
    )
    line = draw_counters(replace(frame, counters=counters), 26, 7).text(6)
    assert line.rstrip() == shown


def test_a_step_of_hardware_cites_its_source_whole(session):
    step = session.step(1)
    made = replace(step, function="(hardware)", source="intel sdm vol. 3A, memory ordering; store buffer", row="MEM.1")
    assert source_of(made) == "MEM.1  hardware  intel sdm vol. 3A, memory ordering; store buffer"
    made = replace(step, function="(hardware)", source="linux 6.12 drivers/net/tun.c", row="NIC-TX.4")
    assert source_of(made) == "NIC-TX.4  hardware  tun.c"


def test_lanes_say_how_many_threads_there_is_no_room_for(session):
    reach(session, 60)
    board = Board(session)
    board.lay_out(120, 40)
    board.draw()
    text = "\n".join(board.grid.text(y) for y in range(40))
    assert ("+1 more" in text) == ("handler2" not in text)


def test_a_panel_with_a_place_of_its_own_leaves_the_ring_where_it_is(session):
    board = Board(session)
    board.lay_out(200, 60)
    for board.panel in ("ledger", "lanes", "sources"):
        board.draw()
        text = "\n".join(board.grid.text(y) for y in range(60))
        assert "avail.idx" in text
        assert text.count("ledger ·") == text.count(" threads ·") == text.count(" sources ") == 1


def test_everything_there_is_to_know_at_the_beginning_has_its_room():
    many = opened(queue__size=8, tx_stop_threshold=2, features="none", flows="unknown", vcpu="halted", napi_tx="off")
    shown = " ".join(line.strip("▌ ") for line in text_of(many).splitlines()[9:-2])
    assert "This departs from Linux:" in shown
    assert "? for help." in shown
    assert " ".join(many.said.split()) in " ".join(shown.split())


def test_a_held_thread_is_shown_as_held(session):
    reach(session, position_of(session, "publish_avail_idx", packet=4))
    board = Board(session)
    board.lay_out(80, 24)
    board.draw()
    assert "held" in board.grid.text(6)


def test_the_screen_says_at_every_step_when_a_setting_departs_from_linux():
    departing = opened(queue__size=8, tx_stop_threshold=2)
    assert "This departs from Linux:" in " ".join(text_of(departing).split())
    departing.next()
    assert "(departs from Linux)" in text_of(departing).splitlines()[0]
    assert "departs" not in text_of(opened())


def text_of(session):
    board = Board(session)
    board.lay_out(80, 24)
    board.draw()
    return "\n".join(board.grid.text(y) for y in range(24))


@pytest.mark.parametrize(
    "knobs",
    [
        {"flows": "unknown"},
        {"profile": "recorded"},
        {"features": "none"},
        {"apicv": "off"},
        {"cpu": "amd", "apicv": "off", "vcpu": "halted"},
        {"napi_tx": "off"},
        {"guest_if": "off"},
        {"queue__start": 65534},
        {"queue__size": 4, "tx_stop_threshold": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(80, 24), (132, 43)])
def test_every_world_can_be_drawn_at_every_step(knobs, size):
    session = after_questions(opened(**knobs))
    board = Board(session)
    board.lay_out(*size)
    for position in range(0, session.length + 1, 3):
        session.go_to(position)
        board.draw()
        assert f"step {position} of" in board.grid.text(0)
