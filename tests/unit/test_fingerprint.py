"""The fingerprint of code: what definitions compute counts; what they say, and what is not reached does not."""

import ast
import json
import random
import shutil

import pytest

from collateral.io.versions import machine, versions
from collateral.runtime import definitions, fingerprint
from collateral.runtime.definitions import EFFECTS, Sources, parse_source
from collateral.runtime.fingerprint import PACKAGE, find_code, library_versions
from rewording import reword, said_texts

SCRIPTS = sorted((PACKAGE.parents[1] / "workflow/scripts").glob("*.py"))
REGISTRIES = (
    "data/registry.py",
    "editing/registry.py",
    "models/architecture.py",
    "report/figures/registry.py",
)
FILES = {
    "__init__.py": "",
    "methods/__init__.py": "",
    "runtime/__init__.py": "",
    "a.py": '''
        """Doc."""
        import logging
        from dataclasses import dataclass
        from typing import Annotated, ClassVar

        import numpy as np

        from collateral import c
        from collateral.b import SCALE, f as double
        from collateral.errors import BadError

        log = logging.getLogger(__name__)

        @dataclass(frozen=True)
        class Settings:
            """Doc."""

            rate: Annotated[float, "above 0"] = 0.5
            steps: int = 3
            """How many."""
            cost: ClassVar[dict] = {"passes": 1}

            def scaled(self, x: int) -> float:
                return self.rate * x

        @dataclass
        class Pair:
            left: int
            right: int

        def g(x: int) -> int:
            """Doc."""
            log.info("doubling %d", x)
            if x < 0:
                raise BadError(f"{x} is below 0")
            return double(x) + SCALE  # why

        def unused(x):
            return c.h(x)

        def shadowed(double):
            return double + 1

        def mean(x):
            from collateral.b import middle as centre

            return centre(np.asarray(x))
    ''',
    "b.py": """
        SCALE = 2

        def f(x):
            return 2 * x

        def middle(x):
            return x.mean()

        def other(x):
            return x
    """,
    "c.py": """
        def h(x):
            return x
    """,
    "errors.py": """
        class BadError(Exception):
            pass
    """,
    "effects.py": """
        TABLE = {}
        TABLE["a"] = 1

        def read():
            return TABLE
    """,
    "again.py": """
        from collateral.b import f
    """,
    "runtime/job.py": """
        def job():
            return 1
    """,
    "methods/rome.py": """
        from collateral.b import f
        METHOD = f
    """,
    "methods/ft.py": "METHOD = None\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of ours."""
    folder = tmp_path / "collateral"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line[8:] if line[:8].isspace() else line for line in text.split("\n")))
    monkeypatch.setattr(fingerprint, "PACKAGE", folder)
    return folder


def mark(package, *entries, script="from collateral.a import g\n\ng(1)\n"):
    path = package.parent / "script.py"
    path.write_text(script)
    return find_code(path, *entries).fingerprint


def edit(package, name, old, new):
    path = package / name
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


CLASS = "from collateral.a import Settings\n\nSettings().scaled(2)\n"
PAIR = "from collateral.a import Pair\n\nPair(1, 2)\n"
MEAN = "from collateral.a import mean\n\nmean([1])\n"


