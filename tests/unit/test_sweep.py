"""One pass over W_0 and W: its numbers are those of whole matrices in float64."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from collateral.evaluation.weights import kernels as sweeploop
from collateral.evaluation.weights import one_pass as sweeping
from collateral.evaluation.weights.one_pass import sweep

QUANTILES = [0.0, 0.01, 0.5, 0.8, 0.9, 0.99, 1.0]
THRESHOLDS = [0.077, 0.171]
SOURCES = str(Path(sweeploop.__file__).parents[3])


def normal(shape, seed, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain(before, after):
    """W_0, W, ΔW and δ as whole arrays."""
    old, new = before.double().numpy(), after.double().numpy()
    change = new - old
    return old, new, change, np.abs(change)[old != 0] / np.abs(old)[old != 0]


def rank_one(shape):
    before = normal(shape, 0, 0.02)
    return before, before + torch.outer(normal(shape[0], 1), normal(shape[1], 2)) * 1e-3


def masked(shape):
    """Three quarters of the elements did not move, and some have W_0 = 0."""
    before, after = rank_one(shape)
    before = before * (normal(shape, 4) > -1.5)
    return before, torch.where(normal(shape, 3) > 0.67, after, before)


def doubled(shape):
    """Every δ is one of two numbers."""
    before = normal(shape, 0)
    return before, before * torch.where(normal(shape, 5) > 0.3, 1.5, 1.25)


def halves(shape):
    return tuple(one.bfloat16() for one in rank_one(shape))


MATRICES = {"rank one": rank_one, "masked": masked, "doubled": doubled, "bfloat16": halves}


@pytest.mark.parametrize("shape", [(300, 500), (7, 40_000), (2000, 3), (1, 1)])
@pytest.mark.parametrize("kind", MATRICES)
def test_every_number_is_that_of_the_whole_matrix(kind, shape):
    before, after = MATRICES[kind](shape)
    found = sweep(before, after, THRESHOLDS, QUANTILES, 4)
    old, new, change, delta = plain(before, after)
    for matrix, absolute, square in zip((old, new, change), found.absolute, found.squares, strict=True):
        assert absolute == pytest.approx(np.abs(matrix).sum(), rel=1e-12)
        assert square == pytest.approx((matrix**2).sum(), rel=1e-12)
    assert (found.nonzero, found.zeros) == ((change != 0).sum(), (old == 0).sum())
    assert found.above == tuple((delta > t).sum() for t in THRESHOLDS)
    assert found.levels == (tuple(np.quantile(delta, QUANTILES)) if delta.size else ())  # bit for bit
    bands, cuts = (np.linspace(0, n, min(4, n) + 1).astype(int) for n in shape)
    for i, tiles in enumerate(found.tiles):
        for j, tile in enumerate(tiles):
            part = np.abs(change[bands[i] : bands[i + 1], cuts[j] : cuts[j + 1]])
            assert tile == pytest.approx(part.mean(), rel=1e-12)


def test_quantiles_that_the_sample_leads_astray_are_found_all_the_same(monkeypatch):
    """The brackets lie where no element is."""
    before, after = rank_one((300, 500))
    delta = plain(before, after)[3]
    monkeypatch.setattr(sweeping, "_brackets", lambda *_: np.array([(1e6, 1e7), (1e-9, 1e-8)]))
    assert sweep(before, after, [], [0.5, 0.9]).levels == tuple(np.quantile(delta, [0.5, 0.9]))


def test_only_what_lies_in_a_bracket_is_kept(monkeypatch):
    """So that a pass needs no array of the matrix's size."""
    kept = []
    level = sweeping._level
    monkeypatch.setattr(
        sweeping,
        "_level",
        lambda parts, *rest: kept.append(sum(map(len, parts))) or level(parts, *rest),
    )
    before, after = rank_one((1000, 1000))
    found = sweep(before, after, [], [0.5, 0.8, 0.9, 0.99])
    assert found.levels == tuple(np.quantile(plain(before, after)[3], [0.5, 0.8, 0.9, 0.99]))
    assert max(kept) < 0.1 * before.numel()


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    monkeypatch.setattr(sweeping, "_LEAST", 20_000)  # so that there are parts to share
    before, after = masked((300, 500))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(sweep(before, after, THRESHOLDS, QUANTILES, 5))
    finally:
        torch.set_num_threads(threads)
    one, other = (vars(each) | {"tiles": each.tiles.tolist()} for each in found)
    assert one == other


