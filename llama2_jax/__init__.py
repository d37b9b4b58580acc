"""The Llama 2 recipe in JAX and Flax: from raw text to a chat model aligned in five rounds.

`llama2_jax.load(path)` reads a model of this project, of Hugging Face or of Meta: see llama2_jax/loading.py.
"""


def __getattr__(name: str) -> object:
    # On first use, so that importing one file of the package does not load all of JAX, Flax and Orbax.
    if name == "load":
        from llama2_jax.loading import load

        return load
    raise AttributeError(f"module 'llama2_jax' has no attribute {name!r}")
