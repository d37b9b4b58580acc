"""A judge that knows the answers."""

from llama2_jax.evaluation.right_answers import judge


def test_a_verdict_says_whether_the_response_has_the_answer():
    rows = [{"messages": [], "response": f"The answer is {number}.", "answer": "72"} for number in (72, 71)]
    found = judge(rows, right="llama2_jax.evaluation.final_number.right_numbers")
    assert found == [{"helpfulness": 1.0, "right": True}, {"helpfulness": 0.0, "right": False}]
