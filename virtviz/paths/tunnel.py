"""A tunnel to another host, outward: the device that Open vSwitch sends to, and the host's own IP below it. TUNNEL-TX.

The frame of a guest becomes the content of a UDP packet of the host. All of it runs in the thread that sends, between
the switch and the network card: it is the second time that a network stack works on the packet, after the guest's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.host_net import Wire
from virtviz.spec.citation import (
    GENEVE_DRIVER,
    IP_OUTPUT,
    IP_TUNNEL_CORE,
    UDP_TUNNEL_CORE,
    VXLAN_DRIVER,
)
from virtviz.spec.frames import ETH_HEADER_BYTES, Endpoint
from virtviz.spec.tunnels import (
    INNER_MTU,
    OUTER_BYTES,
    TUNNEL_HEADER_BYTES,
    UNDERLAY_MTU,
    VXLAN,
    must_stay_whole,
    outer_ethernet,
    outer_headers,
    outer_ipv4,
    source_port,
    tunnel_header,
    udp_header,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.ops import OpSpec
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.packets import HeadroomPool, PacketPool
    from virtviz.paths.traffic import Traffic
    from virtviz.spec.citation import Source
    from virtviz.spec.tunnels import TunnelKind

HERE: Final = Endpoint.numbered(1, 1)
"""The first host on the network between the hosts: 10.0.1.1."""
THERE: Final = Endpoint.numbered(1, 2)
"""The other host on it, 10.0.1.2, behind which every far station is."""


@cells
class TunnelCells(Cells):
    """What a tunnel device and the host's IP keep for it.

    Attributes:
        ident: the next outer IP packet's identification.
        too_big: frames too large for the network between the hosts, about which their sender is to be told.
        frag_fails: outer packets too large and not to be cut in pieces.
        not_for_us: frames from the wire that are not for this host's IP address.
        no_port: UDP packets for a port that nobody listens on.
        rx_dropped: packets whose tunnel header is not one.
        tx_dropped: frames that came without a tunnel key.
    """

    ident: int = 1
    too_big: int = 0
    frag_fails: int = 0
    not_for_us: int = 0
    no_port: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


class Tunnel:
    """A tunnel device of a host.

    Attributes:
        name: the device's.
        kind: VXLAN or Geneve.
        pool: the host's packet memory.
        here, there: this host and the far one on the network between them.
        below: name of the device that its packets leave by.
    """

    def __init__(
        self,
        state: State,
        name: str,
        kind: TunnelKind,
        pool: HeadroomPool,
        below: str,
        ends: tuple[Endpoint, Endpoint] = (HERE, THERE),
    ) -> None:
        self.name = name
        self.kind = kind
        self.pool = pool
        self.below = below
        self.here, self.there = ends
        self.cells = state.add(TunnelCells, name)

    def vni(self, slot: int) -> int:
        """Give the virtual network that a packet's tunnel key names; -1 if it has none."""
        return self.pool.metadata.tunnel[slot] - 1

    def next_ident(self) -> int:
        """Take the next identification."""
        ident = self.cells.ident
        self.cells.ident = ident % 0xFFFF + 1
        return ident

    def functions(self) -> Mapping[str, tuple[str, Source]]:
        """Give what of the VXLAN driver is called otherwise in the driver of this kind."""
        return {} if self.kind is VXLAN else GENEVE_FUNCTIONS


GENEVE_FUNCTIONS: Final[Mapping[str, tuple[str, Source]]] = {
    "vxlan_xmit": ("geneve_xmit", GENEVE_DRIVER),
    "vxlan_xmit_one": ("geneve_xmit_skb", GENEVE_DRIVER),
    "vxlan_build_skb": ("geneve_build_skb", GENEVE_DRIVER),
    "vxlan_rcv": ("geneve_rx", GENEVE_DRIVER),
}


