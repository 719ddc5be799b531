"""Modules that a job does not use are not loaded, and are all there when something of them is asked for."""

import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from collateral.models.manifest import write_manifest
from collateral.runtime import lazy_imports as waiting
from collateral.runtime.lazy_imports import Finder, Waiting, called_late, marked_late, wrapped_late
from smallstudy import save_tiny

PACKAGE = {
    "__init__.py": "from lately import noted\nnoted.loaded += 1\nfrom lately.inner import value\nNUMBER = 7\n"
    "def double(x):\n    return 2 * x\n"
    "marked = []\n"
    "def mark(f):\n    marked.append(f)\n    return f\n"
    "def wrap(f, by=1):\n    return lambda *a: by * f(*a)\n",
    "noted.py": "loaded = 0\n",
    "inner.py": "value = 'of inner'\n",
    "replaced/__init__.py": "import sys, types\nown = types.SimpleNamespace(name='another')\n"
    "sys.modules[__name__] = own\n",
    "replaced/part.py": "here = True\n",
    "broken.py": "raise ValueError('broken')\n",
}


@pytest.fixture
def lately(tmp_path, monkeypatch):
    """A package `lately` that waits, and its module that counts how often it was loaded."""
    for name, text in PACKAGE.items():
        path = tmp_path / "lately" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    standins = {"double": called_late, "mark": marked_late, "wrap": wrapped_late}
    monkeypatch.setattr(
        waiting,
        "WAITING",
        {"lately": standins, "lately.replaced": {}, "lately.broken": {}, "lately.absent": {}},
    )
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    yield importlib.import_module("lately")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lately"]:
        del sys.modules[name]


def test_a_submodule_does_not_load_its_package(lately):
    from lately.inner import value

    assert value == "of inner"
    assert type(lately) is Waiting


def test_an_attribute_loads_it_once(lately):
    import lately.noted as noted

    assert noted.loaded == 0
    assert lately.NUMBER == 7
    assert not isinstance(lately, Waiting)
    assert lately.value == "of inner"
    assert noted.loaded == 1


def test_what_it_lacks_is_an_attribute_error(lately):
    with pytest.raises(AttributeError, match="nothing"):
        _ = lately.nothing
    assert not hasattr(lately, "nothing")


def test_a_function_loads_it_when_it_is_called(lately):
    from lately import double

    assert type(lately) is Waiting
    assert double(4) == 8
    assert not isinstance(lately, Waiting)


def test_what_was_marked_while_it_waited_is_marked_when_it_is_there(lately):
    @lately.mark
    def first():
        pass

    assert type(lately) is Waiting
    assert lately.marked == [first]


def test_what_was_wrapped_is_plain_until_it_is_there(lately):
    @lately.wrap
    def three():
        return 3

    @lately.wrap(by=10)
    def four():
        return 4

    assert (three(), four(), three.__name__) == (3, 4, "three")
    assert type(lately) is Waiting
    assert lately.NUMBER == 7
    assert (three(), four()) == (3, 40)


def test_a_module_may_put_another_in_its_place(lately):
    import lately.replaced.part as part

    replaced = sys.modules["lately.replaced"]
    assert part.here
    assert replaced.name == "another"
    assert sys.modules["lately.replaced"].name == "another"


def test_an_error_comes_when_it_is_loaded_and_again_when_it_is_asked_again(lately):
    broken = importlib.import_module("lately.broken")
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            _ = broken.anything


def test_a_module_that_is_not_there_is_not_found(lately):
    with pytest.raises(ModuleNotFoundError, match=r"lately\.absent"):
        importlib.import_module("lately.absent")


def test_threads_that_ask_at_once_all_get_it(lately):
    import lately.noted as noted

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(lately.NUMBER)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [7] * 8
    assert noted.loaded == 1


JOB = """
import sys
from pathlib import Path
snakemake = None  # as in a job's own script
from collateral.runtime.job import job
from collateral.evaluation.harness import evaluate
from collateral.editing.checkpoint import at_checkpoint
from collateral.models.language_model import load_model
from collateral.runtime.lazy_imports import WAITING, Waiting
model = load_model(Path(sys.argv[1]))
suite = {"tasks": ["embedded-sentiment", "embedded-summarization"], "batch_size": 4, "limit": 2}
with at_checkpoint(model, []):
    result = evaluate(model, suite, [])
assert set(result["results"]) == {"embedded-sentiment", "embedded-summarization"}, result["results"]
print("ASKED", sorted(name for name in WAITING if name in sys.modules))
print("LOADED", sorted(name for name in WAITING if type(sys.modules.get(name)) not in (Waiting, type(None))))
"""
USED = """
import sklearn, torch
from scipy.optimize import linear_sum_assignment, minimize
assert linear_sum_assignment([[2, 1], [1, 2]])[1].tolist() == [1, 0]
assert minimize(lambda x: (x[0] - 3) ** 2, [0.0]).x.round(3).tolist() == [3]
from scipy.io import loadmat, savemat
savemat(sys.argv[1] + "/x.mat", {"x": [1, 2]})
assert loadmat(sys.argv[1] + "/x.mat")["x"].tolist() == [[1, 2]]
import requests, sacrebleu
assert requests.Request("GET", "http://a").prepare().url == "http://a/"
assert sacrebleu.corpus_bleu(["the sea is blue"], [["the sea is blue"]]).score > 99
from lm_eval.loggers import EvaluationTracker
from transformers import BertConfig, models
assert models.bert.BertConfig is BertConfig and models.BartConfig.model_type == "bart"
from transformers.integrations import finegrained_fp8
marked = [f for f in vars(finegrained_fp8).values() if id(f) in torch._dynamo.trace_rules._allowed_callable_ids]
assert marked, "what transformers marked for the compiler"
from transformers.integrations.eager_paged import eager_paged_attention_forward
seen = []
def backend(graph, example):
    seen.append(graph)
    return graph
ids = torch.arange(6)[None]
with torch.no_grad():
    plain = model.network(ids, use_cache=False).logits
    compiled = torch.compile(model.network, backend=backend)(ids, use_cache=False).logits
assert seen and torch.allclose(plain, compiled)
from torch.distributed.tensor import DTensor
assert torch.distributed.is_available()
print("NOW", sorted(name for name in WAITING if type(sys.modules[name]) is not Waiting))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = save_tiny(tmp_path_factory.mktemp("model"))
    write_manifest(made, {})
    return made


def lines(code: str, folder: Path) -> dict[str, str]:
    """Return word → the rest of its line, as a program prints them in capitals."""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if line[:3].isupper())


def test_an_evaluation_loads_none_of_them_and_finds_all_when_it_asks(folder):
    found = lines(JOB + USED, folder)
    assert found["ASKED"] == str(sorted(waiting.WAITING)), (
        "a name that nobody imports is of no use in the list"
    )
    assert found["LOADED"] == "[]"
    assert found["NOW"] == str(sorted(waiting.WAITING))


def test_what_an_evaluation_does_without_is_not_imported(folder):
    heavy = [
        "sympy",
        "sklearn",
        "chardet",
        "torch._dynamo.eval_frame",
        "torch._inductor",
        "torch.distributed.tensor",
    ]
    code = f"{JOB}print('HEAVY', [name for name in {heavy} if name in sys.modules])"
    assert lines(code, folder)["HEAVY"] == "[]"


def test_outside_a_job_nothing_waits():
    code = "import sys, collateral.runtime.job, collateral.runtime.lazy_imports\n"
    code += "print('NONE', any(isinstance(f, collateral.runtime.lazy_imports.Finder) for f in sys.meta_path))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "NONE False\n"
