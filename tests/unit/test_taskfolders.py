"""Task folders: names, groups, precedence, what the fingerprint sees, and how broken task files are refused."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from collateral.errors import CollateralError
from collateral.tasks.registry import EMBEDDED, chance_levels, load_tasks, task_fingerprint, task_names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: one task with a fragment, a function file and data, and a group."""
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(EMBEDDED / "nli.jsonl", folder / "deep" / "words.jsonl")
    config = yaml.safe_load((EMBEDDED / "nli.yaml").read_text())
    config |= {"task": "mine", "dataset_kwargs": {"data_files": {"test": "words.jsonl"}}}
    shared = {key: config.pop(key) for key in ("output_type", "doc_to_choice", "metric_list")}
    (folder / "shared.yaml").write_text(yaml.safe_dump(shared))
    text = yaml.safe_dump(config | {"include": "../shared.yaml"})
    (folder / "deep" / "mine.yaml").write_text(text + "process_docs: !function clean.keep\n")
    (folder / "deep" / "clean.py").write_text("def keep(docs):\n    return docs\n")
    (folder / "both.yaml").write_text("group: both\ntask: [mine, embedded-ner]\n")
    return folder


def test_a_user_folder_adds_tasks_and_groups(folder: Path) -> None:
    tasks = load_tasks(["both"], [folder])
    assert list(tasks) == ["mine", "embedded-ner"]
    mine = tasks["mine"]
    texts = [doc["text"] for doc in load_tasks(["embedded-nli"])["embedded-nli"].test_docs()]
    assert [doc["text"] for doc in mine.test_docs()] == texts
    assert mine.OUTPUT_TYPE == "multiple_choice"  # from the included fragment


def test_a_user_task_wins_over_one_of_the_same_name(folder: Path) -> None:
    path = folder / "deep" / "mine.yaml"
    path.write_text(path.read_text().replace("task: mine", "task: embedded-nli").replace("0.5", "0.25"))
    (folder / "both.yaml").unlink()
    assert chance_levels("embedded-nli", [folder]) == 0.25
    source = load_tasks(["embedded-nli"], [folder])["embedded-nli"].config.metadata["config_source"]
    assert Path(source) == path


@pytest.mark.parametrize("name", ["deep/words.jsonl", "deep/clean.py", "deep/mine.yaml", "shared.yaml"])
def test_the_fingerprint_sees_one_byte_of_each_source(folder: Path, name: str) -> None:
    before = task_fingerprint(["mine"], [folder])
    group = task_fingerprint(["both"], [folder])
    with (folder / name).open("a") as handle:
        handle.write("\n")
    assert task_fingerprint(["mine"], [folder]) != before
    assert task_fingerprint(["both"], [folder]) != group


def test_the_fingerprint_ignores_what_does_not_measure(folder: Path, tmp_path: Path) -> None:
    names = ["mine", "embedded-ner"]
    before = task_fingerprint(names, [folder])
    (folder / "README.md").write_text("notes")
    (folder / "other.jsonl").write_text("{}\n")
    (folder / "both.yaml").write_text("group: both\ntask: [mine]\n")
    assert task_fingerprint(names, [folder]) == before
    moved = folder.rename(tmp_path / "elsewhere")
    assert task_fingerprint(names, [moved]) == before
    assert task_fingerprint(["mine"], [moved]) != before
    assert task_fingerprint(["hellaswag"]) != task_fingerprint(["piqa"])


def test_a_changed_data_byte_changes_what_is_loaded(folder: Path) -> None:
    path = folder / "deep" / "words.jsonl"
    first = [doc["text"] for doc in load_tasks(["mine"], [folder])["mine"].test_docs()]
    path.write_text(path.read_text().replace("bakery", "butchery"))
    second = [doc["text"] for doc in load_tasks(["mine"], [folder])["mine"].test_docs()]
    assert second == [text.replace("bakery", "butchery") for text in first] != first


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(
        CollateralError, match=r"unknown task 'embedded-reasonin'; did you mean 'embedded-reasoning'"
    ):
        load_tasks(["embedded-reasonin"])


def test_lm_eval_names_are_known_and_their_misspellings_too() -> None:
    with pytest.raises(CollateralError, match=r"did you mean 'hellaswag'") as caught:
        load_tasks(["helaswag"])
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.yaml", "task: [", "not readable as a task file"),
        ("x.yaml", "- 1\n", "holds list, not the keys"),
        ("x.yaml", "task: 7\n", "task is 7"),
        ("x.yaml", "task: mine\n", r"stands also in .*mine\.yaml"),
        ("x.yaml", "task: x\ninclude: x.yaml\n", "includes itself"),
        ("x.yaml", "task: x\ninclude: gone.yaml\n", r"gone\.yaml: file not found"),
        (
            "x.yaml",
            "task: x\ndataset_path: json\ndataset_kwargs: {data_files: {test: gone.jsonl}}\n",
            r"x\.yaml: data file 'gone\.jsonl' not found",
        ),
        ("both.yaml", "group: both\ntask: [mine, nine]\n", r"both\.yaml: group 'both' lists 'nine'"),
        ("x.yaml", "task: x\nevil: !!python/object/apply:os.getpid []\n", "not readable as a task file"),
    ],
)
def test_broken_task_files_are_refused_with_their_path(
    folder: Path, name: str, text: str, message: str
) -> None:
    (folder / name).write_text(text)
    with pytest.raises(CollateralError, match=message) as caught:
        load_tasks(["both"], [folder])
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CollateralError, match=r"absent: no such task folder"):
        task_names([tmp_path / "absent"])


def test_a_chance_that_is_no_share_is_refused(folder: Path) -> None:
    path = folder / "deep" / "mine.yaml"
    path.write_text(path.read_text().replace("chance: 0.5", "chance: 50"))
    with pytest.raises(CollateralError, match=r"'mine': metadata.chance is 50; give a number from 0 to 1"):
        chance_levels("mine", [folder])


def test_fingerprints_need_neither_lm_eval_nor_torch() -> None:
    code = (
        "import sys; from collateral.tasks.registry import task_fingerprint, task_names;"
        "task_fingerprint(task_names());"
        "sys.exit(sorted({'lm_eval', 'torch', 'datasets', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
