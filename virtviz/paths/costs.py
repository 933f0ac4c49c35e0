"""Cost profiles: what operations cost in simulated time. All of it is assumption, kept in files with their sources."""

from __future__ import annotations

import tomllib

from msgspec import Struct

from virtviz.resources import data_folder


class CostProfile(Struct, frozen=True):
    """Nanoseconds by key of op, crossing or effect, and where the figures come from."""

    name: str
    title: str
    confidence: str
    nanoseconds: dict[str, int]
    sources: dict[str, str]


def load_costs(name: str) -> CostProfile:
    """Read a cost profile that comes with virtviz."""
    text = (data_folder("assets") / "costs" / f"{name}.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)
    return CostProfile(name, found["title"], found["confidence"], found["nanoseconds"], found["sources"])
