"""The clip store: its form on the disk, its reader's and its writer's parts, and tools that go through it."""
