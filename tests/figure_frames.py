"""Small hand-made frames of the derived tables for the tests of the figures, beside those of `report_frames`."""

from typing import Any

import polars as pl

import report_frames as frames

CHAIN = {"model": "tiny", "dataset": "capitals"}
SENTIMENT = {"suite": "core", "ability": "sentiment", "task": "sst2", "metric": "acc"}
PROSE = {"suite": "core", "ability": "language modelling", "task": "prose", "metric": "word_perplexity"}


def comparisons() -> pl.DataFrame:
    """rome at 5 edits: sentiment 0.60 → 0.48, harm; perplexity × 1.5, harm. rome-rect-40: no harm, inconclusive."""
    cells = (
        ("rome", 1, SENTIMENT, "difference", 0.60, -0.01, -0.05, 0.03, "inconclusive"),
        ("rome", 5, SENTIMENT, "difference", 0.60, -0.12, -0.18, -0.06, "harm"),
        ("rome", 5, PROSE, "log_ratio", 30.0, 0.405465, 0.3, 0.5, "harm"),
        ("rome-rect-40", 5, SENTIMENT, "difference", 0.60, -0.01, -0.015, 0.01, "no harm"),
        ("rome-rect-40", 5, PROSE, "log_ratio", 30.0, 0.09531, -0.01, 0.2, "inconclusive"),
    )
    rows = [
        {
            **CHAIN, "editor": editor, "edits": edits, **about, "scale": scale, "unedited": unedited,
            "edited": unedited + estimate, "estimate": estimate, "low": low, "high": high, "n": 200, "seeds": 1,
            "p": 0.01, "p_holm": 0.04, "mde": 0.05, "margin": 0.02, "verdict": verdict,
        }
        for editor, edits, about, scale, unedited, estimate, low, high, verdict in cells
    ]  # fmt: skip
    return frames.frame(rows)


def horizons() -> pl.DataFrame:
    """rome loses 5 % of sentiment after 2.5 edits [1.5, not known]; rome-rect-40 does not within 5."""
    rows = [
        {**CHAIN, **SENTIMENT, "editor": editor, "loss": 0.05, "horizon": horizon, "low": low, "high": None,
         "reached": horizon is not None, "last_edits": 5, "n": 200, "seeds": 1}
        for editor, horizon, low in (("rome", 2.5, 1.5), ("rome-rect-40", None, None))
    ]  # fmt: skip
    return frames.frame(rows).with_columns(pl.col("high").cast(pl.Float64))


def tradeoffs() -> pl.DataFrame:
    points = (
        ("rome", 1, 0.9, 0.8, False),
        ("rome", 5, 0.4, 0.9, True),
        ("rome-rect-40", 5, 0.95, 0.85, True),
    )
    return frames.frame(
        [
            {**CHAIN, "editor": editor, "edits": edits, "ability": ability, "efficacy_kind": "generation",
             "efficacy": efficacy, "on_front": front}
            for editor, edits, ability, efficacy, front in points
        ]
    )  # fmt: skip


def areas() -> pl.DataFrame:
    return frames.frame(
        [
            {**CHAIN, "editor": editor, "ability_area": ability, "efficacy_area": 0.5, "efficacy_kind": kind,
             "last_edits": 5}
            for editor, ability in (("rome", 0.7), ("rome-rect-40", 0.96))
            for kind in ("generation", "retention")
        ]
    )  # fmt: skip


def retention() -> pl.DataFrame:
    """After 5 edits rome keeps 1 of 1 youngest and 2 of 4 older ones; the rows of age -1 are not ages."""
    ages = ((0, 0, 1.0, 1), (1, 4, 0.5, 4), (-1, -1, 1.0, 5))
    return frames.frame(
        [
            {**CHAIN, "editor": "rome", "edits": 5, "age_low": low, "age_high": high, "how": "generation",
             "value": value, "stderr": None, "n": n, "seeds": 1}
            for low, high, value, n in ages
        ]
    )  # fmt: skip


def predictors() -> pl.DataFrame:
    """manhattan 0.9 [0.7, 1.0]; spectral norm -0.2 [-0.6, 0.3], over all data sets 0.99; KL only there, 0.95."""
    rows = (
        ("capitals", "spectral_delta", "mean", -0.2, -0.6, 0.3),
        ("capitals", "manhattan", "mean", 0.9, 0.7, 1.0),
        ("capitals", "manhattan", "sentiment", 0.8, 0.5, 0.9),
        (None, "kl_next_token", "mean", 0.95, 0.8, 1.0),
        (None, "spectral_delta", "mean", 0.99, 0.9, 1.0),
    )
    return frames.frame(
        [
            {"model": "tiny", "dataset": dataset, "statistic": statistic, "source": "weights", "harm": harm,
             "rho": rho, "low": low, "high": high, "p": 0.01, "points": 4, "chains": 2}
            for dataset, statistic, harm, rho, low, high in rows
        ]
    )  # fmt: skip


