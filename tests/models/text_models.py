"""Tiny text encoders with random weights, in the folders that `transformers` reads."""

import json
from pathlib import Path

import pytest
import torch

WORDS = ["dog", "barking", "siren", "violin", "acoustic", "guitar", "a", "of", "fry"]
SIZES = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    initializer_range=0.5,
)


def make_bert(
    folder: Path, *, seed: int = 0, pooling: str | None = None, head: bool = False
) -> Path:
    """A BERT with WordPiece.

    `pooling` makes it a sentence encoder's folder, `head` saves it as a masked language model.
    """
    transformers = pytest.importorskip("transformers")
    vocabulary = {
        word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    }
    folder.mkdir(parents=True)
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=12).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), max_position_embeddings=12, **SIZES
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        (transformers.BertForMaskedLM if head else transformers.BertModel)(config).save_pretrained(
            folder
        )
    if pooling:
        (folder / "1_Pooling").mkdir()
        modes = {
            f"pooling_mode_{name}": name == pooling
            for name in ("cls_token", "mean_tokens", "max_tokens")
        }
        (folder / "1_Pooling" / "config.json").write_text(
            json.dumps({"word_embedding_dimension": 16, **modes})
        )
    return folder


def make_clip(folder: Path) -> Path:
    """A CLIP with byte-pair encoding, projected to another width than its text tower states."""
    transformers = pytest.importorskip("transformers")
    vocabulary, merges = byte_pairs(end="</w>", special=["<|startoftext|>", "<|endoftext|>"])
    folder.mkdir(parents=True)
    transformers.CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=20
    ).save_pretrained(folder)
    end = vocabulary["<|endoftext|>"]
    text = dict(**SIZES, vocab_size=len(vocabulary), max_position_embeddings=20, pad_token_id=end,
                bos_token_id=vocabulary["<|startoftext|>"], eos_token_id=end)  # fmt: skip
    vision = dict(**SIZES, image_size=8, patch_size=4)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def make_clap(folder: Path) -> Path:
    """A CLAP with byte-pair encoding."""
    transformers = pytest.importorskip("transformers")
    vocabulary, merges = byte_pairs(end="", special=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    folder.mkdir(parents=True)
    transformers.RobertaTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=30
    ).save_pretrained(folder)
    text = dict(**SIZES, vocab_size=len(vocabulary), max_position_embeddings=40, pad_token_id=1)
    audio = dict(patch_embeds_hidden_size=8, depths=[1, 1], num_attention_heads=[1, 1],
                 spec_size=32, num_mel_bins=8, window_size=2, patch_size=4,
                 patch_stride=[4, 4], hidden_size=16)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=10)
        transformers.ClapModel(config).save_pretrained(folder)
    return folder


def byte_pairs(*, end: str, special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    letters = [*"abcdefghijklmnopqrstuvwxyz", "Ġ"]
    pieces = letters + [letter + end for letter in letters] if end else letters
    merges = [("d", "o"), ("do", "g" + end)]
    vocabulary = [*special, *pieces, "do", "dog" + end]
    return {piece: i for i, piece in enumerate(dict.fromkeys(vocabulary))}, merges
