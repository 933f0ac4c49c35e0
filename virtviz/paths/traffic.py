"""What is sent: the frames of a scenario, and what each program does in which order.

A scenario is a list of things that happen, given by a lesson or by a capture file. From it come the program of each
virtual machine's application (send, wait for an answer, pause), what arrives from the wire, and the bytes of every
frame. Frames are numbered from 1 in the order of the scenario; frame `n`'s bytes can be computed at any time, so a run
of a million frames keeps none of them.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from virtviz.spec.frames import (
    ETH_HEADER_BYTES,
    ICMP_ECHO_REPLY,
    ICMP_ECHO_REQUEST,
    IPV4_HEADER_BYTES,
    L4_HEADER_BYTES,
    PROTO_UDP,
    Capture,
    Endpoint,
    Template,
    application_part,
    icmp_echo,
    payload_bytes,
    udp,
)
from virtviz.spec.tcp import TcpData, segments_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ECHO_IDENT = 4002
UDP_PORTS = (40000, 9)
"""From an ephemeral port to the discard service; further programs of a machine have the ports and identifiers after
these."""


class Item(Struct, frozen=True):
    """One frame of a scenario.

    Attributes:
        id: the name the lesson gave it; empty if none.
        vm: index of the virtual machine that sends it, or receives it from the wire.
        vcpu: index of the vCPU on which the program runs that sends it, or receives it from the wire.
        outgoing: True if the virtual machine sends it, False if it comes from the wire.
        to_vm: index of the virtual machine that it is sent to; -1 if it goes to a far host.
        kind: `icmp-echo`, `udp`, `tcp` for data on an established connection to a far host, or `raw` for a frame of a
            capture file.
        length: payload bytes.
        peer: number of the far host, from 1.
        fragments: pieces the payload lies in; more than one makes the driver use a chain or an indirect table.
        answers: index of the item this one is the answer to; -1 if it is none.
        raw: the frame itself, for kind `raw`.
    """

    id: str = ""
    vm: int = 0
    outgoing: bool = True
    to_vm: int = -1
    kind: str = "icmp-echo"
    length: int = 56
    peer: int = 1
    fragments: int = 1
    answers: int = -1
    raw: bytes = b""
    vcpu: int = 0

    @property
    def receiver(self) -> int:
        """The index of the virtual machine that receives it; -1 if a far host does."""
        return self.to_vm if self.outgoing else self.vm


class Pause:
    """In a scenario: nothing new begins until everything before has come to rest."""


class Poke(Struct, frozen=True):
    """In a scenario: a field of a ring is changed from outside, before anything that comes after it begins.

    Attributes:
        queue: `transmitq1` or `receiveq1`.
        field: the field's name in traces, such as `avail.idx` or `desc[0].len`.
        value: what it is set to.
        vm: index of the virtual machine.
    """

    queue: str
    field: str
    value: int
    vm: int = 0


class Reset(Struct, frozen=True):
    """In a scenario: a virtual machine takes its driver off the device and puts it back, when nothing is under way.

    Attributes:
        vm: index of the virtual machine.
    """

    vm: int = 0


class Link(Struct, frozen=True):
    """In a scenario: somebody tells QEMU that a virtual machine's link is up or down, before anything that comes after.

    Attributes:
        up: whether it is up from now on.
        vm: index of the virtual machine.
    """

    up: bool
    vm: int = 0


Event = Item | Pause | Poke | Link | Reset
"""What a scenario is a list of."""


class Act(IntEnum):
    """What a program does next."""

    SEND = 1
    RECEIVE = 2
    PAUSE = 3
    POKE = 4
    RESET = 5
    END = 0


SEND, RECEIVE, PAUSE, POKE, RESET, END = Act.SEND, Act.RECEIVE, Act.PAUSE, Act.POKE, Act.RESET, Act.END


class Traffic(Struct, frozen=True):
    """The frames of a scenario, repeated for some rounds.

    Attributes:
        items: the frames of one round, in order.
        acts: for each virtual machine, the program on its first vCPU for one round: what to do and with which item (0
            where none), for a change from outside with which of `pokes`.
        other_acts: the same for programs on other vCPUs, by the numbers of machine and vCPU.
        arrivals: items that come from the wire by themselves, with the number of pauses before them.
        rounds: how often the whole is repeated.
        contents: makes the bytes of each item, for a sequence number.
        answers_back: for each item, how many frames before it lies the one that it answers, whose sequence number it
            carries; 0 if it answers none.
        pokes: changes from outside, in order: of rings, and of links.
    """

    items: tuple[Item, ...]
    acts: tuple[tuple[tuple[Act, int], ...], ...]
    arrivals: tuple[tuple[int, int], ...]
    rounds: int = 1
    contents: tuple[Template | Capture | TcpData, ...] = ()
    answers_back: tuple[int, ...] = ()
    pokes: tuple[Poke | Link, ...] = ()
    _answer_of: dict[int, int] = field(default_factory=dict)
    other_acts: dict[tuple[int, int], tuple[tuple[Act, int], ...]] = field(default_factory=dict)

    def acts_on(self, vm: int, vcpu: int) -> tuple[tuple[Act, int], ...]:
        """Give the program on a vCPU of a virtual machine for one round; it is empty where none runs."""
        if vcpu:
            return self.other_acts.get((vm, vcpu), ())
        return self.acts[vm] if vm < len(self.acts) else ()

    @property
    def has_resets(self) -> bool:
        """Whether a driver is taken off its device and put back."""
        return any(act is RESET for program in self.acts for act, _ in program)

    @property
    def has_links(self) -> bool:
        """Whether somebody changes a link."""
        return any(isinstance(change, Link) for change in self.pokes)

    @property
    def longest_tcp(self) -> int:
        """Bytes of the longest TCP packet, headers included; 0 if there is none."""
        return max((made.length for made in self.contents if isinstance(made, TcpData)), default=0)

    @property
    def packets(self) -> int:
        """How many frames there are in all."""
        return len(self.items) * self.rounds

    def item_of(self, packet: int) -> tuple[int, Item]:
        """Give round and item of a frame, by its number."""
        round_, index = divmod(packet - 1, len(self.items))
        return round_, self.items[index]

    def answer_to(self, packet: int) -> int:
        """Give the number of the frame that answers a frame; 0 if nobody answers."""
        if not self._answer_of:
            return 0
        round_, index = divmod(packet - 1, len(self.items))
        answer = self._answer_of.get(index, -1)
        return round_ * len(self.items) + answer + 1 if answer >= 0 else 0

    def frame(self, packet: int) -> bytes:
        """Give the bytes of a frame, by its number."""
        index = (packet - 1) % len(self.items)
        sequence = packet - self.answers_back[index]
        content = self.contents[index]
        return content.headers(sequence) + content.handed_over(sequence)

    def length(self, packet: int) -> int:
        """Give the length of a frame, by its number."""
        return self.contents[(packet - 1) % len(self.items)].length

    def packet_called(self, name: str, round_: int = 0) -> int:
        """Give the number of the first frame of that name; 0 if there is none."""
        for index, item in enumerate(self.items):
            if item.id == name:
                return round_ * len(self.items) + index + 1
        return 0

    def name_of(self, packet: int) -> str:
        """Give the name of a frame, or its number."""
        if not 1 <= packet <= self.packets:
            return ""
        return self.item_of(packet)[1].id or f"#{packet}"


def vm_endpoint(vm: int) -> Endpoint:
    """Give the addresses of a virtual machine: 10.0.0.2, 10.0.0.3, ..."""
    return Endpoint.numbered(0, 2 + vm)


def peer_endpoint(peer: int) -> Endpoint:
    """Give the addresses of a far host: 10.0.0.101, 10.0.0.102, ..."""
    return Endpoint.numbered(0, 100 + peer)


def ends_of(frame: bytes, vms: int) -> tuple[int, int, bool]:
    """Say who a frame of a capture is from and for: `vm`, `to_vm` and `outgoing` of an item.

    What is addressed to a virtual machine comes in from the wire, unless it is from another one; the rest is sent by
    the machine that it is from, or by the first.

    Args:
        frame: its bytes.
        vms: how many virtual machines there are.
    """
    machines = {vm_endpoint(vm).mac: vm for vm in range(vms)}
    target, source = machines.get(frame[:6], -1), machines.get(frame[6:12], -1)
    if target >= 0 and source in (-1, target):
        return target, -1, False
    return max(source, 0), target, True


def to_other_host(events: Sequence[Event]) -> list[Event]:
    """Put the virtual machine on the other host in the place of everybody who is far.

    A frame of a capture keeps its addresses, and so its ends.
    """
    return [_to_other_host(event) if isinstance(event, Item) else event for event in events]


def _to_other_host(item: Item) -> Item:
    if item.to_vm >= 0 or item.kind == "raw":
        return item
    if item.outgoing:
        return replace(item, to_vm=1 - item.vm)
    return replace(item, vm=1 - item.vm, to_vm=item.vm, outgoing=True, vcpu=0)


def make_traffic(events: Sequence[Event], rounds: int = 1, vms: int = 1) -> Traffic:
    """Turn a list of events into traffic.

    A program, one on each vCPU that does anything, sends its frames in the order of the list. An answer in the list is
    also the place where the sender waits for it; so is a frame that arrives by itself, or from another virtual machine,
    for the program on that one's first vCPU.
    """
    named = [max(event.vm, getattr(event, "to_vm", -1)) for event in events if not isinstance(event, Pause)]
    vms = max([vms - 1, *named]) + 1
    items: list[Item] = []
    acts: dict[tuple[int, int], list[tuple[Act, int]]] = {(vm, 0): [] for vm in range(vms)}
    acts |= {(event.vm, event.vcpu): [] for event in events if isinstance(event, Item)}
    arrivals: list[tuple[int, int]] = []
    answers: dict[int, int] = {}
    pokes: list[Poke | Link] = []
    pauses = 0
    for event in events:
        if isinstance(event, Pause | Reset):
            pauses += isinstance(event, Pause)
            _add_for_all(event, acts)
            continue
        if isinstance(event, Poke | Link):
            acts[event.vm, 0].append((Act.POKE, len(pokes)))
            pokes.append(event)
            continue
        index = len(items)
        items.append(event)
        if event.outgoing:
            acts[event.vm, event.vcpu].append((Act.SEND, index))
            if event.to_vm >= 0:
                acts[event.to_vm, 0].append((Act.RECEIVE, index))
            continue
        acts[event.vm, event.vcpu].append((Act.RECEIVE, index))
        if event.answers >= 0:
            answers[event.answers] = index
        else:
            arrivals.append((index, pauses))
    contents = tuple(_content(items, index) for index in range(len(items)))
    back = tuple(i - item.answers if item.answers >= 0 else 0 for i, item in enumerate(items))
    programs = {key: tuple(program) for key, program in acts.items()}
    return Traffic(
        tuple(items),
        tuple(programs.pop((vm, 0)) for vm in range(vms)),
        tuple(arrivals),
        rounds,
        contents,
        back,
        tuple(pokes),
        answers,
        programs,
    )


def _add_for_all(event: Pause | Reset, acts: Mapping[tuple[int, int], list[tuple[Act, int]]]) -> None:
    """Add to programs what concerns several: a pause all of them, a reset those of its machine.

    The program on the first vCPU does the reset; those on others wait until it is done.
    """
    for (vm, _), program in acts.items():
        if isinstance(event, Pause):
            program.append((Act.PAUSE, 0))
        elif vm == event.vm:
            program.append((Act.RESET, 0))


def program_of(frame: bytes | bytearray, programs: int) -> int:
    """Say which of a machine's programs a frame is for, by its port, or by the identifier of its echo request.

    Args:
        frame: a received frame.
        programs: how many there are, one on each vCPU. What is for none of them is for the first.
    """
    if not application_part(frame) or len(frame) < ETH_HEADER_BYTES + IPV4_HEADER_BYTES + L4_HEADER_BYTES:
        return 0
    is_udp = frame[23] == PROTO_UDP
    at = ETH_HEADER_BYTES + IPV4_HEADER_BYTES + (2 if is_udp else 4)
    number = int.from_bytes(frame[at : at + 2], "big") - (UDP_PORTS[0] if is_udp else ECHO_IDENT)
    return number if 0 <= number < programs else 0


def _content(items: Sequence[Item], index: int) -> Template | Capture | TcpData:
    """Make what gives the bytes of an item."""
    item = items[index]
    if item.kind == "raw":
        return Capture(item.raw)
    if item.kind == "tcp":
        return _tcp_data(items, index)
    return Template(partial(_frame, item, items[item.answers] if item.answers >= 0 else item))


def _tcp_data(items: Sequence[Item], index: int) -> TcpData:
    """Make TCP data, numbered behind what the same program sends to the same far host before it."""
    item = items[index]
    connection = (item.vm, item.vcpu, item.peer)
    sent = [(i, other) for i, other in enumerate(items) if other.kind == "tcp"]
    sent = [(i, other) for i, other in sent if (other.vm, other.vcpu, other.peer) == connection]

    def total(some: Sequence[tuple[int, Item]]) -> tuple[int, int]:
        return sum(other.length for _, other in some), sum(segments_of(other.length) for _, other in some)

    before = total([(i, other) for i, other in sent if i < index])
    ends = vm_endpoint(item.vm), peer_endpoint(item.peer)
    return TcpData(*ends, (UDP_PORTS[0] + item.vcpu, UDP_PORTS[1]), item.length, before, total(sent), len(items))


def _frame(item: Item, asked: Item, sequence: int) -> bytes:
    """Build the frame of an item with a sequence number; `asked` is the frame that it answers, or itself."""
    vm = vm_endpoint(item.vm)
    peer = peer_endpoint(item.peer) if item.to_vm < 0 else vm_endpoint(item.to_vm)
    payload = payload_bytes(item.length, sequence)
    source, target = (vm, peer) if item.outgoing else (peer, vm)
    if item.kind == "icmp-echo":
        kind = ICMP_ECHO_REPLY if item.answers >= 0 else ICMP_ECHO_REQUEST
        return icmp_echo(source, target, kind, ECHO_IDENT + asked.vcpu, sequence, payload)
    own, service = UDP_PORTS[0] + asked.vcpu, UDP_PORTS[1]
    ports = (own, service) if item.outgoing and item.answers < 0 else (service, own)
    return udp(source, target, ports, payload)
