"""Every editor on a CUDA device gives the CPU's update; skipped, with its reason, where there is none."""

import pytest
import torch

from collateral.editing.registry import method_names
from golden.test_contract import edit_once, moments  # noqa: F401 (a fixture)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", method_names())
def test_the_device_does_not_change_the_update(method, family, facts, moments, tmp_path):  # noqa: F811
    """float32 on both: equal to the precision that different kernels allow."""
    _, _, _, cpu = edit_once(method, family, facts, moments, tmp_path)
    model, before, _, cuda = edit_once(method, family, facts, moments, tmp_path, device="cuda")
    assert set(cpu.delta.updates) == set(cuda.delta.updates)
    for name in cpu.delta.updates:
        left, right = cpu.delta.dense(name), cuda.delta.dense(name)
        assert right.device.type == "cuda"
        assert float((left - right.cpu()).norm()) <= 2e-2 * float(left.norm())
    cuda.delta.apply(model)
    for name, weight in model.network.named_parameters():
        changed = not torch.equal(weight, before[name])
        assert changed == (name in cuda.delta.updates)
