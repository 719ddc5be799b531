"""MEND: gradients against autograd's, the identity start, training that resumes, on tiny models of four families."""

import pytest
import torch
from torch.nn import functional

from collateral.data.facts import Fact, Probe
from collateral.deltas.update import Factors
from collateral.editing.algorithms.hypernetwork import Hypernetwork, write_hypernetwork
from collateral.editing.algorithms.token_gradients import Gradient, Passage, apply_updates, compute_gradients
from collateral.editing.method import Prepared, UnstableEditError
from collateral.editing.methods.mend import Mend
from collateral.editing.registry import check_settings
from collateral.editing.train_hypernetwork import HELD_OUT, Training
from collateral.errors import CollateralError
from collateral.models.tensor_file import read_tensors
from collateral.models.tokenization import tokenize
from tiny import tiny_model

LAYERS = (2, 3)
SETTINGS = {
    "layers": LAYERS,
    "training_facts": 8,
    "rank": 4,
    "edit_lr": 0.01,
    "edit_lr_rate": 0.001,
    "learning_rate": 0.003,
    "max_steps": 6,
    "accumulate": 2,
    "validate_every": 2,
    "patience": 100,
    "edit_factor": 1.0,
}
MEND = Mend(**SETTINGS)


@pytest.fixture
def lessons() -> list[Fact]:
    """Eight facts to train on; their subjects are none of `facts`'."""
    names = ("Bors", "Kay", "Gareth", "Ector", "Elaine", "Morgan", "Uther", "Igraine")
    places = ("sea", "river", "Camelot", "book")
    return [
        Fact(
            fact_id=f"lesson-{name}",
            subject=name,
            relation="home",
            prompt="The home of {} is the",
            target_new=places[number % 4],
            target_true="castle",
            paraphrases=(f"{name} lives at the",),
            neighborhood=(Probe("The capital of Logres is", "Caerleon"),),
        )
        for number, name in enumerate(names)
    ]


def plain_nll(model, fact):
    """The NLL of the new answer per token, by a plain unpadded forward pass."""
    row = tokenize(model.tokenizer, fact.text(), fact.target_new)
    log_p = model.network(torch.tensor([row.ids])).logits[0].log_softmax(-1)
    picked = [log_p[row.prompt_length - 1 + j, token] for j, token in enumerate(row.target)]
    return -torch.stack(picked).mean()


def weight_gradients(model, facts, names):
    """d(sum of the facts' NLLs)/dW by autograd on the parameters, as d_out x d_in."""
    parameters = [model.network.get_parameter(name).requires_grad_(True) for name in names]
    sum(plain_nll(model, fact) for fact in facts).backward()
    found = {n: model.oriented(p.grad.clone()) for n, p in zip(names, parameters, strict=True)}
    for parameter in parameters:
        parameter.grad = None
        parameter.requires_grad_(False)
    return found


def untrained(model, mend, path, base=None, trained_on=(), z=None):
    """Write a hypernetwork as it starts; with `z` = (mean, deviation) as if standardised."""
    network = Hypernetwork(mend.shapes(model), mend.rank, mend.edit_lr, mend.variant, 0)
    for own in network.networks.values():
        if z:
            own.mean.fill_(z[0])
            own.deviation.fill_(z[1])
    about = {"matrices": list(mend.shapes(model)), "rank": mend.rank, "variant": mend.variant}
    write_hypernetwork(network, path, base or model.base_sha256, trained_on, about)
    return Prepared(("{}",), hypernetwork=path)


