"""One file over HTTP(S), with retries."""

import logging
from pathlib import Path

import httpx2
import tenacity
from tqdm import tqdm

from collateral.data.download.source import LOOPBACK, check_size, check_url, redact_url
from collateral.errors import CollateralError

log = logging.getLogger(__name__)

TRIES = 6  # half a minute
TIMEOUT = httpx2.Timeout(60, connect=15)


def download_url(url: str, path: Path) -> None:
    """Write the file behind a URL to `path`, or raise a CollateralError; every try starts over."""
    schemes = ("https",) if url.lower().startswith("https:") else ("https", "http")
    client = httpx2.Client(
        follow_redirects=True,
        max_redirects=5,
        event_hooks={"request": [lambda request: check_url(str(request.url), schemes)]},
        timeout=TIMEOUT,
        trust_env=httpx2.URL(url).host not in LOOPBACK,  # no proxy reaches this machine
    )
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        wait=tenacity.wait_exponential_jitter(),
        stop=tenacity.stop_after_attempt(TRIES),
        before_sleep=lambda state: log.warning("%s: try %d failed", redact_url(url), state.attempt_number),
        reraise=True,
    )
    try:
        with client:
            retrying(_transfer, client, url, path)
    except httpx2.HTTPError as error:
        reason = (str(error).splitlines() or [""])[0]
        remedy = "check the network and run again" if _is_transient(error) else "correct the url"
        raise CollateralError(
            f"{redact_url(url)} cannot be read ({type(error).__name__}: {reason}); {remedy}"
        ) from None


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx2.HTTPStatusError):
        return error.response.status_code in (408, 425, 429) or error.response.is_server_error
    return isinstance(error, httpx2.TransportError)


def _transfer(client: httpx2.Client, url: str, path: Path) -> None:
    # the bytes stay as they are stored: the checksum of an archive is that of its compressed file
    with (
        client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
        path.open("wb") as file,
    ):
        if response.status_code != 200:
            answer = f"{response.status_code} {response.reason_phrase}"
            raise httpx2.HTTPStatusError(answer, request=response.request, response=response)
        length = int(response.headers.get("Content-Length", 0))
        check_size(length, path.name)
        with tqdm.wrapattr(file, "write", length or None, disable=None, leave=False) as sink:
            for block in response.iter_raw():
                sink.write(block)
                check_size(response.num_bytes_downloaded, path.name)
