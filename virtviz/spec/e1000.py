"""Constants of Intel's 8254x network cards (e1000), spelled as Linux spells them.

Source: Linux 6.12 drivers/net/ethernet/intel/e1000/e1000_hw.h, e1000_osdep.h, e1000.h; Intel's "PCI/PCI-X Family of
Gigabit Ethernet Controllers Software Developer's Manual", chapters 3.2 (receive), 3.3 (transmit) and 13 (registers).
"""

from __future__ import annotations

import struct
from typing import Final

E1000_TX_DESC: Final = struct.Struct("<QHBBBBH")
"""A legacy transmit descriptor: addr, length, cso, cmd, status, css, special (3.3.3)."""
E1000_RX_DESC: Final = struct.Struct("<QHHBBH")
"""A receive descriptor: addr, length, csum, status, errors, special (3.2.3)."""
DESC_BYTES: Final = 16
TX_UPPER: Final = struct.Struct("<BBH")
"""The last four bytes of a transmit descriptor: status, css, special. The device writes them back together."""
TX_STATUS_AT: Final = 12
RX_STATUS_AT: Final = 12
"""Where in a descriptor its status lies."""

E1000_TXD_CMD_EOP: Final = 0x01
E1000_TXD_CMD_IFCS: Final = 0x02
E1000_TXD_CMD_RS: Final = 0x08
E1000_TXD_CMD_IDE: Final = 0x80
E1000_TXD_STAT_DD: Final = 0x01
E1000_RXD_STAT_DD: Final = 0x01
E1000_RXD_STAT_EOP: Final = 0x02
E1000_RXD_STAT_IXSM: Final = 0x04

E1000_ICR_TXDW: Final = 0x01
E1000_ICR_TXQE: Final = 0x02
E1000_ICR_LSC: Final = 0x04
E1000_ICR_RXSEQ: Final = 0x08
E1000_ICR_RXDMT0: Final = 0x10
E1000_ICR_RXT0: Final = 0x80
IMS_ENABLE_MASK: Final = E1000_ICR_RXT0 | E1000_ICR_TXDW | E1000_ICR_RXDMT0 | E1000_ICR_RXSEQ | E1000_ICR_LSC
"""The causes of interrupts that Linux wants to hear of."""
ALL_CAUSES: Final = 0xFFFFFFFF

BAR_BASE: Final = 0xFEBC0000
"""Where the recorded machine put the registers (BAR 0)."""
REGISTERS: Final = {
    "STATUS": 0x0008,
    "ICR": 0x00C0,
    "IMS": 0x00D0,
    "IMC": 0x00D8,
    "RDT": 0x2818,
    "TDT": 0x3818,
}
"""Register -> its offset, of those that are touched for a packet."""
ADDRESSES: Final = {name: BAR_BASE + offset for name, offset in REGISTERS.items()}
"""Register -> its guest-physical address."""
STATUS_LINK_UP: Final = 0x80080783
"""What the recorded device's STATUS register says: 1000 Mb/s, full duplex, link up."""

ETH_ZLEN: Final = 60
"""Bytes of the shortest frame, without the checksum that the card appends."""
ETH_FCS_LEN: Final = 4
MAXIMUM_ETHERNET_VLAN_SIZE: Final = 1522
"""Frames longer than this are thrown away unless the driver has asked for long ones."""
RX_BUFFER_BYTES: Final = 2048
"""What Linux tells the card of its receive buffers' size (RCTL.BSIZE)."""

DESCRIPTORS_MIN: Final = 64
"""The fewest descriptors that Linux allows are 48, and here there is a power of two of them."""
TX_DESC_NEEDED: Final = 17 + 7
"""Free descriptors below which Linux stops the transmit queue: MAX_SKB_FRAGS, and 7 for the card's peculiarities."""
TX_WAKE_THRESHOLD: Final = 32
RX_BUFFER_WRITE: Final = 16
"""Receive buffers that the driver gives back at a time while it is at work."""
COPYBREAK: Final = 256
"""Received frames up to this size, checksum included, are copied out of their buffer, so that it can be reused."""
NAPI_WEIGHT: Final = 64


def cmd_letters(cmd: int) -> str:
    """Give a transmit command's bits as letters: E end of packet, C append a checksum, S report status, D delay."""
    bits = ((E1000_TXD_CMD_EOP, "E"), (E1000_TXD_CMD_IFCS, "C"), (E1000_TXD_CMD_RS, "S"), (E1000_TXD_CMD_IDE, "D"))
    return "".join(letter for bit, letter in bits if cmd & bit) or "-"
