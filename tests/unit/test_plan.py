"""The plan: jobs worked by hand, costs that grow with the work, times near recorded ones, and words for doubts."""

import copy
import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from collateral.editing.cost import Cost
from collateral.editing.registry import declaration, method_names
from collateral.errors import CollateralError
from collateral.io.units import hours, size
from collateral.study import paths as places
from collateral.study.cost.estimate import (
    ITSELF,
    LIKE,
    SAME,
    compute_need,
    estimate_jobs,
)
from collateral.study.cost.model_shape import Shape, read_shape
from collateral.study.cost.plan_text import format_plan, list_gpu_notes, sum_hours
from collateral.study.cost.work import Need
from collateral.study.job_records import Record, read_records
from collateral.study.jobs import Job, list_jobs
from collateral.tasks.token_counts import suite_counts
from planned_studies import MODEL, RECORDED, sizes_of, study_of

ROOT = Path(__file__).parents[2]


def plan_of(study, records=None, waiting=None):
    jobs = list_jobs(study, {name: [] for name in study.settings["suites"]}, None)
    return estimate_jobs(study, jobs, sizes_of(study), records, None, waiting)


def counted(study):
    return Counter(estimate.job.rule for estimate in plan_of(study))


def hours_of(study, rule):
    return sum_hours(estimate for estimate in plan_of(study) if estimate.job.rule == rule)[0]


@pytest.mark.parametrize(
    ("model", "millions"),
    [
        ("smollm2-135m", 134.5),
        ("gpt2-medium", 354.8),
        ("gpt2-large", 774.0),
        ("gpt2-xl", 1557.6),
        ("gpt-j-6b", 6050.9),
        ("llama-7b", 6738.4),
        ("llama-2-7b", 6738.4),
        ("pythia-160m", 162.3),
        ("pythia-410m", 405.3),
    ],
)
def test_a_shape_has_the_published_number_of_parameters(model, millions):
    settings = study_of().settings["models"][model]
    assert read_shape(Path("absent/manifest.json"), settings).parameters / 1e6 == pytest.approx(
        millions, rel=2e-3
    )


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (
            '{"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, '
            '"n_positions": 1024, "n_inner": null}',
            Shape(12, 768, 3072, 50257, 768, positions=1024),
        ),
        (
            '{"model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, '
            '"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": true}',
            Shape(30, 576, 1536, 49152, 192, gated=True),
        ),
        (
            '{"model_type": "gpt_neox", "num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, '
            '"num_attention_heads": 12, "vocab_size": 50304, "tie_word_embeddings": false}',
            Shape(12, 768, 3072, 50304, 768, tied=False),
        ),
    ],
)
def test_a_downloaded_config_gives_the_shape(tmp_path, text, shape):
    (tmp_path / "config.json").write_text(text)
    assert read_shape(tmp_path / "manifest.json", {}) == shape


def test_the_jobs_of_a_study_of_parts_are_those_that_were_worked_by_hand():
    """A chain at 2 and 6, single edits in two parts, a batch, moments of five layers, a placebo at the last point."""
    study = study_of(
        checkpoints=[2, 6],
        parts={
            "chains": {"editors": ["rome", "memit-two"]},
            "control": {"editors": ["rome", "noop"], "seeds": [0, 1]},
            "alone": {"editors": ["alone"], "suites": []},
        },
        sections={
            "editors": {
                "alone": {"method": "rome", "editing": "single"},
                "memit-two": {"method": "memit", "batch_size": 2},
            }
        },
    )
    assert counted(study) == {
        "download_model": 1,
        "load_facts": 1,
        "sample_sequence": 2,  # seeds 0 and 1
        "sample_contexts": 1,
        "measure_moments": 1,  # of memit's layers 4 to 8
        "probe_known": 1,
        "evaluate_unedited": 1,
        "measure_reference": 8,  # blocks to 1, 2, 5 and 10 of two orders
        "edit": 8,  # rome with two seeds and memit at two points, noop with two seeds at the last
        "measure_efficacy": 8,
        "measure_drift": 8,
        "weigh": 8,
        "evaluate_abilities": 8,
        "edit_singly": 2,
        "gather": 1,
        "infer": 1,
        "report": 1,
    }