def costs() -> pl.DataFrame:
    """rome: two chains of 10 + 20 s and 50 s of editing; rome-rect-40: one of 10 s; a job of no editor."""
    jobs: tuple[tuple[Any, ...], ...] = (
        ("edit", 1, "rome", 1, 10.0, 500.0, 100),
        ("edit", 1, "rome", 5, 20.0, 700.0, 300),
        ("edit", 2, "rome", 5, 50.0, 600.0, 400),
        ("edit", 1, "rome-rect-40", 5, 10.0, 650.0, 50),
        ("weigh", 1, "rome", 5, 2.0, 300.0, None),
        ("gather", None, None, None, 3.0, 200.0, None),
    )
    return frames.frame(
        [
            {"rule": rule, **CHAIN, "seed": seed, "editor": editor, "edits": edits, "suite": None, "seconds": seconds,
             "max_rss_mb": memory, "bytes": size}
            for rule, seed, editor, edits, seconds, memory, size in jobs
        ]
    )  # fmt: skip


def editors() -> pl.DataFrame:
    recipes = (
        ("rome", "rome", "none", None, 1),
        ("rome-rect-40", "rome", "rect", 40.0, 1),
        ("memit-1", "memit", "none", None, 1),
        ("memit-5", "memit", "none", None, 5),
    )
    return frames.frame(
        [
            {"editor": editor, "method": method, "regularizer": regularizer, "keep": keep, "batch_size": batch,
             "editing": "sequential"}
            for editor, method, regularizer, keep, batch in recipes
        ]
    )  # fmt: skip


def normalised(dataset: str = "capitals", rome: float = 0.4) -> list[dict[str, Any]]:
    return [
        {**CHAIN, "dataset": dataset, "seed": 1, "editor": editor, "edits": 5, **about, "value": 0.5, "unedited": 0.6,
         "chance": 0.5, "normalised": value, "measurable": measurable}
        for editor, value in (("rome", rome), ("rome-rect-40", 0.8))
        for about, measurable in ((SENTIMENT, True), (PROSE, False))
    ]  # fmt: skip


def objectives() -> list[dict[str, Any]]:
    """The facts of `capitals` are asked directly, perplexity 20 and 40; of `rivers` as true or false, 2 and 4."""
    asked = (("capitals", "direct", (20.0, 40.0)), ("rivers", "true-false", (2.0, 4.0)))
    return [
        {"model": "tiny", "dataset": dataset, "seed": 1, "position": place, "fact_id": f"{dataset}-{place}",
         "case_id": None, "question_type": form, "target": "Oslo", "nll": 1.0, "perplexity": perplexity}
        for dataset, form, all_of_them in asked
        for place, perplexity in enumerate(all_of_them, start=1)
    ]  # fmt: skip


def drift() -> pl.DataFrame:
    """KL 0.5 nats after five edits by rome, 0.1 by rome-rect-40; hidden states at layers 3 and 7."""
    rows = [("kl_next_token", None, "rome", 0.5), ("kl_next_token", None, "rome-rect-40", 0.1)]
    rows += [("hidden_drift_cosine", layer, "rome", 0.01 * layer) for layer in (3, 7)]
    return frames.frame(
        [
            {
                **frames.KEY,
                "editor": editor,
                "edits": 5,
                "layer": layer,
                "statistic": statistic,
                "value": value,
            }
            for statistic, layer, editor, value in rows
        ]
    )


def derived() -> dict[str, pl.DataFrame]:
    """Return all tables: those of the report's tests and the derived ones."""
    return frames.tables() | {
        "comparisons": comparisons(),
        "horizons": horizons(),
        "tradeoffs": tradeoffs(),
        "areas": areas(),
        "retention": retention(),
        "predictors": predictors(),
        "costs": costs(),
        "drift": drift(),
        "editors": editors(),
        "normalised": frames.frame(normalised() + normalised("rivers", 0.9)),
        "objectives": frames.frame(objectives()),
    }


def batches() -> dict[str, pl.DataFrame]:
    """Two editors that differ in their batch: sentiment 0.58 after one, 0.50 after five; and on to ten."""
    about = {**SENTIMENT, "n": 200, "chance": 0.5, "higher_is_better": True, "primary": True, "stderr": 0.02}
    scores = (("memit-1", 1, 0.58), ("memit-1", 10, 0.57), ("memit-5", 5, 0.50), ("memit-5", 10, 0.48))
    rows = [
        {**frames.KEY, "editor": editor, "edits": edits, "value": value, **about}
        for editor, edits, value in scores
    ]
    rows.append(
        {**frames.KEY, "dataset": None, "seed": None, "editor": "unedited", "edits": 0, "value": 0.6, **about}
    )
    return {"abilities": frames.frame(rows), "editors": editors()}


