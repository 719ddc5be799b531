"""All figures of the report: each file of this folder defines some in its FIGURES, and is found by its name."""

import importlib
from pathlib import Path

from collateral.report.charts.figure import Figure

_FILES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path != Path(__file__))

FIGURES: tuple[Figure, ...] = tuple(
    sorted(
        (
            figure
            for name in _FILES
            for figure in importlib.import_module(f"collateral.report.figures.{name}").FIGURES
        ),
        key=lambda figure: (figure.rank, figure.name),
    )
)
