"""Keys, mouse, palette and sizes, through Textual's own pilot."""

import asyncio

import pytest
from msgspec.structs import replace
from opened import LESSON, after_questions, opened, position_of, reach
from textual.command import CommandPalette

from virtviz.errors import LearnerError
from virtviz.lesson.loader import load
from virtviz.lesson.model import Predict
from virtviz.session.session import Session
from virtviz.ui.app import Player, make_player
from virtviz.ui.commands import COMMANDS
from virtviz.ui.screens import GoTo, Help

SMALL = (80, 24)


def run(scenario, session=None, size=SMALL, **options):
    """Carry out a scenario with an application of its own."""

    async def go():
        app = Player(session or opened(), **{"motion": "none", **options})
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await scenario(app, pilot)

    asyncio.run(go())


def text(app):
    grid = app.board.grid
    return "\n".join(grid.text(y) for y in range(grid.height))


@pytest.mark.parametrize("key", ["right", "n", "space"])
def test_keys_that_go_one_step_further(key):
    async def scenario(app, pilot):
        await pilot.press(key)
        assert app.session.position == 1
        assert "step 1 of" in text(app)

    run(scenario)


@pytest.mark.parametrize("key", ["left", "b"])
def test_keys_that_go_one_step_back(key):
    async def scenario(app, pilot):
        await pilot.press("n", "n", key)
        assert app.session.position == 1

    run(scenario)


def test_home_and_end_and_the_first_question():
    async def scenario(app, pilot):
        await pilot.press("end")
        first = app.session.position
        assert app.session.question is not None
        assert 0 < first < app.session.length
        await pilot.press("home")
        assert app.session.position == 0
        await pilot.press("left")
        assert app.session.position == 0

    run(scenario)


def test_a_question_stops_the_way_until_it_is_answered():
    async def scenario(app, pilot):
        await pilot.press("end")
        stop = app.session.position
        await pilot.press("n")
        assert app.session.position == stop
        assert "The question comes first." in text(app)
        await pilot.press("1")
        assert len(app.session.verdicts) == 1
        assert "You said" in text(app)
        await pilot.press("n")
        assert app.session.position == stop + 1
        assert "You said" not in text(app)

    run(scenario)


def test_not_sure_yet_is_an_answer_and_hints_come_one_by_one():
    async def scenario(app, pilot):
        await pilot.press("end", "h")
        assert text(app).count("hint ") >= 1
        first = app.session.question.hints[0].split()[0]
        assert first in text(app)
        await pilot.press("h", "h")
        assert "There are no more hints." in text(app)
        await pilot.press("0")
        assert app.session.verdicts[0].said is None
        assert "It is" in text(app)

    run(scenario)


def test_numbers_beyond_the_options_and_without_a_question_do_nothing():
    async def scenario(app, pilot):
        await pilot.press("3")
        assert not app.session.verdicts
        await pilot.press("end", "9")
        assert not app.session.verdicts

    run(scenario)


def test_a_question_can_be_put_aside_and_taken_up_again():
    async def scenario(app, pilot):
        await pilot.press("end", "p")
        assert "question 1 of" not in text(app)
        await pilot.press("p")
        assert "question 1 of" in text(app)
        await pilot.press("home", "p")
        assert "No question is open here." in text(app)

    run(scenario)


@pytest.mark.parametrize(
    ("key", "back", "has"),
    [
        ("c", "C", lambda step: step.crossings),
        ("m", "M", lambda step: step.milestone),
        ("k", "K", lambda step: step.effects),
    ],
)
def test_keys_that_go_to_the_next_of_its_kind_and_back(key, back, has):
    async def scenario(app, pilot):
        await pilot.press(key)
        first = app.session.position
        await pilot.press(key)
        second = app.session.position
        assert 0 < first < second
        assert has(app.session.step(first))
        assert has(app.session.step(second))
        await pilot.press(back)
        assert app.session.position == first

    run(scenario, after_questions(opened()))


def test_going_to_a_step_by_its_number():
    async def scenario(app, pilot):
        await pilot.press("g")
        assert isinstance(app.screen, GoTo)
        await pilot.press("7", "enter")
        await pilot.pause()
        assert app.session.position == 7
        await pilot.press("g", "escape")
        await pilot.pause()
        assert app.session.position == 7
        assert not isinstance(app.screen, GoTo)

    run(scenario)


