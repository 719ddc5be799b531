"""An editor's state in its file: no bit is lost, and an altered or foreign one is refused."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from collateral.editing.state import copy_tensor, read_state, write_state
from collateral.errors import CollateralError
from collateral.models.tensor_file import read_tensors, write_tensors

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")


def some_tensors():
    """One of each type, with a scalar, an empty one and one that does not lie in order."""
    torch.manual_seed(0)
    made = {name: (9 * torch.randn(3, 5)).to(getattr(torch, name)) for name in DTYPES}
    turned = torch.randn(4, 6, dtype=torch.float64).T
    return made | {
        "root/10": turned,
        "root/2": turned * 2,
        "one": torch.tensor(3.0),
        "none": torch.zeros(0, 7),
    }


def test_a_file_has_the_bytes_that_safetensors_writes(tmp_path):
    given = some_tensors()
    path, theirs, again = (tmp_path / name for name in ("ours", "theirs", "again"))
    write_tensors(given, path, {"format": "x", "is": 'a "quote" and \u00fc'})
    record = read_tensors(path, "tensors")[1]
    with safe_open(path, "pt") as file:
        save_file({n: t.contiguous() for n, t in given.items()}, theirs, metadata=file.metadata())
    assert path.read_bytes() == theirs.read_bytes()
    write_tensors(read_tensors(path, "tensors")[0], again, record)
    assert again.read_bytes() == path.read_bytes()
    for name, one in read_tensors(path, "tensors")[0].items():
        assert one.dtype == given[name].dtype
        assert torch.equal(one, given[name])


@pytest.fixture
def state(tmp_path):
    """A state of three megabytes and its file."""
    torch.manual_seed(1)
    values = {f"root/{layer}": torch.randn(360, 360, dtype=torch.float64) for layer in range(3)}
    write_state(values, tmp_path / "state.safetensors", 4, "x")
    return values, tmp_path / "state.safetensors"


def test_a_state_is_read_into_memory_of_its_own(state):
    """At addresses as those of any tensor, since matrix products round by alignment."""
    values, path = state
    for name, tensor in read_state(path, 4, "x").items():
        assert torch.equal(tensor, values[name])
        assert tensor.data_ptr() % 64 == 0


def test_a_copy_may_be_written_into(state):
    values, path = state
    read = read_state(path, 4, "x")
    copy_tensor(read["root/1"], torch.device("cpu")).zero_()
    turned = copy_tensor(read["root/1"].T, torch.device("cpu"))
    assert torch.equal(read["root/1"], values["root/1"])
    assert turned.is_contiguous()


def test_an_altered_or_foreign_state_is_refused(state):
    _, path = state
    for edits, settings in ((5, "x"), (4, "y")):
        with pytest.raises(CollateralError, match="the state of another editor or number of edits"):
            read_state(path, edits, settings)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CollateralError, match="its bytes were altered"):
        read_state(path, 4, "x")
