"""A source file as definitions: what each computes, and which names it uses.

A definition is a top-level function, class or constant. Its tree leaves out what is said and not computed:
docstrings, comments, layout, annotations of functions and variables, the arguments of exceptions, log calls and
progress bars.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from collateral.io.atomic import write_text

EFFECTS = "<effects>"
"""Name of the statements of a module that define nothing: they count with each of its definitions."""

_LOGGERS = {"log", "logger", "logging", "warnings"}
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log", "warn"}
_FORMAT = 1  # of the store; raise it when the rules below change


class Definition(NamedTuple):
    """What a definition computes.

    Attributes:
        sha256: of its syntax tree, in which each name from outside is a number.
        uses: these names in order: `.name` of the same module, else dotted from their package's root.
    """

    sha256: str
    uses: tuple[str, ...]


class Source(NamedTuple):
    """A parsed file.

    Attributes:
        definitions: name → definition; `EFFECTS` for statements that define nothing.
        imports: name → dotted name of what a top-level import binds.
    """

    definitions: Mapping[str, Definition]
    imports: Mapping[str, str]


def parse_source(text: str) -> Source:
    """Return the definitions of a module's text.

    Raises:
        SyntaxError: it is not Python.
    """
    tree = ast.parse(text)
    imports: dict[str, str] = {}
    named: list[tuple[list[str], ast.stmt]] = []
    effects: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= _bindings(node)
        elif _is_type_checking(node) or _is_text(node):
            continue
        elif names := _defined(node):
            named.append((names, node))
        else:
            effects.append(node)
    own = {name for names, _ in named for name in names}
    inner = {name for node in effects for name in _stored([node])}  # defined under an `if` or a `try`
    known = imports | {name: f".{name}" for name in own | inner}
    definitions: dict[str, Definition] = {}
    for names, node in named:
        parsed = _definition([node], known)
        for name in names:
            if name in definitions:  # defined twice: both count
                parsed = Definition(
                    _sha256(definitions[name].sha256, parsed.sha256), definitions[name].uses + parsed.uses
                )
            definitions[name] = parsed
    if effects:
        definitions[EFFECTS] = _definition(effects, known)
        definitions |= dict.fromkeys(inner - own, definitions[EFFECTS])
    return Source(definitions, imports)


def parse_script(text: str) -> Definition:
    """Return a script's whole text as one definition.

    Raises:
        SyntaxError: it is not Python.
    """
    body = ast.parse(text).body
    imports: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= _bindings(node)
    return _definition([node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)], imports)


def is_said(call: ast.Call) -> bool:
    """Return whether the arguments of a call are a message: of an exception, or of a log line."""
    return _is_error(call.func) or _is_log(call.func)


def _definition(nodes: list[ast.stmt], names: Mapping[str, str]) -> Definition:
    """Return the tree of some statements, given what the module's names stand for."""
    canonical = _Canonical(names)
    statements = [canonical.visit(node) for node in nodes]
    text = "\n".join(ast.dump(node) for node in statements if node is not None)
    return Definition(_sha256(text), tuple(canonical.uses))


