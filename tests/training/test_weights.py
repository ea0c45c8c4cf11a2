"""The running average of the weights, and models whose weights are spread over processes (FSDP)."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import FullyShardedDataParallelPlugin
from torch import nn

from avplatform.cli import main
from avplatform.models.av_model import AVModel
from avplatform.models.errors import DataError
from avplatform.training.weights import (
    WeightAverage,
    is_sharded,
    model_weights,
    optimizer_state,
    put_model_weights,
    put_optimizer_state,
)
from tests import processes

FLAGS = [
    "train",
    "--task",
    "avvp",
    "--batch-size",
    "8",
    "--encoder-config.width",
    "16",
    "--encoder-config.hidden",
    "16",
]
FLAGS += ["--cpu", "--precision", "no", "--threads", "1", "--no-save-plots"]


def weights(folder):
    return AVModel.from_pretrained(folder / "model").state_dict()


def test_the_average_follows_its_formula():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    assert torch.allclose(average.weights()["weight"], expected, atol=1e-6)
    again = WeightAverage(model, 0.9)
    again.load(average.weights(), model)
    assert torch.equal(again.weights()["weight"], average.weights()["weight"])


def test_an_average_of_bf16_weights_is_kept_in_float32():
    average = WeightAverage(nn.Linear(3, 2).bfloat16(), 0.999)
    assert average.weights()["weight"].dtype == torch.float32


def test_a_run_with_an_average_scores_and_keeps_the_average(small_stores, tmp_path, monkeypatch):
    seen = []
    real = WeightAverage.update

    def noting(self, model, step):
        real(self, model, step)
        seen.append((self, {name: p.detach().clone() for name, p in model.named_parameters()}))

    monkeypatch.setattr(WeightAverage, "update", noting)
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--max-steps",
        "3",
        "--ema",
        "0.5",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    assert main(flags) == 0
    average, last = seen[-1]
    kept = weights(tmp_path / "run")
    for name, value in average.weights().items():
        assert torch.equal(kept[name], value)
    assert any(not torch.equal(kept[name], value) for name, value in last.items())
    assert (
        main(
            [
                "eval",
                str(tmp_path / "run"),
                "--json",
                str(tmp_path / "scores.json"),
                "--threads",
                "1",
            ]
        )
        == 0
    )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert json.loads((tmp_path / "scores.json").read_text())["test"] == results["test"]


def test_weights_of_another_model_are_refused():
    with pytest.raises(DataError, match="of another model"):
        put_model_weights(nn.Linear(3, 2), nn.Linear(4, 2).state_dict())


def shard_and_step(rank, *, folder):
    """In each of two processes: shard a model, train, save, load into a fresh sharded model."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))

    def build(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        fully_shard(model, mesh=mesh)
        return model, torch.optim.Adam(model.parameters(), lr=0.1)

    def steps(model, optimizer, numbers):
        for number in numbers:
            torch.manual_seed(100 * number + rank)
            model(torch.randn(5, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    model, optimizer = build(1)
    average = WeightAverage(model, 0.9)
    assert is_sharded(model)
    steps(model, optimizer, range(3))
    average.update(model, 3)
    saved = {k: v.clone() for k, v in model_weights(model).items()}
    moments = {k: v.clone() for k, v in optimizer_state(model, optimizer).items()}
    mean = {k: v.clone() for k, v in average.weights().items()}
    steps(model, optimizer, range(3, 6))
    whole = model_weights(model)

    other, second = build(2)
    put_model_weights(other, saved)
    put_optimizer_state(other, second, moments)
    resumed = WeightAverage(other, 0.9)
    resumed.load(mean, other)
    assert all(torch.equal(resumed.weights()[k], mean[k]) for k in mean)
    steps(other, second, range(3, 6))
    again = model_weights(other)
    assert all(torch.equal(whole[k], again[k]) for k in whole), (
        "a sharded model does not resume exactly"
    )
    assert whole["0.weight"].shape == (8, 4)
    (folder / f"fine-{rank}").touch()
    torch.distributed.destroy_process_group()
    raise SystemExit(0)


def test_a_sharded_model_is_saved_whole_and_resumes_exactly(tmp_path):
    launch = processes.Launch(
        [], tmp_path / "log", processes=2, before=partial(shard_and_step, folder=tmp_path)
    )
    assert launch.wait() == [0, 0], launch.output()
    assert {p.name for p in tmp_path.glob("fine-*")} == {"fine-0", "fine-1"}


def pretend_fsdp(rank):
    """Make Accelerate shard on the CPU as under an FSDP config; it does so on accelerators only."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    real = Accelerator.__init__

    def init(self, *args, **kwargs):
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, reshard_after_forward=True)
        real(self, *args, **kwargs)
        shared = AcceleratorState._shared_state
        shared["distributed_type"], shared["fsdp_plugin"] = DistributedType.FSDP, plugin

    Accelerator.__init__ = init
    from avplatform.training.setup import Setup

    prepare = Setup._prepare

    def preparing(self, model):
        prepare(self, model)
        print("SHARDED", is_sharded(self.trained_model), is_sharded(self.bare_model), flush=True)

    Setup._prepare = preparing


def test_the_config_file_shards_a_model_as_one_unit():
    """Several parts read weights of inner layers, which would be missing if those were units."""
    file = Path(__file__).parents[2] / "accelerate_config.yaml"
    lines = file.read_text(encoding="utf-8").partition("#   distributed_type: FSDP\n")[2]
    options = yaml.safe_load(lines.replace("#   ", ""))["fsdp_config"]
    assert options["fsdp_version"] == 2 and options["fsdp_auto_wrap_policy"] == "NO_WRAP"
    plugin = FullyShardedDataParallelPlugin(auto_wrap_policy=options["fsdp_auto_wrap_policy"])
    assert plugin.auto_wrap_policy is None


def test_a_run_under_fsdp_trains_as_without_it(small_stores, tmp_path):
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--encoder",
        "han",
        "--decoder",
        "mmil",
        "--supervision",
        "weak",
    ]
    flags += [
        "--encoder-config.dropout",
        "0",
        "--max-steps",
        "6",
        "--checkpointing.every",
        "2",
        "--precision",
        "no",
    ]
    processes.run(
        [*flags, "--output-dir", str(tmp_path / "plain")], tmp_path / "plain.log", processes=2
    )
    before = pretend_fsdp
    text = processes.run(
        [*flags, "--output-dir", str(tmp_path / "run")],
        tmp_path / "log",
        processes=2,
        before=before,
    )
    a, b = weights(tmp_path / "plain"), weights(tmp_path / "run")
    assert text.count("SHARDED True False") == 2 and "Traceback" not in text
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name], b[name], atol=1e-5), name
