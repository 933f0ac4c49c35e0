"""The board: the whole screen as one grid of characters, drawn from a session and what the learner chose to see.

It knows no widgets, no keys and no time. The application tells it what was chosen and sends the grid to the terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from virtviz.ui.commands import COMMANDS
from virtviz.ui.draw.lists import draw_lanes, draw_ledger, draw_sources, lane_columns
from virtviz.ui.draw.panels import (
    draw_counters,
    draw_hints,
    draw_sentence,
    draw_title,
    draw_track,
    draw_who,
    sentence_rows,
)
from virtviz.ui.draw.question import Asking, draw_question, rows_beyond
from virtviz.ui.draw.ring import draw_ring
from virtviz.ui.draw.ring_parts import slots_for
from virtviz.ui.draw.stage import draw_stage
from virtviz.ui.grid import Grid
from virtviz.ui.plan import LEAST_HEIGHT, LEAST_WIDTH, Rect, make_plan, make_tiles
from virtviz.view.build import fold_of, make_frame
from virtviz.view.lanes import make_lanes
from virtviz.view.machines import machines_of
from virtviz.view.stage import LANE
from virtviz.view.stage_plan import make_stage
from virtviz.view.track import Track

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.session.session import Session
    from virtviz.ui.canvas import Zone
    from virtviz.ui.draw.stage import Glide
    from virtviz.view.frame import Frame
    from virtviz.view.stage import Stage

PANELS: Final = ("ring", "counters", "who", "sentence", "lanes", "ledger", "sources")
"""The panels between stage and track."""
DEPARTS: Final = " (departs from Linux)"
"""Stands behind the title while a setting is one that no real Linux has."""


class Board:
    """The whole screen of one session.

    Attributes:
        queue: the virtqueue to show; None for the one that was worked on last.
        panel: what is shown in the ring's place: `ring`, `ledger`, `lanes` or `sources`.
        hints: how many hints to the open question have been shown.
        aside: the question has been put aside.
        scroll: rows of the question that have been moved out of sight above.
        scroll_most: rows of it that can be; 0 where all of it is seen.
        answered: id of the question that was answered at this position; empty if none.
        playing: how fast it plays; empty if it does not.
        message: something that has to be said; empty if nothing.
        grid: the screen as drawn last.
        zones: what can be clicked on it, later ones over earlier ones.
        frame: the frame drawn last; None on a screen that is too small.
        stage: the plan of the stage; None on a screen that is too small. Of two virtual machines, it is the plan of the
            one that has just done something.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.queue: str | None = None
        self.panel = "ring"
        self.hints = 0
        self.aside = False
        self.scroll = 0
        self.scroll_most = 0
        self.answered = ""
        self.playing = ""
        self.message = ""
        self.grid = Grid(0, 0)
        self.zones: list[Zone] = []
        self.frame: Frame | None = None
        self.stage: Stage | None = None
        self._stages: dict[str, Stage] = {}
        self._plan: Mapping[str, Rect] = {}
        asking = [moment for moment in session.run.moments if moment.predict is not None]
        self._question_at = {moment.id: moment.position for moment in asking}
        self._order = [moment.id for moment in asking]

    def lay_out(self, width: int, height: int) -> list[Rect]:
        """Plan the screen for a size; answers the tiles to send it in."""
        self._plan = plan = make_plan(width, height)
        self.grid = Grid(width, height)
        if not plan:
            self.frame = self.stage = None
            return [Rect(0, 0, width, height)]
        header, rect = self.session.header, plan["stage"]
        self._stages = {name: make_stage(header, rect.width, rect.height, name) for name in machines_of(header)}
        self.stage = next(iter(self._stages.values()))
        return make_tiles(plan, self.stage, width, height)

    def settle(self) -> None:
        """Forget what belonged to the position before."""
        self.hints = 0
        self.scroll = 0
        self.aside = False
        self.answered = ""

    @property
    def too_small(self) -> bool:
        """Whether the screen has no room for anything but saying so."""
        return not self._plan

    def has_own_place(self, panel: str) -> bool:
        """Say whether a panel is on the screen anyway, and need not take the ring's place."""
        return panel in self._plan

    # Drawing

    def draw(self) -> None:
        """Draw the present position."""
        plan, session = self._plan, self.session
        self.grid = Grid(self.grid.width, self.grid.height)
        self.zones = []
        if not plan:
            self._draw_too_small()
            return
        ring = plan["ring"]
        self.frame = make_frame(session, session.position, self.queue, slots_for(ring.width, ring.height))
        self.stage = self._stages[self.frame.machine]
        lesson, tag = session.lesson, DEPARTS if session.header.departures else ""
        self._put("title", draw_title(self.frame, lesson.id, lesson.title, tag, plan["title"].width))
        self.draw_stage()
        self._make_clickable(self.stage)
        for name in PANELS:
            if name in plan:
                shown = self.panel if name == "ring" and self.panel not in plan else name
                self._put(name, *self._draw_panel(shown, plan[name], self.frame))
        self._draw_beginning(self.frame)
        self._draw_question(plan["stage"].y + plan["stage"].height, plan["track"].y)
        self._draw_track()
        self._put("hints", *draw_hints(self._hints(), plan["hints"].width, self.message))

    def draw_stage(self, glide: Glide | None = None) -> None:
        """Draw the stage alone, with a packet on its way."""
        if self.stage is not None and self.frame is not None:
            self._put("stage", draw_stage(self.stage, self.frame, glide))

    def action_at(self, x: int, y: int) -> str:
        """Give the action of what lies at a cell; empty if nothing does."""
        for zone_x, zone_y, width, action in reversed(self.zones):
            if y == zone_y and zone_x <= x < zone_x + width:
                return action.format(x=x - zone_x)
        return ""

    @property
    def asking(self) -> Asking | None:
        """The question to show: the open one here, or the one that was just answered here."""
        session, total = self.session, self.session.questions
        question = session.question
        if question is not None:
            said = "\n".join(moment.say for moment in session.moments(session.position) if moment.say)
            return Asking(question, self._order.index(question.id) + 1, total, self.hints, None, said)
        for verdict in reversed(session.verdicts):
            if verdict.question.id == self.answered:
                return Asking(verdict.question, self._order.index(self.answered) + 1, total, 0, verdict)
        return None

    def _put(self, name: str, grid: Grid, zones: Sequence[Zone] = ()) -> None:
        """Put a panel in its place."""
        rect = self._plan[name]
        self.grid.blit(grid, rect.x, rect.y)
        self.zones += ((x + rect.x, y + rect.y, width, action) for x, y, width, action in zones)

    def _make_clickable(self, stage: Stage | None) -> None:
        """Say what a click on a panel leads to: closer to what it shows."""
        plan = self._plan
        title, ring = plan["title"], plan["ring"]
        self.zones.append((title.width - 20, 0, 20, "goto"))
        self.zones.append((ring.x, ring.y, ring.width, "ring"))
        for panel, closer in (("counters", "ledger"), ("sentence", "sources"), ("who", "lanes")):
            rect = plan[panel]
            if closer not in plan:
                rows = range(rect.y, rect.y + rect.height)
                self.zones += ((rect.x, y, rect.width, f"panel('{closer}')") for y in rows)
        lanes = (spot for spot in stage.spots.values() if spot.shape == LANE) if stage is not None else ()
        self.zones += ((spot.x, 1 + spot.y, spot.width, f"queue('{spot.name}')") for spot in lanes)

    def _draw_too_small(self) -> None:
        """Say what is needed, in whatever room there is."""
        grid = self.grid
        lines = (
            f"This needs {LEAST_WIDTH}x{LEAST_HEIGHT};",
            f"here are {grid.width}x{grid.height}.",
            "Make it larger, or press q.",
        )
        for y, line in enumerate(lines):
            grid.put(0, y, line)

    def _draw_panel(self, panel: str, rect: Rect, frame: Frame) -> tuple[Grid, Sequence[Zone]]:
        """Draw one panel of the body."""
        width, height, position = rect.width, rect.height, frame.position
        match panel:
            case "ring":
                return draw_ring(frame, width, height), ()
            case "counters":
                return draw_counters(frame, width, height), ()
            case "who":
                return draw_who(frame, width), ()
            case "sentence":
                return draw_sentence(frame, self.session.said, width, height, self._words_aside()), ()
            case "lanes":
                return draw_lanes(make_lanes(self.session, position, lane_columns(width)), position, width, height)
            case "ledger":
                fold = fold_of(self.session)
                count = fold.at(position).ledger
                return draw_ledger(fold.ledger[max(0, count - height) : count], count, position, width, height)
            case _:
                return draw_sources(frame, width, height), ()

    def _words_aside(self) -> str:
        """Say what can be done where there is no step to tell about, or nothing more to come."""
        session = self.session
        if session.position == 0:
            departures = " ".join(f"This departs from Linux: {text}." for text in session.header.departures)
            changed = ", ".join(session.changed)
            other = f"The lesson was not written for {changed}." if changed else ""
            aside = "Press → for the first step, Enter to let it play, ? for help."
            return " ".join(part for part in (departures, other, aside) if part)
        if session.position < session.length:
            return ""
        score = session.score
        answers = f" {score.right} of {score.asked} answers were right." if score.asked else ""
        end = "The run was ended here because it is too long." if session.truncated else "This is the end."
        return f"{end}{answers} Home begins again."

    def _draw_beginning(self, frame: Frame) -> None:
        """Let what is said before the first step grow over the ring if its own place is too small for all of it."""
        rect, session = self._plan["sentence"], self.session
        if frame.step is not None:
            return
        said, aside = session.said, self._words_aside()
        rows = sentence_rows(said, aside, rect.width)
        above = rect.y - 1 - self._plan["ring"].y
        more = min(rows - rect.height, above)
        if more <= 0:
            return
        start = rect.y - more
        self.grid.blit(draw_who(frame, rect.width), 0, start - 1)
        self.grid.blit(draw_sentence(frame, said, rect.width, rect.height + more, aside), 0, start)
        self.zones = [zone for zone in self.zones if not start - 1 <= zone[1] < rect.y]

    def _draw_question(self, top: int, bottom: int) -> None:
        """Lay the question over the lower part of the screen, if there is one."""
        asking = self.asking
        self.scroll_most = 0
        if asking is None or self.aside:
            return
        sentence = self._plan["sentence"]
        bare = draw_question(replace(asking, said=""), self.grid.width, bottom - top)
        covers = bottom - bare[2] < sentence.y + sentence.height
        asking = asking if asking.said and covers else replace(asking, said="")
        self.scroll_most = rows_beyond(asking, self.grid.width, bottom - top)
        self.scroll = max(0, min(self.scroll, self.scroll_most))
        grid, zones, rows = draw_question(asking, self.grid.width, bottom - top, self.scroll)
        start = max(bottom - rows, top)
        self.grid.blit(grid.top(rows), 0, start)
        self.zones = [zone for zone in self.zones if zone[1] < start]
        self.zones += ((x, y + start, width, action) for x, y, width, action in zones)

    def _draw_track(self) -> None:
        session, rect = self.session, self._plan["track"]
        fold = fold_of(session)
        answered = {verdict.question.id for verdict in session.verdicts}
        questions = tuple((at, name in answered) for name, at in self._question_at.items())
        track = Track(tuple(fold.milestones), tuple(fold.crossings), questions)
        sign = f"▶ {self.playing}" if self.playing else "‖"
        self._put("track", *draw_track(track, session.position, session.length, rect.width, sign))

    def _hints(self) -> Sequence[tuple[str, str, str]]:
        """Give the keys that matter most now: key, word, action."""
        question = self.session.question
        if question is None:
            return [(c.shown.split()[0], c.hint, c.action) for c in COMMANDS if c.hint]
        left = len(question.hints) - self.hints
        return [
            (f"1-{len(question.options)}", "answer", ""),
            ("0", "not sure", "answer(-1)"),
            *([("h", f"hint ({left} left)", "hint")] if left > 0 else []),
            ("p", "show it again" if self.aside else "look at the screen", "predict"),
            ("←", "back", "step_back"),
            ("?", "help", "help"),
            ("q", "quit", "quit"),
        ]
