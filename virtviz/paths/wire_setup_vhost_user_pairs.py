"""Putting the set-up of a vhost-user port with several queue pairs together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.paths.setup import qemu_vhost_user
from virtviz.paths.wire_setup_pairs import PowerOnInPairs
from virtviz.paths.wire_setup_vhost_user import PowerOnWithVhostUser

if TYPE_CHECKING:
    from virtviz.engine.ops import Routine
    from virtviz.engine.places import Place


class PowerOnWithVhostUserInPairs(PowerOnWithVhostUser, PowerOnInPairs):
    """The beginning of a virtual machine behind a vhost-user port with several queue pairs.

    There is no TAP whose queues would be switched on and off: the back-end is told which pairs are in use.
    """

    def _change_pairs(self, name: str, place: Place) -> Routine:
        enable = self._talk(f"{name}.enable", place, qemu_vhost_user.enable(len(self.guests)))
        return qemu_vhost_user.ChangePairsByMessage(f"{name}.change_pairs", place, enable)
