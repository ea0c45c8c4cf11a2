"""From video files to segment features in a store: decoding, sampling and backbones."""