@pytest.mark.parametrize(("layers", "variant"), [((2, 3), "paper"), ((0, 1), "paper"), ((3,), "released")])
def test_an_untrained_network_is_a_plain_gradient_step(model, facts, tmp_path, layers, variant):
    """dW = -edit_lr * dL/dW for one fact and for a batch, where the factors are not standardised."""
    mend = Mend(layers=layers, training_facts=2, rank=3, edit_lr=0.25, variant=variant)
    names = mend.parameters(model)
    assert len(names) == len(layers) * (3 if model.network.config.model_type == "llama" else 2)
    before = {name: weight.clone() for name, weight in model.network.named_parameters()}
    prepared = untrained(model, mend, tmp_path / "net")
    sign = 1.0 if variant == "released" else -1.0
    for some in (facts[:1], facts):
        edit = mend(model, some, prepared, {})
        wanted = weight_gradients(model, some, names)
        assert set(edit.delta.updates) == set(names)
        for name in names:
            size = float(wanted[name].abs().max())
            assert size > 1e-5
            assert torch.allclose(edit.delta.dense(name), sign * 0.25 * wanted[name], atol=1e-4 * size)
        mean = torch.stack([plain_nll(model, fact) for fact in some]).mean()
        assert edit.record["loss"] == pytest.approx(float(mean), rel=1e-5)
    for name, weight in model.network.named_parameters():
        assert torch.equal(weight, before[name]), f"the call changed {name}"
        assert not weight.requires_grad
        assert weight.grad is None
    assert not any(module._forward_hooks for module in model.network.modules())


def test_a_batch_is_the_sum_of_its_facts(llama, facts, tmp_path):
    prepared = untrained(llama, MEND, tmp_path / "net")
    whole = MEND(llama, facts[:3], prepared, {}).delta
    parts = [MEND(llama, [fact], prepared, {}).delta for fact in facts[:3]]
    for name in MEND.parameters(llama):
        total = sum(part.dense(name) for part in parts)
        assert torch.allclose(whole.dense(name), total, atol=1e-5 * float(total.abs().max()))


def test_tokens_without_gradient_are_left_out(llama, fact, facts):
    """In the last layer only the tokens before an answer token count; padding never does."""
    rows = [tokenize(llama.tokenizer, one.text(), one.target_new) for one in (fact, facts[1])]
    names = [llama.down_name(2), llama.down_name(3)]
    found, _ = compute_gradients(llama, Passage(llama, rows, 2), names, 2)
    assert len(found[names[1]].d) == sum(len(row.target) for row in rows)
    assert len(found[names[0]].d) == sum(len(row.ids) - 1 for row in rows)
    alone, _ = compute_gradients(llama, Passage(llama, rows, 2), names, 1)  # the first row's answer only
    assert len(alone[names[1]].d) == len(rows[0].target)


def test_standardised_factors_by_hand(llama, fact, tmp_path):
    """With mean 0.5 and deviation 2, dW = -edit_lr * sum (d - .5)/2 ((x - .5)/2)^T."""
    prepared = untrained(llama, MEND, tmp_path / "net", z=(0.5, 2.0))
    delta = MEND(llama, [fact], prepared, {}).delta
    name = llama.down_name(3)
    row = tokenize(llama.tokenizer, fact.text(), fact.target_new)
    found, _ = compute_gradients(llama, Passage(llama, [row], 2), [name], 1)
    x, d = found[name].x, found[name].d
    wanted = -MEND.edit_lr * torch.einsum("to,ti->oi", (d - 0.5) / 2, (x - 0.5) / 2)
    assert torch.allclose(delta.dense(name), wanted, atol=1e-6)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_network_is_equation_3(variant):
    """g written out for one token and two matrices of one shape, with random weights."""
    torch.manual_seed(1)
    network = Hypernetwork({"a": (3, 2), "b": (3, 2), "c": (2, 5)}, 2, 0.5, variant, 0)
    assert set(network.networks) == {"3x2", "2x5"}
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter.data)
    own = network.networks["3x2"]
    own.mean.normal_()
    own.deviation.uniform_(0.5, 2)
    x, d = torch.randn(1, 2), torch.randn(1, 3)
    other = Gradient(torch.randn(4, 5), torch.randn(4, 2))
    updates = network({"a": Gradient(x, d), "b": Gradient(x, d), "c": other})
    assert updates["c"].dense().shape == (2, 5)
    z = (torch.cat([x[0], d[0]]) - own.mean) / own.deviation
    for number, name in enumerate("ab"):
        h = z + functional.relu(own.scale1[number] * (own.u1 @ own.v1 @ z + own.bias) + own.offset1[number])
        last = own.scale2[number] * (own.u2 @ own.v2 @ h) + own.offset2[number]
        g = h + (functional.relu(last) if variant == "paper" else last)
        sign = -1 if variant == "paper" else 1
        wanted = sign * network.edit_lr[number] * torch.outer(g[2:], g[:2])
        assert torch.allclose(updates[name].dense(), wanted, atol=1e-5)


