"""The track: which steps of the run are worth going to."""

from __future__ import annotations

from msgspec import Struct


class Track(Struct, frozen=True):
    """Marks along the whole run.

    Attributes:
        milestones, crossings: numbers of the steps.
        questions: positions at which something is asked, and whether it was answered.
    """

    milestones: tuple[int, ...]
    crossings: tuple[int, ...]
    questions: tuple[tuple[int, bool], ...] = ()
