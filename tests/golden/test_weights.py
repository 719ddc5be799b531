"""Weight statistics against matrices worked by hand and against closed forms."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from collateral.deltas.update import Factors
from collateral.evaluation.weights.spectra import spectral_norm
from collateral.evaluation.weights.statistics import (
    compute_heatmap,
    compute_statistics,
    compute_successive_cosine,
    compute_update_statistics,
    list_unchanged_rows,
    subtract,
    write_weights,
)

BEFORE = torch.tensor([[1.0, -2.0, 0.0], [4.0, 8.0, -1.0]])
AFTER = torch.tensor([[1.5, -2.0, 0.25], [3.0, 8.0, -2.0]])
# change: 0.5, 0, 0.25 | -1, 0, -1;  delta over the five nonzero weights: 0.5, 0, 0.25, 0, 1


def by_name(rows):
    return {(name, threshold): value for name, threshold, value in rows}


def test_hand_worked_matrix():
    found = by_name(compute_statistics(BEFORE, AFTER, [0.2, 0.5], [0.5, 1.0]))
    assert found["manhattan", None] == 2.75
    assert found["delta_share", 0.2] == pytest.approx(3 / 5)
    assert found["delta_share", 0.5] == pytest.approx(1 / 5)  # strictly above
    assert found["delta_quantile", 0.5] == 0.25
    assert found["delta_quantile", 1.0] == 1.0
    assert found["mean_abs_before", None] == pytest.approx(16 / 6)
    assert found["mean_abs_after", None] == pytest.approx(16.75 / 6)
    assert found["mean_abs_delta", None] == pytest.approx(2.75 / 6)
    assert found["l1_before", None] == 16
    assert found["l1_after", None] == 16.75
    assert found["fro_delta", None] == pytest.approx(math.sqrt(0.25 + 0.0625 + 1 + 1))
    assert found["nonzero_share", None] == pytest.approx(4 / 6)
    assert found["zero_weights", None] == 1


def test_stable_rank_condition_and_relative_change_of_a_hand_worked_matrix():
    """W_0 = diag(3, 1), ΔW = diag(0, 4): W = diag(3, 5)."""
    before = torch.diag(torch.tensor([3.0, 1.0]))
    found = by_name(compute_statistics(before, torch.diag(torch.tensor([3.0, 5.0])), [0.1], [0.5]))
    assert found["condition_before", None] == pytest.approx(3.0)
    assert found["condition_after", None] == pytest.approx(5 / 3)
    assert found["stable_rank_after", None] == pytest.approx(34 / 25)
    assert found["stable_rank_delta", None] == pytest.approx(1.0)
    assert found["spectral_delta", None] == pytest.approx(4.0)
    assert found["relative_fro", None] == pytest.approx(4 / math.sqrt(10))
    assert found["zero_weights", None] == 2


@pytest.mark.parametrize("shape", [(24, 60), (60, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_random_change_agrees_with_a_full_decomposition(shape, dtype):
    generator = torch.Generator().manual_seed(3)
    before = torch.randn(shape, generator=generator).to(dtype)
    after = (before.double() + 0.1 * torch.randn(shape, generator=generator).double()).to(dtype)
    kept = before.clone(), after.clone()
    found = by_name(compute_statistics(before, after, [0.1], [0.5]))
    for name, matrix in (
        ("before", before.double()),
        ("after", after.double()),
        ("delta", after.double() - before.double()),
    ):
        values = torch.linalg.svdvals(matrix)
        assert found[f"spectral_{name}", None] == pytest.approx(float(values[0]), rel=1e-8)
        if name != "delta":
            assert found[f"condition_{name}", None] == pytest.approx(float(values[0] / values[-1]), rel=1e-8)
        if name != "before":
            rank = float((values**2).sum() / values[0] ** 2)
            assert found[f"stable_rank_{name}", None] == pytest.approx(rank, rel=1e-8)
    change = float((after.double() - before.double()).norm() / before.double().norm())
    assert found["relative_fro", None] == pytest.approx(change, rel=1e-12)
    assert torch.equal(before, kept[0])
    assert torch.equal(after, kept[1])


def test_a_matrix_that_did_not_change_has_no_rank_to_speak_of_and_no_direction():
    found = by_name(compute_statistics(BEFORE, BEFORE, [0.2], [0.5]))
    assert found["stable_rank_delta", None] == found["relative_fro", None] == found["manhattan", None] == 0.0
    assert found["condition_before", None] == found["condition_after", None]
    assert compute_successive_cosine([BEFORE, BEFORE, AFTER]) == []


def test_a_matrix_of_zeros_has_no_ratio_but_its_zeros_are_counted():
    found = by_name(compute_statistics(torch.zeros(3, 4), torch.ones(3, 4), [0.2], [0.5]))
    assert ("relative_fro", None) not in found
    assert ("delta_quantile", 0.5) not in found
    assert found["zero_weights", None] == 12
    assert found["condition_before", None] == math.inf


def test_the_cosine_is_between_increments_and_not_between_states():
    """(1, 0) and then (1, 1): 45 degrees; the states themselves stand at other angles."""
    states = [torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0]]), torch.tensor([[4.0, 1.0]])]
    assert compute_successive_cosine(states) == [("cosine_previous", None, pytest.approx(math.sqrt(0.5)))]
    assert compute_successive_cosine(states[1:]) == []


def test_a_factored_update_has_the_rows_of_its_product():
    generator = torch.Generator().manual_seed(4)
    left, right = (torch.randn(n, 3, generator=generator) for n in (20, 33))
    before = torch.randn(20, 33, generator=generator)
    update = Factors(left, right)
    closed = by_name(compute_update_statistics(before, update))
    plain = by_name(
        compute_update_statistics(before, subtract(before, before.double() + update.dense().double()))
    )
    assert closed == pytest.approx(plain, rel=1e-6)
    assert set(closed) == {
        (name, None) for name in ("fro_delta", "spectral_delta", "stable_rank_delta", "relative_fro")
    }


def test_spectral_norm_of_a_known_matrix():
    # diag(3, 4) turned by rotations keeps 4
    turn = torch.linalg.qr(
        torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ).Q
    matrix = (turn * torch.tensor([3.0, 4.0, 1.0, 0.5, 0.1, 0.0])) @ turn.T
    assert spectral_norm(matrix.numpy()) == pytest.approx(4.0, rel=1e-9)
    assert spectral_norm(np.zeros((5, 4))) == 0.0
    assert spectral_norm(np.array([[3.0, 4.0]])) == pytest.approx(5.0)


def test_rank_one_update_has_the_closed_form_norms():
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(40, 1, generator=generator, dtype=torch.float64)
    v = torch.randn(70, 1, generator=generator, dtype=torch.float64)
    found = by_name(compute_statistics(torch.zeros(40, 70), u @ v.T, [0.1], [0.5]))
    assert found["fro_delta", None] == pytest.approx(float(u.norm() * v.norm()))
    assert found["spectral_delta", None] == pytest.approx(float(u.norm() * v.norm()))
    assert found["l1_delta", None] == pytest.approx(float(u.abs().sum() * v.abs().sum()))
    assert found["zero_weights", None] == 2800
    assert found["delta_share", 0.1] == 0.0  # no weight has a delta


def test_delta_of_gaussian_weights_follows_the_cauchy_law():
    """Independent normal W and ΔW: P(|ΔW / W| > t) = 1 - 2/pi atan(t / gamma), gamma the ratio of scales."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(500, 800, generator=generator)
    change = 0.05 * torch.randn(500, 800, generator=generator)
    found = by_name(compute_statistics(weight, weight + change, [0.077, 0.171], [0.8]))
    for t in (0.077, 0.171):
        assert found["delta_share", t] == pytest.approx(1 - 2 / math.pi * math.atan(t / 0.05), abs=0.005)
    assert found["delta_quantile", 0.8] == pytest.approx(0.05 * math.tan(0.8 * math.pi / 2), rel=0.03)


def test_heatmap_blocks_are_means_over_uneven_parts():
    before = torch.zeros(3, 4)
    after = torch.tensor([[1.0, 1, 2, 2], [3.0, 3, 4, 4], [5.0, 5, 6, 6]])
    # rows split 1 + 2, columns 2 + 2
    assert compute_heatmap(before, after, 2) == [(0, 0, 1.0), (0, 1, 2.0), (1, 0, 4.0), (1, 1, 5.0)]


def test_an_editor_without_matrices_weighs_nothing(tmp_path):
    write_weights({"none": list_unchanged_rows([0.077])}, {}, tmp_path / "w.parquet", tmp_path / "h.parquet")
    table = pl.read_parquet(tmp_path / "w.parquet")
    assert table["value"].to_list() == [0.0] * 6
    assert pl.read_parquet(tmp_path / "h.parquet").height == 0
