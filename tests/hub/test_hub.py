"""Cards are valid and honest; a pushed model loads from the (stand-in for the) Hub with the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from avplatform.data.demo import avvp_clips
from avplatform.data.simulate import llp
from avplatform.hub import card_of_spec, push_run, render_model_card
from models.errors import DataError
from tests.hub.fake_hub import TOKEN, FakeHub
from tests.models.test_models import build, inputs

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = {
    "task": "avel",
    "encoder": "ave",
    "decoder": "leap",
    "supervision": "full",
    "preset": None,
    "data": "demo-avel-1",
    "synthetic": True,
    "data_checksum": "abc",
    "seed": 1,
    "selection": {"split": "validation", "metric": "accuracy", "epoch": 3, "step": 75, "value": 61.25},
    "validation": {"accuracy": 61.25},
    "test": {"accuracy": 59.876},
    "parameters": 1234567,
    "steps": 350,
    "epochs": 14,
    "batch_size": 32,
    "precision": "bf16",
    "environment": {"command": "train.py --task avel"},
}


@pytest.fixture
def hub():
    server = FakeHub()
    yield server
    server.close()


@pytest.fixture
def run(tmp_path):
    model = build("avel", "ave", "leap")
    model.save_pretrained(tmp_path / "run" / "model")
    (tmp_path / "run" / "results.json").write_text(json.dumps(RESULTS))
    return tmp_path / "run"


def client(code, hub, home, *, token=TOKEN):
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env.update(
        HF_ENDPOINT=hub.url,
        HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_HOME=str(home),
        PYTHONPATH=str(ROOT),
    )
    if token:
        env["HF_TOKEN"] = token
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, cwd=home)


def config():
    return build("avel", "ave", "leap").config.to_dict()


def test_the_card_holds_the_results_and_valid_metadata():
    card = ModelCard(render_model_card(RESULTS, config(), repo_id="owner/name"))
    result = card.data.to_dict()["model-index"][0]["results"][0]
    assert result["metrics"] == [{"type": "accuracy", "name": "test accuracy", "value": 59.88}]
    assert card.data.library_name == "avplatform" and "synthetic-data" in card.data.tags
    for text in ('from_pretrained("owner/name")', "| accuracy | 61.25 | 59.88 |", "1,234,567", "More Information Needed"):
        assert (text in card.text) == (text != "More Information Needed")


def test_only_synthetic_data_are_warned_of():
    warned, plain = (render_model_card({**RESULTS, "synthetic": s}, config()) for s in (True, False))
    assert "synthetic features" in warned and "synthetic" not in plain


def test_selection_on_test_is_marked():
    card = render_model_card({**RESULTS, "selection": {**RESULTS["selection"], "split": "test"}}, config())
    assert "selected on the test split" in card


def test_the_dataset_card_says_synthetic():
    clips = avvp_clips({"train": 1})
    assert len(clips.keys) == 1
    card = card_of_spec(llp.spec(llp.LLPSimulation()))
    assert "Synthetic features" in card and "| visual | [10, 2048] |" in card and "Basketball_bounce" in card


def test_a_pushed_run_loads_from_a_fresh_process(hub, run, tmp_path):
    (run / "model" / "README.md").write_text(render_model_card(RESULTS, config()))
    pushed = client(
        f"from avplatform.cli import main; raise SystemExit(main(['push', {str(run)!r}, 'tester/ave-leap']))", hub, tmp_path
    )
    assert pushed.returncode == 0, pushed.stderr[-2000:]
    files = hub.repos["models/tester/ave-leap"]
    assert set(files) >= {"config.json", "model.safetensors", "README.md"}
    assert b'from_pretrained("tester/ave-leap")' in files["README.md"]
    loaded = client(
        "from models.av_model import AVModel; from tests.models.test_models import inputs; import torch; "
        f"torch.set_num_threads({torch.get_num_threads()}); m = AVModel.from_pretrained('tester/ave-leap'); "
        "print(m(*inputs('avel')).parse.segment.av.values.double().flatten().tolist())",
        hub,
        tmp_path,
    )
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    expected = build("avel", "ave", "leap")(*inputs("avel")).parse.segment.av.values.double().flatten().tolist()
    assert json.loads(loaded.stdout) == expected


def test_a_model_pushes_itself(hub, run, tmp_path):
    code = (
        f"from models.av_model import AVModel; m = AVModel.from_pretrained({str(run / 'model')!r}); "
        "m.push_to_hub('tester/plain'); n = AVModel.from_pretrained('tester/plain'); print(n.config == m.config)"
    )
    done = client(code, hub, tmp_path)
    assert done.returncode == 0 and done.stdout.strip().endswith("True"), done.stderr[-2000:]
    assert b"More Information Needed" not in hub.repos["models/tester/plain"]["README.md"]


@pytest.mark.parametrize(
    ("code", "token", "message"),
    [
        ("from models.av_model import AVModel; AVModel.from_pretrained('tester/nothing')", TOKEN, "from the Hub"),
        ("main(['push', RUN, 'tester/x'])", "hf_wrong", "the Hub did not take tester/x"),
    ],
)
def test_a_refusal_is_one_sentence(hub, run, tmp_path, code, token, message):
    (run / "model" / "README.md").write_text("card")
    code = (
        "import sys\nfrom models.errors import AVError\nfrom avplatform.cli import main\n"
        f"RUN = {str(run)!r}\ntry:\n    code = {code.split('; ')[-1]}\nexcept AVError as error:\n    sys.exit(str(error))\n"
        "sys.exit(code)"
    ).replace("AVModel.from", "__import__('models.av_model', fromlist=['x']).AVModel.from")
    done = client(code, hub, tmp_path, token=token)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr[-2000:]


def test_a_hub_out_of_reach_is_one_sentence(run, tmp_path):
    class Closed:
        url = "http://127.0.0.1:9"

    (run / "model" / "README.md").write_text("card")
    done = client(f"from avplatform.cli import main; raise SystemExit(main(['push', {str(run)!r}, 'a/b']))", Closed, tmp_path)
    assert done.returncode == 1 and "the Hub did not take a/b" in done.stderr and "Traceback" not in done.stderr


def test_what_is_no_model_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        push_run(tmp_path / "nothing", "owner/name")
    for name in ("config.json", "model.safetensors", "README.md"):
        with pytest.raises(DataError, match=f"has no {name}"):
            push_run(tmp_path, "owner/name")
        (tmp_path / name).write_text("{}")
