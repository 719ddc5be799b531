"""One parameter along its chain: the states of the whole chain, without the memory of the whole model."""

import functools
import gc
import json
import tracemalloc
import weakref

import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from collateral.deltas.file_format import (
    read_chain,
    read_increment,
    read_outline,
    read_parts,
    write_increment,
)
from collateral.deltas.increment import rebuild
from collateral.deltas.replay import replay
from collateral.errors import CollateralError
from collateral.evaluation.weights import statistics as weights
from collateral.models.manifest import write_manifest

SETTINGS = {"thresholds": [0.077], "quantiles": [0.5], "heatmap_blocks": 4}
EDITOR = {"method": "x"}


def about(start, end, mode="additive", identity="abc"):
    return {"base_sha256": identity, "mode": mode, "from_edits": start, "to_edits": end, "editor": EDITOR}


def moved(state, seed, scale=0.03):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (one.double() + scale * torch.randn(one.shape, generator=generator).double()).to(one.dtype)
        for name, one in state.items()
    }


def write_chain(folder, base, count, mode="additive", identity="abc"):
    """Write a chain; return its paths and the states after each link."""
    paths, states = [], [base]
    for number in range(1, count + 1):
        states.append(moved(states[-1], number))
        paths.append(folder / f"edits-{number:04d}" / "delta.parquet")
        before, start = (base, 0) if mode == "replacing" else (states[-2], number - 1)
        write_increment(paths[-1], before, states[-1], about(start, number, mode, identity))
    return paths, states


def tensors(dtype=torch.float32, names=("a", "b", "c"), shape=(37, 53)):
    generator = torch.Generator().manual_seed(9)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name in names}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", ["additive", "replacing"])
def test_every_state_comes_back_bit_for_bit(tmp_path, dtype, mode):
    base = tensors(dtype)
    paths, states = write_chain(tmp_path, base, 4, mode)
    outlines = read_chain(paths, "abc", outlines=True)
    assert all(one.elements == {} for one in outlines)
    for name, own in base.items():
        found = list(replay(own, name, outlines))
        assert all(torch.equal(live, state[name]) for live, state in zip(found, states[1:], strict=True))


def test_the_last_state_is_that_of_the_whole_rebuilt_model(tmp_path):
    base = tensors()
    paths, _ = write_chain(tmp_path, base, 3)
    whole = rebuild(base, read_chain(paths, "abc"))
    outlines = read_chain(paths, "abc", outlines=True)
    for name, own in base.items():
        assert torch.equal(list(replay(own, name, outlines))[-1], whole[name])


def test_elements_that_no_difference_can_state_come_back_too(tmp_path):
    base = {"a": torch.tensor([[1e-30, 1.0, 0.0, 3.0]])}
    states = [torch.tensor([[1.0, 1e-30, -0.0, 4.0]]), torch.tensor([[2.0, 1e-30, 5.0, 1e-38]])]
    paths, before = [], base
    for number, after in enumerate(states, start=1):
        paths.append(tmp_path / str(number) / "delta.parquet")
        write_increment(paths[-1], before, {"a": after}, about(number - 1, number))
        before = {"a": after}
    assert read_outline(paths[0]).metadata["parameters"]["a"]["exceptions"]
    for live, state in zip(
        replay(base["a"], "a", read_chain(paths, "abc", outlines=True)), states, strict=True
    ):
        assert torch.equal(live.view(torch.int32), state.view(torch.int32))


def test_a_parameter_that_a_link_leaves_alone_stays(tmp_path):
    base = tensors()
    first, last = moved({"a": base["a"]}, 1), moved({"b": base["b"]}, 2)
    paths = [tmp_path / "1" / "d.parquet", tmp_path / "2" / "d.parquet"]
    write_increment(paths[0], {"a": base["a"]}, first, about(0, 1))
    write_increment(paths[1], {"b": base["b"]}, last, about(1, 2))
    outlines = read_chain(paths, "abc", outlines=True)
    assert [torch.equal(live, first["a"]) for live in replay(base["a"], "a", outlines)] == [True, True]
    assert [torch.equal(live, base["b"]) for live in replay(base["b"], "b", outlines)] == [True, False]


def places(index):
    return torch.arange(index.start, index.stop) if isinstance(index, slice) else index


