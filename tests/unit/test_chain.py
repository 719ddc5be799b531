"""Chain = uninterrupted = killed and resumed, bit for bit; noop is nothing; every regulariser fits every editor."""

import weakref
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from collateral.data.edit_order import chosen_facts, permutation, write_sequence
from collateral.data.facts import read_facts, write_facts
from collateral.deltas.file_format import read_increment
from collateral.deltas.increment import rebuild, tensor_sha256
from collateral.deltas.replay import apply_chain
from collateral.editing.method import Prepared
from collateral.editing.methods.rome import Rome
from collateral.editing.prepare.context_templates import write_templates
from collateral.editing.registry import load_regularizer
from collateral.editing.session import Editor, run_link
from collateral.errors import CollateralError
from collateral.evaluation.efficacy import known_facts, measure_facts, read_reference, write_known, write_rows
from collateral.evaluation.weights.statistics import weigh_checkpoint
from collateral.io.atomic import sha256_file
from collateral.models.download import fetch_model
from collateral.models.language_model import load_model
from collateral.pipeline import edit_chain as chain
from collateral.pipeline.edit_chain import LinkInputs, edit_link, export_checkpoint
from tiny import TEMPLATES, tiny_network, tiny_tokenizer

NAME = "model.layers.1.mlp.down_proj.weight"
UNSTABLE = {"action": "stop", "limit": 10.0}
ROME = {
    "method": "rome",
    "settings": {"layer": 1, "v_num_grad_steps": 4},
    "regularizer": {},
    "batch_size": 1,
    "unstable": UNSTABLE,
}


def making(chain):
    """The deltas that make the last checkpoint of a chain: all of them, or the last where each is against W_0."""
    return chain[-1:] if chain and read_increment(chain[-1]).metadata["mode"] == "replacing" else chain


class Project:
    """A folder with everything that an edit job reads."""

    def __init__(self, folder: Path, facts, family="llama", dtype="float32"):
        self.folder, self.dtype = folder, dtype
        source = folder / "source"
        tiny_network(family, getattr(torch, dtype)).save_pretrained(source)
        tiny_tokenizer().save_pretrained(source)
        self.model = folder / "model"
        fetch_model({"folder": str(source)}, self.model)
        self.facts = folder / "facts.parquet"
        write_facts(facts, self.facts)
        self.sequence = folder / "sequence.parquet"
        write_sequence(permutation(facts, 0, "drop"), self.sequence)
        self.contexts = folder / "contexts.json"
        write_templates(TEMPLATES, self.contexts, "x")
        self.reference = folder / "reference.parquet"
        model = load_model(self.model, dtype)
        chosen = chosen_facts({f.fact_id: f for f in facts}, self.sequence, None, len(facts))
        write_rows(measure_facts(model, chosen, "before", 3), self.reference)

    def link(self, name, start, edits, recipe=None, like=(), moments=None):
        """Make one link of the chain `name`; return the path of its delta."""
        chain = self.folder / name
        done = [p for p in self.deltas(name) if int(p.parent.name) <= start]
        out = chain / f"{edits:04d}"
        edit_link(
            LinkInputs(
                model=self.model,
                facts=self.facts,
                sequence=self.sequence,
                known=None,
                contexts=self.contexts,
                moments=moments,
                hypernetwork=None,
                reference=[self.reference],
                deltas=making(done),
                state=done[-1].parent / "state.safetensors" if done else None,
                like=like,
            ),
            recipe=recipe or ROME,
            start=start,
            edits=edits,
            seed=0,
            new_tokens=3,
            dtype=self.dtype,
            device="cpu",
            delta=out / "delta.parquet",
            state=out / "state.safetensors",
            records=out / "edits.parquet",
            after_edit=out / "after-edit.parquet",
        )
        return out / "delta.parquet"

    def deltas(self, name):
        return sorted((self.folder / name).glob("*/delta.parquet"))


@pytest.fixture
def project(tmp_path, facts):
    return Project(tmp_path, facts)


def test_chained_links_equal_one_uninterrupted_run(project):
    """Rebuilding from deltas between links gives the same bytes as never having stopped."""
    chained = [project.link("chained", a, b) for a, b in ((0, 1), (1, 3), (3, 6))]
    model = load_model(project.model)
    original = {NAME: model.matrix(NAME).clone()}
    chosen = chosen_facts(
        {f.fact_id: f for f in read_facts(project.facts)},
        project.sequence,
        None,
        6,
    )
    recipe = Editor(Rome(layer=1, v_num_grad_steps=4), load_regularizer({}))
    live = {}
    for start, stop in ((0, 1), (1, 3), (3, 6)):  # one process, one model, never reloaded
        link = run_link(
            model,
            recipe,
            chosen[start:stop],
            Prepared(TEMPLATES),
            {},
            original=original,
            seed=0,
            observe=lambda _: None,
        )
        live[stop] = link.after[NAME]
    increments = [read_increment(path) for path in chained]
    base = {NAME: load_model(project.model).network.get_parameter(NAME).data}
    for count, stop in ((1, 1), (2, 3), (3, 6)):
        assert torch.equal(rebuild(base, increments[:count])[NAME], live[stop])
    assert torch.equal(rebuild(base, increments[::-1])[NAME], live[6])


