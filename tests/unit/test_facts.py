"""The record type and its file."""

import pytest

from collateral.data.facts import Fact, first_records, read_facts, template_from_text, write_facts
from collateral.errors import CollateralError


def test_round_trip(tmp_path, facts):
    path = tmp_path / "facts.parquet"
    write_facts(facts, path)
    assert read_facts(path) == facts


def test_a_case_survives_its_file_and_a_limit_keeps_it_whole(tmp_path, facts):
    values = {name: getattr(facts[0], name) for name in facts[0].__dataclass_fields__}
    case = [Fact(**{**values, "fact_id": name, "case_id": "case"}) for name in ("first", "second")]
    path = tmp_path / "facts.parquet"
    write_facts([*case, *facts], path)
    assert read_facts(path) == [*case, *facts]
    assert first_records([*case, *facts], 1) == case
    assert first_records([*case, *facts], 2) == [*case, facts[0]]
    assert first_records([*case, *facts], None) == [*case, *facts]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "The capital of Avalon is"}, r"has no '\{\}' for the subject 'Avalon'"),
        ({"subject": " "}, "field 'subject' is empty"),
        ({"target_new": ""}, "field 'target_new' is empty"),
        ({"target_new": "Camelot"}, "'Camelot' is already true"),
    ],
)
def test_a_malformed_fact_names_itself_and_the_field(fact, change, message):
    values = {name: getattr(fact, name) for name in fact.__dataclass_fields__}
    with pytest.raises(CollateralError, match=message) as caught:
        Fact(**{**values, **change})
    assert "capital-avalon" in str(caught.value)


def test_an_empty_or_ambiguous_data_set_is_refused(tmp_path, fact):
    with pytest.raises(CollateralError, match="the data set is empty"):
        write_facts([], tmp_path / "f.parquet")
    with pytest.raises(CollateralError, match="stands twice"):
        write_facts([fact, fact], tmp_path / "f.parquet")
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused(tmp_path, facts):
    path = tmp_path / "f.parquet"
    write_facts(facts, path)
    raw = path.read_bytes()
    for broken in (b"", raw[:100], b"text"):
        path.write_bytes(broken)
        with pytest.raises(CollateralError, match="not readable as a facts file"):
            read_facts(path)


def test_template_from_text():
    assert template_from_text("Who wrote Emma and Emma?", "Emma", "here") == "Who wrote {} and Emma?"
    with pytest.raises(CollateralError, match="does not stand in the prompt"):
        template_from_text("Who wrote it?", "Emma", "here")
    with pytest.raises(CollateralError, match="literal"):
        template_from_text("Emma {}", "Emma", "here")
