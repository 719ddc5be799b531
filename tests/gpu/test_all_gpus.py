"""A model spread over real GPUs gives the update of one GPU; skipped, with its reason, where there are no two."""

import pytest
import torch

from collateral.deltas.update import dense
from collateral.editing.registry import load_method, method_names
from collateral.models.language_model import load_model
from golden.test_contract import moments as moments  # a fixture
from golden.test_contract import prepared_for, settings_of
from unit.test_chain import Project

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices on this machine"),
]


@pytest.mark.parametrize("method", method_names())
def test_the_number_of_gpus_does_not_change_the_update(method, facts, moments, tmp_path):
    """The same kernels on the same numbers, wherever the layers lie."""
    folder = Project(tmp_path, facts).model
    edits = []
    for device in ("cuda:0", "cuda:all"):
        model = load_model(folder, "float32", device)
        given = prepared_for(method, model, facts, moments, tmp_path)
        edits.append(load_method(method, settings_of(method))(model, facts[:1], given, {}))
    assert len(set(model.network.hf_device_map.values())) > 1
    one, many = edits
    assert set(one.delta.updates) == set(many.delta.updates)
    for name, update in many.delta.updates.items():
        assert dense(update).device == model.matrix(name).device
        assert torch.equal(dense(one.delta.updates[name]).cpu(), dense(update).cpu())