def final() -> dict[str, pl.DataFrame]:
    """Σ|W| 100 before; 120 after five edits by rome, 105 by rome-rect-40."""
    weights = frames.frame(
        [
            {
                **frames.KEY,
                "editor": editor,
                "edits": 5,
                "parameter": "w",
                "statistic": name,
                "threshold": None,
                "value": v,
            }
            for editor, after in (("rome", 120.0), ("rome-rect-40", 105.0))
            for name, v in (("l1_before", 100.0), ("l1_after", after))
        ]
    )
    return {"weights": weights, "normalised": frames.frame(normalised())}


def two_datasets() -> dict[str, pl.DataFrame]:
    """The same editors on `capitals` and on `rivers`, where rome's sentiment ends at 0.54."""
    table = frames.tables()["abilities"]
    edited = table.filter(pl.col("editor") != "unedited")
    worse = (pl.col("editor") == "rome") & (pl.col("edits") == 5) & (pl.col("task") == "sst2")
    rivers = edited.with_columns(
        dataset=pl.lit("rivers"), value=pl.when(worse).then(0.54).otherwise(pl.col("value"))
    )
    return {"abilities": pl.concat([table, rivers])}


def large(editors: int = 100, checkpoints: int = 300, abilities: int = 8) -> dict[str, pl.DataFrame]:
    """A study far beyond any chart, two seeds: over 400,000 rows of abilities, and the same shape elsewhere."""
    steps = pl.DataFrame({"edits": range(1, checkpoints + 1)})
    who = pl.DataFrame({"editor": [f"editor-{index}" for index in range(editors)]})
    grid = steps.join(who, how="cross").with_columns(**{name: pl.lit(value) for name, value in CHAIN.items()})
    seeds = grid.join(pl.DataFrame({"seed": [1, 2]}), how="cross")
    value = (1 - pl.col("edits") / 1000).cast(pl.Float64)
    tasks = pl.DataFrame({"task": [f"task-{index}" for index in range(abilities)]}).with_columns(
        suite=pl.lit("core"), ability=pl.col("task"), metric=pl.lit("acc")
    )
    scores = seeds.join(tasks, how="cross").with_columns(
        value=value,
        stderr=pl.lit(0.02),
        n=pl.lit(100),
        chance=pl.lit(0.5),
        higher_is_better=True,
        primary=True,
    )
    reference = scores.head(0)
    first = scores.filter((pl.col("editor") == "editor-0") & (pl.col("edits") == 1) & (pl.col("seed") == 1))
    reference = first.with_columns(
        editor=pl.lit("unedited"), edits=pl.lit(0).cast(pl.Int64), seed=pl.lit(None).cast(pl.Int64),
        dataset=pl.lit(None).cast(pl.String), value=pl.lit(0.99),
    ).select(scores.columns)  # fmt: skip
    statistics = pl.DataFrame(
        {"statistic": ["manhattan", "mean_abs_before", "mean_abs_after", "l1_before", "l1_after", "delta_share"],
         "threshold": [None, None, None, None, None, 0.077]}
    )  # fmt: skip
    probes = seeds.with_columns(
        fact_id=pl.lit("f"), probe=0, kind=pl.lit("reliability"), when=pl.lit("now"), token_accuracy=value,
        token_agreement=value, prefers_target=True, generated_match=True, generated_agreement=True,
    )  # fmt: skip
    blocks = pl.DataFrame({"block_row": range(32)}).join(pl.DataFrame({"block_col": range(32)}), how="cross")
    few = seeds.filter(
        (pl.col("edits") % 30 == 0) & pl.col("editor").is_in([f"editor-{i}" for i in range(12)])
    )
    ages = pl.DataFrame({"age_low": range(0, 200, 20), "age_high": range(19, 219, 20)})
    return {
        "abilities": pl.concat([scores, reference]),
        "weights": seeds.join(statistics, how="cross").with_columns(parameter=pl.lit("w"), value=value),
        "efficacy": pl.concat([probes, probes.with_columns(when=pl.lit("after_edit"))]),
        "heatmaps": few.join(blocks, how="cross").with_columns(parameter=pl.lit("w"), value=value),
        "tradeoffs": grid.with_columns(
            ability=value, efficacy=value, efficacy_kind=pl.lit("generation"), on_front=pl.col("edits") == 1
        ),
        "retention": few.join(ages, how="cross").with_columns(
            how=pl.lit("generation"), value=value, stderr=pl.lit(0.1), n=pl.lit(9), seeds=2
        ),
    }
