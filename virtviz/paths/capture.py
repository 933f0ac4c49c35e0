"""Capture files: frames from a file into a scenario, and frames that passed a place into a file.

A frame of a file goes the way its addresses say: what is addressed to the virtual machine comes in from the wire,
everything else is sent by the virtual machine. A frame that comes in from a host that was written to is taken as the
answer to what was last sent there, so that the order of the file is kept.

Reading and writing is dpkt's work (BSD licence); it is imported when the first file is opened.
"""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from virtviz.engine.places import Domain, Side
from virtviz.errors import CaptureError
from virtviz.paths.hosts import SCOPE, SECOND, host_of
from virtviz.paths.packets import HeadroomPool
from virtviz.paths.traffic import Item, ends_of
from virtviz.spec.frames import ETH_FRAME_MAX, ETH_HEADER_BYTES, IPV4_HEADER_BYTES
from virtviz.spec.tcp import MSS, frames_of
from virtviz.spec.tunnels import OUTER_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from virtviz.engine.trace import Step, Trace
    from virtviz.paths.guest_program import Program
    from virtviz.paths.packets import PacketPool
    from virtviz.paths.wiring import Pair, Simulation

FILE_BYTES_MAX: Final = 64 << 20
"""Largest file that is read. Larger ones are refused rather than read in part."""
FRAMES_MAX: Final = 100_000
"""Most frames that are read from one file."""
ETHERNET: Final = 1
"""LINKTYPE_ETHERNET, the only link type whose frames a virtio-net device can carry."""
IPV6_HEADER_BYTES: Final = 40
NANOSECONDS: Final = 10**9


def read_capture(path: str | os.PathLike[str], vms: int = 1) -> list[Item]:
    """Read the frames of a pcap or pcapng file as a scenario.

    Args:
        path: the file.
        vms: how many virtual machines there are to send and receive them.

    Raises:
        CaptureError: the file cannot be read, is no capture of Ethernet, or holds a frame that this world cannot carry.
            The message says which frame it is and what to do.
    """
    name = os.fspath(path)
    frames = list(_frames(Path(name)))
    if not frames:
        raise CaptureError(f"{name}: there is no frame in this file; capture some traffic first")
    for number, frame in enumerate(frames, 1):
        _check(frame, f"{name}: frame {number}", number)
    return _as_items(frames, vms)


def _frames(path: Path) -> Iterator[bytes]:
    """Read the frames of a file, as far as it is one."""
    import dpkt  # noqa: PLC0415 - most runs open no file
    from dpkt.pcap import UniversalReader  # noqa: PLC0415 - most runs open no file

    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise CaptureError(f"{path}: larger than {FILE_BYTES_MAX >> 20} MiB; {_take_a_part(path)}")
        with path.open("rb") as file:
            reader: Any = UniversalReader(file)
            if reader.datalink() != ETHERNET:
                kind = reader.datalink()
                raise CaptureError(f"{path}: link type {kind} is not Ethernet; capture on an Ethernet device")
            for count, (_, frame) in enumerate(reader):
                if count == FRAMES_MAX:
                    raise CaptureError(f"{path}: more than {FRAMES_MAX} frames; {_take_a_part(path)}")
                yield bytes(frame)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror or error}") from error
    except (ValueError, ArithmeticError, LookupError, struct.error, dpkt.Error) as error:
        raise CaptureError(f"{path}: not a whole pcap or pcapng file; capture again, or repair it: editcap") from error


def _take_a_part(path: Path) -> str:
    return f"take a part of it, such as: editcap -r {path} part.pcap 1-1000"


def _check(frame: bytes, where: str, number: int) -> None:
    """Refuse a frame that no Ethernet device with an MTU of 1500 could have sent, or that is not all there."""
    if len(frame) > ETH_FRAME_MAX:
        raise CaptureError(
            f"{where} has {len(frame)} bytes, and a device with an MTU of 1500 carries {ETH_FRAME_MAX}; capture with "
            f"segmentation offloads off (ethtool -K DEVICE tso off gso off gro off), or leave the frame out: "
            f"editcap IN OUT {number}"
        )
    if len(frame) < ETH_HEADER_BYTES:
        raise CaptureError(
            f"{where} has {len(frame)} bytes, less than an Ethernet header; leave it out: editcap IN OUT {number}"
        )
    promised = _length_by_ip(frame)
    if promised > len(frame):
        raise CaptureError(
            f"{where} is cut: its IP header speaks of {promised} bytes, {len(frame)} are here; "
            "capture whole frames: tcpdump -s 0"
        )


