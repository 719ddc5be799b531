"""A file is whole or absent."""

import os

import pytest

from collateral.errors import CollateralError, unknown_name
from collateral.io.atomic import read_json, read_sealed_json, whole_file, write_json


def test_an_interrupted_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_text(f'{{"a": {1 / 0}')
    assert read_sealed_json(path) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_an_empty_file_is_never_kept(tmp_path):
    with pytest.raises(CollateralError, match="empty file"), whole_file(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_is_removed_once_it_is_old(tmp_path):
    names = (".x.json.abc.partial", ".x.json.young.partial", ".y.json.abc.partial")
    for name in names:
        (tmp_path / name).write_text("half")
    for name in (names[0], names[2]):
        os.utime(tmp_path / name, (1, 1))
    write_json(tmp_path / "x.json", {"a": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], "x.json"])


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_broken_json_names_file_and_remedy(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CollateralError, match=r"x.json: not readable as JSON .*delete the file"):
        read_json(tmp_path / "x.json")
    with pytest.raises(CollateralError, match="file not found"):
        read_json(tmp_path / "y.json")


def test_json_bytes_do_not_depend_on_key_order(tmp_path):
    write_json(tmp_path / "a", {"x": 1, "y": "é"})
    write_json(tmp_path / "b", {"y": "é", "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_unknown_name_lists_the_valid_ones():
    text = str(unknown_name("editor", "rmoe", ["rome", "noop"]))
    assert text == "unknown editor 'rmoe'; did you mean 'rome'? (valid: noop, rome)"
    assert "did you mean" not in str(unknown_name("editor", "zzzz", ["rome"]))
