"""Every error message that the project can raise, read from its code; docs/troubleshooting.md lists them."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/collateral"
ERRORS = ("CollateralError", "UnstableEditError", "HubTasksError", "WorkflowError", "Fault")
STAGES = {
    "Config and plan": "settings study studyconfig yamlfile recipes ranges places plan studysizes shapes rates "
    "taskfolders taskfiles errors",
    "Data": "downloads transfers mirrors hub retries facts sequences questions sources benchmarks sharing locks "
    "staging hubtext proving",
    "Models": "modelsource modelfolder models cards",
    "Preparing": "tokens contexts texts moments hypernetwork hypertraining gradients hooks resume",
    "Editing": "editing methods rankone spread targets attribution codebook regularizers delta increments deltafile "
    "replay tensorfile session chain singles editwork checkpoints adapted",
    "Evaluating": "efficacy abilities drift tasks taskcounts collapse inference proportions resampling",
    "Weighing": "weights spectra",
    "Tables and report": "tables tablefile tableschemas columns gathering pairing resultfolders costs figures "
    "pageparts pageassets pages reportfiles",
    "Running": "runs joblog jobs needs files sealed unfinished verification reasons provenance codetrees rules",
    "Tools": "stage verify why compare report_now check_config",
}
REMEDIES = re.compile(
    r"\b(add|allow|ask|begin|change|check|choose|copy|delete|describe|download|drop|export|fetch|free|give|install|"
    r"leave|list|look|lower|make|mend|move|name|pin|put|raise|read|remove|rename|repeat|run|see|set|split|start|"
    r"state|take|try|turn|use|wait|write|correct|cut|evaluate|restore|must|valid|needs?|needed)\b"
)


@dataclass(frozen=True)
class Message:
    """One message: where it is made, what it says with ‹placeholders›, and why, as the docstring has it."""

    path: Path
    line: int
    text: str
    why: str

    @property
    def parts(self) -> tuple[str, str]:
        """What is wrong, and what to do: what stands after the last `; ` outside brackets."""
        depth, cut = 0, -1
        for place, letter in enumerate(self.text):
            depth += (letter in "([{") - (letter in ")]}")
            if depth == 0 and self.text.startswith("; ", place):
                cut = place
        return (self.text[:cut], self.text[cut + 2 :]) if cut >= 0 else (self.text, "")

    @property
    def is_mendable(self) -> bool:
        """Whether its second part says what to do, or what is allowed."""
        asked = self.parts[1]
        return bool(re.search("‹(remedy|bound)›", asked) or REMEDIES.search(re.sub("‹[^›]*›", "", asked)))


def messages(path: Path) -> list[Message]:
    """Return the messages of one file, in its order; a rule file's are found by line, as it is no Python."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return list(_found(ast.parse(text), path, "", _constants(ast.parse(text)), 0))
    found = []
    for start in re.finditer(r"^ *raise WorkflowError\(", text, flags=re.M):
        call = _call(text[start.start() :].lstrip())
        line = text.count("\n", 0, start.start())
        found += _found(call, path, "", {}, line)
    return found


def _call(text: str) -> ast.Module:
    """Return the statement that a text begins with: as few of its lines as make one."""
    lines = text.splitlines()
    for count in range(1, len(lines) + 1):
        try:
            return ast.parse("\n".join(lines[:count]))
        except SyntaxError:
            continue
    raise ValueError(f"no statement: {lines[0]}")


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return name → value of the module's own texts and numbers, and `name()` → what a function of it words."""
    known = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                known[name] = str(value)
            case ast.FunctionDef(name=name, body=[*_, ast.Return(value=ast.JoinedStr() as text)]):
                known[f"{name}()"] = _text(text, {})
    return known


def _found(node: ast.AST, path: Path, why: str, known: dict[str, str], offset: int) -> Iterator[Message]:
    for child in ast.iter_child_nodes(node):
        own = why
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            own = _raises(ast.get_docstring(child) or "") or why
        if isinstance(child, ast.Call) and (text := _said(child, known)):
            yield Message(path, child.lineno + offset, text, own)
            continue
        yield from _found(child, path, own, known, offset)


