"""Run an experiment: python -m llama2_jax.main --config=experiments/rlhf_v5.py[:<scale>[,<data>]] [--distributed]

Kept short so that the rest can be tested and used from a notebook: see recipe.run.
"""

import errno
import itertools
import os
import re
import sys
import traceback

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from llama2_jax import dry_run, recipe, rehearsal
from llama2_jax.annotation.chat_client import BudgetError, ChatError
from llama2_jax.config_paths import named_fields, what_is_wrong
from llama2_jax.hub.address import is_address
from llama2_jax.models.config import EXECUTION_FIELDS
from llama2_jax.paths import absolute, expand_home
from llama2_jax.print_config import config_text
from llama2_jax.sharding.machine import enable_compilation_cache, hide_absent_platforms, keep_freed_memory
from llama2_jax.sharding.processes import HEARTBEAT_SECONDS, FirstProcessError, JoinError, join, leave
from llama2_jax.sharding.xla_flags import set_xla_flags
from llama2_jax.training.interruption import InterruptedRunError, watched_signals
from llama2_jax.training.loop import NonFiniteError
from llama2_jax.training.wandb_run import import_wandb

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment: experiments/<name>.py[:<scale>[,<data>]].")
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Where results go; by default runs/<experiment>-<scale>, with -<data> if that is not the scale's default, and with "
    "-rehearsal for one.",
)
_UNTIL = flags.DEFINE_string("until", "", "The last stage to run; all by default.")
_REDO = flags.DEFINE_string("redo", "", "A stage to run again, with what depends on it, although its config changed.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Run as one of several processes; see docs/scale.md.")
_HEARTBEAT_TIMEOUT = flags.DEFINE_integer(
    "heartbeat_timeout", HEARTBEAT_SECONDS, "Seconds of silence after which a process counts as dead, and all end."
)
_STEP_TIMEOUT = flags.DEFINE_float(
    "step_timeout",
    1800.0,
    "Seconds without a finished training step or shard of answers after which the process ends; 0: never.",
)
_WANDB = flags.DEFINE_string("wandb", "", "A project on Weights & Biases that metrics go to besides.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what each stage will need of each device, and run nothing.")
_DRY_RUN_JSON = flags.DEFINE_string("dry_run_json", "", "With --dry_run: a file to write the same to, as JSON.")
_REHEARSE = flags.DEFINE_bool(
    "rehearse", False, "Run all stages on the CPU with a small model and fewer steps and records; see docs/scale.md."
)
_PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the experiment as it would run, and run nothing.")
_STAGES = flags.DEFINE_list("stages", [], "With --dry_run or --print_config: only these stages.")
_TOPOLOGY = flags.DEFINE_string("topology", "", "With --dry_run: a TPU slice to compile for, such as v5p:8x8x8.")
_XLA_FLAGS = flags.DEFINE_enum(
    "xla_flags", "default", ["default", "none"], "The compiler's flags: our table for the platform, or none of it."
)

_CONFIG_FILE = re.compile(r"^--?config=(.*)$", re.DOTALL)


