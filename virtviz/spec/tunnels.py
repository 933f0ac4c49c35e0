"""Ethernet frames inside UDP: what VXLAN and Geneve put in front of a frame, and how they are taken off again.

Only what Open vSwitch's flow-based tunnels send over IPv4 is built here: no Geneve options, and a UDP checksum of 0,
which for UDP over IPv4 means that there is none.

Source: RFC 7348 (VXLAN), RFC 8926 (Geneve), RFC 768 (UDP); what the fields are set to: Linux 6.12 net/ipv4/
udp_tunnel_core.c and ip_tunnel_core.c, Open vSwitch lib/netdev-vport.c (TTL 64, don't fragment).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.spec.frames import (
    ETH_HEADER_BYTES,
    ETHERTYPE_IPV4,
    IPV4_HEADER_BYTES,
    L4_HEADER_BYTES,
    PROTO_ICMP,
    PROTO_UDP,
    checksum,
    flow_hash,
)

if TYPE_CHECKING:
    from virtviz.spec.frames import Endpoint

TUNNEL_HEADER_BYTES: Final = 8
"""Both the VXLAN header and the Geneve header without options."""
OUTER_BYTES: Final = ETH_HEADER_BYTES + IPV4_HEADER_BYTES + L4_HEADER_BYTES + TUNNEL_HEADER_BYTES
"""What a tunnel over IPv4 adds on the wire: 50 bytes."""
VNI_MAX: Final = (1 << 24) - 1
"""A virtual network identifier has 24 bits."""
UNDERLAY_MTU: Final = 1500
"""Bytes an IP packet may have on the network between the hosts."""
INNER_MTU: Final = UNDERLAY_MTU - OUTER_BYTES
"""Bytes an IP packet of a guest may have: 1450. Its Ethernet header is inside the outer packet as well, the outer
one is not, so it is the same number as all 50 bytes less."""
EPHEMERAL_PORTS: Final = (32768, 60999)
"""net.ipv4.ip_local_port_range: where the outer source port is taken from (udp_flow_src_port)."""
DONT_FRAGMENT: Final = 0x4000
ETHERTYPE_TEB: Final = 0x6558
"""Transparent Ethernet bridging: a whole Ethernet frame follows."""

_VXLAN: Final = struct.Struct("!BBHI")
_VXLAN_HAS_VNI: Final = 0x08
_GENEVE: Final = struct.Struct("!BBHI")
_ETH: Final = struct.Struct("!6s6sH")
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_UDP: Final = struct.Struct("!HHHH")
_OUTER_TTL: Final = 64
_ICMP_ERRORS: Final = frozenset((3, 4, 5, 11, 12))


class TunnelKind(Struct, frozen=True):
    """A kind of tunnel.

    Attributes:
        name: as people write it.
        device: the network device that Open vSwitch makes for it.
        port: UDP port it is sent to.
    """

    name: str
    device: str
    port: int


VXLAN: Final = TunnelKind("VXLAN", "vxlan_sys_4789", 4789)
GENEVE: Final = TunnelKind("Geneve", "genev_sys_6081", 6081)
TUNNELS: Final = {"vxlan": VXLAN, "geneve": GENEVE}
"""Values of the knob `tunnel` that are one."""


def tunnel_header(kind: TunnelKind, vni: int) -> bytes:
    """Give the header that says which virtual network the frame behind it belongs to."""
    if kind is VXLAN:
        return _VXLAN.pack(_VXLAN_HAS_VNI, 0, 0, vni << 8)
    return _GENEVE.pack(0, 0, ETHERTYPE_TEB, vni << 8)


def vni_of(kind: TunnelKind, header: bytes | bytearray) -> int:
    """Give the virtual network identifier of a tunnel header; -1 if the receiving driver would drop the packet.

    Linux drops a VXLAN packet that does not say it has an identifier, or with bits set that mean nothing (vxlan_rcv);
    a Geneve packet of another version, or with anything but a frame inside (geneve_udp_encap_recv). Geneve options,
    which Linux would read, are not known here.
    """
    if len(header) < TUNNEL_HEADER_BYTES:
        return -1
    first, second, third, last = (_VXLAN if kind is VXLAN else _GENEVE).unpack_from(header)
    good = (
        (first, second, third, last & 0xFF) == (_VXLAN_HAS_VNI, 0, 0, 0)
        if kind is VXLAN
        else first == 0 and third == ETHERTYPE_TEB
    )
    return last >> 8 if good else -1


def udp_header(source_port: int, target_port: int, payload_bytes: int) -> bytes:
    """Give a UDP header without a checksum."""
    return _UDP.pack(source_port, target_port, L4_HEADER_BYTES + payload_bytes, 0)


def outer_ipv4(source: Endpoint, target: Endpoint, ident: int, payload_bytes: int, protocol: int = PROTO_UDP) -> bytes:
    """Give the outer IPv4 header: don't fragment, TTL 64, an identification although nothing will be put together."""
    length = IPV4_HEADER_BYTES + payload_bytes
    header = _IPV4.pack(0x45, 0, length, ident, DONT_FRAGMENT, _OUTER_TTL, protocol, 0, source.ip, target.ip)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:]


def outer_ethernet(source: Endpoint, target: Endpoint) -> bytes:
    """Give the Ethernet header of the network between the hosts."""
    return _ETH.pack(target.mac, source.mac, ETHERTYPE_IPV4)


def outer_headers(
    kind: TunnelKind, vni: int, source: Endpoint, target: Endpoint, ident: int, inner: bytes | bytearray
) -> bytes:
    """Give everything that goes in front of a frame, `OUTER_BYTES` of it."""
    behind_udp = TUNNEL_HEADER_BYTES + len(inner)
    return b"".join(
        (
            outer_ethernet(source, target),
            outer_ipv4(source, target, ident, L4_HEADER_BYTES + behind_udp),
            udp_header(source_port(inner), kind.port, behind_udp),
            tunnel_header(kind, vni),
        )
    )


def source_port(inner: bytes | bytearray) -> int:
    """Choose the outer source port from the flow of the frame inside, so that the network can spread flows over paths.

    Packets of one flow always get the same port (udp_flow_src_port).
    """
    low, high = EPHEMERAL_PORTS
    return low + (flow_hash(inner) * (high - low) >> 32)


def must_stay_whole(frame: bytes | bytearray) -> bool:
    """Say whether a frame holds an IPv4 packet that nobody may cut in pieces, and about which its sender may be told.

    About an ICMP error nobody is told; nor about what went to a group (iptunnel_pmtud_check_icmp).
    """
    network = ETH_HEADER_BYTES
    if len(frame) < network + IPV4_HEADER_BYTES or frame[12:14] != b"\x08\x00":
        return False
    if int.from_bytes(frame[network + 6 : network + 8], "big") != DONT_FRAGMENT or frame[network + 16] >= 0xE0:
        return False
    return frame[network + 9] != PROTO_ICMP or frame[network + (frame[network] & 0xF) * 4] not in _ICMP_ERRORS
