"""The home folder of a server, which other users of the machine cannot read."""

from server.settings import Settings
from workers.contract.files import close_to_others


def close_home(settings: Settings) -> None:
    """Make the home folder where it is missing, and close it and the files in it to other users.

    Raises:
        OSError: the folder cannot be made or read.
    """
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (settings.home, *settings.home.iterdir()):
        if not path.is_symlink():
            close_to_others(path)
