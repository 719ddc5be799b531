"""What every page carries inside itself: style sheet, script, the packed chart library, and the policy over them."""

import base64
import gzip
import hashlib
import re
from functools import cache
from pathlib import Path

import altair as alt
import vl_convert

from collateral.errors import CollateralError

STYLE_FILE = Path(__file__).with_name("page.css")
SCRIPT_FILE = Path(__file__).with_name("page.js")
# What the library says when it is there; `page.js` waits for it.
_READY = "globalThis.vegaEmbed = vegaEmbed; document.dispatchEvent(new Event('library'));"


def style() -> str:
    """Return the style sheet."""
    return STYLE_FILE.read_text(encoding="utf-8")


@cache
def script() -> str:
    """Return the page's own script, as readable as its file."""
    return _harmless(SCRIPT_FILE.read_text(encoding="utf-8"))


@cache
def library() -> str:
    """Return the chart library: Vega, Vega-Lite, Vega-Embed as one script."""
    version = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
    return _harmless(str(vl_convert.javascript_bundle(_READY, version)))


@cache
def packed_library() -> str:
    """Return the library as base64 of gzip: a third of its size, so that a report of several pages stays small."""
    return base64.b64encode(gzip.compress(library().encode(), compresslevel=9, mtime=0)).decode()


def policy() -> str:
    """Return the page's content security policy: two scripts known by their hashes, no network, no `eval`."""
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (script(), library()))
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; connect-src 'none'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _harmless(text: str) -> str:
    if re.search(r"</script|<!--", text, flags=re.IGNORECASE):
        raise CollateralError(
            "a script of the page holds text that ends a script element; take that text out"
        )
    return text
