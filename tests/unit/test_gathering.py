"""The tidy tables: their columns are those that are described, and what jobs cost is read as far as it is there."""

from pathlib import Path

import polars as pl
import pytest

from collateral.analysis.statistics.derive import derive_tables
from collateral.analysis.statistics.inference import Terms
from collateral.analysis.tables.collapse import COLLAPSE_SCHEMA
from collateral.analysis.tables.collect import KEY
from collateral.analysis.tables.costs import collect_costs
from collateral.analysis.tables.gather import gather_tables, tabulate_editors, write_tables
from collateral.analysis.tables.schema import INFERRED, MEASURED, TABLES, conform_table, flatten_lists
from collateral.editing.session import RECORD_SCHEMA
from collateral.errors import CollateralError
from collateral.evaluation.efficacy import SCHEMA as EFFICACY_SCHEMA
from collateral.evaluation.harness import ITEM_SCHEMA
from collateral.evaluation.weights.statistics import HEATMAP_SCHEMA
from collateral.evaluation.weights.statistics import SCHEMA as WEIGHTS_SCHEMA
from collateral.io.atomic import write_text
from collateral.study import outputs as results
from collateral.study.command_line import read_study

ROOT = Path(__file__).parents[2]
KINDS = tuple(results.list_results(read_study(ROOT, None, [])))
COLLAPSING = {"perplexity_ratio": 10, "one_answer": 0.95}
CHAIN = "results/edited/m/d/seed-0/rome"


def test_a_study_without_any_result_has_all_tables_and_all_columns(tmp_path):
    tables = gather_tables({name: [] for name in KINDS}, {}, {}, COLLAPSING, tmp_path)
    assert tables.keys() == MEASURED.keys()
    assert {name: table.schema for name, table in tables.items()} == {
        name: pl.Schema(MEASURED[name].schema) for name in tables
    }


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("ability-items", {**ITEM_SCHEMA, "suite": pl.String}),
        ("efficacy", EFFICACY_SCHEMA),
        ("edits", RECORD_SCHEMA),
        ("weights", WEIGHTS_SCHEMA),
        ("heatmaps", HEATMAP_SCHEMA),
    ],
)
def test_a_table_of_results_has_the_key_and_the_columns_of_its_files(name, written):
    assert pl.Schema(TABLES[name].schema) == pl.Schema({**KEY, **written})


def test_the_table_of_collapses_is_described_as_it_is_made():
    assert pl.Schema(TABLES["collapses"].schema) == pl.Schema(COLLAPSE_SCHEMA)


def test_of_no_results_nothing_is_inferred_but_all_tables_are_there(tmp_path):
    tables = derive_tables(gather_tables({name: [] for name in KINDS}, {}, {}, COLLAPSING, tmp_path), Terms())
    assert {name: len(table) for name, table in tables.items()} == dict.fromkeys(INFERRED, 0)


def test_each_column_says_what_it_means():
    for table in TABLES.values():
        assert table.row.endswith(".")
        assert all(column.meaning for column in table.columns.values())


def test_measured_and_inferred_tables_have_names_of_their_own():
    assert not MEASURED.keys() & INFERRED.keys()


def test_a_table_with_an_unknown_lacking_or_mistyped_column_is_refused():
    known = pl.DataFrame({"model": ["m"], "dataset": ["d"], "facts": [3], "known": [1]}).cast(
        {"facts": pl.Int32, "known": pl.Int32}
    )
    assert conform_table("known", known).columns == ["model", "dataset", "facts", "known"]
    for wrong, said in (
        (known.drop("known"), "no column 'known'"),
        (known.with_columns(more=1), "'more' is not described"),
        (known.with_columns(pl.col("facts").cast(pl.String)), "'facts' is String, not Int32"),
    ):
        with pytest.raises(CollateralError, match=said):
            conform_table("known", wrong)


