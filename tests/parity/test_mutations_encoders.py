"""A wrong detail of MGN, DHHN or the guides turns its golden cases red."""

from __future__ import annotations

from functools import partial

import torch

from avplatform.models.encoders import dhhn
from avplatform.models.encoders.dhhn import DHHNConfig
from avplatform.models.layers import attention
from avplatform.models.layers.grouping import Grouping
from avplatform.models.official import dhhn as official_dhhn
from avplatform.tasks import losses
from tests.parity.test_mutations import fails, set_eps


def test_groups_with_another_norm_epsilon(monkeypatch):
    set_eps(monkeypatch, Grouping, "eps")
    fails("mgn_grouping")


def test_groups_that_share_out_their_segments_instead_of_the_reverse(monkeypatch):
    real = torch.Tensor.softmax
    monkeypatch.setattr(
        torch.Tensor, "softmax", lambda self, dim: real(self, dim={1: 2}.get(dim, dim))
    )
    fails("mgn_grouping")


def test_groups_with_the_approximate_gelu(monkeypatch):
    real = attention.F.gelu
    monkeypatch.setattr(attention.F, "gelu", lambda x: real(x, approximate="tanh"))
    fails("mgn_grouping")


def test_guided_losses_with_a_wider_clamp(monkeypatch):
    monkeypatch.setattr(losses, "CLAMP", 0.3)
    fails("dhhn_losses")


def test_levels_with_the_input_as_in_the_figure(monkeypatch):
    monkeypatch.setattr(official_dhhn, "DHHNConfig", partial(DHHNConfig, with_input=True))
    fails("dhhn_model")


def test_steps_that_are_repeated_one_after_the_other(monkeypatch):
    def tiled(steps, segments):
        return steps[:, torch.arange(segments) % steps.shape[1]]

    monkeypatch.setattr(dhhn, "repeated", tiled)
    fails("dhhn_model")
