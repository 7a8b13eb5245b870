"""The arguments and options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.settings import default_home

if TYPE_CHECKING:
    from server.client import Client


def _remember(context: typer.Context, value: bool) -> bool:
    context.meta["json"] = value  # read again when an error is reported
    return value


File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A job specification in YAML or JSON.")]
Id = Annotated[str, typer.Argument(help="The job's id, or its beginning.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Another value of a field, such as phases[0].lr=3.0e-3."),
]
Json = Annotated[bool, typer.Option("--json", callback=_remember, help="Print JSON.")]
Home = Annotated[
    Path,
    typer.Option(
        "--home",
        default_factory=default_home,
        show_default="$BIGBATCH_HOME or ~/.bigbatch",
        resolve_path=True,
        help="Folder of the server's state.",
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="BIGBATCH_URL", help="Address of another server: HOST:PORT, or a link that `serve` printed."
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="BIGBATCH_TOKEN",
        help="The token of that server. Other users of this machine may see arguments; they do not see BIGBATCH_TOKEN.",
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65_535, help="Port to listen on.")]
PriorityPerHour = Annotated[
    float,
    typer.Option(
        "--priority-per-hour",
        envvar="BIGBATCH_PRIORITY_PER_HOUR",
        min=0.0,
        max=1e6,
        help="How much an hour of waiting raises a job's priority, so that no job waits for ever.",
    ),
]
JobsPerOwner = Annotated[
    int | None,
    typer.Option(
        "--jobs-per-owner",
        envvar="BIGBATCH_JOBS_PER_OWNER",
        min=1,
        show_default="no limit",
        help="How many jobs of one owner may be on the cluster at a time.",
    ),
]
LogJson = Annotated[
    bool,
    typer.Option("--log-json", envvar="BIGBATCH_LOG_JSON", help="Write each line of the log as a JSON object."),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert",
        envvar="BIGBATCH_TLS_CERT",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        resolve_path=True,
        help="Serve HTTPS with this certificate: a PEM file, followed by the certificates that signed it.",
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(
        "--tls-key",
        envvar="BIGBATCH_TLS_KEY",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        resolve_path=True,
        help="The key of that certificate, a PEM file, where the same file does not hold both.",
    ),
]
WithoutTls = Annotated[
    bool,
    typer.Option(
        "--without-tls",
        envvar="BIGBATCH_WITHOUT_TLS",
        help="Let other machines reach the server by plain HTTP. Whoever reads the network reads the tokens.",
    ),
]
RootPath = Annotated[
    str,
    typer.Option(
        "--root-path",
        envvar="BIGBATCH_ROOT_PATH",
        metavar="PATH",
        show_default="none",
        help="Serve everything below this path, such as /bigbatch, as a proxy does that serves other things beside it.",
    ),
]
TrustedProxies = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy",
        envvar="BIGBATCH_TRUSTED_PROXY",
        metavar="ADDRESS",
        help="Believe X-Forwarded-For and X-Forwarded-Proto of a proxy with this address, or in this network; can be "
        "repeated. In the variable, a space stands between addresses.",
    ),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host",
        envvar="BIGBATCH_ALLOWED_HOST",
        metavar="NAME",
        help="Answer to this host name beside the server's own: the one by which browsers call a proxy; can be "
        "repeated. In the variable, a space stands between names.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="BIGBATCH_STORAGE",
        metavar="URL",
        help="Store checkpoints of new jobs below this URL, such as s3://BUCKET/runs. "
        "Credentials come from the environment.",
    ),
]
DataRoots = Annotated[
    list[Path] | None,
    typer.Option(
        "--data-root",
        envvar="BIGBATCH_DATA_ROOT",
        metavar="FOLDER",
        exists=True,
        file_okay=False,
        help="Let jobs name files of this machine only below this folder; can be repeated. Without it, they may name "
        "all files but those of the system and of the server itself. In the variable, a colon stands between folders.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="BIGBATCH_RAY_ADDRESS",
        metavar="URL",
        help="Run jobs on the Ray cluster whose dashboard has this address, such as http://head:8265, and start none. "
        "$RAY_AUTH_TOKEN or the file $RAY_AUTH_TOKEN_PATH holds its token.",
    ),
]


def connected(home: Path, url: str | None, token: str | None) -> "Client":
    """Return the server that these options lead to."""
    from server.client import Client

    return Client(home, url, token)
