"""Classes that are held out of training, and the zero-shot evaluation of a LEAP model on them.

In training without a class, its label text is not queried, its column is removed from the labels of
training, validation and test, and clips without any other event are left out. Clips with other
events stay, without the label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from avplatform.data import Data
from avplatform.data.reading.restricted import RestrictedData
from avplatform.data.store.schema import BACKGROUND, events
from avplatform.labels.assumed import Assumed
from avplatform.models.av_model import AVModel
from avplatform.models.contracts import Output
from avplatform.models.errors import UsageError, unknown_name
from avplatform.tasks.contracts import Task

if TYPE_CHECKING:
    from avplatform.labels.unseen import WithBank


def with_others(task: Task, held_out: Sequence[str]) -> Task:
    """Return the task with all classes except those in `held_out`.

    Raises:
        UsageError: a class is unknown, or no class is left.
    """
    if not held_out:
        return task
    gone = set(find_classes(task, held_out))
    names, texts = events_of_task(task)
    kept = [(name, text) for name, text in zip(names, texts, strict=True) if name not in gone]
    if not kept:
        raise UsageError("held_out names all classes; leave some to train on")
    return task.with_classes([name for name, _ in kept], [text for _, text in kept])


def data_for(data: Data, task: Task) -> Data:
    """Return the data with the labels of the task's classes only, unchanged if it has no others."""
    if set(task.classes) < set(data.spec.classes):
        return RestrictedData(data, events(task.classes))
    return data


def zero_shot(
    model: AVModel,
    task: Task,
    data: Data,
    held_out: Sequence[str],
    *,
    among: str,
    source: str | None,
    assumed: Assumed = "plain",
    asked: bool = False,
) -> tuple[WithLabels | WithBank, Task, Data, dict[str, Any]]:
    """Return the model, task and data that score a model on classes by their label texts.

    The fourth value is what the results must record about the evaluation.

    Args:
        model: a model with LEAP.
        task: the task with all its classes.
        data: the data with all their classes.
        held_out: the classes to score; clips with other events only are left out, and so are clips
            that were collected for other events, where the data say that.
        among: "held-out" to choose among these classes only, "all" to choose among all.
        source: the source of label embeddings; default: the model's own.
        assumed: what the model's bank assumes of classes that it was never trained on.
        asked: whether somebody asked for the bank, so that doing without is an error.

    Raises:
        UsageError: a class is unknown, or the model cannot look for labels that it was not trained
            on.
        DataError: the model's bank is damaged, or was made for another model.
    """
    from avplatform.labels.open import embed_labels, never_trained_on
    from avplatform.labels.unseen import calibrated

    chosen = find_classes(task, held_out)
    decoder, encoder = model.config.decoder._type, model.config.encoder._type
    names, texts = events_of_task(task, decoder, encoder)
    kept = [(n, t) for n, t in zip(names, texts, strict=True) if among == "all" or n in chosen]
    narrow = task.with_classes([name for name, _ in kept], [text for _, text in kept])
    found = embed_labels(model, narrow.model_classes(decoder, encoder)[1], source=source)
    known = set(model.config.classes) - set(never_trained_on(model.config, model.config.classes))
    trained = [name for name in chosen if name in known]
    about = {"held_out": chosen, "among": among, "trained_on": trained, "zero_shot": not trained}
    names = [name for name, _ in kept]
    restricted = RestrictedData(data, names, holding=chosen)
    parser = calibrated(model, narrow, found.values, names, assumed=assumed, asked=asked)
    if parser is None:
        return WithLabels(model, found.values), narrow, restricted, about
    about["bank"] = parser.about
    return parser, narrow, restricted, about


def without(
    task: Task, data: Data, held_out: Sequence[str], *, model: AVModel | None = None
) -> Data:
    """Return the data with all labels of a task and the clips that hold only other classes.

    Args:
        task: the task with all its classes.
        data: the data with all their classes.
        held_out: classes that no clip holds; each clip holds another one.
        model: a model; no clip holds a class that it was never trained on either.
    """
    from avplatform.labels.open import never_trained_on

    names = events(task.classes)
    gone = set(find_classes(task, held_out))
    if model is not None:
        gone |= set(never_trained_on(model.config, names))
    others = [name for name in names if name not in gone]
    return RestrictedData(data, names, holding=others, without=sorted(gone))


class WithLabels(nn.Module):
    """A model that looks for given labels instead of its own."""

    labels: Tensor

    def __init__(self, model: AVModel, labels: Tensor) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.register_buffer("labels", labels)

    def forward(self, audio: Tensor, visual: Tensor, motion: Tensor | None = None) -> Output:
        """Parse clips with the given labels."""
        return self.model(audio, visual, motion, label_embeddings=self.labels)


def find_classes(task: Task, names: Iterable[str]) -> list[str]:
    """Return classes of a task by their names, in the order of the task.

    Names are accepted in upper or lower case, with _ or spaces, and up to the first comma.

    Raises:
        UsageError: a name is unknown (the message suggests the nearest one), or is given twice.

    Examples:
        >>> from avplatform.tasks.avel import AVEL, AVELConfig
        >>> task = AVEL(AVELConfig(), classes=["Bark", "Violin, fiddle"])
        >>> find_classes(task, ["violin", "Bark"])
        ['Bark', 'Violin, fiddle']
    """
    known: dict[str, str] = {}
    for name in events(task.classes):
        for short in (name.split(",")[0], name):
            known[_plain(short)] = name
    found = []
    for name in names:
        if _plain(name) not in known:
            raise unknown_name("class", name, events(task.classes))
        found.append(known[_plain(name)])
    if len(set(found)) < len(found):
        raise UsageError(
            f"the class '{next(n for n in found if found.count(n) > 1)}' is named twice"
        )
    return [name for name in task.classes if name in found]


def events_of_task(
    task: Task, decoder: str | None = None, encoder: str | None = None
) -> tuple[list[str], list[str]]:
    """Return the names and texts of a task's classes, without background."""
    names, texts = task.model_classes(decoder, encoder)
    pairs = [(name, text) for name, text in zip(names, texts, strict=True) if name != BACKGROUND]
    return [name for name, _ in pairs], [text for _, text in pairs]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())
