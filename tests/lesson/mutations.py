"""Ways to break a lesson file: bytes, lines, keys, structure, numbers, and text that merely looks like YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

WORDS = (
    *("send", "reply", "when", "op", "any", "nth", "counter", "predict", "of", "until", "world", "script", "id", "say"),
    *(
        "true",
        "off",
        "~",
        "0x7f",
        "0o17",
        "1e999",
        ".nan",
        "-1",
        "9" * 30,
        "9" * 5000,
        "''",
        '"',
        "'",
        "[",
        "]",
        "{",
        "}",
    ),
    *(
        ": ",
        "- ",
        "? ",
        "# ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "&a ",
        "*a",
        "!!str ",
        "!x ",
        "<<: ",
        "| ",
        ">- ",
        "@",
        "`",
    ),
    *(
        "\t",
        "\r",
        "\0",
        "\x1b[2J",
        "\u202e",
        "\ufeff",
        "\U0001f600",
        "é",
        "\\x00",
        "\\",
        "\n",
        "\n\n",
        "    ",
        "echo",
        "vm1",
    ),
)
HOSTILE_BYTES = (b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8")


BYTES_MAX = 1 << 20
"""Larger files are not made larger still; a lesson has at most a quarter of it."""


def mutate(data: bytes, random: Random) -> bytes:
    """Break a file, mostly in one way, in up to five."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        if len(data) < BYTES_MAX:
            data = random.choice(MUTATIONS)(data, random)
    return data


def flip_bytes(data: bytes, random: Random) -> bytes:
    """Change some bits."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def insert_bytes(data: bytes, random: Random) -> bytes:
    """Put bytes in that are no UTF-8, or that no text should hold."""
    at = random.randint(0, len(data))
    return data[:at] + random.choice(HOSTILE_BYTES) + data[at:]


def insert_words(data: bytes, random: Random) -> bytes:
    """Put words and signs in that mean something to YAML or to the format."""
    at = random.randint(0, len(data))
    return data[:at] + random.choice(WORDS).encode() + data[at:]


def replace_word(data: bytes, random: Random) -> bytes:
    """Put another word where one stands."""
    parts = data.split(b" ")
    parts[random.randrange(len(parts))] = random.choice(WORDS).encode()
    return b" ".join(parts)


def cut(data: bytes, random: Random) -> bytes:
    """Take a piece out, or cut the file off."""
    first, last = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
    return data[:first] + (data[last:] if random.random() < 0.8 else b"")


def move_lines(data: bytes, random: Random) -> bytes:
    """Delete, repeat or swap lines."""
    lines = data.split(b"\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    how = random.randrange(3)
    if how == 0:
        del lines[first]
    elif how == 1:
        lines[second:second] = lines[first : first + random.randint(1, 12)]
    else:
        lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def shift_line(data: bytes, random: Random) -> bytes:
    """Indent a line otherwise."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    lines[at] = b" " * random.randint(0, 9) + lines[at].lstrip()
    return b"\n".join(lines)


def swap_keys(data: bytes, random: Random) -> bytes:
    """Give a key another key's name."""
    keys = [part for part in data.replace(b"{", b" ").replace(b",", b" ").split() if part.endswith(b":")]
    if not keys:
        return data
    return data.replace(random.choice(keys), random.choice(keys), random.randint(1, 3))


def nest(data: bytes, random: Random) -> bytes:
    """Put a deep or a wide value in."""
    depth = random.choice((3, 20, 400, 5000))
    inner = random.choice((b"[" * depth, b"{a: " * depth, b"[" * depth + b"]" * depth, b"- " * depth, b"[x, " * depth))
    at = random.randint(0, len(data))
    return data[:at] + inner + data[at:]


def add_aliases(data: bytes, random: Random) -> bytes:
    """Put a bomb of aliases in front."""
    bomb = b"".join(b"x%d: &x%d [%s]\n" % (i, i, b", ".join([b"*x%d" % (i - 1)] * 9)) for i in range(1, 9))
    return b"x0: &x0 [lol]\n" + bomb + data


def repeat(data: bytes, random: Random) -> bytes:
    """Repeat the whole file, up to more than a lesson may have."""
    return data * random.choice((2, 3, 40))


MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(flip_bytes, insert_bytes, insert_words, insert_words, replace_word, replace_word, cut, move_lines, move_lines),
    *(shift_line, swap_keys, nest, add_aliases, repeat),
)
