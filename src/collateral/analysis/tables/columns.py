"""The columns of the tidy tables, each described once: dtype, meaning, unit. Torch-free."""

from typing import Any, NamedTuple

import polars as pl


class Column(NamedTuple):
    """One column.

    Attributes:
        dtype: as polars reads it.
        meaning: one line; a null is explained where there can be one.
        unit: empty for names, flags and hashes.
    """

    dtype: Any  # pl.DataType, which beartype cannot check
    meaning: str
    unit: str = ""


TEXT, WHOLE, REAL, FLAG = pl.String(), pl.Int32(), pl.Float64(), pl.Boolean()

COLUMNS = {
    "model": Column(TEXT, "name of the model in the config"),
    "dataset": Column(TEXT, "name of the data set of the edits; null: the unedited model, on a suite"),
    "seed": Column(WHOLE, "of the order of the edits; null: the unedited model, on a suite"),
    "editor": Column(TEXT, "name of the editor in the config; `unedited` for the unedited model"),
    "edits": Column(WHOLE, "edits made before the measurement; 0 for the unedited model", "edits"),
    "suite": Column(TEXT, "name of the suite in the config"),
    "task": Column(TEXT, "lm-eval's name of the task, or of a group of tasks"),
    "ability": Column(TEXT, "what the task asks for, as its metadata says; else the task's name"),
    "metric": Column(TEXT, "lm-eval's name; in brackets the filter that read the answer, where there is one"),
    "value": Column(REAL, "the measured number", "the metric's"),
    "stderr": Column(REAL, "standard error over the items; null: lm-eval gives none", "the metric's"),
    "n": Column(WHOLE, "how many items", "items"),
    "chance": Column(REAL, "score of a guess; null: not defined", "the metric's"),
    "higher_is_better": Column(FLAG, "false for perplexities"),
    "primary": Column(FLAG, "whether this metric stands for the task"),
    "task_hash": Column(TEXT, "of the task's items and prompts: equal hashes may be paired"),
    "doc_id": Column(WHOLE, "number of the item in its task"),
    "doc_hash": Column(TEXT, "of the item"),
    "target_hash": Column(TEXT, "of the item's right answer"),
    "score": Column(REAL, "what the item adds to the metric's numerator", "the metric's"),
    "weight": Column(
        REAL, "what the item adds to its denominator: words or bytes for perplexities, else mostly 1"
    ),
    "answer": Column(
        TEXT, "number of the chosen option, or the generated text cut to 200 characters; null: neither"
    ),
    "fact_id": Column(TEXT, "the fact, within its data set"),
    "case_id": Column(TEXT, "facts that are edited together share it"),
    "position": Column(WHOLE, "number of the fact in the order of edits, from 1"),
    "kind": Column(TEXT, "what a probe asks for: reliability, generalization, locality, portability, …"),
    "probe": Column(WHOLE, "number of the probe among the fact's probes of its kind"),
    "when": Column(
        TEXT, "`before` any edit, `after_edit`: right after the fact's own, `now`: at the checkpoint"
    ),
    "prompt": Column(TEXT, "what the model is asked"),
    "target": Column(TEXT, "the answer that counts as right"),
    "other": Column(TEXT, "its rival: the answer before the edit, or the edit's; null: none"),
    "token_accuracy": Column(
        REAL, "teacher-forced: tokens of the target that are the most probable", "share of 1"
    ),
    "token_agreement": Column(
        REAL,
        "teacher-forced: most probable tokens that are the unedited model's; null: nothing to compare",
        "share of 1",
    ),
    "nll_target": Column(REAL, "mean negative log-likelihood of the target's tokens", "nats a token"),
    "nll_other": Column(REAL, "that of the rival; null: none", "nats a token"),
    "prefers_target": Column(FLAG, "target more probable than its rival; null: no rival"),
    "predicted": Column(
        pl.List(pl.Int32()), "most probable token at each place of the target", "token numbers"
    ),
    "generated": Column(TEXT, "greedy continuation; null: not generated"),
    "generated_match": Column(FLAG, "it begins with the target; null: not generated"),
    "generated_agreement": Column(
        FLAG, "it is the unedited model's; null: not generated, or nothing to compare"
    ),
    "subject": Column(TEXT, "what the edited fact is about"),
    "relation": Column(TEXT, "name of the relation, where the data set gives one"),
    "target_new": Column(TEXT, "the answer that the edit asks for"),
    "target_true": Column(TEXT, "the answer before; null: the data set gives none"),
    "status": Column(TEXT, "`applied`, or how the edit was left out"),
    "reason": Column(TEXT, "why it was left out; empty or null where it was not"),
    "update_norm": Column(REAL, "Frobenius norm of the operation's update, all matrices together"),
    "raw_norm": Column(REAL, "the same before the regulariser"),
    "loss": Column(REAL, "last value of the method's inner optimisation; null: it has none", "nats"),
    "steps": Column(WHOLE, "steps of it; null: it has none", "steps"),
    "delta_norm": Column(
        REAL, "length of the change that was sought in the hidden state; null: not this method"
    ),
    "key_overlap": Column(REAL, "kᵀu of the rank-one update, by which it is divided; null: another method"),
    "neurons": Column(WHOLE, "neurons that KN changed; null: another method", "neurons"),
    "parameter": Column(TEXT, "name of the edited matrix"),
    "statistic": Column(TEXT, "what is measured of it"),
    "threshold": Column(REAL, "threshold or quantile that the statistic is for; null: it has none"),
    "block_row": Column(WHOLE, "row of the block of the matrix", "blocks"),
    "block_col": Column(WHOLE, "column of the block of the matrix", "blocks"),
    "layer": Column(WHOLE, "number of the layer from 0; null: the model's output"),
    "question_type": Column(
        TEXT, "directly, with options, or as a statement to judge; null: the data set's own"
    ),
    "nll": Column(REAL, "mean negative log-likelihood of the edit's target before any edit", "nats a token"),
    "perplexity": Column(REAL, "exp(nll): the objective's perplexity of the D4S paper"),
    "facts": Column(WHOLE, "facts of the data set", "facts"),
    "known": Column(WHOLE, "facts that the unedited model knows", "facts"),
    "rule": Column(TEXT, "rule of the workflow"),
    "seconds": Column(REAL, "wall-clock time of the job; null: not recorded", "s"),
    "max_rss_mb": Column(REAL, "largest resident memory; null: not recorded", "MiB"),
    "bytes": Column(pl.Int64(), "of delta.parquet and state.safetensors, for rule edit; else null", "bytes"),
    "method": Column(TEXT, "editing method: a file in src/collateral/editing/methods"),
    "regularizer": Column(TEXT, "what is done to each update; `none`"),
    "keep": Column(REAL, "share that the regulariser keeps; null: it keeps no share", "% of the elements"),
    "batch_size": Column(WHOLE, "facts of one editing operation", "facts"),
    "editing": Column(TEXT, "`sequential`: one edit after another; `single`: each from the unedited model"),
    "collapsed": Column(FLAG, "the chain collapsed at this checkpoint or before"),
    "first": Column(FLAG, "it is the first checkpoint that shows a sign"),
    "reasons": Column(TEXT, 'the signs, joined by "; "'),
    "evaluated": Column(FLAG, "false: left out because the chain had collapsed"),
    "seeds": Column(WHOLE, "how many orders of edits", "seeds"),
    "unedited": Column(REAL, "value of the unedited model", "the metric's"),
    "edited": Column(REAL, "value of the edited model, mean over the seeds", "the metric's"),
    "scale": Column(
        TEXT, "`difference`: edited - unedited; `log_ratio`: ln(edited / unedited), for perplexities"
    ),
    "estimate": Column(REAL, "the effect", "the scale's"),
    "low": Column(REAL, "lower end of the uncorrected interval of level 1 - alpha", "the scale's"),
    "high": Column(REAL, "upper end of it", "the scale's"),
    "interval": Column(TEXT, "how the interval was made; null: there is none"),
    "p": Column(REAL, "two-sided, of no effect", "probability"),
    "test": Column(TEXT, "how p was made; null: there is none"),
    "p_holm": Column(
        REAL, "p corrected for all measurable cells of one model and data set (Holm)", "probability"
    ),
    "margin": Column(REAL, "change that still counts as none; positive", "the scale's"),
    "p_no_harm": Column(REAL, "one-sided, of a harm of the margin or more", "probability"),
    "p_no_harm_holm": Column(REAL, "the same, corrected (Holm)", "probability"),
    "equivalent": Column(FLAG, "both one-sided tests exclude an effect beyond the margin (TOST)"),
    "mde": Column(REAL, "minimum detectable effect at the configured power; positive", "the scale's"),
    "worse": Column(WHOLE, "items of 0/1 scores that got worse; null: other scores", "items"),
    "better": Column(WHOLE, "items of 0/1 scores that got better; null: other scores", "items"),
    "verdict": Column(TEXT, "`harm`, `no harm`, `inconclusive`, `at chance`, `collapsed` or `not evaluated`"),
    "normalised": Column(
        REAL, "(value - chance) / (unedited - chance); unedited / value for perplexities; 1: nothing lost"
    ),
    "measurable": Column(FLAG, "false: at chance before editing"),
    "horizon": Column(REAL, "edits until the loss is reached; null: not reached", "edits"),
    "reached": Column(FLAG, "whether the loss is reached by the last checkpoint"),
    "last_edits": Column(WHOLE, "last checkpoint", "edits"),
    "age_low": Column(WHOLE, "edits made after the fact's own, at least; -1: right after its edit", "edits"),
    "age_high": Column(WHOLE, "edits made after the fact's own, at most; -1: right after its edit", "edits"),
    "how": Column(TEXT, "`teacher-forced` or `generation`"),
    "efficacy_kind": Column(TEXT, "`teacher-forced`, `generation` or `retention`"),
    "efficacy": Column(REAL, "edit success of that kind", "share of 1"),
    "on_front": Column(
        FLAG, "no other point of the model, data set and kind is at least as good in both and better in one"
    ),
    "ability_area": Column(
        REAL, "mean normalised ability from 0 edits to the last checkpoint; 1: nothing lost"
    ),
    "efficacy_area": Column(REAL, "mean edit success over the same edits", "share of 1"),
    "source": Column(TEXT, "table of the statistic: weights, drift or objectives"),
    "harm": Column(TEXT, "what is lost: `mean`, or an ability"),
    "rho": Column(REAL, "Spearman's rank correlation of the statistic with the harm"),
    "artifact": Column(TEXT, "kind of file"),
    "library": Column(TEXT, "name of the package"),
    "version": Column(TEXT, "that was installed where the files were made"),
    "files": Column(WHOLE, "how many were made with it", "files"),
    "points": Column(WHOLE, "checkpoints behind it", "checkpoints"),
    "chains": Column(WHOLE, "chains that they belong to", "chains"),
}

