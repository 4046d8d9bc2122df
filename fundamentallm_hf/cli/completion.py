"""`fundamentallm completion`."""

import click

from .options import CONTEXT

SHELLS = ("bash", "zsh", "fish")


@click.command(context_settings=CONTEXT)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete the command's options.

    \b
    eval "$(fundamentallm completion bash)"           # in ~/.bashrc
    eval "$(fundamentallm completion zsh)"            # in ~/.zshrc
    fundamentallm completion fish > ~/.config/fish/completions/fundamentallm.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "fundamentallm", "_FUNDAMENTALLM_COMPLETE").source())
