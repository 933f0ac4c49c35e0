"""The JSON Schema of the lesson format, made from the types in `model.py`: for editors, and to list every fault.

It is of draft 7, because that is what YAML language servers read. For editors the settings of the simulated machine and
the closed sets of words are added, so that they complete them and show what each is for.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, get_args

import msgspec

from virtviz.engine.counters import COUNTERS
from virtviz.engine.effects import EffectKind
from virtviz.engine.places import CrossingKind, Domain
from virtviz.lesson.model import EVENT_KEYS, Ask, Kind, Lesson, Level
from virtviz.paths.knobs import KNOBS, PROFILES, Knob

DRAFT: Final = "http://json-schema.org/draft-07/schema#"
MILESTONES: Final = (
    *("sent", "in-ring", "notified", "backend-awake", "fetched", "at-tap", "at-switch", "on-wire", "used", "completed"),
    *("from-wire", "in-guest-buffer", "interrupted", "polled", "received"),
)
"""Points of a packet's way, out and then in; those that both ways have are named once."""
_ORDERS: Final = (get_args(Level), get_args(Kind), get_args(Ask), ("start", "end"))


@cache
def shape_schema() -> dict[str, Any]:
    """Give the schema of the types alone: what a file must be to become a `Lesson`."""
    (_,), parts = msgspec.json.schema_components([Lesson], ref_template="#/definitions/{name}")
    for part in parts.values():
        part["description"] = part.get("description", "").split("\n\n")[0]
    _in_our_order(parts)
    event = parts["Event"]
    event |= {"minProperties": 1, "maxProperties": 1, "one_of": list(EVENT_KEYS)}
    lesson = parts.pop("Lesson")
    return {"$schema": DRAFT, **lesson, "definitions": parts}


def _in_our_order(schema: Any) -> None:  # noqa: ANN401 - any part of a schema
    """Put the words of enumerations back into the order in which the types have them; msgspec sorts them."""
    if isinstance(schema, dict):
        words = schema.get("enum")
        if isinstance(words, list):
            schema["enum"] = next((list(order) for order in _ORDERS if set(order) == set(words)), words)
        for part in schema.values():
            _in_our_order(part)
    elif isinstance(schema, list):
        for part in schema:
            _in_our_order(part)


def lesson_schema() -> dict[str, Any]:
    """Give the schema for editors; the file `lessons/lesson.schema.json` holds the same."""
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(shape_schema()))
    parts = made["definitions"]
    del parts["Event"]["one_of"]
    when = parts["When"]["properties"]
    for key, words in (
        ("domain", [*Domain]),
        ("milestone", MILESTONES),
        ("crossing", [*CrossingKind]),
        ("effect", [*EffectKind]),
    ):
        when[key]["enum"] = [str(word) for word in words]
    when["counter"]["propertyNames"] = {"enum": list(COUNTERS)}
    parts["Predict"]["properties"]["counter"]["enum"] = list(COUNTERS)
    made["properties"]["world"] |= {"additionalProperties": False, "properties": _world()}
    return made


def _world() -> dict[str, Any]:
    """Describe the settings, by their dotted names and nested."""
    found: dict[str, Any] = {"profile": {"enum": list(PROFILES), "description": "The settings to begin with."}}
    for name, knob in KNOBS.items():
        about = _knob(knob)
        found[name] = about
        group, _, rest = name.partition(".")
        if rest:
            nested = found.setdefault(group, {"type": "object", "additionalProperties": False, "properties": {}})
            nested["properties"][rest] = about
    return found


def _knob(knob: Knob) -> dict[str, Any]:
    about: dict[str, Any] = {"description": f"{knob.what} It is {knob.allowed()}."}
    if knob.choices:
        # A version such as 6.12 is a number to YAML unless it is put in quotes.
        return about | {"enum": list(knob.choices)}
    if knob.members:
        one = {"enum": list(knob.members)}
        return about | {"anyOf": [{"type": "array", "items": one}, {"type": "string"}]}
    return about | {"type": "integer", "minimum": knob.low, "maximum": knob.high}
