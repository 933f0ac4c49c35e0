"""The track: which steps of the run are worth going to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Track:
    """Marks along the whole run.

    Attributes:
        milestones, crossings: numbers of the steps.
        questions: positions at which something is asked, and whether it was answered.
    """

    milestones: tuple[int, ...]
    crossings: tuple[int, ...]
    questions: tuple[tuple[int, bool], ...] = ()
