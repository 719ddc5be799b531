"""lm-eval's view of the edited model: shared beginnings are computed once, and rows leave the batch when they end.

lm-eval's own HFLM runs context and option as one row each, so that the context of a question with four options runs
four times, and projects every position on the vocabulary. Here texts that begin alike are one row, and only positions
that predict an option's token are projected; a generation's rows leave their batch as they end.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from torch import Tensor, nn
from tqdm import tqdm

from collateral.errors import CollateralError
from collateral.evaluation.lm.greedy_generation import StopRule, generate_greedily
from collateral.evaluation.lm.prefix_tree import Request, Row, pack_rows, plan_rows
from collateral.models.language_model import LanguageModel
from collateral.models.tokenization import fill_id

READS = 256  # positions that are projected on the vocabulary at a time


class SharedPrefixLM(HFLM):  # type: ignore[misc]
    """HFLM with requests that share a context in one row, and a generation whose rows end by themselves.

    Truncation, cache keys and results are HFLM's; log-likelihoods differ from it by rounding.
    """

    def __init__(self, model: LanguageModel, batch_size: int):
        super().__init__(
            pretrained=model.network, tokenizer=model.tokenizer, batch_size=batch_size, dtype=None
        )
        self._language_model = model
        self._window: int = getattr(model.network.config, "sliding_window", None) or 0
        self.broken: set[str] = set()  # prompts whose generation met logits that are not numbers

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Return (log-likelihood of the continuation in nats, whether greedy decoding gives it) per request."""
        rows, size = plan_rows(requests, self.max_length), override_bs or self.batch_size
        if self._window and max((row.longest() for row in rows), default=0) > self._window:
            # the mask of a shared row does not end where a sliding window does
            return list(super()._loglikelihood_tokens(requests, disable_tqdm, override_bs))
        scores: dict[int, tuple[float, bool]] = {}
        with tqdm(total=len(requests), desc="Running loglikelihood requests", disable=disable_tqdm) as bar:
            for start in range(0, len(rows), size):
                for number, score in self._score_rows(rows[start : start + size]).items():
                    scores[number] = score
                    if requests[number][0] is not None:  # those without a key are parts of a rolling request
                        self.cache_hook.add_partial("loglikelihood", requests[number][0], score)
                    bar.update(1)
        return [scores[number] for number in range(len(requests))]

    def _score_rows(self, rows: Sequence[Row]) -> dict[int, tuple[float, bool]]:
        """Return the score of each request of some rows.

        A value that is not a number affects its neighbours, too, however they are masked: those are scored again.
        """
        scores = dict(self._score_once(rows))
        for row in rows:
            if len(row.texts) > 1 and any(math.isnan(scores[text.number][0]) for text in row.texts):
                scores |= dict(self._score_once(row.split()))
        return scores

    @torch.no_grad()
    def _score_once(self, rows: Sequence[Row]) -> Iterator[tuple[int, tuple[float, bool]]]:
        network = self._language_model.network
        batch = pack_rows(
            rows, fill_id(self._language_model.tokenizer), network.dtype, self._language_model.device
        )
        output = network.base_model(
            input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
        )
        likelihoods, greedy = self._read(output.last_hidden_state, batch.reads, batch.targets)
        start = 0
        for row in rows:
            for text in row.texts:
                span = slice(start, start := start + len(text.continuation))
                yield text.number, (float(likelihoods[span].sum()), bool(greedy[span].all()))

    def _read(self, final: Tensor, reads: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p of each target in float64, and whether it is the most probable token."""
        head: nn.Module = self._language_model.network.get_output_embeddings()
        likelihoods, greedy = [], []
        for part, target in zip(reads.split(READS), targets.split(READS), strict=True):
            # options of one context begin at the same position
            positions, back = torch.unique(part, dim=0, return_inverse=True)
            logits = head(final[positions[:, 0].to(final.device), positions[:, 1].to(final.device)]).float()
            back, target = back.to(logits.device), target.to(logits.device)
            likelihood = logits[back, target] - logits.logsumexp(dim=1)[back]
            likelihoods.append(likelihood.double().cpu())
            greedy.append((logits.argmax(dim=1)[back] == target).cpu())
        return torch.cat(likelihoods), torch.cat(greedy)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the text that follows each context, cut at its first stop sequence.

        Of greedy requests it is HFLM's, but where two tokens are as probable as each other up to rounding; HFLM
        itself generates all others.
        """
        texts: dict[int, str] = {}
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        with tqdm(total=len(requests), desc="Running generate_until requests", disable=disable_tqdm) as bar:
            for numbers in groups.values():
                group = [requests[number] for number in numbers]
                if self._is_greedy(group[0].args[1]):
                    generated = self._generate_greedily(group, bar)
                else:
                    generated = super().generate_until(group)
                texts |= dict(zip(numbers, generated, strict=True))
        return [texts[number] for number in range(len(requests))]

    def _is_greedy(self, options: dict[str, Any]) -> bool:
        """Return whether the most probable token is taken, and nothing else decides."""
        kwargs = normalize_gen_kwargs(options, self.max_gen_toks)
        sampled = kwargs.pop("do_sample", False) or kwargs.pop("temperature", 0.0)
        others = set(kwargs) - {"until", "max_gen_toks", "temperature", "do_sample"}
        model = self._language_model.network.generation_config
        penalties = (
            (model.repetition_penalty or 1.0) != 1.0,
            model.no_repeat_ngram_size or model.min_length or model.min_new_tokens,
            model.suppress_tokens or model.begin_suppress_tokens or model.bad_words_ids,
            model.forced_bos_token_id is not None or model.forced_eos_token_id is not None,
            (model.num_beams or 1) > 1,
        )
        return not (sampled or others or any(penalties)) and self.think_end_token is None

    def _generate_greedily(self, requests: Sequence[Any], bar: Any) -> list[str]:
        kwargs = normalize_gen_kwargs(requests[0].args[1], self.max_gen_toks)
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(kwargs["until"], eos=eos)
        new_tokens, room = kwargs["max_gen_toks"], self.max_length - kwargs["max_gen_toks"]
        if room <= 0:
            raise CollateralError(
                f"a task generates up to {new_tokens} tokens, but the model takes {self.max_length} in all; lower "
                "its max_gen_toks"
            )
        contexts = [self._encode_context(request.args[0], room) for request in requests]
        end_tokens = _as_set(self._language_model.network.generation_config.eos_token_id)
        stop_rule = StopRule(self.tok_decode, until, end_tokens, new_tokens)
        texts: dict[int, str] = {}
        for row in generate_greedily(self._language_model, contexts, stop_rule, self.batch_size):
            arguments = requests[row.number].args
            if row.broken:
                self.broken.add(arguments[0])
            texts[row.number] = postprocess_generated_text(self.tok_decode(row.tokens), until, None)
            self.cache_hook.add_partial("generate_until", arguments, texts[row.number])
            bar.update(1)
        return [texts[number] for number in range(len(requests))]

    def _encode_context(self, text: str, limit: int) -> list[int]:
        ids, _ = self.tok_batch_encode([text], left_truncate_len=limit, truncation=self.truncation)
        return [int(token) for token in ids[0]]


def _as_set(value: int | list[int] | None) -> frozenset[int]:
    return frozenset([value] if isinstance(value, int) else value or [])
