"""The entry: argv in, exit status out. No traceback leaves here unless ``--debug`` asks for it.

Exit status: 0 done, 1 refused or failed, 2 usage and invalid input, 3 a node cannot be used, 130 interrupted; in the OCI
dialect 1 for everything that is not 0. Nothing but the parser is imported before the command needs it: ``nexcage --help``
should feel instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO, cast

from nexcage._cli.commands import COMMANDS
from nexcage._cli.parser import Call, Usage, parse
from nexcage._cli.streams import Streams, hold_standard_descriptors, one_line

__all__ = ["bare", "exit_status", "main", "tell"]

INTERRUPTED = 130


def main(
    argv: Sequence[str] | None = None,
    *,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Run one command line (``sys.argv`` when None); the exit status. Streams that are not given are the process's own."""
    if argv is None:
        hold_standard_descriptors()
        # In a locale that is not UTF-8 the interpreter reads letters as odd bytes; on a terminal they were UTF-8 all the same.
        argv = [os.fsencode(word).decode("utf-8", "surrogateescape") for word in sys.argv[1:]]
    streams = Streams(stdin or sys.stdin, stdout or sys.stdout, stderr or sys.stderr)
    status = _run(list(argv), streams)
    streams.flush()
    if streams.refused:
        streams.say(f"nexcage: cannot write the result to standard output: {streams.refused}")
        return status or 1
    return status


def _run(argv: list[str], streams: Streams) -> int:
    try:
        call = parse(argv)
        if call.name == "help":
            from nexcage._cli.help import help_for

            streams.write(help_for(call.words))
            return 0
    except Usage as error:
        return _from_plugin(argv, error, streams)
    return _logged(call, streams)


def _from_plugin(argv: list[str], error: Usage, streams: Streams) -> int:
    """A command that is none of ours may be one of an installed plugin."""
    if not error.unknown or error.oci:
        return _usage(error, streams)
    from nexcage._cli import verbs_plugins

    try:
        call = verbs_plugins.find(argv, error)
    except Usage as usage:
        return _usage(usage, streams)
    except Exception as trouble:
        return tell(Call(COMMANDS["help"], (), {}), trouble, streams)
    if isinstance(call, str):
        streams.write(call)
        return 0
    return _logged(call, streams)


def _logged(call: Call, streams: Streams) -> int:
    from nexcage._cli.log import Logs

    with Logs(call, streams):
        try:
            return _dispatch(call, streams)
        except Usage as error:
            return _usage(error, streams, call)
        except KeyboardInterrupt:
            if call.name != "events":  # following ends that way
                streams.say(f"nexcage: {call.name}: interrupted")
            return INTERRUPTED
        except Exception as error:
            return tell(call, error, streams)


def _dispatch(call: Call, streams: Streams) -> int:
    """The function of each command, imported when it is wanted."""
    if call.oci:
        from nexcage._cli.oci_words import check_arguments

        check_arguments(call)
    match call.name:
        case "version":
            from nexcage._cli.verbs_local import version

            return version(call, streams)
        case "completion" | "man":
            from nexcage._cli import verbs_local

            return (
                verbs_local.completion(call, streams) if call.name == "completion" else verbs_local.man(call, streams)
            )
        case "config show" | "config check" | "config convert" | "config schema":
            from nexcage._cli.verbs_config import config

            return config(call, streams)
        case "sim up" | "sim down" | "sim effects" | "sim path" | "sim fault":
            from nexcage._cli.verbs_sim import sim

            return sim(call, streams)
        case "plan":
            from nexcage._cli.verbs_plan import plan

            return plan(call, streams)
        case "spec":
            from nexcage._cli.verbs_spec import spec

            return spec(call)
        case "features":
            from nexcage._cli.oci_features import features

            return features(call, streams)
        case "doctor":
            from nexcage._cli.verbs_doctor import doctor

            return doctor(call, streams)
        case "plugins":
            from nexcage._cli.verbs_plugins import plugins

            return plugins(call, streams)
        case "create" | "run" if call.oci:
            from nexcage._cli.oci_launch import launch

            return launch(call, streams)
        case "kill" if call.oci and call.flag("all"):
            from nexcage._cli.oci_launch import kill

            return kill(call, streams)
        case "ps" | "events" | "exec" | "update" if call.oci:
            from nexcage._cli.oci_pass import passed

            return passed(call, streams)
        case "exec":
            from nexcage._cli.verbs_exec import execute

            return execute(call, streams)
        case "events":
            from nexcage._cli.verbs_events import events

            return events(call, streams)
        case _:
            from nexcage._cli.verbs_fleet import with_fleet

            return with_fleet(call, streams)


def exit_status(error: BaseException) -> int:
    """What an error means for the shell."""
    from nexcage.errors import InvalidInput, NodeError

    if isinstance(error, InvalidInput):
        return 2
    return 3 if isinstance(error, NodeError) else 1


def tell(call: Call, error: BaseException, streams: Streams) -> int:
    """One line that says what was tried and what is so, the notes below it; the exit status it means."""
    from nexcage.errors import NexcageError

    error = bare(error)
    if call.oci:
        from nexcage._cli.dialects import runc_message

        _as_runc(call, runc_message(call, error) if isinstance(error, Exception) else str(error), streams)
    else:
        streams.say(f"nexcage: {line_of(call, error)}")
        for note in getattr(error, "__notes__", ()):
            for part in str(note).splitlines():
                streams.say(f"  {one_line(part)}")
    if not isinstance(error, NexcageError) and call.flag("debug"):
        import traceback

        streams.say("".join(traceback.format_exception(error)).rstrip())
    elif not isinstance(error, (NexcageError, OSError)):
        streams.say("  this should not happen; the same command with --debug shows where")
    return 1 if call.oci else exit_status(error)


def bare(error: BaseException) -> BaseException:
    """The one error in groups of one."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        if len(group.exceptions) != 1:
            return group
        error = group.exceptions[0]
    return error


def line_of(call: Call, error: BaseException) -> str:
    """``cannot delete container 'web-1': it is running``; with the command in front where the error itself does not name it."""
    from nexcage.errors import NexcageError

    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, NexcageError):
        where = f" {error.filename!a}" if error.filename else ""
        text = f"{error.strerror or type(error).__name__}{where}"
    elif not isinstance(error, NexcageError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    text = one_line(" ".join(text.splitlines()))
    return text if text.startswith(("cannot ", "will not ")) else f"{call.name}: {text}"


def _usage(error: Usage, streams: Streams, call: Call | None = None) -> int:
    where = f"{error.command}: " if error.command else ""
    hint = f"{'' if str(error).endswith('?') else ';'} {error.hint}" if error.hint else ""
    text = one_line(f"{where}{error}{hint}")
    if error.oci:
        if call is not None:
            _as_runc(call, text, streams)
        else:
            streams.say(text)
        return 3 if error.unknown else 1  # as runc has it
    streams.say(f"nexcage: {text}")
    return 2


def _as_runc(call: Call, message: str, streams: Streams) -> None:
    # With --log the line goes to the file and the bare message to standard error: engines read both.
    from nexcage._cli.log import runc_line

    format = call.text("log_format") or "text"
    told = streams.tell_engine is not None and streams.tell_engine(message, format)
    if streams.heard:
        return
    if told:
        streams.say(one_line(message))
    else:
        streams.say(runc_line(message, "error", format))
