"""Parses command lines by absl and ml_collections; each verb has its own flags."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from absl import flags
from ml_collections import ConfigDict, config_flags

from resnet_jax.cli.config_files import resolved
from resnet_jax.errors import UserError, some, unknown_name

#: Kind of absl's `DEFINE_...`, name, default and help of a flag.
Definition = tuple[str, str, Any, str]

Number = TypeVar("Number", int, float)

JSON: Definition = ("bool", "json", False, "print one JSON object as the last line")

#: The flags of a run in several processes; see `distributed.initialize`.
PROCESSES: tuple[Definition, ...] = (
    ("string", "coordinator_address", None,
     "HOST:PORT of process 0; unset: found from the environment (TPU pods, SLURM, MPI)"),
    ("integer", "num_processes", None, "how many processes there are; 1: this one alone"),
    ("integer", "process_id", None, "which of them this is, from 0"),
    ("integer", "heartbeat_timeout", 60, "seconds after which a lost process ends the others"),
)  # fmt: skip


def verb_flags(*definitions: Definition) -> flags.FlagValues:
    """Defines flags, which may stand before and after positional arguments."""
    values = flags.FlagValues()
    values.set_gnu_getopt()
    flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)
    for kind, name, default, text in definitions:
        getattr(flags, f"DEFINE_{kind}")(name, default, text, flag_values=values)
    return values


def define_config(values: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
    """Adds `--config=FILE[:NET]` and `--config.FIELD=VALUE`, and returns the arguments with the file's path.

    Raises:
      UserError: for a file that there is not.
    """
    asks = bool({"--help", "-h"} & set(arguments))
    arguments = list(arguments) if asks else resolved(arguments)
    config_flags.DEFINE_config_file(
        "config", None, "config file, with the net's name after a colon; --config.FIELD=VALUE changes a field; "
        "docs/configuration.md lists the fields",
        flag_values=values, sys_argv=["resnet_jax", *arguments],
    )  # fmt: skip
    return arguments


def join_processes(values: flags.FlagValues) -> None:
    """Joins the other processes, if there are any."""
    from resnet_jax.training.distributed import initialize

    if values.coordinator_address is not None:
        print(
            f"process {values.process_id} of {values.num_processes}: joining at {values.coordinator_address}",
            file=sys.stderr,
        )
    initialize(values.coordinator_address, values.num_processes, values.process_id, values.heartbeat_timeout)


def parse(values: flags.FlagValues, usage: str, arguments: Sequence[str]) -> list[str]:
    """Parses the arguments after the verb and returns the positional ones.

    Raises:
      UserError: for anything that absl or ml_collections refuses.
      SystemExit: after printing the help, for --help.
    """
    if {"--help", "-h"} & set(arguments):
        print(f"usage: python -m resnet_jax {usage}\n")
        for name in sorted(values):
            if name not in ("help", "h"):
                default = values[name].default
                shown = f" ({default})" if isinstance(default, (int, float, str)) and default not in ("", False) else ""
                print(f"  --{name}: {values[name].help}{shown}")
        sys.exit(0)
    try:
        extra: list[str] = values(["resnet_jax", *arguments])[1:]
    except UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise _unknown_flag(values, error) from error
    except (AttributeError, KeyError) as error:  # ml_collections names only a part of the field
        _check_fields(arguments)
        if "has no attribute 'get_config'" in str(error):
            raise UserError("the config file has no function get_config(net), which returns the config") from error
        raise _config_fails(error) from error
    except (flags.Error, TypeError, ValueError, SyntaxError) as error:
        if "as a ConfigDict" in str(error):  # a value for a group of fields
            _check_fields(arguments)
        cause: BaseException | None = error
        while cause is not None and "Error whilst parsing config file" in str(cause):  # with the whole traceback
            cause = cause.__context__
        raise UserError(_one_line(error)) if cause is error else _config_fails(cause or error) from error
    except Exception as error:
        raise _config_fails(error.__cause__ or error) from error
    if "config" in values and values["config"].present and values.config is None:
        raise UserError("the config file's get_config returns no ConfigDict, but None")
    return extra


def numbers(values: flags.FlagValues, name: str, kind: Callable[[str], Number], what: str) -> list[Number]:
    """Returns the numbers of a list flag, which is called `what` in the message to a user's mistake."""
    given = values[name].value or []
    try:
        return [kind(text) for text in given]
    except ValueError:
        raise UserError(f"--{name}={','.join(given)} must be {what}") from None


def parse_with_config(values: flags.FlagValues, usage: str, arguments: Sequence[str], required: str) -> ConfigDict:
    """Parses the arguments of a verb that takes a config, another flag, and nothing else; returns the config.

    Args:
      values: the verb's own flags.
      usage: begins with the verb.
      arguments: those after the verb.
      required: the other flag that must be given.

    Raises:
      UserError: for what `parse` refuses, for a positional argument, and without one of the two.
    """
    verb = usage.partition(" ")[0]
    extra = parse(values, usage, define_config(values, arguments))
    if extra:
        raise UserError(f"{verb} takes no argument {extra[0]!r}; usage: {usage}")
    if values.config is None or not values[required].value:
        raise UserError(f"{verb} needs --config and --{required}; usage: {usage}")
    return read_config(values)


def read_config(values: flags.FlagValues) -> ConfigDict:
    """Returns the config; raises UserError if its file does not give one."""
    if isinstance(values.config, ConfigDict):
        return values.config
    # ml_collections keeps an OSError, such as that of a file that the config file reads, in the place of the config.
    if kept := getattr(values.config, "__dict__", {}).get("_error"):
        raise _config_fails(kept)
    raise UserError(f"the config file's get_config returns no ConfigDict, but {type(values.config).__name__}")


def _unknown_flag(values: flags.FlagValues, error: flags.UnrecognizedFlagError) -> UserError:
    """Returns the error for an unknown flag; one that is called like a field of the config is meant as that."""
    if "config" in values:
        from resnet_jax.config import base_config, flatten

        name = error.flagname.partition("=")[0]
        fields = [field for field in flatten(base_config()) if name in (field, field.rpartition(".")[2])]
        if fields:
            meant = " or ".join(f"--config.{field}" for field in fields)
            return UserError(f"there is no flag --{name}; did you mean {meant}?")
    return UserError(_one_line(error))


def _check_fields(arguments: Sequence[str]) -> None:
    """Raises UserError for the first `--config.NAME` that names no field, or a group of them."""
    from resnet_jax.config import base_config, flatten

    known = flatten(base_config())
    for name in (a.lstrip("-").partition("=")[0].removeprefix("config.") for a in arguments if "config." in a):
        if inside := [field for field in known if field.startswith(f"{name}.")]:
            inside.sort(key=lambda field: field != f"{name}.name")  # which is meant most often
            raise UserError(f"config.{name} is a group of fields, of which each is set: {some(inside, 4)}")
        if name not in known:
            raise unknown_name("config field", name, known)


def _config_fails(error: BaseException) -> UserError:
    """Returns the error for what a config file raised."""
    text = _one_line(error)
    return UserError(f"the config file fails: {type(error).__name__}{': ' + text if text else ''}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
