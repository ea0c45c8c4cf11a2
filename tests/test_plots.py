"""Plots are whole PNG files that show what they should."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from avplatform import plots
from models.errors import DataError

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def labels(monkeypatch):
    """Collect the tick labels and titles of what is saved."""
    found = []
    real = plots._save

    def save(figure: Figure, out):
        for axes in figure.axes:
            found.extend(t.get_text() for t in axes.get_yticklabels())
            found.append(axes.get_title())
            legend = axes.get_legend()
            found.extend(t.get_text() for t in legend.get_texts()) if legend else None
        found.append(figure.get_suptitle())
        return real(figure, out)

    monkeypatch.setattr(plots, "_save", save)
    return found


def is_png(path):
    return path.read_bytes().startswith(PNG) and path.stat().st_size > 5000


def test_bars_name_every_class(tmp_path, labels):
    details = {"per_class": {f"class {i}": {"accuracy": None if i == 3 else 10.0 * i, "count": 5} for i in range(10)}}
    assert is_png(plots.per_class_bars(details, tmp_path / "bars.png", note="synthetic features"))
    assert {f"class {i}" for i in range(10)} <= set(labels) and any("synthetic" in t for t in labels)


def test_bars_of_two_streams_have_a_legend(tmp_path, labels):
    scores = {s: {"Dog_bark": 50.0, "Cat": None} for s in ("audio", "visual", "av")}
    assert is_png(plots.per_class_bars({"class_segment": scores}, tmp_path / "bars.png"))
    assert {"Dog bark", "Cat", "audio", "visual"} <= set(labels)


def test_timelines_show_streams_and_classes(tmp_path, labels):
    truth = np.zeros((10, 3), dtype=bool)
    truth[2:6, 1] = True
    tracks = {s: {"truth": truth, "prediction": ~truth} for s in ("audio", "visual", "av")}
    example = {"clip_id": "clip one", "classes": ["a", "b", "c"], "tracks": tracks}
    assert is_png(plots.timelines([example, example], tmp_path / "t.png", note="synthetic features"))
    assert {"heard", "seen", "heard and seen", "a", "b", "c"} <= set(labels)
    assert any("synthetic features" in text for text in labels)


def test_curves_need_a_finished_epoch(tmp_path):
    file = tmp_path / "metrics.jsonl"
    step = {"event": "step", "step": 1, "epoch": 1, "loss": 2.0, "lr": 0.1}
    file.write_text(json.dumps(step) + "\n")
    with pytest.raises(DataError, match="no finished epoch"):
        plots.curves(file, tmp_path / "c.png", metric="accuracy")
    epoch = {"event": "epoch", "step": 1, "epoch": 1, "loss": 2.0, "split": "validation", "accuracy": 50.0}
    file.write_text(json.dumps(step) + "\n" + json.dumps(epoch) + "\n")
    assert is_png(plots.curves(file, tmp_path / "c.png", metric="accuracy"))


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(DataError, match="no clip"):
        plots.timelines([], tmp_path / "t.png")
    with pytest.raises(DataError, match="no scores per class"):
        plots.per_class_bars({}, tmp_path / "b.png")
    assert list(tmp_path.iterdir()) == []
