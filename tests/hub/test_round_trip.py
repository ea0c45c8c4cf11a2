"""Every cell goes to (a stand-in for) the Hub and comes back bit for bit in a fresh process."""

import hashlib
import json

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from avplatform.data.store.schema import Manifest
from avplatform.hub.cards import render_model_card
from avplatform.hub.push import push_run
from avplatform.models.av_model import AVModel
from tests.hub.conftest import results_of
from tests.hub.test_hub import client, command, done
from tests.models.cells import CELLS, build, inputs

FEW = [("avvp", "mmpyr", "leap"), ("avel", "psp", "dch"), ("ovavel", "temporal", "cosine")]
BRANCH = "first"


def outputs(model, task):
    """Return the predictions of a model for the same random clips, by their names."""
    parse = model(*inputs(task)).parse
    return {
        f"{level}.{stream}": found.values
        for level in ("segment", "video")
        for stream, found in vars(getattr(parse, level)).items()
        if found is not None
    }


def digest(model, task):
    """Return a checksum of all bits that a model predicts."""
    with torch.inference_mode():
        found = outputs(model.eval(), task)
    bits = b"".join(found[name].contiguous().numpy().tobytes() for name in sorted(found))
    return hashlib.sha256(bits).hexdigest()


def step(model, task):
    """Change the weights by one step of gradient descent."""
    values = [p for p in model.parameters() if p.requires_grad]
    if not values:
        return
    sum(value.square().mean() for value in outputs(model.train(), task).values()).backward()
    torch.optim.Adam(values, lr=0.01).step()
    model.zero_grad()


def push(folder, cells):
    """Push each cell after a step to a branch, and after another one to main; print checksums."""
    found = {}
    for cell in cells:
        model, name = build(*cell), "-".join(cell)
        place = folder / name
        for branch in (BRANCH, None):
            step(model, cell[0])
            model.save_pretrained(place / "model")
            card = render_model_card(results_of(*cell), model.config.to_dict())
            (place / "model" / "README.md").write_text(card, encoding="utf-8")
            (place / "results.json").write_text(json.dumps(results_of(*cell)), encoding="utf-8")
            push_run(place, f"tester/{name}", revision=branch)
            found[f"{name}@{branch}"] = digest(model, cell[0])
    print(json.dumps(found))


def load(cells):
    """Load each cell from the Hub by its id and by the branch; print checksums."""
    from avplatform import create_model

    found = {}
    for cell in cells:
        name = "-".join(cell)
        for branch in (BRANCH, None):
            model = AVModel.from_pretrained(f"tester/{name}", revision=branch)
            found[f"{name}@{branch}"] = digest(model, cell[0])
        again = create_model(f"tester/{name}", revision=BRANCH)
        assert digest(again, cell[0]) == found[f"{name}@{BRANCH}"]
    print(json.dumps(found))


def trip(hub, home, cells):
    """Push cells in one process and load them in another; return both processes' checksums."""
    start = (
        "import pathlib, torch; torch.set_num_threads(1)\n"
        f"from tests.hub.test_round_trip import push, load\ncells = {cells!r}\n"
    )
    pushed = done(client(hub, home, f"{start}push(pathlib.Path('runs'), cells)", seconds=3600))
    loaded = done(client(hub, home, f"{start}load(cells)", token=None, seconds=3600))
    return json.loads(pushed.splitlines()[-1]), json.loads(loaded.splitlines()[-1])


def check(hub, home, cells):
    pushed, loaded = trip(hub, home, cells)
    assert loaded == pushed and len(pushed) == 2 * len(cells)
    for cell in cells:
        name = "-".join(cell)
        trained = any(p.requires_grad for p in build(*cell).parameters())
        assert (pushed[f"{name}@{BRANCH}"] != pushed[f"{name}@None"]) == trained, name


def test_a_few_cells_come_back_bit_for_bit_by_id_and_by_revision(hub, tmp_path):
    check(hub, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["avvp", "avel", "ovavel"])
