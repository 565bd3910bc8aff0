"""``shadowcat completions``: a script by which a shell completes our command line.

It is made from the parser itself, so it knows every option there is.  An argument
whose metavar is FILE or PEM is completed as a file, DIR as a directory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import attrs
import trio

from .options import Subparsers

_EXAMPLE: Final = """\
examples:
  source <(shadowcat completions bash)
  shadowcat completions zsh > ~/.zfunc/_shadowcat
  shadowcat completions fish > ~/.config/fish/completions/shadowcat.fish
"""

FILE: Final = "@file"
DIRECTORY: Final = "@directory"
PROGRAM: Final = "@program"
"""A command of the system and its arguments, after ``--``."""

_KINDS: Final = {"FILE": FILE, "PEM": FILE, "DIR": DIRECTORY, "COMMAND": PROGRAM}


@attrs.frozen
class Argument:
    """What may stand at a place: one of some words, or what a kind says; anything if it has neither."""

    name: str
    words: Sequence[str]
    kind: str = ""


@attrs.frozen
class Option:
    """An option, under all its names."""

    names: Sequence[str]
    text: str
    argument: Argument | None
    is_repeated: bool


@attrs.frozen
class Command:
    """What may follow a command: options, and either other commands or arguments."""

    path: str
    """From the name of the program on, with spaces."""
    text: str
    options: Sequence[Option]
    arguments: Sequence[Argument]
    commands: Sequence[Command]

    @property
    def name(self) -> str:
        """The last word of the path."""
        return self.path.rpartition(" ")[2]

    def walk(self) -> Iterator[Command]:
        """Yield this command and all below it."""
        yield self
        for command in self.commands:
            yield from command.walk()


def add_parser(commands: Subparsers, root: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the command to *commands* and return its parser; *root* is what is completed."""
    parser = commands.add_parser(
        "completions",
        help="print a script that completes this command line in a shell",
        description="Print a script by which bash, zsh or fish completes commands, options and their values.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=tuple(SHELLS), help="the shell that will read it")
    parser.set_defaults(run=partial(run, root))
    return parser


async def run(root: argparse.ArgumentParser, args: argparse.Namespace, shutdown: trio.Event) -> None:
    """Print the script.  A checkpoint; nothing is printed if cancelled."""
    await trio.lowlevel.checkpoint()
    print(write_script(args.shell, root), end="")


def write_script(shell: str, root: argparse.ArgumentParser) -> str:
    """Return what completes the command line of *root* in *shell*."""
    return SHELLS[shell](read_command(root, root.prog, ""))


def read_command(parser: argparse.ArgumentParser, path: str, text: str) -> Command:
    """Return what *parser* accepts."""
    expand = parser._get_formatter()._expand_help
    options, arguments, commands = [], [], []
    for action in parser._actions:
        if action.help is argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):
            said = {choice.dest: choice.help or "" for choice in action._choices_actions}
            commands = [read_command(below, f"{path} {name}", said[name]) for name, below in action.choices.items()]
        elif action.option_strings:
            is_repeated = isinstance(action, argparse._AppendAction)
            argument = None if action.nargs == 0 else _read_argument(action)
            options.append(Option(action.option_strings, expand(action), argument, is_repeated))
        else:
            arguments.append(_read_argument(action))
    return Command(path, text, options, arguments, commands)


def _read_argument(action: argparse.Action) -> Argument:
    name = str(action.metavar or action.dest.upper())
    return Argument(name, [str(choice) for choice in action.choices or ()], _KINDS.get(name, ""))


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# ---------------------------------------------------------------------------- bash

_BASH: Final = r"""# Completes shadowcat in bash; printed by: shadowcat completions bash

# What may follow a command.
__shadowcat_next() {
    case $1 in
NEXT
    esac
}

# What may follow an option of a command; fails if it takes nothing.
__shadowcat_value() {
    case $1 in
VALUES
    *) return 1 ;;
    esac
}

_shadowcat() {
    local path=shadowcat cur=${COMP_WORDS[COMP_CWORD]} option= wanted= candidate i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -- ]]; then
            option=--
            break
        elif [[ -n $option ]]; then
            # Bash takes the = in --option=value for a word.
            [[ ${COMP_WORDS[i]} == = ]] || option=
        elif __shadowcat_value "$path ${COMP_WORDS[i]}" >/dev/null; then
            option=${COMP_WORDS[i]}
        elif [[ " $(__shadowcat_next "$path") " == *" ${COMP_WORDS[i]} "* && ${COMP_WORDS[i]} != -* ]]; then
            path="$path ${COMP_WORDS[i]}"
        fi
    done
    if [[ $option == -- ]]; then
        wanted=@file
        ((i + 1 == COMP_CWORD)) && wanted=@program
    elif [[ -n $option ]]; then
        wanted=$(__shadowcat_value "$path $option")
        [[ $cur == = ]] && cur=
    else
        wanted=$(__shadowcat_next "$path")
    fi
    for candidate in $wanted; do
        case $candidate in
        @file) compopt -o filenames 2>/dev/null; mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$cur") ;;
        @directory) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        @program) mapfile -t COMPREPLY < <(compgen -c -- "$cur" | sort -u) ;;
        "$cur"*) COMPREPLY+=("$candidate") ;;
        esac
    done
}

complete -F _shadowcat shadowcat
"""


