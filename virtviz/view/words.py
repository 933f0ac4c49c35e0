"""Words for what a step did: how crossings, effects, states and domains are called on a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.effects import EffectKind
from virtviz.engine.places import CrossingKind
from virtviz.engine.trace import Crossing

if TYPE_CHECKING:
    from virtviz.engine.trace import Effect

CROSSINGS: Final = {
    CrossingKind.SYSCALL_ENTER: ("system call", "syscall"),
    CrossingKind.SYSCALL_RETURN: ("syscall returns", "return"),
    CrossingKind.KVM_RUN_RETURN: ("KVM_RUN returns", "return"),
    CrossingKind.KVM_RUN_ENTER: ("KVM_RUN", "KVM_RUN"),
    CrossingKind.VM_EXIT: ("VM exit", "exit"),
    CrossingKind.VM_ENTRY: ("VM entry", "entry"),
    CrossingKind.IRQ_ENTER: ("interrupt", "irq"),
    CrossingKind.IRQ_RETURN: ("interrupt returns", "iret"),
}
"""Crossing -> its name, and the name where there is little room."""

_EFFECTS: Final = {
    EffectKind.WAKEUP: "wake-up",
    EffectKind.ALREADY_AWAKE: "already awake",
    EffectKind.GUEST_WAKEUP: "wakes the process",
    EffectKind.EVENTFD_SIGNAL: "eventfd signal",
    EffectKind.IRQ_INJECT: "interrupt to the guest",
    EffectKind.HW_IRQ: "hardware interrupt",
    EffectKind.COPY: "copy",
    EffectKind.DMA: "DMA",
    EffectKind.UPCALL: "upcall",
    EffectKind.DROP: "drop",
    EffectKind.TIMER: "sets a timer",
}
STATES: Final = {"ready": "ready", "waits": "waits", "sleeps": "asleep", "held": "held", "runs": "runs"}


def crossing_name(crossing: Crossing, room: int = 80) -> str:
    """Give a crossing's name in so many cells."""
    long, short = CROSSINGS[crossing.kind]
    return long if len(long) <= room else short


def cost_name(what: Crossing | Effect) -> str:
    """Say what one crossing or effect is, in a few words."""
    if isinstance(what, Crossing):
        return crossing_name(what)
    name = _EFFECTS[what.kind]
    if what.kind is EffectKind.WAKEUP:
        return f"wakes {what.target}"
    if what.kind is EffectKind.ALREADY_AWAKE:
        return f"{what.target} was awake"
    if what.bytes:
        return f"{name} {what.bytes} bytes"
    if what.kind is EffectKind.IRQ_INJECT and what.how:
        return f"interrupt ({what.how})"
    return name


def domain_name(domain: str) -> str:
    """Give a domain's name as people write it."""
    return domain.replace("-", " ")
