"""The server of `tests.e2e.server`, over HTTP+SSE; it is at ``/sse`` of the host that it prints."""

from tests.e2e.server import answer_legacy_requests, server
from tests.e2e.serving import parse_port, quiet_deprecations, serve


def main() -> None:
    port = parse_port(__doc__ or "")
    quiet_deprecations()
    answer_legacy_requests()
    serve(server.sse_app(), port)


if __name__ == "__main__":
    main()
