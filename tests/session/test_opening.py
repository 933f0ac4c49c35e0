"""Opening a lesson is quick because of what it does without; what can be counted of that is counted here."""

import subprocess
import sys

UNNEEDED = (
    *("textual", "rich", "networkx", "jsonschema", "dpkt", "asyncio", "difflib", "hashlib", "json"),
    *("virtviz.export", "virtviz.view", "virtviz.ui", "virtviz.lesson.check", "virtviz.lesson.names"),
    *("virtviz.lesson.schema", "virtviz.session.questions", "virtviz.paths.capture", "virtviz.engine.explore"),
)
OPEN = """
import sys
from virtviz.lesson.loader import load
from virtviz.lesson.shelf import find
from virtviz.session.session import Session
opened = Session.open(load(find("3-vhost")))
"""


def run(script):
    done = subprocess.run([sys.executable, "-c", OPEN + script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_opening_a_lesson_loads_nothing_that_only_later_screens_and_other_verbs_need():
    assert run(f"print(*[name for name in {UNNEEDED!r} if name in sys.modules])") == []


def test_no_class_is_compiled_when_a_lesson_is_opened():
    # A dataclass takes 0.4 ms to define, a Struct 0.01 ms, and opening a lesson defines half a hundred records.
    script = """
for name, module in sorted(sys.modules.items()):
    if name.startswith("virtviz"):
        print(*[kind for kind in vars(module).values() if hasattr(kind, "__dataclass_fields__")])
"""
    assert run(script) == []


def test_a_lesson_of_a_few_packets_has_little_memory():
    (size,) = run("print(sum(region.size for region in opened.simulation.machine.state.regions))")
    assert int(size) < 4_000_000
