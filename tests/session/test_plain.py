"""Plain mode: lines of text, and a conversation in lines."""

import pytest
from small_lesson import GOLDENS, golden, open_small, open_with, transcript

from virtviz.session import run as running
from virtviz.session.plain import HELP, play, to_ascii
from virtviz.session.session import Session


def talk(session, *typed, **how):
    """Play a lesson in which somebody types lines and then leaves; give what was said, and what was asked."""
    lines, prompts, waiting = [], [], list(typed)

    def ask(prompt):
        prompts.append(prompt)
        if not waiting:
            raise EOFError
        return waiting.pop(0)

    play(session, ask, lines.append, **how)
    return lines, prompts


def said(session, *typed, **how):
    return "\n".join(talk(session, *typed, **how)[0])


@pytest.mark.parametrize("lesson", GOLDENS)
def test_a_whole_lesson_reads_as_it_always_did(lesson):
    # After an intended change: PYTHONPATH=. python tests/session/small_lesson.py
    assert transcript(GOLDENS[lesson]()) == golden(lesson).read_text(encoding="utf-8")


def test_straight_through_there_is_a_line_for_every_step_and_an_answer_to_every_question():
    session = open_small()
    lines = transcript(open_small()).splitlines()
    steps = [line for line in lines if line[:4].strip().isdecimal() and line[4:6] == "  "]
    assert [int(line[:4]) for line in steps] == list(range(1, session.length + 1))
    assert len([line for line in lines if line.startswith("  ??")]) == 7
    assert len([line for line in lines if line.startswith("  !!  Answer: ")]) == 7
    assert lines[-1] == "Questions: 7"


def test_a_line_says_what_changed_and_what_it_cost():
    lines = transcript(open_small()).splitlines()
    assert any(
        "publish avail.idx (echo):" in line and "[avail.idx 0 -> 1] [milestone in-ring]" in line for line in lines
    )
    assert any(line.endswith("[+vm-exit]") for line in lines)
    assert any("[+wakeup vhost-4002]" in line for line in lines)
    assert any("[+copy 110 bytes]" in line for line in lines)


@pytest.mark.parametrize(
    "world",
    [
        "flows: unknown",
        "features: none",
        "apicv: 'off'",
        "napi_tx: 'off'",
        "far_port: veth",
        "far_port: dummy",
        "vcpu: halted",
        "switch: bridge",
        "vms: 2",
        "queue.start: 65535",
        "profile: recorded",
    ],
)
def test_a_lesson_can_be_told_in_every_kind_of_world(world):
    session = open_small("flows: known", world)
    text = said(session, auto=True)
    assert session.position == session.length
    assert len(session.verdicts) == session.questions >= 5
    assert text.count("  !!  Answer: ") == session.questions
    assert all(0 <= verdict.right < len(verdict.question.options) for verdict in session.verdicts)


def test_enter_is_the_next_step_and_letters_move():
    session = open_with("[]")
    talk(session, "", "n", "", "b")
    assert session.position == 2
    session = open_with("[]")
    talk(session, "g 40")
    assert session.position == 40
    talk(session, "m")
    assert session.step(session.position).milestone
    talk(session, "M", "M", "c", "C", "k", "K", "end", "home", "g7")
    assert session.position == 7


def test_a_move_that_leads_nowhere_says_so():
    assert "There is no such step in that direction." in said(open_with("[]"), "b")


def test_an_unknown_command_shows_the_help():
    text = said(open_with("[]"), "dance")
    assert "'dance' is no command." in text
    assert HELP in text
    assert HELP in said(open_with("[]"), "h")
    assert max(map(len, HELP.splitlines())) < 80


def test_totals_can_be_asked_for():
    assert "Counted up to step 3 of" in said(open_with("[]"), "g 3", "t")


def test_enter_at_the_end_leaves():
    session = open_with("[]")
    lines, prompts = talk(session, "end", "")
    assert len(prompts) == 2
    assert any(line.startswith("This is the end") for line in lines)
    assert any(line.startswith("Counted up to step 154 of 154") for line in lines)


