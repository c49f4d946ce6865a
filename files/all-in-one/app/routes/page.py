"""GET /: a search page, sent in one piece."""

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

FOLDER = Path(__file__).parents[1] / "page"

router = APIRouter()


def _page() -> str:
    """The document with its style and its scripts inside: one request, and never files of two versions together."""
    document = (FOLDER / "index.html").read_text(encoding="utf-8")
    return re.sub(
        r"/\* ([a-z]+\.(?:css|js)) \*/",
        lambda match: (FOLDER / match[1]).read_text(encoding="utf-8"),
        document,
    )


def _sources(tag: str) -> str:
    """The page's own <script> or <style>, by its hash; nothing else runs, not even if a text were shown as HTML."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode() for content in contents]
    return " ".join(f"'sha256-{digest}'" for digest in digests)


PAGE = _page()
HEADERS = {
    "content-security-policy": f"default-src 'none'; script-src {_sources('script')}; style-src {_sources('style')}; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE, headers=HEADERS)
