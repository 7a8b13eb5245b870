import subprocess
import sys


def test_the_command_starts_without_torch_ray_and_the_web_framework() -> None:
    heavy = ("torch", "ray", "fastapi", "httpx", "sqlalchemy", "pydantic", "numpy")
    script = f"""
import atexit, sys
from importlib.metadata import entry_points
atexit.register(lambda: print([name for name in {heavy} if name in sys.modules], file=sys.stderr))
(command,) = entry_points(group="console_scripts", name="bigbatch")
sys.argv = ["bigbatch", "--help"]
command.load()()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Usage: bigbatch" in done.stdout
    assert done.stderr == "[]\n"
