"""Every exception class of virtviz, in one tree.

    VirtvizError
    ├── LearnerError            a file, an argument or a setting is wrong; the message says what to do instead
    │   ├── LessonError         a lesson file has problems (all of them, each with line and column)
    │   ├── KnobError           a setting of the simulated machine is unknown, out of range or not allowed with another
    │   ├── CaptureError        a capture file cannot be read or written
    │   └── TraceFileError      a recorded trace cannot be read back
    └── ModelError              the model itself is wrong; never the user's fault
        ├── LinkError           an op table does not hold together
        ├── NoBorderError       an arc joins two places that have no border in common
        ├── UndeclaredOutcome   an op answered with an outcome that its table does not name
        └── CapacityError       a fixed-size store of the model (packets, work items) ran out

Learner errors are shown without a traceback. Model errors carry the step, the thread and the op where they arose.
"""

from __future__ import annotations

from msgspec import Struct


def printable(name: str) -> str:
    """Spell a file's name with nothing in it that a terminal would obey: control characters become escapes."""
    return name if name.isprintable() else ascii(name)[1:-1]


class VirtvizError(Exception):
    """Base of everything virtviz raises on purpose."""


class LearnerError(VirtvizError):
    """Something the person gave is wrong; the message says what, where and what to do instead."""


class Problem(Struct, frozen=True, order=True):
    """One thing wrong with a lesson file.

    Attributes:
        line: line in the file, from 1.
        column: column in that line, from 1.
        where: dotted path of the key, such as `script.slow-worker.when.op`; empty for the file as a whole.
        what: what is wrong, and what to write instead.
        path: the file as the person named it.
    """

    line: int
    column: int
    where: str
    what: str
    path: str = ""

    def __str__(self) -> str:
        """Give `file:line:column: where: what`, the form editors and terminals turn into a link."""
        where = f"{self.where}: " if self.where else ""
        return f"{printable(self.path)}:{self.line}:{self.column}: {where}{self.what}"


class LessonError(LearnerError):
    """A lesson file has problems; `problems` holds all of them, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(map(str, self.problems)))


class KnobError(LearnerError):
    """A setting of the simulated machine is unknown, out of range, or not allowed together with another.

    Attributes:
        knob: the knob's name as given, such as `queue.size`.
    """

    def __init__(self, knob: str, message: str) -> None:
        self.knob = knob
        super().__init__(message)


class CaptureError(LearnerError):
    """A capture file cannot be read or written."""


class TraceFileError(LearnerError):
    """A recorded trace cannot be read back: wrong format, wrong version, or cut short."""


class ModelError(VirtvizError):
    """The model is wrong. This is a defect in virtviz, not in what the person gave."""


class LinkError(ModelError):
    """An op table does not hold together: duplicate names, dangling targets, unreachable or uncited ops."""


class NoBorderError(LinkError):
    """An arc joins two places between which no crossing exists."""


class UndeclaredOutcome(ModelError):  # noqa: N818 - reads as what happened
    """An op answered with an outcome that its table does not name."""


class CapacityError(ModelError):
    """A fixed-size store of the model ran out; queues of the real system drop before this can happen."""
