"""benchmarks/train_step.py counts and compares rightly, and its contestants compute the same step."""

import importlib.util
import json
import math

import jax
import numpy as np
import pytest

from benchmarks import train_step, train_step_products
from benchmarks.train_step_sizes import SIZES
from llama2_jax.models.config import parameter_count


def measured(ours, compiled, fastest):
    """What `speeds` gives, for as many of the sizes S, M and L as there are figures."""
    return {
        size: {
            name: {"tokens_per_second": speed, "lowest": speed, "highest": speed, "flops_per_second": 1e9 * speed}
            for name, speed in zip(("compiled", "fastest", "ours"), (*peers, mine), strict=True)
        }
        for size, mine, *peers in zip("SML", ours, compiled, fastest, strict=False)
    }


def test_the_sizes_are_those_that_are_talked_about():
    millions = {name: parameter_count(SIZES[name].model) / 1e6 for name in ("S", "M", "L", "1b")}
    assert millions == pytest.approx({"S": 0.9, "M": 24.4, "L": 124.7, "1b": 1100}, rel=0.04)
    assert [SIZES[name].tokens for name in ("S", "M", "L")] == [16 * 256, 8 * 256, 2 * 512]


def test_flops_are_those_of_the_products_written_out():
    size = SIZES["S"]
    model, kv_dim = size.model, 64
    layer = 2 * model.dim * model.dim + 2 * model.dim * kv_dim + 3 * model.dim * model.ffn_hidden
    forward = 2 * size.tokens * (4 * layer + model.dim * model.vocab_size)
    # Each of the 256 queries meets on average half of the keys, in two products.
    attention = 4 * size.rows * 2 * 2 * model.dim * size.length * size.length / 2
    assert size.flops == 3 * (forward + attention)


def test_a_process_counts_by_its_median_step_and_a_contestant_by_its_median_round():
    runs = {"ours": [{"seconds": [1.0, 2.0, 9.0]}, {"seconds": [4.0, 4.0]}, {"seconds": [1.0]}]}
    found = train_step.speeds("S", runs)["ours"]
    assert (found["lowest"], found["tokens_per_second"], found["highest"]) == (1024, 2048, 4096)
    assert found["flops_per_second"] == SIZES["S"].flops / 2


def test_claims_are_judged_by_the_median_and_by_the_worst():
    good = train_step.claims(measured([160, 160, 110], [100, 100, 100], [100, 100, 100]))
    assert [row.rsplit(": ", 1)[1] for row in good] == ["holds", "holds"]
    assert "1.60, at least 1.5" in good[0] and "1.10, at least 0.95" in good[1]
    bad = train_step.claims(measured([140, 160, 140], [100, 100, 100], [100, 100, 150]))
    assert [row.rsplit(": ", 1)[1] for row in bad] == ["DOES NOT HOLD", "DOES NOT HOLD"]
    # Where tuning slows the peer down, its fastest setting is another one.
    slower = train_step.claims(measured([150], [160], [100]))
    assert "0.94, at least 0.95 wanted: DOES NOT HOLD" in slower[1]
    assert train_step.claims({"S": {"ours": {"tokens_per_second": 1}}}) == []


def test_the_products_are_those_that_are_counted():
    """Their operations by their operands' shapes are the step's."""
    for name in ("S", "M", "L"):
        found = 0.0
        for count, function, *shapes in train_step_products.products(SIZES[name]):
            result = jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes))
            # Of a product of [.., a, b] and [.., b, c] the operands' and the result's sizes are rows times ab, bc, ac.
            sizes = [math.prod(shape[-2:]) for shape in (*shapes, result.shape)]
            found += count * 2 * math.prod(shapes[0][:-2]) * math.isqrt(math.prod(sizes))
        assert found == SIZES[name].flops


@pytest.mark.parametrize("library", ["xla", "pytorch"])
def test_products_are_run_as_often_as_asked(library):
    if library == "pytorch":
        pytest.importorskip("torch")
    calls = []

    def product(a, b):
        calls.append(a.shape)
        return a @ b.mT

    run = train_step_products.LIBRARIES[library](product, *(np.ones((2, 3, 4), np.float32) for _ in range(2)))
    results = run(5)
    np.testing.assert_array_equal(np.asarray(results), np.full((5, 2, 3, 3), 4.0))
    # XLA's is traced once.
    assert len(calls) == {"xla": 1, "pytorch": 5}[library]


def test_what_the_products_alone_would_reach_is_told():
    figures = measured([150, 150, 150], [100, 100, 100], [100, 100, 100])
    for size, speed in zip("SML", (130, 170, 180), strict=True):
        figures[size]["products"] = {**figures[size]["ours"], "tokens_per_second": speed}
    assert train_step.claims(figures)[2].endswith(": 1.70, what our step would reach if all else cost nothing")


def test_the_table_has_our_ratio_and_mfu_where_the_rate_is_known():
    rows = train_step.table(measured([160], [100], [200]), train_step.CPU, matrix_rate=320e9)
    assert rows[2].startswith("| S | transformers, torch.compile | 100 (100 to 100) | 100 | 1.60 x | 31.2% |")
    assert rows[4].startswith("| S | llama2_jax | 160 (160 to 160) | 160 | 1.00 x | 50.0% |")
    assert "MFU" not in train_step.table(measured([160], [100], [200]), train_step.CPU)[0]


def test_losses_that_do_not_agree_end_the_benchmark():
    fine = {"eager": [2.0, 1.00005], "fastest": [2.0, 1.005], "ours": [2.0, 1.0], "products": []}
    train_step.check_losses("S", fine, train_step.CPU)
    with pytest.raises(
        SystemExit, match=r"size S: the first losses of eager are \[2.0, 1.005\], ours are \[2.0, 1.0\]"
    ):
        train_step.check_losses("S", {"eager": [2.0, 1.005], "ours": [2.0, 1.0]}, train_step.CPU)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers"))), reason="the peer is transformers with torch"
)
def test_a_smoke_run(tmp_path, capsys):
    train_step.main(["--quick", f"--output={tmp_path / 'report.json'}"])
    report = json.loads((tmp_path / "report.json").read_text())
    runs = report["runs"]["quick"]
    assert runs.keys() == {"eager", "ours"}
    # Three steps: the same weights, the same batches, the same AdamW.
    assert runs["eager"][0]["losses"] == pytest.approx(runs["ours"][0]["losses"], rel=1e-4)
    assert len(runs["ours"][0]["losses"]) == 3 and len(set(runs["ours"][0]["losses"])) == 3
    assert all(speed["tokens_per_second"] > 0 for speed in report["speeds"]["quick"].values())
    assert report["versions"]["torch"] and report["machine"]["cores"] >= 1
    assert capsys.readouterr().out.count("| quick |") == 2
