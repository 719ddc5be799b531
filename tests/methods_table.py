"""The tables of docs/methods.md: what methods and regularisers declare, and what the contract test runs."""

import ast
from pathlib import Path

from collateral.editing.registry import (
    METHODS,
    REGULARIZERS,
    declaration,
    is_flagged,
    method_names,
    regularizer_declaration,
    regularizer_kind,
    regularizer_names,
)

ROOT = Path(__file__).parents[1]


def methods_table() -> str:
    """Return the methods: what each is, what it needs, and where it is tested."""
    from golden.test_contract import SETTINGS, settings_run
    from tiny import ALL_FAMILIES

    lines = [
        f"| method | what it is | needs | {' | '.join(SETTINGS)} | families | tests of its own |",
        f"|---|---|---|{'---|' * len(SETTINGS)}---|---|",
    ]
    for method in method_names():
        flags = declaration(method).flags
        title = ast.get_docstring(ast.parse((METHODS / f"{method}.py").read_text())) or ""
        needs = [
            text
            for needed, text in (
                ("moments" in flags, "second moments"),
                ("mom2_adjustment" in declaration(method).annotations, "second moments, if asked"),
                ("hypernetwork" in flags, "a training set"),
                ("like" in declaration(method).annotations, "another editor"),
            )
            if needed
        ]
        marks = ["tested" if name in settings_run(method) else "–" for name in SETTINGS]
        tests = [
            path.stem.removeprefix("test_")
            for path in sorted((ROOT / "tests/golden").glob("test_*.py"))
            if f"from collateral.editing.methods.{method} import" in path.read_text()
        ]
        kind = (
            " (adapter)" if is_flagged(method, "adapter") else " (replaces)" * is_flagged(method, "replaces")
        )
        lines.append(
            f"| `{method}`{kind} | {title.splitlines()[0].rstrip('.')} | {', '.join(needs) or '–'} | "
            f"{' | '.join(marks)} | all {len(ALL_FAMILIES)} | {', '.join(tests) or '–'} |"
        )
    return "\n".join(lines) + f"\n\nFamilies: {', '.join(ALL_FAMILIES)}.\n"


def regularizers_table() -> str:
    """Return the regularisers: what each is, what a call returns, and its settings."""
    lines = ["| regulariser | what it is | kind | settings |", "|---|---|---|---|"]
    for name in regularizer_names():
        title = ast.get_docstring(ast.parse((REGULARIZERS / f"{name}.py").read_text())) or ""
        declared = regularizer_declaration(name)
        settings = ", ".join(f"`{setting}`" for setting in declared.annotations)
        lines.append(
            f"| `{name}` | {title.splitlines()[0].rstrip('.')} | {regularizer_kind(name)} | {settings or '–'} |"
        )
    return "\n".join(lines) + "\n"
