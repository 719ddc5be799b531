"""Write the tables and figures of a finished study into its page in docs/.

    python bench/summary.py results docs/laptop-study.md

The page is prose with `<!-- NAME -->` … `<!-- end -->` around each generated table; everything else stays as it is.
"""

import argparse
import re
from pathlib import Path

import altair as alt
import polars as pl

from collateral.io.atomic import write_text

BEFORE = "unedited"
DASH = "–"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose first columns are text."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed number of decimals, a huge one with its power of ten; a dash for none."""
    if value is None:
        return DASH
    return f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.0e}"


def spread(values: pl.Series, digits: int) -> str:
    """Return the mean, and the range where there are several seeds."""
    known = values.drop_nulls()
    if known.is_empty():
        return DASH
    if len(known) == 1:
        return number(known[0], digits)
    return f"{number(known.mean(), digits)} ({number(known.min(), digits)} to {number(known.max(), digits)})"


def ability_table(tables: dict[str, pl.DataFrame]) -> str:
    """Every primary score and perplexity, before and after: one row per data set, editor and checkpoint."""
    own = tables["abilities"].filter(pl.col("primary") | (pl.col("metric") == "perplexity"))
    metrics = own.select("task", "metric").unique().sort("task", "metric").rows()
    head = [
        "data set",
        "editor",
        "edits",
        *(f"{task.split('_')[0]} {NAMES.get(metric, metric)}" for task, metric in metrics),
    ]
    before = own.filter(editor=BEFORE)
    rows = [["", BEFORE, "0", *(_score(before, task, metric) for task, metric in metrics)]]
    for dataset, editor, edits in _keys(own).rows():
        at = own.filter(dataset=dataset, editor=editor, edits=edits)
        rows.append([dataset, editor, str(edits), *(_score(at, task, metric) for task, metric in metrics)])
    return markdown(head, rows)


NAMES = {"word_perplexity": "ppl", "perplexity": "ppl"}


def _keys(table: pl.DataFrame) -> pl.DataFrame:
    """Return data set, editor, edits of the edited models, in order."""
    edited = table.filter(pl.col("editor") != BEFORE)
    return edited.select("dataset", "editor", "edits").unique().sort("dataset", "editor", "edits")


def _score(rows: pl.DataFrame, task: str, metric: str) -> str:
    at = rows.filter(task=task, metric=metric)["value"]
    return spread(at, 1 if "perplexity" in metric else 2)


NOW = (
    ("reliability, right after", "reliability", "after_edit", "token_accuracy"),
    ("reliability", "reliability", "now", "token_accuracy"),
    ("stated freely", "reliability", "now", "generated_match"),
    ("generalization", "generalization", "now", "token_accuracy"),
    ("locality", "locality", "now", "token_agreement"),
    ("portability", "portability", "now", "token_accuracy"),
)
ALONE = tuple((name, kind, "after_edit", how) for name, kind, _, how in NOW[1:5])


def efficacy_table(tables: dict[str, pl.DataFrame], alone: bool) -> str:
    """Whether the edits took: shares of tokens (teacher-forced), and of facts stated in free generation."""
    own = tables["efficacy"].filter(pl.col("editor") != BEFORE)
    chains = own.filter(when="now")["editor"].unique()
    own = own.filter(pl.col("editor").is_in(chains.to_list()) != alone)
    probes = ALONE if alone else NOW
    keys = _keys(own.filter(when="after_edit" if alone else "now"))
    if alone:
        keys = keys.group_by("dataset", "editor", maintain_order=True).agg(pl.col("edits").max())
    rows = []
    for dataset, editor, edits in keys.rows():
        at = own.filter(dataset=dataset, editor=editor)
        cells = [_share(at, edits, kind, when, how) for _, kind, when, how in probes]
        rows.append([dataset, editor, str(edits), *cells])
    return markdown(["data set", "editor", "edits", *(name for name, *_ in probes)], rows)


def _share(rows: pl.DataFrame, edits: int, kind: str, when: str, how: str) -> str:
    """Mean over facts, by seed: right after its edit, all facts so far count; now, those of this checkpoint."""
    upto = pl.col("edits") <= edits if when == "after_edit" else pl.col("edits") == edits
    seeds = rows.filter(edits=edits)["seed"].unique().to_list()
    at = rows.filter(upto, pl.col("seed").is_in(seeds), kind=kind, when=when)
    by_fact = at.group_by("seed", "fact_id").agg(pl.col(how).cast(pl.Float64).mean())
    return spread(by_fact.group_by("seed").agg(pl.col(how).mean())[how], 2)


def change_table(tables: dict[str, pl.DataFrame]) -> str:
    """RECT's Table 1 on this model: one row per number of sequential ROME edits."""
    own = tables["weights"].filter(dataset="zsre", seed=0, editor="rome")
    rows = []
    for edits in own["edits"].unique().sort():
        at = own.filter(edits=edits)
        shares = at.filter(statistic="delta_share").sort("threshold")
        manhattan = at.filter(statistic="manhattan")["value"].sum()
        l1 = at.filter(statistic="mean_abs_after")["value"].mean()
        rows.append(
            [str(edits), number(manhattan, 1), *(f"{value:.1%}" for value in shares["value"]), number(l1, 5)]
        )
    thresholds = own.filter(statistic="delta_share")["threshold"].unique().sort()
    return markdown(
        ["edits", "Manhattan distance", *(f"δ > {one:g}" for one in thresholds), "mean absolute weight"], rows
    )


