"""`python -m benchmarks` with tiny benchmarks: rows, checks, JSON, comparison, list, messages."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from benchmarks import report, timing
from benchmarks.__main__ import main
from benchmarks.timing import Bound, Comparison, Row, Side


def tiny(*items: Comparison | Bound, title: str = "part", reason: str = "") -> dict:
    module = ModuleType("tiny", "A benchmark of nothing: `python -m benchmarks tiny`.")
    module.comparisons = lambda setting: {title: lambda: items}  # type: ignore[attr-defined]
    module.left_out = lambda: reason  # type: ignore[attr-defined]
    return {"tiny": module}


def side(name: str = "mine", **options) -> Side:
    return Side(name=name, run=options.pop("run", lambda: sum(range(100))), **options)


def comparison(*sides: Side, **options) -> Comparison:
    return Comparison(title="tiny", plain=lambda: sum(range(1000)), sides=list(sides), **options)


def row(ratio: float, low: float, high: float, **options) -> Row:
    figures = dict(plain=1.0, seconds=1.0, ratio=ratio, low=low, high=high)
    return Row(benchmark="tiny", **{"name": "mine", **figures, **options})


@pytest.fixture(autouse=True)
def no_peaks(monkeypatch):
    monkeypatch.setattr(timing, "peaks", lambda kinds: dict.fromkeys(kinds, 1.0))


@pytest.fixture
def run(tmp_path, capsys):
    def run(*arguments, benchmarks=None):
        code = main(["tiny", "--rounds", "2", *map(str, arguments)], benchmarks)
        return code, capsys.readouterr()

    return run


def test_a_row_has_both_sides_their_ratio_and_what_is_asked_of_it(run, tmp_path):
    equal = side(difference=lambda: 0.5, tolerance=1.0, floor=1e-9, aim=1e9)
    code, said = run("--json", tmp_path / "run.json", benchmarks=tiny(comparison(equal)))
    assert code == 0 and "| mine |" in said.out
    found = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    (only,) = found["rows"]
    assert only["low"] <= only["ratio"] <= only["high"] and only["difference"] == 0.5
    assert Row.of(only).verdict() == "floor" and found["machine"]["torch"]


def test_a_side_whose_results_differ_fails_and_is_not_timed(run):
    def timed():
        raise AssertionError("timed")

    wrong = side("wrong", run=timed, difference=lambda: 2.0, tolerance=1.0)
    code, said = run(benchmarks=tiny(comparison(side(), wrong)))
    assert code == 1
    assert "| wrong |" in said.out and "differs from the baseline by 2.00e+00" in said.out
    assert "failed: tiny: wrong: differs" in said.err and "| mine |" in said.out


@pytest.mark.parametrize("found", ["nan", "inf"])
def test_results_that_are_not_numbers_count_as_different(run, tmp_path, found):
    file, work = tmp_path / "run.json", comparison(side(difference=lambda: float(found)))
    code, _ = run("--json", file, benchmarks=tiny(work))
    assert code == 1
    (only,) = report.read(file).rows
    assert only.verdict() == "FAILED" and found in only.failure


def test_the_sides_take_turns(run):
    order = []
    sides = [side(name, run=lambda name=name: order.append(name)) for name in ("a", "b")]
    work = Comparison(title="tiny", plain=lambda: order.append("plain"), sides=sides)
    run(benchmarks=tiny(work))
    assert order == ["plain", "a", "b"] * 3  # the first round warms up


def test_work_that_times_itself_is_believed(run, tmp_path):
    work = Comparison(title="tiny", plain=lambda: 3.0, sides=[side(run=lambda: 1.5)], clock="own")
    run("--json", tmp_path / "run.json", benchmarks=tiny(work))
    assert report.read(tmp_path / "run.json").rows[0].ratio == 2.0


def test_a_share_of_the_peak_is_shown_for_work_that_is_counted(run, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "GEMM", 8)
    timing.probe.cache_clear()
    run("--json", tmp_path / "run.json", benchmarks=tiny(comparison(side(work=100.0))))
    timing.probe.cache_clear()
    (only,) = report.read(tmp_path / "run.json").rows
    assert only.share > 0 and "GF/s" in only.reached


@pytest.mark.parametrize(("value", "verdict"), [(1.0, "met"), (3.0, "MISSED")])
def test_a_bound_says_whether_it_is_kept(run, value, verdict):
    bound = Bound(name="memory", value=value, unit="batches", most=2.0)
    code, said = run(benchmarks=tiny(bound))
    assert code == 0 and verdict in said.out and "at most 2 batches" in said.out


def test_a_run_compares_with_itself(run, tmp_path):
    benchmarks = tiny(comparison(side()))
    run("--json", tmp_path / "run.json", benchmarks=benchmarks)
    _, said = run("--compare", tmp_path / "run.json", benchmarks=benchmarks)
    assert report.COMPARED in said.out and "| mine | x" in said.out.split(report.COMPARED)[1]


@pytest.mark.parametrize(
    ("then", "now", "word", "worse"),
    [
        (row(2.0, 1.9, 2.1), row(1.5, 1.4, 1.6), "WORSE", ["mine"]),
        (row(2.0, 1.9, 2.1), row(1.8, 1.6, 2.05), "within the spread", []),
        (row(2.0, 1.4, 2.1), row(1.5, 1.4, 1.6), "within the spread", []),
        (row(1.5, 1.4, 1.6), row(2.0, 1.9, 2.1), "better", []),
        (row(2.0, 1.9, 2.1), Row(benchmark="tiny", name="mine", failure="x"), "FAILED", ["mine"]),
    ],
)
def test_a_row_is_worse_only_beyond_the_spread_of_both_runs(then, now, word, worse):
    lines, found = report.compared([then], [now])
    assert len(lines) == 1 and word in lines[0] and found == worse


def test_rows_of_one_run_alone_are_named():
    lines, worse = report.compared([row(2.0, 1.9, 2.1)], [row(1.0, 1.0, 1.0, name="new")])
    assert worse == [] and "only in this run" in lines[0] and "not in this run" in lines[1]


def test_a_worse_row_ends_the_program_with_1(run, tmp_path):
    file = tmp_path / "then.json"
    then = row(1e9, 1e9, 1e9)
    report.write(timing.Results(machine={}, rounds=1, rows=[then]), file)
    code, said = run("--compare", file, benchmarks=tiny(comparison(side())))
    assert code == 1 and "worse beyond the spread: mine" in said.err


MACHINE = {"cpu": "One", "cores": "2", "threads": "1", "torch": "2.14.1"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cpu": "Other"}, "note: other processor: One then, Other now"),
        ({"threads": "2"}, "note: other threads: 1 then, 2 now"),
        ({"torch": "2.13.0"}, "note: other torch: 2.14.1 then, 2.13.0 now"),
        ({"load": [3.0]}, None),
    ],
)
def test_other_conditions_of_two_runs_are_told(changed, said):
    then = timing.Results(machine=MACHINE, rounds=5)
    now = timing.Results(machine={**MACHINE, **changed}, rounds=5)
    assert report.conditions(then, now) == ([said] if said else [])


def test_conditions_are_told_before_the_comparison(run, tmp_path):
    file = tmp_path / "then.json"
    report.write(timing.Results(machine={}, rounds=7, rows=[row(1.0, 0.9, 1.1)]), file)
    _, said = run("--compare", file, benchmarks=tiny(comparison(side())))
    before, _ = said.out.split(report.COMPARED)
    assert "note: other rounds: 7 then, 2 now" in before
    assert "note: other threads: not stated then, 1 now" in before


def broken(*_):
    raise RuntimeError("out of\n memory")


def test_a_part_that_fails_is_named_and_the_others_go_on(run, tmp_path):
    file, module = tmp_path / "run.json", tiny()
    parts = {"first": (comparison(side("a")),), "second": (comparison(side("b", run=broken)),)}
    parts |= {"third": (comparison(side("c")),)}
    module["tiny"].comparisons = lambda setting: {
        title: lambda items=items: items for title, items in parts.items()
    }
    code, said = run("--json", file, benchmarks=module)
    assert code == 1 and "| a |" in said.out and "| c |" in said.out
    assert "failed: tiny: second: RuntimeError: out of memory\n" in said.err
    assert [row.verdict() for row in report.read(file).rows] == ["", "FAILED", ""]


def test_a_benchmark_that_cannot_begin_is_named_and_the_others_go_on(tmp_path, capsys):
    modules = {"bad": ModuleType("bad"), **tiny(comparison(side()))}
    modules["bad"].comparisons = broken
    assert main(["bad", "tiny", "--rounds", "1"], modules) == 1
    said = capsys.readouterr()
    assert "| mine |" in said.out and "failed: bad: bad: RuntimeError: out of memory" in said.err


def test_rows_are_written_as_they_come(run, tmp_path):
    file = tmp_path / "run.json"

    def stopped():
        assert [row.name for row in report.read(file).rows] == ["mine"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            "--json",
            file,
            benchmarks=tiny(comparison(side()), comparison(side("late", run=stopped))),
        )
    assert [row.name for row in report.read(file).rows] == ["mine"]


@pytest.mark.parametrize("text", ["", "[1]", '{"rows": [{"name": "x"}]}'])
def test_a_file_that_is_not_a_run_is_named(run, tmp_path, text):
    file = tmp_path / "then.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"then.json cannot be compared with"):
        run("--compare", file, benchmarks=tiny())


def test_rows_of_bf16_are_left_out_with_a_note_where_the_cpu_lacks_it(run, monkeypatch):
    monkeypatch.setattr("avplatform.base.machine.cpu_has_bf16", lambda: False)
    seen = []
    module = tiny()
    module["tiny"].comparisons = lambda setting: seen.append(setting.bf16) or {}
    _, said = run(benchmarks=module)
    assert seen == [False] and "note: rows of bf16 are left out" in said.out


def test_a_benchmark_can_say_that_this_machine_lacks_what_it_needs(run):
    _, said = run(benchmarks=tiny(comparison(side()), reason="it needs two cores"))
    assert "note: tiny is left out: it needs two cores" in said.out and "| mine |" not in said.out


def test_parts_are_chosen_by_their_names(run):
    _, said = run("--only", "par", benchmarks=tiny(comparison(side())))
    assert "| mine |" in said.out
    with pytest.raises(SystemExit):
        run("--only", "other", benchmarks=tiny(comparison(side())))


def test_a_place_that_cannot_be_written_is_refused_before_any_work(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("--json", tmp_path / "none" / "run.json", benchmarks=tiny(comparison(side())))
    said = capsys.readouterr()
    assert "there is no folder" in said.err and "| mine |" not in said.out


def test_the_list_tells_benchmarks_from_programs(capsys):
    assert main(["--list"]) == 0
    speed, others = capsys.readouterr().out.split("other programs")
    assert all(name in speed for name in ("training_step", "metrics", "latency", "scale"))
    assert "systems" in others and "training_step" not in others and "gpu" in others


@pytest.mark.parametrize(
    ("name", "hint"),
    [("zero_shot", "run it as python -m benchmarks.zero_shot"), ("zer", "choose from ")],
)
def test_an_unknown_name_gets_a_hint(capsys, name, hint):
    with pytest.raises(SystemExit):
        main([name])
    assert hint in capsys.readouterr().err
