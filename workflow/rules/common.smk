# The study's settings, wildcard constraints from them, and what the rules ask of both.

import functools
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError

from collateral.study import outputs as results, paths, staging
from collateral.data import shared_resources as sharing
from collateral.tasks.benchmarks.catalogue import foreseen
from collateral.runtime.definitions import Sources
from collateral.errors import CollateralError
from collateral.io.atomic import sha256_file
from collateral.runtime.fingerprint import PACKAGE, find_code, library_versions
from collateral.study.config import load_study
from collateral.study.design import Cell, list_reference_blocks
from collateral.tasks.registry import benchmarks_of, task_fingerprint

# where this file lies, also if another Snakefile takes the workflow as a module
ROOT = Path(str(workflow.current_basedir)).parents[1]
if not (ROOT / "Snakefile").is_file():
    raise WorkflowError(
        f"{ROOT}: a module of Collateral needs a folder on this machine; clone it and name its Snakefile"
    )

try:
    STUDY = load_study(config, ROOT / "workflow/schemas/config.schema.yaml")
except CollateralError as error:
    raise WorkflowError(str(error))

THREADS = STUDY.settings["runtime"]["threads"]
# what a study may do without, so that its jobs need not ask each for themselves, see `settled`
ADAPTERS = any(STUDY.is_flagged(editor, "adapter") for editor in STUDY.names("editors"))
PLACEBOS = any(STUDY.likeness(one.model, one.editor) for one in STUDY.cells)
SKIPPING = STUDY.settings["collapse"]["skip"]
CODES = {}  # fingerprint → the definitions behind it, which `make why` names
SOURCES = Sources(Path(".snakemake/collateral.sources.json"))


wildcard_constraints:
    model="|".join(map(re.escape, STUDY.names("models"))),
    dataset="|".join(map(re.escape, STUDY.names("datasets"))),
    seed="|".join(map(str, STUDY.names("seeds"))),
    editor="|".join(map(re.escape, STUDY.names("editors"))),
    learner="|".join(map(re.escape, STUDY.settings["editors"])),
    suite="|".join(map(re.escape, STUDY.names("suites"))),
    edits=r"\d{4,5}",
    layers=r"\d{2,3}(-(to-)?\d{2,3})*",
    download=r"[0-9a-f]{16}/[^/]+",
    benchmark=r"[a-z0-9][a-z0-9_.-]*",
    split=r"[a-z_]+",
    text=r"[0-9a-f]{16}",


@functools.cache
def locate(path):
    """A path of the config: relative to the working directory, else to the project."""
    try:
        return paths.locate(path, ROOT)
    except CollateralError as error:
        raise WorkflowError(str(error))


for name in STUDY.names("datasets"):  # else a missing file would pass while its table exists
    if "path" in STUDY.settings["datasets"][name]:
        locate(STUDY.settings["datasets"][name]["path"])


MIRROR = str(locate(STUDY.settings["mirror"])) if STUDY.settings["mirror"] else ""


def checkpoint(name):
    """A file of one checkpoint, with its wildcards."""
    return paths.checkpoint(paths.ANY, "{edits}", name)


def single(name):
    """A file of one part of the single edits, with its wildcards."""
    return paths.single(paths.ANY, "{edits}", name)


@functools.cache  # a study has thousands of jobs
def code(script, *entries):
    """Fingerprint of a rule's code: the definitions that its script and the registries' entries reach."""
    reached = find_code(ROOT / "workflow/scripts" / script, *entries, sources=SOURCES)
    CODES[reached.fingerprint] = reached.definitions
    if not STUDY.settings["runtime"]["rerun_on_upgrade"]:
        return reached.fingerprint
    return f"{reached.fingerprint} {library_versions(reached)}"


