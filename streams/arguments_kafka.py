"""The options of the commands that speak with Kafka: each is a setting, and stands in `streams.settings` alone.

A command that has them is made with `cls=Connected` (brokers and app id) or `cls=WithSettings` (every setting), takes
the context, and asks for its settings:

    @app.command(cls=Connected, rich_help_panel=LIVE)
    def load(ctx: typer.Context, …) -> None:
        settings = settings_of(ctx)

Laws of this file:

- An option is only what was typed: environment and file are looked at by `load_settings`, which remembers where each
  value came from.
- A secret is no option, for everybody on the machine can read the command line of a process: it is given in the
  environment or in the settings file.
- The settings are loaded only by a command that has them: `arrears --help` answers at once.
"""

# A command loads what it needs, no more.
# ruff: noqa: PLC0415

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import typer
from typer.core import TyperCommand

from streams.faults import Unusable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.settings import Settings

#: The heading under which `arrears --help` lists these commands.
LIVE: Final = "Live, on Kafka"
LOCAL_BROKER: Final = "A broker on this machine"

#: Where a context keeps what was typed, by the names of the settings, and of the settings file.
_TYPED: Final = f"{__name__}.typed"
_FILE: Final = "settings"


def settings_of(ctx: typer.Context, **more: object) -> Settings:
    """The settings as options, environment and settings file have them; `more` counts as typed. Raises `Unusable`."""
    from streams.settings import load_settings

    typed: dict[str, Any] = dict(ctx.meta.get(_TYPED, {}))
    file = typed.pop(_FILE, None)
    if file == "":  # an empty variable of a script: what the file says would be left out unnoticed
        raise Unusable("--settings is empty: name the settings file, or leave the option out")
    return load_settings(typed | more, file=file)


def typed(ctx: typer.Context, *names: str) -> list[str]:
    """Those of these options that stand on the command line, as one types them."""
    sources = {name: ctx.get_parameter_source(name) for name in names}
    return [
        f"--{name.replace('_', '-')}" for name, source in sources.items() if source and source.name == "COMMANDLINE"
    ]


class WithSettings(TyperCommand):
    """A command that has an option for every setting but the secrets, and one for the settings file."""

    #: The settings that it has options for; None: all of them.
    names: ClassVar[tuple[str, ...] | None] = None
    _declared = False

    # Everything that looks at a command's options asks here: parser, help, completion.
    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401  # click's or typer's own, depending on typer's version
        """The options of the command's own, then those of the settings."""
        if not self._declared:
            self.params = [*self.params, *_options(self.names)]
            self._declared = True
        return super().get_params(ctx)


class Connected(WithSettings):
    """A command that only has to find the brokers, and which app's topics it is about."""

    names: ClassVar[tuple[str, ...] | None] = ("brokers", "app_id")


# Declaring them -------------------------------------------------------------------------------------------------------


def _options(names: Iterable[str] | None) -> list[Any]:
    """The options, as typer makes them of the parameters of a function."""
    from streams.settings import Settings, default_of

    wanted = list(names or Settings.model_fields)
    parameters = [_parameter(_FILE, _settings_file(), ""), *(_parameter(n, _option(n), default_of(n)) for n in wanted)]

    def command() -> None: ...

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    made = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    made.command()(command)
    return list(typer.main.get_command(made).params)


def _parameter(name: str, option: object, default: str) -> inspect.Parameter:
    """The default is there to be shown: it was not typed, so it is not taken."""
    annotation = Annotated[str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default or None, annotation=annotation)


def _option(name: str) -> object:
    from streams.settings import Settings, default_of, form_of, group_of, is_secret, option_of, variable_of

    secret = is_secret(name)
    return typer.Option(
        option_of(name),
        metavar=form_of(name),
        envvar=variable_of(name),
        help=Settings.model_fields[name].description,
        show_default=bool(default_of(name)),
        rich_help_panel=group_of(name),
        hidden=secret,
        expose_value=False,
        callback=_refuse if secret else _remember,
    )


def _settings_file() -> object:
    from streams.settings import SETTINGS_VARIABLE

    return typer.Option(
        "--settings",
        metavar="FILE",
        envvar=SETTINGS_VARIABLE,
        help="Settings file (TOML), for what is given neither here nor in the environment. TLS and SASL are given in "
        "one of these two; `arrears settings` lists all there is.",
        show_default=False,
        expose_value=False,
        callback=_remember,
    )


def _remember(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> None:
    """Note what was typed; what comes from the environment is found there again."""
    if _is_typed(ctx, param):
        ctx.meta.setdefault(_TYPED, {})[param.name] = value


def _refuse(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> None:  # noqa: ARG001  # typer's own
    """Who types a secret has not seen what it is called elsewhere: it is told."""
    if _is_typed(ctx, param):
        raise Unusable(
            f"{param.opts[0]} would show it to everybody on this machine: "
            f"set {param.envvar}, or {param.name} in the settings file"
        )


def _is_typed(ctx: typer.Context, param: typer.CallbackParam) -> bool:
    source = ctx.get_parameter_source(str(param.name))
    return source is not None and source.name == "COMMANDLINE"
