"""Compare a recorded case with a simulation of it: function by function, thread by thread, and in counts."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from projected_lines import Projection, project
from recorded_cases import CASES, Case, Reasons, run
from recorded_lines import (
    DATA,
    HANDLER,
    MAIN_LOOP,
    NOT_PACKET_WORK,
    PAIR,
    SECOND,
    THREADS,
    VCPU,
    WORKER,
    Recording,
    reduce,
)

from virtviz.engine.effects import EffectKind
from virtviz.engine.places import CrossingKind

if TYPE_CHECKING:
    from collections.abc import Iterable

GAP = "..."

EXITS = {
    "npf": [
        "npf: MMIO write, handled in the kernel (ioeventfd)",
        "npf: MMIO write, handled in the kernel",
        "npf: MMIO read, handled in user space (QEMU)",
        "npf: MMIO write, handled in user space (QEMU)",
    ],
    "interrupt": ["interrupt: kick IPI for a device interrupt"],
    "vintr": ["vintr: window opened for a waiting device interrupt"],
    "msr": ["msr: x2APIC EOI write", "msr: x2APIC read", "msr: msr 3b"],
    "hlt": ["hlt (guest idle)"],
}
"""Reason of an exit -> its entries in counts.yaml, without those marked as no packet work."""

SAID = {
    "vhost_get_vq_desc -> got a chain": ("vgd", "head"),
    "vhost_get_vq_desc -> empty": ("vgd", "empty"),
    "vhost_enable_notify -> ring still empty": ("ven", "0"),
    "kvm_arch_set_irq_inatomic -> 1": ("inatomic", "1"),
}
"""Result in counts.yaml -> the same as the traces have it."""

CASE_OF = {case.name: case for case in CASES}


def _of_all_machines(counts: dict[str, Any]) -> dict[str, Any]:
    """Add up what is told apart by virtual machine, `... (A)` and `... (B)`, and what guest B did, or by queue pair."""
    folded: dict[str, Any] = {}
    for section, entries in counts.items():
        if isinstance(entries, dict):
            folded[section] = Counter()
            for key, number in entries.items():
                whole = re.sub(r" \((?:A|B|q0|q1|vCPU 1)\)|^guest B: ", "", key)
                folded[section][whole.replace("CPU 1/KVM", "CPU 0/KVM")] += number
        else:
            folded[section] = entries
    return folded


COUNTS: dict[str, dict[str, Any]] = {
    name: _of_all_machines(counts) for name, counts in yaml.safe_load((DATA / "counts.yaml").read_text()).items()
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the comparison of a case found.

    Attributes:
        matched: functions of the recording that the simulation has, in the same order.
        unmatched, extra: logical thread and function -> how many only the recording, only the simulation has.
        counts: name of a count -> recorded, simulated.
    """

    case: Case
    recording: Recording
    projection: Projection
    matched: int
    unmatched: Counter[tuple[str, str]]
    extra: Counter[tuple[str, str]]
    counts: dict[str, tuple[int, int]]

    @property
    def percent(self) -> float:
        """Matched functions of a hundred recorded ones."""
        return 100 * self.matched / self.recording.functions

    @property
    def unequal(self) -> dict[str, tuple[int, int]]:
        """The counts that differ."""
        return {name: pair for name, pair in self.counts.items() if pair[0] != pair[1]}


@cache
def compare(name: str) -> Comparison:
    """Compare a case."""
    case = CASE_OF[name]
    recording = reduce(name, softirq_apart=case.softirq_apart)
    simulation, trace, begin = run(case)
    projection = project(trace, begin, case.protocol, case.begins_with, qemu_events=case.qemu_events)
    matched, unmatched, extra = 0, Counter(), Counter()
    for thread in THREADS:
        recorded, simulated = recording.threads.get(thread, []), projection.threads.get(thread, [])
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, recorded, simulated, autojunk=False).get_opcodes():
            if tag == "equal":
                matched += i2 - i1
            else:
                unmatched.update((thread, f) for f in recorded[i1:i2] if f != GAP)
                extra.update((thread, f) for f in simulated[j1:j2])
    counts = _counts(case, simulation, trace, begin, projection) if name in COUNTS else {}
    return Comparison(case, recording, projection, matched, unmatched, extra, counts)