def _sha256(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _bindings(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Return name → dotted name of what an import binds."""
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {
        alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
        for alias in node.names
    }


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _is_text(node: ast.stmt) -> bool:
    """Return whether a statement is a docstring, of a module, a function or a field."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines; none where it does something else too."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        targets = [part for target in node.targets for part in getattr(target, "elts", [target])]
        if all(isinstance(target, ast.Name) for target in targets):
            return [target.id for target in targets]
    return []


def _stored(nodes: list[ast.stmt]) -> set[str]:
    """Return the names that statements bind in their own scope; not those of functions and comprehensions inside."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda) and (
            not isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp)
        ):
            waiting += ast.iter_child_nodes(node)
    return names


def _is_error(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name.endswith("Error")


def _is_log(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and function.attr in _LEVELS
        and isinstance(function.value, ast.Name)
        and function.value.id in _LOGGERS
    )


class _Canonical(ast.NodeTransformer):
    """Takes out what is said, and puts a number in the place of each name from outside."""

    def __init__(self, names: Mapping[str, str]):
        self.names = dict(names)
        self.uses: list[str] = []
        self.local: list[set[str]] = []

    def resolve(self, node: ast.expr) -> str | None:
        """Return the dotted name that an expression stands for, if it comes from outside."""
        if isinstance(node, ast.Name):
            return None if any(node.id in names for names in self.local) else self.names.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            return None if owner is None else f"{owner}.{node.attr}"
        return None

    def visit_Name(self, node: Any) -> ast.AST:
        dotted = self.resolve(node)
        if dotted is None:
            return self.generic_visit(node)
        if dotted not in self.uses:
            self.uses.append(dotted)
        return ast.Name(f"@{self.uses.index(dotted)}", ast.Load())

    visit_Attribute = visit_Name

    def visit_Import(self, node: Any) -> ast.AST:
        self.names |= _bindings(node)
        return ast.Pass()

    visit_ImportFrom = visit_Import

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if _is_text(node) else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if is_said(node):
            node.args, node.keywords = [], []
        elif getattr(node.func, "id", "") == "tqdm":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in {"desc", "unit"}]
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return ast.Assign([self.visit(node.target)], self.visit(node.value), lineno=0)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Keep the fields: their order, types and defaults make a dataclass; not what `Annotated` adds, nor costs."""
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        kept = [part for part in fields if getattr(part.target, "id", "") != "cost"]
        types = [
            ast.Expr(ast.Tuple([part.target, self.visit(_without_metadata(part.annotation))], ast.Load()))
            for part in kept
        ]
        node.body = [part for part in node.body if part not in fields or part in kept]
        visited = self.generic_visit(node)
        node.body += types
        return visited

    def visit_FunctionDef(self, node: Any) -> Any:
        node.returns = None
        node.decorator_list = [self.visit(part) for part in node.decorator_list]
        declared = {name for part in ast.walk(node) if isinstance(part, ast.Global) for name in part.names}
        self._visit_function(node, _stored(node.body) - declared)
        node.body = [part for part in map(self.visit, node.body) if part is not None]
        self.local.pop()
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._visit_function(node, set())
        node.body = self.visit(node.body)
        self.local.pop()
        return node

    def _visit_function(self, node: Any, stored: set[str]) -> None:
        """Visit the defaults, which are computed outside, and enter the function's scope."""
        given = node.args
        given.defaults = [self.visit(part) for part in given.defaults]
        given.kw_defaults = [part and self.visit(part) for part in given.kw_defaults]
        parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        for parameter in filter(None, parameters):
            parameter.annotation = None
        self.local.append(stored | {parameter.arg for parameter in parameters if parameter})

    def visit_ListComp(self, node: Any) -> ast.AST:
        first = node.generators[0]
        outside = self.visit(first.iter)
        first.iter = ast.Constant(None)
        targets = [part for loop in node.generators for part in ast.walk(loop.target)]
        self.local.append({part.id for part in targets if isinstance(part, ast.Name)})
        visited = self.generic_visit(node)
        self.local.pop()
        first.iter = outside
        return visited

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp


def _without_metadata(annotation: ast.expr) -> ast.expr:
    """Return the type of an annotation: X of Annotated[X, …], wherever it stands."""
    if isinstance(annotation, ast.Subscript):
        if ast.unparse(annotation.value).split(".")[-1] == "Annotated":
            assert isinstance(annotation.slice, ast.Tuple)
            return _without_metadata(annotation.slice.elts[0])
        annotation.slice = _without_metadata(annotation.slice)
    if isinstance(annotation, ast.Tuple):
        annotation.elts = [_without_metadata(part) for part in annotation.elts]
    return annotation


class Sources:
    """Parsed files, each parsed once: the processes of a study's jobs all ask for the same ones.

    Args:
        store: a file that keeps them by the bytes of the source and the version of Python, so that no entry can be
            out of date; None for this process alone. One that is missing or damaged is written again.
    """

    def __init__(self, store: Path | None = None):
        self._store = store
        self._known = _read(store) if store else {}
        self._stored = len(self._known)
        self._paths: dict[Path, Source] = {}

    def read(self, path: Path) -> Source:
        """Return the definitions of a file."""
        if path not in self._paths:
            raw = path.read_bytes()
            key = hashlib.sha256(raw).hexdigest()
            if key not in self._known:
                self._known[key] = parse_source(raw.decode("utf-8"))
            self._paths[path] = self._known[key]
        return self._paths[path]

    def save(self) -> None:
        """Write what is new into the store; a folder that cannot be written costs time and nothing else."""
        if self._store is None or len(self._known) == self._stored:
            return
        text = json.dumps({"python": _version(), "sources": self._known})
        try:
            write_text(self._store, text)
        except OSError:
            return
        self._stored = len(self._known)


def _version() -> list[Any]:
    return [_FORMAT, *sys.version_info[:2]]  # what a tree looks like is Python's version's


def _read(store: Path) -> dict[str, Source]:
    try:
        found = json.loads(store.read_text(encoding="utf-8"))
        return dict(_sources(found["sources"])) if found["python"] == _version() else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _sources(stored: Mapping[str, Any]) -> Iterator[tuple[str, Source]]:
    for key, (definitions, imports) in stored.items():
        parsed = {name: Definition(sha256, tuple(uses)) for name, (sha256, uses) in definitions.items()}
        yield key, Source(parsed, dict(imports))
