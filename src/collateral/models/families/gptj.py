"""GPT-J."""

from collateral.models.architecture import describe_family

FAMILY = describe_family("transformer.h.{}", down="fc_out", attention="attn.out_proj", inputs=("fc_in",))
