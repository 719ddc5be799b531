"""Records of a public JSON file, read strictly: every fault names the file, the record and the field."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collateral.data.facts import PLACEHOLDER
from collateral.errors import CollateralError

log = logging.getLogger(__name__)

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

    def texts(self, name: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
        """Return a field that is a list of texts, each without the white space around it.

        Raises:
            CollateralError: the field is missing, no list, empty where it may not be, or one of its entries is no
                text or empty.
        """
        value = self._list(name, "a list of texts", "text", may_be_empty)
        return tuple(self._stripped(f"{name}[{place}]", entry, False) for place, entry in enumerate(value))

    def template(self, name: str) -> str:
        """Return a text field in which exactly one `{}` stands for the subject.

        Raises:
            CollateralError: the field is missing, no text, or has no or several `{}`.
        """
        text = self.text(name)
        if text.count(PLACEHOLDER) != 1:
            raise CollateralError(
                f"{self.where(name)} is {_short(text)}; exactly one '{PLACEHOLDER}' is needed, for the subject"
            )
        return text

    def number(self, name: str) -> int:
        """Return a whole-number field.

        Raises:
            CollateralError: the field is missing or no whole number.
        """
        return self._whole(name, self._get(name))

    def numbers(self, name: str) -> tuple[int, ...]:
        """Return a field that is a list of whole numbers, which may be empty.

        Raises:
            CollateralError: the field is missing, no list, or one of its entries is no whole number.
        """
        value = self._list(name, "a list of whole numbers", "number", True)
        return tuple(self._whole(f"{name}[{place}]", entry) for place, entry in enumerate(value))

    def record(self, name: str) -> "Record":
        """Return a field that is an object.

        Raises:
            CollateralError: the field is missing or no object.
        """
        value = self._get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return self._inner(name, value)

    def records(self, name: str, *, may_be_empty: bool = False) -> "tuple[Record, ...]":
        """Return a field that is a list of objects.

        Raises:
            CollateralError: the field is missing, no list, empty where it may not be, or an entry is no object.
        """
        found = []
        for place, entry in enumerate(self._list(name, "a list of objects", "object", may_be_empty)):
            if not isinstance(entry, dict):
                raise self._wrong(f"{name}[{place}]", entry, "an object")
            found.append(self._inner(f"{name}[{place}]", entry))
        return tuple(found)

    def answers(self, name: str) -> tuple[str, ...]:
        """Return every non-empty text of a field that is a text, a list of texts, or a list of such lists, in order.

        Raises:
            CollateralError: the field is missing, or something in it is neither text nor a list of texts.
        """
        return tuple(text for text in self._flat(name, self._get(name), 2) if text)

    def _flat(self, name: str, value: Any, depth: int) -> list[str]:
        if isinstance(value, list) and depth:
            return [
                text
                for place, entry in enumerate(value)
                for text in self._flat(f"{name}[{place}]", entry, depth - 1)
            ]
        return [self._stripped(name, value, True)]

    def _list(self, name: str, needed: str, one: str, may_be_empty: bool) -> list[Any]:
        value = self._get(name)
        if not isinstance(value, list):
            raise self._wrong(name, value, needed)
        if not (value or may_be_empty):
            raise CollateralError(f"{self.where(name)} is an empty list; at least one {one} is needed")
        return value

    def _inner(self, name: str, value: Mapping[str, Any]) -> "Record":
        return Record(self.path, self.index, value, f"{self.parent}.{name}" if self.parent else name)

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise CollateralError(
                f"{self.where(name)} is missing (there: {', '.join(sorted(self.values)) or 'nothing'}); "
                "check that the data set's loader fits the file"
            )
        return self.values[name]

    def _whole(self, name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name, value, "a whole number")
        return value

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


def refuse_repeated(records: Iterable[Record], name: str) -> None:
    """Check that a whole-number field, which names the record, differs between all records.

    Raises:
        CollateralError: two records have the same number, or one has none.
    """
    first: dict[int, int] = {}
    for record in records:
        number = record.number(name)
        if number in first:
            raise CollateralError(
                f"{record.where(name)} is {number}, as in record {first[number]}; each {name} may stand once, "
                "remove one of the records"
            )
        first[number] = record.index


def log_left_out(path: Path, total: int, counts: Mapping[str, int], what: str = "records") -> None:
    """Log how many records a loader left out, one line a reason; reasons that never occurred are not named."""
    for reason, count in counts.items():
        if count:
            log.warning("%s: %d of %d %s left out: %s", path, count, total, what, reason)


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
        raise CollateralError(
            f"{path}: no list of records; give a file that is a JSON list of one or more records"
        )
    for index, value in enumerate(loaded):
        if not isinstance(value, dict):
            raise CollateralError(
                f"{path}: record {index} is {_short(value)}; an object with named fields is needed"
            )
    return [Record(path, index, value) for index, value in enumerate(loaded)]