def test_each_table_is_written_as_parquet_and_as_csv_with_lists_as_text(tmp_path):
    table = pl.DataFrame({"prompt": ['a "b",\nc', None], "predicted": [[1, 2], []]})
    write_tables({"probes": table}, tmp_path)
    assert pl.read_parquet(tmp_path / "probes.parquet").equals(table)
    again = pl.read_csv(tmp_path / "probes.csv")
    assert again["prompt"].to_list() == ['a "b",\nc', None]
    assert again["predicted"][0] == "1 2"
    assert flatten_lists(table).columns == table.columns


def test_editors_are_told_from_their_settings():
    own = {"method": "rome", "batch_size": 1, "editing": "sequential"}
    table = tabulate_editors(
        {
            "plain": {**own, "regularizer": {"name": "none", "keep": 100}},
            "rect": {**own, "regularizer": {"name": "rect", "keep": 40.0}},
            "prune": {**own, "regularizer": {"name": "prune", "keep": 100}},
        }
    )
    assert table["regularizer"].to_list() == ["none", "rect", "prune"]
    assert table["keep"].to_list() == [None, 40.0, None]


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Two checkpoints on the disk, records of some of their jobs, and records that do not belong."""
    monkeypatch.chdir(tmp_path)
    head = "s\th:m:s\tmax_rss\n"
    for place, line in {
        "edit/m/d/seed-0/rome/edits-0001": "10.5\t0:0:10\t800.0",
        "evaluate_abilities/m/d/seed-0/rome/edits-0003/two": "30.0\t0:0:30\t-",
        "evaluate_unedited/m/two": "20.0\t0:0:20\t700.0",
        "measure_moments/m/04-to-08": "5.0\t0:0:5\t600.0",
        "measure_moments/m/05": "6.0\t0:0:6\t600.0",
        "measure_reference/m/d/seed-0/edits-0005": "2.0\t0:0:2\t500.0",
        "edit/m/d/seed-0/other/edits-0001": "99.0\t0:0:99\t1.0",
        "evaluate_unedited/other/two": "99.0\t0:0:99\t1.0",
        "measure_reference/m/d/seed-1/edits-0005": "99.0\t0:0:99\t1.0",
    }.items():
        write_text(tmp_path / f"benchmarks/{place}.tsv", f"{head}{line}\n")
    write_text(tmp_path / "benchmarks/weigh/m/d/seed-0/rome/edits-0001.tsv", "half a rec")
    write_text(tmp_path / "benchmarks/weigh/m/d/seed-0/rome/edits-many.tsv", "s\n1\n")
    for edits in ("0001", "0003"):
        for name, size in (("delta.parquet", 100), ("state.safetensors", 20), ("edits.parquet", 1)):
            write_text(tmp_path / f"{CHAIN}/edits-{edits}/{name}", "x" * size)
    return [tmp_path / f"{CHAIN}/edits-{edits}/edits.parquet" for edits in ("0001", "0003")]


def test_costs_are_those_of_the_studys_jobs_and_bytes_those_on_the_disk(recorded, tmp_path, caplog):
    table = collect_costs(recorded, tmp_path / "benchmarks")
    found = {
        (row["rule"], row["editor"], row["edits"], row["suite"], row["seconds"]): (
            row["max_rss_mb"],
            row["bytes"],
        )
        for row in table.to_dicts()
    }
    assert found == {
        ("edit", "rome", 1, None, 10.5): (800.0, 120),
        ("edit", "rome", 3, None, None): (None, 120),  # not recorded
        ("evaluate_abilities", "rome", 3, "two", 30.0): (None, None),
        ("evaluate_unedited", None, None, "two", 20.0): (700.0, None),
        ("measure_moments", None, None, None, 5.0): (600.0, None),
        ("measure_moments", None, None, None, 6.0): (600.0, None),
        ("measure_reference", None, 5, None, 2.0): (500.0, None),
    }
    assert "half a rec" not in caplog.text
    assert caplog.text.count("not counted") == 2


def test_costs_without_records_or_updates_are_a_table_without_rows(tmp_path):
    assert collect_costs([], tmp_path / "benchmarks").is_empty()