@pytest.mark.parametrize(
    ("typed", "wrong"),
    [
        ("3.5", "Digits 0 to 9 only"),
        ("-3", "Digits 0 to 9 only"),
        ("٣", "Digits 0 to 9 only"),
        ("99999", "There is no step 99999."),
    ],
)
def test_what_is_no_number_of_a_step_is_refused_with_the_reason(typed, wrong):
    async def scenario(app, pilot):
        await pilot.press("n", "g")
        app.screen.query_one("Input").value = typed
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, GoTo)
        assert wrong in str(app.screen.query_one("#wrong").render())
        assert app.session.position == 1

    run(scenario, after_questions(opened()))


def test_a_full_stop_can_be_typed_and_is_not_dropped():
    async def scenario(app, pilot):
        await pilot.press("g", "3", "full_stop", "5", "enter")
        await pilot.pause()
        assert isinstance(app.screen, GoTo)
        assert app.session.position == 0

    run(scenario)


@pytest.mark.parametrize("key", ["question_mark", "g"])
def test_in_ascii_windows_have_frames_of_ascii(key):
    async def scenario(app, pilot):
        await pilot.press(key)
        framed = [w.styles.border_top[0] for w in app.screen.query("*") if w.styles.border_top[0]]
        assert framed
        assert set(framed) == {"ascii"}

    run(scenario, plain=True)


@pytest.mark.parametrize("key", ["question_mark", "f1"])
def test_help_names_every_key_and_goes_away_again(key):
    async def scenario(app, pilot):
        await pilot.press(key)
        assert isinstance(app.screen, Help)
        shown = str(app.screen.query_one("Static").render())
        assert all(command.title.lower() in shown.lower() for command in COMMANDS)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, Help)

    run(scenario)


def test_the_ring_follows_the_action_or_stays_with_one_queue():
    async def scenario(app, pilot):
        assert "transmitq1 →" in text(app)
        await pilot.press("r")
        assert "transmitq1 →" in text(app)
        await pilot.press("r")
        assert "receiveq1 ←" in text(app)
        await pilot.press("n")
        assert "receiveq1 ←" in text(app)
        await pilot.press("r")
        assert "transmitq1 →" in text(app)

    run(scenario)


@pytest.mark.parametrize(("key", "word"), [("l", "ledger ·"), ("t", "threads ·"), ("s", "sources")])
def test_panels_take_the_rings_place_and_give_it_back(key, word):
    async def scenario(app, pilot):
        await pilot.press("n", key)
        assert word in text(app)
        assert "avail.idx" not in text(app).split("─── cost")[0].split("so far")[0]
        await pilot.press(key)
        assert "avail.idx" in text(app)
        await pilot.press(key, "r")
        assert "avail.idx" in text(app)

    run(scenario)


def test_a_wide_screen_shows_ledger_and_lanes_by_themselves():
    async def scenario(app, pilot):
        await pilot.press("n")
        assert "ledger ·" in text(app)
        assert "threads ·" in text(app)

    run(scenario, size=(120, 40))


@pytest.mark.parametrize(("key", "says"), [("l", "at the right anyway"), ("t", "below anyway"), ("s", "below anyway")])
def test_on_a_large_screen_keys_of_panels_leave_the_ring_and_say_where_they_are(key, says):
    async def scenario(app, pilot):
        await pilot.press("n", key)
        assert says in text(app)
        assert "avail.idx" in text(app)

    run(scenario, size=(200, 60))


def test_clicking_the_track_goes_there_and_clicking_a_hint_does_it():
    async def scenario(app, pilot):
        await pilot.click(offset=(40, 22))
        half = app.session.position
        assert 0.4 < half / app.session.length < 0.6
        x, y, *_ = next(zone for zone in app.board.zones if zone[3] == "step_back")
        await pilot.click(offset=(x, y))
        assert app.session.position == half - 1
        await pilot.click(offset=(30, 5))
        assert app.session.position == half - 1

    run(scenario, after_questions(opened()))


@pytest.mark.parametrize(
    ("row", "column", "shows"),
    [(7, 30, "transmitq1 →"), (8, 30, "receiveq1 ←"), (11, 60, "ledger ·"), (18, 10, "sources"), (16, 5, "threads ·")],
)
def test_clicking_a_part_of_the_screen_looks_closer_at_it(row, column, shows):
    async def scenario(app, pilot):
        await pilot.press("n", "n")
        await pilot.click(offset=(column, row))
        assert shows in text(app)

    run(scenario)


