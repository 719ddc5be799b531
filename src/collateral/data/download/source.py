"""The source of one file, as a config states it, checked before anything is asked for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2

from collateral.errors import CollateralError

MAX_BYTES = 20 * 2**30
LOOPBACK = ("localhost", "127.0.0.1", "::1")
REVISION = re.compile(r"[0-9a-f]{40}")
_KEYS = ({"url", "sha256"}, {"hub", "revision", "file"}, {"file"})  # what each kind needs
_COMMIT = re.compile(r"/[0-9a-f]{40}/")  # in the URL of a file that cannot change
_NAME = r'(?!\.)[^/\\:*?"<>|\x00-\x1f\x7f]{1,200}'
_PATTERNS = {
    "sha256": r"[0-9a-fA-F]{64}",
    "hub": r"(?a:[\w-][\w.-]*/[\w-][\w.-]*)",
    "revision": REVISION.pattern,
    "file": _NAME,
}
_ALLOWED = "64 hex digits as sha256, OWNER/NAME as hub, a 40-digit commit as revision, and a plain file name"


@dataclass(frozen=True)
class Source:
    """A URL, a file (its path) of a data set repository on the hub, or the name of a file that only a mirror has."""

    file: str
    sha256: str = ""
    url: str = ""
    hub: str = ""
    revision: str = ""


def parse_source(stated: Mapping[str, Any]) -> Source:
    """Return the source that a mapping describes; a key with None counts as absent.

    It is `{url, sha256, file?}`, without sha256 if the URL names a commit; `{hub, revision, file, sha256?}`; or
    `{file, sha256?}`. Anything else raises a CollateralError.
    """
    values = {key: str(value) for key, value in stated.items() if value is not None}
    path = urlsplit(values.get("url", "")).path
    keys = {*values, "sha256"} if _COMMIT.search(path) else {*values}
    if not any(needed <= keys <= {*needed, "file", "sha256"} for needed in _KEYS):
        raise CollateralError(
            f"a data source has the keys {', '.join(values) or 'none'}; write url + sha256 (none if the url names "
            "a commit), hub + revision + file, or file"
        )
    if "url" in values:
        check_url(values["url"])
        values = {"file": unquote(path.rpartition("/")[2]), **values}
    for key, pattern in _PATTERNS.items():
        pattern = f"({_NAME}/)*{_NAME}" if key == "file" and "hub" in values else pattern
        if key in values and not re.fullmatch(pattern, values[key]):
            raise CollateralError(f"{key}: {values[key]!r} of a data source is refused; write {_ALLOWED}")
    return Source(**{**values, "sha256": values.get("sha256", "").lower()})


def check_url(url: str, schemes: tuple[str, ...] = ("https", "http")) -> None:
    """Raise a CollateralError unless a URL is https, or http on the loopback address, and holds no credentials."""
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise CollateralError(
            f"the url {redact_url(url)!r} is no URL; write https://host/path/file"
        ) from None
    if parts.userinfo:
        raise CollateralError(f"the url {redact_url(url)} holds a user name or password; write it without")
    if (
        not parts.host
        or parts.scheme not in schemes
        or (parts.scheme == "http" and parts.host not in LOOPBACK)
    ):
        raise CollateralError(
            f"the url {redact_url(url)} is refused; write https (http is for localhost only)"
        )


def redact_url(url: str) -> str:
    """Return a URL without user, password, query and fragment, which may hold credentials."""
    try:
        return str(httpx2.URL(url).copy_with(username=None, password=None, query=None, fragment=None))
    except httpx2.InvalidURL:
        return url.partition("?")[0]


def check_size(size: int, name: object) -> None:
    """Raise a CollateralError for a file above the limit."""
    if size > MAX_BYTES:
        raise CollateralError(f"{name} has {size} bytes, over the limit of {MAX_BYTES}; check the source")
