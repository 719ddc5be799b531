"""The report's files: its pages, what they were made from, and beside them every figure as CSV, SVG and PNG."""

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from collateral.io.atomic import sha256_file, whole_file, write_json, write_text
from collateral.io.log_levels import NOTE
from collateral.io.parquet import read_table
from collateral.io.versions import machine, versions
from collateral.report.pages import pages
from collateral.report.pages.disk import count_checkpoint_bytes, describe_disk
from collateral.report.render import Drawing, draw_figures
from collateral.report.static_figures import draw_svg_and_png

log = logging.getLogger(__name__)
RUN_FILE = "run.json"


def write_report(
    table_paths: Sequence[Path],
    hashed: Mapping[str, Path],
    settings: Mapping[str, Any],
    folder: Path,
    figures: Path,
    missing: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the pages, and per figure its CSV, SVG, PNG and caption.

    Args:
        table_paths: the tidy tables; the stem of each is its name.
        hashed: files whose sha256 the report shows, by the name to show.
        settings: the whole config, defaults filled in.
        folder: written: `index.html`, one page a family of figures, and `run.json` (settings, versions, hashes,
            machine).
        figures: folder beside `folder`, written: `{page}/{figure}.csv`, `.svg`, `.png`, `.rst`.
        missing: what an unfinished study lacks, as `find_missing_jobs` returns it.
    """
    whole = _checkpoints(hashed, settings)
    tables = {path.stem: read_table(path, "a result table", ()) for path in table_paths}
    run = {
        "settings": dict(settings),
        "versions": versions(),
        "machine": machine(),
        "hashes": {name: sha256_file(path) for name, path in sorted(hashed.items())},
        "missing": list(missing),
        "checkpoints": whole,
    }
    drawn = draw_figures(tables)
    for own in (folder, figures):
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
    for one in drawn:
        write_figure(one, figures / one.folder)
    write_json(folder / RUN_FILE, run)
    for name, page in pages.render_pages(tables, run, f"../{figures.name}", drawn).items():
        write_text(folder / name, page)
    for line in describe_disk(tables.get("costs", pl.DataFrame()), whole):
        log.log(NOTE, "%s", line)
    log.info("the report is %s", folder / "index.html")


def _checkpoints(hashed: Mapping[str, Path], settings: Mapping[str, Any]) -> dict[str, int]:
    """Return model → bytes that a full checkpoint of it would take, of the models whose files are there."""
    folders = [path.parent for path in hashed.values() if path.name == "manifest.json"]
    found = {
        folder.name: count_checkpoint_bytes(folder, settings["models"][folder.name]["dtype"])
        for folder in folders
    }
    return {model: size for model, size in found.items() if size}


def write_figure(drawing: Drawing, folder: Path) -> None:
    """Write what a figure plots as CSV, the figure as SVG and PNG, and its caption as reStructuredText."""
    svg, png = draw_svg_and_png(drawing.spec)
    with whole_file(folder / f"{drawing.name}.csv") as partial:
        _flat(drawing.points).write_csv(partial)
    with whole_file(folder / f"{drawing.name}.png") as partial:
        partial.write_bytes(png)
    write_text(folder / f"{drawing.name}.svg", svg)
    # One line, every mark escaped: Snakemake's own report includes it.
    words = " ".join(drawing.caption.split())
    write_text(folder / f"{drawing.name}.rst", re.sub(r"([\\*`|_:.<>\[\]#+=~^\"'-])", r"\\\1", words) + "\n")


def _flat(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table without nested columns, which CSV cannot hold."""
    return table.select(name for name, kind in table.schema.items() if not kind.is_nested())
