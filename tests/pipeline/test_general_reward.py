"""The general reward model beside the others: what it says from version to version, and that it is optional."""

import pytest
from ml_collections import ConfigDict

from llama2_jax.evaluation.over_optimisation import Rewards
from llama2_jax.pipeline import general_reward
from llama2_jax.pipeline.general_reward import abstract_general_reward, changes_of_versions, load_general_reward
from tests.smallest import smallest_runtime


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(
        general_reward.logging, "warning", lambda message, *arguments: found.append(message % arguments)
    )
    return found


VERSIONS = {
    "first": Rewards([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]),
    "better": Rewards([0.3, 0.5, 0.5], [2.0, 3.0, 4.5]),
    "exploits": Rewards([0.8, 0.9, 0.9], [0.0, 1.0, 2.0]),
    "the same": Rewards([0.8, 0.9, 0.9], [0.0, 1.0, 2.0]),
}


def test_each_version_is_compared_with_the_one_before_it(warnings):
    """The third still has more general reward than a worse version would have, but less than the second."""
    found = changes_of_versions(list(VERSIONS), list(VERSIONS.values()))
    assert found[0] is None and [row["over_optimised"] for row in found[1:]] == [False, True, False]
    assert found[2]["prompts"] == 3
    assert found[2]["optimised"] == pytest.approx((0.5 + 0.4 + 0.4) / 3)
    assert found[2]["general"] == pytest.approx(-(2 + 2 + 2.5) / 3)
    (warning,) = warnings
    assert warning.startswith(
        "exploits is over-optimised: since better, optimised reward +0.433 (standard error 0.033)"
    )


def test_without_a_general_reward_versions_have_no_changes(warnings):
    rewards = [Rewards(one.optimised, None) for one in VERSIONS.values()]
    assert changes_of_versions(list(VERSIONS), rewards) == [None] * 4 and not warnings


def test_a_stage_without_the_input_has_no_such_model(tmp_path):
    runtime = smallest_runtime(tmp_path)
    assert load_general_reward({"helpfulness": tmp_path}, runtime) is None
    assert not abstract_general_reward(ConfigDict({"inputs": {"safety": "a"}}), runtime.model, runtime.mesh)
    (one,) = abstract_general_reward(ConfigDict({"inputs": {"general": "a"}}), runtime.model, runtime.mesh)
    assert one.name == "general" and one.opt_state is None
