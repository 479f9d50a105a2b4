"""``edgeloop twin``: a version of a model on the digital twin, for whoever wants to know before anybody approves it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from edgeloop.commands.output import Context

if TYPE_CHECKING:
    from edgeloop.bootstrap import App
    from edgeloop.samples.profiles import Profile
    from edgeloop.samples.releases import Release
    from edgeloop.samples.service import Service
    from edgeloop.twin.records import TwinReport


@click.command()
@click.option("--service", "name", required=True, help="Name of the service.")
@click.option("--version", required=True, help="Model version, as MLflow counts them.")
@click.option("--profile", help="Hardware profile; default those of the service.")
@click.option("--again", is_flag=True, help="Rehearse although there is a report.")
@click.pass_obj
def twin(context: Context, name: str, version: str, profile: str | None, again: bool) -> None:
    """Rehearse a version: a confined node answers recent traffic, and takes rising load. Nothing is approved."""
    from edgeloop.bootstrap import App
    from edgeloop.twin.run import rehearse
    from edgeloop.twin.show import text

    app = App(context.settings)
    service = app.service(name)
    profiles = _profiles(app, service, profile)
    release = _release(app, service, version, profiles)
    reports = [rehearse(app.rehearsing, service, release, p, again=again, say=context.say) for p in profiles]
    told = {"service": name, "version": version, "release": release.digest, "reports": [_told(r) for r in reports]}
    context.result(told, "\n\n".join(map(text, reports)))
    if any(report.outcome == "fail" for report in reports):
        sys.exit(1)


def _profiles(app: App, service: Service, name: str | None) -> list[Profile]:
    from edgeloop.samples.profiles import load_profile

    return [load_profile(name, app.settings.profile_folders)] if name else app.twin_profiles(service)


def _release(app: App, service: Service, version: str, profiles: list[Profile]) -> Release:
    """What would be released; with a profile that the service does not name, a draft that has a variant for it."""
    from edgeloop.release.build import make_draft
    from edgeloop.samples.releases import parse_release, release_key

    known = app.registry.version(service.name, version)
    named = {*service.delivery.profiles, *(p.name for p in app.twin_profiles(service))}
    if any(one.name not in named for one in profiles):
        return make_draft(app.store, app.tables(service.name), app.fleet, service, known, profiles)
    digest = app.promotion.builder.build(service, known)
    return parse_release(app.store.get(release_key(service.name, digest)), digest)


def _told(report: TwinReport) -> dict[str, Any]:
    from edgeloop.samples.records import digest

    figures = {"agreement": report.agreement, "target_p99_ms": report.target_p99_ms}
    return {**report.model_dump(mode="json"), **figures, "report": digest(report.to_bytes())}
