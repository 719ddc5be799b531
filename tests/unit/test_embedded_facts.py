import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from collateral.data.facts import Fact, read_facts, write_facts
from collateral.data.loaders import embedded
from collateral.errors import CollateralError

FOLDER = Path(__file__).parents[2] / "resources" / "embedded"

METALS = [("iron", "grey"), ("gold", "yellow"), ("copper", "red"), ("silver", "white"), ("tin", "pale")]
METALS += [("lead", "dull"), ("zinc", "blue"), ("nickel", "bright")]
TREES = [("oak", "acorn"), ("pine", "cone"), ("apple", "pome"), ("cherry", "drupe"), ("birch", "catkin")]
TREES += [("beech", "nut"), ("maple", "samara"), ("elm", "disc")]
WORDING = {
    "metal-look": "The look of {} is",
    "tree-fruit": "The fruit of the {} tree is a",
}


def rows(relation: str, pairs: list[tuple[str, str]]) -> list[str]:
    return [f"{relation}\t{subject}\t{answer}" for subject, answer in pairs]


def folder_with(folder: Path, lines: list[str], header: str = "relation\tsubject\tanswer") -> Path:
    (folder / "facts.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    relations = "".join(
        f'{name}:\n  rewrite: "{text}"\n  paraphrases: ["As we know, {text}", "Again, {text}"]\n'
        f'  neighborhood: "{text}"\n'
        for name, text in WORDING.items()
    )
    (folder / "relations.yaml").write_text(relations, encoding="utf-8")
    return folder


def good_lines() -> list[str]:
    return rows("metal-look", METALS) + rows("tree-fruit", TREES)


def refusal(folder: Path) -> str:
    with pytest.raises(CollateralError) as caught:
        embedded.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    return embedded.load(FOLDER)


def test_the_set_is_large_and_varied(facts: list[Fact]) -> None:
    sizes = Counter(fact.relation for fact in facts)
    assert len(facts) >= 320
    assert len(sizes) >= 14
    assert min(sizes.values()) >= 15
    assert len({fact.fact_id for fact in facts}) == len(facts)


def test_ids_and_sources_tell_the_row(facts: list[Fact]) -> None:
    table = (FOLDER / "facts.tsv").read_text(encoding="utf-8").splitlines()
    for line, fact in enumerate(facts, start=2):
        assert table[line - 1] == f"{fact.relation}\t{fact.subject}\t{fact.target_true}"
        assert fact.source == f"embedded, facts.tsv row {line}"
    france = next(fact for fact in facts if fact.fact_id == "capital-france")
    assert (france.subject, france.target_true) == ("France", "Paris")
    assert france.text() == "The capital of France is the city of"


def test_each_fact_has_its_probes_from_its_own_relation(facts: list[Fact]) -> None:
    truth = {(fact.relation, fact.text()): fact.target_true for fact in facts}
    answers: dict[str, set[str]] = {}
    for fact in facts:
        answers.setdefault(fact.relation, set()).add(fact.target_true)
    for fact in facts:
        assert fact.target_new in answers[fact.relation] - {fact.target_true}
        assert len(set(fact.paraphrases) - {fact.text()}) == 2
        assert all(fact.subject in text for text in fact.paraphrases)
        assert len({probe.prompt for probe in fact.neighborhood} - {fact.text()}) == 5
        for probe in fact.neighborhood:
            assert probe.target == truth[fact.relation, probe.prompt]
            assert probe.target != fact.target_new


def test_the_subject_span_is_exact_and_never_at_the_start(facts: list[Fact]) -> None:
    for fact in facts:
        start, end = fact.subject_span()
        assert fact.text()[start:end] == fact.subject
        assert start > 0


def test_texts_join_to_an_answer_with_one_space(facts: list[Fact]) -> None:
    for fact in facts:
        for text in (fact.text(), *fact.paraphrases, *(probe.prompt for probe in fact.neighborhood)):
            assert text == text.strip()
            assert "{}" not in text
            assert "  " not in text


def test_targets_are_spread_over_the_answers(facts: list[Fact]) -> None:
    capitals = Counter(fact.target_new for fact in facts if fact.relation == "capital")
    assert len(capitals) > 10
    assert max(capitals.values()) < 8


def test_two_loads_are_equal_and_survive_parquet(facts: list[Fact], tmp_path: Path) -> None:
    assert embedded.load(FOLDER) == facts
    write_facts(facts, tmp_path / "facts.parquet")
    assert read_facts(tmp_path / "facts.parquet") == facts


