"""Download a data set's file, verified: from a URL, from the model hub, or from a mirror folder."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collateral.data.download.http import download_url
from collateral.data.download.hub import download_hub_file
from collateral.data.download.mirror import find_in_mirror
from collateral.data.download.source import Source, check_size, parse_source, redact_url
from collateral.data.shared_resources import check_record, write_record
from collateral.errors import CollateralError
from collateral.io.atomic import sha256_file, whole_file
from collateral.io.locks import hold_lock
from collateral.io.resource_errors import shortage

log = logging.getLogger(__name__)


def fetch(stated: Mapping[str, Any], target: Path, mirror: Path | None = None) -> Path:
    """Return `target`, which now holds a source's file, whole and verified; on a CollateralError it is as it was.

    A target that is there and right is kept. Of several processes at once, one downloads and the others wait.

    Args:
        stated: the source, see `parse_source`.
        target: the file's path.
        mirror: a folder to take the file from by its base name, instead of the network.
    """
    try:
        source = parse_source(stated)
        if not _is_complete(source, target):
            with hold_lock(target.parent):
                if not _is_complete(source, target):
                    _download(source, target, mirror)
    except CollateralError as error:
        raise CollateralError(f"{target}: {error}") from None
    except OSError as error:
        unwritten = (
            f"{target}: cannot be written ({error}); check the folder's permissions and the disk's space"
        )
        raise shortage(error, target) or CollateralError(unwritten) from None
    return target


def _is_complete(source: Source, target: Path) -> bool:
    """Return whether the target is there, with the sha256 that was recorded and the one that is stated."""
    if not target.is_file():
        return False
    try:
        check_record(target)
        _check_sha256(target, source, target)
    except CollateralError as error:
        log.warning("%s; it is downloaded again", error)
        return False
    log.info("%s is there already", target)
    return True


def _check_sha256(path: Path, source: Source, origin: object) -> None:
    found = sha256_file(path)
    if source.sha256 not in ("", found):
        raise CollateralError(
            f"{origin} has the sha256 {found}, the source states {source.sha256}; correct the one that is wrong"
        )


def _download(source: Source, target: Path, mirror: Path | None) -> None:
    with whole_file(target) as partial:
        try:
            origin = _write_file(source, partial, mirror)
        except CollateralError as error:
            wanted = Path(source.file).name + (f" (sha256 {source.sha256})" if source.sha256 else "")
            raise CollateralError(
                f"{error}, or run `make stage` where there is a network, or put the file {wanted} into a folder and "
                "set `mirror:` to it"
            ) from None
    log.info("%s: %d bytes from %s", target, target.stat().st_size, origin)
    if not source.sha256:
        log.warning("%s cannot be verified; add to its source sha256: %s", target, sha256_file(target))
        write_record(target, {})  # with which later runs compare it


def _write_file(source: Source, partial: Path, mirror: Path | None) -> str:
    """Write the verified file to a path; return where it comes from."""
    name, origin = Path(source.file).name, redact_url(source.url)
    if mirror or source.hub:
        path = find_in_mirror(mirror, name, source.sha256) if mirror else download_hub_file(source)
        origin = str(path)
        check_size(path.stat().st_size, origin)
        shutil.copyfile(path, partial)
    elif source.url:
        download_url(source.url, partial)
    else:
        raise CollateralError(f"{name} has no public address; take it from a mirror")
    _check_sha256(partial, source, origin)
    return origin
