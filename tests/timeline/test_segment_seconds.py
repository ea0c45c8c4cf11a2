"""Videos for models whose segments do not last one second."""

import numpy as np
import pytest
import torch

from avplatform.features.extractor import Extractor
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.decoders.mmil import MMILConfig
from avplatform.models.encoders.han import HANConfig
from avplatform.models.errors import UsageError
from avplatform.timeline.page import summary
from avplatform.timeline.pipeline import PipelineConfig, pipeline
from avplatform.timeline.reading import read_features
from tests.features.clips import beep, render
from tests.features.networks import SMALL, small_weights
from tests.timeline.test_pipeline import FakeExtractor


class OddExtractor(FakeExtractor):
    """Gives each segment its number in the file."""

    segment_seconds = 0.7

    def clip(self, path, start=0.0, seconds=None):
        self.asked.append((start, seconds))
        end = self.seconds if seconds is None else start + seconds
        numbers = np.arange(round(start / 0.7), round(end / 0.7))
        found = super().clip(path, 0, len(numbers))
        self.asked.pop()
        found.audio[:] = numbers[:, None]
        return found


def test_every_segment_of_a_long_file_is_read_once():
    extractor = OddExtractor(210)
    found, _ = read_features(extractor, "x.mp4", duration=210)
    assert found.audio[:, 0].tolist() == list(range(300))
    (_, first), *_, (_, last) = extractor.asked
    assert first == pytest.approx(86 * 0.7) and last is None and len(extractor.asked) == 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model with half-second segments, its weights' files, and a sound of 3.2 s."""
    place = tmp_path_factory.mktemp("halves")
    weights = small_weights(place)
    features = Extractor(SMALL, weights).features
    torch.manual_seed(0)
    config = AVModelConfig(
        task="avvp",
        classes=["tone", "knock"],
        features=features,
        encoder=HANConfig(width=32, hidden=32),
        decoder=MMILConfig(),
        segments=6,
        segment_seconds=0.5,
    )
    render(place / "b.wav", sound=beep(3.2, 1.5, 2.5), sound_codec="pcm_s16le")
    return AVModel(config), weights, place / "b.wav"


def test_a_video_is_cut_into_the_models_segments(made):
    model, weights, sound = made
    found = pipeline(model, weights=weights, config=PipelineConfig(threshold=0.0))(sound)
    assert found.segment_seconds == 0.5 and len(found.scores["audio"]) == 6
    assert found.duration == pytest.approx(3.2, abs=0.05)
    assert {event.onset for event in found.events} == {0.0}
    ends = [event.offset for event in found.events if event.stream == "audio"]
    assert ends == pytest.approx([found.duration] * len(model.config.classes))
    assert "one decision per 0.5 s" in summary(found)


def test_an_extractor_of_other_segments_is_refused(made):
    model, weights, sound = made
    with pytest.raises(UsageError, match=r"last 0.5 s, .* of 1 s; make it with segment_seconds="):
        pipeline(model, extractor=Extractor(SMALL, weights))(sound)