def test_the_model_is_gone_when_the_increment_is_written(project, monkeypatch):
    """A job's peak is then that of its edits: writing has arrays of its own, and needs no model beside them."""
    networks, alive = [], []
    load, write = chain.load_model, chain.write_increment

    def watched(*given):
        model = load(*given)
        networks.append(weakref.ref(model.network))
        return model

    def counted(*given):
        alive.append(networks[-1]() is not None)
        return write(*given)

    monkeypatch.setattr(chain, "load_model", watched)
    monkeypatch.setattr(chain, "write_increment", counted)
    project.link("a", 0, 1)
    project.link("a", 1, 2)
    assert alive == [False, False]


def test_a_link_made_twice_has_the_same_bytes(project):
    first = {p.name: sha256_file(p) for p in project.link("a", 0, 2).parent.iterdir()}
    project.link("b", 0, 2)
    assert first == {p.name: sha256_file(p) for p in (project.folder / "b" / "0002").iterdir()}


def test_a_killed_link_is_made_again_with_the_same_bytes(project, monkeypatch):
    """A link that dies after its first edit leaves nothing; made again, it has an undisturbed run's bytes."""
    undisturbed = project.link("calm", 0, 3).read_bytes()
    calls = []

    def die(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure_facts(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("collateral.pipeline.edit_chain.measure_facts", die)
        with pytest.raises(KeyboardInterrupt):
            project.link("killed", 0, 3)
    assert not list((project.folder / "killed").glob("**/*.*"))
    assert project.link("killed", 0, 3).read_bytes() == undisturbed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_state_of_the_weights_is_that_of_the_file(tmp_path, facts, dtype):
    project = Project(tmp_path, facts, dtype=dtype)
    for start in range(4):
        project.link("chain", start, start + 1)
    model = load_model(project.model, dtype)
    apply_chain(model, project.deltas("chain"))
    increment = read_increment(project.deltas("chain")[-1])
    stored = model.network.get_parameter(NAME).data
    assert tensor_sha256(stored) == increment.metadata["parameters"][NAME]["after"]


def test_noop_changes_no_bit_and_no_number(project):
    recipe = {"method": "noop", "settings": {}, "regularizer": {}, "batch_size": 1, "unstable": UNSTABLE}
    delta = project.link("noop", 0, 6, recipe)
    assert read_increment(delta).metadata["parameters"] == {}
    reference = read_reference([project.reference])
    after = pl.read_parquet(delta.parent / "after-edit.parquet")
    assert after.height == len(reference)
    numbers = ["token_accuracy", "nll_target", "nll_other", "prefers_target", "predicted", "generated"]
    for row in after.to_dicts():
        unedited = reference[row["fact_id"], row["kind"], row["probe"]]
        assert [row[n] for n in numbers] == [unedited[n] for n in numbers]
        if row["kind"] == "locality":
            assert row["token_agreement"] == 1.0
            assert row["generated_agreement"] is True


def changed(project, name, last):
    """Return which elements of the edited matrix the last of the chain's links changed."""
    states = []
    for count in (last - 1, last):
        model = load_model(project.model)
        apply_chain(model, project.deltas(name)[:count])
        states.append(model.network.get_parameter(NAME).data)
    return states[0] != states[1]


@pytest.mark.parametrize("name", ["rect", "random", "magnitude"])
def test_a_regularised_step_has_exactly_its_share_of_elements(project, name):
    recipe = {**ROME, "regularizer": {"name": name, "keep": 40}}
    delta = project.link(name, 0, 1, recipe)
    assert changed(project, name, 1).sum() == -(-40 * 32 * 64 // 100)
    record = pl.read_parquet(delta.parent / "edits.parquet").row(0, named=True)
    assert record["update_norm"] < record["raw_norm"]


def test_random_masks_differ_between_edits(project):
    recipe = {**ROME, "regularizer": {"name": "random", "keep": 10}}
    for start in (0, 1):
        project.link("r", start, start + 1, recipe)
    assert not torch.equal(changed(project, "r", 1), changed(project, "r", 2))


def test_rect_against_the_original_weight_differs_once_edits_add_up(project):
    moved = {}
    for reference in ("current", "original"):
        recipe = {**ROME, "regularizer": {"name": "rect", "keep": 30, "reference": reference}}
        for start in (0, 1):
            project.link(reference, start, start + 1, recipe)
        moved[reference] = [changed(project, reference, last) for last in (1, 2)]
    assert torch.equal(moved["current"][0], moved["original"][0])
    assert not torch.equal(moved["current"][1], moved["original"][1])


def test_placebo_has_the_norm_of_the_editor_that_it_imitates(project):
    like = project.link("rome", 0, 2).parent / "edits.parquet"
    recipe = {
        "method": "placebo",
        "settings": {"layer": 1, "like": "rome"},
        "regularizer": {},
        "batch_size": 1,
        "unstable": UNSTABLE,
    }
    made = project.link("placebo", 0, 2, recipe, like=[like]).parent / "edits.parquet"
    wanted = pl.read_parquet(like)["update_norm"].to_list()
    assert pl.read_parquet(made)["update_norm"].to_list() == pytest.approx(wanted, rel=1e-9)
    with pytest.raises(CollateralError, match="has no step for the fact"):
        project.link("alone", 0, 1, recipe)


def test_the_state_of_another_editor_is_refused(project):
    project.link("chain", 0, 1)
    with pytest.raises(CollateralError, match="the state of another editor"):
        project.link("chain", 1, 2, {**ROME, "settings": {"layer": 1, "v_num_grad_steps": 5}})


def test_the_delta_of_another_model_is_refused(project, tmp_path, facts):
    delta = project.link("chain", 0, 1)
    other = Project(tmp_path / "other", facts, family="gpt2")
    with pytest.raises(CollateralError, match="made from another base model"):
        apply_chain(load_model(other.model), [delta])
    with pytest.raises(CollateralError, match="made from another base model"):
        weigh_checkpoint(other.model, [delta], {}, tmp_path / "w", tmp_path / "h")


def test_an_exploding_update_stops_with_fact_and_norm(project):
    class Explode:
        batches = False

        def parameters(self, model):
            return (NAME,)

        def __call__(self, model, facts, prepared, state):
            edit = Rome(layer=1, v_num_grad_steps=2)(model, facts, prepared, state)
            edit.delta.updates[NAME].left.mul_(float("inf"))
            return edit

    model = load_model(project.model)
    facts = [(1, read_facts(project.facts)[0])]
    with pytest.raises(
        CollateralError, match=r"edit 1 \(fact '.*'\): the norm of the update of .* is (nan|inf)"
    ):
        run_link(
            model,
            Editor(Explode(), load_regularizer({})),
            facts,
            Prepared(TEMPLATES),
            {},
            original={},
            seed=0,
            observe=lambda _: None,
        )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_weights_and_export_agree_with_the_live_model(tmp_path, facts, family):
    project = Project(tmp_path, facts, family=family)
    project.link("chain", 0, 1)
    project.link("chain", 1, 3)
    deltas = project.deltas("chain")
    settings = {"thresholds": [0.077, 0.171], "quantiles": [0.5], "heatmap_blocks": 4}
    weigh_checkpoint(project.model, deltas, settings, tmp_path / "w.parquet", tmp_path / "h.parquet")
    base, live = load_model(project.model), load_model(project.model)
    apply_chain(live, deltas)
    name = live.down_name(1)
    change = (live.matrix(name).double() - base.matrix(name).double()).abs()
    table = pl.read_parquet(tmp_path / "w.parquet").filter(pl.col("statistic") == "manhattan")
    assert table["value"].item() == pytest.approx(float(change.sum()), rel=1e-9)
    export_checkpoint(project.model, deltas, "float32", tmp_path / "exported")
    exported = load_file(tmp_path / "exported" / "model.safetensors")
    assert torch.equal(exported[name], live.network.get_parameter(name).data)
    assert torch.equal(load_model(tmp_path / "exported").matrix(name), live.matrix(name))


def test_known_facts_are_those_that_the_argmax_completes(project, facts):
    model = load_model(project.model)
    table = known_facts(model, facts)
    assert table["fact_id"].to_list() == [fact.fact_id for fact in facts]
    for fact, known in zip(facts, table["known"].to_list(), strict=True):
        ids = model.tokenizer(fact.text())["input_ids"]
        wanted = model.tokenizer(fact.text() + " " + fact.target_true)["input_ids"][len(ids) :]
        for token in wanted:
            best = int(model.network(torch.tensor([ids])).logits[0, -1].argmax())
            if best != token:
                assert not known
                break
            ids = [*ids, token]
        else:
            assert known
    write_known(table, project.folder / "known.parquet")
    with pytest.raises(CollateralError, match="facts are known to the unedited model"):
        chosen_facts({}, project.sequence, project.folder / "known.parquet", 6)
