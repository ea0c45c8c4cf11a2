"""What picking the epoch on test adds, counted by hand."""

import json

import pytest

from avplatform.evaluation.selection import both_splits, selection_bias, selection_report
from avplatform.models.errors import DataError


def records(values, event="epoch", split="validation"):
    return [
        {
            "event": event,
            "split": split,
            "epoch": e,
            "step": 2 * e,
            "loss": 1.0,
            "accuracy": a,
            "other": a / 2,
        }
        for e, a in enumerate(values, start=1)
    ]


def test_the_difference_is_that_of_two_picks():
    found = selection_bias(
        records([50.0, 70.0, 60.0]), records([40.0, 55.0, 58.0]), metric="accuracy"
    )
    assert found["picked_on_validation"] == {"epoch": 2, "accuracy": 55.0, "other": 27.5}
    assert found["picked_on_test"] == {"epoch": 3, "accuracy": 58.0, "other": 29.0}
    assert found["added"] == {"accuracy": 3.0, "other": 1.5} and found["epochs"] == 3


@pytest.mark.parametrize(("ties", "epoch"), [("latest", 3), ("first", 1)])
def test_ties_go_as_in_the_run(ties, epoch):
    found = selection_bias(
        records([70.0, 60.0, 70.0]), records([1.0, 2.0, 3.0]), metric="accuracy", ties=ties
    )
    assert found["picked_on_validation"]["epoch"] == epoch


def test_several_figures_pick_the_epoch_by_their_mean():
    validation = records([50.0, 70.0, 60.0])
    for record, other in zip(validation, (90.0, 0.0, 70.0), strict=True):
        record["other"] = other  # the means are 70, 35 and 65
    test = records([40.0, 55.0, 58.0], event="test_epoch", split="test")
    found = selection_bias(validation, test, metric="accuracy+other")
    assert found["picked_on_validation"]["epoch"] == 1 and found["picked_on_test"]["epoch"] == 3
    assert found["picked_on_test"]["accuracy+other"] == (58.0 + 29.0) / 2
    assert found["added"] == {"accuracy+other": 13.5, "accuracy": 18.0, "other": 9.0}


def test_only_epochs_with_both_scores_count():
    found = selection_bias(records([50.0, 60.0, 90.0]), records([1.0, 2.0]), metric="accuracy")
    assert found["epochs"] == 2 and found["picked_on_validation"]["epoch"] == 2


def test_runs_are_read_and_summed_up(tmp_path):
    for name, test in (("a", [40.0, 42.0]), ("b", [44.0, 40.0])):
        (tmp_path / name).mkdir()
        lines = [*records([50.0, 49.0]), *records(test, event="test_epoch", split="test")]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    found = selection_report([tmp_path / "a", tmp_path / "b"], metric="accuracy")
    assert (
        found["summary"]["picked_on_validation"]["mean"] == 42.0
        and found["summary"]["picked_on_test"]["mean"] == 43.0
    )
    assert found["summary"]["added"] == {"mean": 1.0, "spread": pytest.approx(2**0.5), "runs": 2}


def test_runs_that_scored_one_split_are_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(records([50.0])[0]) + "\n")
    with pytest.raises(DataError, match=f"{tmp_path}.*--score-test"):
        selection_report([tmp_path], metric="accuracy")
    assert both_splits(records([1.0], split="test")) == (
        [],
        [],
    )  # selected on test: these are no validation scores
