"""A small model with a tokenizer of its own, on disk: it talks, if not sense."""

from etils import epath

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import init_language_model, init_scalar_model
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.model_folder import save_model_description
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.random_model import sharpened_params
from tests.text.conftest import corpus
from tests.trained_tokenizer import trained_tokenizer

VOCABULARY = 480
CONFIG = ModelConfig(
    vocab_size=VOCABULARY, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=64, max_length=160, scan_layers=False
)


def write_talking_model(folder, head: str = "language", tokenizer: str = ".") -> None:
    """Writes a model folder; its weights are larger than an initialisation, so that what was said matters.

    Args:
      folder: where.
      head: "language" or "scalar".
      tokenizer: where tokenizer.model goes, from the folder.
    """
    folder = epath.Path(folder)
    init = init_language_model if head == "language" else init_scalar_model
    params = sharpened_params(CONFIG, init, 2, 0.05)
    save_model_description(folder, CONFIG, head)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(1, create_state(params, make_optimizer(OptimizerConfig())))
    trained_tokenizer(corpus(), VOCABULARY, folder / tokenizer / "tokenizer.model", 1.0)
