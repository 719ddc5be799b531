"""The delta contract: exact in any order, hashed, sparse, refused when damaged."""

import json
import re

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collateral.deltas.file_format import read_increment, read_outline, write_increment
from collateral.deltas.increment import rebuild, tensor_sha256
from collateral.errors import CollateralError
from collateral.io.parquet import write_sealed

NAME = "model.layers.1.mlp.down_proj.weight"


def about(start, end, mode="additive"):
    return {
        "base_sha256": "abc",
        "mode": mode,
        "from_edits": start,
        "to_edits": end,
        "editor": {"method": "x"},
    }


def make_chain(folder, base, states):
    """Write one file per state, each on top of the one before."""
    paths, before = [], base
    for number, after in enumerate(states, start=1):
        path = folder / f"edits-{number:04d}" / "delta.parquet"
        write_increment(path, {NAME: before}, {NAME: after}, about(number - 1, number))
        paths.append(path)
        before = after
    return paths


def steps(base, count, seed=0, density=1.0):
    generator = torch.Generator().manual_seed(seed)
    states, live = [], base
    for _ in range(count):
        update = torch.randn(base.shape, generator=generator, dtype=torch.float64) * 0.03
        update *= torch.rand(base.shape, generator=generator) < density
        live = (live.double() + update).to(base.dtype)
        states.append(live)
    return states


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("density", [1.0, 0.4, 0.0])
def test_twenty_steps_come_back_bit_for_bit_in_any_order(tmp_path, dtype, density):
    base = torch.randn(37, 53, generator=torch.Generator().manual_seed(1)).to(dtype)
    states = steps(base, 20, density=density)
    chain = [read_increment(path) for path in make_chain(tmp_path, base, states)]
    for order in (chain, chain[::-1], chain[10:] + chain[:10]):
        assert torch.equal(rebuild({NAME: base}, order)[NAME], states[-1])
    assert torch.equal(rebuild({NAME: base}, chain[:7])[NAME], states[6])


def test_only_changed_elements_are_stored_sorted_and_readable_by_polars(tmp_path):
    base = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    after = base.clone()
    after[1, 2], after[0, 1] = 7.5, 0.25
    path = tmp_path / "delta.parquet"
    write_increment(path, {NAME: base}, {NAME: after}, about(0, 1))
    table = pl.scan_parquet(path).collect()
    assert table["parameter"].cast(pl.String).to_list() == [NAME, NAME]
    assert table.select("row", "col", "value").rows() == [(0, 1, -0.75), (1, 2, 2.5)]
    assert table.schema["value"] == pl.Float64


def test_encodings_and_metadata_are_the_promised_ones(tmp_path):
    base = torch.randn(64, 80)
    path = tmp_path / "delta.parquet"
    write_increment(path, {NAME: base}, {NAME: base + 1}, about(0, 1))
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert "DELTA_BINARY_PACKED" in columns["col"].encodings
    assert "BYTE_STREAM_SPLIT" in columns["value"].encodings
    assert "RLE_DICTIONARY" in columns["row"].encodings
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    metadata = read_increment(path).metadata
    assert metadata["parameters"][NAME]["before"] == tensor_sha256(base)
    assert metadata["parameters"][NAME]["after"] == tensor_sha256(base + 1)
    assert metadata["parameters"][NAME]["shape"] == [64, 80]
    assert metadata["dtype"] == "float32"


