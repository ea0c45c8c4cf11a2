"""Plots are whole PNG files that show what they should."""

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from avplatform.data.adapters.ave.classes import CLASSES as AVE_CLASSES
from avplatform.data.adapters.llp.classes import CLASSES as LLP_CLASSES
from avplatform.models.errors import DataError
from avplatform.runs import pictures as plots

ROOT = Path(__file__).resolve().parent.parent
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawn(monkeypatch):
    """Collect the figures that are saved."""
    figures: list[Figure] = []
    real = plots.save_figure
    monkeypatch.setattr(
        plots, "save_figure", lambda figure, out: (figures.append(figure), real(figure, out))[1]
    )
    return figures


def texts(figure):
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        found += [
            axes.get_title(),
            axes.get_title(loc="left"),
            *(t.get_text() for t in [*axes.get_yticklabels(), *axes.texts]),
        ]
    legends = [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]
    return [*found, *(t.get_text() for legend in legends for t in legend.get_texts())]


def is_sane_png(path):
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    whole = content.startswith(PNG) and content.endswith(b"IEND\xaeB`\x82")
    return whole and 300 <= width <= 2000 and 100 <= height <= 3000 and len(content) > 5000


def write(file, *records):
    file.write_text("".join(json.dumps(r) + "\n" for r in records))
    return file


def epoch(number, value):
    return {
        "event": "epoch",
        "step": 2 * number,
        "epoch": number,
        "loss": 2.0,
        "split": "validation",
        "accuracy": value,
    }


STEP = {"event": "step", "step": 1, "epoch": 1, "loss": 2.0, "lr": 0.1}


def example(streams=("audio", "visual", "av"), classes=("a", "b", "c"), true=(1,), found=(0, 2)):
    truth, prediction = (np.zeros((10, len(classes)), dtype=bool) for _ in range(2))
    truth[2:6, list(true)] = True
    prediction[4:9, list(found)] = True
    tracks = {s: {"truth": truth, "prediction": prediction} for s in streams}
    return {"clip_id": "$clip_0_10$", "classes": list(classes), "tracks": tracks}


def test_bars_name_every_class_of_ave(tmp_path, drawn):
    scores = {
        name: {"accuracy": None if i == 3 else 3.0 * i, "count": 5}
        for i, name in enumerate(AVE_CLASSES)
    }
    assert is_sane_png(
        plots.per_class_bars(
            {"per_class": scores}, tmp_path / "bars.png", note="synthetic features"
        )
    )
    shown = texts(drawn[0])
    assert set(AVE_CLASSES) <= set(shown) and any("synthetic features" in t for t in shown)
    assert shown.count("not in this split") == 1 and shown.count("n=5") == len(AVE_CLASSES) - 1


def test_bars_of_llp_name_every_class_and_both_streams(tmp_path, drawn):
    scores = {s: dict.fromkeys(LLP_CLASSES, 50.0) for s in ("audio", "visual", "av")}
    assert is_sane_png(plots.per_class_bars({"class_segment": scores}, tmp_path / "bars.png"))
    shown = texts(drawn[0])
    assert {name.replace("_", " ") for name in LLP_CLASSES} | {"audio", "visual"} <= set(shown)
    assert not any("synthetic" in t or t.startswith("n=") for t in shown)
    counts = {s: {name: n for n, name in enumerate(LLP_CLASSES)} for s in ("audio", "visual")}
    plots.per_class_bars({"class_segment": scores, "class_count": counts}, tmp_path / "bars.png")
    assert [t for t in texts(drawn[1]) if t.startswith("n=")] == [f"n={n}" for n in range(25)] * 2


def test_timelines_show_streams_classes_and_clips(tmp_path, drawn):
    quiet = example(true=(), found=())
    assert is_sane_png(
        plots.timelines([example(), quiet], tmp_path / "t.png", note="synthetic features")
    )
    shown = texts(drawn[0])
    assert {
        "heard: truth",
        "seen: truth",
        "heard and seen: truth",
        "prediction",
        "a",
        "b",
        "c",
        "$clip_0_10$",
    } <= set(shown)
    assert (
        "synthetic features" in drawn[0].get_suptitle() and shown.count("no event, none found") == 1
    )


@pytest.mark.filterwarnings("error")  # of axes without room
@pytest.mark.parametrize("clips", [1, 3])
@pytest.mark.parametrize("streams", [("av",), ("audio", "visual", "av")])
def test_a_clip_in_which_everything_is_found_has_room_for_its_legend(
    tmp_path, drawn, streams, clips
):
    names = [f"Male speech, man speaking {n}" for n in range(28)]
    plots.timelines([example(streams, names, range(28), range(28))] * clips, tmp_path / "t.png")
    for axes in drawn[0].axes:
        assert axes.get_legend().get_window_extent().height <= 1.1 * axes.get_window_extent().height


def test_one_stream_has_truth_above_prediction_at_the_right_seconds(tmp_path, drawn):
    plots.timelines([example(streams=("av",))], tmp_path / "t.png")
    (axes,) = drawn[0].axes
    boxes = [path.get_extents() for bars in axes.collections for path in bars.get_paths()]
    assert sorted((b.x0, b.x1) for b in boxes) == [(2, 6), (4, 9), (4, 9)]
    (truth,) = (b for b in boxes if b.x0 == 2)
    assert all(truth.y1 < b.y0 for b in boxes if b.x0 == 4)  # the axis points down
    assert axes.yaxis_inverted() and axes.get_xlim() == (0, 10)


