"""The Llama 2 recipe in JAX and Flax: from raw text to a chat model aligned in five rounds."""
