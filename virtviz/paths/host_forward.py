"""The host as a router: packets of a TUN are forwarded by its IP, and get Ethernet headers at the card. TUN-TX, TUN-RX.

Where a switch looks at the Ethernet address and leaves the packet as it is, a router looks at the IP address, counts
the packet's time to live down, and gives it an Ethernet header of its own.

Source: Linux 6.12 net/ipv4/ip_input.c, route.c, ip_forward.c, ip_output.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.host_net import Wire
from virtviz.paths.traffic import vm_endpoint
from virtviz.spec.citation import IP_FORWARD, IP_INPUT, IP_OUTPUT, IP_ROUTE
from virtviz.spec.frames import ETH_HEADER_BYTES, ETHERTYPE_IPV4, IPV4_HEADER_BYTES, Endpoint, checksum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import HeadroomPool, PacketPool

HOST: Final = Endpoint.numbered(0, 1)
"""This host on the network of its card: 10.0.0.1."""
NETWORK: Final = HOST.ip[:3]
"""The beginning of every address on the card's network, 10.0.0.0/24."""
_TTL, _SUM, _TARGET = 8, 10, 16
"""Where these fields are in an IPv4 header."""


@cells
class ForwardCells(Cells):
    """Packets that the host's IP has dropped.

    Attributes:
        in_errors: no IPv4, damaged, or not for this station.
        no_route: for an address that no route leads to.
        expired: whose time to live was used up.
    """

    in_errors: int = 0
    no_route: int = 0
    expired: int = 0


class Router:
    """The host's IP with two devices: the TUN, behind which is one address, and the card, behind which is a network.

    Attributes:
        pool: the host's packet memory.
        tun, card: the devices' names.
        behind: the IP address behind the TUN.
    """

    def __init__(self, state: State, pool: HeadroomPool, tun: str, card: str) -> None:
        self.pool = pool
        self.tun, self.card = tun, card
        self.behind = vm_endpoint(0).ip
        self.cells = state.add(ForwardCells, "host_ip")

    def route(self, target: bytes) -> str:
        """Give the device that a packet for an address leaves by; empty if there is no route."""
        if target == self.behind:
            return self.tun
        return self.card if target[:3] == NETWORK and target != HOST.ip else ""


