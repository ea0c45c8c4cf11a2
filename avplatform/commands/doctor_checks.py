"""What `avplatform doctor` examines; packages are imported where they may prove to be broken."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from avplatform.base.packages import TOOLS, Package, checkout_commit, examine_packages
from avplatform.models.errors import AVError, counted, one_line
from avplatform.version import __version__

OK, MISSING, WARNING, BROKEN = "ok", "missing", "warning", "broken"
LITTLE_SPACE = 2e9
"""Bytes of free space on a disk with a cache, below which a warning is given."""
TIMEOUT = 5.0
"""Seconds after which the Hub counts as out of reach."""
DECODERS = {
    "video": ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg"),
    "sound": ("aac", "mp3", "opus", "vorbis", "flac", "ac3", "pcm_s16le"),
}
"""FFmpeg's names of the decoders that usual video files need."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that was examined.

    `status` is ok, missing (an option that is not there), warning (it is there, and something is
    wrong with it), or broken (it is always needed, and does not work). `remedy` is the command that
    mends it, or empty.
    """

    part: str
    name: str
    status: str
    found: str
    remedy: str = ""


def examine(*, online: bool = False) -> Iterator[Line]:
    """Examine everything, part by part; what cannot be examined is a line too.

    Args:
        online: ask the Hub over the network.
    """
    checks: dict[str, Callable[[], Iterator[Line]]] = {
        "versions": versions,
        "packages": packages,
        "machine": machine,
        "media": media,
        "caches": caches,
        "hub": lambda: hub(online=online),
        "weights of feature extractors": weights,
        "data": data,
    }
    for part, check in checks.items():
        try:
            yield from check()
        except (Exception, SystemExit) as error:
            reason = one_line(error, 300, named=not isinstance(error, AVError))
            needed = part in ("packages", "machine")
            status = BROKEN if needed else WARNING
            yield Line(part=part, name=part, status=status, found=f"cannot be examined ({reason})")


def versions() -> Iterator[Line]:
    """Report the versions of avplatform and Python."""
    commit = checkout_commit()
    where = commit if commit == "not a checkout" else f"commit {commit}"
    yield _ok("versions", "avplatform", f"{__version__}, {where}")
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    yield _ok("versions", "Python", f"{platform.python_version()}, {system}")


def packages() -> Iterator[Line]:
    """Report one line per package that is always needed, and one per extra."""
    found = examine_packages()
    for package in found.pop(""):
        status = BROKEN if package.fault else OK
        text = package.fault or str(package.version)
        yield Line(
            part="packages", name=package.name, status=status, found=text, remedy=package.remedy
        )
    for extra, members in found.items():
        yield _extra(extra, members)


def machine() -> Iterator[Line]:
    """Report the device that a run would use, its precision, threads and memory."""
    import torch
    from accelerate.utils import is_bf16_available

    from avplatform.base.machine import cpu_has_bf16, describe, make_accelerator

    accelerator, told = make_accelerator(), describe()
    part, others = "machine", told["accelerators"]
    text = f"{accelerator.device}; accelerators: {others}; processor: {told['cpu']}"
    yield _ok(part, "device", text)
    bf16 = is_bf16_available() if torch.accelerator.is_available() else cpu_has_bf16()
    usual = {"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    text = f"{'in hardware' if bf16 else 'not in hardware'}; --precision auto is {usual} here"
    yield _ok(part, "bf16", text)
    cores = counted(int(told["cores"]), "core")
    yield _ok(part, "threads", f"{torch.get_num_threads()}, on {cores}")
    yield _ok(part, "memory", told["memory"])


def media() -> Iterator[Line]:
    """Report PyAV, its FFmpeg, and whether it decodes what usual video files hold."""
    from avplatform.features.pyav import import_av
    from avplatform.models.errors import UsageError

    part = "media"
    try:
        av = import_av()
    except UsageError:
        text = "is not installed, so no video can be read"
        yield Line(part=part, name="PyAV", status=MISSING, found=text, remedy=_install("media"))
        return
    ffmpeg = getattr(av, "ffmpeg_version_info", "")
    inside = f"FFmpeg {ffmpeg}" if ffmpeg else "FFmpeg"
    yield _ok(part, "PyAV", f"{av.__version__} with {inside} inside; no program ffmpeg is needed")
    for kind, names in DECODERS.items():
        lacking = [name for name in names if not _decodes(name)]
        name = f"{kind} decoders"
        if lacking:
            text = f"none for {', '.join(lacking)}; PyAV's own wheels have them"
            again = "pip install --force-reinstall --only-binary av av"
            yield Line(part=part, name=name, status=WARNING, found=text, remedy=again)
        else:
            yield _ok(part, name, ", ".join(names))


def caches() -> Iterator[Line]:
    """Report the folders of caches, their sizes, and the space that is left."""
    from datasets.config import HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    from avplatform.base.files import cache_root
    from avplatform.features.weights import weights_folder

    yield _cache("own cache", cache_root(), "AVPLATFORM_CACHE")
    yield _cache("weights", weights_folder(), "AVPLATFORM_WEIGHTS")
    yield _cache("Hub cache", Path(HF_HUB_CACHE), "HF_HUB_CACHE")
    yield _cache("datasets cache", Path(HF_DATASETS_CACHE), "HF_DATASETS_CACHE")


def hub(*, online: bool) -> Iterator[Line]:
    """Report what the Hub's client was told; ask the Hub itself only if `online`."""
    import huggingface_hub
    from huggingface_hub.constants import ENDPOINT

    part, token = "hub", huggingface_hub.get_token()
    if huggingface_hub.is_offline_mode():
        text = "HF_HUB_OFFLINE is set, so nothing is fetched"
        remedy = "unset HF_HUB_OFFLINE"
        yield Line(part=part, name="offline", status=WARNING, found=text, remedy=remedy)
    else:
        yield _ok(part, "offline", "HF_HUB_OFFLINE is not set")
    if token:
        yield _ok(part, "token", "present, not shown")
    else:
        text, login = "none; pushing and private repositories need one", "hf auth login"
        yield Line(part=part, name="token", status=MISSING, found=text, remedy=login)
    fault = _hub_fault(ENDPOINT, token) if online else ""
    state = "answers" if online else "not asked; --online asks it"
    status = WARNING if fault else OK
    text = f"{without_password(ENDPOINT)}: {fault or state}"
    yield Line(part=part, name="endpoint", status=status, found=text)


