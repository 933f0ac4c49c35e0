"""Putting the host's switch together: one of two kinds, with the TAP of each virtual machine and one far port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from virtviz.paths.wire_far import FarEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.switch_ports import Stations
    from virtviz.paths.wire_bridge import BridgeSwitch
    from virtviz.paths.wire_ovs import OvsSwitch
    from virtviz.paths.wiring import TapBackend


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


def _ovs(parts: Parts, stations: Stations) -> OvsSwitch:
    """Make Open vSwitch, with what a tunnel needs where one of its ports is one."""
    if parts.world["tunnel"] == "none":
        from virtviz.paths.wire_ovs import OvsSwitch  # noqa: PLC0415 - where it is the switch only

        return OvsSwitch(parts, stations)
    from virtviz.paths.wire_tunnel import OvsTunnelSwitch  # noqa: PLC0415 - where there is a tunnel only

    return OvsTunnelSwitch(parts, stations)


def _bridge(parts: Parts, stations: Stations) -> BridgeSwitch:
    """Make a Linux bridge."""
    from virtviz.paths.wire_bridge import BridgeSwitch  # noqa: PLC0415 - where it is the switch only

    return BridgeSwitch(parts, stations)


SWITCHES: Final[Mapping[str, Callable[[Parts, Stations], Switch]]] = {"ovs": _ovs, "bridge": _bridge}
"""Values of the knob `switch`."""


class TapPort(Struct, frozen=True):
    """A port of the switch that is a TAP, for the back-end that holds the TAP.

    Attributes:
        number: the port's number, from 1.
        receive: what takes the frames that come out of the TAP.
        poll: works off the softirqs that such a frame raises in the thread itself; None where it raises none.
    """

    number: int
    receive: Routine
    poll: Routine | None


class SwitchBuilder:
    """Makes the switch and what is behind it.

    Args:
        parts: the world in the making.
        backends: whose TAPs are the switch's first ports, in this order.

    Attributes:
        wire: what comes in from outside, and when.
        ports: for each back-end, its port.
    """

    def __init__(self, parts: Parts, backends: Sequence[TapBackend]) -> None:
        far = _far_end(parts)(parts, len(backends) + 1)
        stations = far.stations([backend.tap.name for backend in backends])
        switch = SWITCHES[parts.world.word("switch")](parts, stations)
        self.wire = far.wire
        far_xmit, poll = far.make(
            switch.receive, [*(thread for backend in backends for thread in backend.threads), *switch.threads]
        )
        switch.connect({backend.tap.name: backend.tap_transmit() for backend in backends} | {far.name: far_xmit}, poll)
        self.ports = [TapPort(number, switch.receive, poll) for number, _ in enumerate(backends, 1)]


def _far_end(parts: Parts) -> type[FarEnd]:
    """Choose what makes the last port."""
    if parts.world["path"] == "program":
        from virtviz.paths.wire_program import ProgramFarEnd  # noqa: PLC0415 - where there is a program only

        return ProgramFarEnd
    if parts.world["tunnel"] == "none":
        return FarEnd
    from virtviz.paths.wire_tunnel import TunnelEnd  # noqa: PLC0415 - where there is a tunnel only

    return TunnelEnd