def test_nothing_is_stuck_at_the_start(llama, fact):
    """Every U, offset and bias has a gradient although g starts as the identity."""
    network = Hypernetwork(MEND.shapes(llama), 4, 0.01, "paper", 0)
    row = tokenize(llama.tokenizer, fact.text(), fact.target_new)
    passage = Passage(llama, [row], 2)
    found, _ = compute_gradients(llama, passage, list(network.shapes), 1)
    with apply_updates(llama, network(found)):
        passage.nll(passage.log_p()).sum().backward()
    for name, parameter in network.named_parameters():
        if not name.endswith((".v1", ".v2", "scale1", "scale2")):  # these wait for U
            assert float(parameter.grad.abs().max()) > 0, name


def test_an_update_put_on_by_hook_is_the_update_in_the_weights(model, fact):
    torch.manual_seed(2)
    names = MEND.parameters(model)
    updates = {}
    for name in names:
        d_out, d_in = model.matrix(name).shape
        updates[name] = Factors(torch.randn(d_out, 2) / 8, torch.randn(d_in, 2) / 8)
    row = tokenize(model.tokenizer, fact.text(), fact.target_new)
    passage = Passage(model, [row], LAYERS[0])
    plain = float(passage.nll(passage.log_p()))
    with apply_updates(model, updates), torch.no_grad():
        hooked = float(passage.nll(passage.log_p()))
    for name in names:
        model.matrix(name).add_(updates[name].dense())
    assert hooked == pytest.approx(float(plain_nll(model, fact)), rel=1e-4)
    assert abs(hooked - plain) > 1e-3


def train(model, lessons, folder, **changes):
    mend = Mend(**{**SETTINGS, **changes})
    training = Training(model, lessons, mend, 0, folder / "net.safetensors", "code")
    training.run()
    return training


def test_training_lowers_the_held_out_loss_and_leaves_the_model(model, lessons, tmp_path):
    before = {name: weight.clone() for name, weight in model.network.named_parameters()}
    training = train(model, lessons, tmp_path, max_steps=12, learning_rate=0.01)
    steps, losses = zip(*training.losses, strict=True)
    assert steps == (0, 2, 4, 6, 8, 10, 12)
    assert min(losses) < losses[0] - 0.05
    for name, weight in model.network.named_parameters():
        assert torch.equal(weight, before[name]), f"training changed {name}"
        assert not weight.requires_grad
    assert not any(module._forward_hooks for module in model.network.modules())
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_training_helps_on_a_fact_that_it_never_saw(llama, lessons, facts, tmp_path):
    """After the training an edit lowers the NLL of its own new answer more than before."""
    fact = facts[1]
    start = float(plain_nll(llama, fact))
    ends = []
    for steps in (0, 15):
        folder = tmp_path / str(steps)
        train(
            llama,
            lessons,
            folder,
            max_steps=max(steps, 1),
            learning_rate=0.01 if steps else 1e-12,
            edit_lr_rate=0.001 if steps else 0.0,
        )
        model = tiny_model("llama")
        MEND(model, [fact], Prepared(("{}",), hypernetwork=folder / "net.safetensors"), {}).delta.apply(model)
        ends.append(float(plain_nll(model, fact)))
    assert ends[1] < ends[0] - 0.1
    assert ends[1] < start - 0.1