def settled(function, *kinds):
    """What a function of a chain's or a suite's names gives, where it is the same in the whole study; else the function.

    Snakemake takes a quarter of a millisecond a job to call one, whatever it does, and a study has thousands of jobs.
    """
    if kinds == ("suite",):
        cases = [(name,) for name in STUDY.names("suites")]
    else:
        cases = dict.fromkeys(tuple(getattr(one, kind) for kind in kinds) for one in STUDY.cells)
    try:
        found = [function(SimpleNamespace(**dict(zip(kinds, case)))) for case in cases]
    except CollateralError:
        return function  # it is said by the job that meets it
    return found[0] if found and all(one == found[0] for one in found) else function


def number(wildcards):
    return int(wildcards.edits)


def cell(wildcards):
    """The chain that a job belongs to."""
    return Cell(wildcards.model, wildcards.dataset, int(wildcards.seed), wildcards.editor)


def order(wildcards):
    """The order of edits that a job belongs to: its chain without the editor."""
    return wildcards.model, wildcards.dataset, int(wildcards.seed)


def downloaded(source):
    """Where a source is found: its own path, or that of its download."""
    return str(locate(source["path"])) if "path" in source else paths.download(source)


@functools.cache
def downloads():
    """Path of the download → source, for all data sets and suites of the study."""
    sets = [STUDY.settings["datasets"][name] for name in STUDY.names("datasets")]
    sources = [own[key] for own in sets for key in ("source", "training") if key in own]
    for suite in STUDY.names("suites"):
        for place in suite_benchmarks(suite):
            sources += [raw.request() for raw in benchmark_source(*place).files]
    return {downloaded(source): source for source in sources if "path" not in source}


def agreed(path, source):
    """Refuse a study that means something else by a name than those with which it shares its resources."""
    try:
        sharing.check_source(Path(path), source)
    except CollateralError as error:
        raise WorkflowError(str(error))


def model_files(wildcards):
    """Nothing: a model comes from where its source says. But it must be the one that is there, if that is shared."""
    source = STUDY.settings["models"][wildcards.model]["source"]
    agreed(paths.manifest(wildcards.model), sharing.model_source(source))
    return []


def loading(wildcards, *more):
    """How the file of a data set is read."""
    own = STUDY.settings["datasets"][wildcards.dataset]
    return {name: own.get(name) for name in ("loader", "path", *more)}


def loader_code(wildcards):
    """The code that reads a data set, its loader included."""
    loader = STUDY.settings["datasets"][wildcards.dataset]["loader"]
    return code("load_facts.py", f"collateral.data.loaders.{loader}:load")


def dataset_files(wildcards):
    own = STUDY.settings["datasets"][wildcards.dataset]
    path = Path(downloaded(own["source"]) if "source" in own else locate(own["path"]))
    source = sharing.facts_source(loading(wildcards, "limit", "questions"), str(path))
    agreed(paths.facts(wildcards.dataset), source)
    if not path.is_dir():
        return str(path)
    return sorted(str(one) for one in path.iterdir() if one.suffix in {".tsv", ".yaml"})


def training_source(wildcards):
    """The file of the facts that an editor trains on."""
    path = downloaded(STUDY.settings["datasets"][wildcards.dataset]["training"])
    source = sharing.facts_source(training_loading(wildcards), path)
    agreed(paths.training_facts(wildcards.dataset), source)
    return path


def training_loading(wildcards):
    """How that file is read: whole."""
    return {"limit": None, **loading(wildcards, "questions")}


def training_file(wildcards):
    """The table of facts that MEND trains on, where the data set has one of its own."""
    own = STUDY.settings["datasets"][wildcards.dataset]
    return paths.training_facts(wildcards.dataset) if "training" in own else []


def known_file(wildcards):
    """The table of known facts, where the data set is restricted to them."""
    known = STUDY.settings["datasets"][wildcards.dataset]["known_only"]
    return paths.known("{model}", "{dataset}") if known else []


def runtime(wildcards):
    """What may change the last digits of a job.

    One dict, not one parameter each: Snakemake compares the *set* of a job's parameter values, so that two
    numbers that trade places would go unnoticed.
    """
    own = STUDY.settings["models"][wildcards.model]
    return {"dtype": own["dtype"], "device": own["device"], "threads": THREADS}


