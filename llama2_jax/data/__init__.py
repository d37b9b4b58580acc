"""Sources, formats, mixtures, packing, preference pairs and prompts (Grain)."""