class TunnelXmit(Routine):
    """Send a frame through the tunnel: rows 1 to 3 of TUNNEL-TX.

    Args:
        below: transmission on the device below.
    """

    def __init__(self, name: str, place: Place, host_ip: Place, tunnel: Tunnel, below: Routine) -> None:
        super().__init__(name, place)
        self.host_ip = host_ip
        self.tunnel = tunnel
        self.below = below
        self.functions = tunnel.functions()

    def place_of(self, spec: OpSpec) -> Place:
        """Say whose code an op is: the tunnel's, or that of the host's IP below it."""
        return self.host_ip if spec.name in ("write_ip_header", "leave_host") else self.place

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the tunnel and its ends."""
        tunnel = self.tunnel
        return {
            "kind": tunnel.kind.name,
            "device": tunnel.name,
            "port": tunnel.kind.port,
            "vni": tunnel.vni(me.skb) if me.skb else "?",
            "here": ".".join(map(str, tunnel.here.ip)),
            "there": ".".join(map(str, tunnel.there.ip)),
            "below": tunnel.below,
            "mtu": INNER_MTU,
            "under": UNDERLAY_MTU,
            "outer": OUTER_BYTES,
        }

    @op(
        "TUNNEL-TX.1",
        "transmit on the tunnel device",
        "vxlan_xmit",
        VXLAN_DRIVER,
        text={
            "key": "{device} is a port like any other. Where to send the frame says the tunnel key beside it.",
            DROPPED: "No action has set a tunnel key, so {device} cannot know where to send the frame: dropped here.",
        },
        to={"key": goto("find_route"), DROPPED: RETURN},
        private=True,
    )
    def transmit(self, me: Context) -> str:
        if self.tunnel.vni(me.skb) >= 0:
            return "key"
        self.tunnel.cells.tx_dropped += 1
        self.tunnel.pool.release(me.skb)
        return DROPPED

    @op(
        "TUNNEL-TX.2",
        "find the route to the far host",
        "vxlan_xmit_one",
        VXLAN_DRIVER,
        text={
            "fits": "The route to {there} leaves by {below}. With {outer} bytes in front, the frame still fits.",
            "too big, may be cut": "With {outer} bytes in front, it is too large for {below}. Let IP see to it.",
            DROPPED: (
                "More than {mtu} bytes of IP do not fit through the tunnel. Linux answers ICMP 'fragmentation needed' "
                "in its place."
            ),
        },
        to={"fits": goto("write_tunnel_header"), "too big, may be cut": goto("write_tunnel_header"), DROPPED: RETURN},
        cost="route",
    )
    def find_route(self, me: Context) -> str:
        frame = self.tunnel.pool.inner(me.skb)
        if len(frame) - ETH_HEADER_BYTES <= INNER_MTU:
            return "fits"
        if not must_stay_whole(frame):
            return "too big, may be cut"
        self.tunnel.cells.too_big += 1
        self.tunnel.pool.release(me.skb)
        return DROPPED

    @op(
        "TUNNEL-TX.2",
        "write the tunnel header",
        "vxlan_build_skb",
        VXLAN_DRIVER,
        text="8 bytes in front of the frame say which virtual network it belongs to: {kind}, VNI {vni}.",
    )
    def write_tunnel_header(self, me: Context) -> None:
        self.tunnel.pool.push(me.skb, tunnel_header(self.tunnel.kind, self.tunnel.vni(me.skb)))

    @op(
        "TUNNEL-TX.3",
        "write the UDP header",
        "udp_tunnel_xmit_skb",
        UDP_TUNNEL_CORE,
        text="8 more for UDP, to port {port}. The source port is a hash of the flow, so that paths can be shared.",
    )
    def write_udp_header(self, me: Context) -> None:
        pool = self.tunnel.pool
        inside = pool.inner(me.skb)
        header = udp_header(source_port(inside), self.tunnel.kind.port, TUNNEL_HEADER_BYTES + len(inside))
        pool.push(me.skb, header)

    @op(
        "TUNNEL-TX.3",
        "write the outer IP header",
        "iptunnel_xmit",
        IP_TUNNEL_CORE,
        text="20 for IP: from {here} to {there}, between the two hosts. The guests' addresses lie deep inside now.",
    )
    def write_ip_header(self, me: Context) -> None:
        tunnel = self.tunnel
        length = tunnel.pool.cells.length[me.skb]
        tunnel.pool.push(me.skb, outer_ipv4(tunnel.here, tunnel.there, tunnel.next_ident(), length))

    @op(
        "TUNNEL-TX.3",
        "leave by the host's IP",
        "ip_finish_output",
        IP_OUTPUT,
        text={
            "out": "The Ethernet header of the host's own network, 14 bytes, makes it {outer} in all. {below} is next.",
            DROPPED: (
                "The packet has more than {under} bytes, and its header forbids to cut it in pieces: the host's IP "
                "drops it."
            ),
        },
        to={"out": call("below", None), DROPPED: RETURN},
        cost="stack",
    )
    def leave_host(self, me: Context) -> str:
        tunnel = self.tunnel
        if tunnel.pool.cells.length[me.skb] > UNDERLAY_MTU:
            tunnel.cells.frag_fails += 1
            tunnel.pool.release(me.skb)
            return DROPPED
        tunnel.pool.push(me.skb, outer_ethernet(tunnel.here, tunnel.there))
        return "out"


@cells
class FarTunnelCells(Cells):
    """The next identification that the far host's IP gives to a packet."""

    ident: int = 1


class TunnelWire(Wire):
    """What comes in from a far host that is the other end of a tunnel.

    Args:
        kind: the tunnel's.
        vni: the virtual network that its frames are in.
    """

    def __init__(self, state: State, name: str, traffic: Traffic, kind: TunnelKind, vni: int) -> None:
        super().__init__(state, name, traffic)
        self.kind = kind
        self.vni = vni
        self.far = state.add(FarTunnelCells, f"{name}.far")

    def write(self, pool: PacketPool, slot: int, packet: int) -> None:
        """Write a frame as it comes in into its slot, with everything in front of it."""
        ident = self.far.ident
        self.far.ident = ident % 0xFFFF + 1
        inner = self.traffic.frame(packet)
        pool.fill(slot, inner)
        pool.push(slot, outer_headers(self.kind, self.vni, THERE, HERE, ident, inner))  # type: ignore[attr-defined]

    def length(self, packet: int) -> int:
        """Give the bytes that a frame has on the wire."""
        return self.traffic.length(packet) + OUTER_BYTES
