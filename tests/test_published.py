"""The published figures: complete, copied without error, and under registered names."""

import numpy as np
import pytest

from avplatform.catalogue.published import headline, published_rows, published_tables, read_tables
from avplatform.config.compose import compose
from avplatform.config.presets import list_presets, preset_options
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.adapters.registry import make_task
from avplatform.models.errors import DataError
from avplatform.tasks.avel.metrics import AVELMetrics
from avplatform.tasks.avvp.metrics import averages

ROWS = [(key, row) for key, table in published_tables().items() for row in table.rows]
AVEL_METRICS = {"accuracy"}

GOOD = """
schema: 1
tables:
  t:
    title: a table
    source: {paper: P, venue: V, table: Table 1}
    task: avel
    features: f
    columns: [accuracy]
    rows:
      - {method: m, encoder: ave, decoder: dch, supervision: full, values: [70.5], headline: true}
"""


def test_every_table_of_the_leap_paper_is_there_with_all_its_rows():
    found = {
        key: len(table.rows) for key, table in published_tables().items() if key.startswith("leap")
    }
    # Table 1 prints N = 2 with GloVe twice; Table 3 has two subsets per method, and
    # Table 5 two heads per encoder.
    assert found == {
        "leap-table-1": 5, "leap-table-2": 6, "leap-table-3": 8, "leap-table-4": 12,
        "leap-table-5": 6, "leap-figure-3": 2
    }  # fmt: skip


def test_metrics_have_the_names_that_the_tasks_give_them():
    names = {"avvp": set(averages(np.ones((1, 8))))}
    metrics = AVELMetrics(make_task("avel").classes)
    metrics._parts.append(
        {n: np.zeros((1, 10), int) for n in ("predicted", "true")}
        | {n: np.zeros(1, int) for n in ("row", "video")}
    )
    names["avel"] = set(metrics.compute())
    names["ovavel"] = {make_task("ovavel").selection_metric, *make_task("ovavel").all_figures()}
    for key, row in ROWS:
        assert set(row.metrics) <= names[row.task], key
        assert all(set(values) == set(CLASSES) for values in row.per_class.values()), key


def test_printed_averages_are_the_means_of_the_copied_figures():
    checked = 0
    for key, row in ROWS:
        if row.average is not None:
            assert np.mean(list(row.metrics.values())) == pytest.approx(row.average, abs=0.06), (
                key,
                row.method,
            )
            checked += 1
        for stream, mean in row.per_class_average.items():
            assert np.mean(list(row.per_class[stream].values())) == pytest.approx(mean, abs=0.06), (
                key,
                stream,
            )
            checked += 1
    assert checked == 17


def test_type_at_av_is_the_mean_of_its_three_streams_but_where_the_sources_print_otherwise():
    """Which finds a slip in most of the figures that have no printed average."""
    strays = set()
    for key, row in ROWS:
        for level in ("segment", "event"):
            if f"{level}_Type@AV" in row.metrics:
                three = [row.metrics[f"{level}_{stream}"] for stream in ("A", "V", "AV")]
                if abs(np.mean(three) - row.metrics[f"{level}_Type@AV"]) > 0.09:
                    strays.add((key, row.method, level))
    assert strays == {
        ("leap-table-4", "MA", "segment"), ("leap-table-4", "BPS", "event"),
        ("leap-table-4", "MM-Pyr", "event"), ("leap-table-4", "DHHN", "event"),
        ("uwav-table-1", "MA", "segment"), ("uwav-table-1", "PPL", "event"),
        ("uwav-table-1", "CoLeaF", "event"),
    }  # fmt: skip


def test_the_figures_of_all_clips_follow_from_both_groups_but_where_the_source_prints_otherwise():
    """All clips are 1,664 of seen and 4,156 of unseen classes; each average is of three figures."""
    strays = set()
    for row in published_tables()["ovavel-benchmark"].rows:
        m = row.metrics
        for name in ("accuracy", "segment_F", "event_F"):
            whole = (1664 * m[f"seen_{name}"] + 4156 * m[f"unseen_{name}"]) / 5820
            if abs(whole - m[name]) > 0.11:
                strays.add(row.method)
        for group in ("seen_", "unseen_", ""):
            three = [m[group + name] for name in ("accuracy", "segment_F", "event_F")]
            assert np.mean(three) == pytest.approx(m[f"{group}average"], abs=0.07), row.method
    assert strays == {"MM-Pyramid", "complex fusion, 4 streams"}


