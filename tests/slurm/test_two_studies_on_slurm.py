"""Two studies of two folders that share what they download, submitted at the same time."""

import pytest

from conftest import share

pytestmark = [pytest.mark.slurm, pytest.mark.workflow, pytest.mark.slow]

TARGETS = ("resources/models/tiny/manifest.json", "results/sequences/embedded/seed-0.parquet")


@pytest.fixture(scope="module")
def both(new_project, tmp_path_factory):
    resources = tmp_path_factory.mktemp("shared")
    projects = [new_project(), new_project()]
    for project in projects:
        share(project, resources)
    processes = [project.start("--", *TARGETS) for project in projects]
    for project, process in zip(projects, processes, strict=True):
        assert project.finish(process) == 0, project.said()[-6000:]
    return resources, projects


def test_both_are_complete_and_agree(both):
    resources, projects = both
    for name in TARGETS:
        assert (projects[0].folder / name).stat().st_size > 0
    first, second = (project.results() for project in projects)
    assert first
    assert first == second
    assert (resources / "models/tiny/manifest.json").exists()
    assert (resources / "datasets/embedded.parquet").exists()


def test_they_ran_at_the_same_time(both):
    _, projects = both
    times = [[(job["StartTime"], job["EndTime"]) for job in project.ended()] for project in projects]
    first, last = (min(times[0])[0], max(end for _, end in times[0]))
    assert any(start <= last and end >= first for start, end in times[1])


def test_neither_finds_anything_to_do_because_of_the_other(both):
    _, projects = both
    for project in projects:
        assert project.planned("--", *TARGETS) == set()
