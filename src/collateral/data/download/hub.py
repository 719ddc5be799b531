"""The model hub: the only room that knows its client, and what its faults mean to a user."""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from collateral.data.download.retry import Passing, Patience, retried, seconds_asked
from collateral.errors import CollateralError
from collateral.io.atomic import sha256_file

Result = TypeVar("Result")

REVISION = re.compile(r"[0-9a-f]{40}")
_LFS = re.compile(r"[0-9a-f]{64}")
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S*")


def hub_file(repository: str, revision: str, file: str, max_bytes: int, patience: Patience) -> Path:
    """Return the path, in the user's own hub cache, of one file of a data set repository.

    The cache serves all studies of a user, works without a network once the file is there, and names each file after
    its content: that name is checked. A transfer that breaks off is continued by the client within a call; after a
    crash the client starts the file over.

    Args:
        repository: `owner/name`.
        revision: the 40-digit commit.
        file: the file's path in the repository.
        max_bytes: the most that the file may hold.
        patience: how often to ask again.

    Raises:
        CollateralError: no network, no such file, no access, too large, or damaged in the cache.
    """
    from huggingface_hub import hf_hub_download

    where = f"{file} of {repository}@{revision[:12]}"

    def about() -> int | None:
        return hf_hub_download(
            repository, file, repo_type="dataset", revision=revision, dry_run=True
        ).file_size

    def bring() -> str:
        return hf_hub_download(repository, file, repo_type="dataset", revision=revision)

    size = asked(about, where, patience)
    if size is not None and size > max_bytes:
        raise CollateralError(
            f"{where} holds {size} bytes, over the limit of {max_bytes} for a data set's file; check the name"
        )
    path = Path(asked(bring, where, patience))
    _check_cached(path, where)
    return path


def hub_snapshot(
    repository: str, revision: str, folder: Path, patterns: Sequence[str], patience: Patience
) -> None:
    """Fill `folder` with those files of a model repository that match the patterns.

    Raises:
        CollateralError: no network, no such repository or revision, no access.
    """
    from huggingface_hub import snapshot_download

    def bring() -> str:
        return snapshot_download(
            repository, revision=revision, local_dir=folder, allow_patterns=list(patterns)
        )

    asked(bring, f"{repository}@{revision[:12]}", patience)


def asked(action: Callable[[], Result], where: str, patience: Patience) -> Result:
    """Return what a call of the hub's client returns, asking again where the fault may pass.

    Raises:
        CollateralError: what could not be had and why, without a remedy: the caller knows it.
    """
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    def attempt() -> Result:
        try:
            return action()
        except (OSError, ValueError, httpx2.HTTPError, OfflineModeIsEnabled) as error:
            if constants.is_offline_mode():
                raise CollateralError(
                    f"{where} could not be downloaded (HF_HUB_OFFLINE=1 forbids it); set it to 0"
                ) from None
            raise _judged(error, where) from None

    try:
        return retried(attempt, patience)
    except Passing as fault:
        raise CollateralError(str(fault)) from None


def _judged(error: Exception, where: str) -> Passing | CollateralError:
    """Return what to raise: Passing for what may pass, otherwise the user's line.

    Where there is no connection the client has asked again for half a minute by itself, and that is enough.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # the client tells that nothing is in the cache, and keeps the reason behind it
    reason = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
    fault = reason if isinstance(reason, Exception) else error
    line = f"{where} could not be downloaded ({plain(fault)})"
    if isinstance(fault, HfHubHTTPError):
        status, asked_for = fault.response.status_code, fault.response.headers.get("Retry-After", "")
        if status in (408, 429) or status >= 500:
            return Passing(line, wait=seconds_asked(asked_for))
    elif type(fault) is OSError and fault.errno is None:
        return Passing(line)  # fewer bytes than the hub announced
    return CollateralError(line)


def plain(error: Exception) -> str:
    """Return the first line of an error, with its type and without the queries of signed URLs."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: " + _QUERY.sub(r"\1", line)


def _check_cached(path: Path, where: str) -> None:
    """Hold a file of the cache to its name there: the sha256 of a large file, git's blob hash of a small one.

    Raises:
        CollateralError: the file is damaged.
    """
    content = path.resolve()
    if content.parent.name != "blobs":
        return  # a cache on a disk without links names the files otherwise
    if _LFS.fullmatch(content.name):
        found = sha256_file(content)
    elif REVISION.fullmatch(content.name):
        found = _git_blob(content)
    else:
        return
    if found != content.name:
        raise CollateralError(f"{where} is damaged in the hub's cache; delete {content} and try again")


def _git_blob(path: Path) -> str:
    """Return the hex sha1 of the header `blob LENGTH NUL` and the file's bytes, as git names a file's content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
