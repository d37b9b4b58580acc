"""The safety sets on the page: a table each, what was left out, and how far refusals are found."""

from etils import epath

from llama2_jax.evaluation.refusals import detection
from llama2_jax.report.safety_sets import safety_set_tables
from tests.report.made_up_run import write_stage
from tests.report.pages import Page, make_report


def mean(version, name, group, measure, value, domain="", prompts=4, error=0.25):
    return {
        "version": version, "set": name, "domain": domain, "group": group, "measure": measure, "prompts": prompts,
        "value": value, "standard_error": error,
    }  # fmt: skip


def of_set(name, **fields):
    return {
        "set": name,
        "prompts": 4,
        "judges": {},
        "too_long": 0,
        "repeated": 0,
        "small_groups": [],
        "notes": [],
        **fields,
    }


GROUPS = [
    row
    for version, more in (("sft", 0.0), ("rlhf_v5", 0.25))
    for row in (
        mean(version, "truthfulqa", "all", "true", 0.5 + more),
        mean(version, "truthfulqa", "all", "informative", 1.0),
        *[mean(version, "toxigen", f"group_{index}", "toxic", 0.25 - more) for index in range(7)],
        mean(version, "bold", "bakers", "sentiment", more - 0.5, domain="craft_people"),
        mean(version, "borderline", "all", "refused", 0.25 + more, prompts=250),
    )
]
SETS = [
    of_set("truthfulqa", judges={"true": "my.truth", "informative": "my.information"}, too_long=3),
    of_set("toxigen", judges={"toxic": "my.toxicity"}),
    of_set("bold", judges={"sentiment": "my.sentiment"}, small_groups=[{"domain": "a", "group": "few", "prompts": 2}]),
    of_set("borderline", judges={"refused": "my.refusals"}),
]


def report_of(tmp_path, **changes):
    quality = detection([True, False, True, False], ["2_full_refusal", "3_partial_refusal"] + ["1_full_compliance"] * 2)
    results = {
        "groups": GROUPS, "sets": SETS,
        "refusal_classifier": {"function": "my.refusals", "all": quality, "borderline": None}, **changes,
    }  # fmt: skip
    folder = write_stage(epath.Path(tmp_path), "safety_sets", "safety_sets", results)
    content, page, _ = make_report(tmp_path, {"stages": (folder,)})
    return content["safety_sets"], page


def test_a_table_has_a_row_for_each_group_and_measure_and_a_column_for_each_version():
    tables = safety_set_tables({"groups": GROUPS, "sets": SETS})
    assert [table["set"] for table in tables] == ["truthfulqa", "toxigen", "bold", "borderline"]
    truthfulqa, toxigen, bold, _ = tables
    assert truthfulqa["versions"] == ["sft", "rlhf_v5"] and truthfulqa["measures"] == ["true", "informative"]
    assert [[cell["value"] for cell in row["cells"]] for row in truthfulqa["rows"]] == [[0.5, 0.75], [1.0, 1.0]]
    assert truthfulqa["short"] and not toxigen["short"] and len(toxigen["rows"]) == 7
    assert [(row["domain"], row["group"]) for row in bold["rows"]] == [("craft_people", "bakers")]


def test_a_group_that_a_version_lacks_has_an_empty_cell():
    groups = [mean("a", "toxigen", "one", "toxic", 0.5), mean("b", "toxigen", "two", "toxic", 0.5)]
    (table,) = safety_set_tables({"groups": groups, "sets": [of_set("toxigen")]})
    assert [[cell and cell["version"] for cell in row["cells"]] for row in table["rows"]] == [["a", None], [None, "b"]]


def test_the_page_shows_every_set(tmp_path):
    rows, page = report_of(tmp_path)
    assert [row["stage"] for row in rows] == ["safety_sets"] and rows[0]["groups"] == GROUPS
    parsed = Page(page)
    text = " ".join(parsed.text.split())
    assert "all true 4 50.0%± 25.0% 75.0%± 25.0%" in text and "all informative 4 100.0% 100.0%" in text
    assert "group 6 4 25.0%± 25.0% 0.0%" in text
    assert "craft people: bakers 4 -0.50± 0.25 -0.25± 0.25" in text
    assert "all 250 25.0%± 25.0% 50.0%± 25.0%" in text
    assert "Measured by my.truth, my.information." in text
    assert "On answers that were labelled it finds 2 refusals among 4: precision 50.0% ± 35.4%, recall 50.0%" in text
    assert "BOLD: left out for their few prompts: few (2)." in text
    assert "TruthfulQA: left out because they leave no room for an answer: 3 prompts." in text
    assert not parsed.open and not parsed.outside
    assert page.count("<summary>By group</summary>") == 1


def test_a_set_that_is_left_out_or_not_judged_says_so(tmp_path):
    sets = [
        of_set("truthfulqa", notes=["truthfulqa: answers are written"]),
        of_set("toxigen", notes=["it is <left> out"]),
    ]
    groups = [row for row in GROUPS if row["set"] == "borderline"]
    _, page = report_of(tmp_path, groups=groups, sets=[*sets, of_set("borderline")], refusal_classifier=None)
    text = " ".join(Page(page).text.split())
    assert "truthfulqa: answers are written." in text and "it is <left> out." in text
    assert "<h3>TruthfulQA</h3>" not in page and "<h3>False refusals</h3>" in page
    assert "precision" not in text.split("False refusals")[1].split("figure 33")[0]


def test_the_refusal_classifier_on_the_prompts_themselves(tmp_path):
    quality = detection([True, True], ["2_full_refusal", "1_full_compliance"])
    nothing = detection([False], ["1_full_compliance"])
    found = {"function": "my.refusals", "all": quality, "borderline": nothing}
    _, page = report_of(tmp_path, refusal_classifier=found)
    text = " ".join(Page(page).text.split())
    assert "1 refusals among 2: precision 50.0% ± 35.4%, recall 100.0%" in text
    assert (
        "; on those to these prompts alone 0 refusals among 1: precision –, recall –. Partial refusals count." in text
    )
