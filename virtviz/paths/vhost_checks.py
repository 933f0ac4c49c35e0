"""What a queue of vhost-net does about a malformed ring: its verdict is the outcome of the step that met it.

vhost has one answer: it leaves the queue alone, asks for no kick, and tries again when one comes all the same. With
`device_checks` set to QEMU's checks or to the strictest ones the answer is to ask for a reset. Which it is, and every
word of it, comes from the table in `ring/verdicts.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import goto, op
from virtviz.paths.vhost import VhostRoutine
from virtviz.ring.verdicts import NAMES, judge, refused_by, tell
from virtviz.spec.citation import QEMU_VIRTIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.vhost import VhostQueue
    from virtviz.ring.verdicts import Problem


class GiveUp(VhostRoutine):
    """Ask for a reset, then end the round.

    Args:
        row: which row it is.
        after: what ends the round.
    """

    def __init__(self, name: str, place: Place, queue: VhostQueue, row: str, after: Routine) -> None:
        super().__init__(name, place, queue)
        self.rows = {"reset": row}
        self.after = after

    @op(
        "reset",
        "ask for a reset",
        "virtio_error",
        QEMU_VIRTIO,
        spec="2.1.2",
        text=(
            "The device sets DEVICE_NEEDS_RESET in its status and notes a changed configuration. It serves no queue "
            "until it is reset."
        ),
        to=goto("after"),
    )
    def give_up(self, me: Context) -> None:
        self.q.device.give_up()


class CheckingRoutine(VhostRoutine):
    """A routine that reads a ring and says what is wrong with it.

    Its texts have `{wrong}`, what made it stop, and `{passed}`, what this step let pass: empty, or a sentence with a
    blank before it.

    Args:
        row: the row in which a reset is asked for.
        after: what ends the round once a reset was asked for.
    """

    def __init__(self, name: str, place: Place, queue: VhostQueue, row: str, after: Routine) -> None:
        super().__init__(name, place, queue)
        self.ask_for_reset = GiveUp(f"{name}.give_up", place, queue, row, after)
        self._refused = refused_by(queue.back_end)

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what vhost's texts speak of, and the verdicts."""
        return {**super().words(me), "wrong": self._said(self.q.cells.problem), "passed": self._said_of_passed()}

    def _said_of_passed(self) -> str:
        said = self._said(self.mine.overlooked, refused=False)
        return f" {said}" if said else ""

    def _said(self, number: int, *, refused: bool = True) -> str:
        """Say the verdict on the state of that number; empty for 0."""
        if not number:
            return ""
        mine = self.mine
        verdict = judge(NAMES[number - 1], self.q.back_end, seen=mine.seen, expected=mine.expected, refused=refused)
        return tell(verdict)

    def refuse(self, problem: Problem) -> str:
        """Note a malformed state; answers the verdict."""
        queue = self.q.cells
        queue.errors += 1
        queue.problem = NAMES.index(problem) + 1
        return judge(problem, self.q.back_end).what

    def minds(self, problem: Problem) -> bool:
        """Say whether this back-end minds a state; if not, it is noted as let pass."""
        if problem in self._refused:
            return True
        self.let_pass(problem)
        return False

    def let_pass(self, problem: Problem) -> None:
        """Note a state that this step lets pass."""
        self.mine.overlooked = NAMES.index(problem) + 1
