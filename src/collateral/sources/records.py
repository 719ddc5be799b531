"""Records of a public JSON file, read strictly: every fault names the file, the record and the field."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError

MAX_BYTES = 512 * 2**20  # a larger file is no list of edit requests, and parsing it would fill the memory

_KINDS = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True)
class Record:
    """One JSON object of a file, or an object inside it.

    Attributes:
        path: the file.
        index: position in the file's list, from 0.
        values: the fields.
        parent: name of the field that holds this object, empty for the record itself.
    """

    path: Path
    index: int
    values: Mapping[str, Any]
    parent: str = ""

    def __contains__(self, name: str) -> bool:
        return name in self.values

    @property
    def source(self) -> str:
        """Return file name and record, for a fact's provenance."""
        return f"{self.path.name} record {self.index}"

    def where(self, name: str) -> str:
        """Return file, record and field, for the start of an error line."""
        return f"{self.path}: record {self.index}: field '{f'{self.parent}.' if self.parent else ''}{name}'"

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        """Return a text field without the white space around it.

        Raises:
            CollateralError: the field is missing, no text, or empty where it may not be.
        """
        return self._stripped(name, self._get(name), may_be_empty)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a field that is a list of one or more texts, each without the white space around it.

        Raises:
            CollateralError: the field is missing, no list, empty, or one of its entries is no text or empty.
        """
        value = self._get(name)
        if not isinstance(value, list):
            raise self._wrong(name, value, "a list of texts")
        if not value:
            raise CollateralError(f"{self.where(name)} is an empty list; at least one text is needed")
        return tuple(self._stripped(f"{name}[{place}]", entry, False) for place, entry in enumerate(value))

    def number(self, name: str) -> int:
        """Return a whole-number field.

        Raises:
            CollateralError: the field is missing or no whole number.
        """
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name, value, "a whole number")
        return value

    def record(self, name: str) -> "Record":
        """Return a field that is an object.

        Raises:
            CollateralError: the field is missing or no object.
        """
        value = self._get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return Record(self.path, self.index, value, f"{self.parent}.{name}" if self.parent else name)

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise CollateralError(
                f"{self.where(name)} is missing (there: {', '.join(sorted(self.values)) or 'nothing'}); "
                "check that the data set's loader fits the file"
            )
        return self.values[name]

    def _stripped(self, name: str, value: Any, may_be_empty: bool) -> str:
        if not isinstance(value, str):
            raise self._wrong(name, value, "text")
        if not (value.strip() or may_be_empty):
            raise CollateralError(f"{self.where(name)} is empty; fill it or remove the record")
        return value.strip()

    def _wrong(self, name: str, value: Any, needed: str) -> CollateralError:
        kind = _KINDS.get(type(value), "null")
        return CollateralError(f"{self.where(name)} is {kind} ({_short(value)}); {needed} is needed")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_records(path: Path) -> list[Record]:
    """Return the objects of a JSON file that holds one list of them.

    Raises:
        CollateralError: the file is missing, above 512 MiB, not JSON, not a list of objects, or empty.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CollateralError(
                f"{path}: {size} bytes, at most {MAX_BYTES} (512 MiB) are read; cut the file to the records needed"
            )
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CollateralError(f"{path}: file not found; set the data set's path to the JSON file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CollateralError(
            f"{path}: not readable as JSON ({error}); give the path of one complete JSON file"
        ) from None
    if not isinstance(loaded, list) or not loaded:
        raise CollateralError(f"{path}: the file must be a JSON list of one or more records")
    for index, value in enumerate(loaded):
        if not isinstance(value, dict):
            raise CollateralError(
                f"{path}: record {index} is {_short(value)}; an object with named fields is needed"
            )
    return [Record(path, index, value) for index, value in enumerate(loaded)]
