"""How many CPU threads torch computes with. The last digits of a result depend on it."""

import torch


def set_threads(threads: int) -> None:
    """Let torch's operators use so many CPU threads in this process."""
    torch.set_num_threads(threads)