def _said(call: ast.Call, known: dict[str, str]) -> str:
    """Return what an error says; nothing for another call, and for an error that only passes another's on."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    if name == "unknown_name":
        return _text(call, known)
    if name not in ERRORS or not call.args:
        return ""
    text = " ".join(_text(call.args[0], known).split())
    return text if re.search(r"\w", re.sub("‹[^›]*›", "", text)) else ""


def _text(node: ast.expr, known: dict[str, str]) -> str:
    """Return a text with a placeholder where something is put in."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(_text(one, known) for one in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, known) + _text(right, known)
        case ast.FormattedValue(value=value, conversion=conversion):
            inner = _text(value, known)
            return f"'{inner}'" if conversion == ord("r") else inner
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.Call(func=ast.Name(id=name)) if f"{name}()" in known:
            return known[f"{name}()"]
        case ast.Call(func=ast.Name(id="unknown_name"), args=[kind, given, *_]):
            name = f"{_text(kind, known)} '{_text(given, known)}'"
            return f"unknown {name}; did you mean ‹the nearest›? (valid: ‹names›)"
        case ast.Call(func=ast.Attribute(value=ast.JoinedStr() as value)):
            return _text(value, known)
        case ast.IfExp(body=body, orelse=orelse):
            either = [one for one in (_text(body, known), _text(orelse, known)) if one]
            return f"‹{' / '.join(one.strip().replace('‹', '').replace('›', '') for one in either)}›"
    return f"‹{_name(node) or '…'}›"


def _name(node: ast.AST) -> str:
    """Return in words what an expression stands for: the last name of it that says something."""
    match node:
        case ast.Name(id=name):
            return name.strip("_").replace("_", " ").lower()
        case ast.Attribute(value=value, attr="name" | "path" | "parent" | "stem" | "__name__" | "strerror"):
            return _name(value)
        case ast.Attribute(attr=name):
            return name.strip("_").replace("_", " ")
        case ast.Call(func=ast.Name(id="_remedy")):
            return "remedy"
        case ast.Call(func=ast.Name(id="len"), args=[of, *_]):
            return f"number of {_name(of)}"
        case ast.Call(func=ast.Name(id="type"), args=[of, *_]):
            return f"type of {_name(of)}"
        case ast.Call(func=ast.Name(), args=[*_, of]):
            return _name(of)
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[of]):
            return _name(of)
        case ast.Call(func=ast.Attribute(value=value, attr=attr)):
            return _name(value) if attr.startswith(("re", "strip", "as_", "partition")) else attr.strip("_")
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            return key.replace("_", " ")
        case ast.Subscript(value=value) | ast.Starred(value=value):
            return _name(value)
        case ast.GeneratorExp(generators=[one, *_]) | ast.ListComp(generators=[one, *_]):
            return _name(one.iter)
        case ast.BinOp(left=left, right=right):
            return _name(left) or _name(right)
        case ast.BoolOp(values=[first, *_]):
            return _name(first)
        case ast.NamedExpr(target=target):
            return _name(target)
    return ""


def _raises(docstring: str) -> str:
    """Return what a docstring says of the errors, in one line."""
    _, _, after = docstring.partition("Raises:\n")
    lines = after.split("\n\n")[0].splitlines()
    text = " ".join(line.strip() for line in lines)
    return re.sub(r"^(CollateralError|UnstableEditError|HubTasksError): ", "", text)


def files() -> list[Path]:
    """Return the files that may raise: the package, the scripts, and the rules."""
    rules = [ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))]
    return [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "workflow").rglob("*.py")), *rules]


def every() -> list[Message]:
    """Return all messages of the project."""
    return [one for path in files() for one in messages(path)]


def _room(path: Path) -> str:
    if path.suffix != ".py":
        return "rules"
    parts = path.relative_to(PACKAGE).parts if path.is_relative_to(PACKAGE) else (path.name,)
    return parts[0].removesuffix(".py")


def _stage(path: Path) -> str:
    room = _room(path)
    return next((stage for stage, rooms in STAGES.items() if room in rooms.split()), "Tables and report")


def _title(path: Path) -> str:
    if path.suffix != ".py":
        return next(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


def reference() -> str:
    """Return the Markdown of all messages: by stage of the workflow, by module, each with what to do."""
    found: dict[str, list[Path]] = {stage: [] for stage in STAGES}
    for path in files():
        if messages(path):
            found[_stage(path)].append(path)
    order = {room: place for place, room in enumerate(" ".join(STAGES.values()).split())}
    lines: list[str] = []
    for stage, paths in found.items():
        lines += [f"### {stage}", ""]
        for path in sorted(paths, key=lambda path: (order.get(_room(path), len(order)), path)):
            lines += _section(path)
    return "\n".join(lines)


def _section(path: Path) -> list[str]:
    lines = [f"**`{path.relative_to(ROOT)}`**: {_title(path)}", ""]
    why = ""
    for one in dict.fromkeys(messages(path)):
        if one.why and one.why != why:
            lines += [*([""] if why else []), f"Raised when: {one.why}", ""]
        why = one.why or why
        wrong, remedy = one.parts
        quoted = f"`` {wrong} ``" if "`" in wrong else f"`{wrong}`"
        lines += [f"- {quoted}", *([f"  → {remedy}"] if remedy else [])]
    return [*lines, ""]
