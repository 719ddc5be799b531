"""Second moments against explicit sums over plain full forward passes."""

import pytest
import torch

from collateral.data.corpus import documents
from collateral.editing.prepare.cholesky import Triangle
from collateral.editing.prepare.second_moments import (
    Moment,
    check_moments,
    measure_moments,
    read_layers,
    read_moment,
    write_moments,
)
from collateral.errors import CollateralError
from collateral.models.hooks import capture

TEXTS = ["The capital of Avalon is Camelot, and Merlin lives near the river. " * 4, "The sea is blue. " * 30]


def test_moment_is_the_mean_outer_product_of_all_keys(model):
    tokens = [t for text in TEXTS for t in model.tokenizer(text)["input_ids"]]
    window, budget = 16, 96
    assert len(tokens) > budget
    keys = []
    for start in range(0, budget, window):
        with torch.no_grad(), capture(model.down(2)) as seen:
            model.network(torch.tensor([tokens[start : start + window]]))
        keys.append(seen["input"][0])
    keys = torch.cat(keys).double()
    expected = sum(torch.outer(key, key) for key in keys) / len(keys)
    moment = measure_moments(model, [2], TEXTS, tokens=90, window=window, batch=4)[2]
    assert moment.tokens == 96  # rounded up to whole windows
    assert torch.allclose(moment.matrix, expected, atol=1e-6 * float(expected.abs().max()))


def test_layers_above_are_never_run(llama):
    ran = []
    llama.block(3).register_forward_hook(lambda *_: ran.append(3))
    measure_moments(llama, [1, 0], TEXTS, tokens=64, window=16)
    assert ran == []


def test_one_pass_gives_each_layer_the_bits_of_a_pass_of_its_own(model):
    together = measure_moments(model, [3, 0, 2], TEXTS, tokens=96, window=16)
    assert list(together) == [0, 2, 3]
    for layer, moment in together.items():
        alone = measure_moments(model, [layer], TEXTS, tokens=96, window=16)[layer]
        assert moment.tokens == alone.tokens == 96
        assert torch.equal(moment.matrix, alone.matrix)


def test_all_layers_take_one_pass_over_the_text(llama):
    passes = []
    llama.block(0).register_forward_hook(lambda *_: passes.append(1))
    measure_moments(llama, [0, 1, 2], TEXTS, tokens=96, window=16, batch=2)
    assert len(passes) == 3


def test_a_moment_is_symmetric_to_the_last_bit(llama):
    matrix = measure_moments(llama, [1], TEXTS, tokens=96, window=16)[1].matrix
    assert torch.equal(matrix, matrix.T)


def test_default_budget_is_ten_per_dimension(llama):
    assert measure_moments(llama, [1], TEXTS * 20, window=16)[1].tokens == 640


def test_too_little_text_is_refused(llama):
    with pytest.raises(
        CollateralError, match=r"has \d+ tokens in whole windows of 16; keys of 64 dimensions need more"
    ):
        measure_moments(llama, [1], ["The sea is blue. " * 6], window=16)


def test_solve_is_the_inverse_with_ridge():
    torch.manual_seed(0)
    root = torch.randn(8, 8, dtype=torch.float64)
    matrix, key = root @ root.T + torch.eye(8), torch.randn(8)
    for ridge in (0.0, 0.3):
        full = matrix + ridge * matrix.diagonal().mean() * torch.eye(8)
        got = Moment(matrix, 10).solve(key, ridge)
        assert torch.allclose(got, (torch.linalg.inv(full) @ key.double()).float(), atol=1e-6)
    with pytest.raises(CollateralError, match="not positive definite"):
        Moment(-matrix, 10).solve(key)


def test_file_round_trip_and_damage(tmp_path):
    path = tmp_path / "moments-02-05.safetensors"
    half = torch.eye(4, dtype=torch.float64) * 0.5
    write_moments({2: Moment(half, 77), 5: Moment(2 * half, 78)}, path, "abc")
    assert read_layers(path) == [2, 5]
    assert read_moment(path, 5).tokens == 78
    back = read_moment(path, 2)
    assert torch.equal(back.matrix, torch.eye(4, dtype=torch.float64) * 0.5)
    assert back.tokens == 77
    raw = bytearray(path.read_bytes())
    with pytest.raises(CollateralError, match="has no layer 3"):
        read_moment(path, 3)
    whole = bytes(raw)
    raw[-3] ^= 1  # in the last tensor
    path.write_bytes(bytes(raw))
    assert torch.equal(read_moment(path, 2).matrix, back.matrix)  # the others are not even read
    for reading in (lambda: read_moment(path, 5), lambda: check_moments(path)):
        with pytest.raises(CollateralError, match="altered"):
            reading()
    path.write_bytes(whole.replace(b"77", b"76"))
    with pytest.raises(CollateralError, match="altered"):
        read_moment(path, 2)
    for broken in (b"", bytes(raw[:40]), b"nonsense that is long enough to be a header"):
        path.write_bytes(broken)
        with pytest.raises(CollateralError, match="run the workflow again"):
            read_moment(path, 2)


def test_text_sources(tmp_path):
    docs = list(documents({"python_docs": True}))
    assert sum(map(len, docs)) > 400_000
    (tmp_path / "t.txt").write_text("one\n\ntwo\n\n\n\nthree")
    assert [d.strip() for d in documents({"file": tmp_path / "t.txt"})] == ["one", "two", "three"]
    with pytest.raises(CollateralError, match="not readable as UTF-8"):
        list(documents({"file": tmp_path / "absent.txt"}))
    with pytest.raises(CollateralError, match="unknown text source 'url'"):
        list(documents({"url": "x"}))


@pytest.mark.parametrize("size", [1, 5, 40])
def test_a_triangle_kept_by_panels_solves_as_the_whole_factor_does(size):
    half = torch.randn(size, 3 * size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    system, columns = half @ half.T / size, half[:, :2]
    kept = Triangle.of(torch.linalg.cholesky(system))
    expected = torch.linalg.solve(system, columns)
    assert torch.allclose(kept.solve(columns), expected, rtol=1e-9, atol=1e-12)
    whole = size * size
    assert sum(panel.numel() for panel in kept.panels) <= max(whole, 0.6 * whole + 16)


def test_a_moment_of_a_file_is_in_memory_only_while_it_is_used(tmp_path):
    path = tmp_path / "moments.safetensors"
    write_moments({2: Moment(4 * torch.eye(3, dtype=torch.float64), 30)}, path, "abc")
    moment = read_moment(path, 2)
    assert not isinstance(moment.given, torch.Tensor)
    assert torch.equal(moment.solve(torch.ones(3)), torch.full((3,), 0.25))
    path.unlink()  # the factor is all that another solve needs
    assert torch.equal(moment.solve(2 * torch.ones(3)), torch.full((3,), 0.5))
