"""GPT-2, whose Conv1D stores matrices as d_in x d_out."""

from collateral.models.architecture import describe_family

FAMILY = describe_family(
    "transformer.h.{}", down="c_proj", attention="attn.c_proj", inputs=("c_fc",), transposed=True
)
