"""Check planned runs before the first one starts: options, data, models and label embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from avplatform.catalogue.cost import cost_of
from avplatform.config.build import build_task, data_of_run, make_model_config
from avplatform.config.run import RunConfig
from avplatform.data import Data, open_data
from avplatform.models.av_model import without_memory
from avplatform.models.decoders import DECODERS
from avplatform.models.errors import AVError, UsageError
from avplatform.models.texts.sources import open_source
from avplatform.sweeps.sweep import PlannedRun, resolve


def check_runs(runs: Sequence[PlannedRun], *, where: str) -> None:
    """Check every run of a plan; each dataset is opened once, and nothing is trained or built.

    Raises:
        UsageError: the options of a run are wrong, or its data, model and labels do not fit; the
            message names the run.
    """
    opened: dict[tuple[str, str, str | None], Data] = {}
    for run in runs:
        config = resolve(run, where=where)
        try:
            _check(config, opened)
        except AVError as error:
            raise UsageError(f"{where}, run {run.name}: {error}") from None


def _check(config: RunConfig, opened: dict[tuple[str, str, str | None], Data]) -> None:
    key = (config.data, config.task, config.cache_dir)
    if key not in opened:
        opened[key] = open_data(config.data, task=config.task, cache_dir=config.cache_dir)
    task = build_task(config, opened[key].spec)
    data = data_of_run(config, task, opened[key])
    model = make_model_config(config, task, data.spec.features, data.spec)
    without_memory(lambda: cost_of(model))  # this builds the model, so wrong sizes raise here
    if DECODERS[config.decoder].needs_labels:
        open_source(config.labels.embeddings, **config.labels.how)
