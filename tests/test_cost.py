"""What models cost: parameters as really built, operations as counted by hand."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from avplatform.catalogue import figures
from avplatform.catalogue.cells import find_cell
from avplatform.catalogue.cost import (
    cost_of,
    flops_per_clip,
    input_shapes,
)
from avplatform.catalogue.counting import MetaCounter
from avplatform.catalogue.figures import cell_cost, cell_totals
from avplatform.config.build import build_task, make_model_config
from avplatform.config.run import default_config
from avplatform.data.adapters.registry import adapter_of_task
from avplatform.models.av_model import AVModel, count_parameters
from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.tasks.registry import TASKS

T, C = 10, 25


def config_of(task, encoder, decoder, supervision=None):
    config = default_config(task, encoder, decoder, supervision)
    return make_model_config(config, build_task(config), adapter_of_task(task).features)


def build(config):
    needs = DECODERS[config.decoder._type].needs_labels
    if DECODERS[config.decoder._type].texts_as_wide(config.decoder):
        plain = dataclasses.replace(config, decoder=DECODERS["mmil"].Config(), label_texts=[])
        with torch.device("meta"):
            config.label_dim = AVModel(plain).encoder.width
    return AVModel(
        config,
        label_embeddings=torch.zeros(len(config.classes), config.label_dim) if needs else None,
    )


def lstm_flops(read: int, width: int) -> int:
    """Per segment, two directions of four gates: a product each with the input and the state."""
    return 2 * T * 2 * 4 * width * (read + width)


@pytest.mark.parametrize("supervision", ["full", "weak"])
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("encoder", ["ave", "psp", "cmbs"])
def test_parameters_are_those_of_a_really_built_model(encoder, decoder, supervision):
    config = config_of("avel", encoder, decoder, supervision)
    model, cost = build(config), cost_of(config)
    assert cost.total_parameters == model.num_parameters
    for part in ("stem", "encoder", "decoder"):
        assert cost.parameters[part] == count_parameters(getattr(model, part))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("encoder", ["han", "mmpyr", "mgn", "dhhn", "temporal", "identity"])
def test_parameters_of_vector_encoders_are_those_of_a_really_built_model(task, encoder):
    for decoder in DECODERS:
        config = config_of(task, encoder, decoder)
        with torch.device("meta"):  # 40 million values need not be drawn to be counted
            assert cost_of(config).total_parameters == build(config).num_parameters


def test_han_with_mmil_costs_what_its_products_add_up_to():
    d = 512
    stem = 2 * T * (128 * d + 2048 * d + 512 * d + 2 * d * d)
    maps = 2 * (4 * d * d)  # query, key, value and output, in self and in cross attention
    attention = 2 * (2 * T * d)  # scores and mixture, a query segment, in both attentions
    encoder = 2 * 2 * T * (maps + attention + 2 * d * d)  # both streams; two feed-forward maps
    decoder = 2 * 2 * T * 3 * d * C
    cost = cost_of(config_of("avvp", "han", "mmil"))
    assert cost.flops == {"stem": stem, "encoder": encoder, "decoder": decoder}
    assert flops_per_clip(config_of("avvp", "han", "mmil")) == stem + encoder + decoder


def test_lstms_count_by_their_formula():
    """On vectors, AVE's encoder is just two LSTMs: a map of one position needs no attention."""
    assert cost_of(config_of("avvp", "ave", "mmil")).flops["encoder"] == lstm_flops(
        128, 128
    ) + lstm_flops(512, 128)
    with torch.device("meta"):
        lstm, x = nn.LSTM(16, 8, batch_first=True, bidirectional=True), torch.zeros(1, T, 16)
    with torch.no_grad(), MetaCounter() as counter:
        lstm(x)
    assert counter.total == lstm_flops(16, 8)