def test_clicking_an_option_answers_and_clicking_on_goes_on():
    async def scenario(app, pilot):
        await pilot.press("end")
        stop = app.session.position
        x, y, *_ = next(zone for zone in app.board.zones if zone[3] == "answer(1)")
        await pilot.click(offset=(x + 2, y))
        assert app.session.verdicts[0].said == 1
        x, y, *_ = [zone for zone in app.board.zones if zone[3] == "next"][-1]
        await pilot.click(offset=(x + 2, y))
        assert app.session.position == stop + 1

    run(scenario)


def test_clicking_an_entry_of_the_ledger_goes_to_its_step():
    async def scenario(app, pilot):
        reach(app.session, 60)
        app.show()
        x, y, _, action = next(zone for zone in app.board.zones if zone[3].startswith("seek(19"))
        await pilot.click(offset=(x + 8, y))
        assert action == f"seek({app.session.position})"

    run(scenario, after_questions(opened()), size=(120, 40))


def test_every_command_is_in_the_palette_and_works_from_there():
    async def scenario(app, pilot):
        names = [command.title for command in app.get_system_commands(app.screen)]
        assert all(any(c.title in name for name in names) for c in COMMANDS if c.action != "command_palette")
        await pilot.press("ctrl+p")
        assert isinstance(app.screen, CommandPalette)
        await pilot.press(*"next milestone")
        await pilot.pause(0.3)
        await pilot.press("enter")
        await pilot.pause(0.1)
        assert app.session.step(app.session.position).milestone

    run(scenario, after_questions(opened()))


def test_too_small_a_screen_says_so_and_a_larger_one_goes_on_where_it_was():
    async def scenario(app, pilot):
        await pilot.press("n", "n", "n")
        await pilot.resize_terminal(60, 20)
        await pilot.pause()
        assert "This needs 80x24" in text(app)
        await pilot.resize_terminal(130, 45)
        await pilot.pause()
        assert "step 3 of" in text(app)
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert "step 3 of" in text(app)

    run(scenario)


def test_on_too_small_a_screen_keys_do_nothing_unseen():
    async def scenario(app, pilot):
        await pilot.press("n")
        for key in ("n", "l", "question_mark", "g", "t", "end", "ctrl+p", "m", "greater_than_sign", "r"):
            await pilot.press(key)
            assert len(app.screen_stack) == 1, key
            assert "This needs 80x24" in text(app)
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert "step 0 of" in text(app)
        assert "transmitq1 →" in text(app)
        await pilot.press("n")
        assert "step 1 of" in text(app)

    run(scenario, size=(60, 20))


@pytest.mark.parametrize("key", ["q", "ctrl+q", "ctrl+c"])
def test_too_small_a_screen_can_be_left(key):
    async def scenario(app, pilot):
        await pilot.press(key)
        assert not app.is_running

    run(scenario, size=(60, 20))


@pytest.mark.parametrize("key", ["question_mark", "g", "ctrl+p"])
def test_windows_go_away_when_the_screen_becomes_too_small(key):
    async def scenario(app, pilot):
        await pilot.press(key)
        assert len(app.screen_stack) == 2
        await pilot.resize_terminal(60, 20)
        await pilot.pause()
        assert len(app.screen_stack) == 1

    run(scenario)


def test_a_question_that_is_longer_than_the_screen_can_be_moved():
    async def scenario(app, pilot):
        await pilot.press("end")
        assert "more below" in text(app)
        assert "not sure yet" not in text(app)
        await pilot.press("pagedown", "down")
        assert "more above" in text(app)
        await pilot.press(*["pagedown"] * 4)
        assert "more below" not in text(app)
        assert "not sure yet" in text(app)
        await pilot.press("up")
        assert "more below" in text(app)
        await pilot.press(*["pageup"] * 4)
        assert "more above" not in text(app)
        await pilot.press("h")
        assert any("hint" in line for line in text(app).splitlines()[-5:-3])

    lesson = load(LESSON)
    script = [
        replace(entry, predict=replace(entry.predict, text="This is asked at great length, and more. " * 18))
        if isinstance(entry.predict, Predict)
        else entry
        for entry in lesson.script
    ]
    run(scenario, Session.open(replace(lesson, script=script)))


