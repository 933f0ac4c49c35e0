"""The shelf: which lessons there are, and which one is meant.

A lesson is called `<number>-<slug>`; people may say the whole, the number, the slug, or the beginning of either, or
give the path of a file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from msgspec import Struct

from virtviz.errors import LearnerError, LessonError
from virtviz.lesson.loader import load
from virtviz.lesson.marks import shown
from virtviz.resources import data_folder

_NUMBERED: Final = re.compile(r"([0-9]{1,6})-(.+)")
_NUMBER: Final = re.compile(r"[0-9]{1,6}")
UNNUMBERED: Final = 1 << 30
"""Lessons without a number stand at the end of the shelf."""


class Shelved(Struct, frozen=True):
    """A lesson on the shelf.

    Attributes:
        number: orders the shelf; `UNNUMBERED` for a lesson without one.
        id: number and slug.
        title, level, minutes: as the lesson says; of a lesson that cannot be read, the title says so.
        path: its file.
        broken: it cannot be read; `virtviz check` says why.
    """

    number: int
    id: str
    title: str
    level: str
    minutes: int
    path: Path
    broken: bool = False


def shelf(folder: Path | None = None) -> list[Shelved]:
    """List the lessons of a folder, or of those that come with virtviz, in order."""
    return [_shelved(path) for path in _files(folder)]


def _files(folder: Path | None) -> list[Path]:
    there = (folder or data_folder("lessons")).glob("*.yaml")
    return sorted(there, key=lambda path: (number_of(path.stem), path.stem))


def _shelved(path: Path) -> Shelved:
    number = number_of(path.stem)
    try:
        lesson = load(path)
    except LessonError:
        return Shelved(number, path.stem, "(cannot be read: see `virtviz check`)", "", 0, path, broken=True)
    return Shelved(number, path.stem, lesson.title, lesson.level, lesson.minutes, path)


def number_of(name: str) -> int:
    """Give the number in a lesson's id."""
    found = _NUMBERED.fullmatch(name)
    return int(found[1]) if found else UNNUMBERED


def find(name: str, folder: Path | None = None) -> Path:
    """Find the file of the lesson that a person means.

    The first of these that fits: the exact id, the exact number, the exact slug, the beginning of exactly one id or
    slug, a path.

    Raises:
        LearnerError: none fits, or several do; the message names them.
    """
    files = {path.stem: path for path in _files(folder)}
    slugs = {stem: found[2] if (found := _NUMBERED.fullmatch(stem)) else stem for stem in files}
    by_number = [stem for stem in files if _NUMBER.fullmatch(name) and number_of(stem) == int(name)]
    by_slug = [stem for stem, slug in slugs.items() if slug == name]
    by_beginning = [stem for stem, slug in slugs.items() if name and (stem.startswith(name) or slug.startswith(name))]
    for fitting in ([name] if name in files else [], by_number, by_slug, by_beginning):
        if len(fitting) == 1:
            return files[fitting[0]]
        if fitting:
            raise LearnerError(f"{shown(name)} could be {_either(fitting)}; write more of it")
    if name.endswith((".yaml", ".yml")) or _is_file(name):
        return Path(name)
    there = _either([*files]) if files else "none"
    raise LearnerError(f"there is no lesson {shown(name)}; there is {there}, or give the path of a .yaml file")


def _is_file(name: str) -> bool:
    try:
        return bool(name) and Path(name).is_file()
    except (OSError, ValueError):
        # Longer than any path, or with a NUL in it.
        return False


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
