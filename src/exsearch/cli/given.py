"""What was given on a command line, as another command line can repeat it.

It does not know what options mean.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import click

_ARGUMENTS = "exsearch.arguments"  # in a context's `meta`


class Remembering(click.Command):
    """A command that remembers its command line, for `given_options`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


def given_options(
    ctx: click.Context, *, leave_out: Collection[str], instead: Mapping[str, str]
) -> list[str]:
    """The options that a user gave to a `Remembering` command; defaults are not among them.

    Args:
        ctx: The context of the command.
        leave_out: The names of options that are not repeated.
        instead: Values that replace the given ones, by the option's name.
    """
    values, _, _ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta[_ARGUMENTS]))
    words: list[str] = []
    for option in ctx.command.params:
        if not isinstance(option, click.Option) or option.name in leave_out:
            continue
        if option.name not in values:
            continue
        value = instead.get(option.name, values[option.name])
        if option.is_flag:
            words.append((option.opts if value else option.secondary_opts)[0])
        elif option.count:
            words += [option.opts[0]] * int(value)
        else:
            for one in value if option.multiple else [value]:
                words += [option.opts[-1], one]
    return words
