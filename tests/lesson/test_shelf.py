"""What people may call a lesson."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hostile_lessons import GOOD

from virtviz.errors import LearnerError
from virtviz.lesson.shelf import UNNUMBERED, find, shelf


@pytest.fixture
def folder(tmp_path):
    for name in ("1-first", "2-second-way", "2-second", "12-second-best", "appendix"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.replace("id: 3-small", f"id: {name}"))
    (tmp_path / "lesson.schema.json").write_text("{}")
    return tmp_path


def test_the_shelf_is_ordered_by_number_and_knows_titles(folder):
    there = shelf(folder)
    assert [lesson.id for lesson in there] == ["1-first", "2-second", "2-second-way", "12-second-best", "appendix"]
    assert (there[0].number, there[0].title, there[0].level, there[0].minutes) == (1, "A small lesson", "beginner", 5)
    assert there[-1].number == UNNUMBERED


def test_a_broken_lesson_stays_on_the_shelf_and_says_so(folder):
    (folder / "3-broken.yaml").write_text("title: [")
    (broken,) = [lesson for lesson in shelf(folder) if lesson.broken]
    assert (broken.id, broken.title) == ("3-broken", "(cannot be read: see `virtviz check`)")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2-second", "2-second"),
        ("1", "1-first"),
        ("12", "12-second-best"),
        ("first", "1-first"),
        ("second", "2-second"),
        ("fi", "1-first"),
        ("12-", "12-second-best"),
        ("app", "appendix"),
        ("second-b", "12-second-best"),
        ("01", "1-first"),
    ],
)
def test_a_lesson_is_found_by_id_number_slug_or_beginning(folder, said, meant):
    assert find(said, folder) == folder / f"{meant}.yaml"


def test_what_could_be_several_lessons_lists_them(folder):
    with pytest.raises(LearnerError, match="`2` could be 2-second or 2-second-way; write more of it"):
        find("2", folder)
    with pytest.raises(LearnerError, match="could be 2-second, 2-second-way or 12-second-best"):
        find("sec", folder)


@pytest.mark.parametrize(
    "said", ["7", "nothing", "", "../1-first", "9" * 5000, "\x1b[31m", "a\0b", "²"], ids=lambda said: ascii(said[:20])
)
def test_what_is_no_lesson_lists_those_there_are(folder, said):
    with pytest.raises(LearnerError, match=r"there is 1-first, .* or appendix, or give the path") as raised:
        find(said, folder)
    assert str(raised.value).isprintable()


def test_a_path_is_taken_as_it_is(folder, tmp_path):
    assert find("somewhere/new.yaml", folder) == tmp_path.__class__("somewhere/new.yaml")
    assert find(str(folder / "1-first.yaml"), folder) == folder / "1-first.yaml"


def test_an_empty_shelf_says_so(tmp_path):
    assert shelf(tmp_path) == []
    with pytest.raises(LearnerError, match="there is none"):
        find("1", tmp_path)


def test_listing_the_shelf_imports_no_screen_no_graphs_and_no_schema_checker():
    code = (
        "import sys; from virtviz.lesson.shelf import shelf; assert shelf();"
        "print(*sorted({'textual', 'networkx', 'rich', 'jsonschema'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
