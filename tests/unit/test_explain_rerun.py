"""Why a file would be rebuilt: from planned jobs and the ledger of fingerprints."""

import pytest

from collateral.runtime.explain_rerun import explain_jobs, extend_ledger, read_ledger
from collateral.runtime.planned_jobs import PlannedJob, read_plan, write_plan

OLD, NEW = "0123456789abcdef", "fedcba9876543210"
LEDGER = {OLD: {"edit.py": "a", "rome.solve": "b", "rome.KEY": "c"}, NEW: {"edit.py": "a", "rome.solve": "d"}}
NOTHING = {
    "rule": "edit",
    "message": "Edit tiny",
    "outputs": ["results/delta"],
    "missing": [],
    "incomplete": [],
    "changed": [],
    "rebuilt": [],
    "other_inputs": False,
    "other_environment": False,
    "forced": False,
    "old": [],
    "new": [],
}


def explain(**reasons):
    return explain_jobs([PlannedJob(**{**NOTHING, **reasons})], LEDGER)


def test_no_jobs_are_no_words():
    assert explain_jobs([], {}) == ""


@pytest.mark.parametrize(
    ("reasons", "text"),
    [
        ({"missing": ["results/delta"]}, "missing: results/delta"),
        ({"changed": list("abcde")}, "the content of an input changed: a, b, c and 2 more"),
        ({"other_inputs": True}, "its inputs are other files than before"),
        ({"other_environment": True}, "the definition of its environment changed"),
        ({"forced": True}, "the command line asks for it"),
        ({"old": [repr(OLD)], "new": [repr(NEW)]}, "its code changed: rome.KEY, rome.solve"),
        ({"old": [repr(OLD)], "new": [repr("0" * 16)]}, "its code changed"),
        (
            {"old": [repr(f"{OLD} 1f")], "new": [repr(f"{OLD} 2e")]},
            "the tasks' texts or the libraries changed: 1f → 2e",
        ),
        (
            {"old": ["{'lr': 0.5, 'keep': {'rank': 4}}"], "new": ["{'lr': 0.5, 'keep': {'rank': 8}}"]},
            "settings changed: keep.rank: 4 → 8",
        ),
        ({"old": ["{'lr': 0.5}"], "new": ["{'lr': 0.5, 'seed': 1}"]}, "settings changed: seed: None → 1"),
    ],
)
def test_each_reason_has_its_words(reasons, text):
    assert explain(**reasons) == f"What begins it:\n  Edit tiny\n    {text}"


def test_settings_and_code_that_change_at_once_are_both_named_and_paired_by_their_keys():
    old = [repr({"lr": 1, "steps": 2}), repr({"threads": 1, "device": "cpu"}), repr(OLD)]
    new = [repr(NEW), repr({"threads": 2, "device": "cpu"}), repr({"lr": 1, "steps": 3})]
    assert explain(old=old, new=new).endswith(
        "its code changed: rome.KEY, rome.solve; settings changed: steps: 2 → 3, threads: 1 → 2"
    )


def test_what_another_job_rebuilds_follows():
    first = PlannedJob(**{**NOTHING, "missing": ["a"]})
    second = PlannedJob(**{**NOTHING, "message": "Weigh tiny", "rebuilt": ["a"], "missing": ["b"]})
    assert explain_jobs([second, first], {}).splitlines() == [
        "What begins it:",
        "  Edit tiny",
        "    missing: a",
        "What follows from it:",
        "  Weigh tiny",
        "    missing: b; an input is rebuilt: a",
    ]


def test_a_plan_is_read_as_it_was_written(tmp_path):
    jobs = [PlannedJob(**NOTHING)]
    write_plan(jobs, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == jobs


def test_the_ledger_keeps_what_it_knows_and_survives_damage(tmp_path):
    path = tmp_path / "ledger.json"
    assert read_ledger(path) == {}
    extend_ledger({OLD: {"a": "0" * 64}}, path)
    extend_ledger({NEW: {"b": "1" * 64}}, path)
    assert read_ledger(path) == {OLD: {"a": "0" * 12}, NEW: {"b": "1" * 12}}
    path.write_text("[1]")
    assert read_ledger(path) == {}
