"""From plain values to a `Lesson`: does the file have the parts that the format asks for?

The common case is quick: msgspec converts the values, or refuses them at the first fault. Only then is jsonschema
imported, to find all faults by the schema of the same types; each is put into words and given its place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from virtviz.lesson.marks import did_you_mean, shown
from virtviz.lesson.model import Lesson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jsonschema import Draft7Validator
    from jsonschema.exceptions import ValidationError

    from virtviz.lesson.marks import Marks, Path

_TYPES: Final = {
    "string": "a text",
    "integer": "a whole number",
    "array": "a list",
    "object": "a mapping of keys",
}
_PART: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
KEYS_NAMED_MAX: Final = 14
"""Keys that a message lists."""
DIGITS_MAX: Final = 18
"""Digits of a number; no setting needs more, and what is longer is taken as a text."""


def as_lesson(value: object, marks: Marks) -> Lesson | None:
    """Convert plain values to a lesson; on faults, note all of them and answer None."""
    try:
        return msgspec.convert(value, Lesson)
    except msgspec.ValidationError as error:
        if not _list_faults(value, marks):
            _note_first(error, marks)
        return None


def _note_first(error: msgspec.ValidationError, marks: Marks) -> None:
    """Note the one fault that msgspec named."""
    what, _, path = str(error).partition(" - at `$")
    at: list[str | int] = []
    for key, index in _PART.findall(path.rstrip("`")):
        at.append(int(index) if index else key)
    marks.add(tuple(at), what[:1].lower() + what[1:])


def _list_faults(value: object, marks: Marks) -> bool:
    """Note every fault that the schema finds; answers whether there was one."""
    from virtviz.lesson.schema import shape_schema  # noqa: PLC0415 - as in `validator`

    teller = _Teller(shape_schema(), marks)
    before = len(marks.found)
    for error in validator().iter_errors(value):
        teller.tell(error, ())
    return len(marks.found) > before


def validator() -> Draft7Validator:
    """Give what lists the faults of plain values by the schema of the types, as strict as the types are."""
    # Imported here because it takes longer than everything else that reading needs, and only broken files need it.
    from jsonschema import Draft7Validator, validators  # noqa: PLC0415

    from virtviz.lesson.schema import shape_schema  # noqa: PLC0415

    # To JSON Schema 5.0 is an integer; to YAML it is a float.
    types = Draft7Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    strict: type[Draft7Validator] = validators.extend(Draft7Validator, type_checker=types)  # type: ignore[no-untyped-call]
    return strict(shape_schema())


class _Teller:
    """Puts the faults that jsonschema finds into words."""

    def __init__(self, schema: Mapping[str, Any], marks: Marks) -> None:
        self.schema = schema
        self.marks = marks

    def tell(self, error: ValidationError, above: Path) -> None:
        """Note one fault; one of several alternatives is told as a fault of the alternative that was meant."""
        at: Path = (*above, *error.path)
        value: Any = error.instance
        rule: Any = error.validator_value
        schema: Any = error.schema
        match error.validator:
            case "additionalProperties":
                self._unknown_keys(at, value, schema)
            case "required":
                for key in (key for key in rule if key not in value):
                    # One message for each key, although jsonschema gives one error for each as well.
                    if repr(key) in error.message.split(" is a ")[0]:
                        self.marks.add(at, f"the key `{key}` is missing; add {self._example(key, schema)}")
            case "anyOf":
                self._alternatives(error, at)
            case "enum":
                hint = did_you_mean(value, map(str, rule)) if isinstance(value, str) else ""
                self.marks.add(at, f"{_named(value)} is not {_one_of(rule)}{_unquoted(value, rule) or hint}")
            case "minProperties" | "maxProperties" if "one_of" in schema:
                self.marks.add(at, f"exactly one of the keys {_listed(schema['one_of'])} is needed here")
            case "minItems" | "minProperties" | "maxItems" | "maxProperties":
                least = error.validator.startswith("min")
                thing = "entries" if "Prop" in error.validator else "items"
                self.marks.add(at, f"{len(value)} {thing}; there must be {'at least' if least else 'at most'} {rule}")
            case "minLength":
                self.marks.add(at, "an empty text; write one, or leave the key out")
            case _:
                self._wrong_value(at, value, schema)

    def _wrong_value(self, at: Path, value: object, schema: Mapping[str, Any]) -> None:
        wanted = self.expected(schema)
        if not at:
            self.marks.add(at, "this is no lesson; a lesson is a mapping of keys and begins with `format_version: 1`")
        elif value is None:
            self.marks.add(at, f"nothing stands here; write {wanted}, or leave the key out")
        elif "text" in wanted and isinstance(value, int | float):
            self.marks.add(at, _no_text(value))
        else:
            self.marks.add(at, f"{_named(value)} is not {wanted}{_unquoted(value, [])}")

    def _unknown_keys(self, at: Path, value: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
        known = list(schema.get("properties", {}))
        for key in value:
            if key not in known:
                missing = [other for other in known if other not in value]
                listed = f"; the keys here are {_listed(known)}"
                self.marks.add((*at, key), "unknown key" + did_you_mean(key, missing or known, listed), key=True)

    def _alternatives(self, error: ValidationError, at: Path) -> None:
        """Of several alternatives, take the one that has the value's own type; where none has, name them all."""
        value, branches = error.instance, cast("list[dict[str, Any]]", error.validator_value)
        for number, branch in enumerate(branches):
            resolved = self._resolve(branch)
            if (isinstance(value, dict) and resolved.get("type") == "object") or (
                isinstance(value, list) and resolved.get("type") == "array"
            ):
                for inner in error.context:
                    if inner.schema_path and inner.schema_path[0] == number:
                        self.tell(inner, at)
                return
        expected = self.expected({"anyOf": branches})
        if value is None:
            self.marks.add(at, f"nothing stands here; write {expected}")
            return
        if "text" in expected and isinstance(value, int | float):
            self.marks.add(at, _no_text(value))
            return
        words = [word for branch in branches for word in self._resolve(branch).get("enum", ())]
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        self.marks.add(at, f"{_named(value)} is not {expected}{hint}")

    def _resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            schema = self.schema["definitions"][schema["$ref"].rsplit("/", 1)[-1]]
        return schema

    def _example(self, key: str, schema: Mapping[str, Any]) -> str:
        return f"`{key}:` with {self.expected(schema.get('properties', {}).get(key, {}))}"

    def expected(self, schema: Mapping[str, Any]) -> str:
        """Say in words what a value may be."""
        schema = self._resolve(schema)
        if "anyOf" in schema:
            parts = [self.expected(branch) for branch in schema["anyOf"]]
            return " or ".join(dict.fromkeys(parts))
        if "enum" in schema:
            return _one_of(schema["enum"])
        if "pattern" in schema:
            return "a name of lower-case letters, digits and hyphens"
        name = _TYPES.get(schema.get("type", ""), "a value")
        if "minimum" in schema and "maximum" in schema:
            return f"{name} from {schema['minimum']} to {schema['maximum']}"
        return f"{name} from {schema['minimum']} on" if "minimum" in schema else name


def _unquoted(value: object, numbers: list[Any]) -> str:
    """Say that a number was written as a text, if it was; `numbers` are those that would do, empty for any."""
    if not isinstance(value, str) or len(value) > DIGITS_MAX or not value.isdecimal():
        return ""
    return "; a number is written without quotes" if not numbers or value in map(str, numbers) else ""


def _no_text(value: float) -> str:
    """Say why a value is no text."""
    if isinstance(value, bool):
        return f"{_named(value)} is read as true or false; write on or off for a setting, or put it in quotes"
    return f"{_named(value)} is read as a number; put it in quotes"


def _named(value: object) -> str:
    """Quote a value."""
    return {True: "`true`", False: "`false`"}[value] if isinstance(value, bool) else shown(value)


def _one_of(words: list[Any]) -> str:
    return str(words[0]) if len(words) == 1 else "one of " + ", ".join(map(str, words))


def _listed(words: list[str]) -> str:
    more = ", ..." if len(words) > KEYS_NAMED_MAX else ""
    return ", ".join(words[:KEYS_NAMED_MAX]) + more