def test_where_nothing_is_hidden_there_is_nothing_to_move():
    async def scenario(app, pilot):
        await pilot.press("down")
        assert "Nothing is hidden here." in text(app)

    run(scenario)


def test_without_motion_nothing_runs_by_itself():
    async def scenario(app, pilot):
        await pilot.press("n", "n", "enter")
        assert app.session.position == 2
        assert "Motion is off" in text(app)
        assert app._playing is None
        assert app._gliding is None

    run(scenario)


def test_textual_can_ask_for_less_motion_than_was_wished(monkeypatch):
    async def scenario(app, pilot):
        assert app.motion == "none"

    monkeypatch.setattr("textual.constants.TEXTUAL_ANIMATIONS", "none")
    run(scenario, motion="full")


def test_playing_goes_on_by_itself_and_stops_at_a_question():
    async def scenario(app, pilot):
        await pilot.press("greater_than_sign", "greater_than_sign")
        assert "8 steps a second" in text(app)
        await pilot.press("end", "left", "left", "enter")
        stop = app.session.position + 1
        assert "▶ 8/s" in text(app)
        await pilot.pause(0.6)
        assert app.session.position == stop
        assert app._playing is None
        assert "question 1 of" in text(app)
        await pilot.press("less_than_sign")
        assert "4 steps a second" in text(app)

    run(scenario, motion="basic")


def test_a_packet_glides_and_arrives_where_the_frame_says():
    async def scenario(app, pilot):
        reach(app.session, position_of(app.session, "allocate") - 1)
        app.show()
        await pilot.press("n")
        assert app._gliding is not None
        await pilot.pause(1.0)
        assert app._gliding is None
        drawn = text(app)
        app.show()
        assert text(app) == drawn

    run(scenario, motion="full")


def test_the_next_key_ends_a_glide_at_once():
    async def scenario(app, pilot):
        reach(app.session, position_of(app.session, "allocate") - 1)
        app.show()
        await pilot.press("n", "n")
        assert app._gliding is None

    run(scenario, motion="full")


def test_themes_of_others_and_of_our_own_can_be_chosen():
    async def scenario(app, pilot):
        for theme in ("virtviz-light", "nord", "textual-light", "virtviz-dark"):
            app.theme = theme
            await pilot.pause()
            assert app.palette.style("guest").color is not None

    run(scenario)


@pytest.mark.parametrize("name", ["dark", "light"])
def test_our_own_themes_have_short_names(name):
    assert make_player(opened(), theme=name).theme == f"virtviz-{name}"


@pytest.mark.parametrize("key", ["q", "ctrl+q", "ctrl+c"])
def test_keys_that_leave(key):
    async def scenario(app, pilot):
        await pilot.press(key)
        assert not app.is_running

    run(scenario)


def test_an_unknown_theme_is_refused_with_the_names_there_are():
    with pytest.raises(LearnerError, match=r"no theme 'no-such-theme'; there is .*virtviz-dark"):
        make_player(opened(), theme="no-such-theme")


def test_no_color_leaves_no_colour_in_any_style(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = make_player(opened(), motion="none")
    assert app.theme == "ansi-dark"
    for name in ("guest", "host bold on host-ground", "changed", "packet", "hot", "say", "title"):
        style = app.palette.style(name)
        assert style.color is None
        assert style.bgcolor is None
    monkeypatch.delenv("NO_COLOR")
    assert make_player(opened(), motion="none").theme == "virtviz-dark"


def test_a_step_redraws_few_rows_of_few_tiles():
    """Counted work: no step of the lesson redraws more than a part of the screen."""

    async def scenario(app, pilot):
        worst, total, steps = 0, 0, 120
        for _ in range(steps):
            before = sum(tile.updates for tile in app._tiles)
            app.session.next()
            app.board.settle()
            app.show()
            drawn = sum(tile.updates for tile in app._tiles) - before
            worst, total = max(worst, drawn), total + drawn
        assert worst <= 60
        assert total / steps <= 14

    run(scenario, after_questions(opened()))


def test_drawing_the_same_position_again_sends_nothing():
    async def scenario(app, pilot):
        await pilot.press("n", "n")
        before = sum(tile.updates for tile in app._tiles)
        app.show()
        assert sum(tile.updates for tile in app._tiles) == before

    run(scenario)