def test_editors_that_learn_share_a_training_and_its_facts():
    study = study_of(editors=["mend", "mend-rect-40"], datasets=["zsre"], checkpoints=[1])
    assert counted(study)["train_hypernetwork"] == 1
    assert counted(study)["load_training_facts"] == 1
    assert counted(study)["download"] == 2


def test_twice_the_edits_take_more_time_and_ten_times_many_more():
    few, twice, many = (hours_of(study_of(checkpoints=[n]), "edit") for n in (100, 200, 1000))
    assert few < twice < many
    assert 5 * few < many < 10 * few  # each job starts anew, which does not grow


@pytest.mark.parametrize(
    "rule", ["edit", "evaluate_abilities", "measure_efficacy", "measure_drift", "weigh", "measure_moments"]
)
def test_a_larger_model_takes_more_of_everything(rule):
    found = []
    for model in ("pythia-160m", "gpt2-xl", "gpt-j-6b"):
        own = [
            estimate
            for estimate in plan_of(study_of(models=[model], editors=["memit"]))
            if estimate.job.rule == rule
        ]
        found.append(
            (
                sum(estimate.seconds for estimate in own),
                max(estimate.memory for estimate in own),
                sum(estimate.disk for estimate in own),
            )
        )
    for smaller, larger in itertools.pairwise(found):
        assert smaller[0] < larger[0]
        assert smaller[1] < larger[1]
        assert smaller[2] <= larger[2]


def test_longer_optimisation_and_more_contexts_take_longer():
    usual = hours_of(study_of(editors=["rome"]), "edit")
    sections = {"models": {MODEL: {"methods": {"rome": {"layer": 5, "v_num_grad_steps": 200}}}}}
    assert hours_of(study_of(editors=["rome"], sections=sections), "edit") > 2 * usual


def test_moments_and_states_are_on_the_disk_in_the_sizes_of_their_matrices():
    """1536 x 1536 in float32 is 9.4 MB, five times; D4S keeps 5 x (1536 x 1536 + 576 x 1536) in float64."""
    plan = plan_of(study_of(editors=["d4s"], checkpoints=[1]))
    moments = [estimate.disk for estimate in plan if estimate.job.rule == "measure_moments"]
    assert moments == [5 * 9437184]
    (edit,) = (estimate for estimate in plan if estimate.job.rule == "edit")
    state = 5 * 8 * (1536**2 + 576 * 1536)
    assert state < edit.disk < 1.15 * state  # measured: a state of 129.8 MB, a delta of 14.1 MB


def test_a_low_rank_update_is_on_the_disk_as_factors_and_mask():
    """8 (576 + 1536) bytes an edit; a mask of 40 % has .97095 bits for each of 576 x 1536 elements."""
    disk = {}
    for editor in ("rome", "rome-rect-40"):
        plan = plan_of(study_of(editors=[editor], checkpoints=[1]))
        (disk[editor],) = (estimate.disk for estimate in plan if estimate.job.rule == "edit")
    assert disk["rome"] == 2000 + 8 * (576 + 1536)  # measured: 18,054 bytes of delta
    assert disk["rome-rect-40"] - disk["rome"] == pytest.approx(576 * 1536 * 0.97095 / 8, rel=1e-4)


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ([5], "05"),
        ([4, 3], "03-04"),
        ([8, 3, 4, 5, 6, 7], "03-to-08"),
        ([0, 1, 2, 17, 99, 100, 101, 120], "00-to-02-17-99-to-101-120"),
        (range(0, 80, 2), "-".join(f"{layer:02d}" for layer in range(0, 80, 2))),
    ],
)
def test_the_name_of_a_set_of_layers_is_parsed_back(layers, name):
    assert places.name_layers(layers) == name
    assert places.parse_layers(name) == tuple(sorted(layers))
    assert places.moments("m", layers) == f"results/prepared/m/moments-{name}.safetensors"


