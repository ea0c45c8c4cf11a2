"""Models on (a stand-in for) the Hub: loaded bit for bit as pushed; failures are one sentence."""

import json
from pathlib import Path

import pytest
import torch

from avplatform.data import open_data
from avplatform.data.store.card import render_dataset_card
from avplatform.data.store.schema import Manifest
from avplatform.hub.eval_results import eval_text
from avplatform.hub.folder import model_folder
from avplatform.hub.push import push_run
from avplatform.hub_cards.render import PLACEHOLDER
from avplatform.models.errors import DataError
from tests.forked import run_forked
from tests.hub.conftest import HUB_DATA, RESULTS
from tests.hub.fake_hub import TOKEN, FakeRepo, environment
from tests.models.cells import build, inputs

WHOLE = {"config.json", "model.safetensors", "README.md"}
OUTPUT = (
    "from tests.models.cells import inputs\n"
    f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
    "def output(model): "
    "return model(*inputs('avel')).parse.segment.av.values.double().flatten().tolist()\n"
)


NO_PAUSE = "import time\nreal = time.sleep\ntime.sleep = lambda seconds: real(min(seconds, 0.01))\n"


def client(hub, home, code, *, token=TOKEN, seconds=120, **env):
    """Run code in a fresh process that takes the stand-in for the Hub, and makes no long pauses."""
    env = environment(hub, home, token=token) | env
    return run_forked(NO_PAUSE + code, env=env, cwd=home, timeout=seconds)


def command(*args):
    return f"from avplatform.cli import main; raise SystemExit(main({[str(a) for a in args]!r}))"


def done(process):
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout


def test_a_pushed_run_loads_from_a_fresh_process_with_the_same_outputs(hub, run, tmp_path):
    done(client(hub, tmp_path, command("push", run, "tester/ave-leap")))
    repo = hub.repos["models/tester/ave-leap"]
    assert set(repo.files()) == WHOLE and len(repo.commits) == 2  # the empty one, and one push
    assert b'from_pretrained("tester/ave-leap")' in repo.files()["README.md"]
    assert PLACEHOLDER.encode() not in repo.files()["README.md"]
    assert PLACEHOLDER in (run / "model" / "README.md").read_text()
    code = (
        f"{OUTPUT}from avplatform.models.av_model import AVModel\n"
        "print(output(AVModel.from_pretrained('tester/ave-leap')))"
    )
    loaded = json.loads(done(client(hub, tmp_path, code, token=None)))
    expected = (
        build("avel", "ave", "leap")(*inputs("avel"))
        .parse.segment.av.values.double()
        .flatten()
        .tolist()
    )
    assert loaded == expected


def test_a_card_that_was_edited_is_pushed_as_it_is(hub, run, tmp_path):
    card = run / "model" / "README.md"
    card.write_text(card.read_text() + "\nA word by hand.\n")
    done(client(hub, tmp_path, command("push", run / "model", "tester/edited")))
    assert hub.repos["models/tester/edited"].files()["README.md"].endswith(b"\nA word by hand.\n")


def test_a_push_to_a_branch_leaves_main_alone(hub, run, tmp_path):
    code = (
        "from avplatform.cli import main\n"
        f"assert main(['push', {str(run)!r}, 'tester/x', '--revision', 'second']) == 0\n"
        "from avplatform.models.av_model import AVModel\n"
        "AVModel.from_pretrained('tester/x', revision='second')"
    )
    done(client(hub, tmp_path, code))
    repo = hub.repos["models/tester/x"]
    assert set(repo.files("second")) == WHOLE and repo.files("main") == {}


def test_a_private_push_is_private(hub, run, tmp_path):
    hub.repos["models/tester/open"] = FakeRepo("tester/open")
    done(client(hub, tmp_path, command("push", run, "tester/secret", "--private")))
    assert (
        hub.repos["models/tester/secret"].private
        and set(hub.repos["models/tester/secret"].files()) == WHOLE
    )
    refused = client(hub, tmp_path, command("push", run, "tester/open", "--private"))
    assert refused.returncode == 2 and "exists and is public" in refused.stderr
    assert hub.repos["models/tester/open"].files() == {}


