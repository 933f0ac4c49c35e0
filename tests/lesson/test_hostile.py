"""What is said about broken and hostile files: all of it, at its line, on one line each."""

from __future__ import annotations

import os
import re
from pathlib import Path

import hostile_lessons
import pytest
import yaml

from virtviz.errors import LessonError
from virtviz.lesson import loader
from virtviz.lesson.check import check

GOLDEN = Path(__file__).parent / "goldens" / "hostile.txt"
MESSAGE = re.compile(r"lesson\.yaml:[1-9]\d*:[1-9]\d*: \S.*")
LINE_MAX = 240


@pytest.fixture(params=["the quick parser", "the careful parser"])
def _either_parser(request, monkeypatch):
    if request.param == "the careful parser":
        monkeypatch.setattr(loader, "_PARSERS", (yaml.SafeLoader, yaml.SafeLoader))


@pytest.mark.usefixtures("_either_parser")
def test_every_hostile_example_gets_its_message_from_either_parser(tmp_path):
    # After an intended change: PYTHONPATH=. python tests/lesson/hostile_lessons.py > tests/lesson/goldens/hostile.txt
    assert hostile_lessons.transcript(tmp_path) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", hostile_lessons.EXAMPLES)
def test_every_message_has_a_place_and_fits_into_a_few_lines(name, tmp_path):
    said = hostile_lessons.messages(hostile_lessons.EXAMPLES[name], tmp_path)
    assert said
    for message in said:
        assert MESSAGE.fullmatch(message)
        assert message.isprintable()
        assert len(message) <= LINE_MAX


def test_the_good_lesson_of_the_examples_has_no_problem(tmp_path):
    assert hostile_lessons.messages(hostile_lessons.GOOD.encode(), tmp_path) == []


def problems_of(path: Path) -> list[str]:
    with pytest.raises(LessonError) as raised:
        loader.load(path)
    return [str(problem) for problem in raised.value.problems]


def test_a_folder_is_no_lesson(tmp_path):
    assert problems_of(tmp_path) == [f"{tmp_path}:1:1: this is a folder; name the lesson file in it"]


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "4-nothing.yaml"
    assert problems_of(path) == [f"{path}:1:1: there is no such file; `virtviz list` shows the lessons"]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "pipe.yaml"
    os.mkfifo(path)
    assert problems_of(path) == [f"{path}:1:1: this is not an ordinary file; a lesson is a YAML file"]


def test_a_path_that_no_system_can_open_is_a_problem_of_the_lesson():
    (said,) = problems_of(Path("a" * 5000))
    assert said.endswith("the file cannot be read: File name too long")


def test_a_file_much_larger_than_the_limit_is_not_read_whole(tmp_path):
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    (said,) = problems_of(path)
    assert said.endswith("the file is larger than 256 KiB; a lesson is shorter")


def test_many_different_problems_are_cut_off_and_counted(tmp_path):
    path = tmp_path / "many.yaml"
    settings = "".join(f"  setting-{i}: 1\n" for i in range(80))
    path.write_text(hostile_lessons.GOOD.replace("world: {flows: known, queue: {show: 8}}\n", f"world:\n{settings}"))
    said = problems_of(path)
    assert len(said) == 51
    assert said[-1].endswith("30 more problems from here on; correct the others first")
    assert all(len(message) < 1000 for message in said)


def test_text_that_is_too_large_is_refused_without_a_file():
    with pytest.raises(LessonError, match="larger than 256 KiB"):
        loader.load_text("#" * (256 * 1024 + 1))


def test_a_key_may_not_hold_control_characters_either(tmp_path):
    path = tmp_path / "key.yaml"
    path.write_text(hostile_lessons.GOOD.replace("minutes: 5", 'minutes: 5\n"\\a\\e[2J": 1'))
    said = problems_of(path)
    assert said[0] == f"{path}:6:1: a control character in a key; take it out"
    assert all(message.isprintable() for message in said)


def test_the_file_must_be_called_as_the_lesson(tmp_path):
    path = tmp_path / "5-other.yaml"
    path.write_text(hostile_lessons.GOOD)
    (problem,) = check(path)
    assert (problem.line, problem.where) == (2, "id")
    assert "call it `3-small.yaml`" in problem.what


def test_a_byte_order_mark_and_windows_line_ends_are_no_problem(tmp_path):
    path = tmp_path / "3-small.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + hostile_lessons.GOOD.replace("\n", "\r\n").encode())
    assert loader.load(path) == loader.load_text(hostile_lessons.GOOD)
