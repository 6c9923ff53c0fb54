"""What a run looks like: one HTML page for reading, figures for papers (floor 5)."""
