"""Where clips are read other than in a store: the original files, and memory."""