_KEY = "model dataset seed editor edits"
_METRIC = "suite ability task metric"

MEASURED_ROWS = {
    "abilities": (
        "One row per checkpoint, suite, task and metric, and the same of the unedited model.",
        f"{_KEY} suite task ability metric value stderr n chance higher_is_better primary",
    ),
    "ability-items": (
        "One row per checkpoint, suite, task, item and metric: what is paired.",
        f"{_KEY} task task_hash doc_id doc_hash target_hash metric score weight answer suite",
    ),
    "collapses": (
        "One row per checkpoint that was evaluated, or left out because its chain had collapsed.",
        f"{_KEY} collapsed first reasons evaluated",
    ),
    "efficacy": (
        "One row per checkpoint, fact and probe: before any edit, right after the fact's edit, and now.",
        f"{_KEY} fact_id position kind probe when prompt target other token_accuracy token_agreement nll_target "
        "nll_other prefers_target predicted generated generated_match generated_agreement",
    ),
    "edits": (
        "One row per checkpoint and edit made since the checkpoint before.",
        f"{_KEY} position fact_id subject relation prompt target_new target_true status reason update_norm raw_norm "
        "loss steps delta_norm key_overlap neurons",
    ),
    "weights": (
        "One row per checkpoint, matrix, statistic and threshold: the edited matrix beside the unedited one.",
        f"{_KEY} parameter statistic threshold value",
    ),
    "drift": (
        "One row per checkpoint, layer and statistic: activations and next tokens on a fixed text.",
        f"{_KEY} layer statistic value",
    ),
    "heatmaps": (
        "One row per checkpoint, matrix and block: mean |ΔW|.",
        f"{_KEY} parameter block_row block_col value",
    ),
    "single-weights": (
        "One row per single edit, matrix, statistic and threshold.",
        f"{_KEY} position fact_id parameter statistic threshold value",
    ),
    "objectives": (
        "One row per fact and order: how surprising its edit target is to the unedited model.",
        "model dataset seed position fact_id case_id question_type target nll perplexity",
    ),
    "known": (
        "One row per model and data set that is restricted to known facts.",
        "model dataset facts known",
    ),
    "costs": (
        "One row per job of the study that Snakemake recorded, or whose update lies on the disk.",
        "rule model dataset seed editor edits suite seconds max_rss_mb bytes",
    ),
    "libraries": (
        "One row per kind of file, library and version that made it.",
        "artifact library version files",
    ),
    "editors": ("One row per editor of the study.", "editor method regularizer keep batch_size editing"),
}

