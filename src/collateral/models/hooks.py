"""Capture and replace activations, as context managers that leave no trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def get_hidden(output: Any) -> Tensor:
    """Return the hidden state of a module's output: the tensor itself, or the first of a tuple."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


@contextmanager
def capture(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that holds `input` and `output` of the module's latest call."""
    seen: dict[str, Tensor] = {}

    def remember(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen["input"], seen["output"] = args[0], get_hidden(output)

    handle = module.register_forward_hook(remember)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def listen_to_input(module: nn.Module, use: Callable[[Tensor], None]) -> Iterator[None]:
    """Give the module's input to a function at each call, before the module runs; nothing is kept."""
    handle = module.register_forward_pre_hook(lambda _, args: use(args[0]))
    try:
        yield
    finally:
        handle.remove()


class _StopForwardError(Exception):
    """Ends a forward pass early; never leaves `stop_at`."""


@contextmanager
def stop_at(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that holds the module's `input`; the pass ends there, and nothing above ever runs."""
    seen: dict[str, Tensor] = {}

    def halt(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen["input"] = args[0]
        raise _StopForwardError

    with _stopping(module.register_forward_pre_hook(halt)):
        yield seen


@contextmanager
def stop_after(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that holds the module's `output`; the pass ends there, and nothing above ever runs."""
    seen: dict[str, Tensor] = {}

    def halt(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        seen["output"] = get_hidden(output)
        raise _StopForwardError

    with _stopping(module.register_forward_hook(halt)):
        yield seen


@contextmanager
def _stopping(handle: RemovableHandle) -> Iterator[None]:
    try:
        yield
    except _StopForwardError:
        pass
    finally:
        handle.remove()


@contextmanager
def shift_output(module: nn.Module, column: int, shift: Tensor) -> Iterator[None]:
    """Add `shift` (rows x d) to a module's output at one column."""

    def add(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        hidden = get_hidden(output).clone()
        hidden[:, column] = hidden[:, column] + shift.to(hidden.dtype)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def replace_forward(replacements: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Run with other `forward` functions for some modules, and put the old ones back."""
    before: dict[nn.Module, Any] = {module: vars(module).get("forward") for module in replacements}
    try:
        for module, forward in replacements.items():
            module.forward = forward
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.forward
            else:  # another library had wrapped it on the instance
                module.forward = forward
