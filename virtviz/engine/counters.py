"""Counters: what each crossing and each effect adds to which counter.

One table serves every way of counting. A counting machine sums it over how often each arc was taken; a reader of a
trace sums it over the steps. Nothing is ever counted by an op.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.effects import EffectKind
from virtviz.engine.places import CrossingKind, Side
from virtviz.engine.threads import ThreadKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from virtviz.engine.program import Arc

COUNTERS: Final[dict[str, str]] = {
    "user_kernel.guest": "user/kernel crossings in the guest",
    "user_kernel.host": "user/kernel crossings on the host",
    "guest_host": "guest/host crossings",
    "heavy_exits": "heavy VM exits (back to QEMU)",
    "light_exits": "light VM exits (KVM only)",
    "guest_syscalls": "system calls in the guest",
    "host_syscalls": "system calls on the host",
    "wakeups": "wake-ups of host threads",
    "vcpu_wakeups": "wake-ups of vCPU threads",
    "interrupts": "interrupts into the guest",
    "hw_interrupts": "hardware interrupts",
    "host_copies": "copies on the host",
    "guest_copies": "copies in the guest",
    "dma": "DMA transfers",
    "eventfd_signals": "eventfd signals",
    "upcalls": "upcalls to ovs-vswitchd",
    "drops": "dropped packets",
}
"""Every counter, in the order in which they are shown, and what it counts."""

_OF_CROSSING: Final[dict[tuple[CrossingKind, Side], dict[str, int]]] = {
    (CrossingKind.SYSCALL_ENTER, Side.GUEST): {"user_kernel.guest": 1, "guest_syscalls": 1},
    (CrossingKind.SYSCALL_RETURN, Side.GUEST): {"user_kernel.guest": 1},
    (CrossingKind.SYSCALL_ENTER, Side.HOST): {"user_kernel.host": 1, "host_syscalls": 1},
    (CrossingKind.SYSCALL_RETURN, Side.HOST): {"user_kernel.host": 1},
    (CrossingKind.KVM_RUN_RETURN, Side.HOST): {"user_kernel.host": 1, "heavy_exits": 1, "light_exits": -1},
    (CrossingKind.KVM_RUN_ENTER, Side.HOST): {"user_kernel.host": 1},
    (CrossingKind.VM_EXIT, Side.GUEST): {"guest_host": 1, "light_exits": 1},
    (CrossingKind.VM_ENTRY, Side.GUEST): {"guest_host": 1},
}
"""A VM exit is light until the thread goes on to QEMU; so a heavy exit takes the light one back that began it."""

_OF_EFFECT: Final[dict[EffectKind, str]] = {
    EffectKind.EVENTFD_SIGNAL: "eventfd_signals",
    EffectKind.IRQ_INJECT: "interrupts",
    EffectKind.HW_IRQ: "hw_interrupts",
    EffectKind.DMA: "dma",
    EffectKind.UPCALL: "upcalls",
    EffectKind.DROP: "drops",
}
_NOTHING: Final[Mapping[str, int]] = {}


def of_crossing(kind: CrossingKind, side: Side) -> Mapping[str, int]:
    """Give what a crossing adds, by counter; interrupts entering and leaving add nothing."""
    return _OF_CROSSING.get((kind, side), _NOTHING)


def of_effect(kind: EffectKind, side: Side, target_kind: str) -> Mapping[str, int]:
    """Give what an effect adds, by counter.

    Args:
        kind: the effect.
        side: where it happened; tells a copy in the guest from one on the host.
        target_kind: kind of the thread it reached (a `ThreadKind`); empty if it reached none.
    """
    if kind is EffectKind.WAKEUP:
        return {"vcpu_wakeups": 1} if target_kind == ThreadKind.VCPU else {"wakeups": 1}
    if kind is EffectKind.COPY:
        return {"guest_copies": 1} if side is Side.GUEST else {"host_copies": 1}
    return {_OF_EFFECT[kind]: 1} if kind in _OF_EFFECT else _NOTHING


def of_arc(arc: Arc) -> Mapping[str, int]:
    """Give what taking an arc adds, by counter."""
    total: dict[str, int] = {}
    if arc.crossing is not None and arc.side is not None:
        _add(total, of_crossing(arc.crossing, arc.side))
    if arc.effect is not None:
        _add(total, of_effect(arc.effect, arc.op.place.side, arc.target.kind if arc.target else ""))
    return total


def count(arcs: Iterable[Arc], hits: Iterable[int]) -> dict[str, int]:
    """Sum all counters over arcs and how often each was taken; every counter is in the answer, in its fixed order."""
    total = dict.fromkeys(COUNTERS, 0)
    for arc, times in zip(arcs, hits, strict=True):
        if times and (arc.crossing is not None or arc.effect is not None):
            for name, more in of_arc(arc).items():
                total[name] += more * times
    return total


def nested(flat: Mapping[str, int]) -> dict[str, int | dict[str, int]]:
    """Give counters in the form in which they are written: `user_kernel.guest` under `user_kernel`, and so on."""
    made: dict[str, int | dict[str, int]] = {}
    for name, value in flat.items():
        head, _, tail = name.partition(".")
        if tail:
            inner = made.setdefault(head, {})
            assert isinstance(inner, dict)
            inner[tail] = value
        else:
            made[head] = value
    return made


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value