def test_the_same_weights_are_uploaded_once_and_a_hub_id_is_a_model_folder(hub, run, tmp_path):
    code = (
        "from avplatform.hub.push import model_folder, push_run\n"
        f"push_run({str(run)!r}, 'tester/x')\n"
        "push_run('tester/x', 'tester/copy')\nprint(model_folder('tester/copy'))"
    )
    folder = Path(done(client(hub, tmp_path, code)).strip())
    assert {path.name for path in folder.iterdir()} == WHOLE and len(hub.large) == 1
    assert (
        hub.repos["models/tester/copy"].files()["config.json"]
        == (run / "model" / "config.json").read_bytes()
    )


def test_a_model_pushes_itself(hub, run, tmp_path):
    code = (
        f"{OUTPUT}from avplatform.models.av_model import AVModel\n"
        f"m = AVModel.from_pretrained({str(run / 'model')!r})\n"
        "m.push_to_hub('tester/plain')\n"
        "print(output(AVModel.from_pretrained('tester/plain')) == output(m))"
    )
    assert done(client(hub, tmp_path, code)).strip().endswith("True")
    card = hub.repos["models/tester/plain"].files()["README.md"]
    assert b"library_name: avplatform" in card and b"More Information Needed" not in card


def test_valid_evaluation_results_go_along_and_others_are_refused(hub, run, tmp_path):
    folder = run / "model" / ".eval_results"
    folder.mkdir()
    (folder / "x.yaml").write_text(
        "- dataset: {id: owner/benchmark, task_id: default}\n  value: 59.876\n"
    )
    done(client(hub, tmp_path, command("push", run, "tester/x")))
    assert set(hub.repos["models/tester/x"].files()) == WHOLE | {".eval_results/x.yaml"}
    (run / "results.json").write_text(json.dumps({**RESULTS, **HUB_DATA}))
    done(client(hub, tmp_path, command("push", run, "tester/x")))
    files = hub.repos["models/tester/x"].files()
    assert files[".eval_results/avplatform.yaml"].decode() == eval_text({**RESULTS, **HUB_DATA})
    assert ".eval_results/x.yaml" in files
    for wrong in ("- value: 1\n", "a: [\n", "just text\n", ""):
        (folder / "x.yaml").write_text(wrong)
        with pytest.raises(DataError, match="does not hold valid evaluation results"):
            push_run(run, "tester/x")


def test_a_store_goes_to_the_hub_and_comes_back(hub, small_stores, tmp_path):
    manifest = Manifest.read(small_stores["avel"])
    (tmp_path / "README.md").write_text(render_dataset_card(manifest, repo_id="tester/store"))
    code = (
        "import json\nfrom huggingface_hub import HfApi\nfrom datasets import load_dataset\n"
        "from avplatform.data import open_data\n"
        "api, place = HfApi(), {'repo_id': 'tester/store', 'repo_type': 'dataset'}\n"
        "api.create_repo(**place)\n"
        f"api.upload_folder(folder_path={str(small_stores['avel'])!r}, "
        "allow_patterns=['*.parquet', '*.json'], **place)\n"
        f"api.upload_file(path_or_fileobj={str(tmp_path / 'README.md')!r}, "
        "path_in_repo='README.md', **place)\n"
        "data = open_data('tester/store', task='avel')\n"
        "total = float(data.split('test').batch(range(3)).audio.double().sum())\n"
        "counts = {name: sum(1 for _ in split) "
        "for name, split in load_dataset('tester/store', streaming=True).items()}\n"
        "print(json.dumps([data.checksum, total, counts]))"
    )
    cache = {"AVPLATFORM_CACHE": str(tmp_path / "cache")}
    checksum, total, counts = json.loads(
        done(client(hub, tmp_path, code, **cache)).strip().splitlines()[-1]
    )
    here = (
        open_data(small_stores["avel"], task="avel")
        .split("test")
        .batch(range(3))
        .audio.double()
        .sum()
    )
    assert (checksum, total) == (manifest.checksum, float(here))
    assert counts == {name: split.rows for name, split in manifest.splits.items()}


