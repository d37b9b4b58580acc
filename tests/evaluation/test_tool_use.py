"""The shares of table 15's protocol, counted by hand."""

from llama2_jax.evaluation.tool_use import tool_use


def row(right, *problems, right_call=False, finished=True):
    calls = [{"result": "", "problem": problem} for problem in problems]
    return {"right": right, "finished": finished, "calls": calls, "right_call": right_call}


def test_shares_of_answers_and_of_calls():
    found = tool_use([
        row(True, "", right_call=True), row(False, "", "failed"), row(True), row(False, "malformed", finished=False),
        row(False, "unknown_tool", "unfinished"),
    ])  # fmt: skip
    shares = {name: (value["share"], value["of"]) for name, value in found.items() if name != "questions"}
    assert found["questions"] == 5
    assert shares == {
        "right": (2 / 5, 5), "finished": (4 / 5, 5), "called": (4 / 5, 5), "well_formed": (4 / 6, 6),
        "answered": (2 / 6, 6), "right_calls": (1 / 4, 4),
    }  # fmt: skip
    assert all(low <= value["share"] <= high for value in list(found.values())[1:] for low, high in [value["interval"]])


def test_without_a_call_there_is_no_share_of_calls():
    found = tool_use([row(True), row(False)])
    assert found["called"]["share"] == 0
    assert found["well_formed"] is found["answered"] is found["right_calls"] is None
