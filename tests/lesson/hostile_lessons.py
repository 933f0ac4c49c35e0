"""Broken and hostile lesson files, by name.

`PYTHONPATH=. python tests/lesson/hostile_lessons.py` prints what is said about each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from virtviz.errors import LessonError
from virtviz.lesson.check import examine_text
from virtviz.lesson.loader import SIZE_MAX, load

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD = """\
format_version: 1
id: 3-small
title: A small lesson
level: beginner
minutes: 5
objectives: [See a packet leave.]
world: {flows: known, queue: {show: 8}}
scenario:
  - send: {id: echo, kind: icmp-echo, bytes: 56}
  - reply: {to: echo}
script:
  - id: publish
    when: {op: publish_avail_idx, packet: echo}
    say: From here on the device may take the buffer.
  - id: kicked
    when: {milestone: notified, packet: echo}
    predict:
      ask: count
      counter: heavy_exits
      until: {op: vm_entry}
      text: How many heavy exits will there be?
    hints: [Look at the counter.]
sources: [virtio 1.4]
"""


def changed(*pairs: tuple[str, str]) -> bytes:
    """Give the good lesson with some words changed; each must be in it."""
    text = GOOD
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text.encode()


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

EXAMPLES: dict[str, bytes] = {
    "empty file": b"",
    "only comments": b"# nothing here\n",
    "only spaces": b"   \n\n  \n",
    "a text instead of a mapping": b"hello there\n",
    "a list instead of a mapping": b"- send\n- reply\n",
    "a number": b"42\n",
    "nothing but null": b"~\n",
    "not UTF-8": b"format_version: 1\ntitle: caf\xe9\n",
    "UTF-16": "format_version: 1\n".encode("utf-16"),
    "a NUL byte": b"format_version: 1\ntitle: a\x00b\n",
    "an escape sequence": b"format_version: 1\ntitle: \x1b[31mred\x1b[0m\n",
    "an escaped escape sequence": changed(("title: A small lesson", r'title: "\e[31mred\x1b]0;owned\a"')),
    "an escaped surrogate": changed(("title: A small lesson", r'title: "\ud800"')),
    "text that turns around": changed(("title: A small lesson", "title: abc\u202etxt.exe")),
    "tabs": b"format_version: 1\nscenario:\n\t- send: {id: echo}\n\t- reply: {to: echo}\n",
    "a tab in a text": changed(("A small lesson", r'"A small\tlesson"')),
    "too large": b"#" * (SIZE_MAX + 1),
    "alias bomb": LAUGHS.encode(),
    "an anchor": changed(("level: beginner", "level: &l beginner")),
    "an alias": changed(("level: beginner", "level: *l")),
    "a merge key": changed(("{flows: known,", "{<<: {flows: known},")),
    "a Python tag": changed(("title: A small lesson", "title: !!python/object/apply:os.system [date]")),
    "a tag": changed(("minutes: 5", "minutes: !!int '5'")),
    "two documents": GOOD.encode() + b"---\n" + GOOD.encode(),
    "a YAML directive": b"%YAML 1.1\n---\n" + GOOD.encode(),
    "a tag directive": b"%TAG ! tag:example.com,2000:\n---\n" + GOOD.encode(),
    "deep nesting": b"format_version: " + b"[" * 4000 + b"\n",
    "deep nesting in blocks": "".join(f"{' ' * i}a:\n" for i in range(300)).encode(),
    "many values": ("world:\n" + "".join(f"  k{i}: 1\n" for i in range(15_000))).encode(),
    "duplicate keys": changed(("minutes: 5", "minutes: 5\nminutes: 6\nlevel: advanced")),
    "duplicate keys inside": changed(("{op: publish_avail_idx,", "{op: publish_avail_idx, op: kick,")),
    "a key that is a list": changed(("minutes: 5", "? [minutes]\n: 5")),
    "unknown keys": changed(("minutes: 5", "minuts: 5"), ("packet: echo}\n    say", "pakcet: echo}\n    sya")),
    "a key far from all others": changed(("minutes: 5", "minutes: 5\nzzz: 1")),
    "missing keys": b"format_version: 1\nid: 3-small\n",
    "another version": changed(("format_version: 1", "format_version: 2")),
    "numbers in quotes": changed(("format_version: 1", "format_version: '1'"), ("minutes: 5", 'minutes: "5"')),
    "wrong words": changed(("level: beginner", "level: beginer"), ("ask: count", "ask: counts")),
    "a bad id": changed(("id: 3-small", "id: 3 Small!")),
    "numbers out of range": changed(("minutes: 5", "minutes: 0"), ("bytes: 56", "bytes: 90000, count: 0")),
    "a huge number": changed(("minutes: 5", "minutes: " + "9" * 5000)),
    "numbers in other forms": changed(("minutes: 5", "minutes: 0x10"), ("bytes: 56", "bytes: 0o700000")),
    "no sexagesimal": changed(("minutes: 5", "minutes: 1:30")),
    "infinity": changed(("minutes: 5", "minutes: .inf"), ("bytes: 56", "bytes: 1e999")),
    "yes is a word": changed(("minutes: 5", "minutes: yes")),
    "true is no text": changed(("title: A small lesson", "title: true")),
    "a number is no text": changed(("title: A small lesson", "title: 2024")),
    "nothing where a condition is needed": changed(("when: {milestone: notified, packet: echo}", "when:")),
    "a text behind a quoted text": changed(("title: A small lesson", 'title: "A small" lesson')),
    "nothing where a text is needed": changed(
        ("title: A small lesson", "title:"), ("packet: echo}\n    say:", "packet: echo}\n    say: ~ #")
    ),
    "an empty text": changed(("title: A small lesson", "title: ''")),
    "a mapping where a text is needed": changed(("title: A small lesson", "title: {a: b}")),
    "a list where a mapping is needed": changed(("world: {flows: known, queue: {show: 8}}", "world: [flows, known]")),
    "no event": changed(("  - send: {id: echo, kind: icmp-echo, bytes: 56}\n  - reply: {to: echo}\n", "  []\n")),
    "two events in one": changed(("bytes: 56}\n  - reply", "bytes: 56}\n    reply")),
    "an event without key": changed(("  - reply: {to: echo}", "  - {}")),
    "a when that is a word": changed(("when: {milestone: notified, packet: echo}", "when: begin")),
    "unknown settings": changed(("flows: known", "flow: known"), ("{show: 8}", "{size: 100, shwo: 3}")),
    "bad settings": changed(
        ("flows: known", "flows: perhaps, napi_tx: true, host_kernel: 6.12"), ("{show: 8}", "{show: 3}")
    ),
    "settings that contradict": changed(("flows: known", "cpu: amd")),
    "a setting given twice": changed(("{show: 8}", "{show: 8}, queue.show: 16")),
    "an unknown profile": changed(("flows: known", "profile: defualt")),
    "a reply before its packet": changed(
        (
            "  - send: {id: echo, kind: icmp-echo, bytes: 56}\n  - reply: {to: echo}\n",
            "  - reply: {to: echo}\n  - send: {id: echo, kind: icmp-echo, bytes: 56}\n",
        )
    ),
    "a reply to nothing": changed(("{to: echo}", "{to: ecco}")),
    "two replies": changed(("  - reply: {to: echo}", "  - reply: {to: echo}\n  - reply: {to: echo, id: other}")),
    "a packet's name twice": changed(("  - reply: {to: echo}", "  - receive: {id: echo}")),
    "an unknown machine": changed(("kind: icmp-echo", "from: vm7")),
    "too many packets": changed(
        ("bytes: 56", "count: 700"), ("  - reply: {to: echo}", "  - receive: {id: in, count: 700}")
    ),
    "only a pause": changed(
        ("send: {id: echo, kind: icmp-echo, bytes: 56}\n  - reply: {to: echo}", "pause: until-idle")
    ),
    "a poke at no queue": changed(
        ("  - reply: {to: echo}", "  - poke: {queue: transmitq, field: avail.idx, value: -1}")
    ),
    "a poke at no field": changed(
        ("  - reply: {to: echo}", "  - poke: {queue: transmitq1, field: avail.index, value: 1}")
    ),
    "a poke behind the end": changed(
        ("  - reply: {to: echo}", "  - poke: {queue: transmitq1, field: 'desc[256].len', value: 1}")
    ),
    "a poke of too much": changed(
        ("  - reply: {to: echo}", "  - poke: {queue: receiveq1, field: avail.idx, value: 65536}")
    ),
    "unknown names in conditions": changed(
        ("publish_avail_idx", "publish_avail_index"),
        ("milestone: notified", "milestone: notifed"),
        ("heavy_exits", "heavy_exit"),
    ),
    "a condition that nothing meets": changed(
        ("{milestone: notified, packet", "{milestone: notified, op: kick, packet")
    ),
    "an unknown packet and thread": changed(("packet: echo}\n    say", "packet: ping, thread: vhots}\n    say")),
    "a packet number too high": changed(("packet: echo}\n    say", "packet: 3}\n    say")),
    "an unknown field": changed(("packet: echo}\n    say", "field: avail.index}\n    say")),
    "unknown words of closed sets": changed(
        ("packet: echo}\n    say", "crossing: vmexit, effect: wakup, domain: guest-kernal}\n    say")
    ),
    "an outcome of another op": changed(("packet: echo}\n    say", "outcome: kick}\n    say")),
    "a bad comparison": changed(("packet: echo}\n    say", "counter: {light_exits: more than 2, exits: 1}}\n    say")),
    "an empty condition": changed(("when: {op: publish_avail_idx, packet: echo}", "when: {}")),
    "nth inside any": changed(("packet: echo}\n    say", "any: [{thread: vcpu, nth: 2}]}\n    say")),
    "keys of another kind of question": changed(("ask: count", "ask: next-op")),
    "a choice without options": changed(
        ("ask: count\n      counter: heavy_exits\n      until: {op: vm_entry}", "ask: choice")
    ),
    "an answer that is no option": changed(
        (
            "ask: count\n      counter: heavy_exits\n      until: {op: vm_entry}",
            "ask: choice\n      options: [one, two, two]\n      answer: tow",
        )
    ),
    "an id twice": changed(("id: kicked", "id: publish")),
    "an entry that does nothing": changed(("    say: From here on the device may take the buffer.\n", "")),
    "hints without question": changed(("take the buffer.\n", "take the buffer.\n    hints: [None.]\n")),
    "a release without hold": changed(("take the buffer.\n", "take the buffer.\n    release: vhost\n")),
    "a hold without release": changed(("take the buffer.\n", "take the buffer.\n    hold: vhost\n")),
    "equal problems": b"".join([b"title: x\n", b"zzz: 1\n" * 9]),
    "no colon": b"format_version 1\nid: x\n",
    "a colon too many": b"title: one: two\n",
    "bad indentation": b"a:\n    b: 1\n  c: 2\n",
    "a list item out of line": b"scenario:\n  - send: {id: a}\n - reply: {to: a}\n",
    "an open quote": b"title: 'never closed\nlevel: beginner\n",
    "an open list": b"objectives: [one, two\nlevel: beginner\n",
    "an open mapping": b"world: {flows: known\nlevel: beginner\n",
    "a bracket too many": b"objectives: [one]]\n",
    "a text that begins with @": b"title: @home\n",
    "a text that begins with a backtick": b"title: `code`\n",
    "a bad escape": b'title: "C:\\path"\n',
    "half an escape": b'title: "\\x4"\n',
    "text after |": b"title: | text\n  more\n",
    "a dash out of place": b"title: - one\n",
}


def messages(data: bytes, folder: Path, name: str = "lesson.yaml") -> list[str]:
    """Write a file, and give all that reading and checking it says, with the file called by its bare name."""
    path = folder / name
    path.write_bytes(data)
    try:
        load(path)
    except LessonError as error:
        return [str(problem).replace(str(path), name) for problem in error.problems]
    return [str(problem) for problem in examine_text(data.decode(), name).problems]


def transcript(folder: Path, say: Callable[[bytes, Path], list[str]] = messages) -> str:
    """Give every example's name and the messages about it."""
    parts = ["\n".join([f"# {name}", *say(data, folder)]) for name, data in EXAMPLES.items()]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        sys.stdout.write(transcript(Path(made)))
