"""A demo on the loopback address: two small models of loudness and brightness."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from avplatform.demo import app
from avplatform.demo.models import Models
from avplatform.timeline import pipeline as module
from avplatform.timeline.options import PipelineConfig
from tests.models.cells import FEATURES
from tests.models.cells import build as build_model
from tests.timeline.examples import write_clip

MISSING = [name for name in ("gradio", "av") if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []  # pip install "avplatform[demo,media]"


@dataclass
class Demo:
    """A running demo: its address, its page, and the models that it offers."""

    address: str
    page: object
    models: Models
    folder: Path

    def upload(self, content, name="clip.webm"):
        """Send a file as a browser does, and return the answer."""
        import httpx

        return httpx.post(f"{self.address}gradio_api/upload", files={"files": (name, content)})

    def ask(self, path, *, model=None, other=app.NOBODY, labels="", threshold=app.OWN):
        """Ask for the timeline of an uploaded file: the answer, or the sentence of the refusal."""
        import httpx

        video = {"path": path, "meta": {"_type": "gradio.FileData"}} if path else None
        data = [video, model or self.models.names[0], other, labels, threshold]
        place = f"{self.address}gradio_api/call/timeline"
        sent = httpx.post(place, json={"data": data}, timeout=60)
        assert sent.status_code == 200, sent.text
        told = httpx.get(f"{place}/{sent.json()['event_id']}", timeout=120).text
        event, line = told.strip().split("\n\n")[-1].split("\n", 1)
        said = json.loads(line.removeprefix("data: "))
        return said if event == "event: complete" else said["error"]

    def files(self):
        """Return the files of visitors: all but those that were there when the demo began."""
        found = {file for file in self.folder.rglob("*") if file.is_file()}
        return found - self.page.at_first


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.webm", seconds=3.0, fps=10)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """The folders of two models."""
    folder = tmp_path_factory.mktemp("models")
    for decoder in ("leap", "mmil"):
        build_model("avvp", "han", decoder).save_pretrained(folder / decoder)
    return [str(folder / "leap"), str(folder / "mmil")]


@pytest.fixture(scope="module")
def small_extractor():
    from tests.timeline.test_predict import Loudness

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loudness, "features", FEATURES["avvp"], raising=False)
        patch.setattr(module, "extractor_of_model", lambda *_, **__: Loudness())
        yield


@pytest.fixture(scope="module")
def demo(saved, small_extractor):
    """The demo, started on a free port."""
    app.import_gradio()
    models = Models(saved, config=PipelineConfig(cpu=True, max_seconds=60))
    page = app.build(models)
    page.at_first = {file for file in app.folder().rglob("*") if file.is_file()}
    yield Demo(app.start(page, max_megabytes=1), page, models, app.folder())
    page.close(verbose=False)