def _write_bash(root: Command) -> str:
    following, values = [], []
    for command in root.walk():
        words = [below.name for below in command.commands]
        for argument in command.arguments:
            words += _candidates(argument) if argument.kind != PROGRAM else ["--"]
        words += [name for option in command.options for name in option.names]
        following.append(f"    {_quote(command.path)}) echo {_quote(' '.join(words))} ;;")
        for option in command.options:
            if option.argument is not None:
                places = "|".join(_quote(f"{command.path} {name}") for name in option.names)
                values.append(f"    {places}) echo {_quote(' '.join(_candidates(option.argument)))} ;;")
    return _BASH.replace("NEXT", "\n".join(following)).replace("VALUES", "\n".join(values))


def _candidates(argument: Argument) -> list[str]:
    return [*argument.words, *([argument.kind] if argument.kind else [])]


# ----------------------------------------------------------------------------- zsh

_ZSH: Final = r"""#compdef shadowcat
# Completes shadowcat in zsh; printed by: shadowcat completions zsh

FUNCTIONS
if [[ $funcstack[1] == _shadowcat ]]; then
    _shadowcat "$@"
else
    compdef _shadowcat shadowcat
fi
"""

_ZSH_PROGRAM: Final = """\
    local -i at=$words[(i)--]
    if (( at < CURRENT )); then
        shift at words
        (( CURRENT -= at ))
        _normal
        return
    fi
"""

_ZSH_COMMANDS: Final = """\
    case $state in
    command)
        local -a names=({names})
        _describe command names
        ;;
    rest)
        case $words[1] in
        {choices}) _{function}_$words[1] ;;
        esac
        ;;
    esac
"""


def _write_zsh(root: Command) -> str:
    return _ZSH.replace("FUNCTIONS", "\n".join(_zsh_function(command) for command in root.walk()))


def _zsh_function(command: Command) -> str:
    function = command.path.replace(" ", "_")
    specs = [spec for option in command.options for spec in _zsh_option(option)]
    before = after = ""
    if command.commands:
        specs += [":command:->command", "*::argument:->rest"]
        names = " ".join(_quote(f"{below.name}:{below.text}") for below in command.commands)
        choices = "|".join(below.name for below in command.commands)
        after = _ZSH_COMMANDS.format(names=names, choices=choices, function=function)
    for argument in command.arguments:
        if argument.kind == PROGRAM:
            before = _ZSH_PROGRAM
        else:
            specs.append(f":{argument.name}:{_zsh_action(argument)}")
    lines = "".join(f" \\\n        {_quote(spec)}" for spec in specs)
    local = "    local curcontext=$curcontext state line\n    typeset -A opt_args\n"
    return f"_{function}() {{\n{local}{before}    _arguments -C{lines}\n{after}}}\n"


def _zsh_option(option: Option) -> Iterator[str]:
    text = "".join(f"\\{letter}" if letter in "\\[]:" else letter for letter in option.text)
    others = "" if option.is_repeated else f"({' '.join(option.names)})"
    for name in option.names:
        if option.argument is None:
            yield f"{others}{name}[{text}]"
        else:
            takes = f":{option.argument.name.replace(':', ' ')}:{_zsh_action(option.argument)}"
            yield f"{others}{'*' if option.is_repeated else ''}{name}=[{text}]{takes}"


def _zsh_action(argument: Argument) -> str:
    if argument.words:
        return f"({' '.join(argument.words)})"
    return {FILE: "_files", DIRECTORY: "_files -/"}.get(argument.kind, " ")


# ---------------------------------------------------------------------------- fish

_FISH: Final = """\
# Completes shadowcat in fish; printed by: shadowcat completions fish

complete -c shadowcat -f
"""


def _write_fish(root: Command) -> str:
    return _FISH + "".join(
        f"complete -c shadowcat {line}\n" for command in root.walk() for line in _fish_lines(command)
    )


def _fish_lines(command: Command) -> Iterator[str]:
    words = command.path.split()[1:]
    seen = [f"__fish_seen_subcommand_from {word}" for word in words]
    here = " && ".join([*seen, "not contains -- -- (commandline -opc)"])
    names = " ".join(below.name for below in command.commands)
    only = f"{here} && not __fish_seen_subcommand_from {names}" if names else here
    for below in command.commands:
        yield f"-n {_quote(only)} -a {below.name} -d {_quote(below.text)}"
    for option in command.options:
        flags = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
        yield f"-n {_quote(only)} {flags}{_fish_argument(option.argument)} -d {_quote(option.text)}"
    for argument in command.arguments:
        if argument.kind == PROGRAM:
            after = " && ".join([*seen, "contains -- -- (commandline -opc)"])
            yield f"-n {_quote(after)} -F -a '(__fish_complete_command)'"
        elif argument.words:
            yield f"-n {_quote(here)} -a {_quote(' '.join(argument.words))}"
        elif argument.kind:
            yield f"-n {_quote(here)} -F"


def _fish_argument(argument: Argument | None) -> str:
    if argument is None:
        return ""
    if argument.words:
        return f" -xa {_quote(' '.join(argument.words))}"
    return {FILE: " -rF", DIRECTORY: " -xa '(__fish_complete_directories)'"}.get(argument.kind, " -x")


SHELLS: Final[Mapping[str, Callable[[Command], str]]] = {"bash": _write_bash, "zsh": _write_zsh, "fish": _write_fish}