def test_two_papers_that_print_the_same_row_agree():
    by_method = {}
    for key in ("leap-table-4", "uwav-table-1"):
        for row in published_tables()[key].rows:
            by_method.setdefault(row.method, []).append(row.metrics)
    both = {method: values for method, values in by_method.items() if len(values) == 2}
    assert len(both) >= 6 and all(first == second for first, second in both.values())


def test_presets_and_options_of_rows_build_and_are_of_the_rows_cell():
    for key, row in ROWS:
        if row.preset is None:
            assert not row.options, key
            for preset in row.open_presets:
                options = preset_options(preset)
                assert (options["task"], options["encoder"], options["decoder"]) == (
                    row.task,
                    row.encoder,
                    row.decoder,
                )
            assert len({preset_options(p)["supervision"] for p in row.open_presets}) == len(
                row.open_presets
            ), key
            assert not row.open_presets or row.supervision is None
            continue
        options = preset_options(row.preset)
        cell = (options["task"], options["encoder"], options["decoder"])
        assert row.preset in list_presets() and cell == (row.task, row.encoder, row.decoder), (
            key,
            row.method,
        )
        assert row.supervision in (None, options["supervision"]), (key, row.method)
        config = compose((key, {"preset": row.preset, **row.options}))
        if "blocks" in str(row.options):
            assert config.decoder_config.blocks == row.options["decoder_config"]["blocks"]
        if "avss" in str(row.options):
            assert config.task_config.avss == "off"


def test_rows_without_a_stated_supervision_are_figures_of_every_supervision():
    for supervision in ("full", "weak"):
        rows = published_rows("avel", "cmbs", "leap", supervision)
        assert [(key, row.metrics["accuracy"]) for key, row in rows] == [("leap-table-5", 77.9)]
    assert published_rows("avel", "han", "leap", "full") == []


def test_the_headline_is_the_figure_that_states_its_supervision():
    assert headline("avel", "ave", "dch", "full").metrics == {"accuracy": 72.7}
    assert headline("avel", "ave", "dch", "weak").metrics == {"accuracy": 68.2}
    assert headline("avvp", "mmpyr", "leap", "pseudo").metrics["event_Type@AV"] == 60.2
    assert headline("avvp", "psp", "leap", "pseudo") is None


def test_figures_that_were_never_read_in_a_source_are_left_out():
    """PSP's, CMBS's (full) and AVE-CLIP's own accuracies were only ever quoted from memory."""
    values = {row.metrics["accuracy"] for _, row in ROWS if row.task == "avel"}
    assert not values & {77.8, 73.5, 79.3, 66.7, 83.7, 83.3, 82.6, 73.2}


def test_the_smallest_good_file_is_read():
    row = read_tables(GOOD)["t"].rows[0]
    assert (
        row.metrics == {"accuracy": 70.5}
        and str(row.source) == "P (V), Table 1"
        and row.reported_by == "paper"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema: 1", "schema: 2", "must hold 'schema: 1'"),
        ("[70.5]", "[170.5]", "170.5 is not a percentage"),
        ("[70.5]", "[true]", "True is not a percentage"),
        ("[70.5]", "[70.5, 3.0]", "2 values for 1 column"),
        ("encoder: ave", "encoder: avee", "row 1: unknown encoder 'avee'; did you mean 'ave'"),
        ("decoder: dch", "decoder: other", "decoder_name must say which"),
        ("supervision: full", "supervision: pseudo", "unknown supervision 'pseudo'"),
        ("method: m", "methods: m", "unknown field 'methods'; did you mean 'method'"),
        ("method: m, ", "", "method missing"),
        (", table: Table 1", "", "source must hold paper, venue and table"),
        ("task: avel", "task: avle", "unknown task 'avle'"),
        ("    title: a table\n", "", "table t has no title"),
        ("headline: true}", "headline: true}\n      - {method: n, encoder: ave, decoder: dch, "
          "supervision: full, "
         "values: [1], headline: true}", "two headlines for avel ave dch full"),
        ("values: [70.5], ", "", "0 values for 1 column"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_its_place(old, new, message):
    assert old in GOOD
    with pytest.raises(DataError, match=message):
        read_tables(GOOD.replace(old, new))
