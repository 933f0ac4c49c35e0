"""The player: a lesson on the screen.

The application owns one fact, the session's position; everything on screen is drawn from the frame of that position. Moving asks the session,
which knows where questions stop the way; drawing replaces the content of a few canvases, which send what differs. Nothing here computes anything
about the machine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import App, SystemCommand
from textual.binding import Binding

from virtviz.ui.canvas import Canvas
from virtviz.ui.commands import COMMANDS
from virtviz.ui.draw.lists import draw_lanes, draw_ledger, draw_sources, lane_columns
from virtviz.ui.draw.panels import draw_counters, draw_hints, draw_sentence, draw_title, draw_track, draw_who
from virtviz.ui.draw.question import Asking, draw_question
from virtviz.ui.draw.ring import draw_ring, slots_for
from virtviz.ui.draw.stage import Glide, draw_stage
from virtviz.ui.grid import Grid
from virtviz.ui.palette import DARK, PLAIN_THEME, THEMES, palette_for
from virtviz.ui.plan import LEAST_HEIGHT, LEAST_WIDTH, make_plan
from virtviz.view.build import fold_of, make_frame
from virtviz.view.lanes import make_lanes
from virtviz.view.stage_plan import make_stage
from virtviz.view.track import Track

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from textual import events
    from textual.app import ComposeResult
    from textual.screen import Screen
    from textual.timer import Timer

    from virtviz.session.session import Session
    from virtviz.ui.canvas import Zone
    from virtviz.ui.plan import Rect
    from virtviz.view.frame import Frame
    from virtviz.view.stage import Point, Stage

PANELS: Final = (
    "title",
    "stage",
    "ring",
    "counters",
    "who",
    "sentence",
    "lanes",
    "ledger",
    "sources",
    "track",
    "hints",
    "question",
)
SPEEDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Steps a second while it plays."""
GLIDE_FRAMES_A_SECOND: Final = 15
GLIDE_SECONDS: Final = 0.4
EAGER_STEPS: Final = 4096
"""Longer runs have no marks on the track for what nobody has looked at yet."""