@pytest.mark.parametrize(
    ("token", "env", "message"),
    [
        (None, {}, "no valid token (401)"),
        (TOKEN, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "could not be reached"),
        (TOKEN, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
    ids=["no token", "refused connection", "offline"],
)
def test_a_refused_push_is_one_sentence(hub, run, tmp_path, token, env, message):
    process = client(hub, tmp_path, command("push", run, "tester/x"), token=token, **env)
    assert process.returncode == 1
    (line,) = process.stderr.strip().splitlines()
    assert (
        line.startswith("error: the Hub did not take tester/x: ")
        and message in line
        and len(line) < 400
    )
    assert not hub.repos


def test_a_dataset_that_is_not_on_the_machine_says_so_offline(hub, tmp_path):
    process = client(hub, tmp_path, command("data", "verify", "tester/nothing"), HF_HUB_OFFLINE="1")
    assert process.returncode == 1
    assert (
        process.stderr.strip()
        .splitlines()[-1]
        .endswith("cannot be read from the Hub: HF_HUB_OFFLINE is set; unset it")
    )


def test_wrong_tokens_and_names_are_one_sentence(hub, run, tmp_path):
    code = (
        "from avplatform.models.errors import DataError\n"
        "from avplatform.hub.push import model_folder, push_run\n"
        "from avplatform.models.av_model import AVModel\n"
        "def failing(call, *args, **kwargs):\n"
        "    try:\n        call(*args, **kwargs)\n"
        "    except DataError as error:\n        print(error)\n"
        f"failing(push_run, {str(run)!r}, 'tester/x', token='hf_wrong')\n"
        f"failing(push_run, {str(run)!r}, 'no such/name!')\n"
        f"failing(push_run, {str(run)!r}, 'tester/x', revision='a b')\n"
        "failing(model_folder, 'tester/nothing')\n"
        "failing(AVModel.from_pretrained, 'tester/nothing')\n"
    )
    token, name, branch, unknown, unknown_model = done(client(hub, tmp_path, code)).splitlines()
    assert "tester/x" in token and "no valid token (401)" in token
    assert "no such/name!" in name and "give owner/name" in name
    assert "tester/x" in branch and "422" in branch
    assert "tester/nothing" in unknown and "no such repository (404)" in unknown
    assert "tester/nothing" in unknown_model


def test_a_card_that_the_hub_refuses_is_said(hub, run, tmp_path):
    result = {
        "task": {"type": "x"},
        "dataset": {"type": "x", "name": "x"},
        "metrics": [{"type": "x", "value": "high"}],
    }
    for results, message in (
        ([{"metrics": []}], "README.md are not valid (Invalid `model_index`"),
        ([result], "has a metric without type or number"),
    ):
        index = {"model-index": [{"name": "x", "results": results}]}
        text = f"---\n{json.dumps(index)}\n---\n"
        (run / "model" / "README.md").write_text(text, encoding="utf-8")
        process = client(hub, tmp_path, command("push", run, "tester/x"))
        assert process.returncode == 1 and message in process.stderr
        assert "Traceback" not in process.stderr


def test_a_push_asks_for_the_repository_once(hub, run, tmp_path):
    done(client(hub, tmp_path, command("push", run, "tester/secret", "--private")))
    asked = [path for method, path, _ in hub.requests if method == "GET"]
    assert asked.count("/api/models/tester/secret") == 1


def test_the_pictures_of_a_run_go_along(hub, run, tmp_path):
    (run / "model" / "plots").mkdir()
    (run / "model" / "plots" / "curves.png").write_bytes(b"a picture")
    done(client(hub, tmp_path, command("push", run, "tester/x")))
    done(client(hub, tmp_path, command("push", "tester/x", "tester/copy")))
    for name in ("x", "copy"):
        files = hub.repos[f"models/tester/{name}"].files()
        assert set(files) == {*WHOLE, "plots/curves.png"}


def test_what_is_no_model_folder_is_refused(tmp_path):
    for name in (tmp_path / "nothing", "nothing", "a/b/c"):
        with pytest.raises(DataError, match="no model folder"):
            push_run(name, "owner/name")
    for name in ("config.json", "model.safetensors", "README.md"):
        with pytest.raises(DataError, match=f"has no {name}"):
            push_run(tmp_path, "owner/name")
        (tmp_path / name).write_text("{}")


def test_a_run_that_did_not_finish_is_told_to_go_on(tmp_path):
    (tmp_path / "config.yaml").write_text("task: avel\n")
    with pytest.raises(DataError, match="did not finish; go on with --resume"):
        model_folder(tmp_path)


def test_a_run_and_its_model_folder_are_the_same_model(run):
    assert (
        model_folder(run)
        == model_folder(run / "model")
        == model_folder(str(run / "model"))
        == run / "model"
    )