def test_loading_needs_no_fixed_hash_seed() -> None:
    code = (
        "from pathlib import Path; from collateral.data.loaders import embedded, zsre, counterfact;"
        f"facts = embedded.load(Path({str(FOLDER)!r}));"
        "print(facts[:40])"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_a_new_row_leaves_other_relations_unchanged(tmp_path: Path, facts: list[Fact]) -> None:
    lines = (FOLDER / "facts.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "facts.tsv").write_text(
        "\n".join([*lines, "capital\tNepal\tKathmandu"]) + "\n", encoding="utf-8"
    )
    (tmp_path / "relations.yaml").write_bytes((FOLDER / "relations.yaml").read_bytes())
    longer = embedded.load(tmp_path)
    assert longer[-1].fact_id == "capital-nepal"
    assert [f for f in longer if f.relation != "capital"] == [f for f in facts if f.relation != "capital"]
    moved = sum(
        new.target_new != old.target_new for new, old in zip(longer[:-1], facts, strict=True)
    )  # rank draws: one candidate more among 30 takes the place of about one target
    assert moved <= 5


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    def draws(lines: list[str]) -> dict[str, tuple[object, ...]]:
        loaded = embedded.load(folder_with(tmp_path, lines))
        return {fact.fact_id: (fact.target_new, fact.neighborhood) for fact in loaded}

    assert draws(good_lines()) == draws(good_lines()[::-1])


def test_the_draw_is_the_smallest_sha256(tmp_path: Path) -> None:
    # By hand with sha256sum. `metal-look|iron|target|X`: pale 1458…, red 1d9b…, dull 229d…, yellow 25da…, …
    # `metal-look|iron|neighbor|X`: zinc 3beb…, nickel 6bb7…, lead b7ab…, copper bb19…, tin d9b4… (its answer is the
    # target, so it is passed over), silver deac…, gold f4b4….
    fact = embedded.load(folder_with(tmp_path, good_lines()))[0]
    assert fact.fact_id == "metal-look-iron"
    assert fact.target_new == "pale"
    assert [(probe.prompt, probe.target) for probe in fact.neighborhood] == [
        ("The look of zinc is", "blue"),
        ("The look of nickel is", "bright"),
        ("The look of lead is", "dull"),
        ("The look of copper is", "red"),
        ("The look of silver is", "white"),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            rows("metal-luck", METALS),
            ["row 2", "field 'relation'", "'metal-luck'", "did you mean 'metal-look'?"],
        ),
        ([*good_lines(), "tree-fruit\toak\tcone"], ["row 18", "field 'subject'", "'oak'", "row 10"]),
        (rows("metal-look", METALS[:6]), ["row 7", "field 'relation'", "6 subjects", "at least 7"]),
        (["metal-look\t\tgrey"], ["row 2", "field 'subject' is empty"]),
        (["metal-look\tiron\t "], ["row 2", "field 'answer' is empty"]),
        (["metal-look\tiron"], ["row 2", "field 'answer' is empty"]),
        (["metal-look\tiron \tgrey"], ["row 2", "field 'subject'", "white space"]),
        (["metal-look\tiron\tgrey\tx"], ["row 2", "4 fields", "3 are allowed"]),
        ([*good_lines(), ""], ["row 18", "field 'relation' is empty"]),
        ([], ["row 2", "the table needs facts"]),
        (
            rows("metal-look", [(subject, "shiny") for subject, _ in METALS]),
            ["row 2", "field 'answer'", "'shiny' is the only answer"],
        ),
        (
            rows(
                "metal-look",
                [(subject, "grey" if place < 4 else "red") for place, (subject, _) in enumerate(METALS)],
            ),
            ["row 2", "field 'relation'", "3 other subjects", "'red'", "5 are needed"],
        ),
        (
            rows("metal-look", [*METALS, ("Iron", "grey")]),
            ["row 10", "field 'subject'", "'metal-look-iron'", "row 2"],
        ),
    ],
)
def test_a_bad_table_names_file_row_and_field(tmp_path: Path, lines: list[str], said: list[str]) -> None:
    message = refusal(folder_with(tmp_path, lines))
    assert message.startswith(str(tmp_path / "facts.tsv"))
    for part in said:
        assert part in message


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    message = refusal(folder_with(tmp_path, ["metal-look\tiron"], header="relation\tsubject"))
    assert "row 1: field 'answer' is missing" in message
    assert "relation, subject, answer" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "relations.yaml: file not found" in refusal(tmp_path)
    folder_with(tmp_path, good_lines())
    (tmp_path / "facts.tsv").unlink()
    assert "facts.tsv: file not found" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metal-look: [", "not readable as the templates of relations"),
        ("[]", "map the name of each relation"),
        ("metal-look: text", "it has no templates"),
        ("metal-look: {rewrite: 'A {}', paraphrase: x}", "did you mean 'paraphrases'?"),
        ("metal-look: {rewrite: 'A {}', neighborhood: 'A {}'}", "field 'paraphrases' is missing"),
        (
            "metal-look: {rewrite: 'A {}', paraphrases: ['B {}'], neighborhood: 'A {}'}",
            "a list of 2 templates",
        ),
        (
            "metal-look: {rewrite: 'A', paraphrases: ['B {}', 'C {}'], neighborhood: 'A {}'}",
            "field 'rewrite' is 'A'",
        ),
        ("metal-look: !!python/object:os.system {}", "not readable as the templates of relations"),
    ],
)
def test_bad_templates_are_refused(tmp_path: Path, text: str, said: str) -> None:
    folder_with(tmp_path, good_lines())
    (tmp_path / "relations.yaml").write_text(text, encoding="utf-8")
    message = refusal(tmp_path)
    assert message.startswith(str(tmp_path / "relations.yaml"))
    assert said in message
