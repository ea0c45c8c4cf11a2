"""CLIP and CLAP of the right classes at tiny widths, with random weights, saved like real ones."""

import json

import torch

WORDS = "abcdefghijklmnopqrstuvwxyz.,()"


def save_clip(folder, *, size=32):
    import transformers

    torch.manual_seed(0)
    letters = [*WORDS, *(f"{letter}</w>" for letter in WORDS)]
    vocab = {token: n for n, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=[])
    ends = {"bos_token_id": vocab["<|startoftext|>"], "eos_token_id": vocab["<|endoftext|>"]}
    layers = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = transformers.CLIPConfig(
        text_config={
            **layers,
            **ends,
            "vocab_size": len(vocab),
            "projection_dim": 12,
            "max_position_embeddings": 77,
        },
        vision_config={**layers, "image_size": size, "patch_size": 8, "projection_dim": 12},
        projection_dim=12,
        logit_scale_init_value=4.6,
    )
    _spread(transformers.CLIPModel(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_clap(folder):
    import transformers

    torch.manual_seed(1)
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab = {token: n for n, token in enumerate([*specials, *WORDS, "T", "Ġ"])}
    tokenizer = transformers.RobertaTokenizer(vocab=vocab, merges=[])
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(vocab),
        "max_position_embeddings": 120,
    }
    audio = {
        "hidden_size": 32,
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "enable_fusion": True,
        "fusion_type": "aff_2d",
    }
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=12)
    _spread(transformers.ClapModel(config)).save_pretrained(folder)
    extractor = transformers.ClapFeatureExtractor(truncation="fusion", padding="repeatpad")
    transformers.ClapProcessor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(
        folder
    )
    return folder


def _spread(model):
    """Draw weights under which different inputs differ by much more than rounding."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1 and "relative_position" not in name:
                weights.copy_(torch.randn_like(weights) / weights[0].numel() ** 0.5)
    return model
