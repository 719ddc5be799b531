"""Deltas as factors: the bits of the live weights, the smaller file, read without help, refused when damaged."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collateral.deltas import low_rank as factors
from collateral.deltas.file_format import (
    read_chain,
    read_increment,
    read_outline,
    read_parts,
    write_increment,
)
from collateral.deltas.increment import rebuild
from collateral.deltas.limits import MOST_RANKS
from collateral.deltas.low_rank import Factors
from collateral.deltas.operations import OperationLog, apply_operations, make_operation
from collateral.deltas.replay import replay
from collateral.deltas.update import Delta
from collateral.errors import CollateralError
from collateral.io.parquet import write_sealed
from tiny import tiny_model

NAMES = ("model.a.weight", "model.b.weight")
SHAPE = (37, 53)


def about(start, end):
    editor = {"method": "x"}
    return {
        "base_sha256": "abc",
        "mode": "additive",
        "from_edits": start,
        "to_edits": end,
        "editor": editor,
    }


def update(seed, shape=SHAPE, rank=1, keep=None, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, rank, generator=generator, dtype=dtype) * 0.2 for n in shape)
    mask = None if keep is None else torch.rand(shape, generator=generator) < keep
    return Factors(left, right, mask)


def edited(before, updates):
    """What the session's model has after some updates, added as `Delta.apply` adds."""
    live = before.clone()
    for one in updates:
        live = (live.double() + one.dense().double()).to(live.dtype)
    return live


def link(seed, before, count=3, **how):
    """Some operations on each parameter: the weights after them, and what a ledger says of them."""
    after, ledger = {}, OperationLog()
    for place, (name, weight) in enumerate(before.items()):
        own = [update(100 * seed + 10 * place + i, weight.shape, **how) for i in range(count)]
        after[name] = edited(weight, own)
        for one in own:
            ledger.add(name, one, weight, transposed=False)
    return after, ledger.operations


def weights(shape=SHAPE, dtype=torch.float32):
    generator = torch.Generator().manual_seed(9)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name in NAMES}


def encoding(path):
    return read_outline(path).metadata["encoding"]


# the product ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [0, 1, 3, 40])
def test_a_product_is_the_sum_of_rounded_terms_in_order_whatever_the_blocks(monkeypatch, dtype, rank):
    one = update(1, rank=rank, dtype=dtype)
    wanted = np.zeros(SHAPE, dtype=one.left.numpy().dtype)
    for k in range(rank):  # NumPy multiplies, rounds, and then adds
        wanted = wanted + one.left.numpy()[:, k, None] * one.right.numpy()[None, :, k]
    for elements in (1, 60, 10**6):
        monkeypatch.setitem(factors._BLOCK, "cpu", elements)
        assert np.array_equal(one.dense().numpy(), wanted)


def test_a_mask_leaves_zeros_and_the_rest_as_it_was():
    one, mask = update(1, rank=2), update(2, keep=0.4).mask
    thinned = one.masked(mask).dense()
    assert torch.equal(thinned[mask], one.dense()[mask])
    assert not thinned[~mask].any()
    both = one.masked(mask).masked(~mask)
    assert not both.dense().any()


def test_a_rank_that_is_not_summed_in_order_is_not_told():
    wide = update(1, (300, 300), rank=MOST_RANKS + 1)
    assert torch.allclose(wide.dense(), wide.left @ wide.right.T)
    ledger = OperationLog()
    ledger.add(NAMES[0], wide, torch.zeros(300, 300), transposed=False)
    assert ledger.operations is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("keep", [None, 0.3])
def test_operations_are_done_again_on_the_tensor_as_it_is_stored(monkeypatch, dtype, keep):
    """A family may store Wᵀ: the factors change places, and the mask is turned."""
    stored = torch.randn(53, 37, generator=torch.Generator().manual_seed(3)).to(dtype)
    updates = [update(i, SHAPE, rank=2, keep=keep) for i in range(4)]
    wanted = edited(stored.T, updates).T
    told = [make_operation(one, transposed=True) for one in updates]
    for elements in (1, 100, 10**6):
        monkeypatch.setitem(factors._BLOCK, "cpu", elements)
        assert torch.equal(apply_operations(stored, told), wanted)


