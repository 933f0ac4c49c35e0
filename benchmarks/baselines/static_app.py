"""The baseline of start-up: the smallest Textual application there is, one Static."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Static


class StaticApp(App[None]):
    """Shows one word."""

    def compose(self) -> ComposeResult:
        """One Static."""
        yield Static("ready")


if __name__ == "__main__":
    StaticApp().run()
