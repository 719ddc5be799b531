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


def read_style() -> str:
    """Return the style sheet."""
    return STYLE_FILE.read_text(encoding="utf-8")


@cache
def read_script() -> str:
    """Return the page's own script, as readable as its file."""
    return _check_harmless(SCRIPT_FILE.read_text(encoding="utf-8"))


@cache
def load_library() -> str:
    """Return the chart library: Vega, Vega-Lite, Vega-Embed as one script."""
    version = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
    return _check_harmless(str(vl_convert.javascript_bundle(_READY, version)))


@cache
def pack_library() -> str:
    """Return the library as base64 of gzip: a third of its size, so that a report of several pages stays small."""
    return base64.b64encode(gzip.compress(load_library().encode(), compresslevel=9, mtime=0)).decode()


def build_policy() -> str:
    """Return the page's content security policy: two scripts known by their hashes, no network, no `eval`."""
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (read_script(), load_library()))
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; connect-src 'none'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _check_harmless(text: str) -> str:
    if re.search(r"</script|<!--", text, flags=re.IGNORECASE):
        raise CollateralError(
            "a script of the page holds text that ends a script element; take that text out"
        )
    return text