def test_a_ledger_ends_where_an_update_is_no_product_or_more_than_the_parameter():
    weight = torch.zeros(SHAPE)
    ledger = OperationLog()
    ledger.add(NAMES[0], update(1), weight, transposed=False)
    ledger.add(NAMES[1], torch.ones(SHAPE), weight, transposed=False)
    assert ledger.operations is None
    ledger = OperationLog()
    for number in range(11):  # 11 x 720 bytes of 7,844
        assert ledger.operations is not None
        ledger.add(NAMES[0], update(number), weight, transposed=False)
    assert ledger.operations is None


# files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "how", [{}, {"rank": 3}, {"keep": 0.4}, {"rank": 2, "keep": 0.9}, {"dtype": torch.float32}]
)
def test_a_chain_of_factors_comes_back_bit_for_bit(tmp_path, dtype, how):
    states, paths = [weights((64, 90), dtype)], []
    for number in range(1, 5):
        after, told = link(number, states[-1], 1 if how.get("rank") else 2, **how)
        paths.append(tmp_path / str(number) / "delta.parquet")
        write_increment(paths[-1], states[-1], after, about(number - 1, number), told)
        states.append(after)
    assert [encoding(path) for path in paths] == ["factors"] * 4
    chain = [read_increment(path) for path in paths]
    outlines = read_chain(paths, "abc", outlines=True)
    for live in (
        rebuild(states[0], chain),
        rebuild(states[0], chain[::-1]),
        rebuild(states[0], outlines, parts=read_parts),
    ):
        assert all(torch.equal(live[name], states[-1][name]) for name in NAMES)
    for name in NAMES:
        found = list(replay(states[0][name], name, outlines))
        assert all(torch.equal(one, state[name]) for one, state in zip(found, states[1:], strict=True))


def test_both_encodings_in_one_chain(tmp_path):
    states, paths = [weights()], []
    for number in range(1, 5):
        after, told = link(number, states[-1])
        paths.append(tmp_path / str(number) / "delta.parquet")
        given = told if number % 2 else None
        write_increment(paths[-1], states[-1], after, about(number - 1, number), given)
        states.append(after)
    assert [encoding(path) for path in paths] == ["factors", "elements"] * 2
    outlines = read_chain(paths, "abc", outlines=True)
    for live in (
        rebuild(states[0], [read_increment(one) for one in paths]),
        rebuild(states[0], outlines, parts=read_parts),
    ):
        assert all(torch.equal(live[name], states[-1][name]) for name in NAMES)
    for name in NAMES:
        assert torch.equal(list(replay(states[0][name], name, outlines))[-1], states[-1][name])


@settings(max_examples=40, deadline=None)
@given(
    rank=st.integers(1, 4),
    keep=st.none() | st.floats(0, 1),
    scale=st.floats(1e-30, 1e30),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    count=st.integers(1, 3),
)
def test_any_operations_survive(tmp_path_factory, rank, keep, scale, dtype, count):
    before = {"w": torch.randn(40, 33, generator=torch.Generator().manual_seed(0)).to(dtype)}
    ledger, own = OperationLog(), [update(i, (40, 33), rank, keep) for i in range(count)]
    own = [replace(one, left=one.left * scale) for one in own]
    for one in own:
        ledger.add("w", one, before["w"], transposed=False)
    after = {"w": edited(before["w"], own)}
    if not torch.isfinite(after["w"]).all():
        return
    path = tmp_path_factory.mktemp("delta") / "delta.parquet"
    write_increment(path, before, after, about(0, 1), ledger.operations)
    assert torch.equal(rebuild(before, [read_increment(path)])["w"], after["w"])


def test_factors_that_do_not_give_the_live_weights_are_not_stored(tmp_path):
    before = weights()
    after, told = link(1, before)
    wrong = {name: list(own) for name, own in told.items()}
    wrong[NAMES[1]][2] = replace(wrong[NAMES[1]][2], left=wrong[NAMES[1]][2].left * (1 + 1e-6))
    path = tmp_path / "delta.parquet"
    write_increment(path, before, after, about(0, 1), wrong)
    assert encoding(path) == "elements"
    live = rebuild(before, [read_increment(path)])
    assert all(torch.equal(live[name], after[name]) for name in NAMES)
    write_increment(path, before, after, about(0, 1), {NAMES[0]: told[NAMES[0]]})  # not of all parameters
    assert encoding(path) == "elements"


