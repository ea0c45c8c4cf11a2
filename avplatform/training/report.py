"""The report of a finished run: results, predictions, plots, and the model folder with its card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avplatform.base.files import write_json
from avplatform.base.machine import describe
from avplatform.base.processes import on_main
from avplatform.config.build import clips_of_bank
from avplatform.data import Data
from avplatform.data.adapters.registry import adapter_of_spec
from avplatform.evaluation.bootstrap import intervals, videos_of
from avplatform.evaluation.evaluate import example_tracks
from avplatform.evaluation.untrained import training_free_answers
from avplatform.hub.cards import render_model_card
from avplatform.hub.folder import PLOTS
from avplatform.labels.bank import ReferenceBank
from avplatform.models.av_model import BANK_FILE
from avplatform.models.config import config_to_dict, options_of
from avplatform.models.files import write_atomic
from avplatform.runs import pictures as plots
from avplatform.runs.predictions import Predictions, predictions_file, save_predictions
from avplatform.runs.results import has_classes, presence_of, results, show
from avplatform.tasks.metrics import Metrics, selection_name

if TYPE_CHECKING:
    from avplatform.training.progress import Progress
    from avplatform.training.setup import Setup


def write_report(
    setup: Setup,
    progress: Progress,
    metrics: dict[str, Metrics],
    *,
    before: dict[str, dict[str, float]] | None = None,
) -> dict[str, Any]:
    """Write model/, predictions/, plots/ and, last, results.json; print and return the results.

    Args:
        setup: the run's setup.
        progress: the run's progress.
        metrics: the metrics of the kept epoch by split.
        before: the figures by split before options of the decisions were picked on validation;
            None: nothing was picked.
    """
    config, best, task = setup.config, progress.best, setup.task
    selecting = metrics["test" if config.select_on == "test" else "validation"]
    metric = task.metric_of(selecting, config.select_by)
    answers = {}
    if not config.held_out:
        answers = training_free_answers(
            setup.data, list(metrics), accelerator=setup.accelerator, note=setup.console.note
        )
    content = results(
        identity=identity_of_run(setup),
        selection={
            "split": config.select_on if config.select_on != "last" else "none",
            "metric": metric,
            **best,
        },
        metrics=metrics,
        headline={split: task.metric_of(values) for split, values in metrics.items()},
        answers=answers,
        extra={
            "presence": presence_of(task, metrics),
            **started(setup),
            **settled(setup, before),
            **({"label_origins": origins} if (origins := task.label_origins()) else {}),
            "training_data": about_data(setup.data),
            "optim": options_of(config.optim),
            "schedule": options_of(config.schedule),
            "parameters": setup.parameters,
            "steps": progress.step,
            "skipped_steps": progress.skipped,
            "epochs": config.epochs,
            "batch_size": config.batch_size,
            "processes": setup.accelerator.num_processes,
            "precision": setup.precision,
            "seconds": {"wall": round(progress.seconds, 1), "cpu": round(progress.cpu_seconds, 1)},
            "environment": describe(),
        },
    )

    def write() -> None:
        analysis = task.analysis()
        if analysis is not None and metrics["test"].timed:
            contributions = analysis.contributions(metrics["test"].state())
            content["confidence"] = intervals(contributions, setup.data.split("test"))
        if config.save_plots:
            try:
                draw(setup, content)
            except Exception as error:  # a failed plot must not lose a trained model
                setup.console.note(f"the plots could not be drawn: {error}")
        write_model(setup, content)
        for split, values in metrics.items():
            videos = videos_of(setup.data.split(split))
            predictions = Predictions.of(values, split=split, about=content, videos=videos)
            save_predictions(predictions, predictions_file(setup.folder.path, split))
        write_json(setup.folder.results_file, content)
        show(setup.console, content, ["validation", "test"])
        if before is not None:
            main = task.metric_of(metrics["test"])
            picked = f"picked on validation: {', '.join(content['settled']['task_config'])}"
            if content["test"] != before["test"]:
                picked += f"; without it {main} was {before['test'][main]:.1f} on test"
            setup.console.note(picked)
        setup.console.note(
            f"kept epoch {best['epoch']} ({selection_name(metric)} {best['value']:.2f} on "
            f"{config.select_on}); training took {content['seconds']['wall']:.0f} s wall time, "
            f"{content['seconds']['cpu']:.0f} s CPU time; everything is in {setup.folder.path}"
        )

    on_main(setup.accelerator, write)
    return content


def identity_of_run(setup: Setup) -> dict[str, Any]:
    """Return what identifies a result: task, encoder, decoder, supervision, data and seed."""
    config = setup.config
    return {
        "task": config.task,
        "encoder": config.encoder,
        "decoder": config.decoder,
        "supervision": config.supervision,
        "preset": config.preset,
        "data": setup.data.name,
        "synthetic": setup.data.synthetic,
        "data_checksum": setup.data.checksum,
        "seed": config.seed,
        **({"held_out": list(config.held_out)} if config.held_out else {}),
    }


def about_data(data: Data) -> dict[str, Any]:
    """Return what a model's card says of the training data beside their name and checksum."""
    store, adapter = data.store, adapter_of_spec(data.store.spec)
    labels = store.spec.provenance.get("labels")
    return {
        "dataset": None if adapter is None else adapter.title,
        "clips": {name: info.rows for name, info in store.manifest.splits.items()},
        "labels": labels if isinstance(labels, str) else None,
        "hub": None if store.hub is None else {"repo": store.hub[0], "revision": store.hub[1]},
    }


