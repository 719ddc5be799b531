"""The order of the edits: seeded, stable under growth, without conflicts."""

import polars as pl
import pytest

from collateral.data.edit_order import (
    chosen_facts,
    derive_seed,
    last_facts,
    permutation,
    read_table,
    write_sequence,
)
from collateral.data.facts import Fact
from collateral.errors import CollateralError
from collateral.io.parquet import write_table


def make(count, subject="s{}", relation="r"):
    return [Fact(f"f{i}", subject.format(i), relation, "{} is", "new", "old") for i in range(count)]


def test_same_seed_same_order_other_seed_other_order():
    first = permutation(make(50), 0, "drop")["fact_id"].to_list()
    assert first == permutation(make(50)[::-1], 0, "drop")["fact_id"].to_list()
    assert sorted(first) == sorted(f"f{i}" for i in range(50))
    assert first != permutation(make(50), 1, "drop")["fact_id"].to_list()


def test_a_larger_data_set_does_not_reorder_a_smaller_one():
    small = permutation(make(30), 0, "drop")["fact_id"].to_list()
    large = permutation(make(60), 0, "drop")["fact_id"].to_list()
    assert [name for name in large if name in set(small)] == small


def test_every_position_is_equally_likely():
    """The first place over many seeds is spread over all facts."""
    firsts = [permutation(make(10), seed, "drop")["fact_id"][0] for seed in range(400)]
    counts = [firsts.count(f"f{i}") for i in range(10)]
    assert min(counts) > 20
    assert max(counts) < 65


@pytest.mark.parametrize("mode", ["drop", "keep"])
def test_conflicts_are_dropped_or_marked(mode):
    facts = [*make(4), Fact("twin", "S2", "r", "{} was", "other", "old")]  # letter case does not matter
    order = permutation(facts, 3, mode)
    names = order["fact_id"].to_list()
    if mode == "drop":
        assert len(names) == 4
        assert order["conflicts_with"].null_count() == 4
        assert ("f2" in names) != ("twin" in names)
    else:
        later = max(("f2", "twin"), key=names.index)
        row = order.row(names.index(later), named=True)
        assert row["conflicts_with"] == ({"f2", "twin"} - {later}).pop()
        assert order["conflicts_with"].null_count() == 4
    assert order["position"].to_list() == list(range(1, len(names) + 1))


def test_without_a_relation_the_subject_alone_decides():
    facts = [
        Fact(name, "Ann", "", prompt, "new", "old") for name, prompt in (("a", "{} eats"), ("b", "{} sees"))
    ]
    assert permutation(facts, 0, "drop").height == 1


def test_the_order_of_facts_without_cases_is_what_it_was_before_there_were_cases():
    """Golden: written down with the code that knew no cases."""
    facts = [Fact(f"f{i}", f"s{i % 9}", "r", "{} is", "new", "old") for i in range(12)]
    once = ["f4", "f1", "f11", "f3", "f7", "f6", "f5", "f8", "f9"]
    order = permutation(facts, 7, "drop")
    assert order.columns == ["position", "fact_id", "conflicts_with"]
    assert order.rows() == [(number, name, None) for number, name in enumerate(once, start=1)]
    assert permutation(facts, 7, "keep").rows()[9:] == [
        (10, "f2", "f11"),
        (11, "f0", "f9"),
        (12, "f10", "f1"),
    ]


def case(name, *subjects, target="new"):
    return [
        Fact(f"{name}-{i}", subject, "r", "{} is", target, "old", case_id=name)
        for i, subject in enumerate(subjects)
    ]


def test_a_case_keeps_its_facts_together_and_in_order():
    cases = [case(f"c{i}", f"a{i}", f"b{i}", f"c{i}") for i in range(20)]
    alone = make(10)
    order = permutation([*alone, *(fact for one in cases for fact in one)], 0, "drop")
    names = order["fact_id"].to_list()
    for one in cases:
        start = names.index(one[0].fact_id)
        assert names[start : start + 3] == [fact.fact_id for fact in one]
    assert set(order["case_id"]) == {"", *(one[0].case_id for one in cases)}
    assert [name for name in names if name.startswith("f")] == permutation(alone, 0, "drop")[
        "fact_id"
    ].to_list()
    firsts = [name for name in names if name.endswith("-0")]
    assert firsts != sorted(firsts)
    fewer = permutation([fact for one in cases[:8] for fact in one], 0, "drop")["fact_id"].to_list()
    assert [name for name in names if name in set(fewer)] == fewer


