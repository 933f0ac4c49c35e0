"""The assumptions of a cost profile as text and as JSON."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, TextIO

import msgspec

from virtviz.errors import printable
from virtviz.paths.costs import CONFIDENCE, load_costs, profile_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from virtviz.paths.costs import CostProfile

WIDTH = 80
WIDTH_MAX = 160


def write_costs(out: TextIO, profile: CostProfile, width: int | None = None) -> None:
    """Write what everything is assumed to take, how far that can be trusted, and where it comes from."""
    columns = min(width or WIDTH, WIDTH_MAX)
    out.writelines(line.rstrip() + "\n" for line in _lines(profile, columns))


def _lines(profile: CostProfile, columns: int) -> Iterator[str]:
    yield f"{printable(profile.name)}: {profile.title}"
    if profile.about:
        yield from textwrap.wrap(profile.about, columns)
    yield ""
    key = max(map(len, profile.costs))
    label = f"{'what':{key}} {'ns':>6}  "
    yield f"{label}   where it comes from"
    for name, cost in profile.costs.items():
        begin = f"{name:{key}} {cost.ns:>6}  {cost.confidence}  "
        wrapped = textwrap.wrap(cost.source, max(columns - len(begin), 20), break_on_hyphens=False)
        yield begin + wrapped[0]
        yield from (" " * len(begin) + line for line in wrapped[1:])
    yield ""
    yield from (f"{letter}  {what}" for letter, what in CONFIDENCE.items())
    yield "-latency: until a wake-up or interrupt arrives; -per-kib: for 1024 bytes"
    yield ""
    yield "profiles:"
    for name in profile_names():
        yield f"  {name:14} {load_costs(name).title}"
    yield from textwrap.wrap(
        "One's own: a file such as my.toml with base, [cost], and below it such as "
        'vm-exit = { ns = 300, confidence = "M", source = "..." }; then --set costs=my.toml.',
        columns,
    )


def costs_json(profile: CostProfile) -> str:
    """Give a profile as one JSON object, indented."""
    made = {
        "name": profile.name,
        "title": profile.title,
        "about": profile.about,
        "costs": {
            key: {"ns": cost.ns, "confidence": cost.confidence, "source": cost.source}
            for key, cost in profile.costs.items()
        },
    }
    return msgspec.json.format(msgspec.json.encode(made), indent=1).decode()
