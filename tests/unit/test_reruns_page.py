"""docs/reruns.md: which rules a change in a file of the package can rerun, as the fingerprint sees it."""

import re
import sys
from pathlib import Path

from collateral.runtime.definitions import Sources
from collateral.runtime.fingerprint import PACKAGE, find_code, reached_files

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reruns.md"
EVERY = frozenset(
    re.findall(
        r"scripts/(\w+)\.py", "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    )
)
# registry → scripts whose jobs name one of its entries
LOADS_MODEL = {
    *("sample_contexts", "measure_moments", "probe_known", "measure_reference", "train_hypernetwork", "edit"),
    *("edit_singly", "export_checkpoint", "evaluate_abilities", "measure_efficacy", "measure_drift"),
}
REGISTRIES = {
    "data/loaders": {"load_facts"},
    "editing/methods": LOADS_MODEL
    - {"sample_contexts", "measure_moments", "probe_known", "measure_reference"},
    "editing/regularizers": {"edit", "edit_singly"},
    "models/families": LOADS_MODEL,
    "report/figures": {"report"},
}
HEAD = """\
# What a change can rerun

A change reruns the jobs whose definitions compute something else:
[architecture.md](architecture.md#the-fingerprint-of-definitions) says what counts. This page lists for each file of
the package the rules that reach a definition in it. A file that is not listed reruns nothing. A file of a registry
(marked *) reruns only the jobs whose settings name it.

`make fix` writes this page; a test compares it with the code. A commit that adds a rule to a row makes that rule's
fingerprint wider.

"""


def registry_of(file):
    """The registry that a file is an entry of, if any."""
    folder = str(Path(file).parent)
    return folder if folder in REGISTRIES and Path(file).stem != "registry" else None


def page():
    """The page as the code has it now."""
    sources = Sources()
    rules = {}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for rule, body in re.findall(
            r"^rule (\w+):\n(.*?)(?=^rule |\Z)", path.read_text(), flags=re.M | re.S
        ):
            script = re.search(r"scripts/(\w+)\.py", body)
            if script:
                rules.setdefault(script[1], []).append(rule)
    assert set(rules) == EVERY
    rows = {}
    for script, names in rules.items():
        path = ROOT / f"workflow/scripts/{script}.py"
        for file in reached_files(find_code(path, sources=sources)):
            rows.setdefault(file, set()).update(names)
        for registry, scripts in REGISTRIES.items():
            if script not in scripts:
                continue
            for entry in sorted((PACKAGE / registry).glob("[a-z]*.py")):
                file = f"{registry}/{entry.name}"
                if registry_of(file):
                    module = f"collateral.{registry.replace('/', '.')}.{entry.stem}"
                    used = f"{module}:load" if registry == "data/loaders" else module
                    for reached in reached_files(find_code(path, used, sources=sources)):
                        rows.setdefault(reached, set()).update(names)
    lines = ["| file of src/collateral | rules |", "|---|---|"]
    for file in sorted(rows):
        mark = "*" if registry_of(file) else ""
        every = len(rows[file]) == sum(map(len, rules.values()))
        lines.append(f"| `{file}`{mark} | {'all' if every else ', '.join(sorted(rows[file]))} |")
    return HEAD + "\n".join(lines) + "\n"


def test_the_page_is_that_of_the_code():
    assert PAGE.read_text(encoding="utf-8") == page(), "run make fix"


if __name__ == "__main__" and "--fix" in sys.argv:
    PAGE.write_text(page(), encoding="utf-8")
