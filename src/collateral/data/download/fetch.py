"""Bring a data set's file to its place, verified: from a URL, from the model hub, or from a mirror folder."""

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from collateral.data.download.http import Refused, Unreachable, check_url, discard, shown, transfer
from collateral.data.download.hub import REVISION, hub_file
from collateral.data.download.mirror import mirrored
from collateral.data.download.retry import Passing, Patience
from collateral.data.shared_resources import check_record, write_record
from collateral.errors import CollateralError, unknown_name
from collateral.io.atomic import put_in_place, sha256_file, whole_file
from collateral.io.locks import hold_lock
from collateral.io.resource_errors import shortage

log = logging.getLogger(__name__)

MAX_BYTES = 20 * 2**30
STAGE = " (no network here? run `make stage` where there is one)"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(
    r"/[0-9a-f]{40}/"
)  # in the address of a file of a Git repository: what it holds cannot change
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
# by the key that tells the kinds apart: the keys that are required, and those that are allowed
_KINDS: Mapping[str, tuple[set[str], set[str]]] = {
    "url": ({"url"}, {"url", "sha256", "file"}),
    "hub": ({"hub", "revision", "file"}, {"hub", "revision", "file", "sha256"}),
    "file": ({"file"}, {"file", "sha256"}),
}


@dataclass(frozen=True)
class Source:
    """A checked source of one file."""

    kind: str
    """"url", "hub", or "file": only a mirror has it."""
    file: str
    """The path in the repository of a hub, otherwise a base name."""
    sha256: str | None
    url: str = ""
    repository: str = ""
    revision: str = ""

    @property
    def name(self) -> str:
        """The base name, under which a mirror holds the file."""
        return self.file.rpartition("/")[2]


def checked_source(source: Mapping[str, Any]) -> Source:
    """Return the source that a config's mapping describes.

    Args:
        source: `{url, sha256, file?}`, `{hub, revision, file, sha256?}`, or `{file, sha256?}`: only a mirror has it.
            A url that names a commit of 40 digits may lack the sha256. A key with None counts as absent.

    Raises:
        CollateralError: an unknown or missing key, a malformed value.
    """
    source = {key: value for key, value in source.items() if value is not None}
    kind = next((name for name in _KINDS if name in source), None)
    if kind is None:
        raise unknown_name("data source", next(iter(source), ""), _KINDS)
    required, allowed = _KINDS[kind]
    for key in source:
        if key not in allowed:
            raise unknown_name(f"key of a data source with '{kind}'", key, allowed)
    for key in sorted(required - source.keys()):
        raise CollateralError(
            f"a data source with {kind}: {_brief(source[kind])} needs the key '{key}' "
            f"(it has {', '.join(sorted(source))}); add it"
        )
    sha256 = str(source["sha256"]).lower() if "sha256" in source else None
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise CollateralError(
            f"the sha256 {source['sha256']!r} of {_brief(source[kind])} is not 64 hexadecimal digits; give it whole"
        )
    if kind == "hub":
        return _hub_source(source, sha256)
    if kind == "file":
        return Source(kind, _checked_name(str(source["file"])), sha256)
    url = str(source["url"])
    check_url(url)
    if sha256 is None and not _COMMIT.search(urlsplit(url).path):
        raise CollateralError(
            f"a data source with url: {_brief(url)} needs the key 'sha256', as its address names no commit; add it"
        )
    name = str(source.get("file") or unquote(urlsplit(url).path.rpartition("/")[2]))
    return Source(kind, _checked_name(name), sha256, url=url)


def _hub_source(source: Mapping[str, Any], sha256: str | None) -> Source:
    repository, revision, file = (str(source[key]) for key in ("hub", "revision", "file"))
    if not _REPOSITORY.fullmatch(repository):
        raise CollateralError(f"hub: {repository!r} is no data set repository; write OWNER/NAME")
    if not REVISION.fullmatch(revision):
        raise CollateralError(
            f"hub: the revision {revision!r} of {repository} is not a 40-digit commit; pin one, because branches move"
        )
    for part in file.split("/"):
        _checked_name(part, of=file)
    return Source("hub", file, sha256, repository=repository, revision=revision)


def _brief(value: object) -> str:
    return shown(str(value)) if "://" in str(value) else str(value)


def _checked_name(name: str, of: str = "") -> str:
    """Return a name that cannot leave its folder or hide in it."""
    if (
        not name
        or name.startswith(".")
        or len(name.encode()) > 200
        or any(character in '/\\:*?"<>|' or not character.isprintable() for character in name)
    ):
        raise CollateralError(
            f"the file name {of or name!r} of a data source is refused: no leading dot, no '..', no slash or special "
            "character, 1 to 200 bytes; state a plain name as `file`"
        )
    return name


