"""What Snakemake's log says of jobs, as events: which are recorded, and which failed for good. Torch-free.

The events and their fields are those of Snakemake's interface for logger plugins.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from snakemake_interface_logger_plugins.common import LogEvent

from collateral.runtime.job import is_unfinished


@dataclass(frozen=True)
class StartedJob:
    """A job that has started.

    Attributes:
        rule: its name.
        wildcards: its wildcards.
        outputs: its files.
        log: the rule's log file; empty without one.
    """

    rule: str
    wildcards: dict[str, str]
    outputs: list[str]
    log: str


class JobEvents(logging.Handler):
    """Follows the jobs of a run.

    Args:
        finish: called with the outputs of each job that has finished, after Snakemake has recorded it.
    """

    def __init__(self, finish: Callable[[list[str]], None]):
        super().__init__()
        self._finish = finish
        self._started: dict[int, StartedJob] = {}
        self._groups: dict[int, str] = {}  # of jobs whose group failed
        self._failed: dict[int, None] = {}  # in the order of their failures

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of an event."""
        about = record.__dict__
        event = about.get("event")
        if event == LogEvent.JOB_INFO:
            log = list(about["log"] or [])
            self._started[about["jobid"]] = StartedJob(
                about["rule_name"],
                {name: str(value) for name, value in (about["wildcards"] or {}).items()},
                list(map(str, about["output"])),
                str(log[0]) if log else "",
            )
            self._groups.pop(about["jobid"], None)
            self._failed.pop(about["jobid"], None)  # it is tried again
        elif event == LogEvent.GROUP_ERROR:
            self._groups |= {info["jobid"]: about["groupid"] for info in about["job_error_info"]}
        elif event == LogEvent.JOB_ERROR:
            self._failed[about["jobid"]] = None
        elif event == LogEvent.JOB_FINISHED:
            job = self._started.get(about["job_id"])
            if job is not None:
                self._finish(job.outputs)

    def find_failed(self) -> Iterator[StartedJob]:
        """Yield the jobs that failed and were not tried again; of a group, those at work when it failed.

        Where the logs of a group do not say which were at work, all of its jobs count.
        """
        failed = {number: self._started[number] for number in self._failed if number in self._started}
        unfinished = {number for number, job in failed.items() if is_unfinished(Path(job.log))}
        known = {self._groups[number] for number in unfinished if number in self._groups}
        for number, job in failed.items():
            if number in unfinished or self._groups.get(number) not in known:
                yield job
