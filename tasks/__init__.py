"""What a task means: labels, losses, decisions, metrics, and the official files of its dataset."""

from __future__ import annotations

# `import avplatform` looks for this mark to tell our package from a stranger's of the same name.
AVPLATFORM_PACKAGE = "tasks"