class Player(App[None]):
    """A lesson on the screen.

    Args:
        session: the lesson, opened.
        motion: `full`, `basic` or `none`.
        plain: draw with ASCII characters only.
        theme: a theme's name; None for the dark one.
    """

    CSS: ClassVar[str] = "Screen { layers: below above; overflow: hidden; } #question { layer: above; }"
    TITLE = "virtviz"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[Binding]] = [
        Binding(c.keys, c.action, c.title, show=False, tooltip=c.help, id=c.action.partition("(")[0] + c.shown[:1])
        for c in COMMANDS
        if c.action != "command_palette"
    ] + [Binding(str(i), f"answer({i - 1})", f"Answer {i}", show=False, id=f"answer{i}") for i in range(10)]

    def __init__(
        self, session: Session, *, motion: str = "full", plain: bool = False, theme: str | None = None
    ) -> None:
        self._coloured = "NO_COLOR" not in os.environ
        super().__init__()
        self.session = session
        self.plain = plain
        self.motion = motion if self.animation_level == "full" else self.animation_level
        self.animation_level = "none" if self.motion == "none" else self.animation_level
        for made in THEMES.values():
            self.register_theme(made)
        if self._coloured:
            self.theme = theme or DARK
        self.palette = palette_for(self.current_theme, coloured=self._coloured)
        self._canvases = {name: Canvas(id=name) for name in PANELS}
        self._plan: Mapping[str, Rect] = {}
        self._stage: Stage | None = None
        self._frame: Frame | None = None
        self._queue: str | None = None
        self._panel = "ring"
        self._hints = 0
        self._aside = False
        self._speed = 2
        self._playing: Timer | None = None
        self._gliding: Timer | None = None
        self._route: Sequence[Point] = ()
        self._glide: Glide | None = None
        self._question_at = {m.position: m.id for m in session.run.moments if m.predict is not None}
        self._order = [m.id for m in session.run.moments if m.predict is not None]

    def compose(self) -> ComposeResult:
        """Give all panels; none of them does anything while it is not shown."""
        yield from self._canvases.values()

    def on_mount(self) -> None:
        """Listen to changes of the theme."""
        self.theme_changed_signal.subscribe(self, self._recolour)

    # Layout

    def on_resize(self, event: events.Resize) -> None:
        """Lay the panels out anew."""
        self._lay_out(event.size.width, event.size.height)

    def _lay_out(self, width: int, height: int) -> None:
        self._plan = plan = make_plan(width, height)
        self._stop_gliding()
        for name, canvas in self._canvases.items():
            rect = plan.get(name)
            canvas.display = rect is not None
            canvas.forget()
            if rect is not None:
                canvas.styles.offset = (rect.x, rect.y)
                canvas.styles.width, canvas.styles.height = rect.width, rect.height
        if not plan:
            self._say_too_small(width, height)
            return
        self._stage = make_stage(self.session.header, plan["stage"].width, plan["stage"].height)
        self.show()

    def _say_too_small(self, width: int, height: int) -> None:
        """Say what is needed, in whatever room there is."""
        canvas = self._canvases["title"]
        canvas.display = True
        canvas.styles.offset = (0, 0)
        canvas.styles.width, canvas.styles.height = width, height
        grid = Grid(width, height)
        for y, line in enumerate(
            (f"This needs {LEAST_WIDTH}x{LEAST_HEIGHT};", f"here are {width}x{height}.", "Make it larger, or press q.")
        ):
            grid.put(0, y, line)
        self._fill("title", grid)
        self._frame = None

    # Drawing

    def show(self) -> None:
        """Draw the present position, everything in one go."""
        plan = self._plan
        if not plan:
            return
        session = self.session
        ring = plan["ring"]
        self._frame = frame = make_frame(session, session.position, self._queue, slots_for(ring.width, ring.height))
        with self.batch_update():
            self._fill("title", draw_title(frame, session.lesson.id, session.lesson.title, plan["title"].width))
            self._show_stage()
            self._show_panel("ring", self._panel, ring)
            self._fill("counters", draw_counters(frame, plan["counters"].width, plan["counters"].height))
            self._fill("who", draw_who(frame, plan["who"].width))
            sentence = plan["sentence"]
            opening = session.lesson.summary if isinstance(session.lesson.summary, str) else session.lesson.title
            self._fill("sentence", draw_sentence(frame, session.said, sentence.width, sentence.height, opening))
            for name in ("lanes", "ledger", "sources"):
                if name in plan:
                    self._show_panel(name, name, plan[name])
            self._show_question()
            self._show_track()
            self._show_hints()

    def _fill(self, name: str, grid: Grid, zones: Sequence[Zone] = ()) -> None:
        self._canvases[name].show(grid.rows(), self.palette, zones, plain=self.plain)

    def _show_stage(self) -> None:
        if self._stage is not None and self._frame is not None:
            self._fill("stage", draw_stage(self._stage, self._frame, self._glide))

    def _show_panel(self, canvas: str, panel: str, rect: Rect) -> None:
        """Draw one of the panels that can take each other's place."""
        frame, session = self._frame, self.session
        assert frame is not None
        if panel == "ring":
            self._fill(canvas, draw_ring(frame, rect.width, rect.height))
        elif panel == "ledger":
            fold = fold_of(session)
            count = fold.at(session.position).ledger
            entries = fold.ledger[max(0, count - rect.height) : count]
            self._fill(canvas, *draw_ledger(entries, count, session.position, rect.width, rect.height))
        elif panel == "lanes":
            lanes = make_lanes(session, session.position, lane_columns(rect.width))
            self._fill(canvas, *draw_lanes(lanes, session.position, rect.width, rect.height))
        else:
            self._fill(canvas, draw_sources(frame, rect.width, rect.height))

    def _asking(self) -> Asking | None:
        """Give the question to show: the open one here, or the one that was just answered here."""
        session = self.session
        question = session.question
        if question is not None:
            number = self._order.index(question.id) + 1
            said = "\n".join(moment.say for moment in session.moments(session.position) if moment.say)
            return Asking(question, number, session.questions, self._hints, None, said)
        for verdict in reversed(session.verdicts):
            if verdict.question.position == session.position and self._just_answered == verdict.question.id:
                number = self._order.index(verdict.question.id) + 1
                return Asking(verdict.question, number, session.questions, 0, verdict)
        return None

    _just_answered = ""

    def _show_question(self) -> None:
        """Draw the question over the lower part of the screen, or nothing."""
        canvas = self._canvases["question"]
        asking = self._asking()
        if asking is None or self._aside:
            canvas.display = False
            return
        plan = self._plan
        width = plan["track"].width
        top = plan["ring"].y
        room = plan["track"].y - top
        grid, zones, rows = draw_question(asking, width, room)
        rows = min(rows, room)
        y = plan["track"].y - rows
        canvas.styles.offset = (0, y)
        canvas.styles.width, canvas.styles.height = width, rows
        canvas.show(grid.rows()[:rows], self.palette, zones, plain=self.plain)
        canvas.display = True

    def _show_track(self) -> None:
        session = self.session
        fold = fold_of(session)
        if session.length <= EAGER_STEPS and fold.known < session.length:
            fold.at(session.length)
        answered = {v.question.id for v in session.verdicts}
        questions = tuple((at, name in answered) for at, name in sorted(self._question_at.items()))
        track = Track(tuple(fold.milestones), tuple(fold.crossings), questions)
        sign = f"▶ {SPEEDS[self._speed]:g}/s" if self._playing else "‖"
        rect = self._plan["track"]
        self._fill("track", *draw_track(track, session.position, session.length, rect.width, sign))

    def _show_hints(self) -> None:
        question = self.session.question
        if question is not None:
            left = len(question.hints) - self._hints
            hints = [(f"1-{len(question.options)}", "answer", ""), ("0", "not sure", "answer(-1)")]
            hints += [("h", f"hint ({left} left)", "hint")] if left > 0 else []
            hints += [("p", "show it again" if self._aside else "look at the screen", "predict")]
            hints += [("←", "back", "step_back"), ("?", "help", "help"), ("q", "quit", "quit")]
        else:
            hints = [(c.shown.split()[0], c.hint, c.action) for c in COMMANDS if c.hint]
        rect = self._plan["hints"]
        self._fill("hints", *draw_hints(hints, rect.width))

    def _recolour(self, _: object) -> None:
        """Another theme was chosen."""
        self.palette = palette_for(self.current_theme, coloured=self._coloured)
        for canvas in self._canvases.values():
            canvas.forget()
        self.show()

    # Going

    def _moved(self, went: bool, *, glide: bool = False) -> None:
        """Show where we are now, or say why we are still here."""
        before = self._frame
        if went or (before is not None and before.position != self.session.position):
            self._hints = 0
            self._aside = False
            self._just_answered = ""
            self._stop_gliding()
            self.show()
            if glide and self.motion == "full" and before is not None:
                self._start_gliding()
            return
        if self.session.question is not None:
            self._aside = False
            self._stop_playing()
            self.show()
            self.notify("A question waits for an answer; 0 if you are not sure.", timeout=2)
        else:
            self._stop_playing()

    def action_next(self) -> None:
        """Go one step further."""
        self._moved(self.session.next(), glide=True)

    def action_step_back(self) -> None:
        """Go one step back."""
        self._stop_playing()
        self._moved(self.session.back())

    def action_home(self) -> None:
        """Go to the beginning."""
        self._stop_playing()
        self.session.home()
        self._moved(went=False)

    def action_end(self) -> None:
        """Go to the end, or to the next question."""
        self._stop_playing()
        self.session.end()
        self._moved(went=False)

    def action_seek(self, position: int) -> None:
        """Go to a position, or to the first question on the way."""
        self._stop_playing()
        self.session.go_to(max(0, min(position, self.session.length)))
        self._moved(went=False)

    def action_crossing(self, way: int) -> None:
        """Go to the next or previous crossing."""
        self._moved(self.session.next_crossing() if way > 0 else self.session.previous_crossing())

    def action_milestone(self, way: int) -> None:
        """Go to the next or previous milestone."""
        self._moved(self.session.next_milestone() if way > 0 else self.session.previous_milestone())

    def action_notification(self, way: int) -> None:
        """Go to the next or previous notification."""
        self._moved(self.session.next_notification() if way > 0 else self.session.previous_notification())

    def action_goto(self) -> None:
        """Ask for the number of a step."""
        from virtviz.ui.screens import GoTo  # noqa: PLC0415 - not before the first frame

        self._stop_playing()
        self.push_screen(GoTo(self.session.position, self.session.length), self._gone_to)

    def _gone_to(self, position: int | None) -> None:
        if position is not None:
            self.action_seek(position)

    # Playing

    def action_play(self) -> None:
        """Play, or pause."""
        if self._asking() is not None and self.session.question is None:
            self.action_next()
            return
        if self._playing is not None:
            self._stop_playing()
        elif self.motion == "none":
            self.notify("Motion is off (--motion none): go on with → instead.", timeout=3)
        else:
            self._playing = self.set_interval(1 / SPEEDS[self._speed], self.action_next)
            self.action_next()
        self._show_track()

    def action_speed(self, way: int) -> None:
        """Play faster or slower."""
        self._speed = max(0, min(self._speed + way, len(SPEEDS) - 1))
        if self._playing is not None:
            self._playing.stop()
            self._playing = self.set_interval(1 / SPEEDS[self._speed], self.action_next)
        self._show_track()

    def _stop_playing(self) -> None:
        if self._playing is not None:
            self._playing.stop()
            self._playing = None
            if self._plan:
                self._show_track()

    def _start_gliding(self) -> None:
        """Let the packet that the step moved go its way over the stage."""
        frame, stage = self._frame, self._stage
        if frame is None or stage is None:
            return
        moved = next((p for p in frame.packets if p.came_from), None)
        if moved is None:
            return
        source, target = stage.spot(moved.came_from), stage.spot(moved.where)
        if source is None or target is None:
            return
        route = stage.route(source.name, target.name)
        seconds = min(GLIDE_SECONDS, 0.7 / SPEEDS[self._speed]) if self._playing else GLIDE_SECONDS
        frames = max(int(seconds * GLIDE_FRAMES_A_SECOND), 1)
        if len(route) < 3:
            return
        self._route = [route[(i + 1) * (len(route) - 1) // (frames + 1)] for i in range(frames)]
        self._glide = Glide(moved.number, self._route[0])
        self._show_stage()
        self._gliding = self.set_interval(1 / GLIDE_FRAMES_A_SECOND, self._glide_on)

    def _glide_on(self) -> None:
        self._route = self._route[1:]
        if not self._route or self._glide is None:
            self._stop_gliding()
        else:
            self._glide = Glide(self._glide.packet, self._route[0])
        self._show_stage()

    def _stop_gliding(self) -> None:
        self._glide = None
        if self._gliding is not None:
            self._gliding.stop()
            self._gliding = None

    # Questions

    def action_answer(self, choice: int) -> None:
        """Answer the open question; -1 stands for not sure yet."""
        question = self.session.question
        if question is None or choice >= len(question.options):
            return
        self._just_answered = question.id
        self._aside = False
        self.session.answer(None if choice < 0 else choice)
        self.show()

    def action_hint(self) -> None:
        """Show one hint more."""
        question = self.session.question
        if question is not None and self._hints < len(question.hints):
            self._hints += 1
            self._aside = False
            self.show()

    def action_predict(self) -> None:
        """Put the question aside, or show it again."""
        if self._asking() is None:
            self.notify("No question is open here.", timeout=2)
            return
        self._aside = not self._aside
        self.show()

    # Panels

    def action_ring(self) -> None:
        """Show the ring; pressed again, stay with one queue or follow the action."""
        if self._panel != "ring":
            self._panel = "ring"
        else:
            names = [None, *(q.name for q in sorted(self.session.header.queues, key=lambda q: q.direction != "out"))]
            self._queue = names[(names.index(self._queue) + 1) % len(names)]
        self._canvases["ring"].forget()
        self.show()

    def action_panel(self, name: str) -> None:
        """Put a panel in the ring's place, or the ring back."""
        self._panel = "ring" if self._panel == name else name
        self.show()

    def action_help(self) -> None:
        """Show all keys and what the signs mean."""
        from virtviz.ui.screens import Help  # noqa: PLC0415 - not before the first frame

        self._stop_playing()
        self.push_screen(Help(self.palette, plain=self.plain))

    # Mouse and palette

    async def on_canvas_clicked(self, event: Canvas.Clicked) -> None:
        """Do what was clicked."""
        if event.action:
            await self.run_action(event.action)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Give everything that can be done to the command palette."""
        for command in COMMANDS:
            if command.action == "command_palette":
                continue
            title = f"{command.title} ({command.shown})"
            yield SystemCommand(
                title, command.help, lambda action=command.action: self.call_later(self.run_action, action)
            )
        yield SystemCommand("Theme", "Choose other colours.", self.action_change_theme)


def make_player(session: Session, *, motion: str = "full", ascii: bool = False, theme: str | None = None) -> Player:  # noqa: A002
    """Make the application, with a theme that is right for the terminal from the first moment on.

    Where `NO_COLOR` is set, the theme must be one without colours before Textual's own initialisation, which chooses its filters by it.
    """
    if "NO_COLOR" not in os.environ:
        return Player(session, motion=motion, plain=ascii, theme=theme)

    class PlainPlayer(Player):
        """The player without colours."""

    PlainPlayer.theme._default = PLAIN_THEME  # type: ignore[attr-defined]
    return PlainPlayer(session, motion=motion, plain=ascii)


def play(session: Session, *, at: int = 0, motion: str = "full", ascii: bool = False, theme: str | None = None) -> int:  # noqa: A002
    """Play a lesson until the learner leaves it; answers the exit code.

    Args:
        session: the lesson, opened.
        at: the step to begin at, or the first question before it.
        motion: `full`, `basic` or `none`; `TEXTUAL_ANIMATIONS` can ask for less.
        ascii: draw with ASCII characters only.
        theme: a theme's name; None for the dark one.
    """
    if at:
        session.go_to(at)
    app = make_player(session, motion=motion, ascii=ascii, theme=theme)
    app.run()
    return app.return_code or 0
