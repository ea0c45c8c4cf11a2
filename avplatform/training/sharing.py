"""The clips of a training step that the processes of a run share."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from avplatform.data.reading.loader import Share
from avplatform.data.reading.sampling import process_share
from avplatform.tasks.batch import Processes


class StepProcesses(Processes):
    """The processes of a run, which each hold a contiguous part of the batch of one step.

    Args:
        accelerator: knows the processes.
        share: this process's part of the batch.
    """

    def __init__(self, accelerator: Accelerator, share: Share) -> None:
        self.accelerator, self.clips = accelerator, share.clips
        count = accelerator.num_processes
        places = [process_share(np.arange(share.global_size), i, count) for i in range(count)]
        self.sizes = [len(part) for part in places]
        self.start = sum(self.sizes[: accelerator.process_index])

    def gather(self, values: Tensor) -> Tensor:
        """Return the rows of all processes in the order of the global batch."""
        if self.accelerator.num_processes == 1:
            return values
        # Parts differ by one clip at most, and a collective needs equal shapes.
        padded = values.new_zeros((max(self.sizes), *values.shape[1:]))
        padded[: self.clips] = values[: self.clips]
        parts = self.accelerator.gather(padded).chunk(self.accelerator.num_processes)
        return torch.cat([part[:size] for part, size in zip(parts, self.sizes, strict=True)])

    def own(self, values: Tensor) -> Tensor:
        """Return this process's rows; a process without clips has the first one, at weight 0."""
        return values[self.start : self.start + self.clips] if self.clips else values[:1]
