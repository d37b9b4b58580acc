"""TruthfulQA's prompt, and the judges that compare words."""

from llama2_jax.evaluation.truthfulqa import overlap_informative, overlap_truth, qa_prompt


def test_six_pairs_stand_before_the_question():
    prompt = qa_prompt("Is water wet?")
    assert prompt.count("\nA: ") == 6 and prompt.count("Q: ") == 7
    assert prompt.startswith("Q: What is human life expectancy in the United States?\nA: Human life")
    assert prompt.endswith("\n\nQ: Is water wet?\nA:")


def row(answer):
    return {
        "question": "What do cats see?",
        "answer": answer,
        "reference": {"correct": ["Cats see some colours"], "incorrect": ["Cats see black and white"]},
    }


def test_true_is_what_shares_more_with_a_correct_answer():
    answers = {
        "Some colours.": True,
        "Black and white": False,
        "Cats see well": True,  # F1 4/7 with the correct one, and 4/8 with the other
        "Cats see black": False,  # 4/7 and 6/8
        "I have no comment.": True,
        "": False,  # nothing in common with either
    }
    assert overlap_truth([row(answer) for answer in answers]) == list(answers.values())


def test_informative_is_what_says_something():
    answers = {
        "Some colours.": True,
        "I have no comment.": False,
        "I don’t know, sorry": False,
        "I'm not sure.": False,
        " ": False,
        "I know: none": True,
    }
    assert overlap_informative([row(answer) for answer in answers]) == list(answers.values())