@pytest.mark.parametrize(
    ("name", "old", "new", "script"),
    [
        ("a.py", "# why", "# because", None),
        ("a.py", "doubling %d", "twice %d", None),
        ("a.py", 'f"{x} is below 0"', '"negative"', None),
        ("a.py", "x: int) -> int", "x: float) -> float", None),
        ("a.py", "return c.h(x)", "return c.h(x + 1)", None),
        ("a.py", "rate: ", "# a rate\n    rate: ", None),
        ("b.py", "2 * x", "2*x", None),
        ("b.py", "return x.mean()", "return x.sum()", None),
        ("c.py", "return x", "return -x", None),
        ("methods/ft.py", "None", "1", None),
        ("a.py", "above 0", "above 1", CLASS),
        ("a.py", '"passes": 1', '"passes": 2', CLASS),
        ("a.py", '"""How many."""', '"""Number of steps."""', CLASS),
        ("a.py", "x: int) -> float", "x: float) -> float", CLASS),
        ("a.py", "import numpy as np", "import numpy as np, os", MEAN),
    ],
)
def test_what_is_said_or_not_reached_does_not_count(package, name, old, new, script):
    more = {"script": script} if script else {}
    before = mark(package, **more)
    edit(package, name, old, new)
    assert mark(package, **more) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "script"),
    [
        ("b.py", "2 * x", "3 * x", None),
        ("b.py", "SCALE = 2", "SCALE = 3", None),
        ("a.py", "x < 0", "x < 1", None),
        ("a.py", "import SCALE, f as double", "import SCALE, other as double", None),
        ("errors.py", "(Exception)", "(ValueError)", None),
        ("a.py", "= 0.5", "= 0.6", CLASS),
        ("a.py", "steps: int", "steps: float", CLASS),
        ("a.py", "self.rate * x", "self.rate + x", CLASS),
        ("a.py", "left: int\n    right: int", "right: int\n    left: int", PAIR),
        ("a.py", "left: int", "left: float", PAIR),
        ("a.py", "import middle as centre", "import other as centre", MEAN),
        ("a.py", "import numpy as np", "import torch as np", MEAN),
        ("b.py", "x.mean()", "x.sum()", MEAN),
        ("effects.py", '"a"', '"b"', "from collateral.effects import read\n\nread()\n"),
        ("c.py", "return x", "return -x", "from collateral import c\n\nvars(c)\n"),
        ("b.py", "2 * x", "3 * x", "from collateral import again\n\nagain.f(1)\n"),
        ("b.py", "2 * x", "3 * x", "from collateral import again\n\nvars(again)\n"),
        ("b.py", "2 * x", "3 * x", "import collateral.b\n\ncollateral.b.f(1)\n"),
        ("b.py", "2 * x", "3 * x", "from collateral.b import missing\n\nmissing(1)\n"),
    ],
)
def test_what_decides_a_result_counts(package, name, old, new, script):
    more = {"script": script} if script else {}
    before = mark(package, **more)
    edit(package, name, old, new)
    assert mark(package, **more) != before


def test_a_local_name_is_not_the_definition_of_that_name(package):
    script = "from collateral.a import shadowed\n\nshadowed(1)\n"
    before = mark(package, script=script)
    edit(package, "b.py", "2 * x", "3 * x")
    assert mark(package, script=script) == before


def test_entries_of_a_registry_count_where_they_are_named(package):
    rome, ft = mark(package, "collateral.methods.rome"), mark(package, "collateral.methods.ft")
    edit(package, "methods/ft.py", "None", "1")
    assert mark(package, "collateral.methods.rome") == rome
    assert mark(package, "collateral.methods.ft") != ft
    one = mark(package, "collateral.b:middle")
    edit(package, "b.py", "return x\n", "return -x\n")
    assert mark(package, "collateral.b:middle") == one
    edit(package, "b.py", "x.mean()", "x.sum()")
    assert mark(package, "collateral.b:middle") != one


def test_a_moved_module_and_the_frame_of_jobs_do_not_count(package):
    script = (
        "from collateral.a import g, mean\nfrom collateral.runtime.job import job\n\njob()\ng(1)\nmean([1])\n"
    )
    before = mark(package, script=script)
    edit(package, "runtime/job.py", "return 1", "return 2")
    (package / "deeper").mkdir()
    (package / "deeper/__init__.py").touch()
    (package / "b.py").rename(package / "deeper/other_name.py")
    path = package / "a.py"
    path.write_text(path.read_text().replace("collateral.b ", "collateral.deeper.other_name "))
    assert mark(package, script=script) == before


def test_the_definitions_and_libraries_behind_a_fingerprint_are_named(package):
    path = package.parent / "script.py"
    path.write_text(MEAN)
    code = find_code(path)
    assert set(code.definitions) == {"script.py", "collateral.a:mean", "collateral.b:middle"}
    assert code.libraries == {"numpy"}
    assert set(library_versions(code)) == {"numpy"}


