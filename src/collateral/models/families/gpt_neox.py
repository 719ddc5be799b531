"""GPT-NeoX and Pythia."""

from collateral.models.architecture import describe_family

FAMILY = describe_family(
    "gpt_neox.layers.{}", down="dense_4h_to_h", attention="attention.dense", inputs=("dense_h_to_4h",)
)
