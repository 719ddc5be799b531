"""The code fingerprint: comments and docstrings do not count, formulas do, and only what is reached."""

import json

import pytest

from collateral.io.versions import versions
from collateral.runtime import fingerprint as provenance
from collateral.runtime import source_trees as codetrees
from collateral.runtime.source_trees import Trees


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of ours."""
    folder = tmp_path / "collateral"
    (folder / "methods").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "methods/__init__.py": "",
        "a.py": '"""Doc."""\nfrom collateral.b import f\n\ndef g(x):\n    """Doc."""\n    return f(x) + 1  # why\n',
        "b.py": "def f(x):\n    return 2 * x\n",
        "c.py": "def h(x):\n    return x\n",
        "methods/rome.py": "from collateral.b import f\nMETHOD = f\n",
        "methods/ft.py": "METHOD = None\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (tmp_path / "script.py").write_text('"""Doc."""\nfrom collateral.a import g\n\nprint(g(1))\n')
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    return folder


def mark(package, *modules):
    return provenance.fingerprint(package.parent / "script.py", *modules)


def edit(package, name, old, new):
    path = package / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_comments_docstrings_and_layout_do_not_count(package):
    before = mark(package)
    edit(package, "a.py", '"""Doc."""', '"""Another text."""')
    edit(package, "a.py", "# why", "# because")
    edit(package, "b.py", "2 * x", "2*x")
    assert mark(package) == before


def test_a_formula_counts_however_deep(package):
    before = mark(package)
    edit(package, "b.py", "2 * x", "3 * x")
    assert mark(package) != before


def test_what_is_not_reached_does_not_count(package):
    before = mark(package)
    edit(package, "c.py", "return x", "return -x")
    edit(package, "methods/ft.py", "None", "1")
    assert mark(package) == before


def test_only_the_named_method_counts(package):
    rome, ft = (
        mark(package, "collateral.editing.methods.rome"),
        mark(package, "collateral.editing.methods.ft"),
    )
    edit(package, "methods/ft.py", "None", "1")
    assert mark(package, "collateral.editing.methods.rome") == rome
    assert mark(package, "collateral.editing.methods.ft") != ft


def test_versions_and_machine_name_no_host():
    assert versions()["torch"].startswith("2.")
    assert set(provenance.machine()) == {"processor", "cores", "system"}


def test_trees_that_are_remembered_say_the_same_and_are_never_out_of_date(package, monkeypatch):
    store = package.parent / "trees.json"
    script = package.parent / "script.py"

    def remembered() -> str:
        trees = Trees(store)
        found = provenance.fingerprint(script, trees=trees)
        trees.save()
        return found

    first = remembered()
    assert first == mark(package)
    monkeypatch.setattr(codetrees, "_parsed", lambda text: pytest.fail("parsed again"))
    assert remembered() == first
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "PACKAGE", package)
    edit(package, "b.py", "2 * x", "3 * x")
    assert remembered() == mark(package) != first


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"python": "2.7", "trees": {}}', '{"python": 3, "trees": 1}']
)
def test_a_damaged_store_of_trees_is_made_anew(package, text):
    store = package.parent / "trees.json"
    store.write_text(text)
    trees = Trees(store)
    assert provenance.fingerprint(package.parent / "script.py", trees=trees) == mark(package)
    trees.save()
    assert len(json.loads(store.read_text())["trees"]) == 3


def test_a_store_that_cannot_be_written_costs_nothing_but_time(package):
    (package.parent / "file").write_text("")
    trees = Trees(package.parent / "file/trees.json")
    assert provenance.fingerprint(package.parent / "script.py", trees=trees) == mark(package)
    trees.save()