def _length_by_ip(frame: bytes) -> int:
    """Give the length that a frame's IP header promises, 0 if it has none."""
    ethertype, network = frame[12:14], ETH_HEADER_BYTES
    if ethertype == b"\x08\x00":
        return network + max(IPV4_HEADER_BYTES, int.from_bytes(frame[network + 2 : network + 4], "big"))
    if ethertype == b"\x86\xdd":
        return network + IPV6_HEADER_BYTES + int.from_bytes(frame[network + 4 : network + 6], "big")
    return 0


def _as_items(frames: list[bytes], vms: int) -> list[Item]:
    """Decide which frames are sent and which come in, and which answer which."""
    items: list[Item] = []
    unanswered: dict[tuple[int, bytes], int] = {}
    for index, frame in enumerate(frames):
        target, source = frame[:6], frame[6:12]
        vm, to_vm, outgoing = ends_of(frame, vms)
        if outgoing:
            unanswered[vm, target] = index
        answers = -1 if outgoing else unanswered.pop((vm, source), -1)
        items.append(Item("", vm, outgoing, to_vm, "raw", len(frame), answers=answers, raw=frame))
    return items


def write_capture(path: str | os.PathLike[str], frames: Iterable[tuple[int, bytes]]) -> None:
    """Write frames to a pcap file with nanosecond time stamps.

    Args:
        path: the file; one that exists is replaced.
        frames: time in nanoseconds and bytes of each.

    Raises:
        CaptureError: the file cannot be written.
    """
    from dpkt.pcap import Writer  # noqa: PLC0415 - most runs open no file

    try:
        with Path(path).open("wb") as file:
            writer = Writer(file, snaplen=0xFFFF, linktype=ETHERNET, nano=True)
            for nanoseconds, frame in frames:
                writer.writepkt_time(frame, Fraction(nanoseconds, NANOSECONDS))
    except OSError as error:
        raise CaptureError(f"{os.fspath(path)}: {error.strerror or error}") from error


# What is where


def frames_at(simulation: Simulation, trace: Trace, place: str) -> Iterator[tuple[int, bytes]]:
    """Give the frames that passed a place, each once, with the time at which it was first dealt with there.

    A packet that is cut is on the wire as its frames. Elsewhere it is given where it is whole.

    Args:
        simulation: a recording one that has run.
        trace: its steps.
        place: a place, such as `tap0`; a queue in which packets wait, such as `tap0.queue`; or `wire`.
    """
    seen: set[int] = set()
    frames_out: dict[int, int] = {}
    for n in range(1, len(trace) + 1):
        step = trace.step(n)
        if place == step.into == "wire" and step.domain is Domain.HARDWARE and _is_tcp(simulation, step.packet):
            frames_out[step.packet] = number = frames_out.get(step.packet, 0) + 1
            yield step.t_ns, frames_of(simulation.traffic.frame(step.packet), MSS)[number - 1]
            continue
        on_wire = "wire" if step.milestone in ("on-wire", "from-wire") else ""
        if step.packet and step.packet not in seen and place in (step.place, step.into, on_wire):
            frame = frame_bytes(simulation, step)
            if frame:
                seen.add(step.packet)
                yield step.t_ns, frame


def _is_tcp(simulation: Simulation, packet: int) -> bool:
    return packet > 0 and simulation.traffic.item_of(packet)[1].kind == "tcp"