class Forward(Routine):
    """A packet comes to the host's IP and is sent on: from the TUN, rows 4 to 6 of TUN-TX.

    Attributes:
        to_tun, to_card: transmission on the devices; set when they are made.
    """

    to_tun: Routine
    to_card: Routine

    def __init__(self, name: str, place: Place, router: Router) -> None:
        super().__init__(name, place)
        self.router = router

    def words(self, me: Context) -> Mapping[str, object]:
        """Name devices and addresses."""
        target = bytes(self.router.pool.data(me.skb)[_TARGET : _TARGET + 4]) if me.skb else b""
        return {"tun": self.router.tun, "card": self.router.card, "target": ".".join(map(str, target))}

    def _drop(self, me: Context) -> str:
        self.router.pool.release(me.skb)
        return DROPPED

    def packet(self, me: Context) -> bytes:
        """Give the IP packet that has come in; empty if it is none for this host."""
        return bytes(self.router.pool.data(me.skb))

    @op(
        {"": "TUN-TX.4"},
        "receive by the host's IP",
        "ip_rcv",
        IP_INPUT,
        text={
            "good": "The host's own IP has the packet, and its header is undamaged.",
            DROPPED: "This is no IPv4 packet, or its header is damaged: the host's IP drops it.",
        },
        to={"good": goto("find_route"), DROPPED: RETURN},
        cost="stack",
    )
    def ip_receive(self, me: Context) -> str:
        packet = self.packet(me)
        if len(packet) >= IPV4_HEADER_BYTES and packet[0] == 0x45 and not checksum(packet[:IPV4_HEADER_BYTES]):
            return "good"
        self.router.cells.in_errors += 1
        return self._drop(me)

    @op(
        {"": "TUN-TX.4"},
        "find the route",
        "ip_route_input_noref",
        IP_ROUTE,
        text={
            "tun": "{target} is not this host: forward it. The routing table says: by {tun}.",
            "card": "{target} is not this host: forward it. The routing table says: by {card}.",
            DROPPED: "No route leads to {target}: the host's IP drops the packet.",
        },
        to={"tun": goto("forward_to_tun"), "card": goto("forward_to_card"), DROPPED: RETURN},
        cost="route",
    )
    def find_route(self, me: Context) -> str:
        router = self.router
        device = router.route(bytes(router.pool.data(me.skb)[_TARGET : _TARGET + 4]))
        if device:
            return "tun" if device == router.tun else "card"
        router.cells.no_route += 1
        return self._drop(me)

    def _forward(self, me: Context) -> str:
        """Count the time to live down, and correct the checksum by that (ip_decrease_ttl)."""
        pool = self.router.pool
        header = pool.data(me.skb)[:IPV4_HEADER_BYTES]
        if header[_TTL] <= 1:
            self.router.cells.expired += 1
            return self._drop(me)
        header[_TTL] -= 1
        header[_SUM : _SUM + 2] = b"\0\0"
        header[_SUM : _SUM + 2] = checksum(bytes(header)).to_bytes(2, "big")
        pool.rewrite(me.skb, bytes(header))
        return "forwarded"

    @op(
        {"": "TUN-TX.5"},
        "forward the packet",
        "ip_forward",
        IP_FORWARD,
        text={
            "forwarded": "A router counts the time to live down by 1, and corrects the checksum. A switch would not.",
            DROPPED: "The packet's time to live is used up: dropped, and an ICMP error tells its sender.",
        },
        to={"forwarded": goto("add_ethernet"), DROPPED: RETURN},
    )
    def forward_to_card(self, me: Context) -> str:
        return self._forward(me)

    @op(
        {"": "TUN-TX.6"},
        "add the Ethernet header",
        "ip_finish_output2",
        IP_OUTPUT,
        text=(
            "Only here does the packet get an Ethernet header, 14 bytes: from {card}'s own address to that of its "
            "neighbour {target}."
        ),
        to=call("to_card", None),
    )
    def add_ethernet(self, me: Context) -> None:
        pool = self.router.pool
        neighbour = Endpoint.numbered(*pool.data(me.skb)[_TARGET + 2 : _TARGET + 4])
        pool.push(me.skb, neighbour.mac + HOST.mac + ETHERTYPE_IPV4.to_bytes(2, "big"))

    @op(
        {"": "TUN-RX.2"},
        "forward the packet",
        "ip_forward",
        IP_FORWARD,
        text={
            "forwarded": "A router counts the time to live down by 1, and corrects the checksum. A switch would not.",
            DROPPED: "The packet's time to live is used up: dropped, and an ICMP error tells its sender.",
        },
        to={"forwarded": goto("leave_by_tun"), DROPPED: RETURN},
    )
    def forward_to_tun(self, me: Context) -> str:
        return self._forward(me)

    @op(
        {"": "TUN-RX.3"},
        "leave without Ethernet header",
        "ip_finish_output2",
        IP_OUTPUT,
        text="{tun} has no Ethernet address and asks for no neighbour's: the IP packet leaves as it is.",
        to=call("to_tun", None),
    )
    def leave_by_tun(self, me: Context) -> None: ...


class ForwardFromCard(Forward):
    """The same for what the card has received: from row 1 of TUN-RX."""

    rows: Mapping[str, str] = {"TUN-TX.4": "TUN-RX.1"}

    @op(
        "TUN-RX.1",
        "receive by the host's IP",
        "ip_rcv",
        IP_INPUT,
        text={
            "good": "The card is no port of a switch: the host's own IP has the packet. Its Ethernet header is done.",
            DROPPED: "The frame is not for this station, no IPv4, or damaged: the host's IP drops it.",
        },
        to={"good": goto("find_route"), DROPPED: RETURN},
        cost="stack",
    )
    def ip_receive(self, me: Context) -> str:
        return super().ip_receive(me) or ""

    def packet(self, me: Context) -> bytes:
        """Take the Ethernet header off, and give what was in it if it is an IP packet for this station."""
        pool = self.router.pool
        header = bytes(pool.data(me.skb)[:ETH_HEADER_BYTES])
        pool.pull(me.skb, ETH_HEADER_BYTES)
        if header[:6] != HOST.mac or header[12:] != ETHERTYPE_IPV4.to_bytes(2, "big"):
            return b""
        return bytes(pool.data(me.skb))


class RoutedWire(Wire):
    """What comes in from far hosts: frames for this host's own Ethernet address, because it is the router."""

    def write(self, pool: PacketPool, slot: int, packet: int) -> None:
        """Write a frame as it comes in into its slot."""
        frame = self.traffic.frame(packet)
        target = frame[:6] if frame[0] & 1 else HOST.mac
        pool.fill(slot, frame[ETH_HEADER_BYTES:])
        pool.push(slot, target + frame[6:ETH_HEADER_BYTES])  # type: ignore[attr-defined]
