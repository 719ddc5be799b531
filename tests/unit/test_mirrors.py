"""Files from a folder instead of the network: the right one or one line."""

import hashlib
import logging
import os

import pytest

from collateral.data.download.fetch import fetch
from collateral.data.download.mirror import mirrored
from collateral.errors import CollateralError

BODY = b'[{"subject": "Avalon"}]'
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def mirror(tmp_path):
    return tmp_path / "mirror"


def put(path, body=BODY):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def refused(mirror, match, sha256=SHA):
    with pytest.raises(CollateralError, match=match) as caught:
        mirrored(mirror, "facts.json", sha256)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("below", ["", "a", "a/b", "a/b/c"])
def test_a_file_is_found_down_to_three_folders_below(mirror, below):
    path = put(mirror / below / "facts.json")
    assert mirrored(mirror, "facts.json", SHA) == path


def test_a_file_further_down_is_not_found(mirror):
    put(mirror / "a/b/c/d/facts.json")
    line = refused(
        mirror, rf"no file facts.json \(sha256 {SHA}\) in .* or up to 3 folders below it; put it there"
    )
    assert str(mirror) in line


def test_a_missing_mirror_is_named(mirror):
    assert str(mirror) in refused(mirror, "does not exist")


def test_a_file_instead_of_a_folder_is_no_mirror(mirror):
    refused(put(mirror), "does not exist")


def test_of_two_files_the_one_with_the_checksum_is_taken(mirror):
    put(mirror / "a/facts.json", b"another")
    path = put(mirror / "b/facts.json")
    assert mirrored(mirror, "facts.json", SHA) == path


def test_two_wrong_files_are_both_named_with_what_they_have(mirror):
    paths = [put(mirror / "a/facts.json", b"one"), put(mirror / "b/facts.json", b"two")]
    line = refused(mirror, f"must have the sha256 {SHA}")
    for path in paths:
        assert f"{path} has {hashlib.sha256(path.read_bytes()).hexdigest()}" in line


def test_without_a_checksum_two_different_files_are_refused_and_two_equal_ones_taken(mirror, caplog):
    far, near = put(mirror / "b/c/facts.json"), put(mirror / "z/facts.json")
    with caplog.at_level(logging.WARNING, "collateral"):
        assert mirrored(mirror, "facts.json", None) == near
    assert "cannot be verified" in caplog.text
    far.write_bytes(b"another")
    line = refused(mirror, "several files are called facts.json and differ", None)
    assert str(far) in line
    assert str(near) in line


def test_links_to_files_count_once_and_links_to_folders_not_at_all(mirror, tmp_path):
    outside = put(tmp_path / "outside" / "facts.json")
    refused(put(mirror / "x").parent, "no file")
    (mirror / "loop").symlink_to(mirror)
    (mirror / "folder").symlink_to(outside.parent)
    (mirror / "broken").mkdir()
    (mirror / "broken" / "facts.json").symlink_to(tmp_path / "nowhere")
    refused(mirror, "no file")
    for name in ("b", "a"):
        (mirror / name).mkdir()
        (mirror / name / "facts.json").symlink_to(outside)
    assert mirrored(mirror, "facts.json", None) == mirror / "a" / "facts.json"


def test_the_mirror_itself_may_be_a_link(mirror, tmp_path):
    put(tmp_path / "real" / "facts.json")
    mirror.symlink_to(tmp_path / "real")
    assert mirrored(mirror, "facts.json", SHA) == mirror / "facts.json"


def test_a_folder_or_pipe_of_that_name_is_no_file(mirror):
    (mirror / "facts.json").mkdir(parents=True)
    (mirror / "a").mkdir()
    os.mkfifo(mirror / "a" / "facts.json")
    refused(mirror, "no file")


def test_what_comes_from_a_mirror_is_a_copy_that_outlives_it(mirror, tmp_path):
    path = put(mirror / "facts.json")
    path.chmod(0o400)
    made = fetch({"file": "facts.json", "sha256": SHA}, tmp_path / "facts.json", mirror)
    path.unlink()
    assert made.read_bytes() == BODY
    assert made.stat().st_mode & 0o200


@pytest.mark.parametrize(
    ("body", "max_bytes", "match"),
    [(b"wrong", 1000, "must have the sha256"), (BODY, 3, "over the limit of 3"), (b"", 1000, "empty file")],
)
def test_a_file_of_a_mirror_that_does_not_fit_leaves_nothing(mirror, tmp_path, body, max_bytes, match):
    put(mirror / "facts.json", body)
    source = {"hub": "some/data", "revision": "0" * 40, "file": "facts.json"}
    if match.startswith("must"):
        source["sha256"] = SHA
    with pytest.raises(CollateralError, match=match):
        fetch(source, tmp_path / "data" / "facts.json", mirror, max_bytes=max_bytes)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_mirror_is_never_backed_by_the_network(mirror, tmp_path):
    mirror.mkdir()
    source = {"url": "https://example.org/facts.json", "sha256": SHA}
    with pytest.raises(CollateralError, match="no file facts") as caught:
        fetch(source, tmp_path / "data" / "facts.json", mirror)
    assert str(tmp_path / "data" / "facts.json") in str(caught.value)


def test_a_file_that_only_a_mirror_has_may_lack_a_checksum(mirror, tmp_path, caplog):
    """Some sets may not be passed on: no public checksum is known, and the folder's own file is taken."""
    put(mirror / "facts.json")
    with caplog.at_level(logging.WARNING):
        assert fetch({"file": "facts.json"}, tmp_path / "facts.json", mirror).read_bytes() == BODY
    assert "cannot be verified" in caplog.text
    with pytest.raises(CollateralError, match=r"facts\.json has no public address; .*mirror"):
        fetch({"file": "facts.json"}, tmp_path / "other.json")
