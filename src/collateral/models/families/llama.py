"""LLaMA, and all that names its modules so."""

from collateral.models.architecture import describe_family

FAMILY = describe_family(
    "model.layers.{}", down="down_proj", attention="self_attn.o_proj", inputs=("gate_proj", "up_proj")
)