def test_the_loss_by_hand(llama, lessons, tmp_path):
    """c_e * mean NLL of prompt and paraphrase + c_loc * KL(p_0 || p) at the neighbour's answer tokens."""
    training = Training(
        llama,
        lessons,
        Mend(**{**SETTINGS, "edit_factor": 0.3, "locality_factor": 0.7}),
        0,
        tmp_path / "n",
        "",
    )
    fact = lessons[3]
    with torch.no_grad():
        loss = float(training._loss([fact]))
        updates = training.network(training._lesson(fact).gradients)
        near = fact.neighborhood[0]
        row = tokenize(llama.tokenizer, near.prompt, near.target)
        span = slice(row.prompt_length - 1, len(row.ids) - 1)
        p_0 = llama.network(torch.tensor([row.ids])).logits[0, span].softmax(-1)
        for name, update in updates.items():
            llama.matrix(name).add_(update.dense())
        p = llama.network(torch.tensor([row.ids])).logits[0, span].softmax(-1)
        again = Fact(**{**vars(fact), "prompt": "{} lives at the"})
        nll = (plain_nll(llama, fact) + plain_nll(llama, again)) / 2
    drift = (p_0 * (p_0 / p).log()).sum(-1).mean()
    assert float(drift) > 1e-6
    assert loss == pytest.approx(0.3 * float(nll) + 0.7 * float(drift), rel=1e-4)


def test_early_stopping_keeps_the_best(llama, lessons, tmp_path):
    """With a learning rate that ruins it the training ends after `patience`, and the best network is written."""
    training = train(llama, lessons, tmp_path, max_steps=50, learning_rate=0.3, edit_lr_rate=0.0, patience=4)
    steps, losses = zip(*training.losses, strict=True)
    best = steps[losses.index(min(losses))]
    assert steps[-1] == best + 4 < 50
    _, about = read_tensors(tmp_path / "net.safetensors", "a hypernetwork")
    assert about["validation"] == [list(entry) for entry in training.losses]
    again = Training(llama, lessons, Mend(**SETTINGS), 0, tmp_path / "other", "")
    again.network.load_state_dict(read_tensors(tmp_path / "net.safetensors", "a hypernetwork")[0])
    again._validate()
    assert again.losses[-1][1] == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("kill", [1, 5])
def test_a_killed_training_resumes_to_the_same_bytes(lessons, tmp_path, monkeypatch, kill):
    """Killed within its fifth step or so, and taken up again, it writes an undisturbed training's bytes."""
    calm, torn = tmp_path / "calm", tmp_path / "torn"
    train(tiny_model("gpt2"), lessons, calm)
    steps = []
    original = Training._optimize

    def die(training):
        if len(steps) == kill:
            raise KeyboardInterrupt
        steps.append(1)
        original(training)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_optimize", die)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_model("gpt2"), lessons, torn)
    assert [path.name for path in torn.iterdir()] == ["net.safetensors.partial"]
    done = train(tiny_model("gpt2"), lessons, torn)
    assert len(done._lessons) <= len(lessons)
    assert (torn / "net.safetensors").read_bytes() == (calm / "net.safetensors").read_bytes()
    assert [path.name for path in torn.iterdir()] == ["net.safetensors"]


def test_a_partial_training_of_other_settings_or_damaged_is_not_resumed(llama, lessons, tmp_path):
    partial = tmp_path / "net.safetensors.partial"
    training = Training(llama, lessons, MEND, 0, tmp_path / "net.safetensors", "code")
    training._validate()
    whole = partial.read_bytes()
    for changes in ({"settings": {"rank": 3}}, {"code": "other"}, {"seed": 1}, {"facts": lessons[1:]}):
        mend = Mend(**{**SETTINGS, **changes.get("settings", {})})
        other = Training(
            llama,
            changes.get("facts", lessons),
            mend,
            changes.get("seed", 0),
            tmp_path / "net.safetensors",
            changes.get("code", "code"),
        )
        assert not other._resumed()
    assert Training(llama, lessons, MEND, 0, tmp_path / "net.safetensors", "code")._resumed()
    partial.write_bytes(whole[:-9])
    assert not Training(llama, lessons, MEND, 0, tmp_path / "net.safetensors", "code")._resumed()


