"""The shipped lesson, opened, and its moments by name instead of by number."""

from pathlib import Path

from virtviz.lesson.loader import load
from virtviz.session.session import Session

LESSON = Path(__file__).parents[2] / "lessons" / "3-vhost.yaml"


def opened(**knobs):
    return Session.open(load(LESSON), settings=[{name.replace("__", "."): value for name, value in knobs.items()}])


def position_of(session, op, *, packet=None, nth=1, place=None, outcome=None):
    """Give the number of the nth step of that op."""
    for n in range(1, session.length + 1):
        step = session.step(n)
        wanted = (packet, step.packet), (place, step.place), (outcome, step.outcome)
        if step.op == op and all(want in (None, have) for want, have in wanted):
            nth -= 1
            if not nth:
                return n
    raise LookupError(op)


def reach(session, position):
    """Go to a position; questions on the way are answered with not sure yet, one at the position stays open."""
    while session.go_to(position) != position:
        session.answer(None)


def after_questions(session):
    """Answer everything, and go back to the beginning."""
    while session.go_to(session.length) != session.length or session.question is not None:
        session.answer(None)
    session.home()
    return session
