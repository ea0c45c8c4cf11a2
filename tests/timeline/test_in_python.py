"""Timelines in Python: saved, as tables, figures and in notebooks; and many videos at once."""

import json
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from avplatform import AVModel
from avplatform.models.errors import DataError, UsageError
from avplatform.timeline.export import as_csv, as_eaf, as_json, as_vtt
from avplatform.timeline.pipeline import PipelineConfig, pipeline
from avplatform.timeline.windows import Features
from tests.models.cells import build
from tests.timeline.examples import example, write_clip
from tests.timeline.test_pipeline import FakeExtractor, noise


@pytest.mark.parametrize(
    ("suffix", "text"), [(".json", as_json), (".csv", as_csv), (".vtt", as_vtt), (".eaf", as_eaf)]
)
def test_the_suffix_is_the_format(tmp_path, suffix, text):
    found = example(video=str(tmp_path / "x.mp4"))
    out = found.save(str(tmp_path / f"new/clip{suffix}"))
    wanted = text(found, media="../x.mp4") if suffix == ".eaf" else text(found)
    assert out.read_text() == wanted and [p.name for p in out.parent.iterdir()] == [out.name]


def test_a_folder_gets_what_the_command_writes(tmp_path):
    found = example(video=str(tmp_path / "x.mp4"))
    for name in ("plain", "v1.5/"):
        out = found.save(f"{tmp_path}/{name}")
        names = {"events.json", "events.csv", "events.eaf", "events.vtt", "timeline.png"}
        assert {p.name for p in out.iterdir()} == names | {"timeline.html"}
        assert 'src="../x.mp4"' in (out / "timeline.html").read_text()
    assert found.save(tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")


def test_a_timeline_without_a_video_is_saved_and_its_page_says_so(tmp_path):
    page = example(video="").save(tmp_path / "x.html").read_text()
    assert 'src=""' in page and "This page has no address of its video" in page


def test_what_cannot_be_saved_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"x.xlsx ends in '.xlsx'; .* \.json, \.csv, .*folder"):
        example().save(tmp_path / "x.xlsx")
    with pytest.raises(UsageError, match="no video 'gone.mp4' to embed"):
        example().save(tmp_path / "x.html", video="gone.mp4", embed_video=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*file/x.csv: "):
        example().save(tmp_path / "file/x.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_table_has_one_row_per_event():
    found = example()
    table = found.to_dataframe()
    assert table.columns.tolist() == [
        *("video", "stream", "label", "onset", "offset", "score", "never_trained_on")
    ]
    assert len(table) == len(found.events) > 0
    for event, row in zip(found.events, table.to_dict("records"), strict=True):
        assert row.pop("video") == found.video and row == vars(event)
    found.events = []
    assert found.to_dataframe().columns.tolist() == table.columns.tolist()


def test_without_pandas_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        example().to_dataframe()


def test_a_plot_is_a_figure_with_one_axis_per_stream():
    found = example()
    figure = found.plot()
    assert isinstance(figure, Figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == found.streams


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_a_notebook_shows_every_event_and_runs_nothing_of_the_labels():
    bad = '"><script>alert(1)</script>'
    found = example()
    found.events = [
        type(e)(**{**vars(e), "label": bad} if e.label == "Dog" else vars(e)) for e in found.events
    ]
    found.labels = [bad if label == "Dog" else label for label in found.labels]
    found.notes, found.video = [bad], f"{bad}.mp4"
    shown = Elements()
    shown.feed(found._repr_html_())
    names = {name for name, _ in shown.attributes}
    assert set(shown.tags) == {"div", "b", "table", "tr", "td"} and names == {"style", "title"}
    assert sum(name == "title" for name, _ in shown.attributes) == len(found.events)
    assert shown.text.count("<script>alert(1)") >= 2
    assert not any("url(" in value for _, value in shown.attributes)


def test_a_long_timeline_says_how_much_of_it_a_notebook_shows():
    found = example()
    found.events = found.events[:1] * 501
    assert "The first 500 of 501 events" in found._repr_html_()


@pytest.fixture
def parse():
    return pipeline(build("avvp", "han", "leap"), extractor=FakeExtractor(5))


def test_several_videos_are_parsed_one_by_one_in_order(parse, tmp_path):
    pytest.importorskip("av", reason="needs PyAV (pip install avplatform[media])")
    files = [write_clip(tmp_path / f"{n}.webm", seconds=5) for n in range(2)]
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    found = parse([files[0], bad, str(files[1])])
    assert not parse.extractor.asked
    assert as_json(next(found)) == as_json(parse(files[0]))
    with pytest.raises(DataError, match="bad.mp4"):
        next(found)
    assert next(found).video == str(files[1]) and list(found) == []
    assert [t.video for t in parse(iter(files))] == [str(f) for f in files]


@pytest.mark.parametrize("decoder", ["leap", "mmil"])
def test_windows_of_several_videos_are_parsed_together(decoder):
    """Every forward pass but the last is full, the results are those of each video alone."""
    model = build("avvp", "han", decoder)
    config = PipelineConfig(batch_size=8)
    parse = pipeline(model, extractor=FakeExtractor(5), config=config)
    rng = np.random.default_rng(0)
    videos = []
    for length in (5, 23, 10, 3, 61, 10, 5, 12):
        whole = noise(seconds=length)
        whole.audio += rng.normal(size=whole.audio.shape).astype(np.float32)
        videos.append(whole)
    alone = [parse.parse(video) for video in videos]
    sizes, forward = [], model.forward

    def noted(audio, *rest, **more):
        sizes.append(len(audio))
        return forward(audio, *rest, **more)

    model.forward = noted
    for found, wanted in zip(parse(videos), alone, strict=True):
        assert found.scores.keys() == wanted.scores.keys()
        for name, values in wanted.scores.items():
            assert np.allclose(found.scores[name], values, atol=1e-6, rtol=0)
        assert [vars(e) | {"score": 0} for e in found.events] == [
            vars(e) | {"score": 0} for e in wanted.events
        ]
    assert max(sizes) == 8 and sum(sizes) == 1 + 4 + 1 + 1 + 12 + 1 + 1 + 2
    assert len(sizes) < len(videos) + 2


def test_few_videos_are_read_ahead(parse):
    read = []

    def videos():
        for number in range(100):
            read.append(number)
            yield noise(seconds=20)

    parse.config.batch_size = 6
    found = parse(videos())
    assert not read
    next(found)
    assert len(read) == 2  # three windows each
    next(found), next(found)
    assert len(read) == 4


def test_arrays_are_parsed_as_features(parse):
    features = noise()
    wanted = as_json(parse.parse(features))
    arrays = {"audio": features.audio, "visual": features.visual, "motion": features.motion}
    assert as_json(parse(features)) == wanted == as_json(parse(arrays))
    assert [as_json(t) for t in parse([features, arrays])] == [wanted] * 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sound": np.zeros((12, 4))}, "no array 'sound' .known: audio, visual, motion"),
        ({"audio": np.zeros((3, 128))}, "same number of segments.*audio 3, visual 12"),
        ({"audio": np.zeros(12)}, r"\[segments, width\], but these are audio \[12\]"),
        ({"audio": np.zeros((12, 7))}, "the model reads"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(parse, change, told):
    arrays = {name: values for name, values in vars(noise()).items() if values is not None}
    with pytest.raises(UsageError, match=told):
        parse(arrays | change)


def test_what_is_not_a_video_is_refused(parse):
    with pytest.raises(UsageError, match="need the array 'visual'"):
        parse({"audio": np.zeros((12, 128))})
    with pytest.raises(UsageError, match="a ndarray is not a video"):
        parse(np.zeros((12, 128)))
    with pytest.raises(UsageError, match="a int is not a video"):
        parse(3)
    empty = Features(audio=np.zeros((0, 128)), visual=np.zeros((0, 512)))
    with pytest.raises(UsageError, match="at least one"):
        parse(empty)
    with pytest.raises(UsageError, match="for one file"):
        parse(["x.mp4"], on_progress=print)


def test_a_model_is_loaded_from_its_run_folder(tmp_path):
    model = build("avvp", "han", "leap")
    model.save_pretrained(tmp_path / "run/model")
    (tmp_path / "run/config.yaml").write_text("")
    loaded = AVModel.from_pretrained(tmp_path / "run")
    saved = json.loads((tmp_path / "run/model/config.json").read_text())
    assert loaded.config.to_dict() == saved
    assert all((a == b).all() for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_a_run_that_did_not_finish_has_no_model(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(DataError, match="it did not finish; go on with --resume"):
        AVModel.from_pretrained(tmp_path)
