"""Features of many files into a store: what the command `avplatform extract` does."""

from __future__ import annotations

from avplatform.features.extractor import ClipFeatures, Extractor, Request

__all__ = ["ClipFeatures", "Extractor", "Request"]
