"""What went wrong with the hub, told apart: each in words, with the next step."""

import email.utils
import os
import time
from pathlib import Path
from typing import Any

TOKEN = "in models_hub_token (HF_TOKEN)"
DEFAULT_PAUSE = 30.0  # seconds, for a rate limit that does not say how long


def cause(error: Exception) -> Exception:
    """The error of the request itself: the library hides it behind its own about its local cache."""
    from huggingface_hub import errors  # noqa: PLC0415

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return error.__cause__
    return error


def http_status(error: Exception) -> int:
    """The answer's status code; 0 if there was no answer."""
    response = getattr(cause(error), "response", None)
    return int(response.status_code) if response is not None else 0


def retry_after(error: Exception) -> float:
    """Seconds to wait that the answer asks for, as a number or as a date."""
    response: Any = getattr(cause(error), "response", None)
    text = str(response.headers.get("Retry-After") or "") if response is not None else ""
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return DEFAULT_PAUSE


def explain(error: Exception, what: str) -> str:
    """A sentence or two for `error`; `what` names repository, revision and hub."""
    found = cause(error)
    because = _by_type(found) or _by_status(http_status(error), error)
    if because is None:
        because = (
            f"the download failed ({type(found).__name__}: {_first_line(found)}). What arrived is kept; run this again "
            "to resume, or name a mirror that answers in models_hub_endpoint (HF_ENDPOINT)."
        )
    return f"{what}: {because}"


def _by_type(found: Exception) -> str | None:
    from huggingface_hub import errors  # noqa: PLC0415

    if isinstance(found, errors.GatedRepoError):
        return f"access needs a licence accepted on the hub. Accept it there, and give your token {TOKEN}."
    if isinstance(found, errors.RevisionNotFoundError):
        return "there is no such revision. Take the commit hash from the repository's history."
    if isinstance(found, errors.EntryNotFoundError) and not isinstance(found, errors.LocalEntryNotFoundError):
        return "a file that the hub lists is not there. Run this again; if it repeats, the mirror is incomplete."
    return None


def _by_status(status: int, error: Exception) -> str | None:
    if status == 401 and not has_token():
        return f"it does not exist, or needs a token. Check its name, or give a token {TOKEN}."
    if status in (401, 403):
        return f"the hub refuses this token ({status}). Give one that may read the repository {TOKEN}."
    if status == 404:
        return "there is no such repository. Check its name."
    if status == 429:
        return f"the hub limits the rate of requests and asks to wait {retry_after(error):.0f} s. Run this later."
    if status >= 500:
        return f"the server failed ({status}) at every attempt. What arrived is kept; run this again later."
    return None


def has_token() -> bool:
    file = os.environ.get("HF_TOKEN_PATH")
    return bool(os.environ.get("HF_TOKEN")) or bool(file and Path(file).is_file())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
