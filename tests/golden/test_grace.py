"""GRACE by algebra: which entry answers, what it replaces, and that nothing else moves."""

import math

import pytest
import torch

from collateral.data.facts import Fact, Probe
from collateral.editing.algorithms.codebook import GAP, SLACK, Codebook
from collateral.editing.method import Prepared, UnstableEditError
from collateral.editing.methods.grace import Grace
from collateral.editing.registry import check_settings
from collateral.errors import CollateralError
from collateral.evaluation.efficacy import Prompts, measure_fact
from collateral.models.hooks import capture, get_hidden
from collateral.models.tokenization import pad, tokenize
from tiny import tiny_model

LAYER = 1
PREPARED = Prepared(("{}",), seed=5)
SITES = ("down", "input", "block")


def grace(**settings):
    return Grace(**{"layer": LAYER, "n_iter": 3, "epsilon": 0.01, **settings})


def site_module(model, site):
    paths = model.architecture
    path = {"down": paths.down, "input": paths.inputs[0], "block": paths.block}[site]
    return model.module(path.format(LAYER))


def plain_log_p(model, fact, site, replacement, value):
    """log p of the target's tokens with the value put in by hand: one row, no cache, a full pass."""
    row = tokenize(model.tokenizer, fact.text(), fact.target_new)
    last = row.prompt_length - 1
    places = {"last": slice(last, last + 1), "prompt": slice(0, last + 1), "all": slice(None)}

    def swap(_, __, output):
        hidden = get_hidden(output).clone()
        hidden[0, places[replacement]] = value
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = site_module(model, site).register_forward_hook(swap)
    log_p = model.network(torch.tensor([row.ids[:-1]])).logits[0].log_softmax(-1)
    handle.remove()
    return torch.stack([log_p[last + j, token] for j, token in enumerate(row.target)])


def logits(model, texts, left=True):
    """Logits at each text's last token, padded on one side."""
    rows = [model.tokenizer(text)["input_ids"] for text in texts]
    lengths = [len(row) for row in rows]
    batch = pad(rows, lengths if left else [0] * len(rows), 0, model.device)
    with torch.no_grad():
        made = model.network(batch.ids, attention_mask=batch.mask, position_ids=batch.positions).logits
    ends = [batch.ids.shape[1] - 1] * len(rows) if left else [n - 1 for n in lengths]
    return torch.stack([made[i, end] for i, end in enumerate(ends)])


def entry(*numbers):
    return torch.tensor(numbers)


# --- the codebook, in two dimensions ------------------------------------------------------------------------------


def book_of(*entries):
    """A codebook of (key, radius, label); value number i is i everywhere."""
    keys = torch.tensor([key for key, _, _ in entries])
    values = torch.arange(float(len(entries)))[:, None].expand(-1, 2).clone()
    return Codebook(keys, values, torch.tensor([e for _, e, _ in entries]), tuple(y for _, _, y in entries))


def test_the_first_query_becomes_a_key():
    book, place, new = Codebook.empty(2, 3, torch.device("cpu")).prepared(entry(3.0, 4.0), (7, 8), 0.5)
    assert (place, new) == (0, True)
    assert book.keys.tolist() == [[3.0, 4.0]]
    assert book.epsilons.tolist() == [0.5]
    assert book.labels == ((7, 8),)
    assert book.values.shape == (1, 3)


def test_far_away_a_key_is_added_and_nothing_else_moves():
    old = book_of(((0.0, 0.0), 1.0, (1,)))
    book, place, new = old.prepared(entry(0.0, 1.75), (1,), 0.5)  # 1.75 > 1 + 0.5
    assert (place, new) == (1, True)
    assert book.epsilons.tolist() == [1.0, 0.5]
    assert book.labels == ((1,), (1,))


def test_the_same_label_widens_the_radius_to_the_distance():
    old = book_of(((0.0, 0.0), 1.0, (1, 2)))
    book, place, new = old.prepared(entry(0.0, 1.25), (1, 2), 0.5)  # 1.25 <= 1 + 0.5
    assert (place, new) == (0, False)
    assert book.keys.tolist() == [[0.0, 0.0]]
    assert book.epsilons.tolist() == pytest.approx([1.25 * (1 + SLACK)])
    inside, _, _ = old.prepared(entry(0.0, 0.25), (1, 2), 0.5)
    assert inside.epsilons.tolist() == [1.0], "a radius never shrinks by a query inside it"