def single_table(tables: dict[str, pl.DataFrame]) -> str:
    """Quantiles of δ over single edits: mean over edits, as in RECT's section 4.4."""
    own = tables["single-weights"].filter(statistic="delta_quantile")
    keys = own["threshold"].unique().sort()
    rows = []
    for editor in own["editor"].unique(maintain_order=True):
        at = own.filter(editor=editor)
        count = at["position"].n_unique()
        means = [at.filter(threshold=one)["value"].mean() for one in keys]
        rows.append([editor, str(count), *(number(value, 4) for value in means)])
    return markdown(["editor", "single edits", *(f"{one:.0%} quantile of δ" for one in keys)], rows)


def norm_table(tables: dict[str, pl.DataFrame]) -> str:
    """How far the edited matrices moved: relative Frobenius norm and the D4S paper's L1 norm, all layers."""
    own = tables["weights"]
    rows = []
    for dataset, editor, edits in _keys(own).rows():
        at = own.filter(dataset=dataset, editor=editor, edits=edits)
        wide = at.pivot("statistic", index=["seed", "parameter"], values="value", aggregate_function="first")
        if "fro_before" not in wide.columns or wide["fro_before"].null_count():
            continue
        relative = wide.group_by("seed").agg(
            share=(pl.col("fro_delta").pow(2).sum() / pl.col("fro_before").pow(2).sum()).sqrt(),
            growth=pl.col("l1_after").sum() / pl.col("l1_before").sum() - 1,
        )
        growth = spread(relative["growth"] * 100, 2)
        rows.append([dataset, editor, str(edits), spread(relative["share"], 3), growth])
    return markdown(
        ["data set", "editor", "edits", "change, share of the norm", "growth of the L1 norm, %"], rows
    )


def figure(tables: dict[str, pl.DataFrame], dataset: str, task: str, metric: str) -> alt.LayerChart:
    """One perplexity against edits: lines are means over orders, points single ones; collapsed editors are named."""
    own = tables["abilities"].filter(task=task, metric=metric)
    start = own.filter(editor=BEFORE)["value"][0]
    edited = own.filter((pl.col("editor") != BEFORE) & (pl.col("editor") != "noop"), dataset=dataset)
    collapsed = edited.filter(pl.col("value") > 10 * start)["editor"].unique().sort().to_list()
    edited = edited.filter(~pl.col("editor").is_in(collapsed))
    origin = (
        edited.select("editor", "seed").unique().with_columns(edits=pl.lit(0, pl.Int32), value=pl.lit(start))
    )
    points = pl.concat([origin, edited.select("editor", "seed", "edits", "value")]).sort(
        "editor", "seed", "edits"
    )
    base = alt.Chart(alt.InlineData(values=points.to_dicts())).encode(
        x=alt.X("edits:Q", title="edits", axis=alt.Axis(values=[0, 20, 50])),
        y=alt.Y("value:Q", title="perplexity", scale=alt.Scale(zero=False)),
        color=alt.Color("editor:N", scale=alt.Scale(scheme="tableau10"), title="editor"),
    )
    line = base.mark_line().encode(y=alt.Y("mean(value):Q", title="perplexity", scale=alt.Scale(zero=False)))
    dots = base.mark_point(filled=True, size=45).encode(shape=alt.Shape("editor:N", legend=None))
    beyond = f"; beyond the scale: {', '.join(collapsed)}" if collapsed else ""
    title = alt.TitleParams(f"{dataset}: {task}", subtitle=f"unedited {start:.1f}{beyond}")
    return (line + dots).properties(width=230, height=220, title=title)


def main() -> None:
    """Fill the page's tables and draw its figures beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    given = parser.parse_args()
    tables = {path.stem: pl.read_parquet(path) for path in (given.results / "tables").glob("*.parquet")}
    blocks = {
        "abilities": ability_table(tables),
        "efficacy": efficacy_table(tables, alone=False),
        "single efficacy": efficacy_table(tables, alone=True),
        "change": change_table(tables),
        "single change": single_table(tables),
        "norms": norm_table(tables),
    }
    text = given.page.read_text(encoding="utf-8")
    for name, table in blocks.items():
        text, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, new=table: found[1] + new + found[2],
            text,
            flags=re.S,
        )
        if count != 1:
            raise SystemExit(f"{given.page}: the block '{name}' stands {count} times; it must stand once")
    write_text(given.page, text)
    drawn = alt.hconcat(
        figure(tables, "zsre", "lambada_openai", "perplexity"),
        figure(tables, "zsre", "embedded-english", "word_perplexity"),
        figure(tables, "counterfact", "lambada_openai", "perplexity"),
    ).resolve_scale(color="shared", shape="shared")
    drawn.save(str(given.page.with_suffix(".svg")))


if __name__ == "__main__":
    main()
