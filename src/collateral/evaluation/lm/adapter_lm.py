"""lm-eval's view of a model whose answer depends on where the prompt ends."""

from collections.abc import Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from collateral.evaluation.efficacy import Prompts
from collateral.models.language_model import LanguageModel

Request = tuple[tuple[str, str] | None, list[int], list[int]]


class AdaptedLM(HFLM):  # type: ignore[misc]
    """HFLM that runs each context by itself and scores its continuation from the cache.

    HFLM scores context and continuation as one row, in which nothing says where the context ends. Generation pads
    on the left and continues a cache, and so needs nothing of its own. Order, truncation, cache keys and results
    are HFLM's; requests whose tokens are equal are not merged, as their contexts may end elsewhere.
    """

    def __init__(self, model: LanguageModel, batch_size: int):
        super().__init__(
            pretrained=model.network, tokenizer=model.tokenizer, batch_size=batch_size, dtype=None
        )
        self._language_model = model

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Return (log-likelihood of the continuation in nats, whether greedy decoding gives it) per request."""
        order = sorted(range(len(requests)), key=lambda i: _rank_by_length(requests[i]))
        size = override_bs or self.batch_size
        scores: dict[int, tuple[float, bool]] = {}
        with tqdm(total=len(requests), desc="Running loglikelihood requests", disable=disable_tqdm) as bar:
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                continuations = [requests[i][2] for i in batch]
                contexts = [_truncate_context(requests[i], self.max_length) for i in batch]
                for i, score in zip(
                    batch, Prompts(self._language_model, contexts).score(continuations), strict=True
                ):
                    continuation = requests[i][2]
                    scores[i] = (-score.nll * len(continuation), list(score.predicted) == continuation)
                    if requests[i][0] is not None:  # those without a key are parts of a rolling request
                        self.cache_hook.add_partial("loglikelihood", requests[i][0], scores[i])
                bar.update(len(batch))
        return [scores[i] for i in range(len(requests))]


def _rank_by_length(request: Request) -> Any:
    tokens = request[1] + request[2]
    return -len(tokens), tuple(tokens)


def _truncate_context(request: Request, limit: int) -> list[int]:
    """Return the end of the context that the model has room for; the last token is only predicted."""
    _, context, continuation = request
    return context[-(limit + 1 - len(continuation)) :]
