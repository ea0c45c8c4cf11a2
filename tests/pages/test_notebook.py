"""The notebook keeps no output, and runs from its first cell to its last."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.pages.blocks import ROOT

FILE = ROOT / "docs" / "tour.ipynb"
CELLS = json.loads(FILE.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def test_the_notebook_keeps_no_output_and_its_links_lead_somewhere():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert code and all(not c["outputs"] and c["execution_count"] is None for c in code)
    for cell in code:
        ast.parse(re.sub(r"^!(.*\\\n)*.*", "pass", source(cell), flags=re.M))
    links = re.findall(r"\]\(([^)#]+)", "".join(map(source, CELLS)))
    assert links and all((FILE.parent / link).is_file() for link in links)
    assert "(tour.ipynb)" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch, places):
    """With random networks in place of the small ones that it would fetch."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = "".join(
        part.get("text", "") + "".join(map(str, part.get("data", {}).values()))
        for cell in notebook.cells
        for part in cell.get("outputs", [])
    )
    assert "Traceback" not in shown and "\x1b[" not in shown
    assert shown.count("epoch ") < 50  # nobody reads hundreds of lines
    wrote = "wrote data: train 8, validation 4, test 4;"
    for said in (wrote, "everything is in run", "new.mp4", "timeline.html"):
        assert said in shown, said
    assert (tmp_path / "tour" / "run" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "tour" / "new" / "events.eaf").is_file()