def test_another_label_halves_the_radii():
    old = book_of(((0.0, 0.0), 1.0, (1, 2)), ((9.0, 0.0), 1.0, (1, 2)))
    book, place, new = old.prepared(entry(0.0, 0.5), (1, 3), 0.75)
    assert (place, new) == (2, True)
    assert book.epsilons.tolist() == pytest.approx([0.25 - GAP, 1.0, 0.25], abs=1e-7)
    assert book.labels == ((1, 2), (1, 2), (1, 3))
    assert float(book.epsilons[0] + book.epsilons[2]) < 0.5, "no query lies in both"


@pytest.mark.parametrize("label", [(3, 1), (2, 2), (1, 3, 2), (1,)])
def test_labels_are_compared_as_sequences(label):
    """(1, 3) has the mean of (3, 1), of (2, 2) and of (1, 3, 2), which the released code takes for equal."""
    _, _, new = book_of(((0.0, 0.0), 1.0, (1, 3))).prepared(entry(0.0, 0.5), label, 1.0)
    assert new


def test_labels_stay_beside_their_keys():
    """Three keys: a query at each, with its own label, finds its own entry; with another's it does not."""
    book = Codebook.empty(2, 1, torch.device("cpu"))
    places = [((0.0, 0.0), (1,)), ((10.0, 0.0), (2, 2)), ((20.0, 0.0), (3, 3, 3))]
    for number, (key, label) in enumerate(places):
        book, place, _ = book.prepared(torch.tensor(key), label, 1.0)
        book = book.learnt(place, torch.tensor([float(number)]))
    book = Codebook.of(book.state(), torch.device("cpu"))
    assert book.labels == ((1,), (2, 2), (3, 3, 3))
    for number, (key, label) in enumerate(places):
        near = torch.tensor(key) + torch.tensor([0.5, 0.0])
        assert book.prepared(near, label, 1.0)[1:] == (number, False)
        for _, other in places[:number] + places[number + 1 :]:
            assert book.prepared(near, other, 1.0)[1:] == (3, True)
        distances, indices = book.nearest(near[None])
        assert float(distances[0]) == pytest.approx(0.5)
        assert float(book.values[indices[0], 0]) == number


def test_the_same_query_with_another_label_takes_the_entry_over():
    old = book_of(((0.0, 0.0), 1.0, (1,)), ((5.0, 0.0), 1.0, (1,)))
    book, place, new = old.prepared(entry(0.0, 0.0), (2,), 1.0)
    assert (place, new) == (0, True)
    assert book.labels == ((2,), (1,))
    assert book.epsilons.tolist() == [1.0, 1.0]


def test_state_holds_everything():
    book = book_of(((0.0, 1.0), 1.0, (1, 2)), ((2.0, 3.0), 0.5, (4,)))
    state = book.state()
    assert state["labels"].tolist() == [[1, 2], [4, -1]]
    again = Codebook.of(state, torch.device("cpu"))
    assert again.labels == book.labels
    for name in ("keys", "values", "epsilons"):
        assert torch.equal(getattr(again, name), getattr(book, name))


# --- the method on four families ----------------------------------------------------------------------------------


@pytest.mark.parametrize("replacement", ["last", "prompt", "all"])
def test_learning_equals_plain_adam_on_full_passes(model, fact, replacement):
    for site in SITES:
        editor = grace(site=site, replacement=replacement, n_iter=4, edit_lr=0.1)
        edit = editor(model, [fact], PREPARED, {})
        size = edit.state["values"].shape[1]
        value = torch.rand(size, generator=torch.Generator().manual_seed(PREPARED.seed)).requires_grad_()
        optimizer = torch.optim.Adam([value], lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            (-plain_log_p(model, fact, site, replacement, value).mean()).backward()
            optimizer.step()
        assert torch.allclose(edit.state["values"][0], value.detach(), atol=2e-4)
        with torch.no_grad():
            loss = -float(plain_log_p(model, fact, site, replacement, edit.state["values"][0]).mean())
        assert edit.record["loss"] == pytest.approx(loss, rel=1e-5)
        assert edit.record["steps"] == 4.0


def test_the_key_is_the_modules_input_at_the_last_prompt_token(model, fact):
    for site in SITES:
        state = grace(site=site)(model, [fact], PREPARED, {}).state
        ids = model.tokenizer(fact.text())["input_ids"]
        with torch.no_grad(), capture(site_module(model, site)) as seen:
            model.network(torch.tensor([ids]))
        assert torch.allclose(state["keys"][0], seen["input"][0, -1], atol=1e-5)
        assert state["epsilons"].tolist() == pytest.approx([0.01])
        row = tokenize(model.tokenizer, fact.text(), fact.target_new)
        assert state["labels"].tolist() == [list(row.target)]


def test_the_call_and_the_adapter_leave_no_trace(model, fact):
    before = {name: weight.clone() for name, weight in model.network.named_parameters()}
    clean = logits(model, [fact.text()])
    editor = grace()
    edit = editor(model, [fact], PREPARED, {})
    assert not edit.delta.updates
    assert editor.parameters(model) == ()
    with editor.attach(model, edit.state):
        assert not torch.allclose(logits(model, [fact.text()]), clean, atol=1e-3)
    assert torch.equal(logits(model, [fact.text()]), clean)
    for name, weight in model.network.named_parameters():
        assert torch.equal(weight, before[name])
        assert not weight.requires_grad
        assert weight.grad is None
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.network.modules())
    assert all("forward" not in vars(m) for m in model.network.modules())


