"""Parts of an answer that a model did not write are read and not trained on."""

import pytest

from llama2_jax.text.dialogue import encode_dialogue

CONTENT = 'CALL_API_1: A | six -> "seven" The answer is seven.'
START = CONTENT.index('"')
INJECTED = [[START, START + len('"seven"')]]


def dialogue(**fields):
    return [{"role": "user", "content": "Six?"}, {"role": "assistant", "content": CONTENT, **fields}]


def test_the_loss_is_on_all_but_the_injected_part(tokenizer):
    encoded = encode_dialogue(tokenizer, dialogue(injected=INJECTED))
    trained = encoded.tokens[encoded.loss_mask == 1].tolist()
    parts = [tokenizer.encode(part) for part in ("CALL_API_1: A | six ->", "The answer is seven.")]
    assert trained == [*parts[0], *parts[1], tokenizer.eos_id]
    prompt = tokenizer.encode("[INST] Six? [/INST]", bos=True)
    assert encoded.tokens.tolist() == [*prompt, *parts[0], *tokenizer.encode('"seven"'), *parts[1], tokenizer.eos_id]


def test_the_text_is_the_same(tokenizer):
    injected, plain = (encode_dialogue(tokenizer, dialogue(**fields)) for fields in ({"injected": INJECTED}, {}))
    assert tokenizer.decode(injected.tokens).strip() == tokenizer.decode(plain.tokens).strip()
    assert encode_dialogue(tokenizer, dialogue(injected=[])).tokens.tolist() == plain.tokens.tolist()


def test_an_answer_may_end_with_an_injected_part(tokenizer):
    messages = dialogue(injected=[[START, len(CONTENT)]])
    encoded = encode_dialogue(tokenizer, messages)
    assert encoded.loss_mask[-1] == 1 and encoded.loss_mask[-2] == 0


def test_where_nothing_is_trained_on(tokenizer):
    assert not encode_dialogue(tokenizer, dialogue(injected=INJECTED), loss="none").loss_mask.any()
    assert not encode_dialogue(tokenizer, dialogue(injected=INJECTED, weight=0)).loss_mask.any()


@pytest.mark.parametrize(
    "injected", [[[5, 3]], [[0, 9], [4, 12]], [[0, len(CONTENT) + 1]], [[-1, 2]], [[1, 2], [3]], 7, [["a", "b"]]]
)
def test_places_that_are_none_are_refused(tokenizer, injected):
    with pytest.raises(ValueError, match="message 1 has injected="):
        encode_dialogue(tokenizer, dialogue(injected=injected))


def test_only_an_answer_s_text_has_injected_parts(tokenizer):
    messages = dialogue()
    messages[0]["injected"] = [[0, 1]]
    with pytest.raises(ValueError, match="message 0 has injected="):
        encode_dialogue(tokenizer, messages)
    with pytest.raises(ValueError, match="message 1 has injected="):
        encode_dialogue(tokenizer, dialogue(injected=INJECTED, tokens=[5]))
