"""The baseline of the key rows: a Textual application that updates one Static on a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import App, ComposeResult
from textual.widgets import Static

if TYPE_CHECKING:
    from textual.binding import BindingType


class KeyApp(App[None]):
    """Shows how often `n` was pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [("n", "next", "next")]
    presses = 0

    def compose(self) -> ComposeResult:
        """One Static."""
        yield Static("step 0")

    def action_next(self) -> None:
        """Count, and show it."""
        self.presses += 1
        self.query_one(Static).update(f"step {self.presses}")


if __name__ == "__main__":
    KeyApp().run()
