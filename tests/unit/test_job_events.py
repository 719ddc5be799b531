"""What a run learns from the events of its log: recorded jobs, and those that failed for good."""

import logging

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from collateral.runtime.job_events import JobEvents


class Run:
    """A logger that is followed, with a log file for each job."""

    def __init__(self, folder):
        self.folder = folder
        self.finished = []
        self.logger = logging.Logger("run")
        self.events = JobEvents(self.finished.append)
        self.logger.addHandler(self.events)

    def log(self, event, **fields):
        self.logger.info("", extra={"event": event, **fields})

    def start(self, number, log=""):
        path = self.folder / f"{number}.log"
        path.write_text(log)
        fields = {"rule_name": "edit", "wildcards": {"edits": number}, "output": [f"{number}.out"]}
        self.log(LogEvent.JOB_INFO, jobid=number, log=[str(path)], **fields)

    def fail(self, *numbers, group=""):
        if group:
            about = [{"jobid": number} for number in numbers]
            self.log(LogEvent.GROUP_ERROR, groupid=group, job_error_info=about)
        for number in numbers:
            self.log(LogEvent.JOB_ERROR, jobid=number)

    def failed(self):
        return [job.outputs for job in self.events.find_failed()]


BEGUN = "12:00:00 INFO begun; alone: snakemake -- x\n"
DONE = f"{BEGUN}12:00:01 INFO done\n"


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_a_finished_job_is_reported_with_its_outputs(run):
    run.start(1)
    run.log(LogEvent.JOB_FINISHED, job_id=1)
    assert run.finished == [["1.out"]]
    assert run.failed() == []


def test_a_job_that_succeeds_at_its_second_attempt_has_not_failed(run):
    run.start(1)
    run.fail(1)
    assert run.failed() == [["1.out"]]
    run.start(1)
    assert run.failed() == []
    run.log(LogEvent.JOB_FINISHED, job_id=1)
    assert run.failed() == []


def test_of_a_group_only_the_jobs_that_were_at_work_have_failed(run):
    run.start(1, DONE)
    run.start(2, BEGUN)
    run.start(3)
    run.start(4)
    run.fail(1, 2, 3, group="chain-0")
    run.fail(4)
    assert run.failed() == [["2.out"], ["4.out"]]


def test_of_a_group_whose_logs_say_nothing_all_jobs_have_failed(run):
    run.start(1)
    run.start(2)
    run.fail(1, 2, group="chain-0")
    assert run.failed() == [["1.out"], ["2.out"]]


def test_other_records_are_no_events(run):
    run.logger.warning("a text")
    assert run.failed() == []