def test_elements_are_read_by_row_groups_and_only_those_of_the_parameter(tmp_path, monkeypatch):
    base = {name: torch.zeros(900, 800) for name in ("a", "b", "c")}  # 2.2 million elements: three row groups
    after = {name: one + number for number, (name, one) in enumerate(base.items(), start=1)}
    for one in after.values():
        one[0, 7] = 0.0  # left out, so that places are read
    path = tmp_path / "delta.parquet"
    write_increment(path, base, after, about(0, 1))
    whole, outline = read_increment(path), read_outline(path)
    read, read_row_group = [], pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda own, i: (read.append(i), read_row_group(own, i))[1]
    )
    for name, groups in (("a", [0]), ("b", [0, 1]), ("c", [1, 2])):
        read.clear()
        parts = [change for own, change in read_parts(outline, name) if own == name]
        assert read == groups
        index, value = whole.elements[name]
        assert torch.equal(torch.cat([places(one) for one, _ in parts]), places(index))
        assert torch.equal(torch.cat([one for _, one in parts]), value)


def test_a_wrong_base_a_gap_and_a_flipped_element_are_refused(tmp_path):
    base = tensors()
    paths, _ = write_chain(tmp_path, base, 3)
    outlines = read_chain(paths, "abc", outlines=True)
    with pytest.raises(CollateralError, match="made on other weights of a"):
        list(replay(base["b"], "a", outlines))
    with pytest.raises(CollateralError, match="a checkpoint is missing"):
        list(replay(base["a"], "a", outlines[::2]))
    with pytest.raises(CollateralError, match="made from another base model"):
        read_chain(paths, "xyz", outlines=True)
    raw = bytearray(paths[1].read_bytes())
    raw[len(raw) // 2] ^= 0x10
    paths[1].write_bytes(bytes(raw))
    with pytest.raises(CollateralError, match=r"edits-0002.*run the workflow again"):
        [list(replay(own, name, outlines)) for name, own in base.items()]


@pytest.fixture
def weighing(tmp_path):
    """Weigh a chain of two or three links on some matrices; return the table, and what was held."""

    def weigh(names, shape, count=3, mode="additive", keep=slice(None)):
        folder = tmp_path / f"model-{len(names)}-{mode}"
        folder.mkdir()
        base = tensors(names=names, shape=shape)
        save_file(base, folder / "model.safetensors")
        write_manifest(folder, {"folder": "x"})
        identity = json.loads((folder / "manifest.json").read_text())["sha256"]
        paths, states = write_chain(folder / "chain", base, count, mode, identity)
        out = folder / "weights.parquet"
        weights.weigh_checkpoint(folder, paths[keep], SETTINGS, out, folder / "heatmap.parquet")
        return pl.read_parquet(out), states

    return weigh


@pytest.mark.parametrize("mode", ["additive", "replacing"])
def test_the_cosine_is_that_of_the_last_two_links_however_they_are_stored(weighing, mode):
    """Of a replacing chain the last three files suffice, and give what all of them give."""
    table, states = weighing(
        ("a", "b"), (20, 30), count=4, mode=mode, keep=slice(-3, None) if mode != "additive" else slice(None)
    )
    found = dict(table.filter(statistic="cosine_previous").select("parameter", "value").iter_rows())
    for name in ("a", "b"):
        earlier, previous, last = (state[name].double() for state in states[-3:])
        wanted = torch.nn.functional.cosine_similarity(
            (last - previous).flatten(), (previous - earlier).flatten(), dim=0
        )
        assert found[name] == pytest.approx(float(wanted), rel=1e-12)


def test_the_first_checkpoint_has_no_previous_one(weighing):
    table, _ = weighing(("a",), (20, 30), count=1)
    assert table.filter(statistic="cosine_previous").is_empty()
    assert set(table["statistic"]) >= {
        "condition_before",
        "condition_after",
        "stable_rank_after",
        "relative_fro",
    }


def test_memory_is_bounded_by_one_matrix(weighing, monkeypatch):
    """No tensor of a matrix is held while the next is read, and NumPy's peak does not grow with their number."""
    shape, held, alive, peaks = (100, 2000), [], [], []
    read, weigh = weights.stored_tensor, weights.weigh_checkpoint

    def watched(*args):
        gc.collect()
        alive.append(sum(one() is not None for one in held))
        found = read(*args)
        held.append(weakref.ref(found))
        return found

    def measured(*args):
        tracemalloc.start()
        weigh(*args)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    # a row group is small beside a matrix, as with large models
    small = functools.partialmethod(pq.ParquetWriter.write_table, row_group_size=4096)
    monkeypatch.setattr(pq.ParquetWriter, "write_table", small)
    monkeypatch.setattr(weights, "stored_tensor", watched)
    monkeypatch.setattr(weights, "weigh_checkpoint", measured)
    weighing(("a",), shape, count=2)
    weighing(("a", "b", "c"), shape, count=2)
    assert alive == [0] * 4
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[0] < 6 * 8 * shape[0] * shape[1]  # six work arrays in float64, what a plan reckons with
