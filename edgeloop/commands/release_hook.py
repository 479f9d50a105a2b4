"""``edgeloop release hook``: the receiver of MLflow's webhooks."""

from __future__ import annotations

from pathlib import Path

import click

from edgeloop.commands.output import Context


@click.command("hook")
@click.option("--port", type=click.IntRange(0, 65535), default=5050, show_default=True, help="Port; 0: any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--url", help="Address that MLflow is told (default: http://HOST:PORT/mlflow).")
@click.option("--secret", type=click.Path(path_type=Path, dir_okay=False), help="File of the secret.")
@click.option("--no-register", is_flag=True, help="Tell MLflow nothing: somebody made the webhook there.")
@click.pass_obj
def hook(context: Context, port: int, host: str, url: str | None, secret: Path | None, no_register: bool) -> None:
    """Listen for MLflow's webhooks until Ctrl-C, so that an alias is seen at once and not with the next poll."""
    from edgeloop.bootstrap import App
    from edgeloop.clients.registry import MlflowRegistry
    from edgeloop.clients.registry_hooks import ensure_webhook
    from edgeloop.promotion.hook import PATH, Hook
    from edgeloop.promotion.listening import bind
    from edgeloop.promotion.nudging import nudge
    from edgeloop.promotion.serving import serve_hook
    from edgeloop.promotion.signature import ensure_secret

    app = App(context.settings)
    word = ensure_secret(secret or app.settings.keys_folder / "webhook.secret")
    registry = MlflowRegistry(app.settings.mlflow)

    with bind(host, port) as listener:
        number = listener.getsockname()[1]
        told = url or f"http://{f'[{host}]' if ':' in host else host}:{number}{PATH}"
        context.result({"address": told, "port": number}, f"MLflow's webhooks are heard at {told}")
        receiver = Hook(word, lambda name: nudge(app.orchestrator, name), lambda name: name in app.services())
        serve_hook(receiver, listener, None if no_register else lambda: ensure_webhook(registry, told, word))
