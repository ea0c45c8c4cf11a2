"""The installed packages, compared with those that are needed; and the commit of a checkout.

Nothing that needs a package beyond the standard library is imported here, so that this still works
where an installation is broken.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import re
import subprocess
import tomllib
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from avplatform.models.errors import one_line

ROOT = Path(__file__).resolve().parents[2]
"""The folder that `avplatform` lies in: of a checkout, or of installed packages."""
TOOLS = ("dev", "docs")
"""The extras whose packages are run as programs, and need not be importable."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that the platform, or one of its extras, needs.

    `version` is None where it is not installed. `fault` says in a few words why the package cannot
    be used, and `remedy` is the command that mends it; both are empty where all is well.
    """

    name: str
    version: str | None
    fault: str = ""
    remedy: str = ""


def examine_packages() -> dict[str, list[Package]]:
    """Return the packages that the platform needs, by extra; "" for those it always needs.

    Every installed package is imported, except those of the extras `TOOLS`.

    Raises:
        ModuleNotFoundError: `packaging` is not installed.
    """
    return {
        extra: [_examine(text, extra) for text in texts] for extra, texts in requirements().items()
    }


def requirements() -> dict[str, list[str]]:
    """Return the requirements by extra, from the checkout's pyproject.toml or from the metadata.

    In a checkout, the metadata may be those of an earlier state, or missing.
    """
    if (ROOT / "pyproject.toml").is_file() and (ROOT / "models").is_dir():
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return {"": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, list[str]] = {"": []}
    for text in importlib.metadata.requires("avplatform") or []:
        wanted, _, marker = text.partition(";")
        extra = re.search(r"extra == ['\"]([^'\"]+)", marker)
        found.setdefault(extra[1] if extra else "", []).append(wanted.strip())
    return found


def installed_version(package: str) -> str | None:
    """Return the version of a package, or None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def checkout_commit() -> str:
    """Return the commit of a source checkout, with "+" where files differ from it.

    For an installed package this is "not a checkout".
    """
    if not (ROOT / ".git").exists():
        return "not a checkout"
    options: Any = dict(cwd=ROOT, capture_output=True, encoding="utf-8", timeout=10)
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, **options)
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], **options)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if status.stdout.strip() else "")


def _examine(text: str, extra: str) -> Package:
    from packaging.requirements import Requirement

    wanted = Requirement(text)
    name, version = wanted.name, installed_version(wanted.name)
    install = f'pip install "avplatform[{extra}]"' if extra else f'pip install "{text}"'
    if version is None:
        return Package(name=name, version=None, fault="is not installed", remedy=install)
    if not wanted.specifier.contains(version, prereleases=True):
        fault = f"{version} is installed, but {wanted.specifier} is needed"
        return Package(name=name, version=version, fault=fault, remedy=f'pip install -U "{text}"')
    reason = "" if extra in TOOLS else _import_error(_module(name))
    if reason:
        fault, again = f"{version} cannot be imported ({reason})", "pip install --force-reinstall"
        return Package(name=name, version=version, fault=fault, remedy=f'{again} "{text}"')
    return Package(name=name, version=version)


def _import_error(module: str) -> str:
    """Import a module, and return in one line why that fails; "" where it does not."""
    printed = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            warnings.catch_warnings(action="ignore"),
        ):
            importlib.import_module(module)
    except (Exception, SystemExit) as error:
        return one_line(error, 160, named=True)
    return ""


def _module(package: str) -> str:
    """Return the name by which a package is imported, which may not be its own (pyyaml: yaml)."""
    own = re.sub(r"[-.]", "_", package).lower()
    offered = _modules().get(own, [])
    public = [name for name in offered if not name.startswith("_")]
    return own if own in offered or not public else public[0]


@cache
def _modules() -> dict[str, list[str]]:
    """Return the modules that every installed package offers, by the package's plain name."""
    found: dict[str, list[str]] = {}
    for module, packages in importlib.metadata.packages_distributions().items():
        for package in packages:
            found.setdefault(re.sub(r"[-.]", "_", package).lower(), []).append(module)
    return found
