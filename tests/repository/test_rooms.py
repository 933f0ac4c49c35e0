"""The rooms, as they are at run time: a static graph cannot see a deferred import."""

import subprocess
import sys

import pytest

ROOMS = {
    "virtviz.errors": ("msgspec",),
    "virtviz.spec.frames": ("msgspec",),
    "virtviz.engine.recording": ("msgspec",),
    "virtviz.ring.split_driver": ("msgspec",),
    "virtviz.paths.wiring": ("msgspec",),
    "virtviz.lesson.model": ("msgspec",),
    "virtviz.lesson.loader": ("msgspec", "yaml"),
    "virtviz.view.frame": ("msgspec",),
    "virtviz.session.session": ("msgspec", "yaml"),
    "virtviz.study.compare": ("msgspec", "yaml"),
    "virtviz.export.jsonl": ("msgspec", "yaml"),
    "virtviz.cli": ("msgspec", "yaml", "click"),
}
"""Module -> outside packages that importing it may bring in. Records are structs of msgspec in every room: ADR 5."""
WATCHED = ("textual", "rich", "networkx", "yaml", "msgspec", "jsonschema", "click", "dpkt")


@pytest.mark.parametrize("module", ROOMS)
def test_importing_a_room_brings_in_nothing_that_belongs_elsewhere(module):
    script = f"import sys, {module}; print(*[name for name in {WATCHED!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert set(found) <= set(ROOMS[module])


@pytest.mark.parametrize("room", ["engine", "ring", "paths", "lesson", "view", "session", "study"])
def test_a_room_can_be_imported_without_those_above_it(room):
    order = ["cli", "ui", "export", "study", "session", "view", "lesson", "paths", "ring", "engine"]
    above = order[: order.index(room)]
    above += ["lesson"] if room == "view" else []
    script = f"import sys, pkgutil, importlib, virtviz.{room} as r\n"
    script += f"[importlib.import_module('virtviz.{room}.' + m.name) for m in pkgutil.iter_modules(r.__path__)]\n"
    script += f"print(*[a for a in {above!r} if 'virtviz.' + a in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not found