def frame_bytes(simulation: Simulation, step: Step) -> bytes:
    """Give the frame that a step is about, as its bytes lie in memory at the place of the step; empty if there is none.

    The machine must stand at the step, as it does after `Trace.step`. While the guest has only the payload, the headers
    that its kernel is going to put in front are added. In a tunnel, a frame has all that is put in front of it from the
    moment that the last of it is there, until the far end, or this one, takes it off.
    """
    packet = step.packet
    if not packet:
        return b""
    pool = _host_pool(simulation, step)
    host = partial(_in_pool, pool, packet)
    if isinstance(pool, HeadroomPool):
        is_outside = step.domain is Domain.HARDWARE or step.milestone in ("on-wire", "from-wire")
        host = partial(_in_tunnel, pool, packet, is_outside=is_outside)
    if not simulation.vms:
        # A program of the host has it in two pages of its own; on a TUN there is no frame before the card.
        found = _in_pool(pool, packet)
        return found if len(found) == simulation.traffic.length(packet) else b""
    item = simulation.traffic.item_of(packet)[1]
    # The machine that the step is in first; of a packet between two machines, either may still have it.
    ends = [simulation.vms[number] for number in dict.fromkeys((item.vm, item.receiver)) if number >= 0]
    ends.sort(key=lambda vm: step.place.partition(".")[0] != vm.name)
    looks = [look for vm in ends for pair in vm.pairs for look in _in_pair(pair, packet)]
    if step.domain is not Domain.HARDWARE and _side(step) is Side.GUEST:
        if step.row in ("G-TX.1", "G-TX.2"):
            looks.insert(0, lambda: _in_program(simulation, ends[0].pairs[item.vcpu].program, packet))
        looks.append(host)
    else:
        looks.insert(0, host)
        # Between reading and delivering it, a back-end in user space has it in memory of its own.
        backends = [held for name, held in simulation.pools.items() if name.startswith("qemu-")]
        looks += [partial(_in_pool, held, packet) for held in backends]
    # A frame that has been taken apart again, its pieces given back one by one, is looked for where it is still whole.
    whole = simulation.traffic.length(packet)
    lengths = (whole, whole + OUTER_BYTES) if isinstance(pool, HeadroomPool) else (whole,)
    return next((found for look in looks if len(found := look()) in lengths), b"")


def _host_pool(simulation: Simulation, step: Step) -> PacketPool:
    """Give the packet memory of the host that a step is on; a guest's step is on the host of its machine."""
    second = f"{SCOPE}host"
    is_second = host_of(step.place) == SECOND or step.place.startswith(f"vm{SECOND}.")
    return simulation.pools[second if is_second and second in simulation.pools else "host"]


def _in_pair(pair: Pair, packet: int) -> list[Callable[[], bytes]]:
    """Give the ways to look for a packet in a virtual machine's memory, where one of its queue pairs has it."""
    return [lambda: _in_pool(pair.skbs, packet), lambda: pair.received_bytes(packet)]


def _side(step: Step) -> Side:
    return Side.GUEST if step.domain.is_guest else Side.HOST


def _in_program(simulation: Simulation, program: Program, packet: int) -> bytes:
    """Give what the program has ready to be sent, with the headers that will be put in front."""
    index = (packet - 1) % program.items
    if program.cells.item != index or not simulation.traffic.item_of(packet)[1].outgoing:
        return b""
    content = program.contents[index]
    payload = program.memory.bytes[program.send_page : program.send_page + content.length - content.part]
    return content.headers(packet - simulation.traffic.answers_back[index]) + bytes(payload)


def _in_pool(pool: PacketPool, packet: int) -> bytes:
    """Give a packet's bytes from the slot that holds it; a slot just given back still does."""
    slots = _slots_of(pool, packet)
    return bytes(pool.data(slots[0])) if slots else b""


def _in_tunnel(pool: HeadroomPool, packet: int, *, is_outside: bool) -> bytes:
    """The same where a packet can have the tunnel's headers in front of it, and a copy of it have none.

    Args:
        pool: the host's packet memory.
        packet: its number.
        is_outside: the copy with the headers is wanted, if there are both.
    """
    slots = _slots_of(pool, packet)
    if not slots:
        return b""
    pushed = pool.metadata.pushed
    slot = next((slot for slot in slots if (pushed[slot] == OUTER_BYTES) == is_outside), slots[0])
    return bytes(pool.data(slot) if pushed[slot] == OUTER_BYTES else pool.inner(slot))


def _slots_of(pool: PacketPool, packet: int) -> list[int]:
    """Give the slots that hold a packet; only if there is none, those that were given back and still do."""
    mine = pool.cells
    slots = [slot for slot, number in enumerate(mine.packet) if number == packet and mine.length[slot]]
    free = set(mine.free[: mine.free_count])
    return [slot for slot in slots if slot not in free] or slots
