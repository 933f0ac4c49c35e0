"""Questions and their right answers, worked out from what the machine did.

A question is asked after step `n`. Its answer lies in the steps that follow:

    next-thread   the thread of the next step that another thread than that of step `n` takes; the running thread itself
                  may go on first, so the question's text says whom it leaves out
    next-op       what the thread of step `n` does next, whoever runs in between
    cell          the ring field that is written next, in the queue that step `n` worked on if it worked on one
    value         what a field holds at the moment of `until`, else now
    count         what a counter is at the moment of `until`, else now
    order         in which order the conditions of `of` come true for the first time
    choice        the author's

If a condition never comes true, the end of the lesson is looked at, and that is a finding.
Where the author gives options for a computed answer, the right one must be among them; if it is not, it is added, and
that is a finding too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET, Struct, field

from virtviz.engine.counters import COUNTERS
from virtviz.engine.ops import pick
from virtviz.session.fields import Field, find_field
from virtviz.session.grading import Asked, Question
from virtviz.session.options import THEN, in_order_of, numbers, orders, ring_fields, with_others
from virtviz.session.run import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from virtviz.engine.trace import Access, Step
    from virtviz.lesson.model import Predict, When
    from virtviz.session.run import Moment, Run

NOBODY: Final = "none of them: nothing more happens"
"""The right answer where nothing follows; a lesson should not ask then."""
NEAR_STEPS: Final = 200
"""How far wrong options are looked for in what follows."""


class _Answer(Struct):
    """What was worked out for a question.

    Attributes:
        right: the right option's text.
        options: all of them, in order.
        fact: what the machine did, for after the answer.
        note: what the question's text needs to say in addition.
        also: other ways in which an author may have written the right option.
        problems: what is wrong.
    """

    right: str
    options: list[str]
    fact: str
    note: str = ""
    also: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)


def pose(run: Run, moment: Moment) -> Asked:
    """Work out a moment's question: its options, the right one, and what to say afterwards."""
    predict = moment.predict
    assert predict is not None
    answer = _BY_KIND[predict.ask](run, moment, predict)
    options = _author_options(predict, answer)
    text = f"{predict.text} ({answer.note})" if answer.note else predict.text
    question = Question(moment.id, predict.ask, text, tuple(options), moment.hints, moment.position)
    why = " ".join(part for part in (predict.why if predict.why is not UNSET else "", answer.fact) if part)
    findings = tuple(Finding(f"script.{moment.id}.predict", problem) for problem in answer.problems)
    return Asked(question, options.index(answer.right), why, findings)


def _author_options(predict: Predict, answer: _Answer) -> list[str]:
    """Give the options that the author wrote, with the right one in the machine's words; else those that were made."""
    if predict.options is UNSET or predict.ask in ("choice", "order"):
        return answer.options
    fitting = [option for option in predict.options if option in (answer.right, *answer.also)]
    if len(fitting) == 1:
        return [answer.right if option == fitting[0] else option for option in predict.options]
    wrong = [option for option in predict.options if option not in fitting]
    missing = "is not among the options" if not fitting else "is among the options more than once"
    answer.problems.append(f"the right answer, {answer.right!r}, {missing}")
    return sorted([answer.right, *wrong])


# Threads and ops


def _next_thread(run: Run, moment: Moment, predict: Predict) -> _Answer:  # noqa: ARG001 - as all kinds
    position = moment.position
    now = run.thread(position) if position else ""
    names = [thread.name for thread in run.header.threads]
    n = next((n for n in range(position + 1, run.length + 1) if run.thread(n) != now), 0)
    note = f"other than {now}" if now else ""
    if not n:
        return _Answer(NOBODY, [*(name for name in names if name != now), NOBODY], "", note, (), ["nothing follows"])
    right = run.thread(n)
    # Threads that take part in the lesson mislead better than those that never move.
    seen = dict.fromkeys(run.machine.threads[i].name for i in run.machine.timeline.threads)
    others = [name for name in (*seen, *names) if name not in (now, right)]
    options = in_order_of(with_others(right, others), names)
    return _Answer(right, options, _took(run, n), note, _short_names(right))


def _next_op(run: Run, moment: Moment, predict: Predict) -> _Answer:  # noqa: ARG001 - as all kinds
    position = moment.position
    if not run.length:
        return _Answer(NOBODY, [NOBODY], "", "", (), ["nothing follows"])
    thread = run.thread(position or 1)
    steps = [n for n in range(position + 1, run.length + 1) if run.thread(n) == thread]
    note = f"the next step of {thread}"
    if not steps:
        return _Answer(NOBODY, [NOBODY], "", note, (), [f"{thread} does nothing more"])
    step = run.step(steps[0])
    options = sorted(with_others(step.title, _other_titles(run, steps, position)))
    return _Answer(step.title, options, _took(run, step.n), note, (step.op,))


def _other_titles(run: Run, steps: Sequence[int], position: int) -> Iterable[str]:
    """Give titles of ops that could be believed to come next: of the same piece of code, then of the same thread."""
    op = run.arc(steps[0]).op
    for routine in dict.fromkeys([op.routine, *([run.arc(position).op.routine] if position else [])]):
        specs = routine.specs()
        at = next((i + 1 for i, spec in enumerate(specs) if spec.name == op.name), 0)
        for spec in specs[at:] + specs[:at]:
            if spec.name != op.name:
                yield spec.title if isinstance(spec.title, str) else next(iter(spec.title.values()))
    for n in steps[1:NEAR_STEPS]:
        arc = run.arc(n)
        if arc.op is not op:
            yield pick(arc.op.spec.title, arc.outcome)


