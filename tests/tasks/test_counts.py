"""The likelihood of counts against enumeration, its gradient, and the counts that it keeps."""

import itertools
import math

import pytest
import torch

from avplatform.tasks.batch import Processes
from avplatform.tasks.counts import LeastCounts, count_loss, log_counts


def enumerated(p):
    """Probability of every combination of segments: [(which, probability)]."""
    out = []
    for which in itertools.product((0, 1), repeat=len(p)):
        chance = 1.0
        for on, value in zip(which, p, strict=True):
            chance *= value if on else 1 - value
        out.append((which, chance))
    return out


def random_p(segments, seed=0):
    return torch.rand(segments, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one(p, label, least):
    """The loss of one clip and class."""
    return count_loss(p[None, :, None], torch.tensor([[label]]), torch.tensor([[least]]))


@pytest.mark.parametrize("segments", [1, 2, 3, 7, 10])
def test_every_count_is_as_probable_as_by_enumeration(segments):
    p = random_p(segments, segments)
    expected = [0.0] * (segments + 1)
    for which, chance in enumerated(p.tolist()):
        expected[sum(which)] += chance
    found = log_counts(p[None, :, None]).exp().flatten()
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("segments", [1, 4, 10])
def test_the_loss_is_minus_the_log_of_what_the_label_says(segments):
    p = random_p(segments, 3)
    combinations = enumerated(p.tolist())
    for least in range(1, segments + 1):
        chance = sum(q for which, q in combinations if sum(which) >= least)
        assert float(one(p, 1, least)) == pytest.approx(-math.log(chance), rel=1e-6)
    assert float(one(p, 0, 1)) == pytest.approx(-float((1 - p).log().sum()))


@pytest.mark.parametrize("least", [1, 2, 5])
def test_the_gradient_in_a_logit_is_the_probability_minus_the_responsibility(least):
    p = random_p(6, 5)
    logits = p.logit().requires_grad_()
    one(logits.sigmoid(), 1, least).backward()
    combinations = [(w, q) for w, q in enumerated(p.tolist()) if sum(w) >= least]
    total = sum(q for _, q in combinations)
    share = [sum(q for w, q in combinations if w[t]) / total for t in range(6)]
    torch.testing.assert_close(logits.grad, p - torch.tensor(share, dtype=torch.float64))


def test_the_responsibilities_of_an_example():
    logits = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64).logit().requires_grad_()
    loss = one(logits.sigmoid(), 1, 2)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-torch.tensor(0.5).log().item())
    assert (logits.detach().sigmoid() - logits.grad).tolist() == pytest.approx([0.99, 0.91, 0.19])


def test_at_least_none_says_nothing():
    p = random_p(5).requires_grad_()
    loss = one(p, 1, 0)
    loss.backward()
    assert loss == 0 and not p.grad.any()


@pytest.mark.parametrize("values", [[0.0] * 4, [1.0] * 4, [0.0, 1.0, 1.0, 0.5]])
@pytest.mark.parametrize(("label", "least"), [(0, 1), (1, 1), (1, 4)])
def test_certain_segments_have_a_finite_loss_and_gradient(values, label, least):
    p = torch.tensor(values).requires_grad_()
    loss = one(p, label, least)
    loss.backward()
    assert loss.isfinite() and p.grad.isfinite().all()
    sure = values.count(1.0) >= least if label else not any(values)
    assert (float(loss.detach()) < 1e-5) == sure


def test_clips_and_classes_count_alike():
    p = torch.rand(3, 6, 2, dtype=torch.float64)
    labels, least = torch.tensor([[1, 0], [0, 1], [1, 1]]), torch.tensor([[1, 1], [1, 3], [2, 6]])
    each = [one(p[b, :, c], labels[b, c], least[b, c]) for b in range(3) for c in range(2)]
    torch.testing.assert_close(count_loss(p, labels, least), torch.stack(each).mean())


def groups(*sums, segments=4):
    """Segments of one class whose probabilities add up to these sums, one per clip."""
    return [torch.tensor(sums)[:, None, None].expand(-1, segments, 1) / segments]


def test_counts_grow_with_the_probabilities_and_never_fall():
    counts, alone = LeastCounts(), Processes()
    rows = torch.tensor([7, 3])
    assert counts.update(rows, groups(0.5, 2.75), alone).flatten().tolist() == [1, 2]
    assert counts.update(rows, groups(3.2, 1.0), alone).flatten().tolist() == [3, 2]
    assert counts.update(rows.flip(0), groups(4.0, 0.0), alone).flatten().tolist() == [4, 3]


def test_counts_go_through_a_checkpoint():
    counts, alone = LeastCounts(), Processes()
    counts.update(torch.tensor([5, 900]), groups(2.0, 3.0), alone)
    again = LeastCounts()
    again.load_state({name: value.clone() for name, value in counts.state().items()})
    assert again.update(torch.tensor([900]), groups(0.0), alone).flatten().tolist() == [3]
    again.load_state({})
    assert again.state() == {}