def test_few_changed_elements_are_stored_as_such_where_factors_take_more(tmp_path):
    """A full mask for three elements that change."""
    before = {"w": torch.zeros(200, 300)}
    one = update(1, (200, 300))
    mask = torch.zeros(200, 300, dtype=torch.bool)
    mask[3, :3] = True
    own = replace(one, mask=mask)
    ledger, path = OperationLog(), tmp_path / "delta.parquet"
    ledger.add("w", own, before["w"], transposed=False)
    write_increment(path, before, {"w": edited(before["w"], [own])}, about(0, 1), ledger.operations)
    assert encoding(path) == "elements"
    assert pl.read_parquet(path).height == 3


@pytest.mark.parametrize("keep", [0.1, 0.4, 0.8])
def test_a_file_is_little_more_than_factors_and_the_entropy_of_masks(tmp_path, keep):
    shape, count = (576, 1536), 4
    before = {"w": torch.randn(shape, generator=torch.Generator().manual_seed(0))}
    after, told = link(1, before, count, keep=keep)
    path = tmp_path / "delta.parquet"
    write_increment(path, before, after, about(0, 1), told)
    entropy = -keep * math.log2(keep) - (1 - keep) * math.log2(1 - keep)
    least = count * (sum(shape) * 8 + entropy * math.prod(shape) / 8)
    assert encoding(path) == "factors"
    assert path.stat().st_size < 1.1 * least


def test_polars_reads_factors_as_they_are_documented(tmp_path):
    before = weights()
    after, told = link(1, before, rank=2, keep=0.5, count=2)
    path = tmp_path / "delta.parquet"
    write_increment(path, before, after, about(0, 1), told)
    table = pl.scan_parquet(path).collect()
    assert table.columns == ["parameter", "operation", "part", "component", "values", "bits"]
    live = before[NAMES[1]].double().numpy()
    for number in (0, 1):
        own = table.filter(parameter=NAMES[1], operation=number)
        left, right = (np.stack(own.filter(part=part)["values"].to_list()) for part in ("left", "right"))
        product = left[0][:, None] * right[0] + left[1][:, None] * right[1]
        (bits,) = own.filter(part="mask")["bits"]
        rows = np.frombuffer(bits, np.uint8).reshape(SHAPE[0], -1)
        mask = np.unpackbits(rows, axis=1)[:, : SHAPE[1]].astype(bool)
        live = (live + np.where(mask, product, 0)).astype(np.float32).astype(np.float64)
    assert np.array_equal(live.astype(np.float32), after[NAMES[1]].numpy())


def test_the_same_operations_make_the_same_bytes(tmp_path):
    before = weights()
    for name in ("a", "b"):
        after, told = link(1, before, keep=0.4)
        write_increment(tmp_path / name, before, after, about(0, 1), told)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# damage ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    before = weights()
    after, told = link(1, before, keep=0.4, rank=2, count=1)
    path = tmp_path / "delta.parquet"
    write_increment(path, before, after, about(0, 1), told)
    assert encoding(path) == "factors"
    return path, before


def refused(path, before):
    """Every way to the weights refuses in one line."""
    for use in (
        lambda: rebuild(before, [read_increment(path)]),
        lambda: rebuild(before, read_chain([path], "abc", outlines=True), parts=read_parts),
        lambda: [list(replay(before[name], name, [read_outline(path)])) for name in NAMES],
    ):
        with pytest.raises(CollateralError) as caught:
            use()
        assert len(str(caught.value).splitlines()) == 1
        assert str(path) in str(caught.value)
        assert "run" in str(caught.value)


