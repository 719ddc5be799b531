"""The line on disk: bytes of deltas from the files, bytes of full checkpoints from the model's own."""

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from collateral.report.pages.disk import count_checkpoint_bytes, describe_disk
from collateral.report.pages.pages import render_pages

COSTS = pl.DataFrame(
    {"model": ["tiny", "tiny", "tiny", "large"], "bytes": [3_000_000, 1_000_000, None, 2_000_000_000]},
)


def test_all_parameters_of_all_files_count_in_the_studys_own_width(tmp_path):
    save_file({"a": np.zeros((3, 5), np.float16), "b": np.zeros(7, np.float32)}, tmp_path / "one.safetensors")
    save_file({"c": np.zeros((2, 2, 2), np.float32)}, tmp_path / "two.safetensors", {"format": "pt"})
    assert count_checkpoint_bytes(tmp_path, "float32") == 4 * (15 + 7 + 8)
    assert count_checkpoint_bytes(tmp_path, "bfloat16") == 2 * (15 + 7 + 8)


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00not json", b"\xff" * 40])
def test_a_model_without_readable_files_has_no_known_size(tmp_path, content):
    assert count_checkpoint_bytes(tmp_path, "float32") is None
    (tmp_path / "one.safetensors").write_bytes(content)
    assert count_checkpoint_bytes(tmp_path, "float32") is None


def test_the_line_has_both_and_their_ratio():
    assert describe_disk(COSTS, {"tiny": 500_000_000}) == [
        "tiny: 2 checkpoints on disk: 4.0 MB as deltas and states; full checkpoints would be 1.0 GB, "
        "250 times as much.",
        "large: 1 checkpoint on disk: 2.0 GB as deltas and states.",
    ]
    assert describe_disk(pl.DataFrame(), {}) == []


def test_the_page_of_costs_has_the_line():
    pages = render_pages({"costs": COSTS}, {"checkpoints": {"tiny": 500_000_000}})
    assert "full checkpoints would be 1.0 GB, 250 times as much" in pages["cost.html"]
    assert "full checkpoints" not in pages["edits.html"]
