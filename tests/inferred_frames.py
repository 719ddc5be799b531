"""Small hand-made inferred tables that go with `report_frames`: one verdict of each kind."""

from typing import Any

import polars as pl

from report_frames import KEY, frame

STUDY = {"model": KEY["model"], "dataset": KEY["dataset"]}
SENTIMENT = {"suite": "core", "ability": "sentiment", "task": "sst2", "metric": "acc"}
YES_NO = {"suite": "core", "ability": "yes/no", "task": "boolq", "metric": "acc"}
PROSE = {"suite": "core", "ability": "language modelling", "task": "prose", "metric": "word_perplexity"}


def comparison(editor: str, edits: int, about: dict[str, str], verdict: str, **more: Any) -> dict[str, Any]:
    log = about is PROSE
    row = {
        **STUDY,
        "editor": editor,
        "edits": edits,
        **about,
        "higher_is_better": not log,
        "n": 60 if log else 200,
        "seeds": 1,
        "unedited": 30.0 if log else 0.6,
        "edited": 45.0 if log else 0.48,
        "scale": "log_ratio" if log else "difference",
        "estimate": 0.4054651081 if log else -0.12,  # ln 1.5
        "low": 0.3364722366 if log else -0.17,  # ln 1.4
        "high": 0.4700036292 if log else -0.07,  # ln 1.6
        "interval": "bca" if log else "tango",
        "p": 0.0004,
        "test": "sign flip" if log else "mcnemar exact",
        "p_holm": 0.0024,
        "margin": 0.0487901642 if log else 0.02,
        "p_no_harm": 0.9,
        "p_no_harm_holm": 1.0,
        "equivalent": verdict == "no harm",
        "mde": 0.0953101798 if log else 0.08,  # ln 1.1
        "worse": None if log else 30,
        "better": None if log else 6,
        "chance": None if log else 0.5,
        "verdict": verdict,
    }
    return row | more


NOT_MEASURED = dict.fromkeys(
    (
        "edited",
        "estimate",
        "low",
        "high",
        "interval",
        "p",
        "test",
        "p_holm",
        "p_no_harm",
        "p_no_harm_holm",
        "mde",
    )
)


def tables(first: str = "rome", second: str = "rome-rect-40") -> dict[str, pl.DataFrame]:
    """Return the inferred tables: the first editor harms and then collapses, the second does not harm."""
    comparisons = [
        comparison(first, 1, SENTIMENT, "inconclusive"),
        comparison(first, 5, SENTIMENT, "harm"),
        comparison(first, 5, YES_NO, "at chance"),
        comparison(first, 5, PROSE, "not evaluated", **NOT_MEASURED),
        comparison(second, 5, SENTIMENT, "no harm", estimate=-0.005, low=-0.012, high=0.002, edited=0.595),
        comparison(second, 5, YES_NO, "at chance"),
        comparison(second, 5, PROSE, "inconclusive"),
    ]
    normalised = [
        {
            **KEY,
            "editor": editor,
            "edits": edits,
            **about,
            "value": 0.5,
            "unedited": 0.6,
            "chance": 0.5,
            "normalised": value,
            "measurable": about is not YES_NO,
        }
        for editor, values in ((first, (0.9, 0.2)), (second, (1.0, 0.8)))
        for edits, value in zip((1, 5), values, strict=True)
        for about in (SENTIMENT, YES_NO, PROSE)
    ]
    collapses = [
        {
            **KEY,
            "editor": editor,
            "edits": edits,
            "collapsed": (editor, edits) == (first, 5),
            "first": (editor, edits) == (first, 5),
            "reasons": "perplexity ratio 12 > 10" if (editor, edits) == (first, 5) else "",
            "evaluated": (editor, edits) != (first, 5),
        }
        for editor in (first, second)
        for edits in (1, 5)
    ]
    horizons = [
        {**STUDY, "editor": first, **SENTIMENT, "loss": 0.05, "horizon": 1.5, "low": 1.0, "high": None}
        | {"reached": True, "last_edits": 5, "n": 200, "seeds": 1},
        {**STUDY, "editor": second, **SENTIMENT, "loss": 0.05, "horizon": None, "low": None, "high": None}
        | {"reached": False, "last_edits": 5, "n": 200, "seeds": 1},
    ]
    tradeoffs = [
        {**STUDY, "editor": editor, "edits": 5, "ability": ability, "efficacy_kind": "generation"}
        | {"efficacy": efficacy, "on_front": True}
        for editor, ability, efficacy in ((first, 0.2, 0.8), (second, 0.8, 1.0))
    ]
    editors = [
        {"editor": first, "method": "rome", "regularizer": "none", "keep": None},
        {"editor": second, "method": "rome", "regularizer": "rect", "keep": 40.0},
    ]
    predictors = [
        {
            **STUDY,
            "statistic": statistic,
            "source": "weights",
            "harm": "mean",
            "rho": rho,
            "low": low,
            "high": high,
        }
        | {"p": 0.01, "points": 4, "chains": 2}
        for statistic, rho, low, high in (("manhattan", 0.9, 0.4, 1.0), ("spectral_delta", -0.3, -0.8, 0.5))
    ]
    return {
        "comparisons": frame(comparisons),
        "normalised": frame(normalised),
        "collapses": frame(collapses),
        "horizons": frame(horizons),
        "tradeoffs": frame(tradeoffs),
        "editors": frame([row | {"batch_size": 1, "editing": "sequential"} for row in editors]),
        "predictors": frame(predictors),
    }
