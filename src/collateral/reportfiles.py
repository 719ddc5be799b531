"""The report folder: one page, and beside it the data and a drawing of every figure."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from collateral import pages
from collateral.files import sha256_file, whole_file, write_text
from collateral.provenance import machine, versions
from collateral.sequences import read_table

log = logging.getLogger(__name__)


def write_report(
    table_paths: Sequence[Path],
    hashed: Mapping[str, Path],
    settings: Mapping[str, Any],
    page: Path,
    figures: Path,
    missing: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page, and per figure its CSV and SVG.

    Args:
        table_paths: the tidy tables; the stem of each is its name.
        hashed: files whose sha256 the page shows, by the name to show.
        settings: the whole config, defaults filled in.
        page: written: the HTML document.
        figures: folder, written: `{figure}.csv` and `{figure}.svg`.
        missing: what an unfinished study lacks, as `unfinished.missing` gives it.
    """
    tables = {path.stem: read_table(path, "a result table", ()) for path in table_paths}
    run = {
        "settings": dict(settings),
        "versions": versions(),
        "machine": machine(),
        "hashes": {name: sha256_file(path) for name, path in sorted(hashed.items())},
        "missing": list(missing),
    }
    shutil.rmtree(figures, ignore_errors=True)
    figures.mkdir(parents=True)
    for name, table in pages.figure_csvs(tables).items():
        with whole_file(figures / f"{name}.csv") as partial:
            _flat(table).write_csv(partial)
    for name, chart in pages.figure_charts(tables).items():
        with whole_file(figures / f"{name}.svg") as partial:
            chart.save(partial, format="svg")
    write_text(page, pages.render(tables, run, figures.name))
    log.info("the report is %s", page)


def _flat(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table without nested columns, which CSV cannot hold."""
    return table.select(name for name, kind in table.schema.items() if not kind.is_nested())
