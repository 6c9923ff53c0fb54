"""Encoder, embedding, checkpoints, optimization (floor 3)."""