def test_every_cell_comes_back_bit_for_bit_by_id_and_by_revision(hub, tmp_path, task):
    cells = [cell for cell in CELLS if cell[0] == task]
    assert len(cells) > 60
    check(hub, tmp_path, cells)


def test_the_code_of_a_pushed_card_runs_in_a_fresh_process(hub, run, tmp_path):
    done(client(hub, tmp_path, command("push", run, "tester/ave-leap")))
    card = hub.repos["models/tester/ave-leap"].files()["README.md"].decode()
    code = card.partition("```python\n")[2].partition("```")[0]
    assert 'AVModel.from_pretrained("tester/ave-leap")' in code
    shown = "\nprint(sorted(decisions), {k: list(v.shape) for k, v in scores.items()})"
    said = done(client(hub, tmp_path, code + shown, token=None)).splitlines()[-1]
    assert "[1, 10, 29]" in said and "segment" in said
    local = code.replace("tester/ave-leap", str(run / "model"))  # a folder, without a network
    again = done(client(hub, tmp_path, local + shown, token=None, HF_HUB_OFFLINE="1"))
    assert again.splitlines()[-1] == said


@pytest.fixture
def trained(hub, small_stores, tmp_path):
    """Train two steps on data that were pushed, in a process of its own, and push the run."""
    flags = "--task avel --max-steps 2 --batch-size 8 --cpu --threads 1 --precision no"
    commands = [
        ["data", "push", str(small_stores["avel"]), "tester/clips"],
        ["train", *flags.split(), "--data", "tester/clips", "--output-dir", "run"],
        ["push", "run", "tester/model"],
    ]
    code = "from avplatform.cli import main\n" + "".join(
        f"assert main({command!r}) == 0\n" for command in commands
    )
    done(client(hub, tmp_path, code, AVPLATFORM_CACHE="cache", seconds=600))
    return hub.repos["models/tester/model"].files()


def test_a_model_of_the_hub_scores_what_its_card_says(hub, trained, tmp_path):
    card = ModelCard(trained["README.md"].decode())
    stated = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert card.data.datasets == ["tester/clips"] and set(trained) >= {
        f"plots/{name}.png" for name in ("curves", "per_class", "timelines")
    }
    entries = parse_eval_result_entries(yaml.safe_load(trained[".eval_results/avplatform.yaml"]))
    assert {e.task_id: e.value for e in entries} == stated
    assert {e.dataset_id for e in entries} == {"tester/clips"}
    commit = hub.repos["datasets/tester/clips"].resolve("main")
    assert {e.dataset_revision for e in entries} == {commit}
    # By default, a model of the Hub is scored on the data that its card names.
    for flags in ([], ["--data", "tester/clips"]):
        code = command(
            "eval", "tester/model", *flags, "--cpu", "--threads", "1", "--json", "x.json"
        )
        done(client(hub, tmp_path, code, token=None, AVPLATFORM_CACHE="cache"))
        assert json.loads((tmp_path / "x.json").read_text())["test"] == stated
    assert f" | {stated['accuracy']:.2f} | " in card.text


def test_a_pushed_store_is_read_by_datasets_plain_and_streamed(hub, small_stores, tmp_path):
    done(client(hub, tmp_path, command("data", "push", small_stores["avel"], "tester/clips")))
    code = (
        "import json\nfrom datasets import load_dataset\n"
        "plain = load_dataset('tester/clips')\n"
        "stream = load_dataset('tester/clips', streaming=True)\n"
        "def rows(split): return [[r['clip_id'], sum(r['audio']), r['segment']] for r in split]\n"
        "for name in plain:\n    assert rows(plain[name]) == rows(stream[name]), name\n"
        "print(json.dumps({name: len(split) for name, split in plain.items()}))"
    )
    counts = json.loads(done(client(hub, tmp_path, code, token=None)).splitlines()[-1])
    splits = Manifest.read(small_stores["avel"]).splits
    assert counts == {name: info.rows for name, info in splits.items()}
