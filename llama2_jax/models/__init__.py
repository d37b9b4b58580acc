"""The network: Llama, attention, rotary positions, KV cache, heads."""
