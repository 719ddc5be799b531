"""Modules that a job imports and seldom uses: they wait, and load when something of them is asked for. Torch-free.

Half of what an evaluation imports is asked for by name only: transformers marks functions for torch's compiler, and
so imports the compiler, and sympy with it; its losses for object detection import scipy's optimizers. Python's own
`importlib.util.LazyLoader` loads a package as soon as one of its submodules is imported; here it waits on.

A module that is not installed, or is called otherwise in another version, is simply not concerned.
"""

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Call = Callable[..., Any]


class Waiting(ModuleType):
    """A module that has not been executed; an attribute that it lacks executes it."""

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the loaded module, or a stand-in while it waits.

        Raises:
            AttributeError: the module has none of this name.
        """
        loader = self.__loader__
        if isinstance(loader, Patient) and not loader.begun and name in loader.standins:
            return loader.standins[name]
        return getattr(loaded(self), name)


class Patient(Loader):
    """The loader of a module that waits.

    Attributes:
        own: the module's own loader.
        standins: functions that are given out while it waits.
        marks: (decorator, function) that were decorated meanwhile, and are again when the module is there.
        begun, done: whether loading has begun, and ended.
    """

    def __init__(self, own: Loader, standins: Mapping[str, Callable[["Patient", str], Call]]):
        self.own = own
        self.standins = {name: make(self, name) for name, make in standins.items()}
        self.marks: list[tuple[str, Call]] = []
        self.begun = self.done = False
        self.lock = threading.RLock()
        self.module: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        """Return what the module's own loader has: its source, its files."""
        return getattr(self.__dict__["own"], name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the module as its own loader creates it."""
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Let the module wait; one that is of a class of its own is executed."""
        self.module = module
        if type(module) is ModuleType:
            module.__class__ = Waiting
        else:
            self.load(module)

    def load(self, module: ModuleType) -> None:
        """Execute the module, unless that is done; other threads wait, its own imports see it as far as it is."""
        with self.lock:
            if self.begun:
                return
            self.begun = True
            try:
                self.own.exec_module(module)
            except BaseException:
                self.begun = False
                raise
            self.done = True
            if _standing(module) is module and type(module) is Waiting:
                object.__setattr__(module, "__class__", ModuleType)
            for decorator, function in self.marks:
                getattr(_standing(module), decorator)(function)


def loaded(module: ModuleType) -> Any:
    """Return what stands for a module once it is loaded, which this does if need be.

    Raises:
        AttributeError: the module is being loaded by the code that asks.
    """
    loader = module.__loader__
    if isinstance(loader, Patient):
        loader.load(module)
    found = _standing(module)
    if found is module and type(module) is Waiting:
        raise AttributeError(f"module '{module.__name__}' is only partly loaded")
    return found


def _standing(module: ModuleType) -> Any:
    """Return the module of this name: some put another in their place when they are executed."""
    return sys.modules.get(module.__name__, module)


def called_late(loader: Patient, name: str) -> Call:
    """Return a function that loads its module when it is called."""

    def call(*given: Any, **named: Any) -> Any:
        assert loader.module is not None
        return getattr(loaded(loader.module), name)(*given, **named)

    return call


def marked_late(loader: Patient, name: str) -> Call:
    """Return a decorator that returns the function itself, as its original does, and notes it for that."""

    def mark(function: Call) -> Call:
        loader.marks.append((name, function))
        return function

    return mark


def wrapped_late(loader: Patient, name: str) -> Call:
    """Return a decorator whose function is plain as long as the module waits, and then as the original makes it."""

    def wrap(function: Call | None = None, *given: Any, **named: Any) -> Any:
        if function is None:
            return functools.partial(_turned, wrap, given, named)
        if not inspect.isroutine(function):
            assert loader.module is not None
            return getattr(loaded(loader.module), name)(function, *given, **named)
        plain = function
        made: list[Call] = []

        @functools.wraps(plain)
        def call(*arguments: Any, **options: Any) -> Any:
            if not loader.done:
                return plain(*arguments, **options)
            if not made:
                assert loader.module is not None
                made.append(getattr(_standing(loader.module), name)(plain, *given, **named))
            return made[0](*arguments, **options)

        return call

    return wrap


def _turned(wrap: Call, given: Sequence[Any], named: Mapping[str, Any], function: Call) -> Any:
    return wrap(function, *given, **named)


class Told(Loader):
    """The loader of a module that something is done with as soon as it is there."""

    def __init__(self, own: Loader, then: Callable[[ModuleType], None]):
        self.own, self.then = own, then

    def __getattr__(self, name: str) -> Any:
        """Return what the module's own loader has."""
        return getattr(self.__dict__["own"], name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the module as its own loader creates it."""
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, and go on."""
        self.own.exec_module(module)
        self.then(module)


def alone(module: ModuleType) -> None:
    """Let transformers find, once and for all, that its process works alone, as on a torch without `distributed`.

    It else imports torch's tensors over several processes, and sympy with them. A job is one process, also on several
    cards. The answer is kept by transformers itself; torch's own stays as it is.
    """
    import torch

    known = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        module.is_torch_distributed_available()
    except AttributeError:
        return  # another version, which asks otherwise
    finally:
        torch.distributed.is_available = known


WAITING: dict[str, dict[str, Callable[[Patient, str], Call]]] = {
    "lm_eval.loggers": {},  # Weights & Biases and others
    "requests": {},  # of lm-eval, for items with pictures from the web
    "sacrebleu": {},  # of lm-eval, for translations
    "scipy.io": {"loadmat": called_late},  # of datasets, to read it from the web too
    "scipy.optimize": {"linear_sum_assignment": called_late},  # of transformers, for object detection
    "torch._dynamo": {  # torch's compiler
        "allow_in_graph": marked_late,
        "assume_constant_result": marked_late,
        "disable": wrapped_late,
    },
    "transformers.models": {},  # reads all its files for a list of names, as transformers itself has done
}
TOLD: dict[str, Callable[[ModuleType], None]] = {"transformers.utils.import_utils": alone}


class Finder(MetaPathFinder):
    """Finds the modules of `WAITING` and `TOLD` where they are, and gives them their loaders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how a module is found; None for all others, and for what nobody finds."""
        if fullname not in WAITING and fullname not in TOLD:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(fullname, path, target) if find else None
            if spec is not None:
                own = spec.loader
                if own is not None and hasattr(own, "exec_module"):
                    late = fullname in WAITING
                    spec.loader = Patient(own, WAITING[fullname]) if late else Told(own, TOLD[fullname])
                return spec
        return None


def let_wait() -> None:
    """Let the modules of `WAITING` wait in this process, if they are not there yet."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
