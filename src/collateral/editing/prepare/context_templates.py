"""Context templates: short seeded continuations that are put before an edit's prompt (ROME section 3.1)."""

from collections.abc import Sequence
from pathlib import Path

import torch

from collateral.data.facts import PLACEHOLDER
from collateral.errors import CollateralError
from collateral.io.atomic import read_sealed_json, write_json
from collateral.models.language_model import LanguageModel

OPENINGS = ("The", "Therefore", "Because", "I", "You")


def sample_templates(
    model: LanguageModel, lengths: Sequence[Sequence[int]], seed: int, top_k: int = 5
) -> tuple[str, ...]:
    """Return `"{}"` and, for each length, that many sampled texts of so many tokens, each followed by `". {}"`.

    The texts continue the openings The, Therefore, Because, I, You in turn, by top-k sampling with
    renormalised probabilities from the unedited model; line breaks become spaces and braces are dropped.

    Args:
        model: the unedited model.
        lengths: pairs of tokens in all, opening included, and number of texts.
        seed: of the sampling.
        top_k: number of candidates at each token.
    """
    generator = torch.Generator().manual_seed(seed)
    templates = [PLACEHOLDER]
    for length, count in lengths:
        for number in range(count):
            text = _continue(model, OPENINGS[number % len(OPENINGS)], length, top_k, generator)
            clean = " ".join(text.replace("{", " ").replace("}", " ").split())
            templates.append(f"{clean}. {PLACEHOLDER}")
    return tuple(templates)


def _continue(model: LanguageModel, opening: str, length: int, top_k: int, generator: torch.Generator) -> str:
    ids: list[int] = list(model.tokenizer(opening)["input_ids"])
    special = len(ids) - len(model.tokenizer(opening, add_special_tokens=False)["input_ids"])
    while len(ids) - special < length:
        with torch.no_grad():
            ids_now = torch.tensor([ids], device=model.device)
            logits = model.network(ids_now, use_cache=False, logits_to_keep=1).logits[0, -1]
        best = logits.float().cpu().topk(min(top_k, len(logits)))
        drawn = torch.multinomial(best.values.softmax(dim=0), 1, generator=generator)
        ids.append(int(best.indices[drawn]))
    return str(model.tokenizer.decode(ids, skip_special_tokens=True))


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Return explicit templates after checking them.

    Raises:
        CollateralError: the first is not the bare `"{}"`, or one has not exactly one `{}`.
    """
    if not templates or templates[0] != PLACEHOLDER:
        raise CollateralError(
            f"contexts.explicit: the first template is {templates[:1]}; put the bare '{{}}' first"
        )
    for template in templates:
        if template.count(PLACEHOLDER) != 1:
            raise CollateralError(
                f"contexts.explicit: the template is {template!r}; write '{{}}' exactly once in it"
            )
    return tuple(templates)


def write_templates(templates: Sequence[str], path: Path, base_sha256: str) -> None:
    """Write the templates with the identity of the model that they were sampled from."""
    write_json(path, {"base_sha256": base_sha256, "templates": list(templates)})


def read_templates(path: Path) -> tuple[str, ...]:
    """Return the templates of a file."""
    value = read_sealed_json(path, "context templates")
    if "templates" not in value:
        raise CollateralError(f"{path}: holds no context templates; delete it and run the workflow again")
    return check_templates(value["templates"])
