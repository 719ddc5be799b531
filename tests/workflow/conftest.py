"""The small study, run once a session."""

import shutil
from pathlib import Path

import pytest

from smallstudy import Project, make_project, save_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A random LLaMA with room for the tasks' texts."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_folder) -> Project:
    """The small study, run to its report. Tests must leave it as it is."""
    project = make_project(tmp_path_factory.mktemp("finished"), tiny_folder)
    done = project.snakemake()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return project


@pytest.fixture
def copy(finished, tmp_path) -> Project:
    """The finished study in a folder of its own, as if the whole folder had been moved."""
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Project(folder)
