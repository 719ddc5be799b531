"""The small study, run once a session."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from smallstudy import Project, make_project
from tiny import tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A random LLaMA with room for the tasks' texts."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
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


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_folder) -> Project:
    """The small study, run to its report. Tests must leave it as it is."""
    project = make_project(tmp_path_factory.mktemp("finished"), tiny_folder)
    done = project.snakemake()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return project


@pytest.fixture
def copy(finished, tmp_path) -> Project:
    """The finished study in a folder of its own, as if the whole folder had been moved."""
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Project(folder)
