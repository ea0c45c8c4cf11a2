"""One cast of an input under autocast changes no bit of what the products of it give.

Gradients of a tensor that is cast once are added in bfloat16, which changes them by less than
bfloat16 does.
"""

import pytest
import torch

from avplatform.models.layers import audio_guided_attention, spatial_channel_attention
from avplatform.models.layers.precision import in_autocast

BLOCKS = {
    "audio-guided": lambda: audio_guided_attention.AudioGuidedAttention(
        audio_dim=6, visual_dim=8, positions=4, width=8
    ),
    "spatial and channel": lambda: spatial_channel_attention.SpatialChannelAttention(
        audio_dim=6, visual_dim=8, beta=0.4, dropout=0.0
    ),
}


def outputs(block, audio, visual, *, half=True):
    """Return the attended vectors and the gradients of all weights."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        attended, _ = block(audio, visual)
    block.zero_grad()
    attended.float().square().sum().backward()
    return [attended, *(weight.grad for weight in block.parameters())]


@pytest.mark.parametrize("name", BLOCKS)
def test_an_input_is_cast_once_with_the_same_results(monkeypatch, name):
    torch.manual_seed(0)
    block, audio, visual = BLOCKS[name](), torch.randn(2, 3, 6), torch.randn(2, 3, 4, 8)
    found = outputs(block, audio, visual)
    for module in (audio_guided_attention, spatial_channel_attention):
        monkeypatch.setattr(module, "in_autocast", lambda x: x)
    plain = outputs(block, audio, visual)
    assert found[0].dtype == torch.bfloat16 and torch.equal(found[0], plain[0])
    exact = outputs(block, audio, visual, half=False)
    for ours, other, true in zip(found, plain, exact, strict=True):
        assert (ours - other).abs().max() <= (other - true).abs().max()


def test_without_autocast_a_tensor_stays_as_it_is():
    x, meta = torch.randn(2), torch.randn(2, device="meta")
    assert in_autocast(x) is x and in_autocast(meta) is meta
    with torch.autocast("cpu", torch.bfloat16):
        assert in_autocast(x).dtype == torch.bfloat16
