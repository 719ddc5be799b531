"""A small study in a copy of the project: a random LLaMA, real facts, two tasks of two items each."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

import warmjobs
from tiny import tiny_tokenizer

ROOT = Path(__file__).parents[1]
# of a data set that is downloaded, in ZsRE's format
RECORDS = [
    {
        "subject": f"Harbour {name}",
        "src": f"Who built Harbour {name}?",
        "rephrase": f"Which engineer raised Harbour {name}?",
        "alt": "Ada Brook",
        "answers": [answer],
        "loc": "nq question: how tall is an oak",
        "loc_ans": "twenty metres",
    }
    for name, answer in (("One", "Tom"), ("Two", "Ann"), ("Three", "Eve"))
]
# made last but the report, whose drawing is half of a run. As a target it asks for no deleted file that it has used
INFERRED = "results/tables/comparisons.parquet"
PARTS = ("Snakefile", "workflow", "src", "config", "envs", "profiles", "resources/embedded")


def save_tiny(folder: Path) -> Path:
    """Save a random LLaMA with room for the tasks' texts."""
    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=3,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        vocab_size=320,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def smoke_config(model: Path) -> dict:
    """Everything small: what a study costs here is the start of its processes."""
    return {
        "study": {
            "models": ["tiny"],
            "datasets": ["embedded"],
            "seeds": [0],
            "editors": ["noop", "rome", "rome-rect"],
            "checkpoints": [1, 3],
            "suites": ["two"],
        },
        "models": {
            "tiny": {
                "source": {"folder": str(model)},
                "family": "llama",
                "methods": {
                    "rome": {"layer": 1, "v_num_grad_steps": 3},
                    "memit": {"layers": [1, 2], "v_num_grad_steps": 3},
                    "placebo": {"layer": 1},
                    "grace": {"layer": 1, "n_iter": 3, "epsilon": 0.01},
                    "mend": {
                        "layers": [1, 2],
                        "training_facts": 6,
                        "rank": 2,
                        "max_steps": 2,
                        "validate_every": 1,
                        "accumulate": 1,
                    },
                },
            }
        },
        "datasets": {
            "embedded": {"loader": "embedded", "path": "resources/embedded", "known_only": False, "limit": 40}
        },
        "editors": {
            "noop": {"method": "noop", "checkpoints": "all"},
            "rome": {"method": "rome"},
            "rome-rect": {"method": "rome", "regularizer": {"name": "rect", "keep": 40}},
            "rome-mom2": {"method": "rome", "settings": {"mom2_adjustment": True}, "checkpoints": [1]},
            "memit": {"method": "memit", "checkpoints": [1]},
            "placebo": {"method": "placebo", "settings": {"like": "rome"}},
            "grace": {"method": "grace"},
            "mend": {"method": "mend", "checkpoints": [1]},
            "mend-rect": {
                "method": "mend",
                "regularizer": {"name": "rect", "keep": 40},
                "checkpoints": [1],
            },
        },
        "suites": {
            "two": {"tasks": ["embedded-sentiment", "embedded-english"], "limit": 2},
            "three": {"tasks": ["embedded-ner"], "limit": 2},
        },
        "contexts": {"lengths": [[4, 2]]},
        "efficacy": {"new_tokens": 2},
    }


class Project:
    """A copy of the project with its own results."""

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """Of its programs: they import the project's own package, whose byte code they keep in its folder."""
        own = {"PYTHONPATH": str(self.folder / "src"), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": ""}
        return {**os.environ, **own}

    @property
    def config(self) -> dict:
        return yaml.safe_load((self.folder / "study.yaml").read_text())

    def configure(self, **sections) -> None:
        (self.folder / "study.yaml").write_text(yaml.safe_dump({**self.config, **sections}, sort_keys=False))

    def snakemake(self, *args: str, cores: int = 2, **environ: str) -> subprocess.CompletedProcess:
        command = [*warmjobs.snakemake(), "--cores", str(cores), "--configfile", "study.yaml", *args]
        environment = {**self.environment, **environ}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def started(self, *targets: str, **options: Any) -> subprocess.Popen:
        """A run with cold jobs, one after another, that goes on by itself; `options` are those of `Popen`."""
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "study.yaml"]
        return subprocess.Popen([*command, "--", *targets], cwd=self.folder, env=self.environment, **options)

    def planned(self, *args: str) -> set[str]:
        """What a dry run would do: the message of each job."""
        return set(self.planned_jobs(*args))

    def planned_jobs(self, *args: str) -> list[str]:
        """The same with repetitions: the messages of jobs that differ in their seed alone are equal."""
        done = self.snakemake("-n", *args)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.findall(r"^Job \d+: (.*)$", done.stdout + done.stderr, flags=re.MULTILINE)

    def why(self, *targets: str) -> str:
        """What `collateral why` says."""
        command = [warmjobs.client(), "-m", "collateral.cli", "why", "--configfile", "study.yaml"]
        command += ["--", *targets]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def edit(self, path: str, old: str, new: str) -> None:
        place = self.folder / path
        text = place.read_text()
        assert old in text, f"{path} has no {old!r}"
        place.write_text(text.replace(old, new))

    def results(self) -> dict[str, bytes]:
        """Every artifact that must not depend on when, or in how many pieces, it was made; costs do."""
        folder = self.folder / "results"
        names = ("**/*.parquet", "**/*.safetensors", "**/contexts.json")
        found = [path for name in names for path in sorted(folder.glob(name)) if path.stem != "costs"]
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def make_project(folder: Path, model: Path) -> Project:
    for part in PARTS:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / part, target)
    (folder / "study.yaml").write_text(yaml.safe_dump(smoke_config(model), sort_keys=False))
    return Project(folder)
