"""Llama 2 in plain float64 NumPy, one sequence at a time: the reference for the tests of the network."""

import numpy as np


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def norm(x, scale, eps):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * scale


def rotate(x, positions, theta):
    """Rotates adjacent pairs as complex numbers: view_as_complex of Meta's code. x: [length, heads, head_dim]."""
    head_dim = x.shape[-1]
    angles = positions[:, None] * theta ** (-np.arange(0, head_dim, 2) / head_dim)
    rotated = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None]
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = rotated.real, rotated.imag
    return out


def hidden_states(params, config, tokens):
    """The final-norm states [length, dim] of one sequence of token ids."""
    *_, (x, _) = layers(params, config, tokens)
    return norm(x, np.asarray(params["trunk"]["final_norm"], np.float64), config.norm_eps)


def attention_weights(params, config, tokens):
    """What each token attends to in each head of each layer: [layers, heads, length, length]."""
    return np.stack([weights for _, weights in layers(params, config, tokens)])


def layers(params, config, tokens):
    """Each layer's result [length, dim] and its attention weights [heads, length, length], in order."""
    trunk = {name: _as_float64(value) for name, value in params["trunk"].items()}
    length, group = len(tokens), config.heads // config.kv_heads
    positions, causal = np.arange(length), np.tril(np.ones((length, length), bool))
    x = trunk["embedding"][np.asarray(tokens)]
    for number in range(config.layers):
        w = {name: value[number] for name, value in trunk["layers"].items()}
        h = norm(x, w["attention_norm"], config.norm_eps)
        q = rotate((h @ w["query"]).reshape(length, config.heads, -1), positions, config.rope_theta)
        k = rotate((h @ w["key"]).reshape(length, config.kv_heads, -1), positions, config.rope_theta)
        v = (h @ w["value"]).reshape(length, config.kv_heads, -1)
        heads, attended = [], []
        for head in range(config.heads):
            scores = q[:, head] @ k[:, head // group].T / np.sqrt(config.head_dim)
            attended.append(softmax(np.where(causal, scores, -np.inf)))
            heads.append(attended[-1] @ v[:, head // group])
        x = x + np.concatenate(heads, axis=-1) @ w["output"]
        h = norm(x, w["ffn_norm"], config.norm_eps)
        gate = h @ w["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["up"])) @ w["down"]
        yield x, np.stack(attended)


def logits(params, config, tokens):
    """Logits [length, vocab], or [length, 1] of a scalar model."""
    return hidden_states(params, config, tokens) @ np.asarray(params["head"]["kernel"], np.float64)


def _as_float64(value):
    if isinstance(value, dict):
        return {name: _as_float64(inner) for name, inner in value.items()}
    return np.asarray(value, np.float64)
