"""The benchmarks of table 3 on the models of a finished run of rlhf_v5, config.source_run (section 2.3).

PIQA, HellaSwag, ARC, NaturalQuestions, TriviaQA, SQuAD, BoolQ, GSM8K, MATH, MMLU, BBH, AGIEval and the others, with the
paper's shots, through lm-evaluation-harness (`pip install -e '.[benchmarks]'`) on our own inference. Their files are
read in the folder config.benchmarks.files under data.root; where there is none, the harness loads its own tasks.

Reaches (tiny, one seed): commonsense 0.32, MMLU 0.30 and AGIEval 0.33 in V5, no right answer where one is written
(world knowledge, math, BBH): about chance, for these models know nothing of the world that the tasks ask about.
Costs (tiny): 4 minutes on 2 CPU cores, after the run of rlhf_v5, with 40 documents a task.
Run: python -m llama2_jax.main --config=experiments/benchmarks.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.benchmarks import add_benchmarks
from experiments.parts.ending import add_report
from experiments.parts.source_run import add_model, keep_settings_alone

MODELS = {"pretrain": "pretrain", "sft": "sft", "rlhf_v5": "rlhf_v5_ppo"}


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_settings_alone(config, "benchmarks")
    for name in MODELS.values():
        add_model(config, name)
    add_benchmarks(config, MODELS, optional=False)
    add_report(config)
    return config
