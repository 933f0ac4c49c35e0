"""Putting the set-up of vhost-user together where the back-end knows no protocol features, and so gets no device."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from virtviz.paths.parts import QEMU_VCPU
from virtviz.paths.setup.qemu_vhost_user_fallback import StartVhostUserInVain, TellNothing, UntieAfterError
from virtviz.paths.wire_setup_vhost_user import PowerOnWithVhostUser

if TYPE_CHECKING:
    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place
    from virtviz.paths.setup.calls import VhostCalls


class PowerOnWithVhostUserInVain(PowerOnWithVhostUser):
    """The beginning of a virtual machine whose vhost-user back-end cannot be started."""

    extended: ClassVar[bool] = False

    def _enable(self, what: str, place: Place) -> Routine:
        return TellNothing(f"{self.port.name}.{what}", place)

    def _start_and_stop(self, vhost: VhostCalls | None) -> tuple[Routine, Routine]:
        setup, calls, name = self.setup, self.calls, self.guest.name
        userspace = self.start_in_qemu(f"{name}.start_in_qemu", QEMU_VCPU, setup, calls, self._self_kicks())
        start = StartVhostUserInVain(
            f"{name}.start_vhost_user",
            QEMU_VCPU,
            setup,
            calls,
            interrupts_first=self.is_7_2,
            undo=UntieAfterError(f"{name}.untie", QEMU_VCPU, setup, calls, vhost),
            userspace=userspace,
        )
        return start, self.stop_in_qemu(f"{name}.stop_in_qemu", QEMU_VCPU, setup, calls)
