"""What every switch of the host has: numbered ports, and sending a frame out of some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import Routine
from virtviz.paths.traffic import vm_endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.traffic import Item

MAC_BYTES = 6


class Stations:
    """What is behind which port: each virtual machine behind its TAP, everybody else behind the last port.

    Args:
        taps: names of the TAPs of the host's virtual machines, in the order of the machines.
        far: name of the last port.
        first: number of the first of these machines, from 0.

    Attributes:
        ports: name of each port; its number is its place in the list, from 1.
        far: number of the last port.
    """

    def __init__(self, taps: Sequence[str], far: str, first: int = 0) -> None:
        self.ports = [*taps, far]
        self.far = len(self.ports)
        self.first = first
        self._machines = {vm_endpoint(first + number).mac: number + 1 for number in range(len(taps))}

    def port_of(self, address: bytes) -> int:
        """Give the number of the port that an Ethernet address is behind."""
        return self._machines.get(address, self.far)

    def entry(self, item: Item) -> int:
        """Give the number of the port that a frame of the scenario enters the switch by."""
        port = item.vm - self.first + 1
        return port if item.outgoing and 0 < port < self.far else self.far

    def tunnel_key(self, port: int) -> int:
        """Give the tunnel key that frames come in with by a port; 0 for none."""
        return 0

    def outputs(self, frame: bytes | bytearray, port: int) -> int:
        """Decide where a frame goes, as a switch that has learned every address; answers ports as bits.

        Group addresses go everywhere, and nothing goes back to the port it came in by.
        """
        target = bytes(frame[:MAC_BYTES])
        wanted = (1 << self.far) - 1 if target[0] & 1 else 1 << self.port_of(target) - 1
        return wanted & ~(1 << port - 1)


class SwitchPorts:
    """The ports of a switch.

    Attributes:
        name: the switch's.
        pool: the host's packet memory.
        ports: name of each port; its number is its place in the list, from 1.
    """

    def __init__(self, name: str, pool: PacketPool, ports: Sequence[str]) -> None:
        self.name = name
        self.pool = pool
        self.ports = list(ports)

    def begin_actions(self, me: Context, outputs: int) -> None:
        """Note the ports the packet in hand is to be sent to, as bits."""
        if me.outputs != outputs:
            me.outputs = outputs

    def next_output(self, me: Context) -> tuple[str, bool]:
        """Take the next port to send to, and take the packet for it in hand; answers the port and if it is the last.

        Every port but the last gets a clone. The port is empty when none is left.
        """
        outputs = me.outputs
        bit = outputs & -outputs
        if bit == outputs:
            if me.held:
                me.skb, me.held = me.held, 0
            return self.ports[outputs.bit_length() - 1] if outputs else "", True
        me.held = me.held or me.skb
        me.outputs = outputs ^ bit
        me.skb = self.pool.copy(me.held, me.packet)
        return self.ports[bit.bit_length() - 1], False


class SendOut(Routine):
    """What sends a frame out of ports, one after the other: a copy to each but the last, and the frame itself there.

    Args:
        outputs: port name -> what sending to it is.
    """

    def __init__(self, name: str, place: Place, outputs: Mapping[str, Routine]) -> None:
        super().__init__(name, place)
        self.last_outputs = outputs
        self.outputs: Mapping[str, Routine] = {}

    def outputs_are_known(self) -> None:
        """Take note that every output has been put into the mapping; some of them lead back here."""
        self.outputs = {f"copy to {port}": routine for port, routine in self.last_outputs.items()}
