"""Readers of clips side by side: each in its natural form, the same clips, the same augmentations."""