def test_off_key_inputs_keep_their_bits(model, fact):
    editor = grace()
    state = editor(model, [fact], PREPARED, {}).state
    others = ["Merlin lives in", "The founder of the Round Table is", fact.text() + " Benwick"]
    clean = logits(model, others)
    beside = logits(model, [*others, fact.text()])
    with editor.attach(model, state):
        assert torch.equal(logits(model, others), clean)
        hit = logits(model, [*others, fact.text()])
    assert torch.equal(hit[:3], beside[:3]), "a row beside one that hits is not touched"
    assert not torch.allclose(hit[3], beside[3], atol=1e-3)


def test_the_prompts_end_does_not_depend_on_padding(model, fact):
    for replacement in ("last", "prompt", "all"):
        editor = grace(replacement=replacement)
        state = editor(model, [fact], PREPARED, {}).state
        long = "Because I think, you think. Therefore the sea is blue. Lancelot was born in"
        with editor.attach(model, state):
            alone = model.network(torch.tensor([model.tokenizer(fact.text())["input_ids"]])).logits[0, -1]
            left = logits(model, [long, fact.text()])[1]
            right = logits(model, [long, fact.text()], left=False)[1]
        assert torch.allclose(left, alone, atol=1e-4)
        assert torch.allclose(right, alone, atol=1e-4)


@pytest.mark.parametrize("replacement", ["last", "prompt", "all"])
def test_likelihood_and_generation_agree_with_plain_passes(model, fact, replacement):
    """Scored from the cache in a padded batch, by Hugging Face's `generate`, and by hand: the same edited model."""
    for site in SITES:
        editor = grace(site=site, replacement=replacement, n_iter=20, edit_lr=0.3)
        edit = editor(model, [fact], PREPARED, {})
        value = edit.state["values"][0]
        row = tokenize(model.tokenizer, fact.text(), fact.target_new)
        prompt = list(row.ids[: row.prompt_length])
        other = model.tokenizer("Because I think, you think. Therefore the sea is")["input_ids"]
        with torch.no_grad():
            plain = plain_log_p(model, fact, site, replacement, value)
        with editor.attach(model, edit.state):
            prompts = Prompts(model, [other, prompt])
            score = prompts.score([other[:2], row.target])[1]
            text = prompts.generate(4)[1]
            batch = pad([other, prompt], [len(other), len(prompt)], 0, model.device)
            generated = model.network.generate(
                batch.ids, attention_mask=batch.mask, max_new_tokens=4, do_sample=False, pad_token_id=0
            )[1, batch.ids.shape[1] :]
        assert score.nll == pytest.approx(-float(plain.mean()), rel=1e-4)
        manual = greedy(model, prompt, site, replacement, value, 4)
        assert text == model.tokenizer.decode(manual, skip_special_tokens=True)
        assert generated.tolist()[: len(manual)] == manual


def greedy(model, prompt, site, replacement, value, steps):
    """Greedy tokens up to the end token, by one full pass a token with the value put in by hand."""
    ids = list(prompt)
    for _ in range(steps):

        def swap(_, __, output):
            hidden = get_hidden(output).clone()
            first = len(prompt) - 1 if replacement == "last" else 0
            hidden[0, first : None if replacement == "all" else len(prompt)] = value
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = site_module(model, site).register_forward_hook(swap)
        with torch.no_grad():
            ids.append(int(model.network(torch.tensor([ids])).logits[0, -1].argmax()))
        handle.remove()
        if ids[-1] == model.tokenizer.eos_token_id:
            return ids[len(prompt) : -1]
    return ids[len(prompt) :]


# --- sequences of edits -------------------------------------------------------------------------------------------


