"""One ROME edit of the embedded model: the resumed optimisation against plain full forward passes.

Both versions run in this process, in turn, on the same facts, templates and threads; the result of each pair is
compared before its time counts. Printed: medians and their ratio.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
import yaml

from collateral.contexts import sample_templates
from collateral.models import LanguageModel, load_model
from collateral.modelsource import fetch_model
from collateral.provenance import machine
from collateral.sources import embedded
from collateral.targets import ESSENCE, Objective, optimize_target
from collateral.tokens import fill_id, pad, tokenize

ROOT = Path(__file__).parents[1]


def plain_target(model: LanguageModel, fact, templates, layer: int, objective: Objective) -> torch.Tensor:
    """The same optimisation with a full forward pass over all tokens, layers and logits at each step."""
    rows = [tokenize(model.tokenizer, fact.text(t), fact.target_new, fact.subject_span(t)) for t in templates]
    essence = tokenize(model.tokenizer, ESSENCE.replace("{}", fact.subject), subject=(0, len(fact.subject)))
    texts = [row.ids[:-1] for row in rows] + [essence.ids]
    batch = pad(texts, [0] * len(texts), fill_id(model.tokenizer), model.device)
    every = torch.arange(len(texts))
    where = torch.tensor([row.subject_last for row in (*rows, essence)])
    mlp = model.module(model.architecture.mlp.format(layer))
    seen: dict[str, torch.Tensor] = {}
    delta: torch.Tensor | None = None

    def shift(_, __, output):
        nonlocal delta
        if delta is None:
            seen["h_0"] = output[0, where[0]].detach()
            delta = torch.zeros_like(seen["h_0"], requires_grad=True)
        moved = output.clone()
        moved[every, where] = moved[every, where] + delta
        return moved

    first, optimizer = None, None
    handle = mlp.register_forward_hook(shift)
    for step in range(objective.steps):
        logits = model.network(input_ids=batch.ids, attention_mask=batch.mask).logits
        log_p = logits.log_softmax(-1)
        nll = sum(
            -log_p[i, row.prompt_length - 1 + j, token] / (len(row.target) * len(rows))
            for i, row in enumerate(rows)
            for j, token in enumerate(row.target)
        )
        now = log_p[-1, essence.subject_last]
        first = now.detach() if first is None else first
        drift = torch.nn.functional.kl_div(first, now, log_target=True, reduction="sum")
        h_0 = seen["h_0"]
        loss = nll + objective.kl_factor * drift + objective.weight_decay * delta.norm() / h_0.norm() ** 2
        if float(loss.detach()) < objective.stop_loss or step == objective.steps - 1:
            break
        optimizer = optimizer or torch.optim.Adam([delta], lr=objective.learning_rate)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            delta *= (objective.clamp_factor * h_0.norm() / delta.norm()).clamp_max(1.0)
    handle.remove()
    return delta.detach()


def main() -> None:
    """Time both versions and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--facts", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--steps", type=int, default=25)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())["models"]["smollm2-135m"]
    folder = ROOT / "resources/models/smollm2-135m"
    if not (folder / "manifest.json").exists():
        fetch_model(config["source"], folder)
    model = load_model(folder)
    templates = sample_templates(model, [[5, 10], [10, 10]], 0)
    objective = Objective(chosen.steps, 0.5, 1e-3, 4.0, 0.0625, stop_loss=0.0)
    facts = embedded.load(ROOT / "resources/embedded")[:: 560 // chosen.facts][: chosen.facts]
    times: dict[str, list[float]] = {"plain": [], "resumed": []}
    worst = 0.0
    for fact in facts:
        start = time.perf_counter()
        slow = plain_target(model, fact, templates, 5, objective)
        middle = time.perf_counter()
        fast = optimize_target(model, fact, templates, 5, objective).delta
        times["plain"].append(middle - start)
        times["resumed"].append(time.perf_counter() - middle)
        worst = max(worst, float((slow - fast).norm() / slow.norm()))
        if worst > 1e-2:
            raise SystemExit(f"{fact.fact_id}: the two versions differ by {worst:.1e} of the norm")
    plain, resumed = (statistics.median(times[name]) for name in ("plain", "resumed"))
    print(
        f"{machine()['processor']}, {chosen.threads} threads; ROME's value optimisation, {chosen.steps} steps,"
    )
    print(f"{len(templates)} contexts, {len(facts)} facts; largest difference {worst:.1e} of the norm\n")
    print("| version | seconds an edit (median) | ratio |\n|---|---|---|")
    print(f"| plain: full forward passes | {plain:.2f} | 1.0 |")
    print(f"| resumed above the edited layer | {resumed:.2f} | {plain / resumed:.1f} |")


if __name__ == "__main__":
    main()