def test_every_round_draws_each_fact_once_wherever_it_is_entered(llama, lessons, tmp_path):
    training = Training(llama, lessons, MEND, 0, tmp_path / "net", "")
    size = len(lessons) - len(lessons[::HELD_OUT])
    order = training._order(0)
    drawn = [next(order).fact_id for _ in range(3 * size)]
    assert all(len(set(drawn[i * size : (i + 1) * size])) == size for i in range(3))
    assert drawn[:size] != drawn[size : 2 * size]
    later = training._order(size + 2)
    assert [next(later).fact_id for _ in range(size)] == drawn[size + 2 : 2 * size + 2]
    assert lessons[0].fact_id not in drawn  # held out


def test_a_diverging_training_says_what_to_lower(llama, lessons, tmp_path):
    with pytest.raises(
        CollateralError, match=r"has the loss (nan|inf) after step \d+; lower learning_rate \(1e\+30\)"
    ):
        train(llama, lessons, tmp_path, learning_rate=1e30)


def test_a_foreign_or_damaged_archive_is_refused(llama, fact, tmp_path):
    path = tmp_path / "net"
    prepared = untrained(llama, MEND, path, base="another")
    with pytest.raises(
        CollateralError, match="trained with base_sha256 another, but the editor has tiny-llama"
    ):
        MEND(llama, [fact], prepared, {})
    untrained(llama, MEND, path)
    for changes, message in (
        ({"layers": (1, 2)}, "matrices"),
        ({"rank": 5}, "rank 4"),
        ({"variant": "released"}, "variant paper"),
    ):
        with pytest.raises(CollateralError, match=f"trained with {message}"):
            Mend(**{**SETTINGS, **changes})(llama, [fact], Prepared(("{}",), hypernetwork=path), {})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CollateralError, match="not readable as a hypernetwork"):
        MEND(llama, [fact], Prepared(("{}",), hypernetwork=path), {})
    with pytest.raises(CollateralError, match="no hypernetwork was prepared"):
        MEND(llama, [fact], Prepared(("{}",)), {})


def test_a_fact_that_was_trained_on_is_not_edited(llama, facts, tmp_path):
    prepared = untrained(llama, MEND, tmp_path / "net", trained_on=facts[:2])
    MEND(llama, facts[2:4], prepared, {})
    with pytest.raises(
        CollateralError, match=r"'home-0' .*is among the 2 that the hypernetwork was trained on"
    ):
        MEND(llama, facts[1:4], prepared, {})
    same = Fact("other-id", facts[1].subject.upper(), "home", "Where is {}? In the", "sea", "castle")
    with pytest.raises(CollateralError, match="'other-id'"):
        MEND(llama, [same], prepared, {})
    other = Fact("third-id", facts[1].subject, "food", "{} eats a", "sea", "castle")
    MEND(llama, [other], prepared, {})


def test_bfloat16_weights_and_padding_side(facts, tmp_path):
    """bfloat16 gives about float32's update; the tokenizer's padding side changes no bit."""
    updates = {}
    for dtype in (torch.float32, torch.bfloat16):
        for side in ("left", "right"):
            model = tiny_model("gpt2", dtype)
            model.tokenizer.padding_side = side
            prepared = untrained(model, MEND, tmp_path / "net")
            updates[dtype, side] = MEND(model, facts, prepared, {}).delta.dense(model.down_name(3))
        assert updates[dtype, "left"].dtype == torch.float32
        assert torch.equal(updates[dtype, "left"], updates[dtype, "right"])
    full, half = updates[torch.float32, "left"].flatten(), updates[torch.bfloat16, "left"].flatten()
    assert functional.cosine_similarity(full, half, dim=0) > 0.98


def test_an_update_that_is_not_finite_names_the_fact(llama, fact, tmp_path):
    prepared = untrained(llama, MEND, tmp_path / "net")
    llama.matrix(llama.down_name(3)).fill_(float("nan"))
    with pytest.raises(UnstableEditError, match="fact 'capital-avalon': MEND's update is not finite"):
        MEND(llama, [fact], prepared, {})


@pytest.mark.parametrize("setting", ["rank", "edit_lr", "training_batch", "patience"])
def test_settings_out_of_range(setting):
    with pytest.raises(CollateralError, match=f"{setting} is 0; it must be above 0"):
        check_settings("mend", {**SETTINGS, "layers": [2, 3], setting: 0}, "here")
