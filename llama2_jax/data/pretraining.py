"""Batches for pretraining: documents of several sources, mixed by weight, concatenated and split into rows."""

from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np
from grain.experimental import ConcatThenSplitIterDataset
from jaxtyping import Int

from llama2_jax.data.epochs import derived_seed

# Of each source's documents, the last ones are held out; at least one.
HELD_OUT_SHARE = 0.01


def pretraining_batches(
    documents: Mapping[str, Sequence[Int[np.ndarray, " tokens"]]],
    weights: Mapping[str, float],
    length: int,
    batch_size: int,
    seed: int,
    *,
    bos_id: int,
    eos_id: int,
) -> grain.IterDataset:
    """Returns endless batches of text (section 2.1): BOS, a document, EOS, the next one; no padding.

    Every source is reshuffled in each pass over it; the larger its weight, the more passes (up-sampling). Documents
    longer than a row are cut into pieces of `length` tokens that each fill a row and are shuffled like documents:
    otherwise one book would fill whole batches. BOS and EOS stay at the beginning and end of the document. The rest of
    a document at the end of a row begins another row, as a separate segment with positions from 0.

    Args:
      documents: the ids of each source's documents, without BOS and EOS.
      weights: each source's fraction of the tokens (normalised to sum to 1).
      length: tokens a row.
      batch_size: rows a batch.
      seed: determines the order.
      bos_id, eos_id: the tokenizer's.

    Returns:
      A Grain dataset of {tokens, segment_ids, positions, loss_mask}, int32 [batch_size, length].
      Its iterator's state is JSON.

    Raises:
      ValueError: if a source has no documents or an empty one, the weights are not those of the sources or not above
        0, or batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: wanted at least 1 row")
    if not documents or documents.keys() != weights.keys():
        raise ValueError(
            f"sources are {sorted(documents)} and weights are for {sorted(weights)}: wanted the same names"
        )
    wrong = {name: weight for name, weight in weights.items() if not weight > 0}
    if wrong:
        raise ValueError(f"weights must be above 0, found {wrong}; leave a source out to give it no share")
    sources = [_Pieces(name, of_source, length, bos_id, eos_id) for name, of_source in documents.items()]
    # The relative number of passes over each source: Grain counts elements, while a weight is a fraction of tokens.
    passes = [weights[source.name] / source.tokens for source in sources]

    def mixed(kind: str) -> grain.MapDataset | None:
        """Returns an endless stream of pieces of a kind ("rows" or "rests"), from all sources that have any."""
        present = [(getattr(source, kind), count) for source, count in zip(sources, passes, strict=True)]
        present = [(pieces, count) for pieces, count in present if len(pieces)]
        streams = [
            grain.MapDataset.source(pieces).shuffle(derived_seed(seed, pieces.name)).repeat() for pieces, _ in present
        ]
        return grain.MapDataset.mix(streams, [count * len(pieces) for pieces, count in present]) if present else None

    in_memory = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    datasets, proportions = [], []
    if (rows := mixed("rows")) is not None:
        datasets.append(rows.map(_full_row).to_iter_dataset(in_memory))
        proportions.append(sum(count * source.rows.tokens for source, count in zip(sources, passes, strict=True)))
    if (rests := mixed("rests")) is not None:
        packed = ConcatThenSplitIterDataset(rests.to_iter_dataset(in_memory), length_struct={"tokens": length})
        datasets.append(packed.map(_packed_row))
        proportions.append(sum(count * source.rests.tokens for source, count in zip(sources, passes, strict=True)))
    return _RestoredFromJson(grain.IterDataset.mix(datasets, proportions).batch(batch_size, drop_remainder=True))


def hold_out(documents: Mapping[str, Sequence]) -> tuple[dict[str, Sequence], dict[str, Sequence]]:
    """Splits each source into documents to train on and the last few, which are kept for measuring.

    Raises:
      ValueError: if a source has a single document.
    """
    border = {name: len(texts) - max(1, int(len(texts) * HELD_OUT_SHARE)) for name, texts in documents.items()}
    for name, kept in border.items():
        if kept < 1:
            raise ValueError(f"source {name!r} has {len(documents[name])} document; at least 2 are needed")
    training = {name: texts[: border[name]] for name, texts in documents.items()}
    return training, {name: texts[border[name] :] for name, texts in documents.items()}


class _Pieces:
    """The documents of a source with BOS and EOS, cut into full `rows`, and `rests` that are shorter."""

    def __init__(self, name: str, documents: Sequence[np.ndarray], length: int, bos_id: int, eos_id: int):
        self.name = name
        sizes = np.asarray([len(document) for document in documents], np.int64)
        if not len(sizes) or not sizes.min():
            where = f"document {int(sizes.argmin())} is empty" if len(sizes) else "it has no documents"
            raise ValueError(f"source {name!r} cannot be trained on: {where}")
        ends = np.cumsum(sizes + 2)
        starts = ends - sizes - 2
        joined = np.empty(ends[-1], np.int32)
        joined[starts], joined[ends - 1] = bos_id, eos_id
        spans = list(zip(starts.tolist(), ends.tolist(), strict=True))
        for document, (start, end) in zip(documents, spans, strict=True):
            joined[start + 1 : end - 1] = document
        rows = [(first, first + length) for start, end in spans for first in range(start, end - length + 1, length)]
        rests = [(end - (end - start) % length, end) for start, end in spans if (end - start) % length]
        self.rows, self.rests = _Slices(f"{name}/rows", joined, rows), _Slices(f"{name}/rests", joined, rests)
        self.tokens = len(joined)


class _Slices:
    """Parts of one long array, by their index."""

    def __init__(self, name: str, joined: np.ndarray, spans: Sequence[tuple[int, int]]):
        self.name, self._joined = name, joined
        self._spans = np.asarray(spans, np.int64).reshape(-1, 2)
        self.tokens = int(np.sum(self._spans[:, 1] - self._spans[:, 0]))

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        start, end = self._spans[index]
        return {"tokens": self._joined[start:end]}


def _full_row(piece: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tokens = piece["tokens"]
    ones = np.ones(len(tokens), np.int32)
    return {
        "tokens": tokens,
        "segment_ids": ones,
        "positions": np.arange(len(tokens), dtype=np.int32),
        "loss_mask": ones,
    }


def _packed_row(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "tokens": row["tokens"],
        "segment_ids": row["tokens_segment_ids"],
        "positions": row["tokens_positions"],
        "loss_mask": (row["tokens_segment_ids"] > 0).astype(np.int32),
    }


class _RestoredFromJson(grain.IterDataset):
    """A dataset whose iterators restore their state from JSON.

    Grain's packer compares a pair in its state with a tuple, and JSON makes the pair a list: an iterator restored from
    it would occasionally lose a document.
    """

    def __init__(self, parent: grain.IterDataset):
        super().__init__(parent)
        self._packed = parent

    def __iter__(self) -> "_RestoredFromJsonIterator":
        return _RestoredFromJsonIterator(iter(self._packed))


class _RestoredFromJsonIterator(grain.DatasetIterator):
    def __init__(self, parent: Iterator):
        super().__init__(parent)
        self._packed = parent

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._packed)

    def get_state(self) -> dict:
        return self._packed.get_state()

    def set_state(self, state: dict) -> None:
        self._packed.set_state(_with_tuples(state))


def _with_tuples(state: object) -> object:
    if isinstance(state, dict):
        return {name: _with_tuples(value) for name, value in state.items()}
    return tuple(map(_with_tuples, state)) if isinstance(state, list) else state
