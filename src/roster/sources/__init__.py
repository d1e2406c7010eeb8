"""Outside sources, each read in a process of its own: from a kind and its options to files in a folder."""
