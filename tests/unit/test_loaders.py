"""The loaders by name: each is one file, none needs torch, and each states whose data it reads."""

import ast
import re
from pathlib import Path

import pytest

from collateral.data.about import UNCLEAR
from collateral.data.registry import about_table, load_facts, loader_names, read_about
from collateral.errors import CollateralError
from sourcefiles import written

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src/collateral/data/loaders"
SUFFIXES = {".py", ".smk", ".yaml"}


def test_every_file_in_the_folder_is_a_loader() -> None:
    assert len(loader_names()) >= 8
    for name in loader_names():
        tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        assert any(isinstance(part, ast.FunctionDef) and part.name == "load" for part in tree.body), name


def test_no_other_file_lists_the_loaders() -> None:
    """Adding a loader is adding a file: no table, schema or rule names all of them."""
    code = [
        path for top in ("src", "workflow") for path in (ROOT / top).rglob("*") if path.suffix in SUFFIXES
    ]
    assert len(code) > 150
    for path in code:
        text = path.read_text(encoding="utf-8")
        assert not all(re.search(rf"\b{name}\b", text) for name in ("counterfact", "knowedit", "mquake")), (
            path
        )


def test_a_limit_counts_records_and_keeps_a_case_whole(tmp_path: Path) -> None:
    def side(subject: str, new: str) -> dict[str, object]:
        relation = {
            "id": "P1",
            "prompt": "The work of {} is",
            "query": "What is the work of {}?",
            "label": "work",
        }
        names = {"subject": subject, "object": "Light", "new_object": new}
        return {"relation": relation, **{name: {"id": "Q1", "label": text} for name, text in names.items()}}

    pair = {
        "triples": [side("Ada", "Bridge")],
        "prerequisites": [],
        "type": "coverage",
        "edits": [side("Ada", "Bridge"), side("Ada", "Tower")],
    }
    path = written(tmp_path, [pair, pair, pair])
    assert len(load_facts("ckd", path)) == 6
    assert [fact.fact_id for fact in load_facts("ckd", path, 1)] == ["ckd-000000-1", "ckd-000000-2"]


def test_an_unknown_loader_names_the_nearest(tmp_path: Path) -> None:
    for call in (lambda: load_facts("mquacke", tmp_path), lambda: read_about("mquacke")):
        with pytest.raises(CollateralError, match="did you mean 'mquake'"):
            call()


@pytest.mark.parametrize("loader", loader_names())
def test_each_data_set_has_a_licence_a_citation_and_a_home(loader: str) -> None:
    one = read_about(loader)
    for text in (one.title, one.licence, one.citation, one.home):
        assert text == " ".join(text.split())
        assert text
    assert one.licence.split()[0].strip(",") in {"MIT", "Apache-2.0", UNCLEAR.strip()}
    assert one.home.startswith("https://") or (ROOT / one.home).is_dir()
    for work in one.citation.split("; "):
        assert work.count(". ") >= 1
    if loader != "embedded":
        assert all(work[-4:-2] == "20" and work[-4:].isdigit() for work in one.citation.split("; "))


def test_the_table_has_a_row_of_five_cells_for_each_loader() -> None:
    head, rule, *rows = about_table().splitlines()
    assert head.count("|") == rule.count("|") == 6
    assert [row.split("`")[1] for row in rows] == loader_names()
    for row, loader in zip(rows, loader_names(), strict=True):
        assert row.count("|") == 6
        assert f"| {read_about(loader).licence} |" in row
        assert read_about(loader).citation in row
