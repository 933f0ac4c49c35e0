"""Ethernet frames with right checksums: what the simulated programs and the far host send.

Only what lessons send is built here (ICMP echo, UDP over IPv4) and in `tcp.py`; capture files bring everything else.

Source: IEEE 802.3 (Ethernet II), RFC 791 (IPv4), RFC 792 (ICMP), RFC 768 (UDP), RFC 1071 (checksum).
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

ETH_HEADER_BYTES: Final = 14
ETH_FRAME_MIN: Final = 60
"""Shortest frame on the wire without its FCS; a NIC pads shorter ones, a virtual link does not."""
ETH_FRAME_MAX: Final = 1514
IPV4_HEADER_BYTES: Final = 20
L4_HEADER_BYTES: Final = 8
"""Both the UDP header and the ICMP echo header."""
PROTO_ICMP: Final = 1
PROTO_UDP: Final = 17
PROTO_TCP: Final = 6
ICMP_ECHO_REQUEST: Final = 8
ICMP_ECHO_REPLY: Final = 0
ETHERTYPE_IPV4: Final = 0x0800

_ETH = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_ICMP = struct.Struct("!BBHHH")
_UDP = struct.Struct("!HHHH")
_U16 = struct.Struct("!H")


class Endpoint(Struct, frozen=True):
    """One end of a conversation: its Ethernet and IPv4 addresses."""

    mac: bytes
    ip: bytes

    @classmethod
    def numbered(cls, net: int, host: int) -> Endpoint:
        """Make locally administered addresses: 52:54:00:00:`net`:`host` and 10.0.`net`.`host`."""
        return cls(bytes((0x52, 0x54, 0, 0, net, host)), bytes((10, 0, net, host)))


def checksum(data: bytes) -> int:
    """Compute the Internet checksum of some bytes (RFC 1071), as the 16-bit number that goes into the header."""
    if len(data) % 2:
        data += b"\0"
    return _fold(sum(struct.unpack(f"!{len(data) // 2}H", data)))


def _ipv4(source: Endpoint, target: Endpoint, protocol: int, payload: bytes) -> bytes:
    """Put IPv4 and Ethernet in front. With don't-fragment set the identification means nothing, and Linux sends 0."""
    header = _IPV4.pack(0x45, 0, IPV4_HEADER_BYTES + len(payload), 0, 0x4000, 64, protocol, 0, source.ip, target.ip)
    header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    return _ETH.pack(target.mac, source.mac, ETHERTYPE_IPV4) + header + payload


def icmp_echo(source: Endpoint, target: Endpoint, kind: int, ident: int, sequence: int, payload: bytes) -> bytes:
    """Build an ICMP echo request or reply.

    Args:
        source: sender.
        target: receiver.
        kind: ICMP_ECHO_REQUEST or ICMP_ECHO_REPLY.
        ident: the program's identifier, u16.
        sequence: sequence number; its low 16 bits are sent.
        payload: what is echoed.
    """
    body = _ICMP.pack(kind, 0, 0, ident, sequence & 0xFFFF) + payload
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    return _ipv4(source, target, PROTO_ICMP, body)


def udp(source: Endpoint, target: Endpoint, ports: tuple[int, int], payload: bytes) -> bytes:
    """Build a UDP datagram; a checksum that comes out as 0 is sent as 0xFFFF (RFC 768)."""
    length = L4_HEADER_BYTES + len(payload)
    pseudo = source.ip + target.ip + struct.pack("!BBH", 0, PROTO_UDP, length)
    header = _UDP.pack(*ports, length, 0)
    value = checksum(pseudo + header + payload) or 0xFFFF
    return _ipv4(source, target, PROTO_UDP, _UDP.pack(*ports, length, value) + payload)


def payload_bytes(length: int, seed: int) -> bytes:
    """Give a recognisable payload: the sequence number, then counting bytes, as ping fills its packets."""
    return (seed.to_bytes(8, "big") + bytes(i & 0xFF for i in range(0x10, 0x10 + max(0, length - 8))))[:length]


