"""Batches for pretraining: documents of several sources, mixed by weight, joined and split to the context length."""

from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np
from grain.experimental import ConcatThenSplitIterDataset
from jaxtyping import Int

from llama2_jax.data.epochs import derived_seed, share_of


def pretraining_batches(
    documents: Mapping[str, Sequence[Int[np.ndarray, "tokens"]]],
    weights: Mapping[str, float],
    length: int,
    batch_size: int,
    seed: int,
    *,
    bos_id: int,
    eos_id: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """Endless batches of text (section 2.1): BOS, a document, EOS, the next one; no padding.

    Every source is shuffled anew in each pass over it; the heavier its weight, the more passes (up-sampling). Documents
    longer than a row are cut to pieces of `length` tokens that are shuffled as if they were documents, for otherwise
    one book would fill whole batches; BOS and EOS stay where the document begins and ends. Where a row ends, a document
    goes on in a later row as a segment of its own, with positions from 0.

    Args:
      documents: for each source its documents' ids, without BOS and EOS.
      weights: for each source its share of the tokens (made to sum to 1).
      length: tokens a row.
      batch_size: rows a batch, of all processes.
      seed: decides the order.
      bos_id, eos_id: the tokenizer's.
      process_index, process_count: which part of every batch to give: batch_size / process_count rows. No document is
        in two processes' parts within one pass over its source.

    Returns:
      A Grain dataset of {tokens, segment_ids, positions, loss_mask}, int32 [batch_size / process_count, length].
      Its iterator's state is JSON.

    Raises:
      ValueError: for a source without documents or with an empty one, weights that do not fit, or a bad division.
    """
    rows = share_of(batch_size, process_index, process_count, "batch_size")
    if not documents or documents.keys() != weights.keys():
        raise ValueError(
            f"sources are {sorted(documents)} and weights are for {sorted(weights)}: wanted the same names"
        )
    wrong = {name: weight for name, weight in weights.items() if not weight > 0}
    if wrong:
        raise ValueError(f"weights must be above 0, found {wrong}; leave a source out to give it no share")
    streams, proportions = [], []
    for name, of_source in documents.items():
        pieces = _Pieces(name, of_source, length, bos_id, eos_id)
        # Grain counts elements; a weight is a share of tokens.
        proportions.append(weights[name] * len(pieces) / len(pieces.flat))
        stream = grain.MapDataset.source(pieces).shuffle(derived_seed(seed, name)).repeat()
        # Split before mixing: the mixture's order is periodic, so a stride over it would favour some sources.
        streams.append(stream[process_index::process_count])
    mixed = grain.MapDataset.mix(streams, proportions)
    in_memory = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    packed = ConcatThenSplitIterDataset(mixed.to_iter_dataset(in_memory), length_struct={"tokens": length})
    return _RestoredFromJson(packed.batch(rows, drop_remainder=True).map(_named))


class _Pieces:
    """The documents of a source, joined in one array, and where each piece of them begins and ends."""

    def __init__(self, name: str, documents: Sequence[np.ndarray], length: int, bos_id: int, eos_id: int):
        sizes = np.asarray([len(document) for document in documents], np.int64)
        if not len(sizes) or not sizes.min():
            where = f"document {int(sizes.argmin())} is empty" if len(sizes) else "it has no documents"
            raise ValueError(f"source {name!r} cannot be trained on: {where}")
        ends = np.cumsum(sizes + 2)
        self.flat = np.empty(ends[-1], np.int32)
        self.flat[ends - sizes - 2] = bos_id
        self.flat[ends - 1] = eos_id
        pieces = []
        for document, size, end in zip(documents, sizes.tolist(), ends.tolist(), strict=True):
            self.flat[end - size - 1 : end - 1] = document
            pieces += [(begin, min(begin + length, end)) for begin in range(end - size - 2, end, length)]
        self.borders = np.asarray(pieces, np.int64)

    def __len__(self) -> int:
        return len(self.borders)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        begin, end = self.borders[index]
        return {"tokens": self.flat[begin:end]}


def _named(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    segment_ids = batch["tokens_segment_ids"]
    return {
        "tokens": batch["tokens"],
        "segment_ids": segment_ids,
        "positions": batch["tokens_positions"],
        "loss_mask": (segment_ids > 0).astype(np.int32),
    }


class _RestoredFromJson(grain.IterDataset):
    """A dataset whose iterators take their state back from JSON.

    Grain's packer compares a pair in its state with a tuple, and JSON makes it a list: restored so, an iterator would
    now and then lose a document.
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
