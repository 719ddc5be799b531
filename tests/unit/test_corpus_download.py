"""The text of a hub data set is brought ahead as a file that reads the same; tasks that need the hub are named."""

from pathlib import Path

import polars as pl
import pytest

from collateral.data.corpus import documents
from collateral.data.download.corpus import download_text
from collateral.errors import CollateralError
from collateral.pipeline.check_staged import HubTasksError, check_tasks
from collateral.study import paths as places
from collateral.study.command_line import read_study
from collateral.study.staging import find_hub_text, list_staged_files

ROOT = Path(__file__).parents[2]
ROWS = ["", " = Oaks = \n", "An oak stands here.\n", "", "Two\n\nparagraphs.", "The last of them."]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    pl.DataFrame({"text": ROWS}).write_parquet(folder / "train.parquet")
    return {"hub": str(folder), "revision": "0" * 40, "split": "train", "column": "text"}


def test_a_text_of_the_hub_is_read_from_its_file_in_the_same_order(source, tmp_path):
    path = tmp_path / "texts/x.txt"
    download_text(source, 10_000, path)
    # a source with both is read from the file: this is how jobs without a network are given it
    found = list(documents(source | {"file": str(path)}))
    assert found == [" = Oaks = ", "An oak stands here.", "Two", "paragraphs.", "The last of them."]


def test_enough_characters_end_the_text_with_a_whole_document(source, tmp_path):
    download_text(source, 15, tmp_path / "x.txt")
    assert (tmp_path / "x.txt").read_text() == " = Oaks = \n\nAn oak stands here.\n\n"
    whole = (tmp_path / "x.txt").stat().st_ino
    download_text({**source, "hub": "some/where"}, 15, tmp_path / "x.txt")  # it is there: nothing is asked
    assert (tmp_path / "x.txt").stat().st_ino == whole


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"column": "words"}, "has no column 'words'"),
        ({"hub": "some/data"}, "cannot be read"),
    ],
)
def test_a_text_that_cannot_be_had_is_one_line_and_leaves_nothing(source, tmp_path, change, match):
    with pytest.raises(CollateralError, match=match) as caught:
        download_text(source | change, 100, tmp_path / "texts/x.txt")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "texts").glob("*.txt")) == []


def test_what_a_study_needs_a_network_for_includes_its_text_and_training_facts():
    assert find_hub_text(read_study(ROOT, None, [])) is None
    study = read_study(ROOT, ROOT / "config/studies/rect.yaml", [])
    text = find_hub_text(study)
    assert text["characters"] == 8_000_000  # a million tokens
    found = list_staged_files(study, [("sst2", "validation"), ("sst2", "validation")])
    assert found == {
        "models": [places.manifest(name) for name in ("gpt2-xl", "llama-7b", "llama-2-7b")],
        "facts": ["resources/datasets/zsre.parquet", "resources/datasets/training/zsre.parquet"],
        "benchmarks": ["resources/benchmarks/sst2/validation.jsonl"],
        "texts": [places.text(text)],
    }


def test_a_task_on_data_that_only_the_hub_has_is_named_where_there_is_no_network(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: some/unknown-data\ntest_split: test\noutput_type: multiple_choice\n"
        "doc_to_text: '{{text}}'\ndoc_to_target: label\ndoc_to_choice: ['a', 'b']\n"
    )
    study = read_study(
        ROOT, None, ["study={suites: [mine]}", f"suites={{mine: {{tasks: [own], folders: ['{tmp_path}']}}}}"]
    )
    with pytest.raises(HubTasksError, match=r"suites.mine: its tasks cannot be loaded \(.*HF_HOME") as caught:
        check_tasks(study, {"mine": [tmp_path]})
    assert "\n" not in str(caught.value)