def test_edits_after_one_another_keep_their_own_values(llama, facts):
    editor = grace(epsilon=1e-3, n_iter=30, edit_lr=0.3)
    state, losses = {}, []
    for number, fact in enumerate(facts):
        edit = editor(llama, [fact], Prepared(("{}",), seed=number), state)
        state = edit.state
        losses.append(edit.record["loss"])
    assert state["keys"].shape[0] == len(facts)
    with editor.attach(llama, state):
        for number, fact in enumerate(facts):
            rows = measure_fact(llama, number, fact, "now", 3, None)
            assert rows[0]["nll_target"] == pytest.approx(losses[number], rel=1e-3)


def test_the_same_seed_gives_the_same_codebook(llama, fact):
    states = [grace()(llama, [fact], Prepared(("{}",), seed=s), {}).state for s in (1, 1, 2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["values"], states[2]["values"])


def test_an_expanded_entry_keeps_its_value_or_learns_on(llama, fact):
    """The paper widens the radius only; the released code optimises the value further."""
    again = Fact("again", "Logres", "capital", "The capital of {} is", fact.target_new, "Caerleon")
    wide = {"epsilon": 100.0, "n_iter": 5, "edit_lr": 0.1}
    first = grace(**wide)(llama, [fact], PREPARED, {})
    paper = grace(**wide)(llama, [again], PREPARED, first.state)
    released = grace(**wide, variant="released")(llama, [again], PREPARED, first.state)
    assert torch.equal(paper.state["values"], first.state["values"])
    assert paper.record["steps"] == 0.0
    assert released.record["loss"] < paper.record["loss"]
    for edit in (paper, released):
        assert edit.state["keys"].shape[0] == 1


def test_half_precision_weights(fact):
    model = tiny_model("llama", torch.bfloat16)
    editor = grace(n_iter=20, edit_lr=0.3)
    edit = editor(model, [fact], PREPARED, {})
    assert {edit.state[n].dtype for n in ("keys", "values", "epsilons")} == {torch.float32}
    with editor.attach(model, edit.state):
        rows = measure_fact(model, 1, fact, "now", 3, None)
    assert rows[0]["nll_target"] == pytest.approx(edit.record["loss"], rel=0.02)


def test_locality_and_reliability_of_one_edit(llama, fact):
    bare = Fact(
        "x",
        "Avalon",
        "capital",
        "The capital of {} is",
        "the",
        "sea",
        neighborhood=(Probe("The sea is", "blue"),),
    )
    before = measure_fact(llama, 1, bare, "before", 3, None)
    editor = grace(n_iter=60, edit_lr=0.5)
    edit = editor(llama, [bare], PREPARED, {})
    with editor.attach(llama, edit.state):
        now = measure_fact(llama, 1, bare, "now", 3, None)
    assert now[0]["token_accuracy"] == 1.0 > before[0]["token_accuracy"]
    assert now[1]["nll_target"] == before[1]["nll_target"]


# --- refusals -----------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_one_line(llama, fact):
    llama.network.get_output_embeddings().weight.data.fill_(math.nan)
    with pytest.raises(UnstableEditError, match=r"the loss of the value is nan at step 0; lower edit_lr"):
        grace()(llama, [fact], PREPARED, {})


def test_a_pass_that_continues_other_rows_is_refused(llama, fact):
    editor = grace(replacement="all")
    state = editor(llama, [fact], PREPARED, {}).state
    ids = torch.tensor([llama.tokenizer(fact.text())["input_ids"]])
    with torch.no_grad(), editor.attach(llama, state):
        cache = llama.network(ids, use_cache=True).past_key_values
        cache.batch_repeat_interleave(2)
        with pytest.raises(CollateralError, match="2 rows continue a prompt of 1 rows"):
            llama.network(torch.tensor([[5], [6]]), past_key_values=cache, use_cache=True)


def test_a_mask_of_pairs_is_refused(llama, fact):
    editor = grace()
    state = editor(llama, [fact], PREPARED, {}).state
    with editor.attach(llama, state), pytest.raises(CollateralError, match="needs one entry a token"):
        llama.network(torch.tensor([[5, 6]]), attention_mask=torch.ones(1, 1, 2, 2, dtype=torch.bool))


def test_layer_outside_the_model(llama, fact):
    with pytest.raises(CollateralError, match=r"layer 9 is outside the model: it has layers 0 to 3"):
        Grace(layer=9)(llama, [fact], PREPARED, {})


@pytest.mark.parametrize("setting", ["epsilon", "n_iter", "edit_lr"])
def test_settings_out_of_range(setting):
    with pytest.raises(CollateralError, match=f"{setting} is 0; it must be above 0"):
        check_settings("grace", {"layer": 0, setting: 0}, "here")
