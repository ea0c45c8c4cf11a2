"""Nodes that predict and label from an object store into an object store."""

from __future__ import annotations

import json
import signal
import time

import pytest

from avplatform.base.places import Remote
from avplatform.cli import main
from tests.posix import needs_posix
from tests.pseudo_labels.files import arrays, llp_folder
from tests.scale.conftest import bytes_of, objects_of, on, start

pytestmark = [pytest.mark.slow, needs_posix]
FILES = ("events.csv", "events.eaf", "events.vtt", "timeline.png", "timeline.html", "events.json")


@pytest.fixture(scope="module")
def videos(bucket, trained):
    """Eight videos on the object store, and one that is none."""
    folder = Remote(f"{bucket}/videos of predict")
    for file in (trained[0] / "videos").iterdir():
        (folder / file.name).write(file)
    (folder / "text.mp4").write(b"no video")
    return folder


def test_nodes_predict_from_and_into_an_object_store(videos, trained, bucket, cluster, capsys):
    folder, flags = trained[0], [*trained[1], "--threshold", "0"]
    local, out = folder / "predicted", Remote(f"{bucket}/predicted")
    (folder / "videos" / "text.mp4").write_text("no video")
    given = str(folder / "videos")
    assert main(["predict", given, "--out", str(local), *flags, "--threads", "1"]) == 1
    capsys.readouterr()
    args = ["predict", str(videos), "--out", str(out), *flags, *on(cluster)]
    assert main(args) == 1
    said = capsys.readouterr().out
    assert f"8 videos done, 1 not; the results are in {out}" in said
    assert f"{videos}/text.mp4" in said and "/tmp" not in said
    found, expected = objects_of(out), bytes_of(local)
    assert sorted(found) == sorted(expected)
    for name, content in expected.items():
        if name.endswith((".csv", ".vtt", ".png", "summary.json")):
            assert found[name] == content.replace(given.encode(), str(videos).encode()), name
    assert found["clip0/events.csv"].count(b"\n") > 1
    page = found["clip0/timeline.html"].decode()
    assert 'src=""' in page and f"{videos}/clip0.mp4" in page


def test_a_driver_that_was_killed_is_followed_by_another_that_does_nothing_twice(
    videos, trained, bucket, cluster, tmp_path, capsys
):
    out, log = Remote(f"{bucket}/followed"), tmp_path / "log.txt"
    args = ["predict", str(videos), "--out", str(out), *trained[1], *on(cluster)]
    driver = start(args, log)
    until = time.monotonic() + 400
    while len((out / ".done").files()) < 2:
        assert time.monotonic() < until and driver.poll() is None, log.read_text()
        time.sleep(0.2)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL and not (out / "summary.json").exists()
    time.sleep(2)  # a node may be at the end of a video
    noted = [json.loads(file.read_bytes()) for file in (out / ".done").files()]
    places = [out / one["entry"]["folder"] / "events.json" for one in noted]
    written = [place.about()["LastModified"] for place in places]
    assert main(args) == 1
    assert "8 videos done, 1 not" in capsys.readouterr().out
    assert [Remote(str(place)).about()["LastModified"] for place in places] == written
    names = {f"clip{n}/{file}" for n in range(8) for file in FILES}
    assert set(objects_of(out)) == names | {"summary.json"}


def test_nodes_label_from_and_into_an_object_store(bucket, cluster, tmp_path, capsys):
    llp_folder(tmp_path / "llp")
    arrays(tmp_path / "visual", (10, 25), loc=17, scale=3)
    arrays(tmp_path / "audio", (10, 25), seed=1, loc=2, scale=3)
    next((tmp_path / "audio").glob("*.npy")).unlink()
    store = Remote(f"{bucket}/labels")
    for file in (*(tmp_path / "visual").iterdir(), *(tmp_path / "audio").iterdir()):
        (store / file.parent.name / file.name).write(file)

    def args(place, out):
        given = ["--annotations", str(tmp_path / "llp"), "--save-logits", "--out", str(out)]
        names = ("visual", "audio")
        return ["pseudo-label", *given, *(f"--{n}-logits={place / n}" for n in names)]

    assert main(args(tmp_path, tmp_path / "one")) == 1
    (tmp_path / "one" / ".lock").unlink()
    for _ in range(2):
        assert main([*args(store, store / "out"), *on(cluster)]) == 1
        assert "audio: 2 of 3 clips labelled" in capsys.readouterr().out
        expected = bytes_of(tmp_path / "one")
        record = expected["pseudo_labels.json"].replace(str(tmp_path).encode(), str(store).encode())
        assert objects_of(store / "out") == expected | {"pseudo_labels.json": record}
