"""From video files to segment features: decoding, sampling, backbones, and the command that writes a store."""
