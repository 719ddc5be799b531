"""Tidy tables → the points that a figure plots: means over seeds and probes, with their standard errors."""

from collections.abc import Mapping, Sequence

import polars as pl

UNEDITED = "unedited"
AT_CHANCE = "at chance before editing: harm not measurable"
ABILITY_KEYS = ("suite", "ability", "task", "metric")
KINDS = ("reliability", "generalization", "locality")
MEASURES = {
    "teacher-forced": {
        "reliability": "token_accuracy",
        "generalization": "token_accuracy",
        "locality": "token_agreement",
    },
    "probability": dict.fromkeys(KINDS, "prefers_target"),
    "generation": {
        "reliability": "generated_match",
        "generalization": "generated_match",
        "locality": "generated_agreement",
    },
}
MANHATTAN = "Manhattan distance"
MEAN_ABS = "mean |W|"


# Control characters and line separators break the chart library (its SVG is XML): show their pictures instead.
PICTURES = {chr(code): chr(0x2400 + code) for code in range(32)} | {"\x7f": "␡", "\u2028": "␤", "\u2029": "␤"}


def legible(tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Return the tables with every control character of their texts made visible."""
    return {
        name: table.with_columns(pl.col(pl.String).str.replace_many(list(PICTURES), list(PICTURES.values())))
        for name, table in tables.items()
    }


def studies(tables: Mapping[str, pl.DataFrame]) -> list[tuple[str, str]]:
    """Return the (model, dataset) pairs that occur in the tables, in order of appearance."""
    found: dict[tuple[str, str], None] = {}
    for table in tables.values():
        if not table.is_empty() and {"model", "dataset"} <= set(table.columns):
            pairs = table.select("model", "dataset").drop_nulls().unique(maintain_order=True)
            found.update(dict.fromkeys((str(model), str(dataset)) for model, dataset in pairs.rows()))
    return list(found)


def of_study(table: pl.DataFrame, model: str, dataset: str) -> pl.DataFrame:
    """Return the rows of one model and data set, with the unedited model's rows, which name no data set."""
    if table.is_empty() or "model" not in table.columns:  # what names no model holds for every study
        return table
    return table.filter(
        (pl.col("model") == model) & (pl.col("dataset").is_null() | (pl.col("dataset") == dataset))
    )


def editors(table: pl.DataFrame) -> list[str]:
    """Return the editors in order of appearance, without the unedited reference."""
    names = table.get_column("editor").unique(maintain_order=True).to_list()
    return [name for name in names if name != UNEDITED]


def all_editors(tables: Mapping[str, pl.DataFrame]) -> list[str]:
    """Return the editors of all tables, those of the table with most of them first."""
    found = [editors(table) for table in tables.values() if "editor" in table.columns]
    found.sort(key=len, reverse=True)
    return list(dict.fromkeys(name for names in found for name in names))


def checkpoints(table: pl.DataFrame) -> list[int]:
    """Return the numbers of edits after which an edited model was looked at, ascending."""
    edited = table.filter(pl.col("editor") != UNEDITED)
    return [int(edits) for edits in edited.get_column("edits").unique().sort().to_list()]


def last(points: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the last checkpoint of all."""
    edited = points.filter(pl.col("editor") != UNEDITED)
    return edited.filter(pl.col("edits") == edited.get_column("edits").max())


def _seed_variance(column: str) -> pl.Expr:
    """Return the variance of a mean over seeds, s²/k; null for one seed."""
    return pl.col(column).var(ddof=1) / pl.len()


def ability_points(abilities: pl.DataFrame) -> pl.DataFrame:
    """Return one row per (ability, task, metric, editor, edits) of the primary metrics, unedited included.

    value: mean over seeds. stderr² = mean(stderr²) + s²/k: the items are the same under every seed, so that
    their error does not shrink with k seeds, while the error of the seeds does.
    change = value - unedited; change_stderr² = stderr² + unedited_stderr². That takes the two as independent;
    they share their items, so that it is an upper bound wherever the two are positively correlated.
    at_chance: the unedited value - 2 stderr does not exceed chance.
    """
    if abilities.is_empty():
        return pl.DataFrame()
    items, seeds = pl.col("stderr").pow(2).mean(), _seed_variance("value")
    means = (
        abilities.filter(pl.col("primary"))
        .group_by([*ABILITY_KEYS, "editor", "edits"], maintain_order=True)
        .agg(
            pl.col("value").mean(),
            stderr=pl.when(items.is_not_null() | seeds.is_not_null())
            .then((items.fill_null(0.0) + seeds.fill_null(0.0)).sqrt())
            .otherwise(None),
            n=pl.col("n").max(),
            chance=pl.col("chance").max(),
            higher_is_better=pl.col("higher_is_better").first(),
            seeds=pl.len(),
        )
    )
    reference = means.filter(pl.col("editor") == UNEDITED).select(
        *ABILITY_KEYS, unedited="value", unedited_stderr="stderr"
    )
    bounded = pl.col("value").is_between(0, 1) | ~pl.col("value").is_finite()
    floor = pl.col("unedited") - 2 * pl.col("unedited_stderr").fill_null(0.0)
    return means.join(reference, on=ABILITY_KEYS, how="left", maintain_order="left").with_columns(
        change=pl.col("value") - pl.col("unedited"),
        change_stderr=(pl.col("stderr").pow(2) + pl.col("unedited_stderr").pow(2)).sqrt(),
        is_share=(bounded.all() & pl.col("higher_is_better").all()).over(ABILITY_KEYS),
        at_chance=(floor <= pl.col("chance")).fill_null(False),
    )


def _probe_means(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return the mean of `value` over probes by group, with the standard error clustered by fact.

    se² = F/(F-1) · Σ_f (Σ_{i∈f} (x_i - x̄))² / N², for N probes of F facts: the probes of one fact are not
    independent. Null for a single fact. (Liang and Zeger 1986, for a mean.)
    """
    centred = rows.drop_nulls("value").with_columns(
        residual=pl.col("value") - pl.col("value").mean().over(by), mean=pl.col("value").mean().over(by)
    )
    facts = centred.group_by([*by, "fact_id"], maintain_order=True).agg(
        pl.col("mean").first(), residual=pl.col("residual").sum(), probes=pl.len()
    )
    correction = pl.when(pl.len() > 1).then(pl.len() / (pl.len() - 1)).otherwise(None)
    return facts.group_by(by, maintain_order=True).agg(
        value=pl.col("mean").first(),
        stderr=(correction * pl.col("residual").pow(2).sum()).sqrt() / pl.col("probes").sum(),
        n=pl.col("probes").sum(),
        facts=pl.len(),
    )


def efficacy_points(efficacy: pl.DataFrame) -> pl.DataFrame:
    """Return (kind, how, editor, edits, value, stderr, n, facts) of the probes at each checkpoint, unedited too.

    reliability, generalization: mean of token_accuracy, prefers_target, generated_match.
    locality: mean of token_agreement, prefers_target, generated_agreement.
    """
    if efficacy.is_empty():
        return pl.DataFrame()
    now = efficacy.filter(pl.col("when") == "now")
    parts = [
        now.filter(pl.col("kind") == kind).select(
            "editor",
            "edits",
            "fact_id",
            kind=pl.lit(kind),
            how=pl.lit(how),
            value=pl.col(columns[kind]).cast(pl.Float64),
        )
        for kind in KINDS
        for how, columns in MEASURES.items()
    ]
    return _probe_means(pl.concat(parts), ["kind", "how", "editor", "edits"])


def retention_points(efficacy: pl.DataFrame) -> pl.DataFrame:
    """Return (editor, edits, when, value, …): teacher-forced reliability of the same edits, then and now.

    `now` is at the checkpoint; `after_edit` is right after each edit. Only probes measured at both count.
    """
    if efficacy.is_empty():
        return pl.DataFrame()
    key = ["editor", "seed", "fact_id", "probe"]
    rows = efficacy.filter(
        (pl.col("kind") == "reliability")
        & (pl.col("editor") != UNEDITED)
        & pl.col("token_accuracy").is_not_null()
    )
    then = (
        rows.filter(pl.col("when") == "after_edit")
        .sort("edits", maintain_order=True)
        .unique(key, keep="first", maintain_order=True)
        .select(*key, after_edit="token_accuracy")
    )
    both = rows.filter(pl.col("when") == "now").join(
        then, on=key, how="inner", nulls_equal=True, maintain_order="left"
    )
    long = both.select("editor", "edits", "fact_id", "after_edit", now="token_accuracy").unpivot(
        ["after_edit", "now"], index=["editor", "edits", "fact_id"], variable_name="when"
    )
    return _probe_means(long, ["editor", "edits", "when"])


def _over_seeds(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    return rows.group_by(by, maintain_order=True).agg(
        pl.col("value").mean(), stderr=_seed_variance("value").sqrt(), seeds=pl.len()
    )


def norm_points(weights: pl.DataFrame) -> pl.DataFrame:
    """Return (panel, editor, edits, value, stderr, seeds, reference): Manhattan distance, mean |W| per matrix.

    The Manhattan distance Σ|ΔW| is summed over the edited matrices (it adds up); mean |W| is per matrix, with the
    unedited matrix as reference. stderr is that of the mean over seeds; null for one seed.
    """
    if weights.is_empty():
        return pl.DataFrame()
    edited = weights.filter(pl.col("editor") != UNEDITED)
    total = (
        edited.filter(pl.col("statistic") == "manhattan")
        .group_by(["seed", "editor", "edits"], maintain_order=True)
        .agg(pl.col("value").sum())
    )
    manhattan = _over_seeds(total, ["editor", "edits"]).with_columns(
        panel=pl.lit(MANHATTAN), reference=pl.lit(0.0)
    )
    key = ["parameter", "editor", "edits"]
    after = _over_seeds(edited.filter(pl.col("statistic") == "mean_abs_after"), key)
    before = edited.filter(pl.col("statistic") == "mean_abs_before")
    reference = before.group_by("parameter", maintain_order=True).agg(reference=pl.col("value").mean())
    means = (
        after.join(reference, on="parameter", how="left", maintain_order="left")
        .with_columns(panel=pl.format("{} of {}", pl.lit(MEAN_ABS), "parameter"))
        .sort("parameter", maintain_order=True)
    )
    columns = ["panel", "editor", "edits", "value", "stderr", "seeds", "reference"]
    return pl.concat([means.select(columns), manhattan.select(columns)])


def share_points(weights: pl.DataFrame) -> pl.DataFrame:
    """Return (threshold, editor, edits, value, stderr, seeds): share of elements with δ above each threshold.

    Over several matrices the share is weighted by their number of elements, Σ|W| / mean|W|.
    """
    if weights.is_empty():
        return pl.DataFrame()
    key = ["seed", "editor", "edits", "parameter"]
    edited = weights.filter(pl.col("editor") != UNEDITED)
    sizes = (
        edited.filter(pl.col("statistic").is_in(["l1_before", "mean_abs_before"]))
        .group_by(key, maintain_order=True)
        .agg(
            total=pl.col("value").filter(pl.col("statistic") == "l1_before").first(),
            mean=pl.col("value").filter(pl.col("statistic") == "mean_abs_before").first(),
        )
        .select(*key, size=pl.when(pl.col("mean") > 0).then(pl.col("total") / pl.col("mean")))
    )
    shares = edited.filter((pl.col("statistic") == "delta_share") & pl.col("threshold").is_not_null())
    weighted = (
        shares.join(sizes, on=key, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(pl.col("size").fill_null(1.0))
        .group_by(["threshold", "seed", "editor", "edits"], maintain_order=True)
        .agg(value=(pl.col("value") * pl.col("size")).sum() / pl.col("size").sum())
    )
    return _over_seeds(weighted, ["threshold", "editor", "edits"]).sort("threshold", maintain_order=True)


def heatmap_points(heatmaps: pl.DataFrame, most: int = 12_000) -> pl.DataFrame:
    """Return (parameter, editor, edits, block_row, block_col, value): mean |ΔW| by block, over seeds.

    Editors that changed nothing are left out. Above `most` blocks in all, neighbours are merged into their mean,
    so that the page stays light; the full table is in the results.
    """
    if heatmaps.is_empty():
        return pl.DataFrame()
    key = ["parameter", "editor", "edits"]
    changed = heatmaps.filter((pl.col("value") > 0).any().over("editor"))
    step = 1
    while True:
        block = [(pl.col(axis) // step).cast(pl.Int64) for axis in ("block_row", "block_col")]
        grouped = changed.with_columns(block).group_by([*key, "block_row", "block_col"], maintain_order=True)
        means = grouped.agg(pl.col("value").mean())
        if means.height <= most or means.select("block_row", "block_col").n_unique() == 1:
            return means.with_columns(merged=pl.lit(step))
        step += 1
