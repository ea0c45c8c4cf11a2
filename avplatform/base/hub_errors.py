"""Errors of the client of the Hugging Face Hub, and what to tell the user about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from avplatform.models.errors import one_line

Result = TypeVar("Result")

# The base class of all errors of the client's HTTP library, such as a refused connection. It is
# found in this way because the library differs between versions of the client.
HTTP_ERROR: type[BaseException] = HfHubHTTPError.__bases__[0]

PAUSES = (1.0, 2.0, 4.0)
"""Seconds before each further attempt, where the Hub asks for no other pause."""
LONGEST_PAUSE = 300.0
"""Seconds; if the Hub asks for a longer pause, the command ends and says so."""
PASSING = (408, 429, 500, 502, 503, 504)
"""Answers of the Hub that another attempt may change."""

# What the client raises when it fails. ValueError: it refuses the request itself. RuntimeError: an
# upload failed.
FAILURES: tuple[type[BaseException], ...] = (HTTP_ERROR, OSError, ValueError, RuntimeError)


def with_retries(
    attempt: Callable[[], Result],
    *,
    say: Callable[[str], None] | None = None,
    pauses: Sequence[float] = PAUSES,
) -> Result:
    """Return what a call of the client returns, after further attempts where they may help.

    These are after a rate limit, an error of the server, and a connection that was lost or refused.
    The client itself repeats only some of its requests.

    Args:
        attempt: calls the client; it may be called several times.
        say: is told of every pause.
        pauses: seconds before each further attempt; `Retry-After` of the Hub's answer counts more.

    Raises:
        BaseException: the error of the last attempt.
    """
    for pause in pauses:
        try:
            return attempt()
        except FAILURES as error:
            asked = _pause(error)
            if asked is None or asked > LONGEST_PAUSE:
                raise
            pause = max(pause, asked)
            if say is not None:
                say(f"the Hub: {explain(error)}; trying again in {pause:.0f} s")
            time.sleep(pause)
    return attempt()


def _pause(error: BaseException) -> float | None:
    """Return the seconds that the Hub asks to wait (0: none given), None: no attempt will help."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return _pause(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in PASSING:
            return None
        told = error.response.headers.get("Retry-After", "")
        return float(told) if told.isdecimal() else 0.0
    if isinstance(error, OfflineModeIsEnabled):
        return None
    return 0.0 if isinstance(error, (HTTP_ERROR, ConnectionError, TimeoutError)) else None


def explain(error: BaseException) -> str:
    """Return one sentence that says why the client failed and what to do about it."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return explain(error.__cause__)
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, OfflineModeIsEnabled) or (
        isinstance(error, LocalEntryNotFoundError) and is_offline_mode()
    ):
        return "HF_HUB_OFFLINE is set; unset it"
    if isinstance(error, GatedRepoError):
        return (
            "the repository is gated; ask for access on its page, and log in with `hf auth login`"
        )
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return (
            "there is no such repository, or no valid token (401); check the name, and log in with "
            "`hf auth login`"
        )
    if status == 403:
        return (
            "the token has no right to do this (403); use one with write access to the repository"
        )
    if isinstance(error, RevisionNotFoundError):
        return "no such branch or revision (404); check --revision"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository (404); check the name, and that the token has access to it"
    reason = one_line(error)
    if isinstance(error, HFValidationError):
        return f"{reason.removesuffix('.')}; give owner/name"
    if status == 429:
        pause = _pause(error)
        return (
            f"too many requests (429); try again after {f'{pause:.0f} s' if pause else 'a while'}"
        )
    if status is not None:
        return f"it answered {status} ({reason}); try again later, or check the name and the token"
    if isinstance(error, ValueError):
        return f"it was refused ({reason}); correct that and try again"
    if isinstance(error, (HTTP_ERROR, ConnectionError, TimeoutError, LocalEntryNotFoundError)):
        return f"it could not be reached ({reason}); check the network and HF_ENDPOINT"
    return one_line(error, named=True)