def test_every_flipped_byte_is_refused(file):
    path, before = file
    raw = path.read_bytes()
    for position in np.random.default_rng(0).choice(len(raw), size=60, replace=False):
        broken = bytearray(raw)
        broken[position] ^= 0x10
        path.write_bytes(bytes(broken))
        refused(path, before)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda head: head.update(encoding="pictures"), "encoding"),
        (lambda head: head.update(encoding=["factors"]), "encoding"),
        (lambda head: head.update(factors="bfloat16"), "factors"),
        (lambda head: head.pop("factors"), "factors"),
        (lambda head: head.update(mode="replacing"), "mode"),
        (lambda head: head["parameters"][NAMES[0]].pop("operations"), f"parameters.{NAMES[0]}.operations"),
        (
            lambda head: head["parameters"][NAMES[0]].update(operations=[]),
            f"parameters.{NAMES[0]}.operations",
        ),
        (
            lambda head: head["parameters"][NAMES[0]]["operations"][0].update(rank=2**40),
            f"parameters.{NAMES[0]}.operations",
        ),
        (
            lambda head: head["parameters"][NAMES[0]]["operations"][0].update(rank=True),
            f"parameters.{NAMES[0]}.operations",
        ),
        (
            lambda head: head["parameters"][NAMES[0]]["operations"][0].update(mask=1),
            f"parameters.{NAMES[0]}.operations",
        ),
        (lambda head: head["parameters"][NAMES[0]].update(shape=[37]), f"parameters.{NAMES[0]}.shape"),
        (
            lambda head: head["parameters"][NAMES[0]].update(
                exceptions=[{"index": 0, "before": "0x0p+0", "after": "0x0p+0"}]
            ),
            f"parameters.{NAMES[0]}.exceptions",
        ),
    ],
)
def test_a_sealed_file_that_says_something_impossible_of_itself_is_refused(file, change, key):
    path, before = file
    table = pq.read_table(path)
    head = json.loads(table.schema.metadata[b"collateral"])
    change(head)
    write_sealed(table.replace_schema_metadata({"collateral": json.dumps(head)}), path)
    with pytest.raises(CollateralError, match=re.escape(f"its key '{key}' is missing, or is not what")):
        read_outline(path)
    refused(path, before)


def without(table, name, place, value):
    """A table with one cell changed."""
    column = table.column(name).to_pylist()
    column[place] = value
    kind = table.schema.field(name).type
    array = pa.array(column, pa.string() if name in ("parameter", "part") else kind)
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(name), array.cast(kind))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.slice(1),
        lambda table: pa.concat_tables([table, table.slice(3, 1)]),
        lambda table: table.take([1, 0, *range(2, table.num_rows)]),
        lambda table: without(table, "component", 1, 5),
        lambda table: without(table, "component", 1, None),
        lambda table: without(table, "operation", 0, -1),
        lambda table: without(table, "parameter", 0, "other"),
        lambda table: without(table, "part", 0, "right"),
        lambda table: without(table, "values", 0, None),
        lambda table: without(table, "values", 0, [1.0] * 36),
        lambda table: without(table, "values", 0, [None] * 37),
        lambda table: without(table, "values", 0, [math.nan] * 37),
        lambda table: without(table, "values", 4, [1.0]),
        lambda table: without(table, "bits", 4, None),
        lambda table: without(table, "bits", 4, b""),
        lambda table: without(table, "bits", 4, bytes(37 * 7)),
        lambda table: without(table, "bits", 0, b"x"),
        lambda table: table.drop_columns(["bits"]),
        lambda table: pl.DataFrame(table).with_columns(pl.col("component") + 1).to_arrow(),
    ],
)
def test_a_sealed_file_with_other_rows_is_refused(file, change):
    """Whoever seals them anew still has to give the weights of the sha256."""
    path, before = file
    table = pq.read_table(path)
    head = {"collateral": table.schema.metadata[b"collateral"]}
    write_sealed(change(table).replace_schema_metadata(head), path)
    refused(path, before)


@pytest.mark.parametrize("family", ["gpt2", "llama"])  # the first stores Wᵀ
def test_the_live_model_adds_what_a_file_says(family):
    """`Delta.apply` and the replay are one formula."""
    tiny = tiny_model(family)
    name = tiny.down_name(1)
    before = tiny.network.get_parameter(name).data.clone()
    own = update(4, tuple(tiny.matrix(name).shape), rank=3, keep=0.4)
    Delta({name: own}).apply(tiny)
    told = make_operation(own, tiny.architecture.transposed)
    assert torch.equal(apply_operations(before, [told]), tiny.network.get_parameter(name).data)
