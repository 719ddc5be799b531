"""A module's text with other words in its messages, and nothing else."""

import ast
import random

from collateral.runtime.definitions import is_said, parse_source


def said_texts(tree: ast.AST) -> list[ast.Constant]:
    """The texts inside the arguments of exceptions and log calls."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and is_said(node)]
    parts = [part for call in calls for part in ast.walk(call)]
    return [part for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def reword(text: str, seed: int | None = None) -> str:
    """Return the text with all its messages changed, or with one of them, chosen at random."""
    tree = ast.parse(text)
    texts = said_texts(tree)
    for part in texts if seed is None else [random.Random(seed).choice(texts)]:
        part.value = f"{part.value} otherwise"
    return ast.unparse(tree)


def recompute(text: str, name: str) -> str:
    """Return the text with a function, or a method `Class.method`, that computes something more."""
    tree = ast.parse(text)
    body = tree.body
    for part in name.split("."):
        node = next(node for node in body if getattr(node, "name", None) == part)
        body = node.body
    body.insert(1, ast.parse("_more = 1 + 1").body[0])
    changed = ast.unparse(ast.fix_missing_locations(tree))
    assert parse_source(changed).definitions != parse_source(text).definitions
    return changed
