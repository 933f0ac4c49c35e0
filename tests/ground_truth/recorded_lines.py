"""Read a recording of real kernels, and reduce it to what a packet did: function after function, thread by thread.

A recording is a merged trace of host and guest (Linux 6.1, AMD). What is dropped, and why, is written beside each rule;
nothing is dropped because a simulation lacks it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DATA = Path(__file__).parent / "data"

GUEST_PROCESS, GUEST_HARDIRQ, GUEST_SOFTIRQ = "guest process", "guest hard interrupt", "guest softirq"
VCPU, WORKER, HOST_SOFTIRQ, HANDLER = "vCPU thread", "vhost worker", "host softirq", "OVS handler"
MAIN_LOOP = "QEMU main loop"
SECOND = " (B)"
"""What stands behind the thread of a second virtual machine; the first one's, or the only one's, has nothing there."""
PAIR = " (q1)"
"""The same for a second queue pair: its worker, the vCPU that it is bound to, and what the guest does there."""
THREADS = tuple(
    thread + machine
    for machine in ("", SECOND, PAIR)
    for thread in (GUEST_PROCESS, VCPU, WORKER, MAIN_LOOP, HANDLER, HOST_SOFTIRQ, GUEST_HARDIRQ, GUEST_SOFTIRQ)
)

_LINE = re.compile(
    r"(?P<mark>[ ~])\s*(?P<time>[\d.]+)\s+(?P<machine>host|guest[AB]?)\s+cpu(?P<cpu>\d) (?P<comm>.{16}) (?P<what>.*)"
)
_RESULTS = ("vgd", "ven", "kp_prep", "cbdelayed", "vqpoll", "getbuf", "inatomic")
_LEFT_OUT = "lines left out here"

NOT_PACKET_WORK = {
    "softirq_raise", "softirq_exit", "net_dev_queue", "net_dev_xmit", "netif_rx", "ovs_do_execute_action",
    "tun_sock_write_space", "napi_poll", "kvm_eoi",
}  # fmt: skip
"""Lines that say again what another line said, and `kvm_eoi`, which is printed at whatever exit comes next."""
_OTHER_CALLS = {"futex", "getrusage", "sendto", "recvfrom"}
"""System calls of the handlers' own book-keeping, and of the programs at the far end."""
_WITH_KIND = {"read:enter", "write:enter", "writev:enter", "ioctl:enter"}
"""System calls that are told apart by what they are about."""
QEMU_EVENT = "QEMU trace"
"""Events of QEMU's own, which only some recordings have."""
_NEAR = {"softirq_entry", "process_backlog", "tun_flow_update"}
"""What is the host's own even behind the far end's transmission: its softirq, and the TAP's."""
_PEER = {"udp_rcv", "icmp_rcv", "icmp_reply"}
"""On the host: the laboratory's far end, which stands for the network."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: who did what; `timer` marks those that only serve the guest's timer."""

    number: int
    timer: bool = False
    machine: str = ""
    comm: str = ""
    name: str = ""
    detail: str = ""
    caller: str = ""


@dataclass(slots=True)
class Recording:
    """A recording, reduced.

    Attributes:
        threads: logical thread -> its functions, in order. Where the file leaves lines out, `...` stands.
        results: name of a result (`vgd`, `ven`, ...) -> the values that were returned, in order.
        lines: thread and function of all of them, in the one order of the time-stamp counter.
    """

    threads: dict[str, list[str]] = field(default_factory=dict)
    results: dict[str, list[str]] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)

    @property
    def functions(self) -> int:
        """How many functions it holds."""
        return sum(len(names) - names.count("...") for names in self.threads.values())


def read_lines(case: str) -> list[Line]:
    """Read all lines of a recording."""
    found: list[Line] = []
    for number, text in enumerate((DATA / f"{case}.txt").read_text().splitlines(), 1):
        if _LEFT_OUT in text:
            found.append(Line(number, name="..."))
        elif match := _LINE.match(text):
            name, detail, caller = _parse(match["what"])
            # What a guest does on its second CPU, it does there for its second queue pair.
            machine = match["machine"] + PAIR * (match["machine"] == "guest" and match["cpu"] == "1")
            found.append(Line(number, match["mark"] == "~", machine, match["comm"].strip(), name, detail, caller))
    return found


