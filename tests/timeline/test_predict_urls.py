"""`avplatform predict` on videos of an object store, and into one: what a folder would get."""

import json
import tempfile

import pytest

pytest.importorskip("av", reason="needs PyAV (pip install avplatform[media])")
pytest.importorskip("fsspec", reason="needs fsspec (pip install avplatform[scale])")

from avplatform.base.places import PlaceError, Remote
from avplatform.cli import main
from avplatform.scale.notes import Notes
from avplatform.timeline import pipeline as module
from avplatform.timeline.folders import FILES
from tests.models.cells import build
from tests.timeline.examples import write_clip
from tests.timeline.test_predict import Loudness

STORE = "memory://bucket"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and a folder of two videos, one damaged one and a text."""
    place = tmp_path_factory.mktemp("urls")
    build("avvp", "han", "leap").save_pretrained(place / "model")
    (place / "videos" / "more").mkdir(parents=True)
    for name in ("a", "b"):
        write_clip(place / "videos" / f"{name}.webm", seconds=2.0, fps=10)
    whole = (place / "videos" / "a.webm").read_bytes()
    (place / "videos" / "cut.webm").write_bytes(whole[:200])
    (place / "videos" / "more" / "c.webm").write_bytes(whole)
    (place / "videos" / "notes.txt").write_text("no video")
    return place


@pytest.fixture
def parsed(monkeypatch):
    """The names of the videos whose features are made, in order."""
    names = []

    class Noted(Loudness):
        def clip(self, path, **options):
            names.append(path.rsplit("/", 1)[-1] if isinstance(path, str) else path.name)
            return super().clip(path, **options)

    monkeypatch.setattr(module, "extractor_of_model", lambda *_, **__: Noted())
    return names


@pytest.fixture
def store(place, tmp_path, monkeypatch):
    """The videos on an object store; afterwards, no temporary file may be left."""
    store = Remote(STORE)
    for file in (place / "videos").rglob("*"):
        if file.is_file():
            name = file.relative_to(place).as_posix()
            (store / name).write(file)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield store
    store.remove()
    assert list((tmp_path / "temporary").iterdir()) == []


def predict(place, *args):
    flags = ["--model", str(place / "model"), "--threshold", "0", "--cpu", "--threads", "1"]
    return main(["predict", *map(str, args), *flags])


def names_in(folder):
    return sorted("/".join(file.parts_after(folder)) for file in folder.files())


def test_urls_give_the_files_that_folders_give(place, store, parsed, tmp_path, capsys):
    assert predict(place, place / "videos", "--out", tmp_path / "out") == 1
    capsys.readouterr()
    assert predict(place, f"{STORE}/videos", "--out", f"{STORE}/out") == 1
    said = capsys.readouterr()
    assert "2 videos done, 1 not; the results are in memory://bucket/out" in said.out
    assert f"{STORE}/videos/cut.webm" in said.out
    assert str(tmp_path) not in said.out + said.err
    out, local = store / "out", tmp_path / "out"
    expected = ["summary.json", *(f"{name}/{file}" for name in "ab" for file in FILES)]
    assert names_in(out) == sorted(expected)

    def renamed(file):
        return file.read_text().replace(str(place / "videos"), f"{STORE}/videos")

    for name in "ab":
        for file in ("events.vtt", "timeline.png"):
            assert (out / name / file).read_bytes() == (local / name / file).read_bytes()
        for file in ("events.json", "events.csv"):
            assert (out / name / file).read_bytes().decode() == renamed(local / name / file)
    assert (out / "summary.json").read_bytes().decode() == renamed(local / "summary.json")


@pytest.mark.parametrize("remote", ["video", "out"])
def test_a_page_far_from_its_video_names_no_address_but_can_hold_the_video(
    place, store, parsed, tmp_path, remote
):
    video = f"{STORE}/videos/a.webm" if remote == "video" else place / "videos" / "a.webm"
    out = tmp_path / "out" if remote == "video" else store / "out"
    for flags, source in (([], 'src=""'), (["--embed-video"], 'src="data:video/webm;base64,')):
        assert predict(place, video, "--out", out, *flags) == 0
        page, elan = (
            (out / "a" / name).read_bytes().decode() for name in ("timeline.html", "events.eaf")
        )
        assert source in page and 'MEDIA_URL=""' in elan
        assert str(tmp_path / "temporary") not in page + elan


def test_a_command_that_a_silent_store_stopped_goes_on_and_does_nothing_twice(
    place, store, parsed, monkeypatch, capsys
):
    fetch = Remote.fetch

    def silent(self, folder):
        if self.name == "b.webm":
            raise PlaceError(f"{self} cannot be reached (no answer)")
        return fetch(self, folder)

    args = [f"{STORE}/videos/{name}.webm" for name in "ab"] + ["--out", f"{STORE}/out"]
    monkeypatch.setattr(Remote, "fetch", silent)
    assert predict(place, *args) == 1
    error = capsys.readouterr().err
    assert f"{STORE}/videos/b.webm cannot be reached (no answer); run the same command" in error
    assert not (store / "out" / "summary.json").exists() and parsed == ["a.webm"]
    monkeypatch.setattr(Remote, "fetch", fetch)
    assert predict(place, *args) == 0
    assert "2 videos done, 0 not" in capsys.readouterr().out
    assert parsed == ["a.webm", "b.webm"]
    summary = json.loads((store / "out" / "summary.json").read_bytes())
    assert [entry["video"] for entry in summary["done"]] == args[:2]
    assert not [name for name in names_in(store / "out") if name.startswith(".")]


@pytest.mark.parametrize("where", ["here", "there"])
def test_what_is_removed_or_made_with_other_options_is_done_again(
    place, store, parsed, tmp_path, monkeypatch, where
):
    out = tmp_path / "out" if where == "here" else store / "out"
    monkeypatch.setattr(Notes, "remove", lambda self: None)  # as if the command was stopped
    args = [place / "videos" / "a.webm", "--out", out]
    assert [predict(place, *args) for _ in range(2)] == [0, 0] and len(parsed) == 1
    if where == "here":  # as if writing it was stopped
        (out / ".done" / "note").write_text("{")
        (out / ".done" / ".note.partial").write_text("{")
    assert predict(place, *args, "--window", "2", "--hop", "1") == 0 and len(parsed) == 2
    assert where == "there" or not (out / ".done" / "note").exists()
    assert predict(place, *args) == 0 and len(parsed) == 3  # its files were written over
    events = out / "a" / "events.json"
    events.unlink() if where == "here" else events.remove()
    assert predict(place, *args) == 0 and len(parsed) == 4


def test_a_summary_that_cannot_be_written_leaves_the_notes(place, store, parsed, monkeypatch):
    write, args = Remote.write, [f"{STORE}/videos/a.webm", "--out", f"{STORE}/out"]

    def silent(self, content, **more):
        if self.name == "summary.json":
            raise PlaceError(f"{self} cannot be reached (no answer)")
        write(self, content, **more)

    monkeypatch.setattr(Remote, "write", silent)
    assert predict(place, *args) == 1
    monkeypatch.setattr(Remote, "write", write)
    assert predict(place, *args) == 0 and parsed == ["a.webm"]


def test_an_address_with_nothing_is_listed_and_one_of_no_store_refused(
    place, store, parsed, capsys
):
    gone = f"{STORE}/videos/gone.webm"
    assert predict(place, gone, f"{STORE}/videos/more", "--out", f"{STORE}/out") == 1
    assert f"{gone}: there is no such file" in capsys.readouterr().out and parsed == ["c.webm"]
    assert predict(place, "file:///videos/x.webm", "--out", f"{STORE}/out") == 2
    assert "such addresses cannot be used" in capsys.readouterr().err
