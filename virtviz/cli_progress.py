"""How far a long run is, on standard error: a bar that is drawn over on a terminal, or lines where asked for."""

from __future__ import annotations

import sys
import time
from typing import Final

import click

BAR: Final = 30
"""Characters of a bar."""
EVERY_S: Final = 0.2
"""Seconds between two drawings of a bar."""
LINE_EVERY_S: Final = 2.0
"""Seconds between two lines, where there is no terminal."""


class Progress:
    """The bar of one long run.

    Args:
        total: what it comes to.
        what: what is counted, in the plural, such as `packets`.
        wanted: True to say it without a terminal too, False to say nothing, None to say it on a terminal only.
    """

    def __init__(self, total: int, what: str, wanted: bool | None = None) -> None:  # noqa: FBT001 - one of three
        self.total = total
        self.what = what
        self.drawn_over = sys.stderr.isatty()
        self.is_shown = wanted if wanted is not None else self.drawn_over
        self._every = EVERY_S if self.drawn_over else LINE_EVERY_S
        self._said_at = float("-inf")
        self._is_drawn = False

    def show(self, done: int, more: str = "", *, at_once: bool = False) -> None:
        """Say how far it is, unless it was said just now.

        Args:
            done: of the total.
            more: what else there is to say.
            at_once: say it in any case, such as at the end.
        """
        now = time.perf_counter()
        if not self.is_shown or (now - self._said_at < self._every and not at_once):
            return
        self._said_at = now
        share = min(done / self.total, 1.0) if self.total else 1.0
        full = int(share * BAR)
        line = f"[{'#' * full}{'-' * (BAR - full)}] {share:4.0%}  {done:,} of {self.total:,} {self.what}"
        line += f"  {more}" if more else ""
        if self.drawn_over:
            click.echo(f"\r{line}\x1b[K", nl=False, err=True)
            self._is_drawn = True
        else:
            click.echo(line, err=True)

    def clear(self) -> None:
        """Take the bar away; what comes next stands in its place."""
        if self._is_drawn:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._is_drawn = False
