"""Run an experiment: python -m llama2_jax.main --config=experiments/rlhf_v5.py[:scale]

Kept short so that the rest can be tested and used from a notebook: see recipe.run.
"""

import os
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from llama2_jax import recipe
from llama2_jax.sharding.machine import enable_compilation_cache, keep_freed_memory
from llama2_jax.training.loop import NonFiniteError

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment: experiments/<name>.py[:scale].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; by default runs/<experiment>-<scale>.")
_UNTIL = flags.DEFINE_string("until", "", "The last stage to run; all by default.")
_REDO = flags.DEFINE_string("redo", "", "A stage to run again, with what depends on it, although its config changed.")


def main(argv: list[str]) -> None:
    """Reads the flags and hands over to the recipe."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}; fields are set by --config.<stage>.<field>=")
    config = _CONFIG.value
    workdir = _WORKDIR.value or os.path.join("runs", f"{config.experiment}-{config.scale}")
    keep_freed_memory()
    enable_compilation_cache(os.path.expanduser(config.compilation_cache))
    try:
        recipe.run(config, os.path.abspath(workdir) if "://" not in workdir else workdir, _UNTIL.value, _REDO.value)
    except (ValueError, FileNotFoundError, FloatingPointError, NonFiniteError) as error:
        # What the user can mend is said in one message; --verbosity=1 shows where it came from.
        logging.debug("the error came from here", exc_info=True)
        sys.exit(f"error: {error}")
    logging.info("done: %s", workdir)


def _read_flags(arguments: list[str]) -> list[str]:
    """absl's parser; a field or a file that is not there is answered in one message."""
    try:
        remaining = app.parse_flags_with_usage(arguments)
        _ = _CONFIG.value.stages
    except (AttributeError, OSError) as error:
        sys.exit(f"error: --config: {error}")
    return remaining


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=_read_flags)
