"""The commands about a server and its machine: serve, demo, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import (
    AllowedHosts,
    DataRoots,
    Home,
    Host,
    JobsPerOwner,
    Json,
    LogJson,
    Port,
    PriorityPerHour,
    RayAddress,
    RootPath,
    Storage,
    TlsCert,
    TlsKey,
    TrustedProxies,
    WithoutTls,
)
from server.settings import Settings

DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"


def serve(
    *,
    home: Home,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    ray_address: RayAddress = None,
    storage: Storage = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    without_tls: WithoutTls = False,
    root_path: RootPath = "",
    trusted_proxy: TrustedProxies = None,
    allowed_host: AllowedHosts = None,
    data_root: DataRoots = None,
    priority_per_hour: PriorityPerHour = 1.0,
    jobs_per_owner: JobsPerOwner = None,
    log_json: LogJson = False,
    as_json: Json = False,
) -> None:
    """Run the server: REST API, dashboard and scheduler.

    Example: bigbatch serve --port 8001 --home /data/bigbatch
    """
    from server.http.serve import serve as run

    settings = Settings(
        home=home,
        host=host,
        port=port,
        ray_address=ray_address,
        storage=storage,
        data_roots=tuple(data_root or ()),
        priority_per_hour=priority_per_hour,
        jobs_per_owner=jobs_per_owner,
        log_json=log_json,
        tls_cert=tls_cert,
        tls_key=tls_key,
        without_tls=without_tls,
        root_path=root_path,
        trusted_proxies=tuple(trusted_proxy or ()),
        allowed_hosts=tuple(allowed_host or ()),
    )
    raise typer.Exit(run(settings, as_json=as_json))


def demo(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The job.")] = DEMO,
    *,
    home: Home,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    without_tls: WithoutTls = False,
    as_json: Json = False,
) -> None:
    """Serve, train a small BERT and watch it, in one command.

    Example: bigbatch demo --port 8001
    """
    from rich.console import Console

    from server.cli import demo as demonstration
    from server.cli.files import read_job

    document, _ = read_job(file)
    settings = Settings(home=home, host=host, port=port, tls_cert=tls_cert, tls_key=tls_key, without_tls=without_tls)
    try:
        job = demonstration.run(document, settings, Console(), as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if job["status"] == "SUCCEEDED" else 1)


def doctor(*, home: Home, host: Host = "127.0.0.1", port: Port = 8000, as_json: Json = False) -> None:
    """Check that this machine has what bigbatch needs: 1 if something is missing.

    Example: bigbatch doctor
    """
    from server.cli.doctor import Mark, examine
    from server.cli.output.tables import findings_table, print_json, screen

    findings = list(examine(home, host, port))
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        screen().print(findings_table(findings))
    raise typer.Exit(int(any(finding.mark is Mark.MISSING for finding in findings)))
