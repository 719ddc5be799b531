"""One file over HTTP(S) into a partial file that can be continued, within a try, between tries and after a crash."""

import ipaddress
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from tqdm import tqdm

from collateral.data.download.retry import Passing, Patience, retried, seconds_asked
from collateral.errors import CollateralError
from collateral.io.atomic import write_json

log = logging.getLogger(__name__)

REDIRECTS = 5
_UNREACHABLE_TRIES = 3  # a machine without a network should say so within seconds, not after minutes
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class Unreachable(Passing):
    """No server answered: no network, no such host, connection refused."""


class Refused(Exception):  # noqa: N818  (the caller makes the error of it, with a remedy)
    """A server answered, and asking again will not help: no such file, no access, a redirect to nowhere."""


def shown(url: str) -> str:
    """Return the URL without user, password, query and fragment, which may hold credentials."""
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL:
        return url.partition("?")[0]
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.host}{port}{parts.path}"


def check_url(url: str) -> None:
    """Accept https anywhere, and http from this machine itself (a mirror or a test served on the loopback address).

    Raises:
        CollateralError: another scheme, http from elsewhere, no host, or credentials in the URL.
    """
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise CollateralError(
            f"the url {shown(url)!r} is no URL ({error}); write https://host/path/file"
        ) from None
    if parts.userinfo:
        raise CollateralError(f"the url {shown(url)} holds a user name or password; write it without")
    if not parts.host or parts.scheme not in ("http", "https"):
        raise CollateralError(
            f"the url {shown(url)!r} is neither https nor http; write https://host/path/file"
        )
    if parts.scheme == "http" and not _loopback(parts.host):
        raise CollateralError(
            f"the url {shown(url)} is plain http, which is accepted from this machine only (localhost); write https"
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def transfer(url: str, part: Path, max_bytes: int, patience: Patience) -> bool:
    """Return whether `part`, which now holds the whole file, was continued rather than sent in one piece.

    What `part` holds already is continued if the server says that the file is still the same (If-Range with what
    `PART.json` beside it keeps; where a server names no version, the caller's checksum has to tell), and replaced if
    it is not or if the server knows no ranges. The bytes are as sent: no content coding is asked for and none is
    undone, so that an archive stays what its checksum says.

    Args:
        url: where the file is; see `check_url`.
        part: the partial file; it and its validator stay when the transfer ends early.
        max_bytes: the most that the file may hold.
        patience: tries, waits and time-outs.

    Raises:
        Unreachable: no server answered.
        Passing: the server failed or broke off again and again.
        Refused: the server does not give the file, or redirects without end or to where it may not.
        CollateralError: the url is not accepted, or the file is too large.
    """
    check_url(url)
    heard = False

    def attempt() -> bool:
        nonlocal heard
        try:
            with _asked(client, url, part) as response:
                heard = True
                return _received(response, url, part, max_bytes)
        except httpx2.TooManyRedirects:
            raise Refused(f"{shown(url)} redirects more than {REDIRECTS} times") from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            raise Unreachable(_why(url, error), tries=None if heard else _UNREACHABLE_TRIES) from None
        except httpx2.TransportError as error:
            raise Passing(_why(url, error)) from None

    def follow(request: httpx2.Request) -> None:
        try:
            check_url(str(request.url))
        except CollateralError as error:
            raise Refused(f"{shown(url)} redirects to where it may not ({error})") from None
        if url.lower().startswith("https:") and request.url.scheme != "https":
            raise Refused(f"{shown(url)} redirects from https to {shown(str(request.url))}")

    client = httpx2.Client(
        follow_redirects=True,
        max_redirects=REDIRECTS,
        event_hooks={"request": [follow]},
        timeout=httpx2.Timeout(patience.read, connect=patience.connect),
        trust_env=not _loopback(httpx2.URL(url).host),  # no proxy reaches this machine's own loopback address
    )
    with client:
        return retried(attempt, patience)


def discard(part: Path) -> None:
    """Remove a partial file and its validator."""
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


@contextmanager
def _asked(client: httpx2.Client, url: str, part: Path) -> Iterator[httpx2.Response]:
    headers = {"Accept-Encoding": "identity"}
    held = part.stat().st_size if part.exists() else 0
    known, validator = _kept_validator(url, part)
    if held and known:
        headers |= {"Range": f"bytes={held}-"} | ({"If-Range": validator} if validator else {})
        log.info("continuing %s after %d bytes", part.name, held)
    else:
        discard(part)
    with client.stream("GET", url, headers=headers) as response:
        yield response


def _received(response: httpx2.Response, url: str, part: Path, max_bytes: int) -> bool:
    """Return whether the response continued the partial file; write its body there."""
    held = part.stat().st_size if part.exists() else 0
    status = response.status_code
    first, total = _range(response)
    if status == 416 and held and total == held:
        return True  # the crash came after the last byte
    if status == 416 or (status == 206 and first != held):
        discard(part)
        raise Passing(f"{shown(url)} does not have the range that was asked for")
    if status not in (200, 206):
        raise _refused(response, url)
    if status == 200:
        held, length = 0, response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        _keep_validator(response, url, part)
    if total is not None and total > max_bytes:
        raise _too_large(part, url, total, max_bytes)
    with (
        part.open("ab" if status == 206 else "wb", buffering=0) as file,
        tqdm(
            total=total, initial=held, desc=part.stem, unit="B", unit_scale=True, disable=None, leave=False
        ) as bar,
    ):
        for block in response.iter_raw():  # blocks of a fixed size would drop the last of a broken transfer
            held += len(block)
            if held > max_bytes:
                raise _too_large(part, url, held, max_bytes)
            file.write(block)
            bar.update(len(block))
    return status == 206


def _range(response: httpx2.Response) -> tuple[int | None, int | None]:
    """Return the first byte and the whole file's length that Content-Range states."""
    stated = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if stated is None:
        return None, None
    first, total = stated.groups()
    return int(first) if first else None, int(total) if total != "*" else None


def _refused(response: httpx2.Response, url: str) -> Exception:
    status, reason = response.status_code, response.reason_phrase or "no reason given"
    if status in (408, 425, 429) or status >= 500:
        wait = seconds_asked(response.headers.get("Retry-After", ""))
        asking = f" and asks to wait {wait:.0f} s" if wait else ""
        return Passing(f"{shown(url)} answers {status} ({reason}){asking}", wait=wait)
    return Refused(f"{shown(url)} answers {status} ({reason})")


def _too_large(part: Path, url: str, size: int, max_bytes: int) -> CollateralError:
    discard(part)
    return CollateralError(
        f"{shown(url)} holds at least {size} bytes, over the limit of {max_bytes} for a data set's file; check it"
    )


def _why(url: str, error: Exception) -> str:
    detail = (str(error).strip().splitlines() or [""])[0]
    return f"{shown(url)} cannot be read ({type(error).__name__}{': ' if detail else ''}{detail})"


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _keep_validator(response: httpx2.Response, url: str, part: Path) -> None:
    """Keep what names this version of the file: its strong ETag, or else when it was last changed."""
    discard(part)
    tag = response.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
    write_json(_validator_file(part), {"url": shown(url), "validator": validator})


def _kept_validator(url: str, part: Path) -> tuple[bool, str | None]:
    """Return whether `part` is known to be of this url, and what names its version, if anything does."""
    try:
        kept = json.loads(_validator_file(part).read_text(encoding="utf-8"))
        known, validator = kept["url"] == shown(url), kept["validator"]
    except (OSError, ValueError, KeyError, TypeError):
        return False, None
    return (known, validator) if isinstance(validator, str | None) else (False, None)
