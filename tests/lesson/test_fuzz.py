"""Mutated lessons: each is a lesson, or its problems are told with their lines; nothing else ever happens."""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from pathlib import Path
from random import Random
from resource import RUSAGE_SELF, getrusage

import pytest
from hostile_lessons import EXAMPLES, GOOD
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutate

from virtviz.errors import LessonError
from virtviz.lesson.check import examine_text
from virtviz.lesson.loader import SIZE_MAX, load
from virtviz.lesson.marks import PROBLEMS_MAX
from virtviz.lesson.model import Lesson
from virtviz.lesson.shelf import shelf

LESSONS = [GOOD.encode(), *(lesson.path.read_bytes() for lesson in shelf())]
BROKEN = list(EXAMPLES.values())
SECONDS_MAX = 5.0
"""Processor time that one file may take; the longest allowed take a fraction of it."""
GROWTH_MAX = 2 << 20
"""Bytes that may stay behind after hundreds of files: caches of the interpreter and of the parser."""
RESIDENT_GROWTH_MAX_KB = 48 << 10
"""So much may come on top in the last three quarters of a campaign; one of the largest files takes half of it."""


def resident_kb() -> int:
    """Give how much memory the process has, or, where the system does not say, has had."""
    status = Path("/proc/self/status")
    if not status.exists():
        return getrusage(RUSAGE_SELF).ru_maxrss
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


def try_one(data: bytes, path) -> bool:
    """Load a file; answers whether it is a lesson. Anything but a lesson or well-formed problems fails."""
    path.write_bytes(data)
    begun = time.process_time()
    lesson, problems = None, []
    try:
        lesson = load(path)
    except LessonError as error:
        problems = error.problems
    assert time.process_time() - begun < SECONDS_MAX
    assert isinstance(lesson, Lesson) != bool(problems)
    assert len(problems) <= PROBLEMS_MAX + 1
    for problem in problems:
        assert 1 <= problem.line <= data.count(b"\n") + 1, problem
        assert problem.column >= 1
        assert problem.path == str(path)
        assert (problem.where + problem.what).isprintable(), problem
    return lesson is not None and len(data) <= SIZE_MAX


def fuzz(seconds: float, path, seed: int) -> tuple[int, int]:
    """Break lessons for so long; answers how many were tried, and how many still were lessons."""
    random, tried, fine = Random(seed), 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(random.choice(LESSONS if random.random() < 0.7 else BROKEN), random)
        tried += 1
        try:
            fine += try_one(data, path)
        except BaseException:
            (path.parent / "failed.yaml").write_bytes(data)
            raise
    return tried, fine


def test_mutated_lessons_are_lessons_or_have_their_problems_told(tmp_path):
    tried, fine = fuzz(4.0, tmp_path / "lesson.yaml", seed=1)
    assert tried > 50
    assert 0 < fine < tried


def test_reading_many_broken_files_keeps_no_memory(tmp_path):
    path, random = tmp_path / "lesson.yaml", Random(2)
    files = [mutate(random.choice(LESSONS), random) for _ in range(15)]
    for data in files:
        try_one(data, path)
    tracemalloc.start()
    try:
        for data in files:
            try_one(data, path)
        before, _ = tracemalloc.get_traced_memory()
        for data in files * 2:
            try_one(data, path)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < GROWTH_MAX


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_at_all_is_answered(text):
    checked = examine_text(text)
    assert checked.problems
    assert checked.reading is None


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_at_all_are_answered(tmp_path_factory, data):
    try_one(data, tmp_path_factory.getbasetemp() / "bytes.yaml")


def test_broken_lessons_that_can_be_read_can_be_checked():
    random, checked = Random(3), 0
    while checked < 15:
        text = mutate(GOOD.encode(), random).decode("utf-8", "replace")
        found = examine_text(text)
        if found.reading is not None:
            checked += 1
            assert all(problem.line >= 1 for problem in found.problems + found.warnings)


@pytest.mark.campaign
def test_campaign_a_minute_of_mutated_lessons(tmp_path, capsys):
    seed, tried, fine, sizes = time.time_ns(), 0, 0, []
    for part in range(4):
        more, lessons = fuzz(15.0, tmp_path / "lesson.yaml", seed + part)
        tried, fine = tried + more, fine + lessons
        gc.collect()
        sizes.append(resident_kb())
    with capsys.disabled():
        sys.stdout.write(f" {tried} files, {fine} of them lessons, resident after each quarter: {sizes} KB ")
    assert 0 < fine < tried, f"seed {seed}"
    assert sizes[-1] - sizes[0] < RESIDENT_GROWTH_MAX_KB, f"seed {seed}"