def test_segments_of_half_a_second_end_at_their_seconds(tmp_path, drawn):
    plots.timelines([example(streams=("av",)) | {"segment_seconds": 0.5}], tmp_path / "t.png")
    (axes,) = drawn[0].axes
    boxes = [path.get_extents() for bars in axes.collections for path in bars.get_paths()]
    assert sorted((b.x0, b.x1) for b in boxes) == [(1, 3), (2, 4.5), (2, 4.5)]
    assert axes.get_xlim() == (0, 5) and axes.get_xticks()[-1] == 5


def test_a_class_looks_the_same_in_all_clips_and_unlike_any_other(tmp_path, drawn):
    names = [f"class {n}" for n in range(20)]
    first = example(("av",), names, range(10), range(10))
    second = example(("av",), names, range(5, 20), range(5, 20))
    plots.timelines([first, second], tmp_path / "t.png")
    looks = [
        {
            t.get_text(): (p.get_facecolor(), p.get_hatch())
            for t, p in zip(g.get_texts(), g.get_patches(), strict=True)
        }
        for g in (axes.get_legend() for axes in drawn[0].axes)
    ]
    assert all(looks[0][name] == looks[1][name] for name in looks[0].keys() & looks[1].keys())
    assert len(set((looks[0] | looks[1]).values())) == 20


@pytest.mark.parametrize(("selected", "marked"), [(None, 3), (1, 1), (4, 4)])
def test_the_kept_epoch_is_marked(tmp_path, drawn, selected, marked):
    values = {1: 50.0, 2: 70.0, 3: 70.0, 4: 60.0}
    file = write(tmp_path / "m.jsonl", STEP, *(epoch(n, v) for n, v in values.items()))
    assert is_sane_png(
        plots.curves(
            file,
            tmp_path / "c.png",
            metric="accuracy",
            selected=selected,
            note="synthetic features",
        )
    )
    (star,) = (line for line in drawn[0].axes[1].lines if line.get_marker() == "*")
    assert (star.get_xdata(), star.get_ydata()) == ([marked], [values[marked]])
    assert f"kept: epoch {marked}, {values[marked]:.1f}" in texts(
        drawn[0]
    ) and "synthetic features" in texts(drawn[0])


def test_the_mean_loss_of_an_epoch_stands_at_the_middle_of_its_steps(tmp_path, drawn):
    steps = [STEP | {"step": n, "epoch": (n - 1) // 4 + 1} for n in range(1, 9)]
    ends = [epoch(n, 50.0) | {"step": 4 * n} for n in (1, 2, 3)]  # no step of the last is recorded
    file = write(tmp_path / "m.jsonl", *steps[:4], ends[0], *steps[4:], *ends[1:])
    plots.curves(file, tmp_path / "c.png", metric="accuracy", note="run $1$")
    (means,) = (line for line in drawn[0].axes[0].lines if line.get_label() == "epoch mean")
    assert list(means.get_xdata()) == [2.5, 6.5, 12]
    assert drawn[0].get_suptitle() == "run $1$" and not drawn[0]._suptitle.get_parse_math()


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    file = write(tmp_path / "m.jsonl", STEP, epoch(1, 50.0))
    file.write_text(file.read_text() + '{"event": "st')
    assert is_sane_png(plots.curves(file, tmp_path / "c.png", metric="accuracy"))


def test_nothing_to_draw_is_said_and_leaves_no_file(tmp_path):
    file, out = write(tmp_path / "m.jsonl", STEP), tmp_path / "out.png"
    with pytest.raises(DataError, match="no finished epoch"):
        plots.curves(file, out, metric="accuracy")
    with pytest.raises(DataError, match="cannot read"):
        plots.curves(tmp_path / "absent.jsonl", out, metric="accuracy")
    write(file, epoch(1, 50.0))
    with pytest.raises(DataError, match="no finished epoch with segment_A"):
        plots.curves(file, out, metric="segment_A")
    with pytest.raises(DataError, match="no epoch 7"):
        plots.curves(file, out, metric="accuracy", selected=7)
    with pytest.raises(DataError, match="no clip"):
        plots.timelines([], out)
    for details in ({}, {"per_class": {}}, {"class_segment": {}}):
        with pytest.raises(DataError, match="no scores per class"):
            plots.per_class_bars(details, out)
    assert list(tmp_path.iterdir()) == [file]


def test_a_picture_that_fails_halfway_leaves_the_old_one(tmp_path, monkeypatch):
    out = plots.timelines([example()], tmp_path / "t.png")
    before = out.read_bytes()

    def fails(self, path, *args, **kwargs):
        with open(path, "wb") as file:
            file.write(PNG)
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_png", fails)
    with pytest.raises(OSError, match="disk full"):
        plots.timelines([example()], out)
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("backend", ["module://of_a_kernel_elsewhere", "nonsense", "agg"])
def test_figures_are_written_whatever_backend_a_notebook_asks_for(tmp_path, backend):
    code = (
        "import os; from pathlib import Path; from avplatform.runs import pictures\n"
        "figure = pictures.Figure(); figure.subplots().plot([1, 2])\n"
        f"pictures.save_figure(figure, Path({str(tmp_path / 'a.png')!r}))\n"
        "print(os.environ['MPLBACKEND'])"
    )
    env = {**os.environ, "MPLBACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == backend and (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_only_drawing_imports_matplotlib():
    """Any other first import would fail where MPLBACKEND names a module that is not installed."""
    found = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "avplatform").rglob("*.py")
        if re.search(r"^\s*(import|from) matplotlib", file.read_text(encoding="utf-8"), re.M)
    }
    assert found == {"avplatform/base/drawing.py"}
