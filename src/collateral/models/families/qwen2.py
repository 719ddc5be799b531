"""Qwen 2 and 2.5: the module paths of LLaMA."""

from collateral.models.families import llama

FAMILY = llama.FAMILY
