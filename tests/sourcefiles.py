"""Files of edit requests for the tests: records written to disk, one field changed, and the public files."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from collateral.data.facts import Fact
from collateral.errors import CollateralError

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "editing"

# what a hostile record may hold and must come out as it went in: a line separator, braces, 40,000 letters
HOSTILE = ("line\u2028separator", "{0} {subject} %s }{", "long " * 8_000 + "end")


def written(folder: Path, value: object) -> Path:
    path = folder / "records.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def changed(record: dict[str, Any], keys: str, value: object) -> dict[str, Any]:
    """Return a copy with one field, named `outer.inner` or `list.0`, set, or deleted where the value is `...`."""
    copy = deepcopy(record)
    *outer, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
    inner: Any = copy
    for key in outer:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copy


def refusal(load: Callable[[Path], list[Fact]], path: Path) -> str:
    with pytest.raises(CollateralError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the public file {name} is not beside the project")
    return path
