"""The command `collateral`: its subcommands, where it finds the project, and what it imports."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from collateral.cli.main import COMMANDS, main
from collateral.errors import CollateralError
from collateral.study import command_line
from collateral.study.command_line import SCHEMA, find_project

ROOT = Path(__file__).parents[2]
NAMES = ["plan", "check", "stage", "report", "why", "verify", "compare"]


def test_the_subcommands_are_those_that_make_calls(capsys):
    assert [command.name for command in COMMANDS] == NAMES
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"$(COLLATERAL) {name}" in makefile for name in NAMES)
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in NAMES)


def test_the_console_script_and_the_distribution_have_the_names_that_docs_give():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "collateral-edits"
    assert project["scripts"] == {"collateral": "collateral.cli.main:main"}


def test_help_imports_no_large_library():
    code = (
        "import sys\nfrom collateral.cli.main import main\n"
        "try:\n    main(['why', '--help'])\nexcept SystemExit:\n    pass\n"
        "large = {'torch', 'transformers', 'lm_eval', 'polars', 'altair', 'scipy', 'snakemake'}\n"
        "sys.exit(str(large & set(sys.modules)) if large & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_verifying_imports_nothing_that_draws(tmp_path):
    (tmp_path / "results").mkdir()
    code = (
        "import sys\nfrom collateral.cli.main import main\n"
        f"try:\n    main(['verify', {str(tmp_path)!r}])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "sys.exit('altair' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "verify: 0 files, 0 faults\n"


def test_an_error_is_one_line_with_the_name_of_the_command(tmp_path):
    with pytest.raises(
        SystemExit, match=r"verify: .* has neither results nor resources; name a study's folder"
    ):
        main(["verify", str(tmp_path)])


@pytest.mark.parametrize("name", ["check", "plan", "why", "report", "stage"])
def test_a_wrong_study_is_refused_before_anything_is_done(name):
    with pytest.raises(SystemExit, match=f"{name}: unknown study 'labtop'; did you mean 'laptop'?"):
        main([name, "--study", "labtop"])


def test_the_project_is_the_working_directory_else_the_clone_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_project() == ROOT
    (tmp_path / "Snakefile").touch()  # a user's own, which takes the workflow as a module
    assert find_project() == ROOT
    (tmp_path / SCHEMA).parent.mkdir(parents=True)
    (tmp_path / SCHEMA).touch()
    assert find_project() == tmp_path
    (tmp_path / "Snakefile").unlink()
    monkeypatch.setattr(command_line, "__file__", str(tmp_path / "a/b/c/d/e.py"))
    with pytest.raises(CollateralError, match="no Snakefile of Collateral here"):
        find_project()
