"""Benchmarks: raw public files become rows that lm-eval's own tasks read; broken and missing files are refused."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from collateral.errors import CollateralError
from collateral.tasks.benchmarks.about import about_table
from collateral.tasks.benchmarks.catalogue import (
    FOLDER,
    RawFile,
    Source,
    catalogue,
    chosen,
    known_tasks,
    sources_of,
)
from collateral.tasks.benchmarks.converters import FORMS, ROWS, convert

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def prepared(name: str, form: str, folder: Path, **contents: str) -> list[dict]:
    """Return the rows that a form makes of small raw files, read back from the prepared file."""
    (split,) = list(catalogue()[name].splits)[:1]
    paths = []
    for raw, content in contents.items():
        path = folder / raw.replace("_", ".")
        path.write_text(content, encoding="utf-8")
        paths.append(path)
    source = Source(form, tuple(RawFile(path.name) for path in paths))
    target = folder / "prepared.jsonl"
    count = convert(name, split, source, paths, target)
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").split("\n")[:-1]]
    assert len(rows) == count
    return rows


def lines(*records: object) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def test_every_source_can_be_had_and_read() -> None:
    for name, benchmark in catalogue().items():
        assert re.fullmatch("[a-z0-9][a-z0-9.-]*", name)  # it names a folder
        assert benchmark.licence
        assert benchmark.citation
        assert benchmark.home.startswith("https://")
        for split, sources in benchmark.splits.items():
            assert sources, (name, split)
            for source in sources:
                assert source.form in {*FORMS, ROWS}, (name, split)
                for raw in source.files:
                    assert raw.name
                    assert "{" not in raw.file
                    assert bool(raw.hub) == bool(raw.revision)
                    assert raw.sha256 or not raw.url, f"{name}: {raw.name} could not be verified"
                    assert raw.revision is None or re.fullmatch("[0-9a-f]{40}", raw.revision)
                    assert raw.sha256 is None or re.fullmatch("[0-9a-f]{64}", raw.sha256)


def test_every_key_of_the_catalogue_is_one_that_is_read() -> None:
    entries = yaml.safe_load((FOLDER / "catalogue.yaml").read_text())
    file_keys = {"hub", "revision", "file", "url", "sha256"}
    for entry in entries.values():
        assert set(entry) <= {"each", "licence", "citation", "home", "fields", "stands_in_for", "splits"}
        for about in entry["splits"].values():
            assert set(about) == {"sources"}
            for source in about["sources"]:
                assert set(source) <= {"form", "files", *file_keys}
                assert all(set(raw) <= file_keys for raw in source.get("files", []))


def test_piqa_joins_items_and_labels(tmp_path: Path) -> None:
    items = lines(
        {"goal": "Dry a cup.", "sol1": "Use a towel.", "sol2": "Use a stone."},
        {"goal": "Cut paper.", "sol1": "Use soup.", "sol2": "Use scissors.", "id": 4},
    )
    rows = prepared("piqa", "piqa", tmp_path, items_jsonl=items, labels_lst="0\n1\n")
    assert rows[1] == {"goal": "Cut paper.", "sol1": "Use soup.", "sol2": "Use scissors.", "label": 1}


def test_piqa_with_a_label_too_few_is_refused(tmp_path: Path) -> None:
    items = lines({"goal": "a", "sol1": "b", "sol2": "c"}, {"goal": "d", "sol1": "e", "sol2": "f"})
    with pytest.raises(CollateralError, match="1 labels for the 2 items"):
        prepared("piqa", "piqa", tmp_path, items_jsonl=items, labels_lst="0\n")
    assert not (tmp_path / "prepared.jsonl").exists()


@pytest.mark.parametrize(
    ("form", "name", "content", "message"),
    [
        ("lambada", "lambada", lines({"text": "one two"}, {"text": 3}), "record 2, text is 3"),
        ("lambada", "lambada", lines({"text": "one"}), "at least two words"),
        ("lambada", "lambada", '{"text": "cut o', "must be JSON"),
        ("lambada", "lambada", "\n", "no records"),
        ("sst2_table", "sst2", "good\t1\nbad\t2\n", "record 2, the label is '2'"),
        ("sst2_table", "sst2", "good 1\n", "a tab"),
        ("boolq", "boolq", lines({"question": "q", "passage": "p", "answer": 1}), "answer is 1"),
        ("wikitext_pages", "wikitext", " text before a title\n = Title = \n", "does not begin"),
        ("hellaswag_lines", "hellaswag", "Ski: he\n4\na\nb\nc\nd\n", "the second line is '4'"),
        ("hellaswag_lines", "hellaswag", "Ski: he\n3\na\nb\nc\n", "not six an item"),
        (
            "arc_options",
            "arc-easy",
            lines({"id": "x", "question": "q", "options": [{"label": "A", "text": "a"}], "answer": "A"}),
            "options is",
        ),
        ("winogrande_instructions", "winogrande", json.dumps([{"instruction": "Fill _."}]), "one blank"),
        ("mmlu_table", "mmlu-anatomy", "q,a,b,c,d,A\nq,a,b,c,d,E\n", "record 2, the answer is 'E'"),
        ("mmlu_table", "mmlu-anatomy", "q,a,b,c,A\n", "number of cells is 5"),
        ("truthfulqa_table", "truthfulqa", "a,b\n", "number of cells is 2"),
        (
            "mutual",
            "mutual",
            lines({"id": "x", "article": "a", "options": ["a"], "answers": "A"}),
            "at least 4",
        ),
        (
            "samsum_list",
            "samsum",
            json.dumps([{"id": "1", "dialogue": "A: b", "summary": " "}]),
            "summary is ' '",
        ),
        ("samsum_table", "samsum", "id,text,summary\n", "the header"),
        (
            "answered_passages",
            "nq-open-passages",
            lines({"question": "q", "answer": ["a"]}),
            "output is None",
        ),
        ("conll_entities", "conll2003", "Ann NNP I-NP I-PER\nBob NNP I-PER\n", "record 2, the line"),
        ("conll_entities", "conll2003", "Ann NNP I-NP I-DOG\n", "ner is 'I-DOG'"),
        ("arc_instructions", "arc-easy", json.dumps([{"instruction": "What?"}]), "must be a question"),
        ("arc_instructions", "arc-easy", "{}", "not a JSON list"),
    ],
)
def test_a_malformed_record_is_named_and_nothing_is_written(
    tmp_path: Path, form: str, name: str, content: str, message: str
) -> None:
    with pytest.raises(CollateralError, match=message) as caught:
        prepared(name, form, tmp_path, raw_txt=content)
    assert "raw.txt" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "prepared.jsonl").exists()


def test_arc_is_parsed_back_from_an_instruction(tmp_path: Path) -> None:
    text = (
        "Please choose the correct answer to the question: Which is hot?\n\nAnswer1: ice: cold "
        "Answer2: the sun, says Ann Answer3: snow\n\nAnswer format: answer1/answer2/answer3"
    )
    record = {
        "instruction": text,
        "input": "",
        "output": "the correct answer is answer2",
        "answer": "answer2",
    }
    (row,) = prepared("arc-easy", "arc_instructions", tmp_path, raw_json=json.dumps([record]))
    assert row["question"] == "Which is hot?"
    assert row["choices"] == {"text": ["ice: cold", "the sun, says Ann", "snow"], "label": ["A", "B", "C"]}
    assert row["answerKey"] == "B"


def test_an_answer_that_is_no_option_is_refused(tmp_path: Path) -> None:
    text = (
        "Please choose the correct answer to the question: Which?\n\nAnswer1: a Answer2: b\n\n"
        "Answer format: answer1/answer2"
    )
    record = {"instruction": text, "answer": "answer3"}
    with pytest.raises(CollateralError, match="answer is 'answer3'"):
        prepared("arc-easy", "arc_instructions", tmp_path, raw_json=json.dumps([record]))


def test_hellaswag_splits_the_unfinished_sentence_off(tmp_path: Path) -> None:
    text = "Ski: A man waits. He waves! the other\n2\na\nb\nc\nd\nCook: She stirs.\n0\na\nb\nc\nd\n"
    first, second = prepared("hellaswag", "hellaswag_lines", tmp_path, raw_txt=text)
    assert (first["activity_label"], first["ctx_a"], first["ctx_b"]) == (
        "Ski",
        "A man waits. He waves!",
        "the other",
    )
    assert first["endings"] == ["a", "b", "c", "d"]
    assert first["label"] == "2"
    assert (second["ctx_a"], second["ctx_b"]) == ("She stirs.", "")


def test_wikitext_makes_one_page_of_each_article(tmp_path: Path) -> None:
    raw = " \n = One = \n \n First . \n = = Part = = \n a = b \n = Two = \n \n Second\u2028line . \n"
    pages = [row["page"] for row in prepared("wikitext", "wikitext_pages", tmp_path, wiki_raw=raw)]
    assert pages == [
        " = One = \n \n First . \n = = Part = = \n a = b ",
        " = Two = \n \n Second\u2028line . ",
    ]


def test_winogrande_is_parsed_back_from_an_instruction(tmp_path: Path) -> None:
    text = (
        "Please choose the correct answer to fill in the blank to complete the given sentence: Ann met Eve, so _ "
        "smiled.\n\nOption1: Ann B. Option2: Eve Answer format: option1/option2"
    )
    raw = json.dumps([{"instruction": text, "input": "", "output": "", "answer": "option2"}])
    (row,) = prepared("winogrande", "winogrande_instructions", tmp_path, raw_json=raw)
    assert row == {
        "sentence": "Ann met Eve, so _ smiled.",
        "option1": "Ann B.",
        "option2": "Eve",
        "answer": "2",
    }


def test_truthfulqa_targets_are_derived_from_the_reference_answers(tmp_path: Path) -> None:
    raw = (
        "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
        'x,y,"Is it, so?",No,No; Not so;, Yes ; Always,https://example.org\n'
    )
    (row,) = prepared("truthfulqa", "truthfulqa_table", tmp_path, raw_csv=raw)
    assert row["question"] == "Is it, so?"
    assert row["mc1_targets"] == {"choices": ["No", "Yes", "Always"], "labels": [1, 0, 0]}
    assert row["mc2_targets"] == {"choices": ["No", "Not so", "Yes", "Always"], "labels": [1, 1, 0, 0]}


def test_mmlu_letters_become_positions(tmp_path: Path) -> None:
    raw = '"Two\nlines, one cell?",1,2,3,4,C\n'
    (row,) = prepared("mmlu-anatomy", "mmlu_table", tmp_path, raw_csv=raw)
    assert row == {"question": "Two\nlines, one cell?", "choices": ["1", "2", "3", "4"], "answer": 2}


def test_samsum_is_the_same_from_a_list_and_from_a_table(tmp_path: Path) -> None:
    record = {"id": "1", "dialogue": "A: tea?\nB: yes, please", "summary": "B wants tea."}
    listed = prepared("samsum", "samsum_list", tmp_path, raw_json=json.dumps([record]))
    table = 'id,dialogue,summary\n1,"A: tea?\nB: yes, please",B wants tea.\n'
    assert prepared("samsum", "samsum_table", tmp_path, raw_csv=table) == listed == [record]


def test_passages_are_taken_from_the_first_output(tmp_path: Path) -> None:
    raw = lines(
        {"question": "who", "answer": ["Ann"], "output": ["Ann did.", "Bob did."]},
        {"question": "where", "answer": ["Rome"], "output": "In Rome."},
    )
    rows = prepared("nq-open-passages", "answered_passages", tmp_path, raw_jsonl=raw)
    assert [row["passage"] for row in rows] == ["Ann did.", "In Rome."]


def test_conll_gives_a_row_for_each_sentence_and_type(tmp_path: Path) -> None:
    """IOB1: I- begins a span too, unless the same type precedes it; B- always does."""
    columns = """-DOCSTART- -X- O O

