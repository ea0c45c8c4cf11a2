"""The pages as a site: it is built without a warning, and has the API and a search index."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import avplatform

ROOT = Path(__file__).resolve().parent.parent
zensical = shutil.which("zensical")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site from a copy, so that nothing is written into the checkout."""
    if zensical is None:
        pytest.skip("zensical is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    for name in ("avplatform", "models", "tasks"):
        shutil.copytree(ROOT / name, folder / name)
    built = subprocess.run(
        [zensical, "build", "--strict"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    said = built.stdout + built.stderr
    assert built.returncode == 0, said[-3000:]
    assert "griffe:" not in said, said  # a docstring that does not fit its signature
    return folder / "site"


def test_every_page_is_in_the_site_and_in_its_navigation(site):
    pages = {file.stem for file in (ROOT / "docs").glob("*.md")} - {"index"}
    assert all((site / name / "index.html").is_file() for name in pages)
    listed = set(re.findall(r"([\w/]+)\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {
        str(file.relative_to(ROOT / "docs").with_suffix("").as_posix())
        for file in (ROOT / "docs").rglob("*.md")
    }


def test_public_names_are_documented(site):
    text = "".join(
        (site / "api" / name / "index.html").read_text(encoding="utf-8")
        for name in ("models", "data", "video", "parts")
    )
    found = set(re.findall(r'<h[23][^>]* id="[\w.]+\.(\w+)"', text))
    internal = {"Annotations", "FromEvents", "task_of_model", "__version__"}
    assert set(avplatform.__all__) - found <= internal
    assert "Raises" in text and "Shape" in text


def test_pages_ask_no_other_host(site):
    start = (site / "index.html").read_text(encoding="utf-8")
    tags = re.findall(r"<(?:script|link)[^>]*>", start)
    kept = [tag for tag in tags if "canonical" not in tag and 'rel="next"' not in tag]
    loaded = [place for tag in kept for place in re.findall(r'(?:src|href)="([^"]+)"', tag)]
    assert loaded and not [place for place in loaded if "//" in place]
    assert list(site.rglob("search*.json"))
