"""Imports job logs in the Standard Workload Format as records of the kind `job`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

from collectors.sources import Options, Read, SourceError
from siteward.formats.swf import UNKNOWN, Header, Log, Malformed, SwfError, SwfJob
from siteward.kinds.job import Job
from siteward.records import Kind, Refused, kind_of

STATES: Final = {0: "failed", 1: "completed", 5: "cancelled", UNKNOWN: "unknown"}
"""Job states by the log's status."""
PARTIAL: Final = frozenset({2, 3, 4})
"""Status of lines that describe one burst of a job that was swapped out: the job has a summary line before them, so
that importing both would count its use twice."""
KILOBYTE: Final = 1024
SECOND: Final = 1_000_000
_PASSED: Final = "is a partial execution of the job before it"


class SwfSource:
    """The mapping from SWF to `job`.

    The job ran from submit + wait to submit + wait + run; where the wait is unknown, from submit. CPU and memory are
    averages per processor by the format's definition, and multiplied by the processors, unless the header's notes say
    `quantity=per_job`. A job without processors was cancelled before it started: a record with no wall time, at the
    instant it left the queue. Names of queues and partitions are the header's, otherwise their numbers; a partition
    is the compute element.
    """

    def __init__(self) -> None:
        """Compile the kind and learn the places of its columns."""
        self._kind = kind_of(Job)
        self._defaults = [column.default for column in self._kind.columns]
        self._place = {name: place for place, name in enumerate(self._kind.names)}

    @property
    def kind(self) -> Kind:
        """The kind `job`."""
        return self._kind

    def rows(self, file: BinaryIO, options: Options, position: int, now: int) -> Iterator[Read]:
        """See Source.rows; the position is the line number."""
        try:
            log = Log(file)
            values_of = self._mapping(log.header, options)
            for number, line in log.lines(after=position):
                yield self._read(number, line, values_of, now)
        except SwfError as error:
            raise SourceError(str(error)) from error

    def _read(self, number: int, line: SwfJob | Malformed, values_of: Callable[[SwfJob], list[Any]], now: int) -> Read:
        if isinstance(line, Malformed):
            return Read(number, malformed=line.reason)
        if line.status in PARTIAL:
            return Read(number, passed=_PASSED)
        try:
            return Read(number, self._kind.checked(values_of(line), now))
        except Refused as refused:
            return Read(number, malformed=str(refused))

    def _mapping(self, header: Header, options: Options) -> Callable[[SwfJob], list[Any]]:
        """A function from a job to values in columns order; what is the same for all jobs is filled in once.

        Raises:
            SourceError: the header does not say when the log begins, or nothing says whose it is.
        """
        if header.start is None:
            message = "the header has no UnixStartTime, so that nothing says when the jobs ran; add that line"
            raise SourceError(message)
        submit_host = options.submit_host or header.first("Installation") or header.first("Computer")
        if not submit_host:
            message = "the header names neither Installation nor Computer; name the log with --submit-host"
            raise SourceError(message)
        template = list(self._defaults)
        for name, value in (("vo", options.vo), ("site", options.site), ("submit_host", submit_host)):
            template[self._place[name]] = value
        return self._filler(template, header, header.start)

    def _filler(self, template: list[Any], header: Header, log_start: int) -> Callable[[SwfJob], list[Any]]:
        place = self._place
        start_, end_, wall_, cpu_, memory_ = (
            place[name] for name in ("start", "end", "wall_time", "cpu_time", "memory")
        )
        processors_, wait_, state_, id_ = (
            place[name] for name in ("processors", "queue_time", "state", "local_job_id")
        )
        user_, group_, application_, queue_, element_ = (
            place[name] for name in ("user", "group", "application", "queue", "compute_element")
        )
        queues, partitions = _Names(header.queues), _Names(header.partitions)
        numbers = _Names({})
        states = STATES
        cpu_per_job = header.quantities.get("cpu_used") == "per_job"
        memory_per_job = header.quantities.get("mem_used") == "per_job"

        def values_of(job: SwfJob) -> list[Any]:
            values = template.copy()
            processors, wall = _usage(job)
            start = log_start + job.submit + max(job.wait, 0)
            values[start_] = start * SECOND
            values[end_] = (start + wall) * SECOND
            values[wall_] = wall
            values[processors_] = processors
            values[cpu_] = _total(job.cpu_used, 1 if cpu_per_job else processors)
            values[memory_] = _total(job.memory_used, KILOBYTE if memory_per_job else KILOBYTE * processors)
            values[wait_] = None if job.wait == UNKNOWN else job.wait
            # A status that the format does not know is said as it is, so that validation names it.
            values[state_] = states.get(job.status) or f"status {job.status}"
            values[id_] = str(job.number)
            values[user_] = numbers[job.user]
            values[group_] = numbers[job.group]
            values[application_] = numbers[job.application]
            values[queue_] = queues[job.queue]
            values[element_] = partitions[job.partition]
            return values

        return values_of


class _Names(dict[int, str]):
    """Names by number: the header's, "" for unknown, otherwise the number itself."""

    def __missing__(self, number: int) -> str:
        name = "" if number == UNKNOWN else str(number)
        # Remembered for speed, within bounds: a hostile log may have a new number on every line.
        if len(self) < 10_000:  # noqa: PLR2004  # more than any log's users.
            self[number] = name
        return name


def _usage(job: SwfJob) -> tuple[int, int]:
    """Processors and wall time.

    Raises:
        Refused: the log does not say them, so that nothing could be booked.
    """
    processors = job.processors if job.processors != UNKNOWN else job.processors_requested
    if job.submit < 0:
        reason = "is unknown, so that nothing says when the job ran"
        raise Refused(reason, kind="job", field="submit")
    if processors == 0:
        return 0, 0
    if UNKNOWN in {job.run, processors}:
        reason = "is unknown, so that nothing can be booked"
        raise Refused(reason, kind="job", field="run" if job.run == UNKNOWN else "processors")
    return processors, job.run


def _total(average: int, factor: int) -> int | None:
    return None if average == UNKNOWN else average * factor


source: Final = SwfSource()
"""What `siteward import swf` uses."""
