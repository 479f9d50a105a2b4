"""``edgeloop release push | export | images``: releases as OCI images, in a registry or in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeloop.commands.output import Context, table

if TYPE_CHECKING:
    from edgeloop.bootstrap import App
    from edgeloop.release.oci.base import Base
    from edgeloop.release.oci.contents import Kind
    from edgeloop.release.oci.images import Artifact
    from edgeloop.release.oci.records import Arch
    from edgeloop.samples.releases import Release


def _image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What ``push`` and ``export`` ask alike."""
    for option in (
        click.option("--plain-http", is_flag=True, help="Speak http to registries that are not on this machine."),
        click.option(
            "--arch",
            "arches",
            type=click.Choice(["amd64", "arm64"]),
            multiple=True,
            help="Kind of CPU, may be repeated; default both.",
        ),
        click.option("--base", help="Image below, REGISTRY/REPOSITORY@sha256:… or oci:FOLDER@sha256:…"),
        click.option(
            "--kind",
            type=click.Choice(["model", "predictor", "savedmodel"]),
            default="model",
            help="Files to mount, an image that answers by itself, or files for TensorFlow Serving.",
        ),
        click.option("--version", help="Model version; default the newest that was released."),
    ):
        command = option(command)
    return command


@click.command("push")
@click.argument("service")
@click.argument("image")
@_image_options
@click.pass_obj
def push_command(
    context: Context,
    service: str,
    image: str,
    version: str | None,
    kind: Kind,
    base: str | None,
    arches: tuple[Arch, ...],
    plain_http: bool,
) -> None:
    """Push a release of SERVICE to IMAGE (REGISTRY/REPOSITORY[:TAG]). What is there is not sent again."""
    from edgeloop.bootstrap import App
    from edgeloop.clients.oci_reference import parse
    from edgeloop.clients.oci_registry import HttpRegistry
    from edgeloop.release.images import Images
    from edgeloop.release.oci.push import push

    target = parse(image).without_digest()
    app = App(context.settings)
    release = _release(app, service, version)
    tag = target.tag or f"{release.version}-{kind}"
    with (
        _built(app, release, kind, base, arches, plain_http) as artifact,
        closing(HttpRegistry(target.registry, plain_http=plain_http)) as registry,
    ):
        context.say(f"pushing {kind} of {service} version {release.version} to {target.name}:{tag}")
        pushed = push(registry, target, artifact, tag)
    Images(app.fleet.database).add(service, release.digest, kind, target.name, pushed.digest)
    value = {
        "service": service,
        "version": release.version,
        "release": release.digest,
        "kind": kind,
        "reference": pushed.reference,
        "tag": tag,
        "digest": pushed.digest,
        "arches": [one.config.architecture for one in artifact.images],
        "sent": pushed.sent,
        "sent_bytes": pushed.sent_bytes,
        "mounted": pushed.mounted,
        "skipped": pushed.skipped,
        "uri": _uri(kind, base, pushed.reference),
    }
    words = f"{pushed.sent} blobs sent ({pushed.sent_bytes} bytes), {pushed.mounted} mounted, {pushed.skipped} there"
    context.result(value, "\n".join([f"{pushed.reference}: {words}", *_next_step(value)]))


@click.command("export")
@click.argument("service")
@click.argument("folder", type=click.Path(path_type=Path))
@_image_options
@click.pass_obj
def export_command(
    context: Context,
    service: str,
    folder: Path,
    version: str | None,
    kind: Kind,
    base: str | None,
    arches: tuple[Arch, ...],
    plain_http: bool,
) -> None:
    """Write a release of SERVICE to FOLDER as an OCI image layout."""
    from edgeloop.bootstrap import App
    from edgeloop.release.oci.layout import write_layout

    app = App(context.settings)
    release = _release(app, service, version)
    tag = f"{release.version}-{kind}"
    with _built(app, release, kind, base, arches, plain_http) as artifact:
        written = write_layout(folder, artifact, tag)
    value = {
        "service": service,
        "version": release.version,
        "release": release.digest,
        "kind": kind,
        "folder": str(folder),
        "tag": tag,
        "digest": artifact.digest,
        "written": written,
    }
    context.result(value, f"{folder} {'has' if written else 'had'} oci:{folder}:{tag} ({artifact.digest})")


@click.command("images")
@click.argument("service")
@click.pass_obj
def images_command(context: Context, service: str) -> None:
    """Show what releases of SERVICE were pushed as, newest first."""
    from edgeloop.bootstrap import App
    from edgeloop.release.images import Images

    app = App(context.settings)
    app.service(service)
    rows = Images(app.fleet.database).pushed(service)
    lines = [
        [str(r["release"])[:19], str(r["kind"]), f"{r['reference']}@{r['digest']}", f"{r['at']:%Y-%m-%d %H:%M}"]
        for r in rows
    ]
    text = table(lines, ["release", "kind", "image", "pushed"]) if rows else f"no release of {service} was pushed yet"
    context.result({"service": service, "images": rows}, text)


def _release(app: App, service: str, version: str | None) -> Release:
    from edgeloop.release.images import find_release

    app.service(service)
    return find_release(app.fleet, app.store, service, version, lambda name: app.channel.allowed(service, name))


@contextmanager
def _built(
    app: App, release: Release, kind: Kind, base: str | None, arches: tuple[Arch, ...], plain_http: bool
) -> Iterator[Artifact]:
    """The images of ``release``; layers of a base are read while the block lasts."""
    from edgeloop.release.oci.images import build_artifact
    from edgeloop.samples.releases import blob_key

    wanted: tuple[Arch, ...] = tuple(sorted({*arches})) or ("amd64", "arm64")
    with ExitStack() as stack:
        bases = open_bases(base, wanted, plain_http, stack)
        yield build_artifact(release, kind, wanted, bases, lambda name: app.store.get(blob_key(name)))


def open_bases(base: str | None, arches: tuple[Arch, ...], plain_http: bool, stack: ExitStack) -> dict[Arch, Base]:
    """The image ``base`` for each kind of CPU, none without one; registries stay open as long as ``stack``."""
    from edgeloop.clients.oci_reference import parse
    from edgeloop.clients.oci_registry import HttpRegistry
    from edgeloop.release.oci.base import read_base
    from edgeloop.release.oci.layout import Layout, parse_layout

    if base is None:
        return {}
    if base.startswith("oci:"):
        folder, digest = parse_layout(base)
        return {arch: read_base(Layout(folder), "", digest, arch) for arch in arches}
    reference = parse(base)
    digest = reference.pinned()
    registry = stack.enter_context(closing(HttpRegistry(reference.registry, plain_http=plain_http)))
    return {arch: read_base(registry, reference.repository, digest, arch) for arch in arches}


def _uri(kind: str, base: str | None, reference: str) -> str | None:
    """How KServe is told to mount the files: as a container of its own if there is a shell in it, else as a volume."""
    if kind == "predictor":
        return None
    return f"oci://{reference}" if base else f"oci+native://{reference}"


def _next_step(value: dict[str, Any]) -> list[str]:
    return [f"storageUri: {value['uri']}"] if value["uri"] else []
