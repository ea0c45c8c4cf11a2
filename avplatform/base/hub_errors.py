"""Errors of the client of the Hugging Face Hub, and what to tell the user about them."""

from __future__ import annotations

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# The base class of all errors of the client's HTTP library, such as a refused connection. It is
# found in this way because the library differs between versions of the client.
HTTP_ERROR: type[BaseException] = HfHubHTTPError.__bases__[0]

# What the client raises when it fails. ValueError: it refuses the request itself. RuntimeError: an
# upload failed.
FAILURES: tuple[type[BaseException], ...] = (HTTP_ERROR, OSError, ValueError, RuntimeError)


def explain(error: BaseException) -> str:
    """Return one sentence that says why the client failed and what to do about it."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return explain(error.__cause__)
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, OfflineModeIsEnabled) or (
        isinstance(error, LocalEntryNotFoundError) and is_offline_mode()
    ):
        return "HF_HUB_OFFLINE is set; unset it"
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
    reason = " ".join(str(error).split())[:200]
    if isinstance(error, HFValidationError):
        return f"{reason.removesuffix('.')}; give owner/name"
    if status is not None:
        return f"it answered {status} ({reason}); try again later, or check the name and the token"
    if isinstance(error, ValueError):
        return f"it was refused ({reason}); correct that and try again"
    if isinstance(error, (HTTP_ERROR, ConnectionError, TimeoutError, LocalEntryNotFoundError)):
        return (
            f"it could not be reached ({reason or type(error).__name__}); check the network and "
            "HF_ENDPOINT"
        )
    return f"{type(error).__name__}: {reason}"
