"""The beginning of a hub data set's text as a plain file, so that later jobs need no network."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collateral.data.corpus import documents
from collateral.data.shared_resources import write_record
from collateral.errors import CollateralError
from collateral.io.atomic import whole_file
from collateral.io.locks import hold_lock
from collateral.io.resource_errors import shortage

log = logging.getLogger(__name__)


def download_text(source: Mapping[str, Any], characters: int, path: Path) -> None:
    """Write the first documents of a hub data set to `path`, separated by empty lines; an existing file is kept.

    Args:
        source: `{hub, revision, split, column}` and optionally `config`.
        characters: the file ends with the document that reaches them.
        path: the file.

    Raises:
        CollateralError: the data set cannot be read, or has no text.
    """
    import httpx2

    hub, column, written = source["hub"], source["column"], 0
    with hold_lock(path):
        if path.is_file():
            return
        with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
            try:
                for document in documents(source):
                    if document.strip():
                        written += file.write(document.strip("\n") + "\n\n")
                    if written >= characters:
                        break
            except KeyError as error:
                raise CollateralError(
                    f"moments.text: {hub} has no column {error}; name one that it has"
                ) from None
            except (OSError, ValueError, httpx2.HTTPError) as error:
                unread = CollateralError(
                    f"moments.text: {hub} cannot be read ({type(error).__name__}); check the network (none here? run "
                    "`make stage` where there is one), or use moments.text.file"
                )
                raise shortage(error, path) or unread from None
            if not written:
                raise CollateralError(
                    f"moments.text: the column '{column}' of {hub} has no text; name another"
                )
        write_record(path, source)
    log.info("%s: %d of %d characters, of %s@%s", path, written, characters, hub, source["revision"][:12])
