"""What computes: stem, encoders, decoders and the model that joins them."""

from __future__ import annotations

# `import avplatform` looks for this mark to tell our package from a stranger's of the same name.
AVPLATFORM_PACKAGE = "models"