def recipe(wildcards):
    return STUDY.recipe(wildcards.model, wildcards.editor)


def moments_text():
    """The file of the text that keys and activations are taken from, its own or from the hub, if any."""
    text, hub = STUDY.settings["moments"]["text"], staging.find_hub_text(STUDY)
    if hub:
        return paths.text(hub)
    return str(locate(text["file"])) if "file" in text else []


def moments_file(wildcards):
    """The second moments of the layers that an editor needs, if any."""
    layers = STUDY.moment_layers(wildcards.model, wildcards.editor)
    return paths.moments(wildcards.model, layers) if layers else []


def hypernetwork_file(wildcards):
    """The trained hypernetwork that an editor needs, if any."""
    learner = STUDY.learner(wildcards.model, wildcards.editor)
    return paths.hypernetwork(*order(wildcards), learner) if learner else []


def at(one, edits, name):
    """One file of some checkpoints of a chain."""
    return results.list_checkpoint_files(STUDY, one, edits, name)


def earlier(wildcards):
    return STUDY.earlier(cell(wildcards), number(wildcards))


def previous(wildcards):
    """Number of edits that a link of the chain starts from."""
    return max(earlier(wildcards), default=0)


def deltas_before(wildcards, most=0):
    """The deltas of earlier checkpoints that count: all, or the last few where each is against W_0."""
    edits = earlier(wildcards)
    if STUDY.replaces(wildcards.editor):
        edits = edits[max(0, len(edits) - most) :]
    return at(cell(wildcards), edits, "delta.parquet")


def deltas_begun_from(wildcards):
    """The deltas that make the checkpoint that this one's edits begin at."""
    return deltas_before(wildcards, 1)


def deltas_upto(wildcards):
    """The deltas that make this checkpoint, its own included."""
    own = at(cell(wildcards), [number(wildcards)], "delta.parquet")
    return [*deltas_before(wildcards), *own]


def deltas_weighed(wildcards):
    """The deltas that make this checkpoint, and the two before it, whose steps are compared."""
    own = at(cell(wildcards), [number(wildcards)], "delta.parquet")
    return [*deltas_before(wildcards, 2), *own]


def adapter_state(wildcards):
    """What an adapter has learnt up to this checkpoint; nothing for an editor that changes weights."""
    adapter = STUDY.is_flagged(wildcards.editor, "adapter")
    return at(cell(wildcards), [number(wildcards)], "state.safetensors") if adapter else []


def family_entry(wildcards):
    """The module of a model's family, which every job that loads the model imports by name."""
    return f"collateral.models.families.{STUDY.model_family(wildcards.model)}"


def method_entry(wildcards):
    """The module of an editor's method."""
    return f"collateral.editing.methods.{recipe(wildcards)['method']}"


def regularizer_entry(wildcards):
    """The module of an editor's regulariser."""
    return f"collateral.editing.regularizers.{recipe(wildcards)['regularizer']['name']}"


def model_code(script):
    """The code of a job that loads a model."""
    return settled(lambda wildcards: code(script, family_entry(wildcards)), "model")


def training_code(wildcards):
    """The code of a job that trains the hypernetwork of an editor."""
    method = STUDY.settings["editors"][wildcards.learner]["method"]
    return code("train_hypernetwork.py", family_entry(wildcards), f"collateral.editing.methods.{method}")


def edit_code(script):
    """The code of a job that edits."""
    entries = (family_entry, method_entry, regularizer_entry)
    return lambda wildcards: code(script, *(entry(wildcards) for entry in entries))


def checkpoint_entries(wildcards):
    """What a job that loads a checkpoint imports by name; an adapter takes part in every answer."""
    adapter = STUDY.is_flagged(wildcards.editor, "adapter")
    return [family_entry(wildcards), *([method_entry(wildcards)] if adapter else [])]


