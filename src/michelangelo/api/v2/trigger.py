"""When a pipeline runs by itself: the entries of a pipeline's `spec.manifest.triggerMap`. It checks, and starts
nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import Field

from michelangelo import errors
from michelangelo.api.v2.execution_parameters import PipelineExecutionParameters
from michelangelo.meta import causes, durations
from michelangelo.meta.document import Document, Duration, Int32
from michelangelo.meta.metadata import ResourceIdentifier

__all__ = ["BatchPolicy", "BatchRerun", "CronSchedule", "IntervalSchedule", "Trigger", "check", "check_cron"]

_CRON_FIELDS: Final = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_CRON_PART: Final = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d{1,3}))?", re.ASCII)
_CRON_LENGTH: Final = 256


class CronSchedule(Document):
    """Points in time, by a cron expression."""

    cron: str
    """Five fields, in UTC: minute, hour, day of the month, month, day of the week; such as `0 8 * * *`."""


class IntervalSchedule(Document):
    """Points in time, at equal distances."""

    interval: Duration
    """Time from one start to the next, such as 3600s or 1h."""


class BatchRerun(Document):
    """Earlier runs that are run again."""

    pipeline_runs: Annotated[list[ResourceIdentifier], Field(min_length=1)]
    """The runs to repeat."""
    resume_from: list[str] | None = None
    """Steps to start from; what comes before them is taken from the earlier run."""
    resume_up_to: list[str] | None = None
    """Steps to end with."""


class BatchPolicy(Document):
    """How many runs are started at a time when there are several parameter sets."""

    batch_size: Annotated[Int32, Field(ge=1)] | None = None
    """Number of runs that are started together."""
    wait: Duration | None = None
    """Time between two batches, such as 600s."""


class Trigger(Document):
    """Starts runs of the pipeline. Exactly one of cronSchedule, intervalSchedule and batchRerun is given."""

    cron_schedule: CronSchedule | None = None
    """Start at the times of a cron expression."""
    interval_schedule: IntervalSchedule | None = None
    """Start at equal intervals."""
    batch_rerun: BatchRerun | None = None
    """Run earlier runs again."""
    parameters_map: dict[str, PipelineExecutionParameters] | None = None
    """Parameter sets by name; each start makes one run per set."""
    batch_policy: BatchPolicy | None = None
    """Start the runs in batches; not together with maxConcurrency."""
    max_concurrency: Annotated[Int32, Field(ge=0)] | None = None
    """How many runs of the trigger may run at the same time; 0 for any number."""


def check(path: str, trigger: Trigger) -> Iterable[errors.FieldError]:
    """The cross-field rules of a trigger that lies at `path`."""
    schedules = {
        "cronSchedule": trigger.cron_schedule,
        "intervalSchedule": trigger.interval_schedule,
        "batchRerun": trigger.batch_rerun,
    }
    given = [name for name, schedule in schedules.items() if schedule is not None]
    if not given:
        yield causes.required(path, f"one of {', '.join(schedules)} says when the trigger starts a run")
    for name in given[1:]:
        yield causes.forbidden(f"{path}.{name}", f"only one of {', '.join(schedules)} may be given")
    if trigger.cron_schedule is not None:
        cron = trigger.cron_schedule.cron
        yield from (causes.invalid(f"{path}.cronSchedule.cron", cron, message) for message in check_cron(cron))
    if trigger.interval_schedule is not None and durations.seconds(trigger.interval_schedule.interval) < 1:
        interval = trigger.interval_schedule.interval
        yield causes.invalid(f"{path}.intervalSchedule.interval", interval, "must be at least one second")
    if trigger.batch_policy is not None and trigger.max_concurrency:
        yield causes.forbidden(f"{path}.maxConcurrency", "may not be used together with batchPolicy")


def check_cron(expression: str) -> list[str]:
    """What is wrong with a cron expression of five fields; nothing for a good one."""
    fields = expression.split() if len(expression) <= _CRON_LENGTH else []
    if len(fields) != len(_CRON_FIELDS):
        return ["must have five fields: minute, hour, day of the month, month, day of the week (e.g. '0 8 * * *')"]
    return [
        f"{name} {text!r} must be *, a number from {low} to {high}, a range, a step, or a list of these"
        for text, (name, low, high, words) in zip(fields, _CRON_FIELDS, strict=True)
        if not all(_is_cron_part(part, low, high, words) for part in text.lower().split(","))
    ]


def _is_cron_part(part: str, low: int, high: int, words: tuple[str, ...]) -> bool:
    match = _CRON_PART.fullmatch(part)
    if match is None or (match[3] is not None and int(match[3]) == 0):
        return False
    numbers = [
        words.index(one) + low if one in words else int(one) if one.isdecimal() else -1
        for one in match.groups()[:2]
        if one is not None
    ]
    return all(low <= number <= high for number in numbers) and numbers == sorted(numbers)
