"""One request to an image registry: to the right scheme, with the right credentials, its failures as edgeloop's errors.

Plain http is for this machine, or for whoever asks for it by name: a token on an open line lets anyone replace the
models of a fleet.
"""

from __future__ import annotations

import ssl
import time
import weakref
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.clients.oci_auth import Challenge, Credentials, auth_file, read_challenge, read_credentials
from edgeloop.clients.oci_reference import is_loopback
from edgeloop.clients.oci_types import PlainHttp, RegistryDenied, RegistryRefused, RegistryUnavailable, Source

if TYPE_CHECKING:
    import httpx

#: Docker Hub answers under another name than the one in its images'.
_HOSTS = {"docker.io": "registry-1.docker.io"}
_BUSY = frozenset({429, 502, 503, 504})


class RegistryHttp:
    """Connections to one registry. They close with the object, or with the process: nobody need call `close`."""

    def __init__(self, registry: str, auth: Path | None, plain_http: bool, timeout: float, pause: float) -> None:
        import httpx

        self.name = registry
        self._auth = auth or auth_file()
        self._plain = plain_http
        self._pause = pause
        self._granted: dict[str, str] = {}
        as_is = {"Accept-Encoding": "identity", "User-Agent": "edgeloop"}  # digests are of what lies there
        # The system's certificates, which SSL_CERT_FILE replaces, and not those of a package.
        self._http = httpx.Client(timeout=timeout, verify=ssl.create_default_context(), headers=as_is)
        self.close = weakref.finalize(self, self._http.close)
        """Close the connections; once is enough, and again is harmless."""

    @cached_property
    def base(self) -> httpx.URL:
        """Scheme and host."""
        import httpx

        host = _HOSTS.get(self.name, self.name)
        is_open = self._plain or (is_loopback(host) and not self._speaks_tls(host))
        return httpx.URL(f"{'http' if is_open else 'https'}://{host}")

    def _speaks_tls(self, host: str) -> bool:
        import httpx

        try:
            self._http.get(f"https://{host}/v2/")
        except httpx.ConnectError as error:
            return "CERTIFICATE" in str(error)  # it does, and the request itself will say what is wrong with it
        except httpx.TransportError:
            return False
        return True

    def send(
        self,
        method: str,
        path: str,
        repository: str,
        *,
        body: Source | None = None,
        headers: Mapping[str, str] | None = None,
        missing_is_fine: bool = False,
    ) -> httpx.Response:
        """The registry's answer, its body not read yet: 2xx, or 404 where that is an answer too.

        A `path` may be the address that the registry gave for an upload. What is sent comes from a source and not from
        an iterator, since a registry may ask who is there at any time, and wants to be told the whole again.

        Raises:
            RegistryDenied, RegistryRefused, RegistryUnavailable, PlainHttp
        """
        url = self._resolve(path)
        answer = self._patiently(method, url, repository, body, headers)
        if answer.status_code == 401 and self._is_ours(answer.url):
            challenge = read_challenge(answer.headers.get("www-authenticate", ""))
            answer.close()
            self._granted[repository] = self._authorize(challenge, repository)
            answer = self._patiently(method, url, repository, body, headers)
        if answer.is_success or (answer.status_code == 404 and missing_is_fine):
            return answer
        raise self._failure(answer, f"{method} in {repository}", repository)

    def _resolve(self, path: str) -> httpx.URL:
        """Registries behind a proxy give addresses with the scheme that they see themselves: ours is right."""
        url = self.base.join(path)
        if url.host == self.base.host:
            return url.copy_with(scheme=self.base.scheme, port=self.base.port)
        self._check_open(url)
        return url

    def _is_ours(self, url: httpx.URL) -> bool:
        """Whether it is the registry itself, and not a place that it sends us to."""
        return (url.scheme, url.host, url.port) == (self.base.scheme, self.base.host, self.base.port)

    def _check_open(self, url: httpx.URL) -> None:
        near = is_loopback(self.base.host) and is_loopback(url.host)
        if url.scheme != "https" and not self._plain and not near:
            raise PlainHttp(
                f"registry {self.name} sends us to {url.host} over plain http: mend its address, or give --plain-http"
            )

    def _patiently(
        self, method: str, url: httpx.URL, repository: str, body: Source | None, headers: Mapping[str, str] | None
    ) -> httpx.Response:
        """A request whose repetition does no harm is repeated when the registry is busy for a moment."""
        tries = 3 if method in {"GET", "HEAD"} else 1
        for left in range(tries - 1, -1, -1):
            answer = self._once(method, url, repository, body, headers)
            if answer.status_code not in _BUSY or not left:
                break
            answer.close()
            time.sleep(self._pause)
        return answer

    def _once(
        self, method: str, url: httpx.URL, repository: str, body: Source | None, headers: Mapping[str, str] | None
    ) -> httpx.Response:
        import httpx

        all_ = dict(headers or {})
        if self._is_ours(url) and repository in self._granted:
            all_["Authorization"] = self._granted[repository]
        content: Iterator[bytes] | None = None
        if body is not None:
            all_["Content-Length"] = str(body.size)
            content = body.chunks()
        try:
            request = self._http.build_request(method, url, headers=all_, content=content)
            # What we read may lie elsewhere; a header with credentials does not go there.
            answer = self._http.send(request, stream=True, follow_redirects=method == "GET")
            if method == "HEAD" or (body is not None and answer.headers.get("content-length") == "0"):
                answer.read()  # an answer that was read to its end leaves its connection to the next request
            return answer
        except httpx.HTTPError as error:
            raise self.away(error) from error

    def away(self, error: Exception) -> RegistryUnavailable:
        """What to say when the connection failed."""
        said = str(error) or type(error).__name__
        hint = "make its authority one of the system's, or set SSL_CERT_FILE" if "CERTIFICATE" in said else "is it up?"
        return RegistryUnavailable(f"image registry {self.name} does not answer ({said:.200}): {hint}")

    def _authorize(self, challenge: Challenge | None, repository: str) -> str:
        known = read_credentials(self._auth, self.name, repository)
        if challenge is None:
            raise RegistryRefused(f"image registry {self.name} answered 401 and not how to log in: is it a registry?")
        if challenge.scheme == "bearer":
            return f"Bearer {self._token(challenge, repository, known)}"
        if known is None:
            raise RegistryDenied(self._login(f"asks who is there for {repository}"))
        return known.basic

    def _token(self, challenge: Challenge, repository: str, known: Credentials | None) -> str:
        """A token for `repository` (the distribution project's token authentication, and its OAuth 2 form)."""
        import httpx

        url = self.base.join(challenge.parameters.get("realm", ""))
        self._check_open(url)
        wanted = {
            "service": challenge.parameters.get("service", ""),
            "scope": challenge.parameters.get("scope") or f"repository:{repository}:pull,push",
        }
        try:
            if known and known.identity_token:
                form = {"grant_type": "refresh_token", "refresh_token": known.identity_token, "client_id": "edgeloop"}
                answer = self._http.post(url, data={**wanted, **form})
            else:
                headers = {"Authorization": known.basic} if known else {}
                answer = self._http.get(url, params=wanted, headers=headers)
        except httpx.HTTPError as error:
            raise self.away(error) from error
        if not answer.is_success:
            raise self._failure(answer, f"a token for {repository}", repository)
        try:
            given = answer.json()
            return str(given.get("token") or given["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise RegistryRefused(f"{url.host} gave no token for {self.name}: its answer is no token's") from error

    def _failure(self, answer: httpx.Response, what: str, repository: str) -> Exception:
        code = answer.status_code
        reason = _reason(answer)
        if code in (401, 403):
            return RegistryDenied(self._login(f"refused {what} ({code}{reason})"))
        if code in _BUSY or code >= 500:
            return RegistryUnavailable(
                f"image registry {self.name} answered {code} to {what}{reason}: run again, what has arrived stays"
            )
        hint = {
            404: f"is {repository} a repository there?",
            413: "raise the limit on a body of the proxy in front of it",
        }.get(code, "read the registry's log")
        return RegistryRefused(f"image registry {self.name} answered {code} to {what}{reason}: {hint}")

    def _login(self, what: str) -> str:
        return (
            f"image registry {self.name} {what}: log in with  skopeo login --authfile {self._auth} {self.name}"
            "  as someone who may"
        )


def _reason(answer: httpx.Response) -> str:
    """The registry's code and text on one line, short; bodies of others say nothing to people."""
    import httpx

    try:
        first = _read(answer, 1 << 16)
        error = httpx.Response(200, content=first).json()["errors"][0]
        return f" {error['code']}: {error.get('message', '')!s:.120}".rstrip(": ")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, httpx.HTTPError, httpx.StreamError):
        return ""
    finally:
        answer.close()


def _read(answer: httpx.Response, most: int) -> bytes:
    """The body, as far as ``most`` bytes; read before or not."""
    if answer.is_stream_consumed:
        return answer.content[:most]
    data = bytearray()
    for piece in answer.iter_bytes():
        data += piece
        if len(data) >= most:
            break
    return bytes(data[:most])


def read_whole(answer: httpx.Response, most: int) -> bytes | None:
    """The body, and the end of the answer; None when it is longer than ``most`` bytes."""
    try:
        data = _read(answer, most + 1)
    finally:
        answer.close()
    return data if len(data) <= most else None
