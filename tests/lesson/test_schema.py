"""The schema for editors, and the one that lists faults: both say what the types say."""

from __future__ import annotations

import json
from copy import deepcopy

import msgspec
import pytest
from hostile_lessons import GOOD
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from virtviz.engine.counters import COUNTERS
from virtviz.lesson import loader
from virtviz.lesson.loader import read_text
from virtviz.lesson.marks import Marks
from virtviz.lesson.model import Lesson
from virtviz.lesson.names import Names
from virtviz.lesson.schema import MILESTONES, lesson_schema, shape_schema
from virtviz.lesson.shape import _note_first, validator
from virtviz.lesson.shelf import shelf
from virtviz.paths.describe import describe
from virtviz.paths.knobs import KNOBS, make_world
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import simulate
from virtviz.resources import data_folder


def plain(text: str) -> dict:
    """Give the values of a lesson as YAML says them."""
    return loader._values_of(text, Marks())


def test_the_schema_file_beside_the_lessons_is_the_one_of_the_types():
    # After an intended change: virtviz schema lesson > lessons/lesson.schema.json
    written = (data_folder("lessons") / "lesson.schema.json").read_text(encoding="utf-8")
    assert json.loads(written) == lesson_schema()


def test_the_schema_is_of_draft_7():
    Draft7Validator.check_schema(lesson_schema())
    assert lesson_schema()["$schema"] == "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize("lesson", shelf(), ids=lambda lesson: lesson.id)
def test_every_lesson_on_the_shelf_fits_the_schema_and_names_it(lesson):
    text = lesson.path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=lesson.schema.json\n")
    assert list(Draft7Validator(lesson_schema()).iter_errors(plain(text))) == []


def test_every_key_has_a_description_or_a_part_of_its_own():
    def undescribed(schema, path=""):
        for name, part in schema.get("properties", {}).items():
            if not ({"description", "$ref", "enum", "anyOf"} & set(part)) and part.get("type") != "object":
                yield f"{path}.{name}"
            yield from undescribed(part, f"{path}.{name}")

    schema = lesson_schema()
    assert [*undescribed(schema)] == []
    for name, part in schema["definitions"].items():
        assert [*undescribed(part, name)] == []


def test_the_schema_knows_all_settings_by_both_their_names():
    world = lesson_schema()["properties"]["world"]["properties"]
    assert set(KNOBS) <= set(world)
    assert world["queue"]["properties"]["size"] == world["queue.size"]


def test_the_schema_knows_all_counters_and_milestones():
    schema = lesson_schema()["definitions"]
    assert schema["When"]["properties"]["counter"]["propertyNames"]["enum"] == list(COUNTERS)
    world = simulate(make_world(), make_traffic([Item("echo"), Item("reply", outgoing=False, answers=0)]))
    assert Names.of(world, describe(world)).every("milestone") == sorted(MILESTONES)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 5000)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "echo", "vm1", "start"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["op", "send", "id", "q", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)
FULL = plain(GOOD) | {
    "review": [{"q": "Who?", "a": "vhost."}],
    "notes": "None.",
    "summary": "Short.",
}
FULL["script"].append(
    {
        "id": "more",
        "when": {"any": [{"thread": "vhost"}, {"place": "ovs"}], "counter": {"wakeups": ">= 1"}, "nth": 2},
        "predict": {"ask": "choice", "text": "Which?", "options": ["a", "b"], "answer": "a", "why": "Because."},
        "hold": "vhost",
    }
)


def places(value: object, at: tuple = ()) -> list[tuple]:
    """Give the paths of all values inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, inner in inside for place in places(inner, (*at, key)))]


def replaced(value: object, at: tuple, new: object) -> object:
    """Give a copy in which the value at a path is another one."""
    if not at:
        return new
    made = deepcopy(value)
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = new
    return made


@given(st.sampled_from(places(FULL)), VALUES)
@settings(max_examples=300, deadline=None)
def test_the_types_and_the_schema_accept_the_same(at, new):
    changed = replaced(FULL, at, new)
    try:
        msgspec.convert(changed, Lesson)
    except msgspec.ValidationError:
        assert not validator().is_valid(changed)
    else:
        assert Draft7Validator(shape_schema()).is_valid(changed)


def test_the_complete_lesson_of_these_tests_is_accepted():
    assert msgspec.convert(FULL, Lesson).script[2].when.nth == 2
    assert read_text(GOOD).lesson.script[0].when.op == "publish_avail_idx"


def test_a_fault_that_only_the_types_see_is_told_with_its_place_too():
    marks = read_text(GOOD).marks
    error = msgspec.ValidationError("Expected `object`, got `str` - at `$.script[1].predict`")
    _note_first(error, marks)
    (problem,) = marks.problems()
    assert (problem.where, problem.what) == ("script.kicked.predict", "expected `object`, got `str`")
