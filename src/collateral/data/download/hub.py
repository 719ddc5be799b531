"""Files of the model hub through its own client, which retries, continues and caches; its errors become one line."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collateral.data.download.source import REVISION, Source, check_size
from collateral.errors import CollateralError
from collateral.io.atomic import sha256_file


def download_hub_file(source: Source) -> Path:
    """Return the path of one file of a data set repository in the user's hub cache, or raise a CollateralError."""
    from huggingface_hub import hf_hub_download

    wanted: dict[str, Any] = {"repo_id": source.hub, "filename": source.file, "revision": source.revision}
    with _one_line_errors(f"{source.file} of {source.hub}@{source.revision[:12]}"):
        check_size(hf_hub_download(**wanted, repo_type="dataset", dry_run=True).file_size or 0, source.file)
        path = Path(hf_hub_download(**wanted, repo_type="dataset")).resolve()
    name, found = path.name, path.name  # of a large file its sha256, of a small one git's hash
    if re.fullmatch(r"[0-9a-f]{64}", name):
        found = sha256_file(path)
    elif REVISION.fullmatch(name):
        blob = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(blob) + blob, usedforsecurity=False).hexdigest()
    if found != name:
        raise CollateralError(f"{source.file} is damaged in the hub's cache; delete {path}")
    return path


def download_hub_snapshot(repository: str, revision: str, folder: Path, patterns: Sequence[str]) -> None:
    """Fill `folder` with those files of a model repository that match the patterns, or raise a CollateralError."""
    from huggingface_hub import snapshot_download

    with _one_line_errors(f"{repository}@{revision[:12]}"):
        snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=list(patterns))


@contextmanager
def _one_line_errors(where: str) -> Iterator[None]:
    """Raise the client's errors as one line, without the queries of signed URLs; the caller adds the remedy."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (OSError, ValueError, httpx2.HTTPError, OfflineModeIsEnabled) as error:
        # "not in the cache" hides the reason
        reason = (isinstance(error, LocalEntryNotFoundError) and error.__cause__) or error
        line = re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", (str(reason).strip().splitlines() or [""])[0])
        if constants.is_offline_mode():
            line = "HF_HUB_OFFLINE=1 forbids it: set it to 0"
        raise CollateralError(
            f"{where} could not be downloaded ({type(reason).__name__}: {line}); check the network and the name"
        ) from None
