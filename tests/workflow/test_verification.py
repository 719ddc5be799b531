"""Every kind of file × every kind of damage: refused with one line by its reader, and found by `make verify`."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from collateral.data.shared_resources import write_record
from collateral.editing.algorithms.hypernetwork import FORMAT as HYPERNETWORK
from collateral.editing.prepare.second_moments import Moment, write_moments
from collateral.io.atomic import read_sealed_json
from collateral.io.parquet import read_arrow, write_sealed, write_table
from collateral.models.tensor_file import write_tensors
from collateral.pipeline.verify import verify

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

CHAIN = "results/edited/tiny/embedded/seed-0/rome"
KINDS = {
    "model": "resources/models/tiny/model.safetensors",
    "manifest": "resources/models/tiny/manifest.json",
    "data set": "resources/datasets/embedded.parquet",
    "record": "resources/datasets/embedded.source.json",
    "download": "resources/downloads/0123456789abcdef/facts.json",
    "sequence": "results/sequences/embedded/seed-0.parquet",
    "contexts": "results/prepared/tiny/contexts.json",
    "moments": "results/prepared/tiny/moments-01.safetensors",
    "hypernetwork": "results/prepared/tiny/embedded/seed-0/hypernetwork-mend.safetensors",
    "known": "results/prepared/tiny/known-embedded.parquet",
    "reference": "results/unedited/tiny/embedded/seed-0/edits-0005/reference.parquet",
    "lm-eval JSON": f"{CHAIN}/edits-0003/abilities/two.json",
    "items": f"{CHAIN}/edits-0003/abilities/two.items.parquet",
    "delta": f"{CHAIN}/edits-0001/delta.parquet",
    "state": f"{CHAIN}/edits-0001/state.safetensors",
    "edits": f"{CHAIN}/edits-0003/edits.parquet",
    "after-edit": f"{CHAIN}/edits-0003/after-edit.parquet",
    "efficacy": f"{CHAIN}/edits-0003/efficacy.parquet",
    "weights": f"{CHAIN}/edits-0003/weights.parquet",
    "heat map": f"{CHAIN}/edits-0003/heatmap.parquet",
    "drift": f"{CHAIN}/edits-0003/drift.parquet",
    "table": "results/tables/weights.parquet",
    "report": "results/report/run.json",
}
DAMAGES = ("empty", "truncated", "flipped", "wrong schema")


@pytest.fixture(scope="module")
def study(finished, tmp_path_factory) -> Path:
    """The finished study, with one file of each kind that it does not have itself."""
    folder = tmp_path_factory.mktemp("verified") / "study"
    shutil.copytree(finished.folder, folder)  # links to the model's files become files
    identity = read_sealed_json(folder / KINDS["manifest"])["sha256"]
    write_moments({1: Moment(torch.eye(4), 10)}, folder / KINDS["moments"], identity)
    write_tensors({"w": torch.ones(3)}, folder / KINDS["hypernetwork"], {"format": HYPERNETWORK})
    write_table(pl.DataFrame({"fact_id": ["a"], "known": [True]}), folder / KINDS["known"])
    download = folder / KINDS["download"]
    download.parent.mkdir(parents=True)
    download.write_text('["a fact"]')
    write_record(download, {})
    found = verify(folder)
    assert [fault.said for fault in found.faults] == []
    assert found.files >= len(KINDS) + 20
    return folder


def damaged(path: Path, how: str, number: int) -> None:
    raw = path.read_bytes()
    generator = np.random.default_rng(number)
    if how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(raw[: int(generator.integers(1, len(raw)))])
    elif how == "flipped":
        broken = bytearray(raw)
        broken[int(generator.integers(len(raw)))] ^= 1 << int(generator.integers(8))
        path.write_bytes(bytes(broken))
    elif path.suffix == ".parquet":
        write_table(pl.DataFrame({"other": [1]}), path)
    elif path.suffix == ".safetensors":
        write_tensors({"other": torch.zeros(1)}, path, {"format": "other"})
    else:
        path.write_text('{"other": 1}\n')


def faults(study: Path) -> list[str]:
    """What is wrong: one line a fault, each naming its file and the remedy."""
    found = verify(study)
    for fault in found.faults:
        assert "\n" not in fault.said
        assert re.search(r"run (the workflow )?again", fault.said), fault.said
    return [fault.said for fault in found.faults]


@contextmanager
def restored(*paths: Path) -> Iterator[list[bytes]]:
    """Give what some files hold, and put it back at the end."""
    held = [path.read_bytes() for path in paths]
    try:
        yield held
    finally:
        for path, raw in zip(paths, held, strict=True):
            path.write_bytes(raw)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_of_every_kind_of_file_is_found(study, kind, how):
    path = study / KINDS[kind]
    with restored(path):
        damaged(path, how, number=len(kind))
        said = faults(study)
        assert any(f"{path.relative_to(study)}" in one for one in said), said


def test_a_missing_delta_in_the_middle_of_a_chain_is_found(study):
    path = study / KINDS["delta"]
    with restored(path):
        path.unlink()
        (said,) = faults(study)
        assert said.startswith(f"{path}: missing, though edits-0003 builds on it")


@pytest.mark.parametrize("name", ["delta.parquet", "state.safetensors"])
def test_swapped_files_of_a_chain_are_found(study, name):
    one, other = (study / CHAIN / folder / name for folder in ("edits-0001", "edits-0003"))
    with restored(one, other) as raw:
        one.write_bytes(raw[1])
        other.write_bytes(raw[0])
        said = faults(study)
        assert {text.partition(":")[0] for text in said} == {str(one), str(other)}
        assert all("in the place of that" in text for text in said)


def test_a_delta_of_another_editor_s_chain_is_found(study):
    """It is whole, of the same model and number of edits, and continues other weights."""
    path = study / CHAIN / "edits-0003/delta.parquet"
    with restored(path):
        shutil.copy(study / CHAIN.replace("rome", "rome-rect") / "edits-0003/delta.parquet", path)
        (said,) = faults(study)
        assert f"{path}: made on other weights of" in said


def test_a_delta_of_another_base_model_is_found(study):
    path = study / KINDS["delta"]
    with restored(path):
        table = read_arrow(path, "a delta")
        own = {key: value for key, value in table.schema.metadata.items() if key == b"collateral"}
        identity = read_sealed_json(study / KINDS["manifest"])["sha256"].encode()
        own[b"collateral"] = own[b"collateral"].replace(identity, b"f" * 64)
        write_sealed(table.replace_schema_metadata(own), path)
        (said,) = faults(study)
        assert f"{path}: made from another base model (sha256 ffffffffffff" in said


def test_a_sequence_of_other_facts_and_a_report_of_other_tables_are_found(study):
    sequence, table = study / KINDS["sequence"], study / KINDS["table"]
    with restored(sequence, table):
        write_table(pl.DataFrame(read_arrow(sequence, "x")).with_columns(fact_id=pl.lit("strange")), sequence)
        write_table(pl.DataFrame(read_arrow(table, "x")).with_columns(value=pl.lit(0.0)), table)
        said = faults(study)
        assert f"{sequence}: names the fact 'strange', which embedded.parquet lacks" in said[0]
        assert any("the report was drawn from another results/tables/weights.parquet" in one for one in said)


def test_make_verify_names_what_to_delete_and_the_workflow_makes_it_again(copy, finished):
    """Its exit status tells; a run before anything is deleted does not build on a damaged file."""
    verifying = [sys.executable, "-m", "collateral.cli", "verify"]
    good = subprocess.run(verifying, cwd=copy.folder, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.endswith("files, 0 faults\n")
    items, delta = copy.folder / KINDS["items"], copy.folder / CHAIN / "edits-0003/delta.parquet"
    for path in (items, delta):
        damaged(path, "flipped", 1)
    bad = subprocess.run(verifying, cwd=copy.folder, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    command = next(line for line in bad.stdout.splitlines() if "run the workflow after: rm " in line)
    named = command.partition("rm ")[2].split()
    assert sorted(named) == sorted(str(path.relative_to(copy.folder)) for path in (items, delta))
    weights = copy.folder / CHAIN / "edits-0003/weights.parquet"
    weights.unlink()
    refused = copy.snakemake("--", str(weights.relative_to(copy.folder)))
    assert refused.returncode == 1
    assert (
        f"{delta.relative_to(copy.folder)}: not readable as a delta (its bytes were altered" in refused.stderr
    )
    assert not weights.exists()
    for name in named:
        (copy.folder / name).unlink()
    done = copy.snakemake()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert copy.results() == finished.results()
