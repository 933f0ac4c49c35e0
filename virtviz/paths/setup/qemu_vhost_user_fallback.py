"""QEMU and a back-end that knows no protocol features: vhost is not started, and QEMU serves the queues. Row CP.6.19.

By the protocol the rings of such a back-end are on from the start, for it has no message that would switch them on.
QEMU 10.0 wants to switch them on all the same, before anything else, finds that it cannot, and takes that for an error.

Source: QEMU 10.0 hw/net/vhost_net.c (vhost_net_start, vhost_set_vring_enable), hw/virtio/vhost-user.c
(vhost_user_set_vring_enable), docs/interop/vhost-user.rst ("Ring states"); the messages are those of
setup-vhost-user.txt, section D.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.setup.qemu_userspace import FallsBack
from virtviz.paths.setup.qemu_vhost import UntieEventfds
from virtviz.paths.setup.qemu_vhost_user import StartVhostUser
from virtviz.spec.setup_sources import QEMU_VHOST_NET, QEMU_VHOST_USER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.calls import Calls
    from virtviz.paths.setup.state import SetUp

EINVAL: Final = 22


class TellNothing(Routine):
    """Wherever other back-ends are told which queue pairs are in use."""

    @op(
        "CP.6.19",
        "find no message for it",
        "vhost_user_set_vring_enable",
        QEMU_VHOST_USER,
        text=(
            "SET_VRING_ENABLE is for back-ends that know protocol features, and this one does not: nothing is sent, "
            "and the error is not looked at."
        ),
        to=RETURN,
        private=True,
    )
    def refuse(self, me: Context) -> None: ...


class StartVhostUserInVain(StartVhostUser, FallsBack):
    """What happens inside the guest's store of DRIVER_OK, up to the error, and after it.

    Args:
        undo: unties what was tied.
        userspace: QEMU's own start.
    """

    first = "start"
    retold: ClassVar = {
        "after_unmask": {
            "text": {
                "another": "The same for the next queue.",
                "addresses": "A call would reach the guest without QEMU. Now the back-end itself.",
                "start": "A call would reach the guest without QEMU. Now the back-end itself.",
            },
            "to": {"another": goto("update_route"), "addresses": goto("tell_features"), "start": goto("tell_features")},
        },
        "tell_all": None,
    }

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        calls: Calls,
        *,
        interrupts_first: bool,
        undo: Routine,
        userspace: Routine,
    ) -> None:
        super().__init__(name, place, setup, calls, {}, interrupts_first=interrupts_first)
        self.undo = undo
        self.userspace = userspace

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the error too."""
        return {**super().words(me), "errno": EINVAL}

    @op(
        "CP.6.19",
        "find that the rings cannot be switched on",
        "vhost_net_start",
        QEMU_VHOST_NET,
        text=(
            "Its rings are to be switched on, but without protocol features there is no message for that: EINVAL (22). "
            "By the protocol they are on anyway."
        ),
        to=call("undo", "fall_back"),
        private=True,
    )
    def tell_features(self, me: Context) -> None: ...


class UntieAfterError(UntieEventfds):
    """What was tied is untied again."""

    retold: ClassVar = {
        "after_port": {
            "text": {
                "another": "The same for the next queue.",
                "stopped": "Everything is as it was before the start.",
            }
        }
    }
