"""Pseudo-labels from an object store, into an object store: those of folders."""

import tempfile

import pytest

pytest.importorskip("fsspec", reason="needs fsspec (pip install avplatform[scale])")

from avplatform.base.places import PlaceError, Remote
from avplatform.cli import main
from avplatform.models.errors import DataError
from avplatform.pseudo_labels.sources import LogitFiles, MediaFiles
from tests.pseudo_labels.files import VIDEOS, arrays, frame_folders, llp_folder, waveforms

STORE = "memory://labels"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """LLP's lists and CLIP's logits, also on an object store; no temporary file may be left."""
    llp_folder(tmp_path / "llp")
    arrays(tmp_path / "visual", (10, 25), loc=17, scale=3)
    (tmp_path / "visual" / f"{VIDEOS[1]}.npy").write_bytes(b"damaged")
    put(tmp_path / "visual", tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield tmp_path
    Remote(STORE).remove()
    assert list((tmp_path / "temporary").iterdir()) == []


def put(folder, root):
    for file in folder.rglob("*"):
        if file.is_file():
            (Remote(STORE) / file.relative_to(root).as_posix()).write(file)


def label(tree, place, out, *flags):
    given = ["--annotations", str(tree / "llp"), "--visual-logits", f"{place}/visual"]
    return main(["pseudo-label", *given, "--out", str(out), "--save-logits", *flags])


def objects_of(folder):
    return {"/".join(file.parts_after(folder)): file.read_bytes() for file in folder.files()}


def test_urls_give_the_bytes_of_folders(tree, capsys):
    assert label(tree, tree, tree / "out") == 1
    capsys.readouterr()
    for _ in range(2):  # the second time, nothing is made
        assert label(tree, STORE, f"{STORE}/out") == 1
        said = capsys.readouterr().out
        assert "visual: 2 of 3 clips labelled in memory://labels/out/CLIP" in said
        assert f"{STORE}/visual/{VIDEOS[1]}.npy" in said and str(tree) not in said
        expected = {
            file.relative_to(tree / "out").as_posix(): file.read_bytes()
            for file in (tree / "out").rglob("*")
            if file.is_file() and file.name != ".lock"
        }
        record = expected["pseudo_labels.json"].replace(str(tree).encode(), STORE.encode())
        found = objects_of(Remote(STORE) / "out")
        assert found == expected | {"pseudo_labels.json": record}
    assert label(tree, STORE, f"{STORE}/out", "--visual-threshold-offset", "1") == 2
    assert "labels made with another 'thresholds'; give another --out" in capsys.readouterr().err


def test_a_command_that_a_silent_store_stopped_goes_on(tree, monkeypatch, capsys):
    fetch, fetched = Remote.fetch, []

    def silent(self, folder):
        fetched.append(self.stem)
        if fetched.count(VIDEOS[2]) == 1 and self.stem == VIDEOS[2]:
            raise PlaceError(f"{self} cannot be reached (no answer)")
        return fetch(self, folder)

    monkeypatch.setattr(Remote, "fetch", silent)
    assert label(tree, STORE, f"{STORE}/out") == 1
    assert "(no answer); run the same command again to go on" in capsys.readouterr().err
    listed = (Remote(STORE) / "out" / "CLIP" / "sources.tsv").read_bytes().decode()
    assert listed.startswith(f"{VIDEOS[0]}\t") and len(listed.splitlines()) == 1
    made = []
    logits = LogitFiles.logits
    monkeypatch.setattr(
        LogitFiles, "logits", lambda self, video: (made.append(video), logits(self, video))[1]
    )
    assert label(tree, STORE, f"{STORE}/out") == 1
    assert made == [VIDEOS[1], VIDEOS[2]]


class NoTeacher:
    input_size = 8

    def text_features(self, prompts):
        return None


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_frames_and_waveforms_are_fetched_for_one_video_and_removed(tree, modality):
    place = tree / "media" / modality
    frame_folders(place, count=25) if modality == "visual" else waveforms(place)
    put(place, tree)
    local, remote = (
        MediaFiles(folder, modality=modality, teacher=NoTeacher())
        for folder in (place, f"{STORE}/media/{modality}")
    )
    with remote.at_hand(VIDEOS[0]) as here:
        assert (here.read(VIDEOS[0]) == local.read(VIDEOS[0])).all()
        assert here.fingerprint(VIDEOS[0]) == local.fingerprint(VIDEOS[0])
        files = here.files(VIDEOS[0])
        assert len(files) == (10 if modality == "visual" else 1)
    assert not files[0].exists()
    with pytest.raises(DataError, match=f"{STORE}/media/{modality}/none"), remote.at_hand("none"):
        pass


def test_a_place_with_nothing_is_refused(tree, capsys):
    assert label(tree, f"{STORE}/none", f"{STORE}/out") == 1
    assert "memory://labels/none/visual: there is no such folder" in capsys.readouterr().err
