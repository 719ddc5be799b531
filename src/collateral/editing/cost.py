"""What an editing method says of its own costs: literals of its class that are read without importing torch."""

from typing import Literal, TypedDict


class Cost(TypedDict, total=False):
    """What one operation of a method takes, for `collateral plan` and for requests to a cluster.

    A method declares it as a literal: `cost: ClassVar[Cost] = {"steps": "num_steps"}`. Nothing that an edit computes
    may read it, since the code fingerprint leaves it out. Each key may be absent; the default stands in brackets.

    Attributes:
        steps: the number of gradient steps, or the setting that holds it [0: no passes of the model].
        texts: what a step runs through the layers from the last edited one upwards: `prompts`, the prompt of each
            fact; `contexts`, each prompt in its contexts (as many as a setting `context_samples` says, else all),
            from the subject's last token onwards; `integral`, integrated gradients at `steps` points of every
            layer, as many at a time as a setting `batch` says [prompts].
        weight_gradients: whether a step differentiates by the weights, and not by activations alone [False].
        changes: what may change: the `down` projections of the method's layers, all `mlp` projections of these
            layers, a few `columns` in any layer, or `nothing` [down].
        low_rank: whether an update is stored as factors instead of changed elements [False].
        root: whether the state is a root of the second moments' inverse, d_in x d_in a layer; or the setting that
            says so [False].
        factorization: multiplications and additions, in units of d_in^3, to factorise one layer's second moments at
            the start [1/3, Cholesky].
    """

    steps: str | int
    texts: Literal["prompts", "contexts", "integral"]
    weight_gradients: bool
    changes: Literal["down", "mlp", "columns", "nothing"]
    low_rank: bool
    root: bool | str
    factorization: float
