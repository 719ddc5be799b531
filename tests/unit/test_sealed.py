"""Whoever reads a file reads what was written, to the last bit."""

import hashlib
import json

import numpy as np
import polars as pl
import pytest

from collateral.errors import CollateralError
from collateral.io.atomic import read_sealed_json, write_json
from collateral.io.parquet import made_with, read_table, write_table
from collateral.io.versions import versions

HOSTILE = 'collateral_seal": "' + "0" * 64  # and the same again as the key of a footer
TABLE = pl.DataFrame({"text": [HOSTILE, "collateral_seal\x18@" + "0" * 64, "é"], "value": [0.1, -0.0, None]})


def write(path):
    if path.suffix == ".json":
        write_json(path, {"zebra": HOSTILE, "acc,none": 0.51, "nested": {"collateral_seal": "0" * 64}})
    else:
        write_table(TABLE, path)


def read(path):
    return (
        read_sealed_json(path, "a record")
        if path.suffix == ".json"
        else read_table(path, "a table", ("text",))
    )


@pytest.mark.parametrize("name", ["x.json", "x.parquet"])
def test_what_is_read_is_what_was_written(tmp_path, name):
    path = tmp_path / name
    write(path)
    found = read(path)
    if name.endswith("json"):
        assert found == {"zebra": HOSTILE, "acc,none": 0.51, "nested": {"collateral_seal": "0" * 64}}
        assert json.loads(path.read_text()).keys() == {*found, "collateral_seal"}
    else:
        assert found.equals(TABLE)
        assert pl.read_parquet(path).equals(TABLE)  # it needs no help from us


def test_the_seal_is_the_sha256_of_the_file_with_zeros_in_its_place(tmp_path):
    write(tmp_path / "x.json")
    text = (tmp_path / "x.json").read_text()
    seal = json.loads(text)["collateral_seal"]
    assert hashlib.sha256(text.replace(seal, "0" * 64).encode()).hexdigest() == seal


@pytest.mark.parametrize("name", ["x.json", "x.parquet"])
def test_every_flipped_bit_is_refused(tmp_path, name):
    path = tmp_path / name
    write(path)
    raw = path.read_bytes()
    for position in range(len(raw)):
        broken = bytearray(raw)
        broken[position] ^= 1 << (position % 8)
        path.write_bytes(bytes(broken))
        with pytest.raises(
            CollateralError, match=rf"{name}: not readable as a .*delete it and run"
        ) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.json", "x.parquet"])
def test_what_was_cut_short_lengthened_or_made_elsewhere_is_refused(tmp_path, name):
    path = tmp_path / name
    write(path)
    raw = path.read_bytes()
    for length in {0, 1, 64, *np.random.default_rng(0).integers(len(raw), size=40).tolist()}:
        path.write_bytes(raw[:length])
        with pytest.raises(CollateralError, match="not readable as a"):
            read(path)
    path.write_bytes(raw + b"\n")
    with pytest.raises(CollateralError, match="its bytes were altered"):
        read(path)
    if name.endswith("json"):
        path.write_text('{"acc,none": 0.9}')
    else:
        TABLE.select("value").write_parquet(path)
    with pytest.raises(CollateralError, match="no sha256 of its own"):
        read(path)
    path.unlink()
    with pytest.raises(CollateralError, match="missing; run the workflow again"):
        read(path)


def test_a_table_of_other_columns_is_refused(tmp_path):
    write(tmp_path / "x.parquet")
    with pytest.raises(CollateralError, match="no column 'fact_id'"):
        read_table(tmp_path / "x.parquet", "an edit sequence", ("fact_id",))
    with pytest.raises(CollateralError, match="column 'value' is Float64, not String"):
        read_table(tmp_path / "x.parquet", "an edit sequence", {"value": pl.String})


def test_a_table_says_which_libraries_made_it(tmp_path):
    write(tmp_path / "x.parquet")
    found = made_with(tmp_path / "x.parquet")
    assert found["torch"] == versions()["torch"]
    assert found["polars"] == pl.__version__
    assert "altair" not in found


def test_the_same_table_has_the_same_bytes(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        write(tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
