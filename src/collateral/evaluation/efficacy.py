"""Whether edits succeeded, and what changed around them: reliability, generalization, locality, portability.

Each probe is scored three ways: teacher-forced (token argmax), by probability, and by greedy free generation.
All probes of one fact form one batch of their own, so that a fact's numbers do not depend on which other facts
are measured with it.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache

from collateral.data.facts import Fact
from collateral.errors import CollateralError
from collateral.io.log_levels import NOTE
from collateral.io.parquet import read_table, write_table
from collateral.models.language_model import LanguageModel
from collateral.models.partial_forward import log_probabilities
from collateral.models.tokenization import fill_id, pad, tokenize

log = logging.getLogger(__name__)

SCHEMA: dict[str, type[pl.DataType] | pl.DataType] = {
    "fact_id": pl.String,
    "position": pl.Int32,
    "kind": pl.String,
    "probe": pl.Int32,
    "when": pl.String,
    "prompt": pl.String,
    "target": pl.String,
    "other": pl.String,
    "token_accuracy": pl.Float64,
    "token_agreement": pl.Float64,
    "nll_target": pl.Float64,
    "nll_other": pl.Float64,
    "prefers_target": pl.Boolean,
    "predicted": pl.List(pl.Int32),
    "generated": pl.String,
    "generated_match": pl.Boolean,
    "generated_agreement": pl.Boolean,
}
Reference = Mapping[tuple[str, str, int], Mapping[str, Any]]


@dataclass(frozen=True)
class _Probe:
    kind: str
    number: int
    prompt: str
    target: str
    other: str


def _list_probes(fact: Fact) -> list[_Probe]:
    new, true = fact.target_new, fact.target_true
    probes = [_Probe("reliability", 0, fact.text(), new, true)]
    probes += [_Probe("generalization", i, text, new, true) for i, text in enumerate(fact.paraphrases)]
    probes += [_Probe("locality", i, p.prompt, p.target, new) for i, p in enumerate(fact.neighborhood)]
    probes += [_Probe("portability", i, p.prompt, p.target, "") for i, p in enumerate(fact.portability)]
    return probes


@dataclass(frozen=True)
class TargetScore:
    """Teacher-forced score of one target: mean NLL per token (nats), argmax tokens, share of them right."""

    nll: float
    predicted: tuple[int, ...]
    accuracy: float


class Prompts:
    """Prompts that were run once; targets are scored, and text is generated, from their keys and values."""

    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]]):
        """Run the prompts side by side, padded on the left.

        Args:
            model: the model; its weights must stay as they are while this object is used.
            prompts: token ids.
        """
        self._model = model
        self._batch = pad(prompts, [len(ids) for ids in prompts], fill_id(model.tokenizer), model.device)
        self._cache = DynamicCache()
        self._last = self._run(self._batch.ids, self._batch.mask, self._batch.positions, self._cache)[:, -1:]

    def _run(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        base: Any = self._model.network.base_model
        with torch.no_grad():
            output = base(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
        final: Tensor = output.last_hidden_state
        return final

    def _extend(self, tokens: Tensor, cache: DynamicCache, lengths: Tensor | None = None) -> Tensor:
        """Return the last hidden states of tokens that follow the prompts and what the cache holds beyond them.

        Where rows have `lengths` of their own, the padding after them gets no position that the model may not have.
        """
        rows, width = tokens.shape
        done = cache.get_seq_length() - self._batch.mask.shape[1]
        mask = torch.cat([self._batch.mask, self._batch.mask.new_ones(rows, done + width)], dim=1)
        start = self._batch.positions[:, -1:] + 1 + done
        steps = torch.arange(width, device=tokens.device).expand(rows, -1)
        positions = start + (steps if lengths is None else torch.minimum(steps, lengths[:, None] - 1))
        return self._run(tokens, mask, positions, cache)

    def _copy(self) -> DynamicCache:
        copy = DynamicCache()
        layers: list[Any] = self._cache.layers
        for number, layer in enumerate(layers):
            copy.update(layer.keys, layer.values, number)
        return copy

    def score(self, targets: Sequence[Sequence[int]]) -> list[TargetScore]:
        """Return the teacher-forced score of one target per prompt."""
        width = max(len(target) for target in targets)
        filled = [[*target, *[0] * (width - len(target))] for target in targets]  # padding is never read
        tokens = torch.tensor(filled, device=self._model.device)
        final = self._last
        if width > 1:
            lengths = torch.tensor([len(target) - 1 for target in targets], device=tokens.device)
            final = torch.cat([final, self._extend(tokens[:, :-1], self._copy(), lengths)], dim=1)
        row = torch.tensor([i for i, target in enumerate(targets) for _ in target], device=tokens.device)
        column = torch.tensor([j for target in targets for j in range(len(target))], device=tokens.device)
        log_p = log_probabilities(self._model, final, row, column)
        nll = -log_p.gather(1, tokens[row, column][:, None])[:, 0]
        best = log_p.argmax(dim=1)
        scores: list[TargetScore] = []
        start = 0
        for target in targets:
            span = slice(start, start := start + len(target))
            predicted = tuple(best[span].tolist())
            scores.append(TargetScore(float(nll[span].mean()), predicted, _share_equal(predicted, target)))
        return scores

    def generate(self, new_tokens: int) -> list[str]:
        """Return the greedy continuation of each prompt as text: `new_tokens` tokens, or up to the end token."""
        tokenizer, cache = self._model.tokenizer, self._copy()
        every = torch.arange(len(self._last), device=self._model.device)
        final = self._last
        chosen: list[Tensor] = []
        for step in range(new_tokens):
            chosen.append(log_probabilities(self._model, final, every, torch.zeros_like(every)).argmax(dim=1))
            if step < new_tokens - 1:
                final = self._extend(chosen[-1][:, None], cache)
        texts = []
        for ids in torch.stack(chosen, dim=1).tolist():
            end = ids.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in ids else len(ids)
            texts.append(str(tokenizer.decode(ids[:end], skip_special_tokens=True)))
        return texts


def _share_equal(left: Sequence[int], right: Sequence[int]) -> float:
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(right)


def begins_with(generated: str, target: str) -> bool:
    """Return whether a generated text begins with the target as whole words, letter case ignored."""
    text, wanted = generated.strip().casefold(), target.strip().casefold()
    return text.startswith(wanted) and not text[len(wanted) : len(wanted) + 1].isalnum()


def measure_fact(
    model: LanguageModel, position: int, fact: Fact, when: str, new_tokens: int, reference: Reference | None
) -> list[dict[str, Any]]:
    """Return one row per probe of a fact.

    Args:
        model: in the state that is to be measured.
        position: the fact's number in the sequence.
        fact: the fact.
        when: `before` (unedited), `after_edit` (right after its own edit) or `now` (at a checkpoint).
        new_tokens: length of the free generation; longer where an answer has more tokens.
        reference: the unedited model's rows, for agreement; None where these rows are that reference.
    """
    probes = _list_probes(fact)
    asked = [tokenize(model.tokenizer, probe.prompt, probe.target) for probe in probes]
    rivals = [
        tokenize(model.tokenizer, probe.prompt, probe.other) if probe.other else row
        for probe, row in zip(probes, asked, strict=True)
    ]
    prompts = Prompts(model, [row.ids[: row.prompt_length] for row in asked])
    scores = prompts.score([row.target for row in asked])
    others = prompts.score([row.target for row in rivals])
    longest = max(len(row.target) for row in asked)  # a text cut before its answer ends could never match
    generated = prompts.generate(max(new_tokens, longest))
    rows = []
    for probe, text, target, rival in zip(probes, generated, scores, others, strict=True):
        other = rival if probe.other else None
        row: dict[str, Any] = {
            "fact_id": fact.fact_id,
            "position": position,
            "kind": probe.kind,
            "probe": probe.number,
            "when": when,
            "prompt": probe.prompt,
            "target": probe.target,
            "other": probe.other,
            "token_accuracy": target.accuracy,
            "nll_target": target.nll,
            "nll_other": other.nll if other else None,
            "prefers_target": _prefers(target.nll, other.nll) if other else None,
            "predicted": list(target.predicted),
            "generated": text,
            "generated_match": begins_with(text, probe.target),
            "token_agreement": None,
            "generated_agreement": None,
        }
        if probe.kind == "locality":
            _compare_with_unedited(row, row if reference is None else _find_reference(reference, row))
        rows.append(row)
    return rows


def _prefers(target: float, other: float) -> bool:
    return math.isfinite(target) and target < other


def _compare_with_unedited(row: dict[str, Any], unedited: Mapping[str, Any]) -> None:
    row["token_agreement"] = _share_equal(row["predicted"], unedited["predicted"])
    row["generated_agreement"] = row["generated"] == unedited["generated"]


def _find_reference(reference: Reference, row: Mapping[str, Any]) -> Mapping[str, Any]:
    key = (row["fact_id"], row["kind"], row["probe"])
    if key not in reference:
        raise CollateralError(
            f"no unedited reference for fact '{key[0]}', {key[1]} probe {key[2]}; run it again"
        )
    return reference[key]


def measure_facts(
    model: LanguageModel,
    facts: Iterable[tuple[int, Fact]],
    when: str,
    new_tokens: int,
    reference: Reference | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of several facts, one batch per fact."""
    rows: list[dict[str, Any]] = []
    for position, fact in tqdm(list(facts), desc="efficacy", unit="fact", disable=None):
        rows += measure_fact(model, position, fact, when, new_tokens, reference)
    return rows


