"""Putting the host's switch together: one of two kinds, with the TAP of each virtual machine and one far port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from virtviz.paths.host_net import LocalSoftirqs
from virtviz.paths.parts import HOST_STACK, TAP
from virtviz.paths.switch_ports import Stations
from virtviz.paths.tap import TapSendmsg
from virtviz.paths.wire_bridge import BridgeSwitch
from virtviz.paths.wire_far import FarEnd
from virtviz.paths.wire_ovs import OvsSwitch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_backend import Backend


class Switch(Protocol):
    """A kind of switch, made without what is behind its ports.

    Attributes:
        receive: what takes a frame that enters by a port.
        threads: threads of its own that send frames.
    """

    receive: Routine
    threads: list[Thread]

    def connect(self, outputs: Mapping[str, Routine], poll: Routine | None) -> None:
        """Join it with its ports.

        Args:
            outputs: port name -> what transmitting on it is.
            poll: works off the softirqs that a transmission raises, if any.
        """


SWITCHES: Final[Mapping[str, Callable[[Parts, Stations], Switch]]] = {"ovs": OvsSwitch, "bridge": BridgeSwitch}
"""Values of the knob `switch`."""


class SwitchBuilder:
    """Makes the switch and what is behind it.

    Args:
        parts: the world in the making.
        backend: whose TAP is the switch's first port.
        tap_xmit: transmission on that TAP.

    Attributes:
        wire: what comes in from outside, and when.
        sendmsg: what handing frames to the TAP leads to.
    """

    def __init__(self, parts: Parts, backend: Backend, tap_xmit: Routine) -> None:
        far = FarEnd(parts, 2)
        stations = Stations([backend.tap.name], far.name)
        switch = SWITCHES[parts.world.word("switch")](parts, stations)
        self.wire = far.wire
        far_xmit, poll = far.make(switch.receive, [backend.thread, *switch.threads])
        switch.connect({backend.tap.name: tap_xmit, far.name: far_xmit}, poll)
        softirq = poll and LocalSoftirqs("host.bh_enable", HOST_STACK, parts.backlogs, poll)
        self.sendmsg = TapSendmsg("tap0.sendmsg", TAP, backend.tap, backend.tx, 1, switch.receive, softirq)