class Template:
    """A frame whose sequence number changes and nothing else: the same bytes as building it anew, several times faster.

    The number stands in the ICMP sequence and in the first 8 payload bytes; the ICMP or UDP checksum follows it (RFC
    1624: a checksum is a sum, so what is added to the data can be added to it). The frame is made in the two parts in
    which it comes about: what the program hands over, and what the kernel puts in front.

    Args:
        build: gives the frame for a sequence number.

    Attributes:
        length: bytes of the frame.
        part: how many of them the kernel puts in front.
    """

    def __init__(self, build: Callable[[int], bytes]) -> None:
        frame = build(0)
        self.length = len(frame)
        self.part = part = application_part(frame)
        self._is_icmp = frame[23] == PROTO_ICMP
        self._headers = frame[:part]
        self._upto_checksum = frame[:40]
        self._type, self._ident = frame[part : part + 2], frame[part + 4 : part + 6]
        seed_at = part + (L4_HEADER_BYTES if self._is_icmp else 0)
        self._seed_bytes = min(8, len(frame) - seed_at)
        self._tail = frame[seed_at + self._seed_bytes :]
        at = 36 if self._is_icmp else 40
        self._sum = ~int.from_bytes(frame[at : at + 2], "big") & 0xFFFF

    def handed_over(self, sequence: int) -> bytes:
        """Give what the program hands to the kernel, for a sequence number below 2**48."""
        seed = sequence.to_bytes(8, "big")
        if self._seed_bytes < 8:
            seed = seed[: self._seed_bytes]
        if not self._is_icmp:
            return seed + self._tail
        low = sequence & 0xFFFF
        checksum = _fold(self._sum + low + self._seed_sum(sequence))
        return self._type + _U16.pack(checksum) + self._ident + _U16.pack(low) + seed + self._tail

    def headers(self, sequence: int) -> bytes:
        """Give what the kernel puts in front."""
        if self._is_icmp:
            return self._headers
        return self._upto_checksum + _U16.pack(_fold(self._sum + self._seed_sum(sequence)) or 0xFFFF)

    def _seed_sum(self, sequence: int) -> int:
        """Sum the 16-bit words of as much of the sequence number as the payload has room for."""
        if self._seed_bytes == 8:
            return (sequence >> 32) + (sequence >> 16 & 0xFFFF) + (sequence & 0xFFFF)
        seed = sequence.to_bytes(8, "big")[: self._seed_bytes] + b"\0" * (self._seed_bytes % 2)
        return sum(struct.unpack(f"!{len(seed) // 2}H", seed))


class Capture:
    """A frame from a capture file; it has the form of a `Template`, and is sent whole, as through a packet socket."""

    part = 0

    def __init__(self, frame: bytes) -> None:
        self.length = len(frame)
        self._frame = frame

    def handed_over(self, sequence: int) -> bytes:  # noqa: ARG002 - it is the same every time
        """Give the frame."""
        return self._frame

    def headers(self, sequence: int) -> bytes:  # noqa: ARG002 - as above
        """Give nothing: the kernel adds no header."""
        return b""


def _fold(total: int) -> int:
    """Fold a sum into 16 bits and complement it."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def application_part(frame: bytes | bytearray) -> int:
    """Say where in a frame the bytes begin that the sending program handed over.

    The kernel puts Ethernet, IPv4 and UDP headers before a UDP payload. A ping socket's caller writes the ICMP header
    itself. Any other frame is taken as sent through a packet socket, whole.
    """
    if len(frame) >= ETH_HEADER_BYTES + IPV4_HEADER_BYTES and frame[12:15] == b"\x08\x00\x45":
        network = ETH_HEADER_BYTES + IPV4_HEADER_BYTES
        if frame[23] == PROTO_UDP and len(frame) >= network + L4_HEADER_BYTES:
            return network + L4_HEADER_BYTES
        if frame[23] == PROTO_ICMP:
            return network
    return 0


def flow_hash(frame: bytes | bytearray) -> int:
    """Compute a 32-bit hash of a frame's flow: of addresses, protocol and ports, or of the Ethernet header.

    Linux hashes with a key made at start-up (skb_get_hash); here it is a CRC, the same on every run.
    """
    network = ETH_HEADER_BYTES
    if len(frame) < network + IPV4_HEADER_BYTES or frame[12:14] != b"\x08\x00":
        return zlib.crc32(frame[:network])
    transport = network + (frame[network] & 0xF) * 4
    ports = b"" if frame[network + 9] == PROTO_ICMP else frame[transport : transport + 4]
    return zlib.crc32(frame[network + 9 : network + 10] + frame[network + 12 : network + 20] + ports)


def summary(frame: bytes) -> str:
    """Say in a few words what a frame is, for people."""
    if len(frame) >= ETH_HEADER_BYTES + IPV4_HEADER_BYTES + L4_HEADER_BYTES and frame[12:15] == b"\x08\x00\x45":
        source, target = ".".join(map(str, frame[26:30])), ".".join(map(str, frame[30:34]))
        if frame[23] == PROTO_ICMP:
            kind = {ICMP_ECHO_REQUEST: "echo request", ICMP_ECHO_REPLY: "echo reply"}.get(frame[34], "ICMP")
            return f"ICMP {kind} {source} > {target} seq {int.from_bytes(frame[40:42], 'big')}"
        if frame[23] == PROTO_UDP:
            return f"UDP {source} > {target} port {int.from_bytes(frame[36:38], 'big')}"
        if frame[23] == PROTO_TCP and len(frame) >= ETH_HEADER_BYTES + IPV4_HEADER_BYTES + 20:
            data = len(frame) - ETH_HEADER_BYTES - IPV4_HEADER_BYTES - (frame[46] >> 4) * 4
            return f"TCP {source} > {target} seq {int.from_bytes(frame[38:42], 'big')}, {data} bytes"
        return f"IPv4 {source} > {target}"
    return f"ethertype {frame[12:14].hex()}" if len(frame) >= ETH_HEADER_BYTES else f"{len(frame)} bytes"
