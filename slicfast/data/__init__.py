"""From video files to batches of clips (floor 2)."""
