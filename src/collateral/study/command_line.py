"""A study by its name or file → its checked settings, as Snakemake would lay them over the default. Torch-free."""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from collateral.errors import CollateralError, unknown_name
from collateral.io.yaml import read_yaml
from collateral.study import paths as places
from collateral.study.config import load_study
from collateral.study.design import Study


def read_study(project: Path, own: Path | None, pairs: list[str]) -> Study:
    """Return the study of a file and of single values, checked.

    Args:
        project: the folder with config/ and workflow/.
        own: the study's file; None is the default study.
        pairs: KEY=VALUE, as for Snakemake's `--config`.

    Raises:
        CollateralError: the file is lacking, or the settings are wrong.
    """
    return load_study(merged(project, own, pairs), project / "workflow/schemas/config.schema.yaml")


def study_file(project: Path, name: str) -> Path:
    """Return the file of a study of the project.

    Raises:
        CollateralError: there is none; the message has the nearest.
    """
    path = project / f"config/studies/{name}.yaml"
    if not path.is_file():
        raise unknown_name("study", name, [one.stem for one in path.parent.glob("*.yaml")])
    return path


def merged(project: Path, own: Path | None, pairs: list[str]) -> dict[str, Any]:
    """Return the default config with a study's file and single values laid over it, as Snakemake lays them.

    The default is config/config.yaml of the working directory, else of the project.
    """
    defaults = places.located("config/config.yaml", project)
    config = _config(defaults)
    if own is not None:
        if not own.is_file():
            raise CollateralError(f"{own}: no such file; give --configfile the path of a study's file")
        update_config(config, _config(own))
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise CollateralError(f"--config {pair}: no value; write KEY=VALUE, such as mirror=../files")
        update_config(config, {key: yaml.safe_load(value)})
    return config


def _config(path: Path) -> dict[str, Any]:
    """Return a config file's keys. Snakemake would run Python that stands in it; this refuses it."""
    config = read_yaml(path, "a config")
    if not isinstance(config, dict):
        raise CollateralError(
            f"{path}: holds {type(config).__name__}, not the keys of a config; see config/config.yaml"
        )
    if "__use_yte__" in config:
        raise CollateralError(f"{path}: __use_yte__ runs Python that stands in the file; write plain YAML")
    return config


def task_folders(study: Study, project: Path) -> dict[str, list[Path]]:
    """Return suite → its folders with task files."""
    suites = study.settings["suites"].items()
    return {name: [places.located(folder, project) for folder in suite["folders"]] for name, suite in suites}


def mirror(study: Study, project: Path) -> Path | None:
    """Return the mirror of the downloads, if the study has one."""
    own: str = study.settings["mirror"]
    return places.located(own, project) if own else None


def study_options(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a command names a study: `--study`, `--configfile`, `--config`."""
    parser.add_argument("--study", default="", help="a name in config/studies; none is the default study")
    parser.add_argument("--configfile", type=Path, help="a study's file elsewhere")
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="as Snakemake's")


def named_study(project: Path, given: argparse.Namespace) -> tuple[Path | None, Study]:
    """Return the file and the settings of the study that `study_options` name, checked.

    Raises:
        CollateralError: as `study_file` and `read_study`.
    """
    own: Path | None = study_file(project, given.study) if given.study else given.configfile
    return own, read_study(project, own, given.config)


def snakemake_command(project: Path, own: Path | None, pairs: list[str], *more: str) -> list[str]:
    """Return a command of this project's workflow; what follows it are options, and `--` with targets.

    Args:
        project: the folder with the Snakefile.
        own: the study's file; None is the default study.
        pairs: KEY=VALUE, as for Snakemake's `--config`.
        more: further options.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(project / "Snakefile"), *more]
    return [*command, *snakemake_study(own, pairs)]


def snakemake_study(own: Path | None, pairs: list[str]) -> list[str]:
    """Return the options by which Snakemake knows a study."""
    return [*(["--configfile", str(own)] if own else []), *(["--config", *pairs] if pairs else [])]