def _parse(what: str) -> tuple[str, str, str]:
    """Split `f <-caller`, `event: detail` and `syscall enter: name`."""
    if " <-" in what:
        name, caller = what.split(" <-")
        return name, "", caller
    if what.startswith("syscall "):
        way, _, rest = what.removeprefix("syscall ").partition(": ")
        call = rest.split()[0]
        if way == "enter":
            return f"{call}:enter", rest, ""
        value = int(rest.split("=")[1])
        return f"{call}:ret", "data" if value > 1 else str(value), ""
    name, _, detail = what.partition(": ")
    return name, detail.strip(), ""


def reduce(case: str, *, softirq_apart: bool = False) -> Recording:
    """Reduce a recording to the functions of the packets.

    Args:
        case: the file's name without its ending.
        softirq_apart: the network card's interrupt landed on a thread that was at something else; give its softirq a
            thread of its own.
    """
    reduced = Recording({name: [] for name in THREADS})
    for thread, line in _assigned(_packet_work(read_lines(case)), softirq_apart=softirq_apart):
        if line.name in _RESULTS:
            reduced.results.setdefault(line.name, []).append(_value(line))
        else:
            reduced.threads[thread].append(_shown(line))
            reduced.lines.append((thread, _shown(line)))
    reduced.threads = {name: names for name, names in reduced.threads.items() if set(names) - {"..."}}
    return reduced


def _value(line: Line) -> str:
    value = re.search(r"(?:ret|more|needs_kick|ok)=(\w+)", line.detail)
    assert value is not None, line
    if line.name == "vgd":
        return "empty" if value[1] == "256" else "head"
    if line.name == "getbuf":
        return "0" if int(value[1], 16) == 0 else "buffer"
    return value[1]


def _shown(line: Line) -> str:
    """Name a line as the projection of a simulation does."""
    if line.name == "kvm_exit":
        return f"kvm_exit:{line.detail.split('reason ')[1].split()[0]}"
    if line.name == "sched_waking":
        return f"wake {_role(line.detail.split('comm=')[1].split(' pid')[0])}"
    if line.name == "sched_switch":
        return "switch out" if line.detail.startswith(line.comm) and _role(line.comm) else "switch in"
    if line.name.endswith(":ret"):
        return f"{line.name}={line.detail}"
    if line.name in _WITH_KIND:
        # `read tap fd=11`, `ioctl KVM_RUN fd=12`: what is read, or asked for.
        return ":".join(line.detail.split()[:2])
    if line.name == QEMU_EVENT:
        return f"QEMU {line.detail.split()[0]}"
    return line.name


def _role(comm: str) -> str:
    """Say what a host thread is; empty for one that is none of the packet's."""
    if comm.startswith(("CPU 0/KVM", "CPU 1/KVM")):
        return VCPU + _second(comm)
    if comm.startswith("vhost-"):
        return WORKER + _second(comm)
    if comm.startswith("qemu-"):
        return MAIN_LOOP
    return HANDLER if comm.startswith("handler") else ""


def _second(name: str) -> str:
    """Give what stands behind a thread of a second machine or pair, by the name of a thread or of a guest."""
    if name.endswith(("(B)", "guestB")):
        return SECOND
    return PAIR if name.endswith(PAIR) or name.startswith("CPU 1/KVM") else ""


def _packet_work(lines: Iterable[Line]) -> Iterator[Line]:
    """Drop the guest's timer, host ticks, double lines, and what is injected once more because of a tick."""
    lines = list(lines)
    again = {i for i, line in enumerate(lines) if line.name == "kvm_inj_virq" and "[reinjected]" in line.detail}
    again |= {i - 1 for i in again if lines[i - 1].name == "svm_inject_irq"}
    lines = [line for i, line in enumerate(lines) if i not in again]
    # The virtual machines whose vCPU was kicked, and those whose next entry ends a tick.
    kicked: set[str] = set()
    ticked: set[str] = set()
    for line in lines:
        if line.timer:
            continue
        machine = _second(line.comm)
        if line.name == "kvm_vcpu_kick":
            kicked.add(machine)
        if line.name == "kvm_exit":
            # An external interrupt that no device's kick precedes is a tick of the host: exit and entry both go.
            if "reason interrupt" in line.detail and machine not in kicked:
                ticked.add(machine)
                continue
            kicked.discard(machine)
        if line.name == "kvm_entry":
            if machine in ticked:
                ticked.remove(machine)
                continue
            kicked.discard(machine)
        if line.name in NOT_PACKET_WORK or line.name.split(":")[0] in _OTHER_CALLS:
            continue
        if line.name in ("netif_receive_skb", "ovs_dp_upcall") and not line.caller:
            continue
        yield line


