"""What an engine primitive did beside the operation itself, and the words by which an outcome says so.

An op reports what a primitive did by answering with the primitive's own result: waking a thread answers `woke` or
`already awake`, copying answers `copied`. Each of these words is an outcome of its own, so it has an arc of its own,
and the arc carries the effect. That is why a counter can be a sum over arcs, in both modes of running.
"""

from __future__ import annotations

from enum import StrEnum


class EffectKind(StrEnum):
    """The kinds of effect that the ledger lists."""

    WAKEUP = "wakeup"
    ALREADY_AWAKE = "already-awake"
    GUEST_WAKEUP = "guest-wakeup"
    EVENTFD_SIGNAL = "eventfd-signal"
    IRQ_INJECT = "irq-inject"
    HW_IRQ = "hw-irq"
    COPY = "copy"
    DMA = "dma"
    UPCALL = "upcall"
    DROP = "drop"
    TIMER = "timer"


WOKE = "woke"
ALREADY_AWAKE = "already awake"
WOKE_PROCESS = "woke the process"
SIGNALLED = "signalled"
POSTED = "posted"
KICKED = "kicked"
AT_ENTRY = "at entry"
HW_INTERRUPTED = "interrupted"
COPIED = "copied"
DMA_READ = "read by dma"
DMA_WRITTEN = "written by dma"
UPCALLED = "upcalled"
DROPPED = "dropped"
TIMER_SET = "timer set"

EFFECT_OF_OUTCOME: dict[str, tuple[EffectKind, str | None]] = {
    WOKE: (EffectKind.WAKEUP, None),
    ALREADY_AWAKE: (EffectKind.ALREADY_AWAKE, None),
    WOKE_PROCESS: (EffectKind.GUEST_WAKEUP, None),
    SIGNALLED: (EffectKind.EVENTFD_SIGNAL, None),
    POSTED: (EffectKind.IRQ_INJECT, "posted"),
    KICKED: (EffectKind.IRQ_INJECT, "kick"),
    AT_ENTRY: (EffectKind.IRQ_INJECT, "at entry"),
    HW_INTERRUPTED: (EffectKind.HW_IRQ, None),
    COPIED: (EffectKind.COPY, None),
    DMA_READ: (EffectKind.DMA, None),
    DMA_WRITTEN: (EffectKind.DMA, None),
    UPCALLED: (EffectKind.UPCALL, None),
    DROPPED: (EffectKind.DROP, None),
    TIMER_SET: (EffectKind.TIMER, "mitigation"),
}
"""Outcome word -> the effect it stands for, and the way it was done where there are several (interrupts; timers, by
which the cost profile knows how long they run)."""