def main(argv: list[str]) -> None:
    """Reads the flags and hands over to the recipe."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}; fields are set by --config.<stage>.<field>=")
    config = _CONFIG.value
    workdir = _folder("--workdir", _WORKDIR.value or _default_workdir(config))
    _check_flags()
    if not _PRINT_CONFIG.value:
        _prepare(
            _folder("config.compilation_cache", config.compilation_cache),
            rehearsal.devices(config) if _REHEARSE.value else 0,
        )
    try:
        if _PRINT_CONFIG.value:
            print(config_text(config, _UNTIL.value, _STAGES.value))
            return
        if _DRY_RUN.value:
            sys.exit(dry_run.main(config, _UNTIL.value, _STAGES.value, _TOPOLOGY.value, _DRY_RUN_JSON.value))
        with watched_signals() as interruption:
            run = rehearsal.main if _REHEARSE.value else recipe.run
            run(
                config,
                absolute(workdir),
                _UNTIL.value,
                _REDO.value,
                interruption=interruption,
                step_timeout=_STEP_TIMEOUT.value,
                wandb_project=_WANDB.value,
            )
    except InterruptedRunError as stop:
        # All processes get here together.
        logging.info("%s; the same command resumes from there", stop)
        sys.exit(stop.exit_code)
    except Exception as error:
        message = _in_one_line(error, workdir)
        if message is None and not _DISTRIBUTED.value:
            raise
        # One message for what the user can fix; --verbosity=1 shows where it was raised.
        logging.debug("the error was raised here", exc_info=True)
        print(message or traceback.format_exc(), file=sys.stderr)
        if _DISTRIBUTED.value:
            leave(1)
        sys.exit(1)
    logging.info("done: %s", workdir)


def _folder(name: str, path: str) -> str:
    """Returns the folder for what a run writes, from a flag or field; ends the program if there can be none."""
    try:
        folder = expand_home(path)
    except ValueError as error:
        sys.exit(f"error: {name}={error}")
    if is_address(folder):
        sys.exit(f"error: {name}={folder}: nothing is written to the hub; wanted a local folder, or one on gs://")
    return folder


def _default_workdir(config: ConfigDict) -> str:
    variant = config.get("variant", config.scale)
    return f"runs/{config.experiment}-{variant}{'-rehearsal' if _REHEARSE.value else ''}"


def _check_flags() -> None:
    if _REHEARSE.value and (_DRY_RUN.value or _PRINT_CONFIG.value or _DISTRIBUTED.value):
        raise app.UsageError("--rehearse runs by itself, without --dry_run, --print_config and --distributed")
    if not _DRY_RUN.value and (_TOPOLOGY.value or _DRY_RUN_JSON.value):
        raise app.UsageError("--topology and --dry_run_json belong to --dry_run")
    if _WANDB.value:
        try:
            import_wandb()
        except ValueError as error:
            raise app.UsageError(str(error)) from None
    if _STAGES.value and not (_DRY_RUN.value or _PRINT_CONFIG.value):
        raise app.UsageError("--stages belongs to --dry_run and --print_config; see also --until")


def _prepare(compilation_cache: str, emulated_devices: int) -> None:
    """Sets up the process and, if it is one of several, joins the others, before devices are used.

    Args:
      compilation_cache: the folder of compiled programs.
      emulated_devices: if not 0, the run is on so many emulated devices of the CPU.
    """
    if emulated_devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", emulated_devices)
    if _XLA_FLAGS.value == "default":
        set_xla_flags()
    if logging.get_verbosity() < logging.DEBUG:
        hide_absent_platforms()
    keep_freed_memory()
    enable_compilation_cache(compilation_cache)
    if _DISTRIBUTED.value:
        _join()


def _join() -> None:
    try:
        join(_HEARTBEAT_TIMEOUT.value)
    except JoinError as error:
        sys.exit(f"error: {error}")
    if jax.process_index():
        # The first process logs for all.
        logging.set_verbosity(logging.WARNING)


def _in_one_line(error: Exception, workdir: str) -> str | None:
    """Returns the message of an error that the user can fix; None for others."""
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if is_full or (isinstance(error, OSError) and error.filename and error.strerror):
        return f"error: {error.filename or workdir}: {error.strerror}"
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        fields = ", ".join(f"config.model.{field}" for field in EXECUTION_FIELDS)
        return (
            f"error: a device is out of memory: {str(error).splitlines()[0]}\n"
            f"The same command resumes with another {fields} or config.mesh; --dry_run prints what each stage needs of "
            "each device."
        )
    # What is imported for a storage or a config and is not installed says what to install.
    shown = ValueError | FileNotFoundError | ImportError | FloatingPointError
    shown |= NonFiniteError | FirstProcessError | BudgetError | ChatError
    if isinstance(error, shown):
        return f"error: {error}"
    return None


def _read_flags(arguments: list[str]) -> list[str]:
    """Parses flags as absl does; a missing field or file ends in one message."""
    # A shell that sees "--config ~/mine.py" has expanded it.
    arguments = [_CONFIG_FILE.sub(lambda flag: f"--config={os.path.expanduser(flag[1])}", one) for one in arguments]
    try:
        remaining = app.parse_flags_with_usage(arguments)
        _ = _CONFIG.value.stages
    except OSError as error:
        sys.exit(f"error: --config: {error}")
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if wrong := _wrong_field(arguments):
            sys.exit(f"error: {wrong}")
        if isinstance(error, AttributeError):
            sys.exit(f"error: --config: {error}")
        raise
    return remaining


def _wrong_field(arguments: list[str]) -> str:
    """Returns what is wrong with the first flag that sets a field which the experiment does not have."""
    files = [flag[1] for flag in map(_CONFIG_FILE.fullmatch, arguments) if flag]
    files += [file for flag, file in itertools.pairwise(arguments) if flag in ("--config", "-config")]
    if files and (fields := named_fields(arguments)):
        config = flags.FLAGS["config"].parser.parse(files[-1])
        wrong = {field: what_is_wrong(config, field) for field in fields}
        return next((f"--config.{field}: {reason}" for field, reason in wrong.items() if reason), "")
    return ""


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=_read_flags)
