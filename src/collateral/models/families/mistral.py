"""Mistral: the module paths of LLaMA."""

from collateral.models.families import llama

FAMILY = llama.FAMILY
