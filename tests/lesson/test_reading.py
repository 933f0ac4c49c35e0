"""How a file is read: YAML 1.2's core schema, and where everything stands."""

from __future__ import annotations

import math

import pytest
from hostile_lessons import GOOD
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from virtviz.errors import LessonError
from virtviz.lesson import loader
from virtviz.lesson.loader import load_text, read_text
from virtviz.lesson.marks import Marks, did_you_mean, shown
from virtviz.lesson.model import Lesson, When


def with_world(text: str) -> object:
    """Give what the setting `x` is read as; it is no setting, which the loader only says afterwards."""
    return loader._values_of(f"x: {text}\n", Marks())["x"]


@pytest.mark.parametrize(
    "word", ["off", "on", "yes", "no", "y", "n", "Off", "tRUE", "nULL", "0b1", "1_000", "1:30", "=", "<<"]
)
def test_words_of_yaml_1_1_are_words(word):
    assert with_world(word) == word


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("010", 10),
        ("0o17", 15),
        ("0xFf", 255),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.Inf", -math.inf),
        ("'12'", "12"),
        ('"true"', "true"),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, "9" * 19),
        ("1.2.3", "1.2.3"),
        ("2024-01-01", "2024-01-01"),
    ],
)
def test_plain_scalars_are_read_by_the_core_schema(text, value):
    # YAML 1.2.2, 10.3.2.
    read = with_world(text)
    assert read == value
    assert type(read) is type(value)


def test_nan_is_a_number():
    assert math.isnan(with_world(".nan"))


def test_a_lesson_is_immutable_and_what_is_left_out_is_unset():
    lesson = load_text(GOOD)
    assert isinstance(lesson, Lesson)
    assert lesson.summary is UNSET
    assert lesson.script[0].when == When(op="publish_avail_idx", packet="echo")
    with pytest.raises(AttributeError):
        lesson.title = "other"


def test_every_value_is_found_again_by_its_spelling():
    marks = read_text(GOOD).marks
    assert marks.find("script.kicked.predict.until.op") == ("script", 1, "predict", "until", "op")
    assert marks.values["script", 1, "predict", "until", "op"] == (20, 19)
    assert marks.keys["script", 1, "predict"] == (17, 5)
    assert marks.find("script.kicked.nothing.more") == ("script", 1)
    assert marks.find("nowhere") == ()


def test_items_are_called_by_their_id_or_their_number():
    marks = read_text(GOOD).marks
    assert marks.where(("script", 1, "hints", 0)) == "script.kicked.hints.1"
    assert marks.where(("scenario", 1, "reply")) == "scenario.2.reply"


def test_a_problem_without_a_place_of_its_own_stands_at_what_contains_it():
    marks = Marks("x.yaml", values={(): (1, 1), ("a",): (2, 4)}, keys={("a",): (2, 1)})
    marks.add(("a", "b", "c"), "lost")
    marks.add(("a",), "a key", key=True)
    assert [(p.line, p.column) for p in marks.problems()] == [(2, 1), (2, 4)]


def test_equal_problems_are_told_once_with_their_lines():
    marks = Marks()
    for line in (3, 9, 9, 20):
        marks.add_at(line, 1, "wrong")
    marks.add_at(4, 1, "other")
    assert [(p.line, p.what) for p in marks.problems()] == [(3, "wrong (also in lines 9, 20)"), (4, "other")]


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_quoted_values_are_short_and_harmless(text):
    quoted = shown(text)
    assert quoted.isprintable()
    # A character that is not printable may take ten: `\U0010ffff`.
    assert len(quoted) <= 2 + 40 * 10


def test_the_nearest_word_is_suggested_only_if_it_is_near():
    assert did_you_mean("efect", ["effect", "op"]) == " (did you mean `effect`?)"
    assert did_you_mean("zzz", ["effect", "op"], "; none") == "; none"


def test_all_problems_of_a_file_are_found_in_one_pass():
    text = GOOD.replace("minutes: 5", "minutes: 999").replace("op: pub", "opp: pub").replace("known", "knwon")
    with pytest.raises(LessonError) as raised:
        load_text(text.replace("ask: count", "ask: cuont"), "x.yaml")
    assert [p.where for p in raised.value.problems] == [
        "minutes",
        "world.flows",
        "script.publish.when.opp",
        "script.kicked.predict.ask",
    ]