@pytest.mark.parametrize("encoder", ["cmbs", "mgn"])
def test_what_is_looked_up_is_what_torch_counts_and_returns(encoder):
    config = config_of("avel", encoder, "leap")
    with torch.device("meta"):
        model = build(config).eval()
        shapes = input_shapes(config.features, segments=T)
        inputs = [torch.zeros(shapes[name]) for name in ("audio", "visual")]

    def seen(counter):
        with torch.no_grad(), counter:
            parse = model(*inputs).parse
        return {name: (p.values.shape, p.values.dtype) for name, p in parse.predictions.items()}

    plain, first, again = FlopCounterMode(display=False), MetaCounter(), MetaCounter()
    wanted = seen(plain)
    assert seen(first) == seen(again) == wanted
    assert first.total == again.total == plain.get_total_flops() > 0


def test_values_and_tensors_that_are_changed_are_not_looked_up():
    x = torch.zeros(3)  # on the CPU
    with torch.no_grad(), MetaCounter():
        assert (x + 1).tolist() == [1, 1, 1] and (x + 2).tolist() == [2, 2, 2]
        meta = torch.zeros(2, 3, device="meta")
        assert meta.add_(1) is meta and meta.add_(1) is meta
        assert (meta * 2).dtype != (meta > 2).dtype == torch.bool
        assert (meta.sum(dim=0).shape, meta.sum(dim=1).shape) == ((3,), (2,))


def test_ave_on_maps_counts_attention_with_its_einsum():
    p, k, d = 49, 512, 512
    attention = 2 * T * (128 * k + p * d * k + p * k * p + k * p + p * p + p * d)
    lstms = lstm_flops(128, 128) + lstm_flops(512, 128)
    head = 2 * T * (512 * 64 + 64 * 29)
    assert cost_of(config_of("avel", "ave", "dch")).flops == {
        "stem": 0,
        "encoder": attention + lstms,
        "decoder": head,
    }


def test_a_longer_clip_costs_more_and_a_built_model_costs_what_its_config_does():
    config = config_of("avvp", "han", "leap")
    assert (
        flops_per_clip(config, segments=20)
        > flops_per_clip(config)
        == flops_per_clip(build(config))
    )


def test_what_a_decoder_costs_follows_its_options_and_classes():
    config = default_config("avvp", "han", "leap")
    task = build_task(config)
    two = cost_of(make_model_config(config, task, adapter_of_task("avvp").features))
    config.decoder_config.blocks = 4
    four = cost_of(make_model_config(config, task, adapter_of_task("avvp").features))
    assert (
        four.flops["decoder"] > two.flops["decoder"]
        and four.flops["encoder"] == two.flops["encoder"]
    )
    assert four.parameters["decoder"] > two.parameters["decoder"]


def test_the_features_are_those_of_the_real_datasets():
    for adapter in (adapter_of_task("avel"), adapter_of_task("avvp")):
        assert adapter.features == adapter.simulated_spec(adapter.preset()).features
    assert input_shapes(adapter_of_task("avvp").features, segments=10) == {
        "audio": [1, 10, 128],
        "visual": [1, 10, 2048],
        "motion": [1, 10, 512],
    }
    assert set(ENCODERS) >= {"han", "mmpyr", "ave", "psp", "cmbs"}


def test_a_cell_whose_defaults_do_not_fit_the_features_has_no_cost(monkeypatch):
    """`list` shows the others: 8 heads do not divide 12 + 8 numbers, which identity passes on."""
    odd = FeatureSpec(audio_dim=12, visual_dim=8)
    monkeypatch.setattr(type(adapter_of_task("avel")), "features", odd)
    assert cell_cost(find_cell("avel-identity-leap-full")) is None
    assert cell_cost(find_cell("avel-identity-dch-full")) is not None


def test_cells_of_other_packages_are_counted(monkeypatch):
    cell = find_cell("avel-ave-dch-full")
    stored = cell_totals(cell)
    monkeypatch.setattr(figures, "_kept_totals", dict)
    assert cell_totals(cell) == stored == (cell_cost(cell).total_parameters, stored.flops)
