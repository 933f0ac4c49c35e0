"""What QEMU does about a malformed ring: it says so, marks the device broken, and wants it to be reset.

The step that meets the ring ends with the verdict; every word of it comes from the table in `ring/verdicts.py`. Then
comes `virtio_error`: the device asks for a reset in its status, and notes and tells a changed configuration. What QEMU
lets pass is said by the step that lets it pass.

Source: QEMU 10.0 hw/virtio/virtio.c (virtio_error, virtio_notify_config, virtqueue_pop).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.qemu_nic import NicRoutine
from virtviz.ring.verdicts import NAMES, RESET, judge, tell
from virtviz.spec.citation import QEMU_KVM, QEMU_VIRTIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.device_status import DeviceStatus
    from virtviz.paths.qemu_nic import Nic
    from virtviz.ring.rings import QemuRing
    from virtviz.ring.verdicts import Problem

BACK_END: Final = "qemu"


class NotifyConfig(Routine):
    """Note that the device's configuration changed, and interrupt: virtio_notify_config. Rows 4 and 5 of CONFIG.

    Args:
        interrupt: what makes the configuration's interrupt.
    """

    def __init__(self, name: str, place: Place, device: DeviceStatus, interrupt: Routine) -> None:
        super().__init__(name, place)
        self.device = device
        self.interrupt = interrupt

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the generation."""
        return {"generation": self.device.cells.generation}

    @op(
        "CONFIG.4",
        "note a changed configuration",
        "virtio_notify_config",
        QEMU_VIRTIO,
        spec="2.5.3",
        text=(
            "The configuration's generation is now {generation}: a driver that reads it in pieces can tell. The "
            "interrupt status says “configuration”."
        ),
    )
    def note_change(self, me: Context) -> None:
        self.device.note_change()

    @op(
        "CONFIG.5",
        "ask KVM for the configuration's interrupt",
        "kvm_irqchip_send_msi",
        QEMU_KVM,
        spec="4.1.5.4",
        text="The configuration has an interrupt vector of its own. QEMU asks KVM for it, whoever serves the queues.",
        to=call("interrupt", None),
    )
    def signal_change(self, me: Context) -> None: ...


class VirtioError(Routine):
    """A guest has misused a ring: virtio_error.

    Args:
        notify: tells the driver of the changed status.
        row: which row it is.
    """

    def __init__(self, name: str, place: Place, nic: Nic, queue: str, notify: NotifyConfig, row: str) -> None:
        super().__init__(name, place, queue)
        self.nic = nic
        self.notify = notify
        self.rows = {"error": row}

    @op(
        "error",
        "ask for a reset",
        "virtio_error",
        QEMU_VIRTIO,
        spec="2.1.2",
        text=(
            "QEMU prints its message, sets DEVICE_NEEDS_RESET in the device's status, and marks the device broken: no "
            "queue of it is served until it is reset."
        ),
        to=goto("notify"),
    )
    def ask_for_reset(self, me: Context) -> None:
        self.nic.ask_for_reset()


class CheckingRoutine(NicRoutine):
    """A routine of QEMU's that reads a ring and says what is wrong with it.

    Its texts have `{wrong}`, what made it stop, and `{passed}`, what this step let pass: empty, or a sentence with a
    blank before it.

    Args:
        error: what QEMU does about a malformed ring.
    """

    def __init__(self, name: str, place: Place, nic: Nic, queue: str, ring: QemuRing, error: VirtioError) -> None:
        super().__init__(name, place, nic, queue, ring)
        self.error = error

    def words(self, me: Context) -> Mapping[str, object]:
        """Give what QEMU's texts speak of, and the verdicts."""
        passed = self._said(self.mine.overlooked, refused=False)
        wrong = self._said(self.nic.cells.problem, refused=True)
        return {**super().words(me), "wrong": wrong, "passed": f" {passed}" if passed else ""}

    def _said(self, number: int, *, refused: bool) -> str:
        """Say the verdict on the state of that number; empty for 0."""
        if not number:
            return ""
        mine = self.mine
        return tell(judge(NAMES[number - 1], BACK_END, seen=mine.seen, expected=mine.expected, refused=refused))

    def refuse(self, problem: Problem) -> str:
        """Note a malformed state; answers the verdict."""
        nic = self.nic.cells
        nic.errors += 1
        nic.problem = NAMES.index(problem) + 1
        return RESET

    def let_pass(self, problem: Problem) -> None:
        """Note a state that this step lets pass."""
        self.mine.overlooked = NAMES.index(problem) + 1

    def forget_overlooked(self) -> None:
        """Forget what the step before let pass."""
        if self.mine.overlooked:
            self.mine.overlooked = 0
