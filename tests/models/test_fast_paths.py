"""What a model computes in one go equals the plain formula, in double precision."""

import dataclasses

import pytest
import torch
from torch import nn

from avplatform.models.contracts import Encoding
from avplatform.models.decoders.leap import LEAP
from avplatform.models.decoders.leap_config import LEAPConfig
from avplatform.models.encoders.han import HAN, HANConfig
from avplatform.models.encoders.mmpyr import MMPyrConfig, TemporalBlock
from avplatform.models.layers.attention import PackedAttention, attend
from avplatform.models.layers.spatial_channel_attention import SpatialChannelAttention
from tests.plain.steps import ROWS, PlainLLP, comparable, pair

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def randomised(module):
    """Give every parameter its own values, in double precision (several start equal or at zero)."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return module


def textbook(attention, width, heads):
    other = nn.MultiheadAttention(width, heads, batch_first=True, dtype=torch.float64)
    other.load_state_dict(attention.state_dict())
    return lambda query, memory: other(query, memory, memory)[0]


@pytest.mark.parametrize(("clips", "segments"), [(0, 4), (1, 1), (2, 3), (2, 10), (1, 40)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 4, 16])
def test_a_dilated_convolution_as_products_equals_torchs(clips, segments, kernel, dilation):
    torch.manual_seed(0)
    config = MMPyrConfig(width=6, heads=2, kernel=kernel)
    block = randomised(TemporalBlock(config, dilation=dilation))
    x = random(clips, segments, 6)
    assert block.products
    found = block(x)
    block.products = False
    torch.testing.assert_close(found, block(x), **EXACT)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("heads", [1, 4])
def test_han_in_one_pass_equals_two_attentions_a_stream(norm, heads):
    torch.manual_seed(0)
    config = HANConfig(width=16, hidden=12, heads=heads, norm=norm)
    encoder = randomised(HAN(config=config, audio_dim=16, visual_dim=16)).eval()
    layer = encoder.layers[0]
    own, cross = (textbook(m, 16, heads) for m in (layer.self_attention, layer.cross_attention))
    audio, visual = random(3, 10, 16), random(3, 10, 16)

    def plain(stream, other):
        if norm == "pre":
            query = layer.norm1(stream)
            x = stream + cross(query, other) + own(query, query)
            return x + layer.feedforward(layer.norm2(x))
        x = layer.norm1(stream + cross(stream, other) + own(stream, stream))
        return layer.norm2(x + layer.feedforward(x))

    expected = plain(audio, visual), plain(visual, audio)
    if norm == "pre":
        expected = encoder.final_norm_audio(expected[0]), encoder.final_norm_visual(expected[1])
    found = encoder(audio, visual)
    torch.testing.assert_close(found.audio, expected[0], **EXACT)
    torch.testing.assert_close(found.visual, expected[1], **EXACT)


def test_han_in_one_pass_has_the_gradients_of_two():
    torch.manual_seed(0)
    layer = (
        randomised(HAN(config=HANConfig(width=8, hidden=8), audio_dim=8, visual_dim=8))
        .layers[0]
        .eval()
    )
    audio, visual, weight = random(2, 5, 8), random(2, 5, 8), random(4, 5, 8)
    (layer(torch.cat([audio, visual])) * weight).sum().backward()
    together = {name: p.grad.clone() for name, p in layer.named_parameters()}
    layer.zero_grad()
    (torch.cat([layer(audio, visual), layer(visual, audio)]) * weight).sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, **EXACT)


def test_packed_cross_attention_equals_torchs():
    torch.manual_seed(0)
    attention = randomised(PackedAttention(width=12, heads=3, dropout=0.1)).eval()
    query, memory = random(2, 4, 12), random(2, 7, 12)
    torch.testing.assert_close(
        attention(query, memory), textbook(attention, 12, 3)(query, memory), **EXACT
    )


@pytest.mark.parametrize("masked", [False, True])
def test_the_written_out_attention_equals_torchs(masked):
    torch.manual_seed(0)
    q, k, v = (random(2, 10, 12) for _ in range(3))
    t = torch.arange(10)
    mask = (t[:, None] - t[None, :]).abs() <= 2 if masked else None
    heads = [x.unflatten(-1, (3, 4)).transpose(1, 2) for x in (q, k, v)]
    expected = (
        nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        .transpose(1, 2)
        .flatten(2)
    )
    torch.testing.assert_close(attend(q, k, v, heads=3, mask=mask), expected, **EXACT)


@pytest.mark.parametrize("heads", [1, 4])
def test_leaps_scores_are_the_mean_over_heads(heads):
    torch.manual_seed(0)
    decoder = randomised(
        LEAP(config=LEAPConfig(heads=heads, hidden=8), width=16, label_dim=6)
    ).eval()
    encoding, queries = Encoding(audio=random(2, 10, 16), visual=random(2, 10, 16)), random(5, 16)
    parse, trace = decoder.project(queries, encoding), decoder.trace(queries, encoding)
    for stream in ("audio", "visual"):
        expected = trace[stream][-1]["scores"].mean(dim=1).transpose(1, 2)
        torch.testing.assert_close(getattr(parse.segment, stream).values, expected, **EXACT)


def test_cmbs_attention_equals_its_sums_over_positions():
    torch.manual_seed(0)
    m = randomised(SpatialChannelAttention(audio_dim=6, visual_dim=8, beta=0.4)).eval()
    audio, visual = random(2, 3, 6), random(2, 3, 5, 8)
    a = audio.unsqueeze(2)
    own = m.norm(visual + (m.query(visual) @ m.key(visual).mT).softmax(dim=-1) @ m.value(visual))
    mean = m.self_mean(own.mean(dim=2, keepdim=True)).relu()
    self_weights = m.self_score(m.self_position(own).relu() * mean).tanh().softmax(dim=2)
    joint = (m.channel_audio(a).relu() * m.channel_visual(own).relu()).mean(dim=2)
    channel = m.channel_score(m.bottleneck(joint).relu()).sigmoid()
    scaled = visual * (channel + 1).unsqueeze(2)
    spatial = (
        m.spatial_score(m.spatial_visual(scaled).relu() * m.spatial_audio(a).relu())
        .tanh()
        .softmax(dim=2)
    )
    attended = (spatial * scaled).sum(dim=2)
    attended = attended + 0.4 * (self_weights * own).sum(dim=2).sigmoid() * attended
    found, maps = m(audio, visual)
    torch.testing.assert_close(found, attended, **EXACT)
    torch.testing.assert_close(maps["spatial_attention"], spatial.squeeze(-1), **EXACT)
    torch.testing.assert_close(maps["self_spatial_attention"], self_weights.squeeze(-1), **EXACT)
    torch.testing.assert_close(maps["channel_attention"], channel, **EXACT)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "mmpyr" else n for n in ROWS]
)
def test_the_plain_models_of_the_benchmark_compute_our_functions(name):
    row = dataclasses.replace(ROWS[name], batch=2)
    _, model, plain, batch, labels = pair(row)
    model, plain, batch = (
        model.double().eval(),
        plain.double().eval(),
        batch.to("cpu", torch.float64),
    )
    assert isinstance(plain, PlainLLP) == (batch.motion is not None)
    with torch.no_grad():
        ours = comparable(row, *model(batch.audio, batch.visual, batch.motion))
        theirs = plain(batch, None if labels is None else labels.double())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