INFERRED_ROWS = {
    "comparisons": (
        "One row per model, data set, editor, checkpoint and task: edited against unedited, paired by item.",
        f"model dataset editor edits {_METRIC} higher_is_better n seeds unedited edited scale estimate low high "
        "interval p test p_holm margin p_no_harm p_no_harm_holm equivalent mde worse better chance verdict",
    ),
    "normalised": (
        "One row per checkpoint and task: what is left of the ability.",
        f"{_KEY} {_METRIC} value unedited chance normalised measurable",
    ),
    "horizons": (
        "One row per editor and task: how many edits until a share of the ability is lost.",
        f"model dataset editor {_METRIC} loss horizon low high reached last_edits n seeds",
    ),
    "retention": (
        "One row per checkpoint, age of the edits and kind of probe: how many of the edits still hold.",
        "model dataset editor edits age_low age_high how value stderr n seeds",
    ),
    "tradeoffs": (
        "One row per editor, checkpoint and kind of edit success: ability left against success.",
        "model dataset editor edits ability efficacy_kind efficacy on_front",
    ),
    "areas": (
        "One row per editor and kind of edit success: both as means over the edits.",
        "model dataset editor efficacy_kind ability_area efficacy_area last_edits",
    ),
    "predictors": (
        "One row per model, data set, statistic and harm: whether the change of the weights goes with the loss.",
        "model dataset statistic source harm rho low high p points chains",
    ),
}