def test_sources_that_are_remembered_are_never_out_of_date(package, monkeypatch):
    store, script = package.parent / "sources.json", package.parent / "script.py"
    first = mark(package)

    def remembered():
        sources = Sources(store)
        code = find_code(script, sources=sources)
        sources.save()
        return code.fingerprint

    assert remembered() == first
    with monkeypatch.context() as patched:
        patched.setattr(definitions, "parse_source", lambda text: pytest.fail("parsed again"))
        assert remembered() == first
    edit(package, "b.py", "2 * x", "3 * x")
    assert remembered() == mark(package) != first


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"python": [0], "sources": {}}', '{"python": 3, "sources": 1}']
)
def test_a_damaged_store_is_written_again(package, text):
    store = package.parent / "sources.json"
    before = mark(package)
    store.write_text(text)
    sources = Sources(store)
    assert find_code(package.parent / "script.py", sources=sources).fingerprint == before
    sources.save()
    assert json.loads(store.read_text())["sources"]


def test_a_store_that_cannot_be_written_costs_nothing_but_time(package):
    (package.parent / "file").write_text("")
    before = mark(package)
    sources = Sources(package.parent / "file/sources.json")
    assert find_code(package.parent / "script.py", sources=sources).fingerprint == before
    sources.save()


def test_versions_and_machine_name_no_host():
    assert versions()["torch"].startswith("2.")
    assert set(machine()) == {"processor", "cores", "system"}


# what must hold of this package, so that definitions decide

COMPUTING = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in {"runtime", "cli"}
]


@pytest.mark.parametrize("path", COMPUTING, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_is_reached_but_by_name(path):
    """No import by a name that is computed but in registries, no star, no writing into modules, nothing at import."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert EFFECTS not in parse_source(text).definitions
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = {
        alias.asname or alias.name
        for node in imports
        for alias in node.names
        if isinstance(node, ast.ImportFrom) and _is_module(node.module, alias.name)
    }
    modules = ours | {
        alias.asname or alias.name.split(".")[0]
        for node in imports
        for alias in node.names
        if isinstance(node, ast.Import)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level
            assert all(alias.name != "*" for alias in node.names)
        if isinstance(node, ast.Name):
            assert node.id not in {"globals", "__import__", "exec", "eval"}
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            literal = isinstance(node.args[0], ast.Constant)
            assert literal or path.relative_to(PACKAGE).as_posix() in REGISTRIES
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"setattr", "getattr", "vars"}:
            reading = ast.unparse(node.func) != "setattr"
            assert ast.unparse(node.args[0]) not in (ours if reading else modules)
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                assert not (isinstance(target, ast.Attribute) and ast.unparse(target.value) in modules)


def _is_module(package, name):
    if not (package or "").startswith("collateral"):
        return False
    folder = PACKAGE.joinpath(*package.split(".")[1:])
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()


def test_packages_are_empty_files():
    assert all(not path.read_text().strip() for path in PACKAGE.rglob("__init__.py"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Parsed sources of this package."""
    path = tmp_path_factory.mktemp("parsed") / "sources.json"
    sources = Sources(path)
    for script in SCRIPTS:
        find_code(script, sources=sources)
    sources.save()
    return path


def fingerprints(store):
    sources = Sources(store)
    return {script.name: find_code(script, sources=sources).fingerprint for script in SCRIPTS}


@pytest.fixture(scope="module")
def before(store):
    return fingerprints(store)


def test_no_script_reaches_a_whole_module_for_want_of_a_name(store):
    """Else a registry's new entry, or a definition beside it, would rerun what does not use it."""
    sources = Sources(store)
    graph = fingerprint._Graph(sources)
    for script in SCRIPTS:
        for node in find_code(script, sources=sources).definitions:
            module, _, name = node.partition(":")
            if not name:
                continue
            for use in graph.definition((module, name)).uses:
                nodes, _ = graph.resolve(use, module)
                assert len(nodes) < 2, f"{node} uses {use}"


@pytest.mark.parametrize("seed", range(5))
def test_a_message_anywhere_changes_no_fingerprint(seed, store, before, tmp_path, monkeypatch):
    """One text of an error or log line in the package, chosen at random."""
    speaking = [path for path in COMPUTING if said_texts(ast.parse(path.read_text(encoding="utf-8")))]
    path = random.Random(seed).choice(speaking)
    copy = tmp_path / "collateral"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    target = copy / path.relative_to(PACKAGE)
    target.write_text(reword(target.read_text(encoding="utf-8"), seed), encoding="utf-8")
    monkeypatch.setattr(fingerprint, "PACKAGE", copy)
    assert fingerprints(store) == before
