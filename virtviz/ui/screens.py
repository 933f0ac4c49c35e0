"""The two small windows over the screen: help, and the number of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from virtviz.ui.commands import COMMANDS
from virtviz.ui.grid import to_ascii, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from textual import events
    from textual.app import ComposeResult

_SIGNS: Final = (
    ("┏━━┓", "the place whose code runs; the thread's name is on its frame"),
    ("▶", "who runs, and where a thread or packet goes"),
    ("■ □", "a packet being worked on, a packet waiting in a queue"),
    ("━━", "a border being crossed; the crossing's name is beside it"),
    ("*  °", "a field that the step wrote, a field that it read"),
    ("3→3", "a free-running index, and the slot it stands for"),
    ("drv dev usd", "who may touch a descriptor: driver, device, or used: given back and not taken yet"),
    ("(next 1)", "stands in memory, and means nothing as the flag N (NEXT) is not set: there is no chain"),
    ("↑dr ↑de ↑", "where the driver (↑driver), the device (↑device) or both go on in a ring"),
    ("A- -U AU", "in a packed ring, which of the flags AVAIL and USED a descriptor has"),
    ("!w1", "in a packed ring, the slot at which a side wants to be told, and the wrap counter"),
    ("+1", "what the step added to a counter"),
    ("evfd", "eventfd signals, in the last line of the counters, beside upcalls of Open vSwitch and drops"),
    ("ev up dr", "the same beside large numbers; xl and xh then are light and heavy VM exits"),
    ("u k h", "in the thread lanes: user code, kernel code, hardware; a capital letter crossed a border"),
    ("◆ ┴ ?", "on the track: milestones, crossings, questions"),
)


TEXT_WIDTH: Final = 68
MOST_DIGITS: Final = 12
"""More than the number of any step has."""


def _keys() -> Iterator[tuple[str, str]]:
    """Give keys and what they do; the two ways of one movement share a line."""
    commands = list(COMMANDS)
    while commands:
        command = commands.pop(0)
        if commands and command.action.endswith("(1)") and commands[0].action.endswith("(-1)"):
            back = commands.pop(0)
            yield f"{command.shown} {back.shown}", f"{command.title}; {back.title[0].lower()}{back.title[1:]}."
        else:
            yield command.shown, f"{command.title}. {command.help}"


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Give rows of a sign and its meaning, the meaning broken into lines under one another."""
    for sign, meaning in rows:
        for i, line in enumerate(wrap(meaning, TEXT_WIDTH - 15)):
            yield f"  {sign if i == 0 else '':<13}{line}"


class Help(ModalScreen[None]):
    """All keys, and what the signs mean."""

    CSS: ClassVar[str] = """
    Help { align: center middle; }
    Help VerticalScroll { width: 76; max-width: 96%; height: auto; max-height: 92%; padding: 1 2; background:
    $surface; border: round $primary; } Help Static { width: 100%; }
    Help.plain VerticalScroll { border: ascii $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q,enter", "dismiss", "Close", show=False),
    ]

    def __init__(self, *, plain: bool) -> None:
        super().__init__(classes="plain" if plain else None)
        self._plain = plain

    def compose(self) -> ComposeResult:
        """Give one table of keys and one of signs."""
        text = "\n".join(["Keys", "", *_table(_keys()), "", "Signs", "", *_table(_SIGNS), "", "Escape closes this."])
        with VerticalScroll():
            yield Static(to_ascii(text) if self._plain else text, markup=False)

    def on_click(self, event: events.Click) -> None:
        """Close when something beside the window is clicked."""
        if event.widget is self:
            self.dismiss()


class GoTo(ModalScreen[int | None]):
    """Ask for the number of a step."""

    CSS: ClassVar[str] = """
    GoTo { align: center middle; }
    GoTo Vertical { width: 40; height: auto; padding: 1 2; background: $surface; border: round $primary; }
    GoTo.plain Vertical, GoTo.plain Input { border: ascii $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Close", show=False)]

    def __init__(self, position: int, length: int, *, plain: bool) -> None:
        super().__init__(classes="plain" if plain else None)
        self._position, self._length = position, length

    def compose(self) -> ComposeResult:
        """Give one input."""
        with Vertical():
            yield Label(f"Go to step (0 to {self._length})")
            yield Input(str(self._position), max_length=MOST_DIGITS, select_on_focus=True)
            yield Label("", id="wrong")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the number, or say what is wrong with it."""
        value = event.value.strip()
        if value.isascii() and value.isdigit() and int(value) <= self._length:
            self.dismiss(int(value))
            return
        wrong = f"There is no step {value}." if value.isascii() and value.isdigit() else "Digits 0 to 9 only, please."
        self.query_one("#wrong", Label).update(wrong)

    def action_cancel(self) -> None:
        """Stay where we are."""
        self.dismiss(None)