@pytest.mark.parametrize("name", ["", "5", "05-03", "03-to-04", "to-05", "03-to", "03-to-to-05", "rome"])
def test_what_is_not_the_name_of_a_set_of_layers_is_refused(name):
    with pytest.raises(ValueError):  # noqa: PT011 (int's own words, or ours)
        places.parse_layers(name)


def test_one_pass_for_six_layers_is_cheaper_than_six_passes_and_holds_a_sum_for_each_layer():
    study = study_of()
    jobs = [Job("measure_moments", "", "gpt-j-6b", layers=layers) for layers in ((8,), tuple(range(3, 9)))]
    single, six = estimate_jobs(study, jobs, sizes_of(study))
    assert single.seconds < six.seconds < 6 * single.seconds
    assert six.host - single.host > 5 * 8 * 16384**2
    asked = [compute_need(job, study, sizes_of(study)).memory for job in jobs]
    assert asked[1] - asked[0] > 5 * 8 * 16384**2 / 1e6


@pytest.mark.parametrize(("job", "seconds", "memory"), RECORDED)
def test_without_records_a_job_is_within_a_factor_of_three_of_what_was_recorded(job, seconds, memory):
    study = study_of(datasets=["embedded"])
    (estimate,) = estimate_jobs(study, [job], sizes_of(study))
    assert seconds / 3 < estimate.seconds < 3 * seconds
    assert memory / 1.7 < estimate.host / 1e6 < 1.7 * memory


def test_the_default_study_is_within_a_factor_of_three_of_its_quarter_of_an_hour_on_two_cores():
    assert 0.5 / 3 < sum_hours(plan_of(study_of()))[0] < 3 * 0.5


def test_a_jobs_own_record_is_taken_and_other_records_scale_similar_jobs():
    study = study_of(editors=["rome", "rome-rect-40", "ft"], checkpoints=[1, 5])
    plain = {estimate.job: estimate for estimate in plan_of(study)}
    recorded = next(job for job in plain if job.rule == "edit" and job.editor == "rome" and job.edits == 5)
    assert recorded.start == 1
    without_start = Job("edit", "", MODEL, "embedded", 0, "rome", 0, 5)  # all that a record's path says
    record = Record(2 * plain[recorded].seconds, 1500)
    scaled = {estimate.job: estimate for estimate in plan_of(study, {without_start: record})}
    assert scaled[recorded].seconds == record.seconds
    assert scaled[recorded].host == 1500e6
    assert scaled[recorded].source == ITSELF
    for job, before in plain.items():
        if job.rule == "edit" and job != recorded:
            assert scaled[job].seconds == pytest.approx(2 * before.seconds)
            assert scaled[job].source == (LIKE if job.editor == "ft" else SAME)


def test_another_model_is_scaled_by_arithmetic_and_marked_so():
    study = study_of(models=["pythia-410m"], editors=["rome"])
    record = {Job("edit", "", MODEL, "embedded", 0, "rome", 0, 20): Record(900, None)}
    (source,) = {estimate.source for estimate in plan_of(study, record) if estimate.job.rule == "edit"}
    assert "another model" in source.words
    assert source.factor == 3


def test_bounds_are_the_estimates_times_and_over_the_factor_of_their_source():
    plan = plan_of(study_of())
    mean, low, high = sum_hours(plan)
    assert low == pytest.approx(mean / 3)
    assert high == pytest.approx(mean * 3)


def test_records_are_read_with_the_start_of_their_link(tmp_path):
    folder = tmp_path / "edit/gpt2-xl/zsre/seed-1/rome"
    folder.mkdir(parents=True)
    for name, row in (("edits-0010", "30.5\t0:00:30\t812.5"), ("edits-0100", "200\t0:03:20\t-")):
        (folder / f"{name}.tsv").write_text(f"s\th:m:s\tmax_rss\n{row}\n")
    assert read_records(tmp_path) == {
        Job("edit", "", "gpt2-xl", "zsre", 1, "rome", 0, 10): Record(30.5, 812.5),
        Job("edit", "", "gpt2-xl", "zsre", 1, "rome", 10, 100): Record(200, None),
    }
    (folder / "edits-0200.tsv").write_text("s\th:m:s\tmax_rss\n")
    with pytest.raises(CollateralError, match=r"edits-0200\.tsv: not a benchmark record"):
        read_records(tmp_path)


