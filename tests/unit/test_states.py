"""An editor's state lies in files: no bit is lost, none stays in memory, and nothing is left beside the results."""

import errno
import gc
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_chain import Project
from test_links import RECIPES

from collateral.editing.algorithms import recursive_least_squares as roots
from collateral.editing.prepare.second_moments import Moment, write_moments
from collateral.editing.state import Carried, open_state, read_state, write_state
from collateral.errors import CollateralError
from collateral.models.spill import Scratch
from collateral.models.tensor_file import read_tensors, stored_tensors, write_tensors
from collateral.pipeline import edit_chain as chain
from plainmass import second_moment

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
    write_tensors(stored_tensors(path, "tensors")[0], again, record)
    assert again.read_bytes() == path.read_bytes()
    for name, one in read_tensors(path, "tensors")[0].items():
        assert one.dtype == given[name].dtype
        assert torch.equal(one, given[name])


@pytest.fixture
def state(tmp_path):
    """A state of three megabytes in its file."""
    torch.manual_seed(1)
    values = {f"root/{layer}": torch.randn(360, 360, dtype=torch.float64) for layer in range(3)}
    write_state(values, tmp_path / "before/state.safetensors", 4, "x")
    return values, tmp_path / "before/state.safetensors"


def test_a_state_in_its_file_is_that_in_memory(state, tmp_path):
    values, path = state
    lying = open_state(path, 4, "x", Scratch(tmp_path / "after/state.safetensors"))
    assert set(lying) == set(values)
    for name, one in values.items():
        assert torch.equal(lying[name], one)
    lying["root/1"] = values["root/1"] + 1
    write_state(lying, tmp_path / "after/state.safetensors", 5, "x")
    write_state(values | {"root/1": values["root/1"] + 1}, tmp_path / "plain", 5, "x")
    assert (tmp_path / "after/state.safetensors").read_bytes() == (tmp_path / "plain").read_bytes()
    assert sorted(path.name for path in (tmp_path / "after").iterdir()) == ["state.safetensors"]


def test_what_is_put_into_a_copy_is_not_in_the_state(state, tmp_path):
    values, path = state
    first = open_state(path, 4, "x", Scratch(tmp_path / "state"))
    second = Carried(first)
    second["root/0"] = values["root/0"] * 2
    second.own("root/1", torch.device("cpu")).zero_()
    third = Carried(second)
    third["root/0"] = values["root/0"] * 3
    for one, factor in ((first, 1), (second, 2), (third, 3)):
        assert torch.equal(one["root/0"], values["root/0"] * factor)
        assert torch.equal(one["root/1"], values["root/1"])


def test_many_operations_take_the_room_of_two_states(state, tmp_path, monkeypatch):
    values, path = state
    ends = []
    write = os.pwrite

    def seen(descriptor, data, offset):
        ends.append(offset + len(data))
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", seen)
    carried = open_state(path, 4, "x", Scratch(tmp_path / "state"))
    for number in range(20):
        following = Carried(carried)
        for name in values:
            following[name] = carried[name] + 1
        carried = following
        assert torch.equal(carried["root/2"], sum([torch.ones(())] * (number + 1), values["root/2"]))
    assert len(ends) == 60
    assert max(ends) == 2 * sum(one.nbytes for one in values.values())


def test_an_altered_or_foreign_state_is_refused(state, tmp_path):
    _, path = state
    scratch = Scratch(tmp_path / "state")
    with pytest.raises(CollateralError, match="the state of another editor or number of edits"):
        open_state(path, 5, "x", scratch)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    for read in (lambda: open_state(path, 4, "x", scratch), lambda: read_state(path, 4, "x")):
        with pytest.raises(CollateralError, match="its bytes were altered"):
            read()


def test_a_state_that_is_cut_off_while_it_is_used_is_an_error_of_one_line(state, tmp_path):
    _, path = state
    carried = open_state(path, 4, "x", Scratch(tmp_path / "state"))
    os.truncate(path, 5000)
    with pytest.raises(CollateralError, match=r"state\.safetensors: was cut off while it was in use"):
        carried["root/2"]


def test_a_full_disk_is_an_error_of_one_line_and_leaves_nothing(state, tmp_path, monkeypatch):
    values, path = state
    carried = open_state(path, 4, "x", Scratch(tmp_path / "after/state.safetensors"))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(CollateralError, match=r"after/state\.safetensors: the disk is full"):
        carried["root/0"] = values["root/0"]
    assert not list((tmp_path / "after").iterdir())


def roots_in_memory(d_in):
    """The number of tensors as large as a layer's root, or some part of it."""
    gc.collect()
    found = [one for one in gc.get_objects() if type(one) is torch.Tensor and one.dtype == torch.float64]
    return sum(one.ndim == 2 and one.shape[0] == d_in and one.shape[1] > 8 for one in found)


@pytest.mark.parametrize("name", ["d4s", "memit-seq", "alphaedit"])
def test_one_layer_of_the_state_is_in_memory_while_it_is_edited_and_none_otherwise(
    tmp_path, facts, monkeypatch, name
):
    """Held in whole, once or twice, the state would be the largest part of a job's memory after the model."""
    project, path = Project(tmp_path, facts), tmp_path / "moments-01-02.safetensors"
    write_moments({layer: Moment(second_moment(layer), 1000) for layer in (1, 2)}, path, "tiny")
    editing, probing = [], []
    grow, measure = roots.grow, chain.measure_facts

    def grown(root, keys):
        editing.append(roots_in_memory(len(root)))
        return grow(root, keys)

    def measured(*given):
        probing.append(roots_in_memory(64))
        return measure(*given)

    monkeypatch.setattr(roots, "grow", grown)
    monkeypatch.setattr(chain, "measure_facts", measured)
    for start, edits in ((0, 2), (2, 4)):
        project.link("chain", start, edits, RECIPES[name], moments=path)
    assert editing == [1] * 8  # two layers, four edits
    assert probing == [0] * 4