OVERRIDES = {
    ("single-weights", "edits"): Column(WHOLE, "last fact of the job that made the edit", "facts"),
    ("weights", "value"): Column(REAL, "the statistic", "the statistic's"),
    ("heatmaps", "value"): Column(REAL, "mean |ΔW| of the block"),
    ("single-weights", "value"): Column(REAL, "the statistic", "the statistic's"),
    ("objectives", "target"): Column(TEXT, "the answer that the edit asks for"),
    ("known", "dataset"): Column(TEXT, "name of the data set"),
    ("costs", "model"): Column(TEXT, "name of the model in the config; null: a job without"),
    ("costs", "dataset"): Column(TEXT, "name of the data set; null: a job without"),
    ("costs", "seed"): Column(WHOLE, "of the order of the edits; null: a job without"),
    ("costs", "editor"): Column(
        TEXT, "name of the editor, or the one that a hypernetwork is named after; null: a job without"
    ),
    ("costs", "edits"): Column(
        WHOLE, "edits after the job, or the last fact that it probes; null: neither", "edits"
    ),
    ("costs", "suite"): Column(TEXT, "suite that it evaluates; null: none"),
    ("horizons", "loss"): Column(REAL, "share of the ability whose loss ends the horizon", "share of 1"),
    ("horizons", "low"): Column(REAL, "lower end of its interval; null: beyond the last checkpoint", "edits"),
    ("horizons", "high"): Column(
        REAL, "upper end of its interval; null: beyond the last checkpoint", "edits"
    ),
    ("retention", "value"): Column(REAL, "probes of reliability that still succeed", "share of 1"),
    ("retention", "stderr"): Column(REAL, "standard error, clustered by fact", "share of 1"),
    ("retention", "n"): Column(WHOLE, "how many probes", "probes"),
    ("tradeoffs", "ability"): Column(
        REAL, "mean normalised ability over the measurable tasks; 1: nothing lost"
    ),
    ("predictors", "dataset"): Column(TEXT, "name of the data set; null: all together"),
    ("predictors", "low"): Column(REAL, "lower end of its interval, by bootstrap over chains"),
    ("predictors", "high"): Column(REAL, "upper end of its interval, by bootstrap over chains"),
}
