"""A chain that has collapsed is edited on and probed, and not evaluated any more."""

import json

import polars as pl
import pytest

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_a_collapsed_chain_is_not_evaluated_any_more(copy):
    study = {**copy.config["study"], "editors": ["noop", "wild"], "checkpoints": [1, 2, 3]}
    editors = {
        "noop": {"method": "noop", "checkpoints": "all"},
        "wild": {"method": "ft", "settings": {"layer": 1, "lr": 0.5, "num_steps": 2}},
    }
    copy.configure(study=study, editors=editors, collapse={"skip": True, "perplexity_ratio": 1.5})
    done = copy.snakemake()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    folder = copy.folder / "results/edited/tiny/embedded/seed-0"
    later = json.loads((folder / "wild/edits-0003/abilities/two.json").read_text())
    assert later["not_evaluated"]["collapsed_at"] == 1
    assert pl.read_parquet(folder / "wild/edits-0003/abilities/two.items.parquet").is_empty()
    assert (folder / "wild/edits-0003/efficacy.parquet").exists()
    table = pl.read_parquet(copy.folder / "results/tables/collapses.parquet")
    assert table.select("editor", "edits", "collapsed", "evaluated").rows() == [
        ("noop", 1, False, True),
        ("noop", 2, False, True),
        ("noop", 3, False, True),
        ("wild", 1, True, True),
        ("wild", 2, True, False),
        ("wild", 3, True, False),
    ]
    assert copy.planned() == set()

    copy.configure(collapse={"skip": True, "perplexity_ratio": 1.6})
    planned = copy.planned()
    assert not [job for job in planned if job.startswith(("Edit", "Probe", "Weigh"))]
    assert "See whether wild has collapsed after 0001 edits" in planned
