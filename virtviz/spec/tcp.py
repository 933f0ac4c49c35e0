"""TCP data of an established connection: the long packet that a kernel hands down, and the frames it is cut into.

A sender's stack makes one packet of up to 64 KiB with one set of headers. Whoever cuts it, kernel or network card,
gives each piece a copy of these headers with another length, identification, sequence number and checksum. Until
somebody finishes it, the checksum field holds the sum over the pseudo header only (CHECKSUM_PARTIAL).

Source: RFC 9293 (TCP), RFC 7323 (timestamps), RFC 1071 (checksum); Linux net/ipv4/tcp_offload.c (tcp_gso_segment),
net/ipv4/af_inet.c (inet_gso_segment), net/ipv4/ip_output.c (ip_select_ident_segs).
"""

from __future__ import annotations

import struct
from typing import Final

from virtviz.spec.frames import (
    ETH_HEADER_BYTES,
    ETHERTYPE_IPV4,
    IPV4_HEADER_BYTES,
    PROTO_TCP,
    Endpoint,
    checksum,
    payload_bytes,
)

TCP_HEADER_BYTES: Final = 32
"""20 bytes, and 12 of options: two fillers and the timestamps that Linux uses unless told otherwise."""
HEADER_BYTES: Final = ETH_HEADER_BYTES + IPV4_HEADER_BYTES + TCP_HEADER_BYTES
MSS: Final = 1448
"""Bytes of data in a frame: an MTU of 1500 less the headers of IPv4 and TCP, with timestamps."""
CSUM_START: Final = ETH_HEADER_BYTES + IPV4_HEADER_BYTES
CSUM_OFFSET: Final = 16
"""Where the checksum begins to be computed, and where behind that it goes."""
FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80
FIRST_SEQ, FIRST_ACK, FIRST_IDENT = 1_000_000_000, 2_000_000_000, 0x4000
"""Numbers that the connection has come to before the scenario begins; any would do."""
WINDOW: Final = 502
"""The window of both ends: 64256 bytes, scaled by 7."""
TIMESTAMPS: Final = (100_000, 90_000)

_ETH = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHHBBBBII")
_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")


def segments_of(length: int) -> int:
    """Count the frames that so many bytes of data need."""
    return max(1, -(-length // MSS))


def pseudo_sum(frame: bytes | bytearray, length: int) -> int:
    """Sum the pseudo header, folded to 16 bits and not complemented.

    Args:
        frame: begins with the headers.
        length: bytes of TCP header and data.
    """
    return checksum(bytes(frame[26:34]) + struct.pack("!BBH", 0, PROTO_TCP, length)) ^ 0xFFFF


class TcpData:
    """The data that one call of a program sends: one packet on its way down; it has the form of a `Template`.

    Args:
        source, target: the ends.
        ports: from and to.
        bytes_: data of this call.
        sent_before: bytes of data sent on the connection before, and frames that they needed, in the same round.
        a_round: the same for a whole round.
        items: packets of a round.

    Attributes:
        length: bytes of the packet, headers included.
        part: how many of them the kernel puts in front.
    """

    part = HEADER_BYTES

    def __init__(
        self,
        source: Endpoint,
        target: Endpoint,
        ports: tuple[int, int],
        bytes_: int,
        sent_before: tuple[int, int],
        a_round: tuple[int, int],
        items: int,
    ) -> None:
        self.length = HEADER_BYTES + bytes_
        self._ends = source, target
        self._ports = ports
        self._before = sent_before
        self._a_round = a_round
        self._items = items

    def handed_over(self, sequence: int) -> bytes:
        """Give what the program hands to the kernel in the packet of that number."""
        return payload_bytes(self.length - self.part, sequence)

    def headers(self, sequence: int) -> bytes:
        """Give what the kernel puts in front, the checksum unfinished."""
        round_ = (sequence - 1) // self._items
        data, frames = (before + round_ * whole for before, whole in zip(self._before, self._a_round, strict=True))
        source, target = self._ends
        total = self.length - ETH_HEADER_BYTES
        ident = (FIRST_IDENT + frames) & 0xFFFF
        ip = _IPV4.pack(0x45, 0, total, ident, 0x4000, 64, PROTO_TCP, 0, source.ip, target.ip)
        ip = ip[:10] + _U16.pack(checksum(ip)) + ip[12:]
        seq = (FIRST_SEQ + data) & 0xFFFFFFFF
        doff = TCP_HEADER_BYTES // 4 << 4
        tcp = _TCP.pack(*self._ports, seq, FIRST_ACK, doff, ACK | PSH, WINDOW, 0, 0, 1, 1, 8, 10, *TIMESTAMPS)
        made = _ETH.pack(target.mac, source.mac, ETHERTYPE_IPV4) + ip + tcp
        return _with_sum(made, pseudo_sum(made, total - IPV4_HEADER_BYTES))


def segment_headers(headers: bytes | bytearray, length: int, mss: int, number: int) -> tuple[bytes, int, int]:
    """Make the headers of one frame of a long packet, the checksum unfinished.

    Args:
        headers: those of the packet: Ethernet, IPv4, TCP.
        length: bytes of its data.
        mss: bytes of data in each frame but the last.
        number: of the frame, from 0.

    Returns:
        The headers; where the frame's data begins in the packet's data; how many bytes it has.
    """
    start = number * mss
    mine = min(mss, length - start)
    made = bytearray(headers)
    network, transport = ETH_HEADER_BYTES, CSUM_START
    tcp_length = len(headers) - transport + mine
    _U16.pack_into(made, network + 2, len(headers) - network + mine)
    _U16.pack_into(made, network + 4, (_U16.unpack_from(headers, network + 4)[0] + number) & 0xFFFF)
    _U16.pack_into(made, network + 10, 0)
    _U16.pack_into(made, network + 10, checksum(bytes(made[network:transport])))
    _U32.pack_into(made, transport + 4, (_U32.unpack_from(headers, transport + 4)[0] + start) & 0xFFFFFFFF)
    if start + mine < length:
        made[transport + 13] &= ~(FIN | PSH)
    if number:
        made[transport + 13] &= ~CWR
    return _with_sum(bytes(made), pseudo_sum(made, tcp_length)), start, mine


def frames_of(packet: bytes | bytearray, mss: int) -> list[bytes]:
    """Cut a packet with an unfinished checksum into finished frames.

    Args:
        packet: headers and data.
        mss: bytes of data in each frame but the last.
    """
    length = len(packet) - HEADER_BYTES
    made = []
    for number in range(max(1, -(-length // mss))):
        headers, start, count = segment_headers(packet[:HEADER_BYTES], length, mss, number)
        made.append(finished(headers + packet[HEADER_BYTES + start : HEADER_BYTES + start + count]))
    return made


def finished(frame: bytes | bytearray) -> bytes:
    """Finish a frame's checksum: invert the sum of TCP header and data, with the pseudo header's sum in its place."""
    return _with_sum(bytes(frame), checksum(bytes(frame[CSUM_START:])))


def _with_sum(frame: bytes, value: int) -> bytes:
    at = CSUM_START + CSUM_OFFSET
    return frame[:at] + _U16.pack(value) + frame[at + 2 :]