def checkpoint_code(script):
    """The code of a job that loads a checkpoint."""
    return settled(lambda wildcards: code(script, *checkpoint_entries(wildcards)), "model", "editor")


def likeness(wildcards):
    """The steps of the editor that a placebo imitates, for this link."""
    like = STUDY.likeness(wildcards.model, wildcards.editor)
    if like is None:
        return []
    imitated = cell(wildcards)._replace(editor=like)
    within = [one for one in STUDY.checkpoints(imitated) if previous(wildcards) < one <= number(wildcards)]
    return at(imitated, within, "edits.parquet")


def references(wildcards, start=0):
    """The unedited model's probes of the facts from number `start + 1` to this checkpoint, and of a few more."""
    blocks = list_reference_blocks(number(wildcards))
    return [paths.reference(*order(wildcards), end) for _, end in blocks if end > start]


@functools.cache
def task_folders(suite):
    return [str(locate(folder)) for folder in STUDY.settings["suites"][suite]["folders"]]


@functools.cache
def suite_texts(suite):
    """Fingerprint of all files that decide what a suite's tasks ask."""
    return task_fingerprint(STUDY.settings["suites"][suite]["tasks"], task_folders(suite))


def suite_code(script, entries):
    """Code and task texts of a suite: a changed prompt reruns the suite."""
    return lambda wildcards: f"{code(script, *entries(wildcards))} {suite_texts(wildcards.suite)}"


@functools.cache
def benchmark_source(benchmark, split):
    """The public files that one split of a benchmark is made of: the mirror's, or the first with addresses."""
    source, missing = foreseen(benchmark, split, Path(MIRROR) if MIRROR else None)
    if missing:  # a plan needs no data; without it, the download ends the run
        logger.warning(missing)
    return source


@functools.cache
def suite_benchmarks(suite):
    """(benchmark, split) that the tasks of a suite read."""
    own = STUDY.settings["suites"][suite]
    needed = benchmarks_of(own["tasks"], [Path(one) for one in task_folders(suite)], own["num_fewshot"])
    return [(benchmark, split) for benchmark, splits in needed.items() for split in splits]


def suite_data(wildcards):
    """The prepared files that a suite's tasks read."""
    return [paths.benchmark(*place) for place in suite_benchmarks(wildcards.suite)]


def staged_files(wildcards):
    """All that a network is needed for."""
    splits = [place for suite in STUDY.names("suites") for place in suite_benchmarks(suite)]
    return [path for group in staging.list_staged_files(STUDY, splits).values() for path in group]


def raw_files(wildcards):
    """The public files of one split, as they came."""
    source = benchmark_source(wildcards.benchmark, wildcards.split)
    agreed(paths.benchmark(wildcards.benchmark, wildcards.split), asdict(source))
    return [downloaded(raw.request()) for raw in source.files]


def download_source(wildcards):
    """Where a download comes from."""
    path = paths.downloads(wildcards.download)
    if path not in downloads():
        raise WorkflowError(
            f"{path}: nothing in this study is downloaded to there; name a file that the study has"
        )
    return downloads()[path]


def suite_settings(wildcards):
    suite = dict(STUDY.settings["suites"][wildcards.suite])
    return {name: value for name, value in suite.items() if name != "folders"}


def asked_tasks(suites):
    """Suite → names of its tasks."""
    return {name: STUDY.settings["suites"][name]["tasks"] for name in suites}


def suite_results(wildcards, ending):
    """The results of all suites of one checkpoint, and the unedited model's."""
    asked = STUDY.suites(cell(wildcards), number(wildcards))
    own = [paths.abilities(suite, ending) for suite in asked]
    before = [paths.unedited(wildcards.model, name) for name in own]
    return before + [path for name in own for path in at(cell(wildcards), [number(wildcards)], name)]


def verdict_before(wildcards):
    """Whether the chain had collapsed by the checkpoint before that was evaluated, where collapsed chains are skipped."""
    asked = STUDY.screened(cell(wildcards), number(wildcards))
    return at(cell(wildcards), asked[-1:], "collapse.json")