def _counts(case: Case, simulation: Any, trace: Any, begin: int, projection: Projection) -> dict[str, tuple[int, int]]:
    """Pair every count of packet work in counts.yaml with the simulation's.

    Left out, by the rules: the timer and the ticks, system calls and wake-ups of the laboratory's programs, scheduling.
    """
    recorded = COUNTS[case.name]
    steps = [trace.step(n) for n in range(begin + 1, len(trace) + 1)]
    crossings = [crossing for step in steps for crossing in step.crossings]
    signals = Counter(
        "ioeventfd_write" if step.place == "kvm" else "vhost_tx_batch" if "transmitq" in step.queue else "handle_rx"
        for step in steps
        for effect in step.effects
        if effect.kind is EffectKind.EVENTFD_SIGNAL and step.op != "write"
    )
    functions = Counter(name for _, name in projection.lines)
    results = Counter((name, value) for name, values in projection.results.items() for value in values)
    by_queue = Counter(step.queue.rpartition(".")[2] for step in steps if step.op == "vring_interrupt")
    at_far_end = sum(step.op == "veth_xmit" and step.row == "N-IN.1" for step in steps)

    pairs: dict[str, tuple[int, int]] = {}

    def pair(section: str, key: str, simulated: int) -> None:
        pairs[f"{section}: {key}"] = (recorded.get(section, {}).get(key, 0), simulated)

    returns = sum(c.kind is CrossingKind.KVM_RUN_RETURN for c in crossings)
    pairs["exits_to_user_space_total"] = (recorded["exits_to_user_space_total"], returns)
    pairs |= _exits(recorded, functions)
    for call in ("poll", "recvmsg", "sendmsg"):
        pair("syscalls", f"handler: {call}", sum(n for f, n in functions.items() if f.startswith(f"{call}:ret")))
    for key, simulated in _qemu_calls(projection).items():
        pair("syscalls", key, simulated)
    for source in ("ioeventfd_write", "vhost_tx_batch", "handle_rx"):
        pair("eventfd_signals", source, signals[source])
    pairs |= _wakeups(recorded, functions)
    injected = sum(n for key, n in recorded["interrupt_injections"].items() if "device" in key and "re-" not in key)
    pairs["interrupt_injections: device"] = (injected, functions["kvm_inj_virq"])
    pair("guest_interrupts", "eth0", sum(step.op == "read_icr" for step in steps))
    for number in range(len(simulation.vms[0].pairs)):
        pair("guest_interrupts", f"virtio0-input.{number}", by_queue[f"receiveq{number + 1}"])
        pair("guest_interrupts", f"virtio0-output.{number}", by_queue[f"transmitq{number + 1}"])
    for key in recorded["vhost_and_kvm_results"]:
        pair("vhost_and_kvm_results", key, results[SAID[key]])
    for key in recorded["host_functions"].keys() - NOT_PACKET_WORK:
        pair("host_functions", key, _host_function(key, functions, projection, at_far_end))
    for key in recorded.get("guest_functions", {}):
        pair("guest_functions", key, results["kp_prep", "1"] if key == "kick_prepare said kick" else functions[key])
    if "host_functions: kvm_vcpu_kick" in pairs:
        # The timer's kicks are among these: the recording without its timer says how many are the devices'.
        devices = Counter(f for names in reduce(case.name).threads.values() for f in names)["kvm_vcpu_kick"]
        pairs["host_functions: kvm_vcpu_kick"] = (devices, functions["kvm_vcpu_kick"])
    return pairs


def _qemu_calls(projection: Projection) -> dict[str, int]:
    """Count the system calls of QEMU's threads; one that sleeps at the end has not returned, and is not counted."""
    calls = {
        "ppoll": ("ppoll:ret=0", "ppoll:ret=1", "ppoll:ret=data"),
        "read eventfd": ("read:eventfd",),
        "read tap": ("read:tap",),
        "write eventfd": ("write:eventfd",),
        "writev tap": ("writev:tap",),
        "ioctl KVM_SIGNAL_MSI": ("ioctl:KVM_SIGNAL_MSI",),
        "ioctl KVM_IRQ_LINE_STATUS": ("ioctl:KVM_IRQ_LINE_STATUS",),
        "ioctl KVM_RUN": ("kvm_userspace_exit",),
    }
    lines = Counter(projection.lines)
    return {
        f"{recorded}: {call}": sum(lines[thread, function] for function in functions)
        for recorded, thread in (("qemu-system-x86", MAIN_LOOP), ("CPU 0/KVM", VCPU))
        for call, functions in calls.items()
    }


