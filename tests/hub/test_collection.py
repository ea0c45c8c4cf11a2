"""All runs of a folder on (a stand-in for) the Hub, with a card that compares them."""

import json

import pytest
import yaml

from avplatform.hub.cards import render_model_card
from avplatform.models.errors import UsageError
from avplatform.sweeps.collection import push_collection
from tests.hub.conftest import RESULTS
from tests.hub.fake_hub import Failure
from tests.hub.test_failures import failed
from tests.hub.test_hub import client, command, done
from tests.models.cells import build


@pytest.fixture
def sweep(tmp_path):
    """Write the folder of a sweep: two seeds of a run, another run, and one that did not finish."""
    folder, model = tmp_path / "sweep", build("avel", "ave", "leap")
    for name, lr, seed, accuracy in (
        ("slow_seed-1", 1e-4, 1, 50.0),
        ("slow_seed-2", 1e-4, 2, 54.0),
        ("fast lr=0.001", 1e-3, 1, 61.5),
    ):
        results = {**RESULTS, "seed": seed, "test": {"accuracy": accuracy}}
        model.save_pretrained(folder / name / "model")
        card = render_model_card(results, model.config.to_dict())
        (folder / name / "model" / "README.md").write_text(card, encoding="utf-8")
        (folder / name / "results.json").write_text(json.dumps(results))
        options = {"task": "avel", "seed": seed, "optim": {"lr": lr}}
        (folder / name / "config.yaml").write_text(yaml.safe_dump(options))
    (folder / "begun").mkdir()
    (folder / "begun" / "config.yaml").write_text("task: avel\n")
    return folder


def test_a_sweep_becomes_repositories_a_card_and_a_collection(hub, sweep, tmp_path):
    told = done(client(hub, tmp_path, command("collection", sweep, "tester/zoo")))
    names = ["tester/zoo-fast-lr-0.001", "tester/zoo-slow_seed-1", "tester/zoo-slow_seed-2"]
    assert set(hub.repos) == {f"models/{name}" for name in ["tester/zoo", *names]}
    assert "not pushed, because it is not finished: begun" in told
    ((_, found),) = hub.collections.items()
    assert [item["id"] for item in found["items"]] == ["tester/zoo", *names]
    assert found["title"] == "zoo" and len(found["description"]) <= 150
    card = hub.repos["models/tester/zoo"].files()["README.md"].decode()
    assert "**Trained on synthetic features**" in card and "synthetic-data" in card
    rows = [line for line in card.splitlines() if line.startswith("| ave + leap")]
    assert rows == [
        f"| ave + leap, optim.lr 0.001 | validation | 61.5 | [1]({hub.url}/{names[0]}) |",
        f"| ave + leap, optim.lr 0.0001 | validation | 52.0 ± 2.8 | "
        f"[1]({hub.url}/{names[1]}), [2]({hub.url}/{names[2]}) |",
    ]
    example = card.split("```python\n")[1].split("```")[0]
    assert done(client(hub, tmp_path, f"{example}print(model.config.task)")).strip() == "avel"


def test_a_collection_that_stopped_goes_on_where_it_was(hub, sweep, tmp_path):
    hub.failures.append(Failure("POST", "zoo-slow_seed-1/commit/", 403))
    line = failed(client(hub, tmp_path, command("collection", sweep, "tester/zoo")))
    assert "1 of 4 repositories are there; run the same command again to go on" in line
    assert not hub.collections and "models/tester/zoo" not in hub.repos
    told = done(client(hub, tmp_path, command("collection", sweep, "tester/zoo")))
    assert told.count(": unchanged") == 1 and told.count(": pushed") == 3
    again = done(client(hub, tmp_path, command("collection", sweep, "tester/zoo")))
    assert again.count(": unchanged") == 4 and len(hub.collections) == 1
    assert all(len(repo.commits) == 2 for repo in hub.repos.values())


def test_a_collection_of_results_has_no_weights(hub, sweep, tmp_path):
    done(client(hub, tmp_path, command("collection", sweep, "tester/zoo", "--results-only")))
    assert not hub.large
    assert b"Weights were not pushed" in hub.repos["models/tester/zoo"].files()["README.md"]


def test_what_is_no_folder_of_runs_is_refused(sweep, tmp_path):
    for folder, name, message in (
        (tmp_path / "nothing", "tester/zoo", "is not a folder"),
        (sweep / "begun", "tester/zoo", "holds no run"),
        (sweep, "zoo", "is not owner/name"),
    ):
        with pytest.raises(UsageError, match=message):
            push_collection(folder, name)
    (sweep / "fast lr 0.001").mkdir()
    for name in ("config.yaml", "results.json"):
        (sweep / "fast lr 0.001" / name).write_bytes((sweep / "fast lr=0.001" / name).read_bytes())
    with pytest.raises(UsageError, match="would both be pushed to tester/zoo-fast-lr-0.001"):
        push_collection(sweep, "tester/zoo")
