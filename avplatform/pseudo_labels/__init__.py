"""Segment pseudo-labels by VALOR's procedure, and their score against dense annotations."""

from avplatform.pseudo_labels.make import FOLDERS, RECORD_FILE, Clips, make
from avplatform.pseudo_labels.score import Scores, read_folder, score_folder
from avplatform.pseudo_labels.sources import FeatureFiles, LogitFiles, MediaFiles, Source

__all__ = [
    "FOLDERS",
    "RECORD_FILE",
    "Clips",
    "FeatureFiles",
    "LogitFiles",
    "MediaFiles",
    "Scores",
    "Source",
    "make",
    "read_folder",
    "score_folder",
]