def test_elements_that_no_difference_can_state_are_kept_as_exceptions(tmp_path):
    base = torch.tensor([[1e-30, 1.0, 0.0, 3.0]])
    first = torch.tensor([[1.0, 1e-30, -0.0, 4.0]])  # 60 decades apart, and a negative zero
    second = torch.tensor([[2.0, 1e-30, 5.0, 1e-38]])
    paths = make_chain(tmp_path, base, [first, second])
    chain = [read_increment(path) for path in paths]
    found = chain[0].metadata["parameters"][NAME]["exceptions"]
    assert [entry["index"] for entry in found] == [0, 1, 2]
    for order in (chain, chain[::-1]):
        assert torch.equal(rebuild({NAME: base}, order)[NAME].view(torch.int32), second.view(torch.int32))
    zero = rebuild({NAME: base}, chain[:1])[NAME]
    assert torch.equal(zero.view(torch.int32), first.view(torch.int32))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4),
        min_size=2,
        max_size=5,
    )
)
def test_any_finite_weights_survive(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("chain")
    states = [torch.tensor([value], dtype=torch.float32) for value in values]
    chain = [read_increment(path) for path in make_chain(folder, states[0], states[1:])]
    live = rebuild({NAME: states[0]}, chain)[NAME]
    assert torch.equal(live.view(torch.int32), states[-1].view(torch.int32))


def test_a_replacing_increment_voids_the_earlier_ones(tmp_path):
    base = torch.randn(5, 6)
    first, second = steps(base, 2)
    paths = make_chain(tmp_path, base, [first])
    write_increment(tmp_path / "r" / "d.parquet", {NAME: base}, {NAME: second}, about(0, 2, "replacing"))
    chain = [read_increment(path) for path in [*paths, tmp_path / "r" / "d.parquet"]]
    assert torch.equal(rebuild({NAME: base}, chain)[NAME], second)


def test_no_parameters_is_a_valid_file(tmp_path):
    path = tmp_path / "delta.parquet"
    write_increment(path, {}, {}, about(0, 3))
    assert rebuild({}, [read_increment(path)]) == {}
    assert pl.read_parquet(path).height == 0


def test_same_input_same_bytes(tmp_path):
    base = torch.randn(9, 9)
    for name in ("a", "b"):
        write_increment(tmp_path / name, {NAME: base}, {NAME: base * 1.5}, about(0, 1))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.fixture
def chain_files(tmp_path):
    base = torch.randn(40, 30)
    return base, make_chain(tmp_path, base, steps(base, 3))


@pytest.mark.parametrize("damage", ["empty", "truncated", "header", "foreign", "text"])
def test_a_damaged_file_is_refused_with_its_name_and_the_remedy(chain_files, damage):
    _, paths = chain_files
    path, raw = paths[1], paths[1].read_bytes()
    broken = {
        "empty": b"",
        "truncated": raw[: len(raw) // 2],
        "header": b"PAR2" + raw[4:],
        "text": b"not parquet at all",
    }
    if damage == "foreign":
        pl.DataFrame({"parameter": ["x"], "row": [0], "col": [0], "value": [1.0]}).write_parquet(path)
    else:
        path.write_bytes(broken[damage])
    with pytest.raises(CollateralError) as caught:
        read_increment(path)
    assert str(path) in str(caught.value)
    assert "run the workflow again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_flipped_byte_is_refused(chain_files):
    _, paths = chain_files
    raw = paths[1].read_bytes()
    for position in np.random.default_rng(0).choice(len(raw), size=150, replace=False):
        broken = bytearray(raw)
        broken[position] ^= 0x10
        paths[1].write_bytes(bytes(broken))
        with pytest.raises(CollateralError, match=f"{paths[1].name}: .*run the workflow again"):
            read_increment(paths[1])


def test_gaps_swaps_and_foreign_bases_are_refused(chain_files, tmp_path):
    base, paths = chain_files
    chain = [read_increment(path) for path in paths]
    with pytest.raises(CollateralError, match="a checkpoint is missing"):
        rebuild({NAME: base}, [chain[0], chain[2]])
    with pytest.raises(CollateralError, match="made on other weights"):
        rebuild({NAME: base + 1}, chain)
    with pytest.raises(CollateralError, match="made for another model"):
        rebuild({"other": base}, chain)
    other = make_chain(tmp_path / "other", base, steps(base, 3, seed=9))
    with pytest.raises(CollateralError, match="made on other weights"):
        rebuild({NAME: base}, [chain[0], read_increment(other[1]), chain[2]])
    with pytest.raises(CollateralError, match="is missing"):
        read_increment(tmp_path / "nowhere.parquet")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda head: head.update(dtype="float8"), "dtype"),
        (lambda head: head.pop("dtype"), "dtype"),
        (lambda head: head.update(mode="sideways"), "mode"),
        (lambda head: head.update(to_edits="1"), "to_edits"),
        (lambda head: head.update(from_edits=2), "to_edits"),
        (lambda head: head.update(base_sha256=None), "base_sha256"),
        (lambda head: head.update(parameters=[]), "parameters"),
        (lambda head: head["parameters"].update({NAME: 1}), f"parameters.{NAME}"),
        (lambda head: head["parameters"][NAME].update(shape=[]), f"parameters.{NAME}.shape"),
        (lambda head: head["parameters"][NAME].update(shape=[True, 30]), f"parameters.{NAME}.shape"),
        (lambda head: head["parameters"][NAME].update(after="0"), f"parameters.{NAME}.after"),
        (lambda head: head["parameters"][NAME].update(exceptions=[{}]), f"parameters.{NAME}.exceptions"),
        (
            lambda head: head["parameters"][NAME].update(
                exceptions=[{"index": 1200, "before": "0x0p+0", "after": "0x0p+0"}]
            ),
            f"parameters.{NAME}.exceptions",
        ),
    ],
)
def test_a_sealed_delta_that_says_something_impossible_of_itself_is_refused(chain_files, change, key):
    """What random metadata found: each of these went as a traceback through some reader."""
    _, paths = chain_files
    table = pq.read_table(paths[0])
    head = json.loads(table.schema.metadata[b"collateral"])
    change(head)
    write_sealed(table.replace_schema_metadata({"collateral": json.dumps(head)}), paths[0])
    for read in (read_increment, read_outline):
        with pytest.raises(CollateralError, match=re.escape(f"its key '{key}' is missing, or is not what")):
            read(paths[0])


def test_metadata_is_plain_json(chain_files):
    _, paths = chain_files
    text = pq.ParquetFile(paths[0]).schema_arrow.metadata[b"collateral"]
    assert json.loads(text)["to_edits"] == 1
