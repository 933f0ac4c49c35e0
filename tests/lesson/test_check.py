"""What a check finds beyond the hostile examples: warnings, and problems found by running."""

from __future__ import annotations

import pytest
from hostile_lessons import GOOD

from virtviz.lesson.check import check, examine, examine_text
from virtviz.lesson.shelf import shelf


def warnings(*pairs: tuple[str, str]) -> list[tuple[int, str, str]]:
    """Change the good lesson, and give line, place and text of the warnings about it."""
    text = GOOD
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    checked = examine_text(text)
    assert checked.problems == []
    return [(warning.line, warning.where, warning.what) for warning in checked.warnings]


def test_a_good_lesson_is_not_warned_about():
    assert warnings() == []


def test_a_lesson_that_only_shows_is_warned_about():
    question = GOOD[GOOD.index("    predict:") : GOOD.index("sources:")]
    assert warnings((question, "    say: A kick.\n")) == [
        (11, "script", "nothing is asked; who only watches learns little, so add a `predict`")
    ]


@pytest.mark.parametrize(("words", "warned"), [(10, False), (40, True)])
def test_a_question_with_more_options_than_fit_on_the_screen_is_warned_about(words, warned):
    options = [f"{letter} {'word ' * words}".strip() for letter in "abcd"]
    found = warnings(
        ("ask: count", f"ask: choice\n      options: [{', '.join(options)}]\n      answer: {options[0]}"),
        ("      counter: heavy_exits\n      until: {op: vm_entry}\n", ""),
    )
    said = [what for _, where, what in found if where == "script.kicked.predict.options"]
    assert len(said) == warned
    assert all(what.startswith("question and options take 13 lines; on a small screen there is room") for what in said)


def test_a_text_longer_than_the_screen_is_warned_about_wherever_it_stands():
    long = "word " * 50
    found = warnings(
        ("From here on the device may take the buffer.", long),
        ("How many heavy exits will there be?", long),
        ("[Look at the counter.]", f"[{long}]"),
    )
    assert [(line, where) for line, where, _ in found] == [(14, "script.publish.say")]
    assert "(also in lines 21, 22)" in found[0][2]
    assert found[0][2].startswith("4 lines of 76 columns; people read at most 3 at a step")


def test_a_colour_as_a_cue_is_warned_about():
    ((line, where, what),) = warnings(("the device may take the buffer", "the red cell is the device's"))
    assert (line, where) == (14, "script.publish.say")
    assert what == "the colour `red`; not everybody sees it, so name the thing by its words too"


def test_missing_sources_are_warned_about():
    assert [what for *_, what in warnings(("sources: [virtio 1.4]\n", ""))] == [
        "no `sources`; say where the lesson's facts are from"
    ]


def test_what_a_run_finds_is_put_at_its_line():
    checked = examine_text(GOOD, "x.yaml")
    problem = checked.at("script.kicked.when", "this never happens in the run")
    assert str(problem) == "x.yaml:16:11: script.kicked.when: this never happens in the run"
    assert checked.at("script.gone.release", "lost").line == 12


def test_a_file_that_is_no_lesson_is_told_as_reading_tells_it(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("title: [")
    assert [problem.line for problem in check(path)] == [1]


def test_what_is_found_about_a_file_that_is_no_lesson_has_a_place_too():
    assert str(examine_text("[", "x.yaml").at("script.a", "lost")) == ":1:1: lost"


def test_a_condition_that_lacks_nothing_is_left_alone():
    conditions = (
        "{any: [{op: kick}, {milestone: used}], thread: vhost}",
        '{counter: {"user_kernel.host": "== 0", light_exits: 1}}',
        "{nth: 7}",
        "{packet: 2, queue: receiveq1}",
        "{field: used.ring, thread: vhost}",
        "{field: transmitq1.num_free}",
        "{outcome: kick}",
        "{crossing: vm-exit, domain: guest-kernel, place: virtio_net}",
    )
    for condition in conditions:
        checked = examine_text(GOOD.replace("{op: publish_avail_idx, packet: echo}", condition))
        assert checked.problems == [], condition


@pytest.mark.parametrize(
    "field", ["transmitq1.avail_event", "used.ring[3].len", "desc[255].addr", "vm1.skb.free_count"]
)
def test_fields_with_one_value_can_be_asked_for(field):
    checked = examine_text(
        GOOD.replace("ask: count", "ask: value").replace("counter: heavy_exits", f"field: '{field}'")
    )
    assert checked.problems == []


@pytest.mark.parametrize(
    "field", ["avail.ring", "used.ring[300].id", "desc[-1]", "slot[1]", "idx[0]", "", "avail.idx[1]"]
)
def test_fields_without_one_value_cannot_be_asked_for(field):
    checked = examine_text(
        GOOD.replace("ask: count", "ask: value").replace("counter: heavy_exits", f"field: '{field}'")
    )
    assert [problem.where for problem in checked.problems] == ["script.kicked.predict.field"]


@pytest.mark.parametrize("lesson", shelf(), ids=lambda lesson: lesson.id)
def test_no_lesson_on_the_shelf_has_problems_or_warnings(lesson):
    checked = examine(lesson.path)
    assert [*map(str, checked.problems + checked.warnings)] == []
