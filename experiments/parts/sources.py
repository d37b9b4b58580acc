"""The data of an experiment: what every stage reads, and the settings that depend on it."""

import dataclasses
from collections.abc import Callable

from ml_collections import FieldReference

from experiments.parts.date_sources import DateSources
from experiments.parts.imitation_sources import ImitationSources
from experiments.parts.other_recipes import OtherRecipes
from experiments.parts.task_sources import TaskSources
from experiments.parts.tool_sources import ToolSources

# A source by name: a file or a function with its layout (llama2_jax/data/source.py).
SourceDict = dict[str, dict]
# The most records to take of each file: a number, or a reference to a config's.
Limit = int | FieldReference


@dataclasses.dataclass(frozen=True)
class Sources:
    """The data of an experiment.

    Attributes:
      pretraining: text for the tokenizer and for pretraining, mixed by weight.
      tokenizer_dialogues: dialogues that the tokenizer learns from besides.
      smallest_vocabulary: the fewest tokens of a vocabulary for this text; with fewer it would be read in letters.
      largest_vocabulary: the most tokens of a vocabulary that this text can fill.
      public_demonstrations: public instruction data, for the first fine-tuning (section 3.1, "Getting Started").
      held_out_public_demonstrations: such dialogues that nothing trains on, to measure the loss.
      demonstrations: fewer and better demonstrations, for the second fine-tuning.
      held_out_demonstrations: such dialogues that nothing trains on, to measure the loss.
      too_long_dialogues: what to do with a dialogue that is longer than the context: "raise", "drop", "truncate_left".
      annotation_prompts: of a round, 1 to 5: prompts whose answers are compared.
      test_comparisons: of a scale: how many of a round's comparisons are held out; fewer than it has prompts.
      annotator: who compares the answers: a function's dotted path with its arguments.
      ranker: who ranks several answers at once, likewise.
      annotator_kinds: where reward models annotate and judge, their kinds, "helpfulness" and "safety"; the annotator
        and the judge read the stages `annotator_<kind>`.
      annotator_preferences: at most so many of each file: human comparisons that these models train on.
      preferences: at most so many of each file: human comparisons that reward models train on besides the rounds' own.
      open_preferences: open-source comparisons for the mix of the reward models (section 3.2.2).
      test_preferences: human comparisons that no model trains on.
      general_preferences: at most so many of each file: all open-source comparisons that reward models train on, for
        the general one (section 3.4.1), which trains on nothing else; if there are none, there is no such model.
      general_test_preferences: comparisons like these that no model trains on.
      too_long_comparisons: as too_long_dialogues, for comparisons.
      sampling_prompts: of a round, 1 to 5: prompts whose best answers are kept.
      bag_size: from V4 on, how many of the best answers of all rounds are kept; 0 is all.
      start_after_sampling: the stage whose model is fine-tuned on the best answers.
      demonstrations_after_sampling: of a round, 1 to 5: demonstrations that join its best answers.
      ghost_attention_dialogues: dialogues whose user turns are answered under a standing instruction (section 3.3).
      standing_instructions: constraints, combined to an instruction for dialogues that bring none of their own.
      adversarial_prompts: prompts for safety context distillation (section 4.2.4).
      safety_preprompts: what is put before them: generic preprompts, and answer templates by the prompts' category.
      ppo_prompts: prompts that PPO samples answers to.
      ppo_held_out_prompts: prompts that decide when PPO stops.
      evaluation_prompts: prompts that all versions answer in the evaluation; `seen` if training asks them too.
      diversity_prompts: prompts that are answered many times, to see how alike the answers are.
      diversity_kinds: of which categories their kinds are, "factual" and "creative".
      safety_files: of TruthfulQA, ToxiGen and BOLD the `files`, and whether an experiment does without them where they
        are not there, `optional` (section 4.1).
      borderline_prompts: harmless prompts that sound unsafe, to count false refusals; their `category` is their kind.
      labelled_refusals: answers with a `label`, whether they refuse (llama2_jax/evaluation/refusals.py), to measure the
        classifier that counts.
      instruction_dialogues: dialogues with an instruction, to measure over how many turns it is kept; `seen` if
        training uses its words.
      tools: what a model may call in its answers, and is asked with them (tool_sources.py).
      dates: what teaches a sense of time, and asks for it (date_sources.py).
      tasks: tasks of one turn (task_sources.py).
      other_recipes: what the recipes before Llama 2's train on: LIMA, Vicuna, Koala and Orca (other_recipes.py).
      imitation: a teacher's answers to imitate (imitation_sources.py).
      judge: who judges the versions' answers: a function's dotted path with its arguments.
    """

    pretraining: SourceDict
    tokenizer_dialogues: SourceDict
    smallest_vocabulary: int
    largest_vocabulary: int
    public_demonstrations: SourceDict
    held_out_public_demonstrations: SourceDict
    demonstrations: SourceDict
    held_out_demonstrations: SourceDict
    too_long_dialogues: str
    annotation_prompts: Callable[[int], SourceDict]
    test_comparisons: Callable[[str], int]
    annotator: dict
    ranker: dict
    annotator_kinds: tuple[str, ...]
    annotator_preferences: Callable[[Limit], SourceDict]
    preferences: Callable[[Limit], SourceDict]
    open_preferences: SourceDict
    test_preferences: SourceDict
    general_preferences: Callable[[Limit], SourceDict]
    general_test_preferences: SourceDict
    too_long_comparisons: str
    sampling_prompts: Callable[[int], SourceDict]
    bag_size: int
    start_after_sampling: str
    demonstrations_after_sampling: Callable[[int], SourceDict]
    ghost_attention_dialogues: SourceDict
    standing_instructions: SourceDict
    adversarial_prompts: SourceDict
    safety_preprompts: SourceDict
    ppo_prompts: SourceDict
    ppo_held_out_prompts: SourceDict
    evaluation_prompts: SourceDict
    diversity_prompts: SourceDict
    diversity_kinds: dict[str, tuple[str, ...]]
    safety_files: dict[str, dict]
    borderline_prompts: SourceDict
    labelled_refusals: SourceDict
    instruction_dialogues: SourceDict
    tools: ToolSources
    dates: DateSources
    tasks: TaskSources
    imitation: ImitationSources
    other_recipes: OtherRecipes
    judge: dict

    @property
    def annotator_inputs(self) -> dict[str, str]:
        """The stages that the annotator and the judge read, by their names there."""
        return {f"annotator_{kind}": f"annotator_{kind}" for kind in self.annotator_kinds}