def test_what_is_passed_over_and_was_to_be_seen_is_shown():
    text = said(open_with("[{id: a, when: {op: kick}, say: Look here.}]"), "end")
    assert "  >>  Look here." in text
    assert "kick the device" in text
    assert "publish avail.idx" not in text


def test_settings_that_are_not_the_lessons_own_are_named():
    settings = [{"flows": "known", "features": "none"}, {"queue.size": "64"}]
    session = Session.open(open_small().lesson, settings=settings)
    assert session.changed == ("features=none", "queue.size=64")
    assert "  Not as in this lesson: features=none, queue.size=64. What the lesson says" in said(session, "q")
    assert Session.open(open_small().lesson, settings=[{"profile": "recorded"}]).changed == ("profile=recorded",)
    assert not open_small().changed
    assert "Not as in this lesson" not in said(open_small(), "q")


def test_a_question_is_answered_by_number():
    session = open_small()
    text = said(session, "end", "4")
    assert session.verdicts[0].said == 3
    assert session.verdicts[0].is_right
    assert "  ??  What comes next? (the next step of vm1.vcpu0)" in text
    assert "      4  stop the queue if it is nearly full" in text
    assert "  !!  Right: stop the queue if it is nearly full (option 4)." in text
    assert text.endswith("Questions: 1 of 7 right, 6 not answered")


def test_a_wrong_answer_hears_the_right_one():
    assert "  !!  No: stop the queue" in said(open_small(), "end", "1")


def test_hints_come_one_by_one_and_end():
    text = said(open_small(), "end", "s", "end", "?", "?", "?", "s")
    first, second = text.index("Hint: Somebody slept."), text.index("Hint: It is called vhost")
    assert first < second < text.index("There are no more hints.")
    assert "  !!  Answer: " in text


def test_somebody_may_look_back_before_answering_and_is_asked_again():
    session = open_small()
    lines, prompts = talk(session, "end", "b", "g 3", "end")
    assert [prompt.split()[0] for prompt in prompts] == ["step", "1-4,", "step", "step", "1-4,"]
    assert len([line for line in lines if line.startswith("  ??")]) == 2
    assert not session.verdicts


def test_a_world_that_no_linux_has_says_so_and_so_does_a_run_that_is_too_long(monkeypatch):
    assert "  Not as in Linux: " in said(open_small("{flows: known}", "{flows: known, tx_stop_threshold: 5}"))
    monkeypatch.setattr(running, "STEPS_MAX", 100)
    assert "  This run is longer than a lesson may be" in said(open_small())


@pytest.mark.parametrize("line", ["", "0", "5", "x", "-1", "²", "99999999999999999999"])
def test_anything_else_is_asked_again(line):
    session = open_small()
    assert "Type 1-4, ?, s, b or q." in said(session, "end", line)
    assert session.question is not None


def test_somebody_may_leave_at_a_question_or_anywhere():
    session = open_small()
    lines, _ = talk(session, "end", "q")
    assert session.question is not None
    assert lines[-1].startswith("Questions: 0 of 7 right")
    assert talk(open_small(), "q")[1] == ["step 0 of 309 > "]


def test_lines_are_wrapped_to_a_width_with_the_rest_indented():
    lines, _ = talk(open_small(), "g 4", width=60)
    assert max(map(len, lines)) <= 60
    step = next(i for i, line in enumerate(lines) if line.startswith("   4  "))
    assert lines[step + 1].startswith("      ")


def test_ascii_spells_what_has_no_ascii_form():
    assert (
        to_ascii("a \N{RIGHTWARDS ARROW} b\N{HORIZONTAL ELLIPSIS} caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{SNOWMAN}")
        == "a -> b... cafe ?"
    )
    assert to_ascii("\N{VULGAR FRACTION THREE QUARTERS} of it") == "3/4 of it"
    session = open_with("[{id: a, when: start, say: 'Gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n \N{EM DASH} ja'}]")
    text = said(session, "end", ascii_only=True)
    assert "  >>  Grun - ja" in text
    assert text.isascii()
