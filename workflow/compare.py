"""Set two results folders side by side: one page, and its tables as Parquet and CSV.

Called by `make compare A=… B=…`.
"""

import argparse
import sys
from pathlib import Path

from collateral.analysis.statistics import compare_runs as contrasts
from collateral.analysis.statistics.inference import Terms
from collateral.analysis.tables import results_folder as resultfolders
from collateral.analysis.tables.gather import write_tables
from collateral.errors import CollateralError
from collateral.io.atomic import write_text
from collateral.report.pages import comparison as contrastpage


def main() -> None:
    """Compare the folders that the command line names."""
    parser = argparse.ArgumentParser(description="Two results folders side by side: B against A.")
    parser.add_argument("a", type=Path, metavar="A", help="a results folder")
    parser.add_argument("b", type=Path, metavar="B", help="another one")
    parser.add_argument("--out", type=Path, default=Path("results/compare"), help="folder of the page")
    given = parser.parse_args()
    try:
        sys.stdout.write(compared(given.a, given.b, given.out))
    except CollateralError as error:
        sys.exit(f"compare: {error}")


def compared(folder_a: Path, folder_b: Path, out: Path) -> str:
    """Write the comparison; return its summary and where it is."""
    a, b = resultfolders.read_results(folder_a), resultfolders.read_results(folder_b)
    terms = Terms.of(a.run["settings"]["inference"]) if "inference" in a.run.get("settings", {}) else Terms()
    unpaired = contrasts.unpaired_tasks(a.tables, b.tables)
    probes_a, probes_b = a.tables["efficacy"], b.tables["efficacy"]
    found = {
        "abilities": contrasts.abilities(a.tables, b.tables, unpaired, terms),
        "probes": contrasts.probes(probes_a, probes_b, terms),
        "unpaired": unpaired.vstack(contrasts.unpaired_probes(probes_a, probes_b)),
        "weights": contrasts.weights(a.tables["weights"], b.tables["weights"]),
        "presence": resultfolders.presence(a, b),
        "settings": resultfolders.settings(a, b),
    }
    write_tables(found, out)
    page = contrastpage.render(found, str(folder_a), str(folder_b), bool(a.run and b.run))
    write_text(out / "index.html", page)
    return f"{contrastpage.summary(found)}\nPage: {out / 'index.html'}\n"


if __name__ == "__main__":
    main()
