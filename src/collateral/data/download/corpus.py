"""The beginning of a hub data set's text as a plain file, so that later jobs need no network. Torch-free."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collateral.data.corpus import documents
from collateral.data.shared_resources import write_record
from collateral.errors import CollateralError
from collateral.io.atomic import whole_file
from collateral.io.locks import hold_lock

log = logging.getLogger(__name__)


def bring_text(source: Mapping[str, Any], characters: int, path: Path) -> None:
    """Write the first documents of a hub data set to `path`, whole or not at all; a file that is there is kept.

    Documents are parted by an empty line, as in any text file that `texts.documents` reads; a document with empty
    lines within becomes several, which makes no difference where the text is one stream of tokens.

    Args:
        source: `{hub, revision, split, column}` and optionally `config`.
        characters: enough; the file ends with the document that reaches them.
        path: the file.

    Raises:
        CollateralError: the data set cannot be read, or has no text.
    """
    with hold_lock(path):
        if path.is_file():
            log.info("%s is there already", path)
            return
        written = 0
        with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
            for document in _read(source):
                text = document.strip("\n")
                if not text.strip():
                    continue
                written += file.write(text + "\n\n")
                if written >= characters:
                    break
            if not written:
                raise CollateralError(
                    f"moments.text: the column '{source['column']}' of {source['hub']} has no text; name another"
                )
        write_record(path, source)
    if written < characters:
        log.warning("%s: the whole text has %d characters, %d were asked for", path, written, characters)
    log.info("%s: %d characters of %s@%s", path, written, source["hub"], source["revision"][:12])


def _read(source: Mapping[str, Any]) -> Any:
    import httpx2

    try:
        yield from documents(source)
    except KeyError as error:
        raise CollateralError(
            f"moments.text: {source['hub']} has no column {error}; name one that it has"
        ) from None
    except (OSError, ValueError, httpx2.HTTPError) as error:  # the client reads on while rows are taken
        raise CollateralError(
            f"moments.text: {source['hub']} cannot be read ({type(error).__name__}); check the network (none here? "
            "run `make stage` where there is one), or use moments.text.file"
        ) from None