@pytest.mark.parametrize("target", ["new", "another"])  # the same edit again, and one that contradicts
def test_a_case_with_a_conflict_is_left_out_whole(target, caplog):
    facts = [*case("one", "Ann", "Bob"), *case("two", "Cid", "ann", target=target), *case("three", "Eve")]
    order = permutation(facts, 3, "drop")
    names = order["fact_id"].to_list()
    assert ("one-0" in names) != ("two-0" in names)
    assert ("one-0" in names) == ("one-1" in names)
    assert ("two-0" in names) == ("two-1" in names)
    assert "three-0" in names
    assert [record.getMessage() for record in caplog.records] == [
        "1 cases (2 facts) hold a fact that repeats an earlier one's subject and relation: left out of the sequence"
    ]
    kept = permutation(facts, 3, "keep")
    assert kept.height == 5
    pair = {"one-0", "two-1"}
    later = max(pair, key=kept["fact_id"].to_list().index)
    marked = kept.filter(pl.col("conflicts_with").is_not_null())
    assert marked.select("fact_id", "conflicts_with").rows() == [(later, (pair - {later}).pop())]


def test_facts_of_one_case_do_not_conflict_with_each_other(caplog):
    order = permutation(case("one", "Ann", "Ann"), 0, "drop")
    assert order["fact_id"].to_list() == ["one-0", "one-1"]
    assert caplog.records == []


def test_a_case_that_the_model_knows_in_part_is_not_edited(tmp_path):
    path, known = tmp_path / "sequence.parquet", tmp_path / "known.parquet"
    facts = [*case("one", "a", "b"), *case("two", "c", "d"), *make(2)]
    write_sequence(permutation(facts, 0, "drop"), path)
    table = [(fact.fact_id, fact.fact_id not in ("one-1", "f0")) for fact in facts]
    write_table(pl.DataFrame(table, schema=["fact_id", "known"], orient="row"), known)
    chosen = chosen_facts({fact.fact_id: fact for fact in facts}, path, known, 3)
    assert sorted(fact.fact_id for _, fact in chosen) == ["f1", "two-0", "two-1"]
    with pytest.raises(CollateralError, match="only 3 facts are known"):
        chosen_facts({fact.fact_id: fact for fact in facts}, path, known, 4)


def test_chosen_facts_refuses_more_than_there_are(tmp_path):
    path = tmp_path / "sequence.parquet"
    facts = make(3)
    write_sequence(permutation(facts, 0, "drop"), path)
    by_id = {fact.fact_id: fact for fact in facts}
    assert [number for number, _ in chosen_facts(by_id, path, None, 2)] == [1, 2]
    with pytest.raises(CollateralError, match="4 edits are asked for, but only 3 facts are in the sequence"):
        chosen_facts(by_id, path, None, 4)
    with pytest.raises(CollateralError, match="which the data set lacks"):
        chosen_facts({}, path, None, 1)
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(CollateralError, match="not readable as an edit sequence"):
        read_table(path, "an edit sequence", ("fact_id",))


def test_facts_to_train_on_are_the_last_known_ones_and_never_edited(tmp_path):
    path, known = tmp_path / "sequence.parquet", tmp_path / "known.parquet"
    facts = make(9)
    write_sequence(permutation(facts, 0, "drop"), path)
    by_id = {fact.fact_id: fact for fact in facts}
    order = [fact.fact_id for _, fact in chosen_facts(by_id, path, None, 9)]
    assert [fact.fact_id for fact in last_facts(by_id, path, None, 4, 5)] == order[5:]
    table = [(name, name not in order[1::4]) for name in order]  # two are not known
    write_table(pl.DataFrame(table, schema=["fact_id", "known"], orient="row"), known)
    right = [name for name, is_known in table if is_known]
    assert [fact.fact_id for fact in last_facts(by_id, path, known, 3, 4)] == right[4:]
    message = "training_facts is 3 and the last checkpoint 5, but only 7 facts are known .* lower training_facts to 2"
    with pytest.raises(CollateralError, match=message):
        last_facts(by_id, path, known, 3, 5)


def test_derived_seeds_depend_on_every_part():
    assert derive_seed("a", 1, 2) == derive_seed("a", 1, 2)
    assert (
        len({derive_seed("a", 1, 2), derive_seed("a", 12), derive_seed("a", 2, 1), derive_seed("b", 1, 2)})
        == 4
    )
    assert 0 <= derive_seed("x") < 2**63