def started(setup: Setup) -> dict[str, Any]:
    """Return what the weights started from, or nothing if they started from random numbers."""
    if setup.start is None:
        return {}
    return {"init_from": setup.start.summary() | {"frozen": setup.config.freeze}}


def settled(setup: Setup, before: dict[str, dict[str, float]] | None) -> dict[str, Any]:
    """Return the options that were picked on validation, and the figures without them."""
    if before is None:
        return {}
    given, now = options_of(setup.config.task_config), options_of(setup.task.config)
    changed = {name: value for name, value in now.items() if value != given[name]}
    return {"settled": {"split": "validation", "task_config": changed, "before": before}}


def write_model(setup: Setup, content: dict[str, Any]) -> None:
    """Write model/: config.json, model.safetensors, README.md (the card), plots, perhaps a bank."""
    model, bank = setup.bare_model, make_bank(setup)
    drawn = sorted(setup.folder.plots.glob("*.png")) if setup.config.save_plots else []
    if bank is not None:
        content["bank_clips"] = bank.about["clips"]

    def write(path: Any) -> None:
        path.mkdir(parents=True)
        (path / "README.md").write_text(
            render_model_card(
                content, config_to_dict(model.config), plots=[file.name for file in drawn]
            ),
            encoding="utf-8",
        )
        for file in drawn:
            (path / PLOTS).mkdir(exist_ok=True)
            (path / PLOTS / file.name).write_bytes(file.read_bytes())
        model.save_pretrained(path)
        if bank is not None:
            bank.save(path / BANK_FILE)

    write_atomic(setup.folder.model, write)


def make_bank(setup: Setup) -> ReferenceBank | None:
    """Return the model's bank; None if the run is to make none."""
    config, model = setup.config, setup.bare_model
    clips = clips_of_bank(config, setup.task, model)
    if not clips:
        return None
    was_training, split = model.training, setup.data.split("train")
    try:
        with setup.console.bar("bank", total=len(split)) as bar:
            return ReferenceBank.make(
                model.eval(),
                setup.task,
                split,
                clips=clips,
                checksum=setup.data.checksum,
                batch_size=config.eval_batch_size,
                on_batch=bar.advance,
            )
    except Exception as error:  # a failed bank must not lose a trained model
        setup.console.note(f"the bank could not be made: {error}")
        return None
    finally:
        model.train(was_training)


def draw(setup: Setup, content: dict[str, Any]) -> None:
    """Draw the training curves, the per-class bars and the example timelines into plots/."""
    note = ", ".join(
        [setup.folder.path.resolve().name, *["synthetic features"] * setup.data.synthetic]
    )
    split = setup.data.split("test")
    count = min(6, len(split))
    clips = [len(split) * (2 * i + 1) // (2 * count) for i in range(count)]
    examples = example_tracks(
        setup.bare_model, setup.task, split, clips, accelerator=setup.accelerator
    )
    curves, metric = setup.folder.plots / "curves.png", content["selection"]["metric"]
    epoch = content["selection"]["epoch"]
    plots.curves(setup.folder.metrics_file, curves, metric=metric, selected=epoch, note=note)
    details = content["details"]["test"]
    if has_classes(details):
        plots.per_class_bars(details, setup.folder.plots / "per_class.png", note=note)
    if examples:
        plots.timelines(examples, setup.folder.plots / "timelines.png", note=note)