def test_the_table_names_every_stage_and_what_it_rests_on():
    study = study_of(models=[MODEL, "gpt2-xl"], sections={"models": {"gpt2-xl": {"device": "cuda"}}})
    plan = plan_of(study, waiting=frozenset({"results/report/index.html"}))
    text = format_plan(plan, "A title", {}, ["A note."])
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    for rule, jobs in counted(study).items():
        assert lines[rule][1] == str(jobs)
        assert lines[rule][2] == ("1" if rule == "report" else "0")
    assert lines["total"][1:3] == [str(len(plan)), "1"]
    assert "GPU time" in text
    assert "literature" in text
    assert "A note." in text
    assert "Not known before" in text


def test_the_plan_says_what_full_checkpoints_would_take():
    """SmolLM2 has 134.5 million parameters; in float32 its two checkpoints would be 1.1 GB."""
    plan = plan_of(study_of(editors=["rome"], checkpoints=[1, 5]))
    links = [estimate for estimate in plan if estimate.job.rule == "edit"]
    assert [round(estimate.checkpoint / 1e6) for estimate in links] == [538, 538]
    assert all(estimate.checkpoint == 0 for estimate in plan if estimate.job.rule != "edit")
    kept = size(sum(estimate.disk for estimate in links))
    said = f"2 checkpoints on disk: {kept} as deltas; full checkpoints would be 1.1 GB."
    assert said in format_plan(plan, "t", {}, [])
    singles = study_of(
        editors=["alone"], sections={"editors": {"alone": {"method": "rome", "editing": "single"}}}
    )
    assert "full checkpoints" not in format_plan(plan_of(singles), "t", {}, [])


