"""What the page on own data says runs, on rendered videos."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest

from avplatform.cli import main
from tests.features.clips import RATE
from tests.features.networks import small_weights
from tests.own_videos import FPS, LAMPS, TONES, make_lamps, make_videos

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "own_data.md").read_text(encoding="utf-8")


def block(language, number=0):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)[number].strip().splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder `videos` of 24 videos and their `events.csv` with the columns of the page."""
    folder = tmp_path_factory.mktemp("own")
    make_lamps(folder)
    first = (folder / "events.csv").read_text(encoding="utf-8").splitlines()[0]
    assert first == block("csv")[0]
    return folder


def run(line, folder):
    """Run a command of the page with networks that need no download, and few steps."""
    weights = small_weights(folder)
    files = ["--weights", f"vggish={weights['vggish']}", f"visual={weights['visual']}", "--cpu"]
    recipe = ["--audio", "vggish", "--visual", "timm:test_resnet", "--motion", "none"]
    small = ["--encoder-config.width", "32", "--encoder-config.hidden", "32", "--cpu"]
    steps = ["--epochs", "30", "--batch-size", "8", "--threads", "1", "--optim.lr", "3e-3"]
    more = {
        "extract": [*recipe, *files],
        "train": [*small, *steps, "--precision", "no", "--no-save-plots"],
        "predict": files,
    }
    program, command, *flags = line.split()
    assert program == "avplatform"
    return main([command, *flags, *more.get(command, [])])


def test_the_page_leads_from_a_folder_and_a_csv_to_a_timeline(folder, monkeypatch, capsys):
    commands = block("bash")
    assert len(commands) + len(block("csv")) <= 20
    monkeypatch.chdir(folder)
    for line in commands:
        assert run(line, folder) == 0, line
    output = capsys.readouterr().out
    assert "videos divided by 0.8,0.1,0.1 (seed 0): train 19, validation 3, test 2" in output
    assert "clips by class" in output
    results = json.loads((folder / "runs" / "mine" / "results.json").read_text())
    assert results["test"]["segment_A"] > 50  # random networks, which hear more than they see
    found = folder / "found" / "clip00"
    assert (found / "timeline.html").is_file() or list(found.glob("*.html"))
    timeline = json.loads((found / "events.json").read_text())
    assert set(timeline["labels"]) == {*LAMPS, *TONES} and timeline["events"]
    assert run(block("bash", 1)[0], folder) == 0


def test_the_table_of_the_page_is_read(folder, tmp_path):
    from avplatform.data.adapters.table.readers import read_events

    (tmp_path / "events.csv").write_text("\n".join(block("csv")) + "\n")
    events, notes = read_events([tmp_path / "events.csv"])
    assert [(e.video, e.onset, e.offset, e.label) for e in events] == [
        ("clip00.mp4", 2.5, 4.7, "red lamp"),
        ("clip00.mp4", 1.2, 3.0, "high tone"),
        ("clip01", 0.0, 7.25, "low tone"),
        ("clip02", None, None, ""),
    ]
    assert notes == []


def plain_features(videos, folder):
    """Write `audio` and `visual` of every video: per second its mean log spectrum and picture."""
    for stream in ("audio", "visual"):
        (folder / stream).mkdir(parents=True)
    for path in videos.iterdir():
        with av.open(str(path)) as media:
            frames = [f.to_ndarray(format="rgb24")[4::8, 4::8] for f in media.decode(video=0)]
        with av.open(str(path)) as media:
            sound = np.concatenate([f.to_ndarray()[0] for f in media.decode(audio=0)])
        seconds = round(len(frames) / FPS)
        frames, sound = frames + frames[-1:] * FPS, np.pad(sound, (0, RATE))
        windows = sound[: seconds * RATE].reshape(seconds * 20, RATE // 20)
        spectra = abs(np.fft.rfft(windows))[:, :400].reshape(seconds, 20, 80, 5)
        heard = np.log(spectra.mean(axis=(1, 3)) + 1e-3)
        seen = np.reshape(frames[: seconds * FPS], (seconds, FPS, -1)).mean(axis=1) / 255
        for stream, features in (("audio", heard), ("visual", seen)):
            np.save(folder / stream / f"{path.stem}.npy", np.float32(features))


@pytest.mark.slow
def test_forty_videos_and_a_csv_teach_when_events_happen(tmp_path, monkeypatch):
    """As benchmarks/own_videos.py shows with published networks; these features need no weights.

    The page has margins of 21 and 16 points for weak labels over three seeds; this is one seed.
    """
    make_videos(tmp_path)
    plain_features(tmp_path / "videos", tmp_path / "plain")
    monkeypatch.chdir(tmp_path)
    events = ["--events", "events.csv", "--split", "0.6,0.15,0.25", "--segments", "10"]
    assert main(["data", "import", "table", "plain", *events, "--out", "store"]) == 0
    assert main(["data", "verify", "store", "--annotations", "events.csv"]) == 0
    train = ["train", "--task", "avvp", "--encoder", "han", "--data", "store", "--cpu"]
    for decoder, supervision in (("mmil", "pseudo"), ("mmil", "weak"), ("leap", "weak")):
        name = f"{decoder}-{supervision}"
        flags = ["--decoder", decoder, "--supervision", supervision, "--output-dir", name]
        assert main([*train, *flags, "--threads", "1", "--precision", "no", "--no-save-plots"]) == 0
        results = json.loads(Path(name, "results.json").read_text())
        everywhere = results["details"]["test"]["anchors"]["video_labels_everywhere"]
        found, rival = (r["segment_Type@AV"] for r in (results["test"], everywhere))
        assert found > (90 if supervision == "pseudo" else rival + 10), (name, found, rival)