def _exits(recorded: dict[str, Any], functions: Counter[str]) -> dict[str, tuple[int, int]]:
    pairs = {}
    for reason, keys in EXITS.items():
        said = sum(recorded["vm_exits"].get(key, 0) for key in keys)
        pairs[f"vm_exits: kvm_exit:{reason}"] = (said, functions[f"kvm_exit:{reason}"])
    in_all = sum(n for f, n in functions.items() if f.startswith("kvm_exit"))
    pairs["vm_exits: all packet work"] = (recorded["vm_exits_without_timer_and_host_ticks"], in_all)
    return pairs


def _wakeups(recorded: dict[str, Any], functions: Counter[str]) -> dict[str, tuple[int, int]]:
    """Pair wake-ups by the thread that is woken; those by nobody of the packet's (the guest's timer) do not count."""
    pairs = {}
    for woken, role in (("vhost", WORKER), ("qemu", MAIN_LOOP), ("handler", HANDLER), ("CPU 0/KVM", VCPU)):
        wakers = {key: n for key, n in recorded["thread_wakeups"].items() if key.startswith(woken)}
        said = sum(n for key, n in wakers.items() if "by <idle>" not in key)
        pairs[f"thread_wakeups: {woken}"] = (
            said,
            sum(functions[f"wake {role}{which}"] for which in ("", SECOND, PAIR)),
        )
    return pairs


def _host_function(key: str, functions: Counter[str], projection: Projection, at_far_end: int) -> int:
    if key.startswith("skb_copy_datagram_iter by"):
        by_netlink = "netlink" in key
        return sum(
            name == "skb_copy_datagram_iter" and (thread == HANDLER) == by_netlink for thread, name in projection.lines
        )
    if key == "veth_xmit":
        # One end is the host's; what the far end sends is the laboratory's own.
        return functions[key] + at_far_end
    return functions[key]


def table() -> str:
    """Draw the table of all cases."""
    rows = [f"{'recorded case':<44} {'functions':>11} {'in order':>9} {'counts equal':>13}  unmatched, and why"]
    for name in CASE_OF:
        found = compare(name)
        reasons: dict[str, list[str]] = {}
        for (thread, function), count in found.unmatched.items():
            why = found.case.unmatched.get((thread, function), (0, "NO REASON"))[1]
            reasons.setdefault(why, []).append(f"{function} x{count}" if count > 1 else function)
        equal = len(found.counts) - len(found.unequal)
        counts = f"{equal} of {len(found.counts)}" if found.counts else "not counted"
        lines = [f"{', '.join(functions)}: {why}" for why, functions in reasons.items()] or ["-"]
        rows.append(
            f"{name:<44} {found.matched:>4} of {found.recording.functions:>3} {found.percent:>8.1f}% "
            f"{counts:>13}  {lines[0]}"
        )
        rows += [" " * 82 + line for line in lines[1:]]
    return "\n".join(rows)


DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
"""Where what was found is kept for readers; written anew by running this file."""
PAGE = DATA / "conformance-page.md"
"""Its text, without what was found."""


def document() -> str:
    """Write what was found in all cases as a page."""
    cases = [(name, case, compare(name)) for name, case in CASE_OF.items()]
    return PAGE.read_text(encoding="utf-8").format(
        least=f"{min(found.percent for _, _, found in cases):.1f}",
        rows=_rows(
            [
                f"`{name}`",
                f"{found.matched} of {found.recording.functions}",
                f"{found.percent:.1f} %",
                f"{len(found.counts) - len(found.unequal)} of {len(found.counts)}" if found.counts else "-",
                case.why,
            ]
            for name, case, found in cases
        ),
        reasons=_reasons((name, case.unmatched) for name, case, _ in cases),
        extra=_reasons((name, case.extra) for name, case, _ in cases),
        differing=_rows(
            [f"`{name}`", key, str(recorded), str(simulated)]
            for name, _, found in cases
            for key, (recorded, simulated) in found.unequal.items()
        ),
    )


def _reasons(cases: Iterable[tuple[str, Reasons]]) -> str:
    return _rows(
        [f"`{name}`", thread, f"`{function}`", str(count), why]
        for name, reasons in cases
        for (thread, function), (count, why) in reasons.items()
    )


def _rows(rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