Ann NNP I-NP I-PER
Bell NNP I-NP I-PER
met VBD I-VP O
Bob NNP I-NP I-PER
Eve NNP I-NP B-PER
Rome NNP I-NP I-LOC

-DOCSTART- -X- O O

Rain NN I-NP O
"""
    rows = prepared("conll2003", "conll_entities", tmp_path, raw_txt=columns)
    assert len(rows) == 8
    assert rows[0] == {
        "sentence": "Ann Bell met Bob Eve Rome",
        "type": "Person",
        "entities": ["Ann Bell", "Bob", "Eve"],
    }
    assert {row["type"]: row["entities"] for row in rows[1:4]} == {
        "Location": ["Rome"],
        "Organization": [],
        "Miscellaneous": [],
    }
    assert [row["entities"] for row in rows[4:]] == [[], [], [], []]


def test_mmlu_has_every_subject_and_five_in_a_mirror() -> None:
    subjects = [name for name in catalogue() if name.startswith("mmlu-")]
    assert len(subjects) == 57
    tables = [name for name in subjects if len(sources_of(name, "test")) == 2]
    assert len(tables) == 5
    table = sources_of("mmlu-college-physics", "test")[1].files[0]
    assert table.name == "college_physics_test.csv"
    assert table.sha256.startswith("079c3696")


def test_rows_of_the_hub_keep_their_schema(tmp_path: Path) -> None:
    import polars as pl

    table = pl.DataFrame({"extra": [1], "goal": ["g"], "sol1": ["a"], "sol2": ["b"], "label": [1]})
    path, target = tmp_path / "x.parquet", tmp_path / "prepared.jsonl"
    table.write_parquet(path)
    source = Source(ROWS, (RawFile("x.parquet"),))
    assert convert("piqa", "validation", source, [path], target) == 1
    assert json.loads(target.read_text()) == {"goal": "g", "sol1": "a", "sol2": "b", "label": 1}
    table.drop("sol2").write_parquet(path)
    with pytest.raises(CollateralError, match="no column 'sol2'"):
        convert("piqa", "validation", source, [path], target)
    path.write_bytes(b"PAR1")
    with pytest.raises(CollateralError, match="not readable as parquet"):
        convert("piqa", "validation", source, [path], target)


def test_equal_raw_files_give_equal_bytes(tmp_path: Path) -> None:
    source = Source("lambada", (RawFile("raw.jsonl"),))
    raw = tmp_path / "raw.jsonl"
    raw.write_text(lines({"text": "a naïve word"}), encoding="utf-8")
    for name in ("one", "two"):
        convert("lambada", "test", source, [raw], tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "naïve" in (tmp_path / "one").read_text(encoding="utf-8")


def test_a_mirror_whose_file_is_another_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = next(source for source in sources_of("piqa", "validation") if source.form == "piqa")
    monkeypatch.setattr(
        "collateral.tasks.benchmarks.catalogue.sources_of", lambda *_: (replace_address(entry),)
    )
    with pytest.raises(CollateralError, match=r"no address is known.*piqa_valid\.jsonl \(sha256 93503cc9"):
        chosen("piqa", "validation")
    (tmp_path / "deep").mkdir()
    for raw in entry.files:
        (tmp_path / "deep" / raw.name).write_text("another file of this name")
    with pytest.raises(CollateralError, match="does not hold"):
        chosen("piqa", "validation", tmp_path)


def test_a_mirror_that_holds_a_source_whole_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_text("b")
    digest = hashlib.sha256(b"b").hexdigest()
    far = Source(ROWS, (RawFile("a.txt", "0" * 64, url="https://example.org/a.txt"),))
    near = Source("lambada", (RawFile("b.txt", digest),))
    monkeypatch.setattr("collateral.tasks.benchmarks.catalogue.sources_of", lambda *_: (far, near))
    assert chosen("lambada", "test", tmp_path) == near
    assert chosen("lambada", "test") == far


def replace_address(source: Source) -> Source:
    return Source(source.form, tuple(RawFile(raw.name, raw.sha256) for raw in source.files))


def test_a_split_that_is_not_there_is_named() -> None:
    with pytest.raises(
        CollateralError, match=r"split of the benchmark 'piqa' 'dev'.*valid: train, validation"
    ):
        sources_of("piqa", "dev")
    with pytest.raises(CollateralError, match="did you mean 'hellaswag'"):
        sources_of("helaswag", "validation")


def test_the_catalogue_is_read_without_torch_and_lm_eval() -> None:
    code = (
        "import sys; from collateral.tasks.registry import benchmarks_of;"
        "import collateral.tasks.benchmarks.converters;"
        "print(benchmarks_of(['hellaswag', 'embedded-nli'], num_fewshot=0));"
        "assert not {'torch', 'transformers', 'lm_eval'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'hellaswag': ['validation']}"


def test_what_is_known_of_the_tasks_names_benchmarks_and_splits() -> None:
    for name, task in known_tasks().items():
        if task.benchmark:
            assert task.split in catalogue()[task.benchmark].splits, name
        else:
            assert set(task.members) <= set(known_tasks()), name
            assert len(task.members) == 57


def test_the_table_names_licence_source_and_mirror_file_of_each_benchmark() -> None:
    rows = [line.strip("| ").split(" | ") for line in about_table().splitlines()[2:]]
    assert all(len(row) == 5 for row in rows)
    found = {row[0].split(" ")[0].strip("`"): row for row in rows}
    families = {benchmark.family for benchmark in catalogue().values()}
    assert set(found) == families
    assert "baber/piqa" in found["piqa"][3]
    assert (
        "`valid-labels.lst` (b4192dc3a2a0363d9d60ccf79800cbbe2f32ebb17726efdde6970e0b8131bceb)"
        in found["piqa"][4]
    )
    assert found["mutual"][3] == "a mirror only"
    assert found["mmlu-{slug}"][0].endswith("(57)")
    assert "college_physics_test.csv" in found["mmlu-{slug}"][4]
    assert "CC BY-NC-ND" in found["samsum"][1]


COUNTS = {
    ("lambada", "test"): 5153,
    ("piqa", "validation"): 1838,
    ("arc-easy", "test"): 2376,
    ("arc-challenge", "test"): 1172,
    ("hellaswag", "validation"): 2000,
    ("wikitext", "test"): 62,
    ("sst2", "validation"): 872,
    ("boolq", "validation"): 3267,
    ("rte", "validation"): 277,
    ("nq-open", "validation"): 3610,
    ("mutual", "validation"): 886,
    ("winogrande", "validation"): 1267,
    ("gsm8k", "test"): 1319,
    ("truthfulqa", "validation"): 817,
    ("mmlu-college-physics", "test"): 102,
    ("mmlu-moral-scenarios", "test"): 895,
    ("mmlu-high-school-us-history", "test"): 204,
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public files are not beside the project")
@pytest.mark.parametrize(("name", "split"), COUNTS)
def test_the_public_files_give_every_item(name: str, split: str, tmp_path: Path) -> None:
    source = chosen(name, split, SHARED)
    raw = [next(SHARED.rglob(file.name)) for file in source.files]
    assert convert(name, split, source, raw, tmp_path / "rows.jsonl") == COUNTS[name, split]