def test_a_model_that_no_gpu_holds_is_named_with_the_gpus_that_it_needs():
    """GPT-J-6B in float32: 24 GB of weights, two GPUs halve it; with five times as many layers no GPU holds it."""
    spread = {"models": {"gpt-j-6b": {"device": "cuda:all", "gpus": 2}}}
    plan = plan_of(study_of(models=["gpt-j-6b"], editors=["rome"], sections=spread))
    most = max(estimate.memory for estimate in plan)
    assert list_gpu_notes(plan, {"gpt-j-6b": 2}) == [
        f"gpt-j-6b is spread over 2 GPUs: about {size(most / 2)} on each."
    ]
    assert {estimate.cores for estimate in plan if estimate.kind == "cuda"} == {2}
    large = {"models": {"gpt-j-6b": {"device": "cuda", "layers": 150}}}
    plan = plan_of(study_of(models=["gpt-j-6b"], editors=["rome"], sections=large))
    most = max(estimate.memory for estimate in plan)
    gpus = int(-(-most // 80e9))
    assert gpus > 1
    (note,) = list_gpu_notes(plan, {"gpt-j-6b": 1})
    assert note.endswith(f"set models.gpt-j-6b.device to cuda:all and models.gpt-j-6b.gpus to {gpus}.")
    assert list_gpu_notes(plan_of(study_of()), {MODEL: 0}) == []


def test_the_largest_request_of_each_rule_is_listed():
    study = study_of(
        models=["gpt-j-6b"], editors=["rome"], sections={"models": {"gpt-j-6b": {"device": "cuda"}}}
    )
    plan = plan_of(study)
    needs = {estimate.job: compute_need(estimate.job, study, sizes_of(study)) for estimate in plan}
    text = format_plan(plan, "t", needs, [])
    lines = text.partition("Asked of a cluster")[2].replace(",", "").splitlines()
    (line,) = (line for line in lines if "edit" in line.split())
    most = max(need.memory for job, need in needs.items() if job.rule == "edit")
    assert line.split()[:2] == size(1e6 * most).split()
    assert line.split()[4] == "1"
    assert "--set-resources" not in text


def test_jobs_recorded_above_their_request_are_listed_with_the_remedy():
    plan = plan_of(study_of(models=["gpt-j-6b"], editors=["rome"]))
    edits = [estimate for estimate in plan if estimate.job.rule == "edit"]
    text = format_plan(plan, "t", {estimate.job: Need(6000, 1) for estimate in edits}, [])
    added = dict(part.split("=") for part in text.partition("--set-resources ")[2].split("\n")[0].split())
    most = max(estimate.host for estimate in edits)
    assert most < 1e6 * int(added["edit:mem_mb"]) < 1.3 * most
    assert "edit:runtime" in added
    assert "--set-resources" not in format_plan(
        plan, "t", {estimate.job: Need(900000, 90000) for estimate in edits}, []
    )


def test_a_study_that_skips_collapsed_chains_is_planned():
    study = study_of(editors=["rome", "rome-rect-40"], checkpoints=[1, 5, 10])
    study.settings["collapse"]["skip"] = True
    assert counted(study)["screen_collapse"] == 2 * 2  # the last checkpoint's verdict is read by none


def test_a_record_of_a_suite_that_this_study_does_not_have_is_left_out():
    study = study_of(suites=["other"], sections={"suites": {"other": {"tasks": ["embedded-english"]}}})
    record = {Job("evaluate_unedited", "", MODEL, suite="abilities"): Record(900, None)}
    assert sum_hours(plan_of(study, record)) == sum_hours(plan_of(study))


def test_a_model_of_unknown_shape_is_counted_and_named():
    study = study_of(models=["gpt2-xl"], sections={"models": {"gpt2-xl": {"shape": None}}})
    plan = plan_of(study)
    assert len(plan) == 79
    assert "Unknown shape: gpt2-xl" in format_plan(plan, "t", {}, [])


def test_items_are_counted_from_files_and_limited(tmp_path):
    (tmp_path / "piqa").mkdir()
    (tmp_path / "piqa/validation.jsonl").write_text('{"goal": "x"}\n' * 7)
    suite = {"tasks": ["piqa", "lambada_openai", "embedded-english"], "limit": 60, "num_fewshot": None}
    piqa, lambada, english = suite_counts(suite, [], tmp_path)
    assert (piqa.items, piqa.requests, lambada.items, english.items) == (7, 2, 60, 7)
    shots = suite_counts({**suite, "num_fewshot": 3}, [], tmp_path)
    assert shots[0].tokens == 4 * piqa.tokens
    assert suite_counts({**suite, "limit": None}, [], tmp_path)[1].items == 5153


@pytest.mark.parametrize(
    ("value", "text"), [(0, "-"), (0.01, "36 s"), (0.5, "30 min"), (3.14, "3.1 h"), (1234, "1,200 h")]
)
def test_hours_have_two_digits(value, text):
    assert hours(value) == text


def test_bytes_have_two_digits():
    assert [size(value) for value in (0, 2.5e6, 134e6, 6.2e9, 3e12)] == [
        "-",
        "2.5 MB",
        "134 MB",
        "6.2 GB",
        "3.0 TB",
    ]


def test_an_unknown_study_is_one_line_with_the_nearest_name():
    done = subprocess.run(
        [sys.executable, "-m", "collateral.cli", "plan", "--study", "controlls"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("plan: unknown study 'controlls'; did you mean 'controls'?")


@pytest.mark.parametrize("method", method_names())
def test_each_method_declares_its_cost_by_settings_that_it_has(method):
    declared = declaration(method)
    assert set(declared.cost) <= set(Cost.__annotations__)
    for key in ("steps", "root"):
        setting = declared.cost.get(key)
        assert not isinstance(setting, str) or setting in declared.annotations
    if declared.cost.get("texts") == "integral":
        assert "batch" in declared.annotations


def test_settings_are_left_as_they_are():
    study = study_of()
    before = copy.deepcopy(study.settings)
    plan_of(study)
    assert study.settings == before