# Memory


def _cell(run: Run, moment: Moment, predict: Predict) -> _Answer:  # noqa: ARG001 - as all kinds
    position = moment.position
    queues = {queue.name: queue for queue in run.header.queues}
    here = run.step(position).queue if position else ""
    wanted = [here] if here in queues else list(queues)
    written: list[tuple[Step, Access]] = []
    for n in range(position + 1, run.length + 1):
        step = run.step(n)
        written += [(step, access) for access in step.writes if access.owner in wanted]
        if written:
            wanted = [written[0][1].owner]
            if n > position + NEAR_STEPS:
                break
    note = f"in {wanted[0]}" if len(wanted) == 1 else ""
    if not written:
        return _Answer(NOBODY, [NOBODY], "", note, (), ["no field of a ring is written after this"])
    step, access = written[0]
    options = ring_fields(access.field, (a.field for _, a in written), queues[access.owner])
    change = f"{access.field} from {access.old} to {access.new}" if isinstance(access.new, int) else access.field
    return _Answer(access.field, options, f"{_took(run, step.n)} It wrote {change}.", note)


def _value(run: Run, moment: Moment, predict: Predict) -> _Answer:
    name = predict.field if predict.field is not UNSET else ""
    found = find_field(run, name, moment.position)
    if found is None:
        return _Answer(NOBODY, [NOBODY], "", "", (), [f"there is no field {name!r}"])
    position, problems = _looked_at(run, moment, predict.until)
    right, now = found.value(run, position), found.value(run, moment.position)
    options = numbers(right, now, key=moment.id, slots=_slots(found), high=found.high)
    fact = f"After step {position} {name} is {right}."
    return _Answer(str(right), list(map(str, options)), fact, problems=problems)


def _slots(found: Field) -> int:
    """Give the ring's size where a field is a free-running index, which people take for a slot."""
    return found.queue.size if found.queue is not None and found.is_index else 0


# Counting and ordering


def _count(run: Run, moment: Moment, predict: Predict) -> _Answer:
    name = predict.counter if predict.counter is not UNSET else ""
    position, problems = _looked_at(run, moment, predict.until)
    right, now = _total(run, name, position), _total(run, name, moment.position)
    if right is None or now is None:
        return _Answer(NOBODY, [NOBODY], "", "", (), [f"there is no counter {name!r}"])
    options = numbers(right, now, key=moment.id, high=max(right + 4, 4))
    fact = f"After step {position}, {COUNTERS.get(name, name)}: {right}."
    return _Answer(str(right), list(map(str, options)), fact, problems=problems)


def _total(run: Run, name: str, position: int) -> int | None:
    """Give a counter, or the sum of its parts: `user_kernel` is that of guest and host."""
    values = [
        value
        for counter, value in run.counters(position).items()
        if counter.partition(".")[0] == name or counter == name
    ]
    return sum(values) if values else None


def _order(run: Run, moment: Moment, predict: Predict) -> _Answer:
    conditions = predict.of if predict.of is not UNSET else {}
    when = {text: run.first_match(condition, moment.position) for text, condition in conditions.items()}
    problems = [f"{text!r} does not happen after this" for text, n in when.items() if not n]
    happened = [n for n in when.values() if n]
    if len(set(happened)) < len(happened):
        problems.append("two of the events happen in the same step, so no order is right")
    right = sorted(when, key=lambda text: (when[text] or run.length + 1, text))
    fact = "; ".join(f"step {when[text]}: {text}" for text in right if when[text])
    return _Answer(THEN.join(right), orders(right, moment.id), f"It went like this: {fact}.", problems=problems)


def _choice(run: Run, moment: Moment, predict: Predict) -> _Answer:  # noqa: ARG001 - as all kinds
    options = list(predict.options) if predict.options is not UNSET else []
    answer = predict.answer if predict.answer is not UNSET else ""
    problems = [] if options.count(answer) == 1 else [f"the answer {answer!r} must be exactly one of the options"]
    return _Answer(answer, options if answer in options else [*options, answer], "", problems=problems)


# Common parts


def _looked_at(run: Run, moment: Moment, until: When | object) -> tuple[int, list[str]]:
    """Give the position at which something is looked at, and what is wrong with it."""
    if until is UNSET:
        return moment.position, []
    if until == "end":
        return run.length, []
    found = run.first_match(until, moment.position)  # type: ignore[arg-type]
    return (found, []) if found else (run.length, ["`until` does not come true after this"])


def _took(run: Run, n: int) -> str:
    """Say who took a step and what it was."""
    step = run.step(n)
    return f"{step.thread} took step {n}: {step.title}."


def _short_names(thread: str) -> tuple[str, ...]:
    """Give the ways in which a lesson may name a thread: without the machine's name, without the process number."""
    return (thread.partition(".")[2] or thread, thread.partition("-")[0])


_BY_KIND: Final[dict[str, Callable[[Run, Moment, Predict], _Answer]]] = {
    "next-thread": _next_thread,
    "next-op": _next_op,
    "cell": _cell,
    "value": _value,
    "count": _count,
    "order": _order,
    "choice": _choice,
}
