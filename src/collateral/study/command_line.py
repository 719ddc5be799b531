"""A study by its name or file → its checked settings, merged as Snakemake merges them. Torch-free."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from collateral.errors import CollateralError, unknown_name
from collateral.io.yaml import read_yaml
from collateral.study import paths as places
from collateral.study.config import load_study
from collateral.study.design import Study

SCHEMA = "workflow/schemas/config.schema.yaml"


@dataclass(frozen=True)
class NamedStudy:
    """A study as a command line names it.

    Attributes:
        project: the folder with Snakefile, workflow/ and config/.
        file: the study's file; None is the default study.
        values: KEY=VALUE, as for Snakemake's `--config`.
        study: its checked settings.
    """

    project: Path
    file: Path | None
    values: list[str]
    study: Study

    @property
    def task_folders(self) -> dict[str, list[Path]]:
        """Return suite → its folders with task files."""
        return find_task_folders(self.study, self.project)

    @property
    def mirror(self) -> Path | None:
        """Return the mirror of the downloads, if the study has one."""
        return find_mirror(self.study, self.project)

    @property
    def arguments(self) -> list[str]:
        """Return the options by which Snakemake knows the study."""
        file = ["--configfile", str(self.file)] if self.file else []
        return [*file, *(["--config", *self.values] if self.values else [])]

    def snakemake(self, *options: str) -> list[str]:
        """Return a Snakemake command for the study; more options, or `--` and targets, may follow."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(self.project / "Snakefile")]
        return [*command, *options, *self.arguments]


def find_project() -> Path:
    """Return the project's folder: the working directory, else the clone that this package is installed from.

    Raises:
        CollateralError: neither has a Snakefile and the config's schema.
    """
    clone = Path(__file__).parents[3]
    for folder in (Path(), clone):
        if (folder / "Snakefile").is_file() and (folder / SCHEMA).is_file():
            return folder.resolve()
    raise CollateralError(
        f"{Path().resolve()}: no Snakefile of Collateral here, nor in {clone}; run this in a clone of the project, "
        "or install the package from one: pip install --editable CLONE"
    )


def read_study(project: Path, file: Path | None, values: list[str]) -> Study:
    """Return the study of a file and of single values, checked.

    Args:
        project: the folder with config/ and workflow/.
        file: the study's file; None is the default study.
        values: KEY=VALUE, as for Snakemake's `--config`.

    Raises:
        CollateralError: the file is missing, or the settings are wrong.
    """
    return load_study(merge_config(project, file, values), project / SCHEMA)


def find_study_file(project: Path, name: str) -> Path:
    """Return the file of a study of the project.

    Raises:
        CollateralError: there is none; the message has the nearest name.
    """
    path = project / f"config/studies/{name}.yaml"
    if not path.is_file():
        raise unknown_name("study", name, [file.stem for file in path.parent.glob("*.yaml")])
    return path


def merge_config(project: Path, file: Path | None, values: list[str]) -> dict[str, Any]:
    """Return the default config with a study's file and single values laid over it, as Snakemake does.

    The default is config/config.yaml of the working directory, else of the project.
    """
    from snakemake.utils import update_config

    config = _read_config(places.locate("config/config.yaml", project))
    if file is not None:
        if not file.is_file():
            raise CollateralError(f"{file}: no such file; give --configfile the path of a study's file")
        update_config(config, _read_config(file))
    for pair in values:
        key, equals, value = pair.partition("=")
        if not equals:
            raise CollateralError(f"--config {pair}: no value; write KEY=VALUE, such as mirror=../files")
        update_config(config, {key: yaml.safe_load(value)})
    return config


def _read_config(path: Path) -> dict[str, Any]:
    """Return a config file's keys. Snakemake would run Python that stands in it; this refuses it."""
    config = read_yaml(path, "a config")
    if not isinstance(config, dict):
        raise CollateralError(
            f"{path}: holds {type(config).__name__}, not the keys of a config; see config/config.yaml"
        )
    if "__use_yte__" in config:
        raise CollateralError(f"{path}: __use_yte__ runs Python that stands in the file; write plain YAML")
    return config


def find_task_folders(study: Study, project: Path) -> dict[str, list[Path]]:
    """Return suite → its folders with task files."""
    suites = study.settings["suites"].items()
    return {name: [places.locate(folder, project) for folder in suite["folders"]] for name, suite in suites}


def find_mirror(study: Study, project: Path) -> Path | None:
    """Return the mirror of the downloads, if the study has one."""
    mirror: str = study.settings["mirror"]
    return places.locate(mirror, project) if mirror else None


def add_study_options(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a command names a study: `--study`, `--configfile`, `--config`."""
    parser.add_argument("--study", default="", help="a name in config/studies; none is the default study")
    parser.add_argument("--configfile", type=Path, help="a study's file elsewhere")
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="as Snakemake's")


def read_named_study(arguments: argparse.Namespace) -> NamedStudy:
    """Return the study that the options of `add_study_options` name, checked.

    Raises:
        CollateralError: as `find_project`, `find_study_file` and `read_study`.
    """
    project = find_project()
    file: Path | None = find_study_file(project, arguments.study) if arguments.study else arguments.configfile
    return NamedStudy(project, file, arguments.config, read_study(project, file, arguments.config))
