"""The page about the lesson format: its examples have no fault, and its words are those of the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from virtviz.lesson.check import examine_text
from virtviz.lesson.loader import DEPTH_MAX, SIZE_MAX, VALUES_MAX
from virtviz.lesson.model import EVENT_KEYS, Ask, Entry, Lesson, When
from virtviz.lesson.schema import MILESTONES
from virtviz.session.session import Session

PAGE = (Path(__file__).parents[2] / "docs" / "lesson-format.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: re.search(r"id: (\S+)", text)[1])
def test_every_example_is_a_lesson_whose_questions_have_answers(text):
    checked = examine_text(text)
    assert [*map(str, checked.problems + checked.warnings)] == []
    session = Session.open(checked.reading.lesson)
    assert [*map(str, session.problems)] == []


def test_the_page_names_every_key():
    for keys in (Lesson.__struct_fields__, When.__struct_fields__, EVENT_KEYS, Entry.__struct_fields__):
        for key in keys:
            assert re.search(rf"`{key}\b", PAGE), key


def test_the_page_names_every_kind_of_question_and_asks_one_of_each():
    for kind in Ask.__args__:
        assert f"| `{kind}` |" in PAGE
        assert f"ask: {kind}" in EXAMPLES[3]


def test_the_page_states_the_limits_and_milestones():
    assert f"at most {SIZE_MAX // 1024} KiB" in PAGE
    assert f"at most {DEPTH_MAX} values inside each other" in PAGE
    assert f"and {VALUES_MAX // 1000} 000 in all" in PAGE
    for milestone in MILESTONES:
        assert re.search(rf"[` ]{milestone}[` ]", PAGE), milestone
