"""The page: every number follows from a run folder that it names; what is missing is said."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from avplatform.base.drawing import save_figure
from avplatform.catalogue.published import published_tables
from avplatform.commands.reproduce import make_page
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.reproduce import plots
from avplatform.reproduce.figures import Figure
from avplatform.reproduce.page import as_markdown, number, write_page
from avplatform.reproduce.pictures import CLIPS, example_clips
from avplatform.reproduce.reproduce import collect, find_data, make_plan
from avplatform.reproduce.tables import READINGS, Shelf, section
from avplatform.reproduce.targets import ALL, TABLES, settings_of, wanted
from avplatform.sweeps.ledger import Entry
from avplatform.tasks.avvp.metrics import overlap_subsets
from avplatform.tasks.metrics import selection_score
from tests.ledger.folders import write_run, write_runs

DRAWN = [name for name in ALL if name not in ("fig4", "curve")]
# Figure 4 needs trained models, which a test of the command makes; the curve has its own tests.


class Cells(HTMLParser):
    """Collects a page's table cells: {data-cell: text}, and the texts of the other cells."""

    def __init__(self, text):
        super().__init__()
        self.named, self.plain, self.links, self._at = {}, [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ("td", "th"):
            self._at = attrs.get("data-cell"), attrs.get("class", "")
            if self._at[0] is not None:
                assert self._at[0] not in self.named, "two numbers of one name"
                self.named[self._at[0]] = ""
        if tag == "a":
            self.links.append(attrs["href"])

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._at = None

    def handle_data(self, data):
        if self._at is None:
            return
        if self._at[0] is not None:
            self.named[self._at[0]] += data
        else:
            self.plain.append((self._at[1], data))


def keep_title(figure, file, folder):
    folder.mkdir(exist_ok=True)
    (folder / file.name).write_text(figure.get_suptitle())
    return save_figure(figure, file)


@pytest.fixture(scope="module")
def made(small_stores, tmp_path_factory):
    out = tmp_path_factory.mktemp("page")
    data = find_data([str(small_stores["avel"].parent)])
    plan = make_plan(
        DRAWN,
        data,
        labels={"bert": "bert.safetensors"},
        seeds=3,
        only=(),
        extra={},
        checkpoints=None,
    )
    write_runs(plan, out, data, absent=("Cat",))
    shelf = collect(plan, out, data=data, labels={"bert": "bert.safetensors"}, failed={})
    stem = "mmpyr-leap-avvp-official"
    write_run(out / "checkpoints" / stem, "avvp", 99, checksum="", test_epochs=0)
    shelf.checkpoints[stem] = Entry(out / "checkpoints" / stem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            plots, "save_figure", lambda figure, file: keep_title(figure, file, out / "titles")
        )
        page = make_page(
            DRAWN, shelf, data, command="the command", cpu=True, warnings=["SHORT SCHEDULE"]
        )
    write_page(page, out)
    return (
        out,
        page,
        Cells((out / "page.html").read_text()),
        json.loads((out / "page.json").read_text()),
    )


def again(out, record):
    """Return the text of a figure, worked out anew from the files that page.json names."""
    values = []
    for terms in record["made_of"]:
        total = 0.0
        for term in terms:
            path = out / term["file"]
            if path.name == "metrics.jsonl":
                metric = json.loads((path.parent / "results.json").read_text())["selection"][
                    "metric"
                ]
                epochs = [
                    r
                    for r in map(json.loads, path.read_text().splitlines())
                    if r["event"] == "test_epoch"
                ]
                (node,) = (
                    r
                    for r in epochs
                    if term["record"] == {"event": r["event"], "epoch": r["epoch"]}
                )
                scores = [selection_score(r, metric) for r in epochs]
                assert selection_score(node, metric) == max(scores)
            else:
                node = json.loads(path.read_text())
            for name in term["at"]:
                node = node[name]
            total += term["weight"] * node
        values.append(total)
    text = f"{np.mean(values):.1f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.1f}"
    if record["paper"] is not None:
        difference = np.mean(values) - record["paper"]
        mark = (
            "?"
            if len(values) < 3
            else "✓"
            if abs(difference) <= 2 * np.std(values, ddof=1)
            else "✗"
        )
        text += f"{difference:+.1f} {mark}"
    return text.replace("-", "−").replace("+0.0 ", "0.0 ").replace("−0.0", "0.0")


def test_every_number_is_worked_out_anew_from_the_files_it_names(made):
    out, _, shown, content = made
    assert set(shown.named) == set(content["cells"]) and len(shown.named) > 900
    ours = 0
    for key, text in shown.named.items():
        record = content["cells"][key]
        assert record["features"] and record["selection"], key
        if "published" in record:
            assert text == f"{record['published']:.1f}".replace("-", "−"), key
        else:
            assert text.replace("+0.0 ", "0.0 ") == again(out, record), key
            assert record["n"] == len(record["values"]) == len(record["made_of"])
            assert all((out / run / "results.json").is_file() for run in record["runs"])
            ours += 1
    assert ours > 500


def test_no_number_stands_in_a_table_without_a_name(made):
    """But the counts of seeds and clips, the paper's numbering, features, seeds and notes."""
    _, page, shown, _ = made
    assert {kind for kind, _ in shown.plain} <= {
        "",
        "text",
        "label",
        "message",
        "none",
        "none edge",
    }
    counts = {text for kind, text in shown.plain if kind == "" and re.fullmatch(r"\d+", text)}
    assert counts == {"1", "3"}
    assert not [
        text for kind, text in shown.plain if kind == "none" and any(c.isdigit() for c in text)
    ]


def test_published_figures_stand_as_the_data_file_has_them(made):
    _, _, _, content = made
    for target in DRAWN:
        rows = published_tables()[TABLES[target]].rows
        texts = [
            r["published"]
            for key, r in content["cells"].items()
            if key.startswith(f"{target} /") and "published" in r
        ]
        for value in {v for row in rows for v in row.metrics.values()}:
            assert value in texts, (target, value)
    assert (
        content["cells"]["fig3 / Dog / paper / not stated; validation / audio: LEAP - MMIL"][
            "published"
        ]
        == 6.8
    )


def test_links_lead_to_run_folders(made):
    out, _, shown, _ = made
    paths = {link for link in shown.links if not link.startswith("#")}
    assert len(paths) > 60 and all((out / link).exists() for link in paths)


def test_rows_of_ours_stand_beside_no_published_figure(made):
    out, page, shown, content = made
    (table,) = (part for part in page.sections if part.key == "table4")
    mine = [g for g in table.groups if g.note.startswith("ours, not published")]
    assert len(mine) == 9
    for group in mine:
        assert all(line.label.startswith("ours") for line in group.lines), group.title
        key = f"table4 / {group.title} / ours / validation / event_A"
        assert content["cells"][key]["paper"] is None and content["cells"][key]["n"] == 3
    key = "table4 / DHHN, refined labels / paper (DHHN, Table 1) / validation / event_V"
    assert shown.named[key] == "60.8"
    assert (
        "no visual Speech label"
        in content["cells"]["table4 / HAN, no visual Speech label / ours / validation / event_A"][
            "features"
        ]
    )


def test_both_selections_stand_apart(made):
    _, _, shown, _ = made
    key = "table2 / HAN + MMIL, L_basic / {} / {} / event_A"
    first, second = (
        key.format("ours", "validation"),
        key.format("ours, best epoch on test", "test (optimistic)"),
    )
    assert (
        first in shown.named and second in shown.named and shown.named[first] != shown.named[second]
    )


def test_the_checkpoint_stands_beside_every_row_of_its_setting(made):
    _, _, shown, content = made
    keys = [key for key in shown.named if "authors' checkpoint" in key]
    assert {key.split(" / ")[0] for key in keys} == {"table2", "table3", "table4"}
    assert all(
        content["cells"][key]["runs"] == ["checkpoints/mmpyr-leap-avvp-official"] for key in keys
    )


def test_four_readings_of_overlapping_stand_with_their_clips(made):
    _, _, shown, _ = made
    labels = {
        key.split(" / ")[2] for key in shown.named if key.startswith("table3") and "/ ours" in key
    }
    assert labels == {f"ours, {r.replace('_', ' ')} (7 clips)" for r in READINGS}
    some = np.random.default_rng(0).integers(0, 2, (4, 10, 25))
    assert tuple(overlap_subsets(some, some)) == READINGS


def test_a_class_that_no_clip_has_has_no_figure_and_is_left_out_of_the_mean(made):
    _, _, shown, content = made
    assert not [key for key in shown.named if key.startswith("fig3 / Cat / ours")]
    average = content["cells"]["fig3 / Avg. / ours / validation / visual: LEAP - MMIL"]
    assert len(average["made_of"][0]) == 2 * (len(CLASSES) - 1) and len(average["runs"]) == 6


def test_every_table_says_that_its_features_are_made_up_and_the_schedule_short(made):
    out, page, _, _ = made
    text = (out / "page.html").read_text()
    for part in text.split("<section")[1:]:
        assert (
            "SYNTHETIC features" in part.split("<table")[0]
            and "SHORT SCHEDULE" in part.split("<table")[0]
        )
    markdown = (out / "page.md").read_text()
    assert markdown.count("SYNTHETIC features:") == len(DRAWN)
    page.synthetic.clear()
    assert "SYNTHETIC features:" not in as_markdown(page, out)


def test_every_picture_says_it_too(made):
    titles = {file.name: file.read_text() for file in (made[0] / "titles").iterdir()}
    assert (
        set(titles) == {file.name for file in (made[0] / "plots").iterdir()}
        and "table5.png" in titles
    )
    assert all(title.endswith("(synthetic features, SHORT SCHEDULE)") for title in titles.values())


def test_rows_that_were_not_run_say_why(made):
    out, _, shown, _ = made
    messages = [text for kind, text in shown.plain if kind == "message"]
    messages = [text for text in messages if not text.startswith("The model does not beat")]
    assert messages == ["not run: no CLIP vectors given; give --labels clip=FILE"]
    assert any("table1 / LEAP, N = 2, BERT / ours" in key for key in shown.named)
    assert "labels: bert.safetensors" in (out / "page.md").read_text()


def test_markdown_and_html_hold_the_same_numbers(made):
    out, _, shown, _ = made
    markdown = (out / "page.md").read_text()
    for text in shown.named.values():
        mean = re.match(r"−?[\d.]+( ± [\d.]+)?", text).group()
        assert mean in markdown


def test_the_pages_pictures_are_in_the_html_and_beside_the_markdown(made):
    out, _, _, _ = made
    text, markdown = (out / "page.html").read_text(), (out / "page.md").read_text()
    assert text.count("data:image/png;base64,") == len(DRAWN) and "http" not in re.sub(
        r"[\w+/=]{200,}", "", text
    )
    for name in re.findall(r"\]\((plots/[^)]+)\)", markdown):
        assert (out / name).is_file()


def test_runs_without_scores_on_test_say_so(small_stores, tmp_path):
    data = find_data([str(small_stores["avel"])])
    plan = make_plan(
        ["table5"], data, labels={}, seeds=1, only=("ave-dch",), extra={}, checkpoints=None
    )
    write_runs(plan, tmp_path, data, test_epochs=0)
    part = section("table5", collect(plan, tmp_path, data=data, labels={}, failed={}))
    lines = part.groups[1].lines
    assert [line.label for line in lines] == ["paper", "ours", "ours, best epoch on test"]
    assert (
        "recorded no test scores" in lines[2].message
        and lines[1].figures["accuracy"].verdict == "n too small"
    )
    assert part.groups[3].lines[1].message == "not run: left out by --only"


@pytest.mark.parametrize(
    ("values", "paper", "verdict"),
    [
        ([60.0, 61.0, 62.0], 63.0, "inside"), ([60.0, 61.0, 62.0], 63.1, "outside"),
        ([60.0, 61.0, 62.0], 58.9, "outside"), ([60.0, 62.0], 61.0, "n too small"),
        ([60.0], 60.0, "n too small"), ([60.0, 61.0, 62.0], None, None),
    ],
)  # fmt: skip
def test_inside_the_spread_means_within_two_standard_deviations(values, paper, verdict):
    assert Figure(values=values, paper=paper).verdict == verdict


def test_numbers_have_a_true_minus_and_no_minus_zero():
    assert (number(-0.04), number(-3.14), number(2.0, sign=True), number(-0.01, sign=True)) == (
        "0.0",
        "−3.1",
        "+2.0",
        "+0.0",
    )


def test_each_targets_rows_are_those_of_its_table():
    assert [
        len(wanted(name)) for name in ("table1", "table2", "fig3", "table3", "table4", "table5")
    ] == [5, 6, 2, 8, 23, 12]
    assert len(settings_of(ALL)) == 44
    kinds = {w.setting.stem: w.title for w in wanted("table5")}
    assert kinds["cmbs-leap-avel-weak"] == "CMBS + LEAP, weak"


def test_the_open_vocabulary_table_has_its_rows_and_says_what_is_not_there(tmp_path):
    settings = {w.title: w.setting.stem for w in wanted("ovavel") if w.setting is not None}
    assert settings["AVE"] == "ave-dch-ovavel" and settings["MM-Pyramid"] == "mmpyr-mmil-ovavel"
    fine_tuned = "temporal-cosine-ovavel-official_imagebind"
    assert settings["ImageBind, fine-tuned (v1)"] == fine_tuned and len(wanted("ovavel")) == 16
    shelf = Shelf(root=tmp_path, missing={fine_tuned: "not run: no IMAGEBIND vectors given"})
    filled = section("ovavel", shelf)
    assert filled.columns[:2] == ["seen_accuracy", "seen_segment_F"] and len(filled.columns) == 12
    row = next(group for group in filled.groups if group.title == "ImageBind, fine-tuned (v1)")
    assert row.lines[0].published["unseen_event_F"] == 47.5
    assert row.lines[1].message == "not run: no IMAGEBIND vectors given"


def test_example_clips_are_chosen_by_a_rule():
    audio, visual = np.zeros((12, 10, 25), int), np.zeros((12, 10, 25), int)
    audio[:8, 0, 3] = 1
    visual[4:8, 0, 5] = 1  # clips 4 to 7 overlap, 0 to 3 do not, the others have no event
    assert example_clips(audio, visual) == [5, 7, 1, 3] and CLIPS == 2
    assert example_clips(audio[:1], visual[:1]) == [0]


def test_paths_in_the_page_do_not_depend_on_where_it_lies(made):
    out, _, _, content = made
    runs = {run for record in content["cells"].values() for run in record.get("runs", [])}
    assert all(not Path(run).is_absolute() and ".." not in run for run in runs)


def test_numbers_are_made_of_what_their_column_says(made):
    out, _, _, content = made
    seen = 0
    for key, record in content["cells"].items():
        target, _, label, _, column = key.split(" / ")
        if (
            target in ("table1", "table2", "table4", "table5")
            and label == "ours"
            and column != "Avg."
        ):
            tests = [
                json.loads((out / run / "results.json").read_text())["test"]
                for run in record["runs"]
            ]
            assert record["values"] == [scores[column] for scores in tests], key
            seen += 1
        if target == "fig3" and label == "ours" and column == "audio: LEAP - MMIL":
            first, second = (
                content["cells"][key.replace("LEAP - MMIL", name)]["values"]
                for name in ("MMIL", "LEAP")
            )
            assert record["values"] == pytest.approx(
                [b - a for a, b in zip(first, second, strict=True)]
            ), key
            assert record["difference"] == pytest.approx(
                np.mean(record["values"]) - record["paper"]
            ), key
            seen += 1
        if target == "table3" and "ours, audio" in label and column != "Avg.":
            subset = "non_overlapping" if "non-overlapping" in key else "overlapping"
            details = [
                json.loads((out / run / "results.json").read_text())["details"]["test"]
                for run in record["runs"]
            ]
            assert record["values"] == [d["subsets"]["audio"][subset][column] for d in details], key
            seen += 1
    assert seen > 150


def test_the_best_epoch_on_test_was_scored_before_thresholds_were_picked(made):
    out, _, _, _ = made
    stem = "han-cmpae-avvp-weak-official_noise-ratio"
    entry = Entry(out / "runs" / f"{stem}_seed-1")
    entry.results["settled"] = {"split": "validation"}
    part = section("table4", Shelf(root=out, runs={stem: [entry]}))
    (group,) = (group for group in part.groups if group.title == "CMPAE")
    chosen = [line.selection for line in group.lines if line.figures]
    assert chosen == ["validation", "test (optimistic), before thresholds were picked"]


def test_a_picture_does_not_draw_trivial_answers_as_the_papers(made):
    _, page, _, _ = made
    (table,) = (section for section in page.sections if section.key == "table4")
    looks = [[plots._look(line) for line in group.lines] for group in table.groups]
    assert set(looks[0]) == {plots.ANSWER}
    assert looks[1][0] == "paper" and looks[3][0] == "paper"  # of LEAP, and of DHHN


def test_answers_without_training_stand_above_the_models(made):
    """With the same numbers for all, and a line under each model that does not beat them."""
    _, page, _, _ = made
    tables = {section.key: section for section in page.sections}
    for key in ("table1", "table2", "table4", "table5"):
        first = tables[key].groups[0]
        assert first.title == "Answers without training"
        names = ["always background"]
        if tables[key].task == "avvp":
            names = ["nothing predicted", "video labels everywhere"]
        assert [line.label for line in first.lines] == names
        assert all(line.figures and line.selection == "none" for line in first.lines)
    assert "Answers without training" not in {g.title for g in tables["table3"].groups}


def test_a_model_that_does_not_beat_them_is_named(made):
    _, page, _, _ = made
    (table,) = (section for section in page.sections if section.key == "table2")
    said = [line.message for group in table.groups for line in group.lines if line.message]
    assert "The model does not beat 'nothing predicted' (1 of 3 runs)." in said


def test_each_table_names_the_one_precision_of_its_runs(made):
    _, page, _, _ = made
    for part in page.sections:
        assert "All of our runs were trained in float32." in part.notes


def test_runs_of_different_precision_are_said_to_be_so(made):
    out, _, _, _ = made
    stems = list(settings_of(["table2"]))[:2]
    runs = {stem: [Entry(out / "runs" / f"{stem}_seed-1")] for stem in stems}
    runs[stems[0]][0].results["precision"] = "bf16"
    (note,) = section("table2", Shelf(root=out, runs=runs)).notes
    assert "trained in bfloat16 (mixed) and float32: their figures are not strictly" in note