def weights() -> Iterator[Line]:
    """Report, for every recipe of features, which weights are not on this machine."""
    from avplatform.features.fetch import missing_weights
    from avplatform.features.recipe import RECIPES

    part = "weights of feature extractors"
    for name, recipe in RECIPES.items():
        lacking = [one.name for one in missing_weights(recipe, {})]
        if lacking:
            fetch = f"avplatform extract VIDEOS --out FOLDER --backbones {name} --weights auto"
            text = f"not here: {', '.join(lacking)}"
            yield Line(part=part, name=name, status=MISSING, found=text, remedy=fetch)
        else:
            yield _ok(part, name, "all here")


def data() -> Iterator[Line]:
    """Report, for every task with built-in synthetic data, whether they are made already."""
    from avplatform.data.adapters.registry import DATASETS
    from avplatform.data.simulate.demo import demo_folder
    from avplatform.data.store.schema import MANIFEST_FILE

    for task in sorted({adapter.task for adapter in DATASETS.values() if adapter.demo}):
        folder = demo_folder(task)
        name = f"demo of {task}"
        if (folder / MANIFEST_FILE).is_file():
            yield _ok("data", name, f"{folder} (synthetic)")
        else:
            text, make = "made when first used", f"avplatform train --task {task}"
            yield Line(part="data", name=name, status=MISSING, found=text, remedy=make)


def without_password(url: str) -> str:
    """Return an address without a user's name and password in it.

    Examples:
        >>> without_password("https://me:secret@mirror.example:8080/hub")
        'https://mirror.example:8080/hub'
    """
    return urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()


def folder_size(folder: Path) -> int:
    """Return the bytes of the files in a folder; what cannot be read, and links, count nothing."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in (os.path.join(place, name) for name in files):
            with contextlib.suppress(OSError):
                total += 0 if os.path.islink(file) else os.path.getsize(file)
    return total


def _extra(extra: str, members: list[Package]) -> Line:
    """Return the line of an extra: the versions of its packages, or what is wrong with them."""
    part, name, wrong = "packages", f"extra {extra}", [one for one in members if one.fault]
    if not wrong:
        return _ok(part, name, ", ".join(f"{one.name} {one.version}" for one in members))
    absent = all(one.version is None for one in wrong)
    text = "; ".join(f"{one.name} {one.fault}" for one in wrong)
    status = MISSING if absent else WARNING
    remedy = _install(extra) if absent or extra in TOOLS else wrong[0].remedy
    return Line(part=part, name=name, status=status, found=text, remedy=remedy)


def _cache(name: str, folder: Path, variable: str) -> Line:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    held = f"{in_bytes(folder_size(folder))} in" if folder.exists() else "nothing yet in"
    text = f"{held} {folder}, {in_bytes(free)} free"
    writable = os.access(there, os.W_OK | os.X_OK) and there.is_dir()
    if writable and free >= LITTLE_SPACE:
        return _ok("caches", name, text)
    text += "" if writable else ", not writable"
    remedy = f"export {variable}=FOLDER, on a disk with space that you may write"
    return Line(part="caches", name=name, status=WARNING, found=text, remedy=remedy)


def _hub_fault(endpoint: str, token: str | None) -> str:
    """Ask the Hub who the token belongs to, and return in one line what is wrong, or nothing.

    Without a token the Hub refuses to say, which is an answer too.
    """
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    from avplatform.base import hub_errors

    try:
        address, headers = f"{endpoint}/api/whoami-v2", build_hf_headers(token=token or False)
        answer = get_session().get(address, headers=headers, timeout=TIMEOUT)
        if answer.status_code == 401:
            return "it does not know the token; log in again with `hf auth login`" if token else ""
        hf_raise_for_status(answer)
    except hub_errors.FAILURES as error:
        return hub_errors.explain(error)
    return ""


def _decodes(name: str) -> bool:
    from av.codec import Codec

    try:
        Codec(name, "r")
    except ValueError:
        return False
    return True


def _install(extra: str) -> str:
    return f'pip install "avplatform[{extra}]"'


def in_bytes(count: int) -> str:
    """Return a number of bytes in the decimal unit that suits it."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.0f} kB"


def _ok(part: str, name: str, found: str) -> Line:
    return Line(part=part, name=name, status=OK, found=found)