def known_facts(model: LanguageModel, facts: Sequence[Fact], batch: int = 16) -> pl.DataFrame:
    """Return fact_id, known, nll_true: whether every token of the true answer is the argmax under teacher forcing.

    Facts without a true answer are not known.
    """
    asked = [fact for fact in facts if fact.target_true]
    scores_by_id: dict[str, TargetScore] = {}
    for start in tqdm(range(0, len(asked), batch), desc="known facts", unit="batch", disable=None):
        group = asked[start : start + batch]
        rows = [tokenize(model.tokenizer, fact.text(), fact.target_true) for fact in group]
        scores = Prompts(model, [row.ids[: row.prompt_length] for row in rows]).score(
            [r.target for r in rows]
        )
        scores_by_id |= {f.fact_id: s for f, s in zip(group, scores, strict=True)}
    return pl.DataFrame(
        [
            (fact.fact_id, score.accuracy == 1.0 if score else False, score.nll if score else None)
            for fact in facts
            for score in (scores_by_id.get(fact.fact_id),)
        ],
        schema={"fact_id": pl.String, "known": pl.Boolean, "nll_true": pl.Float64},
        orient="row",
    )


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write efficacy rows to parquet."""
    write_table(pl.DataFrame(list(rows), schema=SCHEMA), path)


def read_reference(paths: Sequence[Path]) -> Reference:
    """Return the unedited rows of some files by (fact_id, kind, probe)."""
    tables = [read_table(path, "an efficacy table", tuple(SCHEMA)) for path in paths]
    return {(row["fact_id"], row["kind"], row["probe"]): row for table in tables for row in table.to_dicts()}


def write_known(known: pl.DataFrame, path: Path) -> None:
    """Write the table of known facts, and say how many there are."""
    right, total = int(known["known"].sum()), len(known)
    log.log(NOTE, "the unedited model knows %d of %d facts (%.1f %%)", right, total, 100 * right / total)
    write_table(known, path)