def fetch(
    source: Mapping[str, Any],
    target: Path,
    mirror: Path | str | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    patience: Patience | None = None,
) -> Path:
    """Return `target`, which now holds the source's file, whole and verified; on an error it is as it was.

    A target that is already there is verified and kept. Of several processes that ask at once, one brings the file
    and the others wait for it. A transfer from a URL that ends early leaves `TARGET.part` beside it, which the next
    call continues.

    Args:
        source: see `checked_source`.
        target: where the file will be.
        mirror: a folder to take the file from by its base name, instead of the network; None or "" for none.
        max_bytes: the most that the file may hold.
        patience: tries, waits and time-outs.

    Raises:
        CollateralError: a malformed source, no network, a file that is not there, too large or another than the
            checksum says, a folder that cannot be written.
    """
    wanted, target = checked_source(source), Path(target)
    try:
        if not _kept(wanted, target):
            with hold_lock(target.parent) as waited:
                if not (waited and _kept(wanted, target)):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _bring(wanted, target, mirror, max_bytes, patience or Patience())
                    if wanted.sha256 is None:  # what came is what later readers are held to
                        write_record(target, {})
                discard(_part(target))
    except CollateralError as error:
        raise CollateralError(f"{target}: {error}") from None
    except OSError as error:
        unwritten = CollateralError(
            f"{target}: cannot be written ({error.strerror or error}: {error.filename or target.parent}); check the "
            "permissions of the folder and the space left on its disk"
        )
        raise shortage(error, target) or unwritten from None
    return target


def _bring(
    wanted: Source, target: Path, mirror: Path | str | None, max_bytes: int, patience: Patience
) -> None:
    if mirror:
        found = mirrored(Path(mirror).expanduser(), wanted.name, wanted.sha256)
        _place(found, wanted, target, max_bytes)
    elif wanted.kind == "url":
        _from_url(wanted, target, max_bytes, patience)
    elif wanted.kind == "hub":
        _from_hub(wanted, target, max_bytes, patience)
    else:
        raise CollateralError(f"{wanted.name} has no public address; {_remedy(wanted)}")


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _kept(wanted: Source, target: Path) -> bool:
    """Return whether the target is there already and right."""
    if not target.is_file():
        return False
    if wanted.sha256 is None:
        try:
            check_record(target)
        except CollateralError as error:
            log.warning("%s; it is fetched again", error)
            return False
        log.warning("%s is there and kept; its source states no sha256 to verify it by", target)
        return True
    found = sha256_file(target)
    if found == wanted.sha256:
        log.info("%s is there already, with the right sha256", target)
        return True
    log.warning("%s has the sha256 %s instead of %s and is fetched again", target, found, wanted.sha256)
    return False


def _from_url(wanted: Source, target: Path, max_bytes: int, patience: Patience) -> None:
    part = _part(target)
    if wanted.sha256 is None:
        discard(part)  # nothing would tell that the parts fit together
    try:
        continued = transfer(wanted.url, part, max_bytes, patience)
        if continued and wanted.sha256 is not None and sha256_file(part) != wanted.sha256:
            log.warning("%s: its parts do not fit together; starting over", part)
            discard(part)
            transfer(wanted.url, part, max_bytes, patience)
    except Refused as fault:
        raise CollateralError(f"{fault}; correct the url, or {_remedy(wanted)}") from None
    except Unreachable as fault:
        raise CollateralError(f"{fault}; check the network{STAGE}, or {_remedy(wanted)}") from None
    except Passing as fault:
        raise CollateralError(f"{fault}; run again to continue the transfer, or {_remedy(wanted)}") from None
    found = sha256_file(part)
    if wanted.sha256 is None:
        log.warning("%s is pinned by its commit alone; write sha256: %s beside it", shown(wanted.url), found)
    elif found != wanted.sha256:
        discard(part)
        raise CollateralError(
            f"{shown(wanted.url)} has the sha256 {found}, the source states {wanted.sha256}: the file behind the url "
            f"has changed or the transfer was damaged; correct the url or the sha256, or {_remedy(wanted)}"
        )
    size = part.stat().st_size
    put_in_place(part, target)
    log.info("%s: %d bytes, sha256 %s, from %s", target, size, found, shown(wanted.url))


def _from_hub(wanted: Source, target: Path, max_bytes: int, patience: Patience) -> None:
    try:
        cached = hub_file(wanted.repository, wanted.revision, wanted.file, max_bytes, patience)
    except CollateralError as error:
        raise CollateralError(
            f"{error}; check the network and the name{STAGE}, or {_remedy(wanted)}"
        ) from None
    _place(cached, wanted, target, max_bytes)


def _place(origin: Path, wanted: Source, target: Path, max_bytes: int) -> None:
    """Copy a file of a cache or mirror, which may change or vanish later, and verify the copy."""
    size = origin.stat().st_size
    if size > max_bytes:
        raise CollateralError(
            f"{origin} holds {size} bytes, over the limit of {max_bytes} for a data set's file; check the file"
        )
    with whole_file(target) as partial:
        shutil.copyfile(origin, partial)
        found = sha256_file(partial)
        if wanted.sha256 not in (None, found):
            raise CollateralError(
                f"{origin} has the sha256 {found}, the source states {wanted.sha256}: it is damaged or another "
                f"version; delete it, or {_remedy(wanted)}"
            )
    log.info("%s: %d bytes, sha256 %s, from %s", target, size, found, origin)


def _remedy(wanted: Source) -> str:
    digest = f" (sha256 {wanted.sha256})" if wanted.sha256 else ""
    return f"put the file {wanted.name}{digest} into a folder and set `mirror:` in the config to that folder"
