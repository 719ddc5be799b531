"""What an unfinished study lacks, as HTML: each rule, how many of its jobs are done, and where the others are."""

from collections.abc import Mapping, Sequence
from typing import Any

from collateral.report.pages.tables import escape, header, table, text


def render_missing_jobs(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of what is missing.

    Args:
        rows: `rule`, `done`, `of`, `where`, as `find_missing_jobs` returns them.
    """
    body = [
        [
            f'<th scope="row">{text(row["rule"])}</th>',
            f'<td class="number">{row["done"]} of {row["of"]}</td>',
            f"<td>{text(row['where'])}</td>",
        ]
        for row in rows
    ]
    done, of = sum(row["done"] for row in rows), sum(row["of"] for row in rows)
    caption = escape(
        f"Jobs without a result. This report shows a study that is not finished: of the rules below, {done} of {of} "
        "jobs are done; all other rules are. What a changed configuration has outdated is shown as it was."
    )
    return table([header("Rule"), header("Done", True), header("Missing")], body, caption)