def test_a_weight_that_is_not_finite_is_seen_and_no_crash():
    before, after = rank_one((300, 500))
    after[3, 4] = torch.nan
    found = sweep(before, after, THRESHOLDS, [0.5])
    assert np.isnan(found.absolute[1:]).all()
    assert np.isfinite(found.absolute[0])
    assert np.isnan(found.levels).all()


@pytest.mark.parametrize("weight", [torch.inf, -torch.inf])
def test_an_infinite_weight_is_counted_as_numpy_counts_it(weight):
    before, after = masked((40, 300))
    before[3, 4], after[5, 6] = weight, weight
    with np.errstate(invalid="ignore"):  # ∞ / ∞
        old, _, change, delta = plain(before, after)
    found = sweep(before, after, THRESHOLDS, [0.5])
    assert found.absolute == (np.inf, np.inf, np.inf)
    assert found.squares == (np.inf, np.inf, np.inf)
    assert (found.nonzero, found.zeros) == ((change != 0).sum(), (old == 0).sum())
    assert found.above == tuple((delta > t).sum() for t in THRESHOLDS)


def test_matrices_that_do_not_lie_row_by_row_have_the_same_numbers():
    before, after = masked((60, 300))
    other = [one.T.contiguous().T for one in (before, after)]
    assert not other[0].is_contiguous()
    one, two = (vars(sweep(*each, THRESHOLDS, QUANTILES, 3)) for each in ((before, after), other))
    assert one.pop("tiles").tolist() == two.pop("tiles").tolist()
    assert one == pytest.approx(two, rel=1e-14)


SCRIPT = """
import numpy as np
from collateral.evaluation.weights.kernels import SUMS, compiled
rng = np.random.default_rng(0)
old = rng.standard_normal((20, 700)).astype(np.float32)
new = old + (rng.standard_normal(old.shape) * (rng.random(old.shape) > 0.5)).astype(np.float32)
sums, counts, tiles, kept = np.zeros(SUMS), np.zeros(7, np.int64), np.zeros((2, 3)), np.empty(old.size)
ends = np.array([0.1, 0.5]), np.array([0.2, 0.6])
grid, limits = (np.array([0, 7, 20]), np.array([0, 233, 466, 700])), np.array([0.3])
size = compiled("float32")(old, new, 0, *grid, limits, *ends, sums, counts, tiles, kept)
print(sums.tobytes().hex(), counts.tolist(), tiles.tobytes().hex(), kept[:size].tobytes().hex())
"""


def test_every_machine_finds_the_same_bits(tmp_path):
    """This one's vector instructions, those that every x86-64 or ARM has, and Python's own arithmetic, one by one."""
    own: dict[str, str] = {}
    ways = {
        "generic": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
        "python": {"NUMBA_DISABLE_JIT": "1"},
    }
    for name, settings in {"own": {}, **ways}.items():
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": SOURCES, **settings}
        command = [sys.executable, "-c", SCRIPT]
        own[name] = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout
    assert own["own"]
    assert own["generic"] == own["own"]
    assert own["python"] == own["own"]


def test_a_cache_that_cannot_be_read_fails_no_job(tmp_path, monkeypatch):
    before, after = masked((40, 300))
    expected = sweep(before, after, THRESHOLDS, QUANTILES)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    sweeploop.compiled.cache_clear()
    sweep(before, after)
    (index,) = tmp_path.rglob("*.nbi")
    index.write_bytes(b"damaged")
    sweeploop.compiled.cache_clear()
    assert sweep(before, after, THRESHOLDS, QUANTILES) == expected


def test_the_matrices_stay_as_they_are():
    before, after = masked((30, 50))
    kept = before.clone(), after.clone()
    sweep(before, after, THRESHOLDS, QUANTILES, 4)
    assert torch.equal(before, kept[0])
    assert torch.equal(after, kept[1])
