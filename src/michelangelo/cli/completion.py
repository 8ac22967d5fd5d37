"""`mactl completion`: the script that teaches a shell our commands, options and kinds."""

from __future__ import annotations

import click
from click import shell_completion

from michelangelo import errors

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      mactl completion bash > ~/.local/share/bash-completion/completions/mactl
      mactl completion zsh > "${fpath[1]}/_mactl"
      mactl completion fish > ~/.config/fish/completions/mactl.fish
    """
    root = ctx.find_root()
    program = root.info_name or "mactl"
    found = shell_completion.get_completion_class(shell)
    if found is None:
        raise errors.SettingsError(f"there is no completion for {shell}")
    click.echo(found(root.command, {}, program, f"_{program.upper()}_COMPLETE").source())
