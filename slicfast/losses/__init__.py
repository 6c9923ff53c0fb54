"""Losses on embeddings (floor 2)."""