def _assigned(lines: Iterable[Line], *, softirq_apart: bool) -> Iterator[tuple[str, Line]]:
    """Give each line its logical thread; drop what belongs to none."""
    host = _HostThreads(softirq_apart=softirq_apart)
    bases: dict[str, str] = {}
    for line in lines:
        if line.name == "...":
            for thread in THREADS:
                yield thread, line
        elif line.machine.startswith("guest"):
            thread = _guest_thread(line, bases.get(line.machine, GUEST_PROCESS))
            if thread != GUEST_HARDIRQ:
                bases[line.machine] = thread
            yield thread + _second(line.machine), line
        elif line.name == "sched_switch":
            yield from host.switches(line)
        elif thread := host.thread_of(line):
            yield thread, line


class _HostThreads:
    """Which logical thread a line of the host belongs to.

    Softirqs belong to the thread they run in. A thread that is none of the packet's, such as a program that sends from
    the far end, counts only from the softirq on that brings its frame to the switch.
    """

    def __init__(self, *, softirq_apart: bool) -> None:
        self.softirq_apart = softirq_apart
        self.in_softirq: dict[str, bool] = {}
        self.at_far_end: dict[str, bool] = {}
        self.preempted: set[str] = set()

    def thread_of(self, line: Line) -> str:
        comm, role = line.comm, _role(line.comm)
        if line.name == "sched_waking":
            woken = _role(line.detail.split("comm=")[1].split(" pid")[0])
            return (self._softirq(comm) or role or HOST_SOFTIRQ) if woken and comm != "<idle>" else ""
        if line.name in ("irq_handler_entry", "softirq_entry"):
            self.in_softirq[comm] = True
        elif line.name == "vhost_add_used_and_signal_n" or line.name.endswith(":ret"):
            self.in_softirq[comm] = self.at_far_end[comm] = False
        far = self.at_far_end.get(comm, not role)
        if line.name in ("netdev_frame_hook", "br_handle_frame"):
            far = self.at_far_end[comm] = False
        elif line.name == "veth_xmit":
            self.at_far_end[comm] = True
        if (far and line.name not in _NEAR) or line.name in _PEER:
            return ""
        return self._softirq(comm) or role or HOST_SOFTIRQ

    def _softirq(self, comm: str) -> str:
        return HOST_SOFTIRQ if self.softirq_apart and self.in_softirq.get(comm) else ""

    def switches(self, line: Line) -> Iterator[tuple[str, Line]]:
        """A switch puts one thread to sleep and lets another run; preemption is the scheduler's affair."""
        before, _, after = line.detail.partition(" ==> ")
        if role := _role(line.comm):
            if "(S)" in before:
                yield role, line
            else:
                self.preempted.add(line.comm)
        if role := _role(after):
            if after in self.preempted:
                self.preempted.remove(after)
            else:
                yield role, Line(line.number, machine="host", comm="<idle>", name="sched_switch", detail=f"==> {after}")


def _guest_thread(line: Line, base: str) -> str:
    if (
        line.name in ("irq_handler_entry", "vring_interrupt", "e1000_intr")
        or line.name.startswith("skb_")
        or line.caller.startswith("skb_")
    ):
        return GUEST_HARDIRQ
    if line.name in ("softirq_entry", "napi_complete_done", "udp_rcv", "icmp_rcv", "ping_rcv") or "virtnet_poll" in (
        line.caller + line.detail
    ):
        return GUEST_SOFTIRQ
    if line.name.startswith(("virtnet_poll", "e1000_clean", "e1000_alloc")):
        return GUEST_SOFTIRQ
    if "start_xmit" in line.name + line.caller + line.detail or line.name in (
        "virtqueue_notify",
        "vp_notify",
        "e1000_xmit_frame",
    ):
        return GUEST_PROCESS
    return base
