"""Putting a Linux bridge together, in place of Open vSwitch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.paths.bridge import Bridge, BridgeFrame
from virtviz.paths.parts import BRIDGE
from virtviz.paths.switch_ports import MAC_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.parts import Parts
    from virtviz.paths.switch_ports import Stations


class BridgeSwitch:
    """A Linux bridge.

    Args:
        parts: the world in the making.
        stations: its ports, and what is behind each.

    Attributes:
        receive: what takes a frame that enters by a port.
        threads: none; a bridge asks nobody.
    """

    def __init__(self, parts: Parts, stations: Stations) -> None:
        self.threads: list[Thread] = []
        name = parts.called("bridge")
        self.bridge = bridge = Bridge(parts.state, name, parts.host_pool, stations.ports)
        self.outputs: dict[str, Routine] = {}
        self.frame = BridgeFrame(f"{name}.frame", BRIDGE, bridge, self.outputs)
        self.receive: Routine = self.frame
        parts.drops[f"{name}.dropped"] = lambda: bridge.cells.dropped
        if parts.world["flows"] == "known":
            for number in range(1, len(parts.traffic.items) + 1):
                frame = parts.traffic.frame(number)
                for address in (frame[:MAC_BYTES], frame[MAC_BYTES : 2 * MAC_BYTES]):
                    bridge.learn(address, stations.port_of(address))

    def connect(self, outputs: Mapping[str, Routine], poll: Routine | None) -> None:
        """Join it with its ports: port name -> what transmitting on it is."""
        self.outputs |= outputs
        self.frame.outputs_are_known()
